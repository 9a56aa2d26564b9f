"""Actor: actors who share a Wikipedia page, keywords, kinds of actor (Pei et al. 2020)."""

from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.datasets import Actor

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets._geom_gcn import CITATION, LICENCE, NOTE, raw_files
from gnndrop.datasets._pyg import read_pyg
from gnndrop.datasets.splits import Split


@DATASETS.register("actor")
def actor() -> Declaration:
    """Actor: actors and the Wikipedia pages they share; directed, heterophilous."""
    return Declaration(
        build=_read,
        nodes=7600,
        edges=30019,
        features=932,
        classes=5,
        splits=10,
        citation=CITATION,
        licence=LICENCE,
        files=raw_files("Actor/raw", "film"),
        note=f"{NOTE}; links that the file repeats are one",
        homophily=0.219,
    )


def _read(folder: Path) -> tuple[Data, list[Split]]:
    return read_pyg(lambda: Actor(str(folder / "Actor")))
