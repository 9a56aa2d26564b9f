"""The heterophilous graphs of Platonov et al. (2023): five domains, ten published splits each."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.splits import Split

CITATION = (
    "Platonov et al. 2023, A Critical Look at the Evaluation of GNNs under Heterophily: Are We "
    "Really Making Progress?"
)
LICENCE = "MIT (yandex-research/heterophilous-graphs)"
KEYS = ("node_features", "node_labels", "edges", "train_masks", "val_masks", "test_masks")


# Counts and homophily: the table in the README of the graphs' repository, at the commit that the
# manifest pins; there an edge counts once. Three decimals are measured on the published files.


@DATASETS.register("minesweeper")
def minesweeper() -> Declaration:
    """Minesweeper: the published board of 100 x 100 cells, find the mines; edges help, unlike."""
    return _graph("minesweeper", 10_000, 39_402, 7, 2, homophily=0.683)


@DATASETS.register("tolokers")
def tolokers() -> Declaration:
    """Tolokers: crowd workers who shared a task, find the banned ones; dense, heterophilous."""
    return _graph("tolokers", 11_758, 519_000, 10, 2, homophily=0.595)


@DATASETS.register("roman-empire")
def roman_empire() -> Declaration:
    """Roman-empire: words of an article, their order and syntax, find their role; chain-like."""
    return _graph("roman_empire", 22_662, 32_927, 300, 18, homophily=0.05)


@DATASETS.register("amazon-ratings")
def amazon_ratings() -> Declaration:
    """Amazon-ratings: products bought together, find their rating; heterophilous."""
    return _graph("amazon_ratings", 24_492, 93_050, 300, 5, homophily=0.38)


@DATASETS.register("questions")
def questions() -> Declaration:
    """Questions: users who answered one another, find who stays active; unbalanced classes."""
    return _graph("questions", 48_921, 153_540, 301, 2, homophily=0.84)


def _graph(
    name: str, nodes: int, edges: int, features: int, classes: int, *, homophily: float
) -> Declaration:
    file = f"HeterophilousGraphDataset/{name}/raw/{name}.npz"
    return Declaration(
        build=partial(read_archive, file),
        nodes=nodes,
        edges=2 * edges,
        features=features,
        classes=classes,
        splits=10,
        citation=CITATION,
        licence=LICENCE,
        metric="roc_auc" if classes == 2 else "accuracy",
        files=(file,),
        note="undirected; ten published splits 50/25/25",
        homophily=homophily,
    )


def read_archive(file: str, folder: Path) -> tuple[Data, list[Split]]:
    """Read an archive as its authors lay it out: each edge once, masks `[splits, nodes]`.

    PyG's class reads five of the seven archives; it closes none that is damaged.
    """
    with (folder / file).open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
        x, y, edges, *masks = (torch.from_numpy(arrays[key]) for key in KEYS)
    edge_index = to_undirected(edges.t().contiguous(), num_nodes=len(y))
    splits = [Split(*three) for three in zip(*(mask.bool() for mask in masks), strict=True)]
    return Data(x=x.float(), edge_index=edge_index, y=y.long()), splits
