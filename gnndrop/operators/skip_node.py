"""SkipNode: nodes that a layer leaves as they were."""

from typing import ClassVar

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.masks import Mask, keep
from gnndrop.operators._base import Operator, Share, _check_floating, declare


@declare
class SkipNode(Operator):
    r"""Let nodes skip a layer: their input goes on in the place of their output.

    $y_{ic} = m_i f_{ic} + (1-m_i) x_{ic}$ with $m_i \sim B(1-p)$, for the input x and the output f.

    A node that skips still sends its messages. Nothing is rescaled: the mean is a mixture of both.
    Attached it acts in the message-passing layers that are as wide at the output as at the input;
    an activation that follows sees a skipping node's input again, which a ReLU leaves as it is.

    Source: Lu et al., "SkipNode: on alleviating performance degradation for deep graph
    convolutional networks" (arXiv 2112.11628), whose code skips an exact number of nodes, in
    evaluation too.

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 gives the input.
        share: `layer` (default) or `forward`; see `Operator`.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> out, x = torch.ones(50, 4), torch.zeros(50, 4)
        >>> mixed = SkipNode(p=0.5).start_pass(0)(out, x)
        >>> bool((mixed == mixed[:, :1]).all()), sorted(set(mixed.unique().tolist()))
        (True, [0.0, 1.0])
    """

    name = "skip-node"
    site = "paths"
    axes = ("node",)
    source = "Lu et al. 2021"
    rescales = ("none",)
    is_product = False
    needs_input: ClassVar[bool] = True
    """Whether calls take the layer's input beside its output."""

    def __init__(self, p: float = 0.5, share: Share = "layer") -> None:
        super().__init__(p, share, "none")

    @property
    def input_factor(self) -> float:
        """The mean share of the input in training."""
        return self.p

    def mean_factors(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return the mean share of the output of every node, float64 of shape (num_nodes,)."""
        return torch.full((num_nodes,), 1 - self.p, dtype=torch.float64)

    def forward(self, out: Tensor, x: Tensor) -> Tensor:
        """Mix a layer's output with its input in training; return the output otherwise.

        Args:
            out: floating, shape (N, C).
            x: the same.

        Returns:
            Shape (N, C).

        Raises:
            ParameterError: if the two are not floating and of one shape.
        """
        return self.mix(out, x, self.next_mask()) if self.is_active else out

    def mix(self, out: Tensor, x: Tensor, mask: Mask) -> Tensor:
        """Mix by a given mask."""
        _check_floating(self, out)
        if out.shape != x.shape or out.dtype != x.dtype:
            raise ParameterError(
                f"{self.name} needs a layer whose output is like its input, got {out.dtype} of "
                f"shape {tuple(out.shape)} for {x.dtype} of shape {tuple(x.shape)}"
            )
        nodes = torch.arange(len(out), device=out.device)
        kept = keep(mask, nodes, nodes).view(-1, *[1] * (out.dim() - 1))
        return torch.where(kept, out, x)
