"""Where torch.compile stops."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def eager(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Keep `torch.compile` out of a function: its graph breaks there, and goes on behind.

    Masks are hashed in exact 64-bit integers, and counted calls are state: neither can be traced.

    Args:
        function: any function or method.

    Example:
        >>> @eager
        ... def double(x: torch.Tensor) -> torch.Tensor:
        ...     return 2 * x
        >>> double(torch.ones(1))
        tensor([2.])
    """
    disabled: Callable[Parameters, Result] = torch.compiler.disable(function)  # type: ignore[no-untyped-call]  # untyped in torch

    @functools.wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        # What is disabled sets the compiler aside at every call: too dear where there is none.
        return (disabled if torch.compiler.is_dynamo_compiling() else function)(*args, **kwargs)

    return call
