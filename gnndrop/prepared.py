"""What layers derive from a graph before any message is sent, remembered for all that share it."""

from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import add_remaining_self_loops, add_self_loops, remove_self_loops

from gnndrop.graph import Graph, Memo


class Prepared:
    """Derived graphs, each remembered by what it is derived from.

    Args:
        capacity: how many of each kind to keep; default 4.

    Attributes:
        graph: the structure of an `edge_index`.
        normalized: GCN's normalization of it.
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
        self.normalized = Memo(gcn_norm, capacity)
        self.completed = Memo(add_remaining_self_loops, capacity)
        self.looped = Memo(_loop_once, capacity)


def _loop_once(edge_index: Tensor, num_nodes: int) -> Tensor:
    edges, _ = remove_self_loops(edge_index)
    looped: Tensor
    looped, _ = add_self_loops(edges, num_nodes=num_nodes)
    return looped
