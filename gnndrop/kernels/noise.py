"""Products with continuous noise in the place of coins, and the uniform numbers behind it."""

from typing import Any

import torch
from torch import Tensor

from gnndrop.kernels._dispatch import backend, call
from gnndrop.masks import Mask


def gaussian_multiply(x: Tensor, mask: Mask) -> Tensor:
    r"""Multiply a matrix by Gaussian factors: $y_{rc} = (1 + \sigma z(r, c)) x_{rc}$.

    $\sigma^2 = p/(1-p)$, and z is `gnndrop.masks.normals` of the mask's coins; its scale plays no
    part. At p = 1, where the variance is infinite, the result is zero.

    Args:
        x: shape (R, C).
        mask: which coins, at which rate.

    Returns:
        Shape (R, C), differentiable to any order.

    Example:
        >>> gaussian_multiply(torch.ones(2, 3), Mask(key=0, p=0.0)).unique()
        tensor([1.])
    """
    return call(_Multiply, x, mask)


def gaussian_multiply_sparse(x: Tensor, mask: Mask) -> Tensor:
    """Multiply the stored entries of a CSR matrix likewise; zeros stay zero.

    Args:
        x: sparse CSR of shape (R, C).
        mask: as in `gaussian_multiply`, to which the result is equal once dense.

    Returns:
        Sparse CSR of the same sparsity pattern.

    Example:
        >>> from gnndrop.graph import to_csr
        >>> x = to_csr(torch.eye(3))
        >>> gaussian_multiply_sparse(x, Mask(key=0, p=0.0)).to_dense().equal(torch.eye(3))
        True
    """
    pointer, columns = x.crow_indices(), x.col_indices()
    values = call(_MultiplyCsr, x.values(), pointer, columns, mask)
    return torch.sparse_csr_tensor(pointer, columns, values, x.shape, check_invariants=False)


def uniforms(x: Tensor, mask: Mask, rows: Tensor | None = None) -> Tensor:
    """Return the uniform numbers of a mask's coins at the entries of a matrix.

    Args:
        x: shape (R, C), or sparse CSR with n stored entries; its values do not matter.
        mask: which coins; a coin keeps where its number is above p.
        rows: int64 of shape (R,), the rows' coordinates where `x` is dense; by default 0..R-1.

    Returns:
        Inside of (0, 1), of the dtype of `x`: shape (R, C), or (n,) where `x` is sparse.

    Example:
        >>> uniforms(torch.ones(2, 3), Mask(key=0, p=0.5)).shape
        torch.Size([2, 3])
    """
    x = x.detach()
    if x.layout == torch.strided:
        numbers: Tensor = backend(x).uniforms(x, mask, rows)
        return numbers
    values = x.values()
    places = x.crow_indices(), x.col_indices()
    stored: Tensor = backend(values).uniforms_csr(*places, values, mask)
    return stored


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        result: Tensor = backend(x).multiply_gaussian(x, mask)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return call(_Multiply, gradients[0], ctx.mask), None


class _MultiplyCsr(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, pointer: Tensor, columns: Tensor, mask: Mask) -> Tensor:
        ctx.arguments = pointer, columns, mask
        result: Tensor = backend(values).multiply_gaussian_csr(pointer, columns, values, mask)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return call(_MultiplyCsr, gradients[0], *ctx.arguments), None, None, None
