"""Co-purchase and co-author graphs of Shchur et al. (2018), for which no splits are published."""

from functools import partial
from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.io import read_npz

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.splits import Split, check_seed, random_splits

ISOLATED = "; some nodes have no neighbours"


@DATASETS.register("computers")
def computers(seed: int = 0) -> Declaration:
    """Amazon Computers: goods bought together, words of their reviews; homophilous.

    Args:
        seed: of the random splits, at least 0.

    Raises:
        ParameterError: if the seed is out of its range.
    """
    file = "Amazon/Computers/raw/amazon_electronics_computers.npz"
    return _graph(file, seed, 13752, 491722, 767, 10, homophily=0.777, trap=ISOLATED)


@DATASETS.register("photo")
def photo(seed: int = 0) -> Declaration:
    """Amazon Photo: goods bought together, words of their reviews; homophilous.

    Args:
        seed: of the random splits, at least 0.

    Raises:
        ParameterError: if the seed is out of its range.
    """
    file = "Amazon/Photo/raw/amazon_electronics_photo.npz"
    return _graph(file, seed, 7650, 238162, 745, 8, homophily=0.827, trap=ISOLATED)


@DATASETS.register("cs")
def cs(seed: int = 0) -> Declaration:
    """Coauthor CS: authors who wrote together, keywords of their papers; homophilous.

    Args:
        seed: of the random splits, at least 0.

    Raises:
        ParameterError: if the seed is out of its range.
    """
    file = "Coauthor/CS/raw/ms_academic_cs.npz"
    return _graph(file, seed, 18333, 163788, 6805, 15, homophily=0.808)


@DATASETS.register("physics")
def physics(seed: int = 0) -> Declaration:
    """Coauthor Physics: authors who wrote together; homophilous; 1.2 GB of features in memory.

    Args:
        seed: of the random splits, at least 0.

    Raises:
        ParameterError: if the seed is out of its range.
    """
    file = "Coauthor/Physics/raw/ms_academic_phy.npz"
    return _graph(file, seed, 34493, 495924, 8415, 5, homophily=0.931)


def _graph(
    file: str,
    seed: int,
    nodes: int,
    edges: int,
    features: int,
    classes: int,
    *,
    homophily: float,
    trap: str = "",
) -> Declaration:
    check_seed(seed)
    return Declaration(
        build=partial(_read, file),
        nodes=nodes,
        edges=edges,
        features=features,
        classes=classes,
        splits=10,
        citation="Shchur et al. 2018, Pitfalls of Graph Neural Network Evaluation",
        licence="MIT (shchur/gnn-benchmark)",
        files=(file,),
        note="links symmetrized, without self-loops, features 0 or 1, as PyG gives them; no "
        f"published splits: ten random ones 48/32/20, stratified by class{trap}",
        draw=partial(random_splits, seed=seed),
        homophily=homophily,
    )


def _read(file: str, folder: Path) -> tuple[Data, list[Split]]:
    # What PyG's classes parse with; they themselves would first write a gigabyte for Physics.
    return read_npz(str(folder / file)), []
