"""Concrete dropout: feature dropout whose rate is learnt, one for every layer."""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gnndrop.errors import ParameterError
from gnndrop.kernels.noise import uniforms
from gnndrop.masks import Mask
from gnndrop.operators._base import FeatureOperator, Share, declare

POINTS = 1 << 14  # of the midpoint rule; at a temperature of 0.1 its error is below 1e-9


@declare
class ConcreteDropout(FeatureOperator):
    r"""Feature dropout by relaxed coins, through which the rate p is learnt by gradient descent.

    $\tilde x_{ic} = z_{ic} x_{ic} / (1-p_l)$ with
    $z_{ic} = \sigma((\mathrm{logit}\, u_{ic} - \mathrm{logit}\, p_l) / t)$, $u_{ic} \sim U(0, 1)$.

    At temperature $t \to 0$ it is `dropout` with the coins $u \ge p$; at $t > 0$ nothing is dropped
    entirely and the mean factor is 1 at p = 1/2 alone (`factor_cumulants` has it). Every layer l
    has its own rate, in the parameter `logit`, and `rates` tells them. A weight decay on that
    parameter would pull rates to 1/2.

    `penalty` is the regularizer, to be added to a loss that is a mean over N nodes: the paper sets
    `entropy_strength` to 1/N and `weight_strength` to $l^2/(2N)$ with the prior length scale l.

    Source: Gal, Hron and Kendall, "Concrete dropout" (NeurIPS 2017); the default of the temperature
    and of the strengths are those of its public implementations.

    Args:
        p: the rate before training, in [0, 1]; default 0.5. At 0 and at 1 nothing is learnt: the
            identity, and zeros.
        share: `layer` (default) or `forward`, where all layers share one mask and hence one rate.
        rescale: `inverse` (default) divides entries by 1-p, `none` leaves them, `eval` leaves them
            and multiplies all entries by 1-p in evaluation.
        temperature: t, above 0; default 0.1.
        entropy_strength: of the entropy in `penalty`, 0 or more; default 1e-5.
        weight_strength: of the weights in `penalty`, 0 or more; default 1e-6.
        max_layers: how many layers may have a rate of their own; default 16.

    Raises:
        ParameterError: if an option is out of its range; by a call, if there are more layers.

    Example:
        >>> dropout = ConcreteDropout(p=0.3).start_pass(0)
        >>> dropout(torch.ones(100, 4)).sum().backward()
        >>> bool(dropout.logit.grad[0] != 0), round(float(dropout.rates[0]), 3)
        (True, 0.3)
    """

    name = "concrete-dropout"
    axes = ("node", "channel")
    source = "Gal et al. 2017"
    distribution = "concrete"

    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "inverse",
        temperature: float = 0.1,
        entropy_strength: float = 1e-5,
        weight_strength: float = 1e-6,
        max_layers: int = 16,
    ) -> None:
        super().__init__(p, share, rescale)
        if not (0 < temperature < math.inf):
            raise ParameterError(f"temperature must be above 0 and finite, got {temperature}")
        for name, strength in (("entropy", entropy_strength), ("weight", weight_strength)):
            if not 0 <= strength < math.inf:
                raise ParameterError(f"{name}_strength must be 0 or more, got {strength}")
        if max_layers < 1:
            raise ParameterError(f"max_layers must be 1 or more, got {max_layers}")
        self.temperature = temperature
        self.entropy_strength = entropy_strength
        self.weight_strength = weight_strength
        self.max_layers = max_layers
        start = torch.tensor(self.p, dtype=torch.float64).logit().to(torch.get_default_dtype())
        self.logit = nn.Parameter(start.repeat(max_layers), requires_grad=0 < self.p < 1)
        self._widths: dict[int, int] = {}

    @property
    def rates(self) -> Tensor:
        """The present rate of every layer, of shape (max_layers,)."""
        return self.logit.detach().sigmoid()

    @property
    def is_unbiased(self) -> bool:
        """Whether the masked values have the clean ones as their expectation: never below p = 1."""
        return False

    @property
    def factor_cumulants(self) -> tuple[float, float, float]:
        """Mean, variance and fourth cumulant of the first layer's factors, by quadrature."""
        if not 0 < self.p < 1:
            return 1.0 - self.p, 0.0, 0.0
        numbers = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS
        factors = self._factors(numbers, 0).detach()
        squares = (factors - factors.mean()) ** 2
        fourth = (squares**2).mean() - 3 * squares.mean() ** 2
        return float(factors.mean()), float(squares.mean()), float(fourth)

    def start_pass(self, seed: int | None = None) -> Self:
        """Begin a forward pass: see `Operator.start_pass`."""
        self._widths.clear()
        return super().start_pass(seed)

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer; it knows whose rate to take.

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
        if not self.training:
            return replace(mask, scale=1 - float(self.rates[layer]))
        return _ConcreteMask(**vars(mask), layer=layer)

    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a matrix of nodes x channels."""
        if not isinstance(mask, _ConcreteMask) or mask.drops_all:
            return super().multiply(x, mask)
        self._widths[mask.layer] = x.size(1)
        return x * self._factors(uniforms(x, mask), mask.layer)

    def multiply_sparse(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a sparse CSR matrix."""
        if not isinstance(mask, _ConcreteMask) or mask.drops_all:
            return super().multiply_sparse(x, mask)
        self._widths[mask.layer] = x.size(1)
        values = x.values() * self._factors(uniforms(x, mask), mask.layer)
        return torch.sparse_csr_tensor(
            x.crow_indices(), x.col_indices(), values, x.shape, check_invariants=False
        )

    def penalty(self, *weights: Tensor) -> Tensor:
        r"""Return the regularizer of the layers of the last pass, to be added to the loss.

        $\sum_l \lambda_H K_l (p_l \log p_l + (1-p_l) \log(1-p_l))$ with $K_l$ channels, plus
        $\lambda_W \lVert W_l \rVert^2 / (1-p_l)$ for the weights that are given.

        Args:
            weights: what multiplies the dropped features, one for each of the layers, in order, or
                none: leave them to the optimizer's weight decay.

        Returns:
            A scalar, differentiable by `logit` and the weights; 0 before any pass.

        Raises:
            ParameterError: if there are weights, but not one for every layer.
        """
        layers = sorted(self._widths)
        if weights and len(weights) != len(layers):
            raise ParameterError(
                f"there must be one weight per layer, got {len(weights)} for {len(layers)} layers"
            )
        logits = self.logit[layers]
        entropies = logits.sigmoid() * logsigmoid(logits) + (-logits).sigmoid() * logsigmoid(
            -logits
        )
        widths = logits.new_tensor([self._widths[layer] for layer in layers])
        total = self.entropy_strength * (widths * entropies).sum()
        for logit, weight in zip(logits, weights, strict=False):
            total = total + self.weight_strength * weight.square().sum() / (-logit).sigmoid()
        return total

    def _factors(self, numbers: Tensor, layer: int) -> Tensor:
        """Return the factors that uniform numbers make, at the rate of a layer."""
        logit = self.logit[layer].to(numbers.dtype)
        factors = ((numbers.logit() - logit) / self.temperature).sigmoid()
        return factors / (-logit).sigmoid() if self.rescale == "inverse" else factors


@dataclass(frozen=True, kw_only=True)
class _ConcreteMask(Mask):
    """A mask whose rate is learnt.

    Args:
        layer: the layer whose rate it has.
    """

    layer: int
