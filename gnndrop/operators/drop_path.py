"""Stochastic depth: one coin for every residual branch, or for every node of it."""

from dataclasses import replace
from typing import Literal

from gnndrop.masks import Mask, inverse_scale
from gnndrop.operators._base import FeatureOperator, Share, _choice, declare


@declare
class DropPath(FeatureOperator):
    r"""Drop whole residual branches: a layer is left out, and its input goes on by itself.

    $y_{ic} = s_{ic} + m_l f_{ic} / (1-p_l)$ with $m_l \sim B(1-p_l)$ for the branch f beside the
    shortcut s of layer l; one coin for all nodes, or with `per=node` one for each.

    Attached it acts in models that list as `residual_branches` the modules whose outputs are the
    branches, as those of `gnndrop.models` do with `residual=true`. PyG's function `dropout_path`
    drops edges along random walks and has nothing to do with it; `skip-node` leaves out single
    nodes where there is no shortcut.

    Source: Huang et al., "Deep networks with stochastic depth" (ECCV 2016), in the inverted form;
    its own is `rescale=eval,growing=true`.

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept branches by 1-p, `none` leaves them, `eval` leaves
            them and multiplies all by 1-p in evaluation.
        per: `layer` (default) tosses one coin for a branch, `node` one for every node of it.
        growing: attached to L branches, the rate of branch l = 1, ..., L is $p \, l / L$; default
            False.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> import torch
        >>> branch = DropPath(p=0.5).start_pass(0)(torch.ones(10, 4))
        >>> len(branch.unique())
        1
        >>> branch = DropPath(p=0.5, per="node").start_pass(0)(torch.ones(50, 4))
        >>> sorted(set(branch.unique().tolist()))
        [0.0, 2.0]
    """

    name = "drop-path"
    site = "paths"
    axes = ("layer",)
    source = "Huang et al. 2016"
    num_layers: int | None = None
    """The number of the model's layers, while it is attached to one."""

    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "inverse",
        per: Literal["layer", "node"] = "layer",
        growing: bool = False,
    ) -> None:
        super().__init__(p, share, rescale)
        self.per = _choice("per", per, ("layer", "node"))
        self.growing = growing
        self.axes = (self.per,)

    @property
    def is_product(self) -> bool:  # type: ignore[override]  # of options, not of the class alone
        """Whether all layers have factors of one distribution: not where the rate grows."""
        return not self.growing

    def rate(self, layer: int) -> float:
        """Return the rate of a layer; stand-alone, where no depth is known, p itself."""
        if not self.growing or self.num_layers is None:
            return self.p
        return self.p * (layer + 1) / self.num_layers

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer, at its rate."""
        mask, rate = super().next_mask(layer), self.rate(layer)
        if self.rescale == "eval" and not self.training:
            return replace(mask, scale=1 - rate)
        scale = inverse_scale(rate) if self.rescale == "inverse" else 1.0
        return replace(mask, p=rate, scale=scale)
