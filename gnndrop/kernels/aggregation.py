"""The masked sum over edges, and its derivatives, which are sums of the same kind."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Compressed, Graph
from gnndrop.kernels._dispatch import backend, call
from gnndrop.masks import Mask


def aggregate(
    graph: Graph,
    x: Tensor,
    weight: Tensor | None = None,
    mask: Mask | None = None,
    symmetric: bool = False,
) -> Tensor:
    r"""Sum weighted, masked messages: $y_{ic} = s \sum_{e:j \to i} w_{eh(c)} m(e, c) x_{jc}$.

    The messages, an E x C array, are never formed by the compiled kernels.

    Args:
        graph: the graph.
        x: shape (num_sources, H * C).
        weight: shape (E,) or (E, H), a factor per edge and head; by default ones.
        mask: by any of edge and channel; by default nothing is dropped.
        symmetric: whether both directions of an edge share their coins.

    Returns:
        Shape (num_targets, H * C), differentiable by `x` and `weight` to any order.

    Raises:
        ParameterError: if `x` or `weight` does not have such a shape; nothing reads out of bounds.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> aggregate(graph, torch.tensor([[1.0], [2.0]])).tolist()
        [[0.0], [3.0]]
    """
    if weight is not None and weight.dim() == 1:
        weight = weight[:, None]
    check_shapes(graph, x.shape, weight)
    return call(Aggregate, x, weight, Edges(graph, mask, symmetric))


def check_shapes(graph: Graph, shape: Sequence[int], weight: Tensor | None) -> None:
    """Refuse what a kernel would read out of bounds: see `aggregate`, whose x has that shape."""
    if len(shape) != 2 or shape[0] != graph.num_sources:
        raise ParameterError(
            f"x must be a matrix of {graph.num_sources} rows, one for each source, "
            f"got shape {tuple(shape)}"
        )
    num_edges = graph.edge_index.size(1)
    if weight is not None and (
        weight.dim() != 2
        or weight.size(0) != num_edges
        or weight.size(1) == 0
        or shape[1] % weight.size(1)
    ):
        raise ParameterError(
            f"weight must have shape ({num_edges},), or ({num_edges}, heads) where heads divide "
            f"{shape[1]} columns, got shape {tuple(weight.shape)}"
        )


class Edges(NamedTuple):
    """Masked edges, seen from their targets or, transposed, from their sources."""

    graph: Graph
    mask: Mask | None
    symmetric: bool
    transposed: bool = False

    @property
    def rows(self) -> Compressed:
        """The edges, row by row."""
        return self.graph.rows(self.transposed)

    @property
    def coins(self) -> tuple[Tensor | None, Mask | None]:
        """The coordinates of the edges, and the mask to ask there."""
        if self.mask is None:
            return None, None
        return self.graph.coins(self.mask, self.symmetric, self.transposed)

    def transpose(self) -> "Edges":
        """Return the same edges, seen from their other ends."""
        return self._replace(transposed=not self.transposed)


# The form T(w, x, y) = sum_e w_e sum_c m_ec x_jc y_ic is linear in each of its three arguments:
# `Aggregate` is its derivative by y (by x with the ends exchanged), `EdgeProducts` the one by w.
# Hence the derivatives of both are made of both.
class Aggregate(torch.autograd.Function):
    """See `aggregate`; `weight` has an axis of heads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, edges: Edges) -> Tensor:
        """Sum the messages."""
        is_learnt = weight is not None and weight.requires_grad  # else x may be freed
        ctx.save_for_backward(x if is_learnt else None, weight)
        ctx.edges = edges
        result: Tensor = backend(x).aggregate(edges.rows, x, weight, *edges.coins)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the derivatives by `x` and `weight`."""
        x, weight = ctx.saved_tensors
        gradient, x_gradient, weight_gradient = gradients[0], None, None
        if ctx.needs_input_grad[0]:
            x_gradient = call(Aggregate, gradient, weight, ctx.edges.transpose())
        if weight is not None and ctx.needs_input_grad[1]:
            weight_gradient = call(EdgeProducts, x, gradient, weight.size(1), ctx.edges)
        return x_gradient, weight_gradient, None


class EdgeProducts(torch.autograd.Function):
    """Masked products of the two ends of every edge, head by head: shape (E, H)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, heads: int, edges: Edges) -> Tensor:
        """Multiply the rows of the sources and of the targets."""
        ctx.save_for_backward(x, y)
        ctx.edges = edges
        result: Tensor = backend(x).edge_products(edges.rows, x, y, heads, *edges.coins)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the derivatives by `x` and `y`."""
        x, y = ctx.saved_tensors
        gradient, x_gradient, y_gradient = gradients[0], None, None
        if ctx.needs_input_grad[0]:
            x_gradient = call(Aggregate, y, gradient, ctx.edges.transpose())
        if ctx.needs_input_grad[1]:
            y_gradient = call(Aggregate, x, gradient, ctx.edges)
        return x_gradient, y_gradient, None, None
