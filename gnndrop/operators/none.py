"""The operator that drops nothing: the baseline of every comparison."""

from typing import Any

from gnndrop.operators._base import Operator, declare


@declare
class NoDrop(Operator):
    """Drop nothing: the identity on whatever it is given, in training too.

    Example:
        >>> import torch
        >>> x = torch.ones(3, 2)
        >>> NoDrop()(x) is x
        True
    """

    name = "none"
    site = "none"
    axes = ()
    source = "the baseline"

    def __init__(self) -> None:
        super().__init__(p=0.0, share="layer", rescale="inverse")

    @property
    def spec(self) -> str:
        """The spec string: always `none`."""
        return self.name

    def forward(self, *values: Any) -> Any:
        """Return what was given: one value as it is, several as a tuple."""
        return values[0] if len(values) == 1 else values
