"""Matrices times their masks, dense and sparse, and the derivatives, which are the same."""

from typing import Any

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.kernels._dispatch import backend, call
from gnndrop.masks import HALF, Mask, check_blocks


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
        ParameterError: if `x` is no matrix, `rows` not int64 with one coordinate for each row, or
            the rows are no blocks of a mask for several samples (`Mask.keys`).

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
    check_columns(x.size(1), mask)
    check_blocks(mask, x.size(0), rows)
    return call(Multiply, x, rows, mask, shift, dropped)


def masked_multiply_sparse(x: Tensor, mask: Mask) -> Tensor:
    """Mask the stored entries of a CSR matrix; zeros need no coin, since any coin keeps them zero.

    Args:
        x: sparse CSR of shape (R, C).
        mask: as in `masked_multiply`, to which the result is equal once dense.

    Returns:
        Sparse CSR of the same sparsity pattern.

    Raises:
        ParameterError: if the rows are no blocks of a mask for several samples.

    Example:
        >>> from gnndrop.graph import to_csr
        >>> x = to_csr(torch.eye(3))
        >>> masked_multiply_sparse(x, Mask(key=0, p=0.0)).to_dense().equal(torch.eye(3))
        True
    """
    check_columns(x.size(1), mask)
    check_blocks(mask, x.size(0))
    pointer, columns = x.crow_indices(), x.col_indices()
    values = call(MultiplyCsr, x.values(), pointer, columns, mask, None)
    return torch.sparse_csr_tensor(pointer, columns, values, x.shape, check_invariants=False)


def check_columns(num_columns: int, mask: Mask) -> None:
    """Refuse more columns than have coins."""
    if mask.by_column and num_columns > HALF:
        raise ParameterError(
            f"columns must be numbered in 32 bits to have coins, got {num_columns} of them"
        )


class Multiply(torch.autograd.Function):
    """See `masked_multiply`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor | None, mask: Mask, shift: float, dropped: float
    ) -> Tensor:
        """Mask a matrix."""
        ctx.rows, ctx.mask = rows, mask
        result: Tensor = backend(x).multiply(x, rows, mask, shift, dropped)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Mask its derivative."""
        # Constants have no derivative: a product without them.
        product = call(Multiply, gradients[0], ctx.rows, ctx.mask, 0.0, 0.0)
        return product, None, None, None, None


class MultiplyCsr(torch.autograd.Function):
    """See `masked_multiply_sparse`; of the values alone."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        pointer: Tensor,
        columns: Tensor,
        mask: Mask,
        words: Tensor | None,
    ) -> Tensor:
        """Mask the values of a matrix, whose `Graph.source_words` may be known."""
        ctx.arguments = pointer, columns, mask, words
        result: Tensor = backend(values).multiply_csr(pointer, columns, values, mask, words)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Mask its derivative."""
        return call(MultiplyCsr, gradients[0], *ctx.arguments), None, None, None, None
