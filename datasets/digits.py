"""Handwritten digits as a graph of nearest neighbours: images become nodes."""

from functools import partial

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import euclidean_distances
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.splits import Split, check_seed, random_splits
from gnndrop.errors import ParameterError

NODES = 1797


@DATASETS.register("digits")
def digits(k: int = 5, seed: int = 0) -> Declaration:
    """Handwritten digits of scikit-learn, each joined to its `k` nearest others and they to it.

    Args:
        k: number of nearest neighbours by Euclidean distance, in [1, 1796].
        seed: of the random splits, at least 0.

    Raises:
        ParameterError: if `k` or the seed is out of its range.
    """
    if not 1 <= k < NODES:
        raise ParameterError(f"k must be in [1, {NODES - 1}], got {k}")
    check_seed(seed)
    return Declaration(
        build=partial(_build, k, seed),
        nodes=NODES,
        edges=12618 if k == 5 else None,
        features=64,
        classes=10,
        splits=10,
        citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits (UCI)",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        note="edges are made from the features (union of k-nearest-neighbour relations); ten "
        "random splits 48/32/20, stratified by class",
        homophily=0.973 if k == 5 else None,
    )


def _build(k: int, seed: int, _: object) -> tuple[Data, list[Split]]:
    pixels, labels = load_digits(return_X_y=True)
    # Pixels are small integers: distances are exact and often equal. A stable order gives ties to
    # the lower index, on every machine.
    distances = euclidean_distances(pixels, squared=True)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
    edges = np.stack([np.repeat(np.arange(NODES), k), nearest.ravel()])
    data = Data(
        x=torch.from_numpy(pixels / 16).float(),
        edge_index=to_undirected(torch.from_numpy(edges), num_nodes=NODES),
        y=torch.from_numpy(labels),
    )
    return data, random_splits(data.y, seed=seed)
