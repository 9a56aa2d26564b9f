"""WebKB: pages of university computer science departments, bags of words, kinds of page."""

from functools import partial
from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.datasets import WebKB

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets._geom_gcn import CITATION, LICENCE, NOTE, raw_files
from gnndrop.datasets._pyg import read_pyg
from gnndrop.datasets.splits import Split


@DATASETS.register("cornell")
def cornell() -> Declaration:
    """Cornell: web pages of a department and their links; directed, heterophilous, tiny."""
    return _webkb("cornell", nodes=183, edges=298, homophily=0.305)


@DATASETS.register("texas")
def texas() -> Declaration:
    """Texas: web pages of a department and their links; directed, heterophilous, tiny."""
    return _webkb("texas", nodes=183, edges=325, homophily=0.108, trap="; one class has one node")


@DATASETS.register("wisconsin")
def wisconsin() -> Declaration:
    """Wisconsin: web pages of a department and their links; directed, heterophilous, tiny."""
    return _webkb("wisconsin", nodes=251, edges=515, homophily=0.196)


def _webkb(name: str, *, nodes: int, edges: int, homophily: float, trap: str = "") -> Declaration:
    return Declaration(
        build=partial(_read, name),
        nodes=nodes,
        edges=edges,
        features=1703,
        classes=5,
        splits=10,
        citation=CITATION,
        licence=LICENCE,
        files=raw_files(f"WebKB/{name}/raw", name),
        note=NOTE + trap,
        homophily=homophily,
    )


def _read(name: str, folder: Path) -> tuple[Data, list[Split]]:
    return read_pyg(lambda: WebKB(str(folder / "WebKB"), name))
