"""Adam for the training loop."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Adam:
    """Torch's fused Adam on groups of parameters with a decay each, called as an operation.

    The bookkeeping of `torch.optim.Adam`, for profilers, hooks and settings that change, costs a
    small model as much as the step itself. The results are the same to the bit, and parameters
    without a gradient are left alone, as there.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015).

    Args:
        groups: parameters and their weight decay, an L2 penalty.
        learning_rate: the step size.

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
        means = map(torch.zeros_like, parameters)
        squares = map(torch.zeros_like, parameters)
        self._steps = torch.zeros(len(parameters), dtype=torch.float32, device=parameters[0].device)
        self._members = list(zip(parameters, means, squares, self._steps, strict=True))
        self._lists = [list(kind) for kind in zip(*self._members, strict=True)]

    def step(self, learning_rate: float) -> None:
        moved = [member for member in self._members if member[0].grad is not None]
        if not moved:
            return
        if len(moved) == len(self._members):  # as a rule
            parameters, means, squares, steps = self._lists
            self._steps += 1
        else:
            parameters, means, squares, steps = map(list, zip(*moved, strict=True))
            torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            parameters,
            [parameter.grad for parameter in parameters],
            means,
            squares,
            [],
            steps,
            lr=learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=self.decay,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )
