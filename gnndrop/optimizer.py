"""Adam for the training loop."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gnndrop.errors import ParameterError


class Adam:
    """Torch's fused Adam on groups of parameters with a decay each, called as an operation.

    The bookkeeping of `torch.optim.Adam`, for profilers, hooks and settings that change, costs a
    small model as much as the step itself. The results are the same to the bit, parameters
    without a gradient are left alone as there, and gradients may be laid out in any way.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015).

    Args:
        groups: parameters and their weight decay, an L2 penalty.
        learning_rate: the step size.

    Raises:
        ParameterError: if there are gaps between a parameter's entries in memory.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> optimizer = Adam([([weight], 0.0)], learning_rate=0.25)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.tolist()
        [0.75, 0.75]
    """

    def __init__(self, groups: Iterable[tuple[list[Tensor], float]], learning_rate: float) -> None:
        self.learning_rate = learning_rate
        alike: dict[tuple[float, torch.device, torch.dtype], list[Tensor]] = {}
        for parameters, decay in groups:
            for one in parameters:  # an operation takes what lies on one device, in one dtype
                alike.setdefault((decay, one.device, one.dtype), []).append(one)
        self._groups = [_Group(parameters, key[0]) for key, parameters in alike.items()]

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter against its gradient."""
        for group in self._groups:
            group.step(self.learning_rate)


class _Group:
    """Parameters that move by one operation."""

    def __init__(self, parameters: list[Tensor], decay: float) -> None:
        self.decay = decay
        self._members = list(map(_Member, parameters))
        self._clock = torch.zeros((), dtype=torch.float32, device=parameters[0].device)

    def step(self, learning_rate: float) -> None:
        moved = [
            (member, gradient)
            for member in self._members
            if (gradient := member.parameter.grad) is not None
        ]
        if not moved:
            return
        members = [member for member, _ in moved]
        for member in members:
            member.steps += 1
        torch._fused_adam_(
            [member.in_order(member.parameter) for member in members],
            [member.in_order(gradient).contiguous() for member, gradient in moved],
            [member.mean for member in members],
            [member.square for member in members],
            [],
            self._clocks([member.steps for member in members]),
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def _clocks(self, steps: list[int]) -> list[Tensor]:
        """Return the numbers of steps as tensors: as a rule one for all, which is filled anew."""
        if len(set(steps)) == 1:
            return [self._clock.fill_(steps[0])] * len(steps)
        return [torch.full_like(self._clock, count) for count in steps]


class _Member:
    """A parameter, with what Adam remembers of it.

    The operation takes entries by their order in memory. It copies gradients that are laid out
    column by column, and mistakes those laid out otherwise than their parameter, whose own layout
    is to stay as it is.
    """

    def __init__(self, parameter: Tensor) -> None:
        self.parameter = parameter
        self.steps = 0
        self._order: list[int] | None = None
        if not parameter.is_contiguous():
            strides = parameter.stride()
            self._order = sorted(range(len(strides)), key=lambda axis: -strides[axis])
        entries = self.in_order(parameter.detach())
        if not entries.is_contiguous():
            raise ParameterError(
                "parameters must fill their memory, got shape "
                f"{tuple(parameter.shape)} with strides {parameter.stride()}; call .contiguous()"
            )
        self.mean, self.square = torch.zeros_like(entries), torch.zeros_like(entries)

    def in_order(self, values: Tensor) -> Tensor:
        """View values as shaped like the parameter's memory."""
        return values if self._order is None else values.permute(self._order)
