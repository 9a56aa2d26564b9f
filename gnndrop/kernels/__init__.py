"""Masked products with their derivatives: one dispatch for every backend.

The compiled CPU kernels serve float32 and float64 on the CPU, the torch reference everything else.
Bernoulli masks are bit-equal on all of them. A backward pass recomputes its mask; every derivative
is made of the same products, so derivatives of any order are right.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Compressed, Graph
from gnndrop.kernels._dispatch import backend, call
from gnndrop.kernels.kept import Kept, aggregate_kept
from gnndrop.kernels.softmax import attention
from gnndrop.masks import HALF, Mask, spread_rows

__all__ = [
    "Kept",
    "aggregate",
    "aggregate_kept",
    "attention",
    "masked_multiply",
    "masked_multiply_sparse",
]


def masked_multiply(
    x: Tensor,
    mask: Mask,
    rows: Tensor | None = None,
    *,
    shift: float = 0.0,
    dropped: float = 0.0,
) -> Tensor:
    r"""Multiply a matrix by its mask: $y_{rc} = s x_{rc} + t$ where it is kept, else d.

    Args:
        x: shape (R, C).
        mask: which coins, at which rate, with which scale s.
        rows: int64 of shape (R,), the rows' coordinates; by default 0..R-1.
        shift: t; default 0.
        dropped: d; default 0.

    Returns:
        Shape (R, C), differentiable to any order.

    Raises:
        ParameterError: if `x` is no matrix, or `rows` not int64 with one coordinate for each row.

    Example:
        >>> everything = Mask(key=0, p=1.0)
        >>> masked_multiply(torch.ones(2, 3), everything).sum()
        tensor(0.)
    """
    if x.dim() != 2 or (
        rows is not None and (rows.shape, rows.dtype) != (x.shape[:1], torch.int64)
    ):
        raise ParameterError(
            "x must be a matrix, and rows int64 with one coordinate for each of its rows, "
            f"got x of shape {tuple(x.shape)} and rows "
            + ("None" if rows is None else f"{rows.dtype} of shape {tuple(rows.shape)}")
        )
    _check_columns(x, mask)
    if mask.keys:
        rows, mask = spread_rows(mask, len(x), rows, x.device)
    return call(_Multiply, x, rows, mask, shift, dropped)


def masked_multiply_sparse(x: Tensor, mask: Mask) -> Tensor:
    """Mask the stored entries of a CSR matrix; zeros need no coin, since any coin keeps them zero.

    Args:
        x: sparse CSR of shape (R, C).
        mask: as in `masked_multiply`, to which the result is equal once dense.

    Returns:
        Sparse CSR of the same sparsity pattern.

    Example:
        >>> from gnndrop.graph import to_csr
        >>> x = to_csr(torch.eye(3))
        >>> masked_multiply_sparse(x, Mask(key=0, p=0.0)).to_dense().equal(torch.eye(3))
        True
    """
    _check_columns(x, mask)
    pointer, columns, rows = x.crow_indices(), x.col_indices(), None
    if mask.keys:
        rows, mask = spread_rows(mask, len(x), device=x.device)
    values = call(_MultiplyCsr, x.values(), pointer, columns, rows, mask)
    return torch.sparse_csr_tensor(pointer, columns, values, x.shape, check_invariants=False)


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
    _check_shapes(graph, x, weight)
    return call(_Aggregate, x, weight, _Edges(graph, mask, symmetric))


def _check_columns(x: Tensor, mask: Mask) -> None:
    if mask.by_column and x.size(1) > HALF:
        raise ParameterError(
            f"columns must be numbered in 32 bits to have coins, got {x.size(1)} of them"
        )


def _check_shapes(graph: Graph, x: Tensor, weight: Tensor | None) -> None:
    if x.dim() != 2 or x.size(0) != graph.num_sources:
        raise ParameterError(
            f"x must be a matrix of {graph.num_sources} rows, one for each source, "
            f"got shape {tuple(x.shape)}"
        )
    num_edges = graph.edge_index.size(1)
    if weight is not None and (
        weight.dim() != 2
        or weight.size(0) != num_edges
        or weight.size(1) == 0
        or x.size(1) % weight.size(1)
    ):
        raise ParameterError(
            f"weight must have shape ({num_edges},), or ({num_edges}, heads) where heads divide "
            f"{x.size(1)} columns, got shape {tuple(weight.shape)}"
        )


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor | None, mask: Mask, shift: float, dropped: float
    ) -> Tensor:
        ctx.rows, ctx.mask = rows, mask
        result: Tensor = backend(x).multiply(x, rows, mask, shift, dropped)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # Constants have no derivative: a product without them.
        product = call(_Multiply, gradients[0], ctx.rows, ctx.mask, 0.0, 0.0)
        return product, None, None, None, None


class _MultiplyCsr(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        pointer: Tensor,
        columns: Tensor,
        rows: Tensor | None,
        mask: Mask,
    ) -> Tensor:
        ctx.arguments = pointer, columns, rows, mask
        result: Tensor = backend(values).multiply_csr(pointer, columns, values, rows, mask)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return call(_MultiplyCsr, gradients[0], *ctx.arguments), None, None, None, None


class _Edges(NamedTuple):
    """Masked edges, seen from their targets or, transposed, from their sources."""

    graph: Graph
    mask: Mask | None
    symmetric: bool
    transposed: bool = False

    @property
    def rows(self) -> Compressed:
        return self.graph.rows(self.transposed)

    @property
    def coins(self) -> tuple[Tensor | None, Mask | None]:
        if self.mask is None:
            return None, None
        return self.graph.coins(self.mask, self.symmetric, self.transposed)

    def transpose(self) -> "_Edges":
        return self._replace(transposed=not self.transposed)


# The form T(w, x, y) = sum_e w_e sum_c m_ec x_jc y_ic is linear in each of its three arguments:
# `_Aggregate` is its derivative by y (by x with the ends exchanged), `_EdgeProducts` the one by w.
# Hence the derivatives of both are made of both.
class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, edges: _Edges) -> Tensor:
        is_learnt = weight is not None and weight.requires_grad  # else x may be freed
        ctx.save_for_backward(x if is_learnt else None, weight)
        ctx.edges = edges
        result: Tensor = backend(x).aggregate(edges.rows, x, weight, *edges.coins)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient, x_gradient, weight_gradient = gradients[0], None, None
        if ctx.needs_input_grad[0]:
            x_gradient = call(_Aggregate, gradient, weight, ctx.edges.transpose())
        if weight is not None and ctx.needs_input_grad[1]:
            weight_gradient = call(_EdgeProducts, x, gradient, weight.size(1), ctx.edges)
        return x_gradient, weight_gradient, None


class _EdgeProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, heads: int, edges: _Edges) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.edges = edges
        result: Tensor = backend(x).edge_products(edges.rows, x, y, heads, *edges.coins)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient, x_gradient, y_gradient = gradients[0], None, None
        if ctx.needs_input_grad[0]:
            x_gradient = call(_Aggregate, y, gradient, ctx.edges.transpose())
        if ctx.needs_input_grad[1]:
            y_gradient = call(_Aggregate, x, gradient, ctx.edges)
        return x_gradient, y_gradient, None, None
