"""Which backend computes, and how differentiable functions are called."""

import functools
import os
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gnndrop.kernels import reference

COMPILED = (torch.float32, torch.float64)
PROCESS = os.getpid()  # one that was forked from it cannot use OpenMP


def backend(x: Tensor) -> ModuleType:
    """Return the compiled kernels where they serve, the reference elsewhere.

    Example:
        >>> backend(torch.ones(1, dtype=torch.float16)) is reference
        True
    """
    if x.is_cpu and x.dtype in COMPILED:
        return _compiled_kernels()
    return reference


@functools.cache
def _compiled_kernels() -> ModuleType:
    from gnndrop.kernels import cpu  # half a second, only for who computes

    return cpu


class _NoContext:
    """Stands in for the context of a function that nobody will differentiate."""

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Save nothing."""


def call(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Apply a differentiable function.

    Evaluation, a backward pass that is not itself differentiated, and inputs that are constants pay
    nothing for autograd: they are more than half of all calls in training.
    """
    if not torch.is_grad_enabled() or not any(map(_requires_grad, arguments)):
        plain: Tensor = function.forward(_NoContext(), *arguments)
        return plain
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]  # untyped in torch
    return result


def _requires_grad(argument: object) -> bool:
    return isinstance(argument, Tensor) and argument.requires_grad
