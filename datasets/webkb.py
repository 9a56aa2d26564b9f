"""WebKB: pages of university computer science departments, bags of words, kinds of page."""

from functools import partial
from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.datasets import WebKB

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets._pyg import read_pyg
from gnndrop.datasets.splits import Split


@DATASETS.register("texas")
def texas() -> Declaration:
    """Texas: web pages of a department and their links; directed, heterophilous, tiny."""
    return _webkb("texas", nodes=183, edges=325, features=1703, classes=5)


def _webkb(name: str, *, nodes: int, edges: int, features: int, classes: int) -> Declaration:
    folder = f"WebKB/{name}/raw"
    files = ["out1_node_feature_label.txt", "out1_graph_edges.txt"]
    files += [f"{name}_split_0.6_0.2_{index}.npz" for index in range(10)]
    return Declaration(
        build=partial(_read, name),
        nodes=nodes,
        edges=edges,
        features=features,
        classes=classes,
        splits=10,
        citation="Pei et al. 2020, Geom-GCN: Geometric Graph Convolutional Networks",
        licence="none stated (graphdml-uiuc-jlu/geom-gcn)",
        files=tuple(f"{folder}/{file}" for file in files),
        note="links directed and with self-loops, as published and as PyG gives them; studies that "
        "symmetrize them (to_undirected) report other scores; ten Geom-GCN splits",
    )


def _read(name: str, folder: Path) -> tuple[Data, list[Split]]:
    return read_pyg(lambda: WebKB(str(folder / "WebKB"), name))
