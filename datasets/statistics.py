"""What a graph looks like before anything is trained: sizes, degrees, labels, homophily."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch_geometric.utils import is_undirected, to_scipy_sparse_matrix

from gnndrop.datasets._base import Dataset
from gnndrop.datasets.homophily import HOMOPHILOUS_FROM, Homophily


@dataclass(frozen=True)
class Degrees:
    """The distribution of the degrees.

    Args:
        min: smallest.
        median: middle one, the lower of two.
        mean: edges per node.
        max: largest.
    """

    min: int
    median: int
    mean: float
    max: int


@dataclass(frozen=True)
class Description:
    """What `describe` found.

    Args:
        name: the dataset's.
        nodes: number of nodes.
        edges: number of columns of `edge_index`; an undirected edge has two.
        directed: whether an edge lacks its reverse.
        self_loops: edges from a node to itself.
        repeated_edges: columns that another column repeats.
        isolated_nodes: nodes without an edge to another.
        components: parts of the graph that no edge joins, directions aside.
        degree: number of edges that come in at a node, self-loops and repeated ones included.
        features: number of features.
        feature_density: share of features that are not zero.
        classes: number of nodes in each class.
        unlabelled: nodes without a label.
        splits: number of splits.
        metric: `accuracy` or `roc_auc`.
        homophily: the five measures.
        note: what a reader of results must know.

    Example:
        >>> from gnndrop.datasets._base import load
        >>> describe(load("karate")).sentence
        'homophilous: adjusted homophily is 0.72, at least 0.3'
    """

    name: str
    nodes: int
    edges: int
    directed: bool
    self_loops: int
    repeated_edges: int
    isolated_nodes: int
    components: int
    degree: Degrees
    features: int
    feature_density: float
    classes: tuple[int, ...]
    unlabelled: int
    splits: int
    metric: str
    homophily: Homophily
    note: str

    @property
    def sentence(self) -> str:
        """On which side of the divide the graph is, and by which rule.

        The rule is that of `Homophily.is_homophilous`: adjusted homophily of at least 0.3.
        """
        adjusted = self.homophily.adjusted
        if math.isnan(adjusted):
            return "on no side: adjusted homophily is not defined, no edges join two classes"
        if self.homophily.is_homophilous:
            return f"homophilous: adjusted homophily is {adjusted:.2f}, at least {HOMOPHILOUS_FROM}"
        return f"heterophilous: adjusted homophily is {adjusted:.2f}, below {HOMOPHILOUS_FROM}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything, fit for JSON; what is not defined is None."""
        measures = asdict(self.homophily)
        return {
            **asdict(self),
            "feature_density": _defined(self.feature_density),
            "homophily": {name: _defined(value) for name, value in measures.items()},
            "homophilous": self.homophily.is_homophilous,
            "sentence": self.sentence,
        }


def describe(dataset: Dataset) -> Description:
    """Measure a graph.

    Args:
        dataset: the graph.

    Returns:
        Sizes, degrees, labels and homophily.

    Example:
        >>> from gnndrop.datasets._base import load
        >>> karate = describe(load("karate"))
        >>> karate.degree.max, karate.classes, karate.components
        (17, (17, 17), 1)
    """
    data = dataset.data
    edge_index, nodes = data.edge_index, int(data.num_nodes)
    is_loop = edge_index[0] == edge_index[1]
    touched = torch.zeros(nodes, dtype=torch.bool)
    touched[edge_index[:, ~is_loop].flatten()] = True
    degree = torch.bincount(edge_index[1], minlength=nodes)
    adjacency = to_scipy_sparse_matrix(edge_index, num_nodes=nodes)
    return Description(
        name=dataset.name,
        nodes=nodes,
        edges=edge_index.size(1),
        directed=not is_undirected(edge_index, num_nodes=nodes),
        self_loops=int(is_loop.sum()),
        repeated_edges=count_repeated(edge_index, nodes),
        isolated_nodes=int((~touched).sum()),
        components=int(connected_components(adjacency, directed=False)[0]),
        degree=Degrees(
            int(degree.min()), int(degree.median()), edge_index.size(1) / nodes, int(degree.max())
        ),
        features=int(data.num_features),
        feature_density=int(data.x.count_nonzero()) / data.x.numel()
        if data.x.numel()
        else math.nan,
        classes=tuple(torch.bincount(data.y[data.y >= 0]).tolist()),
        unlabelled=int((data.y < 0).sum()),
        splits=len(dataset.splits),
        metric=dataset.metric,
        homophily=dataset.homophily,
        note=dataset.note,
    )


def count_repeated(edge_index: Tensor, nodes: int) -> int:
    """Return how many columns of `edge_index` repeat another."""
    distinct = torch.unique(edge_index[0] * nodes + edge_index[1])
    return edge_index.size(1) - len(distinct)


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
