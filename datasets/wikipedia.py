"""Chameleon and squirrel as Geom-GCN published them, duplicate nodes included."""

from functools import partial
from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.datasets import WikipediaNetwork

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets._geom_gcn import CITATION, LICENCE, NOTE, raw_files
from gnndrop.datasets._pyg import read_pyg
from gnndrop.datasets.splits import Split


@DATASETS.register("chameleon")
def chameleon() -> Declaration:
    """Chameleon, raw: Wikipedia pages and their links; duplicate nodes leak test labels."""
    return _wikipedia("chameleon", nodes=2277, edges=36101, features=2325, homophily=0.235)


@DATASETS.register("squirrel")
def squirrel() -> Declaration:
    """Squirrel, raw: Wikipedia pages and their links; duplicate nodes leak test labels."""
    return _wikipedia("squirrel", nodes=5201, edges=217073, features=2089, homophily=0.224)


def _wikipedia(
    name: str, *, nodes: int, edges: int, features: int, homophily: float
) -> Declaration:
    return Declaration(
        build=partial(_read, name),
        nodes=nodes,
        edges=edges,
        features=features,
        classes=5,
        splits=10,
        citation=f"Rozemberczki et al. 2021, Multi-scale Attributed Node Embedding; {CITATION}",
        licence=LICENCE,
        files=raw_files(f"WikipediaNetwork/{name}/geom_gcn/raw", name),
        note=f"{NOTE}; duplicate nodes leak test labels: {name}-filtered is without them",
        homophily=homophily,
        warning="duplicate nodes stand in training and test alike, so that scores measure memory "
        f"(Platonov et al. 2023); use {name}-filtered",
    )


def _read(name: str, folder: Path) -> tuple[Data, list[Split]]:
    return read_pyg(lambda: WikipediaNetwork(str(folder / "WikipediaNetwork"), name))
