"""Citation graphs of Planetoid (Yang et al. 2016): papers, cited papers, bags of words, topics."""

from functools import partial
from pathlib import Path
from typing import Literal

from torch_geometric.data import Data
from torch_geometric.datasets import Planetoid

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets._geom_gcn import LICENCE, split_files
from gnndrop.datasets._pyg import read_pyg
from gnndrop.datasets.splits import Split

SplitName = Literal["public", "geom-gcn"]


@DATASETS.register("cora")
def cora(split: SplitName = "public") -> Declaration:
    """Cora: machine-learning papers and their citations; undirected, homophilous.

    Args:
        split: `public`, the one split of Yang et al. (20 training nodes per class, 500 for
            validation, 1000 for testing), or `geom-gcn`, the ten of Pei et al. (2020).
    """
    return _planetoid("Cora", split, 2708, 10556, features=1433, classes=7, homophily=0.810)


@DATASETS.register("citeseer")
def citeseer(split: SplitName = "public") -> Declaration:
    """CiteSeer: computer-science papers and their citations; undirected, homophilous.

    Args:
        split: `public` or `geom-gcn`, as of Cora.
    """
    return _planetoid(
        *("CiteSeer", split, 3327, 9104),
        features=3703,
        classes=6,
        homophily=0.736,
        trap="; some nodes have no neighbours, and 15 no features",
    )


@DATASETS.register("pubmed")
def pubmed(split: SplitName = "public") -> Declaration:
    """PubMed: papers on diabetes and their citations, TF-IDF features; undirected, homophilous.

    Args:
        split: `public` or `geom-gcn`, as of Cora.
    """
    return _planetoid("PubMed", split, 19717, 88648, features=500, classes=3, homophily=0.802)


def _planetoid(
    name: str,
    split: SplitName,
    nodes: int,
    edges: int,
    *,
    features: int,
    classes: int,
    homophily: float,
    trap: str = "",
) -> Declaration:
    low = name.lower()
    parts = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
    files = [f"ind.{low}.{part}" for part in parts]
    folder = f"Planetoid/{name}/raw"
    note = "undirected; public split (Yang et al. 2016)"
    licence = "MIT (kimiyoung/planetoid)"
    if split == "geom-gcn":
        files += split_files(low)
        folder = f"Planetoid/{name}/geom-gcn/raw"
        note = "undirected; ten Geom-GCN splits (Pei et al. 2020); they leave some nodes in no mask"
        licence += f"; splits: {LICENCE}"
    return Declaration(
        build=partial(_read, name, split),
        nodes=nodes,
        edges=edges,
        features=features,
        classes=classes,
        splits=10 if split == "geom-gcn" else 1,
        citation="Yang et al. 2016, Revisiting Semi-Supervised Learning with Graph Embeddings",
        licence=licence,
        files=tuple(f"{folder}/{file}" for file in files),
        note=note + trap,
        homophily=homophily,
    )


def _read(name: str, split: SplitName, folder: Path) -> tuple[Data, list[Split]]:
    return read_pyg(lambda: Planetoid(str(folder / "Planetoid"), name, split=split))
