"""Products with relaxed coins, whose rate is learnt through them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.kernels import reference
from gnndrop.kernels._dispatch import backend, call
from gnndrop.masks import Mask


def relaxed_multiply(
    x: Tensor, mask: Mask, logit: Tensor, temperature: float, is_scaled: bool
) -> Tensor:
    r"""Multiply a matrix by relaxed coins: $y_{rc} = z_{rc} x_{rc}$, or $z_{rc} x_{rc} / (1-p)$.

    $z_{rc} = \sigma((\mathrm{logit}\, u_{rc} - \mathrm{logit}\, p) / t)$, with the numbers u of
    `gnndrop.kernels.noise.uniforms`; the rate and the scale of the mask play no part.

    Args:
        x: shape (R, C).
        mask: which coins.
        logit: a scalar of the dtype of `x`, that of p.
        temperature: t, above 0.
        is_scaled: whether to divide by 1-p.

    Returns:
        Shape (R, C), differentiable by `x` and `logit` to any order; no coin is stored for that.

    Example:
        >>> half = torch.tensor(0.0, requires_grad=True)
        >>> coins = relaxed_multiply(torch.ones(50, 40), Mask(key=0, p=0.5), half, 0.1, False)
        >>> bool((coins.mean() - 0.5).abs() < 0.05)
        True
    """
    return call(
        _Multiply,
        x,
        logit,
        lambda like: backend(like).uniforms(like, mask),
        temperature,
        is_scaled,
    )


def relaxed_multiply_sparse(
    x: Tensor, mask: Mask, logit: Tensor, temperature: float, is_scaled: bool
) -> Tensor:
    """Multiply the stored entries of a CSR matrix likewise; zeros stay zero.

    Args:
        x: sparse CSR of shape (R, C).
        mask: as in `relaxed_multiply`, to which the result is equal once dense.
        logit: as there.
        temperature: as there.
        is_scaled: as there.

    Returns:
        Sparse CSR of the same sparsity pattern, differentiable once.

    Raises:
        ParameterError: by a backward pass that is itself to be differentiated.

    Example:
        >>> from gnndrop.graph import to_csr
        >>> coins = relaxed_multiply_sparse(
        ...     to_csr(torch.eye(3)), Mask(key=0, p=0.5), torch.tensor(0.0), 0.1, True
        ... )
        >>> int((coins.to_dense() != 0).sum())
        3
    """
    pointer, columns = x.crow_indices(), x.col_indices()

    def draw(like: Tensor) -> Tensor:
        numbers: Tensor = backend(like).uniforms_csr(pointer, columns, like, mask)
        return numbers

    values = call(_Multiply, x.values(), logit, draw, temperature, is_scaled)
    return call(_Csr, values, pointer, columns, x.shape)


class _Multiply(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        logit: Tensor,
        draw: Callable[[Tensor], Tensor],
        temperature: float,
        is_scaled: bool,
    ) -> Tensor:
        ctx.save_for_backward(x, logit)
        ctx.draw, ctx.options = draw, (temperature, is_scaled)
        result: Tensor = backend(x).multiply_relaxed(x, draw(x), logit, temperature, is_scaled)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, logit = ctx.saved_tensors
        # A backward pass that is itself differentiated is made of torch's operations.
        kernels = reference if torch.is_grad_enabled() else backend(x)
        arguments = x, gradients[0], ctx.draw(x.detach()), logit, *ctx.options
        by_x, by_logit = kernels.relaxed_derivatives(*arguments)
        return by_x, by_logit, None, None, None


class _Csr(torch.autograd.Function):
    """A CSR matrix of given values; torch's own derivative by them fills a dense matrix first."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, pointer: Tensor, columns: Tensor, shape: torch.Size
    ) -> Tensor:
        matrix = torch.sparse_csr_tensor(pointer, columns, values, shape, check_invariants=False)
        ctx.save_for_backward(matrix)
        return matrix

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # torch's own step from a CSR matrix to its values has none
            raise ParameterError(
                "relaxed coins of sparse features have first derivatives, got create_graph=True, "
                "which asks for second ones; make the features dense"
            )
        (matrix,), gradient = ctx.saved_tensors, gradients[0]
        if gradient.layout != torch.sparse_csr or gradient._nnz() != matrix._nnz():
            gradient = gradient.to_dense().sparse_mask(matrix)
        return gradient.values(), None, None, None
