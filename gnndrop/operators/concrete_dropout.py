"""Concrete dropout: feature dropout whose rate is learnt, one for every layer."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from gnndrop.kernels.concrete import relaxed_multiply, relaxed_multiply_sparse
from gnndrop.kernels.reference import inverse_keep
from gnndrop.masks import Mask
from gnndrop.operators._base import FeatureOperator, Share, declare
from gnndrop.operators._relaxed import RelaxedMask, RelaxedOperator, check_nonnegative


@declare
class ConcreteDropout(RelaxedOperator, FeatureOperator):
    r"""Feature dropout by relaxed coins, through which the rate p is learnt by gradient descent.

    $\tilde x_{ic} = z_{ic} x_{ic} / (1-p_l)$ with
    $z_{ic} = \sigma((\mathrm{logit}\, u_{ic} - \mathrm{logit}\, p_l) / t)$, $u_{ic} \sim U(0, 1)$.

    At temperature $t \to 0$ it is `dropout` with the coins $u \ge p$; at $t > 0$ nothing is dropped
    entirely and the mean factor is 1 at p = 1/2 alone (`factor_cumulants` has it). Every layer l
    has its own rate, in the parameter `logit`, and `rates` tells them. A weight decay on that
    parameter would pull rates to 1/2.

    `regularization` is the divergence from a Gaussian prior of length scale $l_0$ on the weights
    behind the dropout, which a loss that is a mean over N nodes takes 1/N of; `fit` adds it with
    N the number of training nodes. Attached, the operator knows these weights: those of a layer's
    own linear maps of its input. It shrinks them itself, the more the higher the rate, so that a
    weight decay on them would count the prior twice: `fit` takes them out of its own, as the
    paper's code has none beside; in a loop of one's own, leave `regularized_weights` out of it.
    Biases stay in. The weight decay d of Adam is the prior of $l_0^2 = d N$ at p = 0.

    Source: Gal, Hron and Kendall, "Concrete dropout" (NeurIPS 2017); the defaults of temperature
    and length scale are those of its code (github.com/yaringal/ConcreteDropout), whose
    `weight_regularizer` is $l_0^2/(2N)$ and `dropout_regularizer` 1/N for the cross entropy.

    Args:
        p: the rate before training, in [0, 1]; default 0.5. At 0 and at 1 nothing is learnt: the
            identity, and zeros.
        share: `layer` (default) or `forward`, where all layers share one mask and hence one rate.
        rescale: `inverse` (default) divides entries by 1-p, `none` leaves them, `eval` leaves them
            and multiplies all entries by 1-p in evaluation.
        temperature: t, above 0; default 0.1.
        length_scale: $l_0$, 0 or more; default 1e-4.
        strength: what `regularization` is multiplied by, 0 or more; default 1, the divergence.
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
        length_scale: float = 1e-4,
        strength: float = 1.0,
        max_layers: int = 16,
    ) -> None:
        super().__init__(p, share, rescale, temperature, strength, max_layers)
        self.length_scale = check_nonnegative("length_scale", length_scale)
        self._maps: dict[int, tuple[Any, ...]] = {}

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

    def precede(self, layer: int, *maps: nn.Module) -> None:
        """Note what multiplies the features that a layer receives; `attach` does.

        Args:
            layer: the layer's number.
            maps: linear maps, with a `weight` each; none to forget them.
        """
        self._maps[layer] = maps  # a dictionary's: they are no submodules of ours

    @property
    def regularized_weights(self) -> tuple[Tensor, ...]:
        """The weights that `regularization` shrinks: a weight decay would do it a second time."""
        is_regularized = self.logit.requires_grad and self.strength * self.length_scale > 0
        maps = [one for maps in self._maps.values() for one in maps] if is_regularized else []
        return tuple(one.weight for one in maps)

    def regularization(self) -> Tensor:
        r"""Return the regularizer of a sum of losses: a mean over N nodes takes 1/N of it.

        $s \sum_l \frac{l_0^2}{2} (1-p_l) \lVert M_l \rVert^2 - K_l H(p_l)$ with
        $H(p) = -p \log p - (1-p) \log(1-p)$, over the layers of the last pass, for $K_l$ channels
        and `strength` s. The paper's M multiplies coins that are not rescaled: it is W, the weights
        behind the dropout, or $W / (1-p_l)$ with `rescale=inverse`; where they are not known, the
        entropy is all.

        Returns:
            A scalar, differentiable by `logit` and the weights; 0 before any pass.
        """
        total = super().regularization()
        for number, maps in self._maps.items():
            layer = 0 if self.share == "forward" else number
            if layer not in self._widths:
                continue
            logit = self.logit[layer]
            factor = inverse_keep(logit) if self.rescale == "inverse" else (-logit).sigmoid()
            squares = sum(one.weight.square().sum() for one in maps)
            total = total + self.strength * self.length_scale**2 / 2 * factor * squares
        return total
