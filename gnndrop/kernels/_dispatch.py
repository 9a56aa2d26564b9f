"""Which backend computes, and how differentiable functions are called."""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gnndrop.kernels import reference


def backend(x: Tensor) -> ModuleType:
    """Return the compiled kernels where they serve, the reference elsewhere.

    Example:
        >>> backend(torch.ones(1, dtype=torch.float16)) is reference
        True
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        from gnndrop.kernels import cpu  # half a second, only for who computes

        return cpu
    return reference


def call(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """Apply a differentiable function; torch leaves it untyped."""
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]  # untyped in torch
    return result
