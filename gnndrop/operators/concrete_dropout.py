"""Concrete dropout: feature dropout whose rate is learnt, one for every layer."""

from dataclasses import replace

from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.kernels.concrete import relaxed_multiply, relaxed_multiply_sparse
from gnndrop.masks import Mask
from gnndrop.operators._base import FeatureOperator, Share, declare
from gnndrop.operators._relaxed import RelaxedMask, RelaxedOperator, check_strength


@declare
class ConcreteDropout(RelaxedOperator, FeatureOperator):
    r"""Feature dropout by relaxed coins, through which the rate p is learnt by gradient descent.

    $\tilde x_{ic} = z_{ic} x_{ic} / (1-p_l)$ with
    $z_{ic} = \sigma((\mathrm{logit}\, u_{ic} - \mathrm{logit}\, p_l) / t)$, $u_{ic} \sim U(0, 1)$.

    At temperature $t \to 0$ it is `dropout` with the coins $u \ge p$; at $t > 0$ nothing is dropped
    entirely and the mean factor is 1 at p = 1/2 alone (`factor_cumulants` has it). Every layer l
    has its own rate, in the parameter `logit`, and `rates` tells them. A weight decay on that
    parameter would pull rates to 1/2.

    `penalty` is the regularizer, to be added to a loss that is a mean over N nodes: the paper sets
    `entropy_strength` to 1/N and `weight_strength` to $l^2/(2N)$ with the prior length scale l. An
    operator does not know the weights behind it: `fit` adds the entropies alone and leaves weights
    to its weight decay, which does not grow with the rate. In a loop of one's own, `penalty` with
    the weights of the layers is all of it.

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
        >>> import torch
        >>> dropout = ConcreteDropout(p=0.3).start_pass(0)
        >>> dropout(torch.ones(100, 4)).sum().backward()
        >>> bool(dropout.logit.grad[0] != 0), round(float(dropout.rates[0]), 3)
        (True, 0.3)
    """

    name = "concrete-dropout"
    axes = ("node", "channel")
    source = "Gal et al. 2017"

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
        super().__init__(p, share, rescale, temperature, entropy_strength, max_layers)
        self.weight_strength = check_strength("weight_strength", weight_strength)

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer; with `rescale=eval`, 1-p in evaluation."""
        mask = super().next_mask(layer)
        if self.training or not isinstance(mask, RelaxedMask):
            return mask
        return replace(mask, scale=1 - float(self.rates[mask.layer]))

    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a matrix of nodes x channels."""
        logit = self._learnt(x, mask)
        if logit is None:
            return super().multiply(x, mask)
        return relaxed_multiply(x, mask, logit, *self._relaxation)

    def multiply_sparse(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a sparse CSR matrix."""
        logit = self._learnt(x, mask)
        if logit is None:
            return super().multiply_sparse(x, mask)
        return relaxed_multiply_sparse(x, mask, logit, *self._relaxation)

    def _learnt(self, x: Tensor, mask: Mask) -> Tensor | None:
        """Note how wide the layer of a mask is, and return its logit, if it has any coins."""
        if not self.training or not isinstance(mask, RelaxedMask) or mask.drops_all:
            return None
        self._widths[mask.layer] = x.size(1)
        return self.logit[mask.layer].to(x.dtype)

    def penalty(self, *weights: Tensor) -> Tensor:
        r"""Return the regularizer of the layers of the last pass, to be added to the loss.

        $\sum_l \lambda_H K_l (p_l \log p_l + (1-p_l) \log(1-p_l))$ with $K_l$ channels, plus
        $\lambda_W (1-p_l) \lVert M_l \rVert^2$ for the weights that are given. The paper's M
        multiplies coins that are not rescaled: it is W, or $W / (1-p_l)$ with `rescale=inverse`.

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
        total = self.entropy_strength * self.negative_entropy()
        for layer, weight in zip(layers, weights, strict=False):
            keep = (-self.logit[layer]).sigmoid()
            factor = 1 / keep if self.rescale == "inverse" else keep
            total = total + self.weight_strength * factor * weight.square().sum()
        return total
