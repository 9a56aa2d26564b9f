"""Wiki-CS: articles on computer science, their links, mean word vectors, branches of the field."""

from pathlib import Path

from torch_geometric.data import Data
from torch_geometric.datasets import WikiCS

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets._pyg import read_pyg
from gnndrop.datasets.splits import Split


@DATASETS.register("wikics")
def wikics() -> Declaration:
    """Wiki-CS: Wikipedia articles on computer science and their links; 20 published splits."""
    return Declaration(
        build=_read,
        nodes=11701,
        edges=431726,  # DGL's documentation of the same symmetrized graph
        features=300,
        classes=10,
        splits=20,
        citation="Mernyei and Cangea 2020, Wiki-CS: A Wikipedia-Based Benchmark for Graph Neural "
        "Networks",
        licence="MIT (pmernyei/wiki-cs-dataset)",
        files=("WikiCS/raw/data.json",),
        note="links symmetrized; 20 published splits with one test set; the nodes that they set "
        "aside for early stopping are in no mask",
    )


def _read(folder: Path) -> tuple[Data, list[Split]]:
    return read_pyg(lambda: WikiCS(str(folder / "WikiCS"), is_undirected=True))
