"""What is the same in every sample, computed once.

Everything that a forward pass does before its first random draw is a function of the inputs alone;
so is a linear map whenever it meets the very tensor that it met in the sample before. The outputs
of modules called under either condition are remembered and handed out again.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.linear import Linear
from gnndrop.operators import Operator
from gnndrop.uncertainty.sites import Watch

LINEAR = (nn.Linear, pyg.Linear, Linear)


# Names and numbers of calls, from the outermost module in: `("convs.0", 0, "convs.0.lin", 0)`.
Call = tuple[str | int, ...]


class _Frame:
    """One call of a module, which counts the calls that it makes."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.calls: Counter[str] = Counter()

    def count(self, name: str) -> Call:
        """Return the next call of a module: what a call skips, does not count for the others."""
        number = self.calls[name]
        self.calls[name] += 1
        return *self.call, name, number


@dataclass
class _Known:
    """An output, and what it is an output of; `inputs` is None where nothing random came before."""

    output: Tensor
    version: int
    inputs: tuple[Tensor, int] | None

    @property
    def is_untouched(self) -> bool:
        return self.output._version == self.version


class Reuse:
    """Stands before the `forward` of every module of a model, while it is entered.

    It tells the watch which module is at work, and answers in the place of modules whose outputs
    are known. Outputs that the model writes to are handed out as copies.

    Args:
        model: the model.
        watch: whose path is kept, and who counts the draws.
        remembers: whether to hand out known outputs: not where derivatives are asked for.

    Attributes:
        is_wary: whether to look at torch's generator, too: of what scripted modules and torch's own
            recurrent layers draw, no function tells.
    """

    def __init__(self, model: nn.Module, watch: Watch, remembers: bool) -> None:
        self.watch = watch
        self.remembers = remembers
        self.is_wary = True
        self._known: dict[Call, _Known] = {}
        self._copied: set[Call] = set()
        self._changing: set[Call] = set()  # linear maps that met another input in another sample
        self._frames: list[_Frame] = [_Frame(())]
        inside = {
            id(part)
            for operator in model.modules()
            if isinstance(operator, Operator)
            for part in operator.modules()
        }
        self._modules = [
            (name or "model", module)
            for name, module in model.named_modules()
            if id(module) not in inside
        ]

    def __enter__(self) -> "Reuse":
        self._previous = [
            (name, module, module.__dict__.get("forward")) for name, module in self._modules
        ]
        for name, module in self._modules:
            module.__dict__["forward"] = self._wrap(name, module, module.forward)
        return self

    def __exit__(self, *_: object) -> None:
        for previous in self._previous:
            _restore(*previous[1:])
        self.forget()

    def begin(self) -> None:
        """Start a pass."""
        self._frames = [_Frame(())]

    def forget(self) -> None:
        """Know nothing: what is to come first may differ from what was."""
        self._known.clear()
        self._copied.clear()

    def settle(self) -> None:
        """Step back from modules that have nothing to hand out, for good; after a whole pass."""
        names = {name for key in self._known for name in key[::2]}  # with what calls them
        for name, module, forward in self._previous:
            if name not in names:
                _restore(module, forward)
        self._previous = [previous for previous in self._previous if previous[0] in names]

    def _wrap(
        self, name: str, module: nn.Module, forward: Callable[..., Any]
    ) -> Callable[..., Any]:
        is_linear = type(module) in LINEAR

        def call(*args: Any, **kwargs: Any) -> Any:
            key = self._frames[-1].count(name)
            inputs = _version(args[0]) if is_linear and len(args) == 1 and not kwargs else None
            if "weight" in module.__dict__:  # masked weights, by drop-connect
                inputs = None
            known = self._recall(key, inputs)
            if known is not None:
                return known
            draws, state = self.watch.draws, self._state()
            self.watch.path.append(name)
            self._frames.append(_Frame(key))
            try:
                output = forward(*args, **kwargs)
            finally:
                self.watch.path.pop()
                self._frames.pop()
            if draws == self.watch.draws and state != self._state():
                self.watch.draws += 1  # of which no function told
            if draws == self.watch.draws:
                self._remember(key, output, inputs if draws else None, bool(draws))
            return output

        return call

    def _state(self) -> bytes:
        return torch.get_rng_state().numpy().tobytes() if self.is_wary else b""

    def _recall(self, key: Call, inputs: tuple[Tensor, int] | None) -> Tensor | None:
        known = self._known.get(key)
        if known is None:
            return None
        if known.inputs is not None and (
            inputs is None or inputs[0] is not known.inputs[0] or inputs[1] != known.inputs[1]
        ):
            del self._known[key]
            self._changing.add(key)
            return None
        if key in self._copied:
            return known.output.clone()
        if known.is_untouched:
            return known.output
        del self._known[key]
        self._copied.add(key)
        return None

    def _remember(
        self,
        key: Call,
        output: Any,
        inputs: tuple[Tensor, int] | None,
        is_late: bool,
    ) -> None:
        if not self.remembers or not isinstance(output, Tensor) or output.is_inference():
            return
        if (is_late and inputs is None) or key in self._changing:
            return
        kept = output.clone() if key in self._copied else output
        self._known[key] = _Known(kept, kept._version, inputs)


def _restore(module: nn.Module, forward: Any) -> None:
    """Give a module its own forward back, or what stood in its place before."""
    if forward is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = forward


def _version(value: Any) -> tuple[Tensor, int] | None:
    if isinstance(value, Tensor) and not value.is_inference() and not value.requires_grad:
        return value, value._version
    return None
