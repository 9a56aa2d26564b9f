"""What a model draws through torch, seen from outside: nothing in the model is replaced.

`F.dropout` gets masks by coordinates, as gnndrop's operators have them: nn.Dropout, functional and
attention dropout all end there. Other functions draw from torch's generator as they always do; that
they do is noted. Normalization by stored statistics stays in evaluation, whatever the flags say.

Source: `torch.overrides.TorchFunctionMode`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch_geometric.data.data import BaseData

from gnndrop.errors import ParameterError
from gnndrop.kernels import masked_multiply
from gnndrop.masks import Mask, inverse_scale, stream_key
from gnndrop.uncertainty.sites import Watch

DROPOUT = "F.dropout"
# Functions that draw where their argument `training` says so, and their rate is above zero.
FLAGGED = (
    F.alpha_dropout,
    F.dropout1d,
    F.dropout2d,
    F.dropout3d,
    F.feature_alpha_dropout,
    F.multi_head_attention_forward,
    F.rrelu,
)
DRAWING = {
    *(getattr(torch, name) for name in ("bernoulli", "binomial", "multinomial", "normal")),
    *(getattr(torch, name) for name in ("poisson", "rand", "rand_like", "randint", "randint_like")),
    *(getattr(torch, name) for name in ("randn", "randn_like", "randperm")),
    *(getattr(Tensor, name) for name in ("bernoulli", "bernoulli_", "cauchy_", "exponential_")),
    *(getattr(Tensor, name) for name in ("geometric_", "log_normal_", "multinomial", "normal_")),
    *(getattr(Tensor, name) for name in ("random_", "uniform_")),
}


def memory(*values: Any) -> set[int]:
    """Return where the floating numbers of tensors lie, also of those in `Data`, lists and dicts.

    Views of a tensor lie where it does.

    Example:
        >>> x = torch.ones(2, 3)
        >>> memory([x]) == memory(x[1:]) != memory(x.clone())
        True
    """
    found = set()
    for value in values:
        if isinstance(value, BaseData):
            found |= memory(value.to_dict())
        elif isinstance(value, Mapping):
            found |= memory(*value.values())
        elif isinstance(value, list | tuple):
            found |= memory(*value)
        elif isinstance(value, Tensor) and value.is_floating_point():
            if value.layout != torch.strided:
                value = value._values() if value.is_sparse else value.values()
            found.add(value.untyped_storage().data_ptr())
    return found


class Interceptor(TorchFunctionMode):
    """Masks `F.dropout` and notes every other draw while it is entered.

    In places that are `forced`, `F.dropout` drops whatever its flag says.

    Args:
        watch: counts the draws.
        is_chosen: whether the function at the present place is to draw; asked for `F.dropout`.
    """

    def __init__(self, watch: Watch, is_chosen: Callable[[str], bool]) -> None:
        super().__init__()
        self.watch = watch
        self.is_chosen = is_chosen
        self.num_shared = 0
        """With so many rows `F.dropout` has one mask for all of them; 0 for a mask for each."""
        self.seeds: tuple[int, ...] = (0,)
        self.forced: set[str] = set()
        self.given: set[int] = set()
        """The `memory` that is the user's, and is never written to, whatever asks for it."""
        self.has_normalized = False

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Stand before every torch function."""
        kwargs = kwargs or {}
        if function is F.dropout:
            return self._drop(*args, **kwargs)
        if function is F.batch_norm:
            return self._normalize(*args, **kwargs)
        if function in DRAWING:
            if kwargs.get("generator") is not None:
                raise ParameterError(
                    f"{self.watch.place} must draw from torch's own generator, which is seeded for "
                    f"each sample, got {function.__name__} with a generator of its own"
                )
            self.watch.note(f"torch.{function.__name__}")
        elif function in FLAGGED:
            return self._call_flagged(function, args, kwargs)
        elif function is F.scaled_dot_product_attention:
            p = kwargs.get("dropout_p", args[4] if len(args) > 4 else 0.0)
            if p > 0:
                self.watch.note("F.scaled_dot_product_attention", p)
        return function(*args, **kwargs)

    def _drop(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        """Drop by coins of place, number of the call, row and column."""
        place = self.watch.place
        if not (training or place in self.forced):
            return input
        if not 0 <= p <= 1:
            return F.dropout(input, p)  # which says so
        number = self.watch.note(DROPOUT, p)
        if p == 0 or not input.numel() or not self.is_chosen(place):
            return input
        rows = input.reshape(len(input), -1) if input.dim() else input.reshape(1, 1)
        keys = [stream_key(seed, f"{place} {DROPOUT}", number) for seed in self.seeds]
        mask = Mask(
            key=keys[0],
            p=p,
            by_row=len(rows) != self.num_shared,
            scale=inverse_scale(p),
            keys=tuple(keys) if len(keys) > 1 else (),
        )
        dropped = masked_multiply(rows, mask).view(input.shape)
        return input.copy_(dropped) if inplace and not self._is_given(input) else dropped

    def _is_given(self, value: Tensor) -> bool:
        return not memory(value).isdisjoint(self.given)

    def _call_flagged(self, function: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Call a function that draws."""
        bound = inspect.signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        p = bound.arguments.get("p", bound.arguments.get("dropout_p"))
        if bound.arguments["training"] and p != 0:
            self.watch.note(f"F.{function.__name__}", p)
        if bound.arguments.get("inplace"):
            bound.arguments["inplace"] = not self._is_given(bound.arguments["input"])
        return function(*bound.args, **bound.kwargs)

    def _normalize(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """Normalize by the stored statistics, where there are any."""
        if training and running_mean is not None:
            self.has_normalized, training = True, False
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
