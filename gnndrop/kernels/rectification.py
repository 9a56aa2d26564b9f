"""A ReLU in place that remembers a byte for each entry, not the entries."""

from typing import Any

import torch
from torch import Tensor

from gnndrop.kernels._dispatch import backend, call

LARGE = 1 << 20
"""Entries from which on memory counts for more than a function of autograd."""


def rectify(x: Tensor) -> Tensor:
    r"""Set what is below zero to zero, in place: $\max(x, 0)$.

    `x.relu_()` in all but memory: the derivative of torch's holds three arrays at once, its
    result, the gradient by it and that by x. Here the result may be gone by then.

    Args:
        x: of any shape; no leaf that requires a gradient.

    Returns:
        The same tensor, differentiable to any order; the derivative at zero is zero.

    Example:
        >>> rectify(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """
    is_small = x.numel() < LARGE or not (torch.is_grad_enabled() and x.requires_grad)
    if is_small or torch.compiler.is_compiling() or not x.is_contiguous():
        return x.relu_()
    result: Tensor = _Rectify.apply(x)  # type: ignore[no-untyped-call]  # untyped in torch
    return result


class _Rectify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(backend(x).rectify(x))
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return call(_Select, gradients[0], *ctx.saved_tensors)


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, is_kept: Tensor) -> Tensor:
        ctx.save_for_backward(is_kept)
        result: Tensor = backend(x).select(x, is_kept)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return call(_Select, gradients[0], *ctx.saved_tensors), None
