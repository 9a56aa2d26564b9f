"""The groups of nodes in which a measure may differ: by homophily, degree, distance to training.

A mean over all nodes hides where a model is wrong. Groups say nothing about cause, and homophily
needs the labels of the nodes that are evaluated: it is for looking back, not for prediction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import dijkstra
from torch import Tensor
from torch_geometric.utils import scatter, to_scipy_sparse_matrix

from gnndrop.errors import ParameterError
from gnndrop.uncertainty.measures import Array, as_tensor

# The 95 % interval of a share near one half is then ±0.18, and wider below.
MINIMUM_NODES = 30


@dataclass(frozen=True)
class Stratum:
    """A measure in one group of nodes.

    Args:
        name: the group's.
        nodes: how many of its nodes the measure is of.
        value: the measure; nan where there are no nodes.
        ranked: whether the group has enough nodes, 30, to be compared with others.

    Example:
        >>> Stratum("isolated", nodes=3, value=0.5, ranked=False).nodes
        3
    """

    name: str
    nodes: int
    value: float
    ranked: bool


@dataclass(frozen=True, eq=False)
class Strata:
    """A partition of the nodes into named groups.

    Args:
        names: of the G groups, in their order.
        group: int64 of shape (N,), the number of every node's group.

    Example:
        >>> strata = Strata(("low", "high"), torch.tensor([0, 1, 1]))
        >>> strata.sizes()
        (1, 2)
        >>> strata.measure(lambda nodes: float(nodes.sum()), torch.tensor([True, True, False]))[1]
        Stratum(name='high', nodes=1, value=1.0, ranked=False)
    """

    names: tuple[str, ...]
    group: Tensor

    def sizes(self, nodes: Tensor | None = None) -> tuple[int, ...]:
        """Return how many nodes each group has.

        Args:
            nodes: bool of shape (N,), which ones count; all by default.

        Returns:
            G numbers.

        Example:
            >>> Strata(("low", "high"), torch.tensor([0, 1, 1])).sizes(torch.tensor([True] * 3))
            (1, 2)
        """
        group = self.group if nodes is None else self.group[_mask(nodes, self.group)]
        return tuple(torch.bincount(group, minlength=len(self.names)).tolist())

    def measure(
        self, value: Callable[[Tensor], float], nodes: Tensor | None = None
    ) -> list[Stratum]:
        """Return a measure of every group, the small ones marked.

        Args:
            value: the measure, of the nodes that a bool mask of shape (N,) names; it is not asked
                about a group without nodes.
            nodes: bool of shape (N,), such as the test mask; all by default.

        Returns:
            One for each group, in order; groups of fewer than 30 nodes are not `ranked`.

        Raises:
            ParameterError: if nodes is no mask of the nodes.

        Example:
            >>> right = torch.tensor([True, False, True])
            >>> strata = Strata(("low", "high"), torch.tensor([0, 1, 1]))
            >>> [one.value for one in strata.measure(lambda nodes: float(right[nodes].sum()))]
            [1.0, 1.0]
        """
        found = []
        for number, (name, size) in enumerate(zip(self.names, self.sizes(nodes), strict=True)):
            members = self.group == number
            if nodes is not None:
                members &= nodes
            worth = value(members) if size else float("nan")
            found.append(Stratum(name, size, worth, ranked=size >= MINIMUM_NODES))
        return found


def strata(data: Any, train_mask: Array) -> dict[str, Strata]:
    """Group the nodes of a graph by homophily, degree and distance to the training nodes.

    Args:
        data: a PyG `Data` with `edge_index`; with `y` of shape (N,) also homophily is grouped by.
        train_mask: bool of shape (N,).

    Returns:
        `homophily`, `degree` and `distance`, as the functions of this module group them.

    Raises:
        ParameterError: if there is no `edge_index`, or train_mask is no mask of the nodes.

    Example:
        >>> from torch_geometric.data import Data
        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> graph = Data(edge_index=edge_index, y=torch.tensor([0, 0, 1, 1]), num_nodes=4)
        >>> groups = strata(graph, torch.tensor([True, False, False, False]))
        >>> {name: one.names[int(one.group[2])] for name, one in groups.items()}
        {'homophily': '[0, 0.25)', 'degree': '1', 'distance': '2'}
    """
    edge_index = getattr(data, "edge_index", None)
    if edge_index is None:
        raise ParameterError(
            "strata need the graph's edges, got data without edge_index; "
            "set it, for an adjacency matrix with torch_geometric.utils.to_edge_index"
        )
    nodes = int(data.num_nodes)
    found = {
        "degree": by_degree(edge_index, nodes),
        "distance": by_distance(edge_index, nodes, train_mask),
    }
    y = getattr(data, "y", None)
    if y is None or y.ndim != 1 or y.is_floating_point():
        return found
    return {"homophily": by_homophily(edge_index, y), **found}


def by_homophily(edge_index: Tensor, y: Tensor) -> Strata:
    """Group nodes by the share of their neighbours that have their label.

    Per node what `torch_geometric.utils.homophily` with `method="node"` averages: over the edges
    that come in, self-loops and repeated edges included; nodes labelled -1 are left out with their
    edges (Pei et al., "Geom-GCN", ICLR 2020).

    Args:
        edge_index: integer of shape (2, E).
        y: integer of shape (N,).

    Returns:
        Four groups of equal width, the nodes without a labelled neighbour, and those without a
        label.

    Example:
        >>> groups = by_homophily(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0, 1, -1]))
        >>> [groups.names[number] for number in groups.group.tolist()]
        ['[0.75, 1]', '[0.75, 1]', 'isolated', 'unlabelled']
    """
    names = ("[0, 0.25)", "[0.25, 0.5)", "[0.5, 0.75)", "[0.75, 1]", "isolated", "unlabelled")
    row, col = edge_index[:, (y[edge_index] >= 0).all(0)]
    same = scatter((y[row] == y[col]).double(), col, dim_size=y.numel(), reduce="mean")
    group = torch.bucketize(same, same.new_tensor([0.25, 0.5, 0.75]), right=True)
    group[torch.bincount(col, minlength=y.numel()) == 0] = names.index("isolated")
    group[y < 0] = names.index("unlabelled")
    return Strata(names, group)


def by_degree(edge_index: Tensor, num_nodes: int) -> Strata:
    """Group nodes by degree, in powers of two: 0, 1, 2-3, 4-7, ...

    Args:
        edge_index: integer of shape (2, E).
        num_nodes: N.

    Returns:
        Groups up to that of the highest degree, which is the number of edges that come in.

    Example:
        >>> groups = by_degree(torch.tensor([[0, 1, 2, 3], [1, 0, 0, 0]]), 4)
        >>> groups.names, groups.sizes()
        (('0', '1', '2-3'), (2, 1, 1))
    """
    degree = torch.bincount(edge_index[1], minlength=num_nodes)
    powers = int(degree.max()).bit_length() if num_nodes else 0
    starts = 2 ** torch.arange(powers, device=degree.device)
    ranges = [f"{start}-{2 * start - 1}" for start in starts[1:].tolist()]
    names = ("0", "1", *ranges)[: powers + 1]
    return Strata(names, torch.bucketize(degree, starts, right=True))


def by_distance(edge_index: Tensor, num_nodes: int, train_mask: Array) -> Strata:
    """Group nodes by the number of edges to the nearest training node, directions aside.

    Args:
        edge_index: integer of shape (2, E).
        num_nodes: N.
        train_mask: bool of shape (N,).

    Returns:
        The groups 0 (the training nodes), 1, 2, 3+ and unreachable.

    Raises:
        ParameterError: if train_mask is no mask of the nodes.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
        >>> by_distance(edge_index, 6, [True, False, False, False, False, False]).sizes()
        (1, 1, 1, 2, 1)
    """
    mask = _mask(train_mask, torch.empty(num_nodes))
    distance = np.full(num_nodes, np.inf)
    if mask.any():
        adjacency = to_scipy_sparse_matrix(edge_index.cpu(), num_nodes=num_nodes)
        distance = dijkstra(
            adjacency,
            directed=False,
            unweighted=True,
            indices=mask.nonzero().flatten().numpy(),
            min_only=True,
        )
    group = np.where(np.isinf(distance), 4, np.minimum(distance, 3)).astype(np.int64)
    names = ("0", "1", "2", "3+", "unreachable")
    return Strata(names, torch.from_numpy(group).to(edge_index.device))


def _mask(nodes: Array, like: Tensor) -> Tensor:
    mask = as_tensor(nodes).to(like.device)
    if mask.dtype != torch.bool or mask.shape != like.shape:
        raise ParameterError(
            f"a mask must hold True or False for each of the {len(like)} nodes, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}"
        )
    return mask
