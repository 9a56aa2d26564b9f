"""Graphs, installed as `gnndrop.datasets`: `load` by name, `make_*` for generated ones."""

if __name__ != "gnndrop.datasets":
    raise ImportError("import gnndrop.datasets; is the repository root on sys.path?")

# Importing a family declares its datasets.
from gnndrop.datasets import digits as digits
from gnndrop.datasets import heterophilous_filtered as heterophilous_filtered
from gnndrop.datasets import karate as karate
from gnndrop.datasets import planetoid as planetoid
from gnndrop.datasets import webkb as webkb
from gnndrop.datasets._base import DATASETS, Dataset, Declaration, load
from gnndrop.datasets.csbm import make_csbm
from gnndrop.datasets.homophily import Homophily, homophily
from gnndrop.datasets.minesweeper import make_minesweeper
from gnndrop.datasets.splits import Split, random_splits

__all__ = [
    "DATASETS",
    "Dataset",
    "Declaration",
    "Homophily",
    "Split",
    "homophily",
    "load",
    "make_csbm",
    "make_minesweeper",
    "random_splits",
]
