"""A linear map, the sum of what it gives over edges, and a bias: one node of autograd's graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.kernels._dispatch import backend, call
from gnndrop.kernels.aggregation import Aggregate, EdgeProducts, Edges, check_shapes
from gnndrop.kernels.multiplication import Multiply, MultiplyCsr, check_columns
from gnndrop.masks import Mask, check_blocks


def convolve(
    graph: Graph,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    factors: Tensor | None = None,
    mask: Mask | None = None,
    pattern: Graph | None = None,
    feature_mask: Mask | None = None,
) -> Tensor:
    r"""Aggregate what a linear map makes of masked sources, and add a bias.

    $y_i = b + \sum_{e: j \to i} w_e m_e \odot W (n_j \odot x_j)$, at the price of one call of
    autograd instead of four: on small graphs they cost as much as the arithmetic.

    Args:
        graph: the graph.
        x: shape (num_sources, F), or the values of a sparse CSR matrix of that shape.
        weight: W, of shape (C, F).
        bias: b, of shape (C,); default none.
        factors: the weights w of the edges, as in `aggregate`; by default ones.
        mask: m, that of the messages, as there.
        pattern: that of a sparse x, by `gnndrop.graph.csr_pattern`.
        feature_mask: n, that of x, as in `masked_multiply`.

    Returns:
        Shape (num_targets, C), differentiable by all tensors to any order.

    Raises:
        ParameterError: if the shapes do not fit each other.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> convolve(graph, torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0]])).tolist()
        [[0.0], [30.0]]
    """
    if factors is not None and factors.dim() == 1:
        factors = factors[:, None]
    num_rows = _check(x.shape, weight.shape, bias, pattern)
    check_shapes(graph, (num_rows, weight.size(0)), factors)
    entries = None if pattern is None else Edges(pattern, None, symmetric=False)
    if feature_mask is not None:
        check_columns(weight.size(1), feature_mask)
        check_blocks(feature_mask, num_rows)
    edges = Edges(graph, mask, False)
    return call(_Convolve, x, weight, bias, factors, edges, entries, feature_mask)


def _check(
    x: Sequence[int], weight: Sequence[int], bias: Tensor | None, pattern: Graph | None
) -> int:
    """Refuse shapes that do not fit; return the number of rows of x."""
    if pattern is not None:  # one value for each entry
        is_whole = tuple(x) == (pattern.edge_index.size(1),)
        x = (pattern.num_targets, pattern.num_sources) if is_whole else ()
    fits = len(x) == len(weight) == 2 and x[1] == weight[1]
    if not fits or (bias is not None and bias.shape != weight[:1]):
        raise ParameterError(
            "x must have shape (N, F) with as many columns as weight, (C, F), and bias (C,), got "
            f"{tuple(x)}, {tuple(weight)} and {None if bias is None else tuple(bias.shape)}"
        )
    return x[0]


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        factors: Tensor | None,
        edges: Edges,
        entries: Edges | None,
        mask: Mask | None,
    ) -> Tensor:
        masked = _mask(x, entries, mask)
        ctx.save_for_backward(x, weight, factors, masked)
        ctx.edges, ctx.entries, ctx.mask = edges, entries, mask
        mapped = _map(masked, weight, entries)
        out: Tensor = backend(x).aggregate(edges.rows, mapped, factors, *edges.coins, bias=bias)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, factors, masked = ctx.saved_tensors
        gradient, entries = gradients[0], ctx.entries
        needs_x, needs_weight, needs_bias, needs_factors = ctx.needs_input_grad[:4]
        by_x, by_weight, by_bias, by_factors = None, None, None, None
        is_differentiated = torch.is_grad_enabled()
        if is_differentiated:
            masked = _mask(x, entries, ctx.mask)
        if needs_x or needs_weight:
            mapped = call(Aggregate, gradient, factors, ctx.edges.transpose())
        if needs_x:
            by_x = _products(mapped, weight, entries)
            if is_differentiated or entries is not None:
                by_x = _mask(by_x, entries, ctx.mask)
            elif ctx.mask is not None:
                by_x = backend(by_x).multiply_in_place(by_x, ctx.mask)
        if needs_weight and entries is None:
            by_weight = mapped.t() @ masked
        elif needs_weight:
            by_weight = call(Aggregate, mapped, masked[:, None], entries.transpose()).t()
        if needs_bias:
            by_bias = gradient.sum(0)
        if needs_factors:
            heads = factors.size(1)
            by_factors = call(
                EdgeProducts, _map(masked, weight, entries), gradient, heads, ctx.edges
            )
        return by_x, by_weight, by_bias, by_factors, None, None, None


def _mask(x: Tensor, entries: Edges | None, mask: Mask | None) -> Tensor:
    """Mask x, or the values of a sparse x."""
    if mask is None:
        return x
    if entries is None:
        return call(Multiply, x, None, mask, 0.0, 0.0)
    pattern = entries.graph
    rows = pattern.by_target  # a CSR matrix stands in this order
    return call(MultiplyCsr, x, rows.pointer, rows.other, mask, pattern.source_words)


def _map(x: Tensor, weight: Tensor, entries: Edges | None) -> Tensor:
    """Multiply by the weight: W x_j for every row of x."""
    if entries is None:
        return x @ weight.t()
    return call(Aggregate, weight.t(), x[:, None], entries)


def _products(mapped: Tensor, weight: Tensor, entries: Edges | None) -> Tensor:
    """Return the derivative of `_map` by x, or by the values of a sparse x."""
    if entries is None:
        return mapped @ weight
    return call(EdgeProducts, weight.t(), mapped, 1, entries)[:, 0]
