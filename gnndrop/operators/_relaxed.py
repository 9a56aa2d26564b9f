"""Relaxed coins, at rates that are learnt through them: what concrete operators have in common."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gnndrop.errors import ParameterError
from gnndrop.kernels.reference import relax
from gnndrop.masks import Mask
from gnndrop.operators._base import Operator, Share

POINTS = 1 << 14  # of the midpoint rule; at a temperature of 0.1 its error is below 1e-9


class RelaxedOperator(Operator):
    r"""Base of the operators whose coins are $\sigma((\mathrm{logit}\, u - \mathrm{logit}\, p)/t)$.

    Every layer has rates of its own, in the parameter `logit`. Nothing is dropped entirely, and the
    mean factor is 1 at p = 1/2 alone.

    Args:
        p: the rate before training; at 0 and at 1 nothing is learnt.
        share: see `Operator`; with `forward` all layers have the rates of the first.
        rescale: see `Operator`.
        temperature: t, above 0.
        strength: what `regularization` is multiplied by, 0 or more.
        max_layers: how many layers may have rates of their own.
        shape: that of the rates of a layer.

    Raises:
        ParameterError: if an option is out of its range.
    """

    distribution = "concrete"

    def __init__(
        self,
        p: float,
        share: Share,
        rescale: str,
        temperature: float,
        strength: float,
        max_layers: int,
        shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(p, share, rescale)
        if not 0 < temperature < math.inf:
            raise ParameterError(f"temperature must be above 0 and finite, got {temperature}")
        if type(max_layers) is not int or max_layers < 1:
            raise ParameterError(f"max_layers must be 1 or more, got {max_layers}")
        self.temperature = temperature
        self.strength = check_nonnegative("strength", strength)
        self.max_layers = max_layers
        start = torch.tensor(self.p, dtype=torch.float64).logit().to(torch.get_default_dtype())
        logits = start.expand(max_layers, *shape).clone()
        self.logit = nn.Parameter(logits, requires_grad=0 < self.p < 1)
        self._widths: dict[int, int] = {}

    @property
    def rates(self) -> Tensor:
        """The present rates of every layer, of shape (max_layers, ...)."""
        return self.logit.detach().sigmoid()

    @property
    def is_unbiased(self) -> bool:
        """Whether the masked values have the clean ones as their expectation: never below p = 1."""
        return False

    @property
    def factor_cumulants(self) -> tuple[float, float, float]:
        """Mean, variance and fourth cumulant of the first factors, by quadrature."""
        if not 0 < self.p < 1:
            return 1.0 - self.p, 0.0, 0.0
        numbers = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
        factors = relax(numbers, self.logit.detach().double().flatten()[0], *self._relaxation)
        squares = (factors - factors.mean()) ** 2
        fourth = (squares**2).mean() - 3 * squares.mean() ** 2
        return float(factors.mean()), float(squares.mean()), float(fourth)

    def start_pass(self, seed: int | None = None, *others: int) -> Self:
        """Begin a forward pass: see `Operator.start_pass`."""
        self._widths.clear()
        return super().start_pass(seed, *others)

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer; it knows whose rates to take.

        Raises:
            ParameterError: if there are more layers than rates.
        """
        mask = super().next_mask(layer)
        layer = 0 if self.share == "forward" else layer
        if layer >= self.max_layers:
            raise ParameterError(
                f"max_layers must be above the number of layers, got {self.max_layers} "
                f"for layer {layer}"
            )
        if self.training and not mask.drops_all:  # at p = 1 there is no rate to regularize
            self._widths.setdefault(layer, 1)
        return RelaxedMask(**vars(mask), layer=layer)

    @property
    def regularized_weights(self) -> tuple[Tensor, ...]:
        """The weights that `regularization` shrinks: a weight decay would do it a second time."""
        return ()

    def regularization(self) -> Tensor:
        r"""Return the regularizer of a sum of losses: a mean over N nodes takes 1/N of it.

        $-s \sum_l K_l \sum_b H(p_{lb})$ with $H(p) = -p \log p - (1-p) \log(1-p)$, over the layers
        of the last pass, each as often as it has entries of one coin, $K_l$; s is `strength`.

        Returns:
            A scalar, differentiable by `logit`; 0 before any pass.
        """
        layers = sorted(self._widths)
        logits = self.logit[layers]
        widths = logits.new_tensor([self._widths[layer] for layer in layers])
        widths = widths.view(-1, *[1] * (logits.dim() - 1))
        dropped, kept = (side.sigmoid() * logsigmoid(side) for side in (logits, -logits))
        return self.strength * (widths * (dropped + kept)).sum()

    @property
    def _relaxation(self) -> tuple[float, bool]:
        """The last arguments of the kernels."""
        return self.temperature, self.rescale == "inverse"


@dataclass(frozen=True, kw_only=True)
class RelaxedMask(Mask):
    """A mask whose rates are learnt.

    Args:
        layer: the layer whose rates it has.
    """

    layer: int


def check_nonnegative(name: str, value: float) -> float:
    """Return an option that is 0 or more.

    Raises:
        ParameterError: if it is negative or not finite.
    """
    if 0 <= value < math.inf:
        return value
    raise ParameterError(f"{name} must be 0 or more, got {value}")
