"""Graphs, installed as `gnndrop.datasets`: `load` by name, `make_*` for generated ones."""

if __name__ != "gnndrop.datasets":
    raise ImportError("import gnndrop.datasets; is the repository root on sys.path?")

# Importing a family declares its datasets.
from gnndrop.datasets import actor as actor
from gnndrop.datasets import digits as digits
from gnndrop.datasets import heterophilous as heterophilous
from gnndrop.datasets import heterophilous_filtered as heterophilous_filtered
from gnndrop.datasets import karate as karate
from gnndrop.datasets import pitfalls as pitfalls
from gnndrop.datasets import planetoid as planetoid
from gnndrop.datasets import webkb as webkb
from gnndrop.datasets import wikics as wikics
from gnndrop.datasets import wikipedia as wikipedia
from gnndrop.datasets._base import DATASETS, Dataset, Declaration, load
from gnndrop.datasets.csbm import make_csbm
from gnndrop.datasets.homophily import (
    Homophily,
    adjusted_homophily,
    homophily,
    label_informativeness,
)
from gnndrop.datasets.minesweeper import make_minesweeper
from gnndrop.datasets.own import from_arrays, from_data, from_networkx
from gnndrop.datasets.read import read_graph
from gnndrop.datasets.splits import Split, random_splits
from gnndrop.datasets.statistics import Description, describe

__all__ = [
    "DATASETS",
    "Dataset",
    "Declaration",
    "Description",
    "Homophily",
    "Split",
    "adjusted_homophily",
    "describe",
    "from_arrays",
    "from_data",
    "from_networkx",
    "homophily",
    "label_informativeness",
    "load",
    "make_csbm",
    "make_minesweeper",
    "random_splits",
    "read_graph",
]
