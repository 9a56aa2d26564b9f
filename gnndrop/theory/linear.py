"""A linear layer with a place for every kind of operator: what theory is compared with."""

from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.graph import Graph
from gnndrop.operators import Operator


def linear_layer(operator: Operator, channels: int) -> nn.Module:
    """Build a layer that sums weighted neighbours, in which an operator can be attached.

    Attention has a head for each channel, and weighs all edges of a target alike: it ignores their
    weights, see `edge_weights`. What corrects a normalization has a mean in the place of the sum. A
    matrix of weights is the identity. A residual branch is all of the layer.

    Args:
        operator: an operator.
        channels: the size of an input, and of an output.

    Returns:
        A module that takes x of shape (N, channels), edges and their weights.

    Example:
        >>> from gnndrop.operators import DropAttention
        >>> layer = linear_layer(DropAttention(), 1)
        >>> layer(torch.tensor([[1.0], [3.0]]), torch.tensor([[0, 1], [0, 0]])).tolist()
        [[2.0], [0.0]]
    """
    layer: nn.Module
    if operator.site == "attention":
        layer = _UniformAttention(channels)
    elif operator.site == "weights":
        layer = pyg.GCNConv(channels, channels, normalize=False, bias=False)
        layer.load_state_dict({"lin.weight": torch.eye(channels)})
    elif operator.site == "paths":
        layer = _Branch()
    else:
        layer = pyg.SimpleConv(aggr="mean" if operator.rescale == "exact" else "sum")
    return layer.requires_grad_(requires_grad=False)


def edge_weights(operator: Operator, graph: Graph, weight: Tensor) -> Tensor:
    """Return what the layer for an operator multiplies the messages of edges by, shape (E,).

    Example:
        >>> from gnndrop.operators import DropAttention
        >>> graph = Graph(torch.tensor([[0, 1], [0, 0]]))
        >>> edge_weights(DropAttention(), graph, torch.ones(2)).tolist()
        [0.5, 0.5]
    """
    if operator.site != "attention" and operator.rescale != "exact":
        return weight
    degrees = graph.target.bincount(minlength=graph.num_targets)
    shares = degrees[graph.target].to(weight.dtype).reciprocal()
    return shares if operator.site == "attention" else shares * weight


class _UniformAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention: Any = pyg.GATConv(channels, 1, channels, add_self_loops=False, bias=False)
        self.attention.lin.weight = nn.Parameter(torch.eye(channels))
        nn.init.zeros_(self.attention.att_src)
        nn.init.zeros_(self.attention.att_dst)

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor | None = None) -> Tensor:
        out: Tensor = self.attention(x, edge_index)
        return out


class _Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.residual_branches = nn.ModuleList([pyg.SimpleConv(aggr="sum")])

    def forward(self, x: Tensor, edge_index: Tensor, weight: Tensor | None = None) -> Tensor:
        out: Tensor = self.residual_branches[0](x, edge_index, weight)
        return out
