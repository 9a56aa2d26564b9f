"""What layers derive from a graph before any message is sent, remembered for all that share it."""

from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, add_self_loops, remove_self_loops

from gnndrop.graph import Graph, Memo, plain


class NormalizedGraph:
    """A graph as GCN's normalization leaves it.

    Args:
        edge_index: int64 of shape (2, E).
        edge_weight: shape (E,), or None for ones.
        num_nodes: the number of nodes.
        improved: whether a self-loop counts twice.
        add_self_loops: whether nodes without one get one.
        flow: PyG's direction of messages.
        dtype: of the weights.
        prepare: what makes the structure of an `edge_index`.
    """

    def __init__(
        self,
        edge_index: Tensor,
        edge_weight: Tensor | None,
        num_nodes: int,
        improved: bool,
        add_self_loops: bool,
        flow: str,
        dtype: torch.dtype,
        prepare: Memo[Graph],
    ) -> None:
        self.edges: tuple[Tensor, Tensor] = gcn_norm(
            edge_index, edge_weight, num_nodes, improved, add_self_loops, flow, dtype
        )
        self.num_nodes = num_nodes
        self._prepare = prepare

    @cached_property
    def factors(self) -> Tensor:
        """The weights with an axis of heads, as kernels take them."""
        return self.edges[1][:, None]

    @cached_property
    def graph(self) -> Graph:
        """Its structure."""
        return self._prepare(plain(self.edges[0]), self.num_nodes, self.num_nodes)


class Prepared:
    """Derived graphs, each remembered by what it is derived from.

    Args:
        capacity: how many of each kind to keep; default 4.

    Attributes:
        graph: the structure of an `edge_index`.
        completed: it with a self-loop at each node that has none, as GCN adds them.
        looped: it with one self-loop at each node in place of all, as GAT has them.

    Example:
        >>> import torch
        >>> prepared = Prepared()
        >>> prepared.looped(torch.tensor([[0, 1], [1, 1]]), 2).tolist()
        [[0, 0, 1], [1, 0, 1]]
    """

    def __init__(self, capacity: int = 4) -> None:
        self.graph = Memo(Graph, capacity)
        self._normalized = Memo(NormalizedGraph, capacity)
        self.completed = Memo(add_remaining_self_loops, capacity)
        self.looped = Memo(_loop_once, capacity)

    def normalized(self, *arguments: object) -> NormalizedGraph:
        """Return GCN's normalization of a graph: see `NormalizedGraph` for the arguments."""
        return self._normalized(*arguments, self.graph)


def _loop_once(edge_index: Tensor, num_nodes: int) -> Tensor:
    edges, _ = remove_self_loops(edge_index)
    looped: Tensor
    looped, _ = add_self_loops(edges, num_nodes=num_nodes)
    return looped
