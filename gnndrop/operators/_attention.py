"""The base of the operators on attention."""

from typing import ClassVar

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.kernels import masked_multiply
from gnndrop.masks import Mask
from gnndrop.operators._base import MessageOperator


class AttentionOperator(MessageOperator):
    """Base of the operators on attention, one share for every edge and head.

    Args:
        p: see `Operator`.
        share: see `Operator`.
        rescale: `inverse` divides what is kept by 1-p in training; `none` leaves it.
    """

    site = "attention"
    axes = ("edge", "head")
    before_softmax: ClassVar[bool] = False
    """Whether the shares of the kept edges sum to one again: calls then need the `edge_index`."""

    def forward(self, attention: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Mask attention in training; the identity otherwise.

        Args:
            attention: floating, shape (E, H): the share of every edge and head.
            edge_index: int64 of shape (2, E), which makes the coins depend on an edge's endpoints;
                without it they depend on its position.

        Returns:
            Shape of `attention`.

        Raises:
            ParameterError: if `attention` is not floating, there is not as much as edges, or edges
                are needed.
        """
        if not (self.before_softmax and self.is_active):
            return super().forward(attention, edge_index)
        if edge_index is None or attention.dim() != 2 or len(attention) != edge_index.size(1):
            raise ParameterError(
                f"{self.name} needs attention of shape (E, H) and the edge_index of its E edges, "
                f"got {tuple(attention.shape)} and "
                + ("none" if edge_index is None else f"{edge_index.size(1)} edges")
            )
        return self.mask_attention(attention, self.prepare(edge_index), self.next_mask())

    def mask_attention(self, attention: Tensor, graph: Graph, mask: Mask) -> Tensor:
        """Apply a given mask to the attention of a graph's edges, shape (E, H)."""
        kept = masked_multiply(attention, mask, graph.directed_coordinates)
        if not self.before_softmax:
            return kept
        totals = kept.new_zeros(graph.num_targets, kept.size(1))
        totals = totals.index_add(0, graph.target, kept)
        return kept / totals.masked_fill(totals == 0, 1)[graph.target]

    def message_factors(self, attention: Tensor, graph: Graph, mask: Mask) -> Tensor:
        """Return what multiplies messages that have their attention in them already, (E, H)."""
        masked = self.mask_attention(attention, graph, mask)
        is_zero = attention == 0  # no share to give, whatever becomes of it
        return torch.where(is_zero, 0, masked / attention.masked_fill(is_zero, 1))
