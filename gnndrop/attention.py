"""The attention of PyG's GATConv, computed by the kernels.

An `Attention` stands in for the method `edge_updater` of one layer, an `AttentiveForward` for its
method `forward`: it remembers the graph with the self-loops that the layer would add at every call,
and computes the scores of all heads by one product.
"""

import inspect
from typing import Any, Protocol

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.compilation import eager
from gnndrop.graph import plain
from gnndrop.kernels import attention, masked_multiply
from gnndrop.masks import Mask
from gnndrop.prepared import Prepared

ATTENTIVE = (pyg.GATConv,)


class AttentionSource(Protocol):
    """What masks the attention of a layer."""

    @property
    def is_active(self) -> bool:
        """Whether it would mask anything now."""

    @property
    def before_softmax(self) -> bool:
        """Whether the shares of the kept edges sum to one again."""

    def attention_mask(self) -> Mask:
        """Return the mask of this call by edge and head."""


class EdgeMasks(Protocol):
    """What an attention asks of the propagation of its layer."""

    @property
    def edge_mask(self) -> tuple[Mask, bool, bool, Tensor | None] | None:
        """The mask of edges, whether it is symmetric, whether loops are protected; what is chosen.

        No edges are chosen where the attention is computed here.
        """

    @property
    def is_fused(self) -> bool:
        """Whether the layer's messages are never formed."""

    @property
    def attention_sources(self) -> list[AttentionSource]:
        """What masks the attention."""

    @property
    def prepared(self) -> Prepared:
        """What is derived of the graph."""


class Attention:
    """Stands in for `layer.edge_updater`.

    Args:
        layer: a GATConv.
        propagation: that of the layer.
    """

    def __init__(self, layer: nn.Module, propagation: EdgeMasks) -> None:
        self.layer: Any = layer
        self.propagation = propagation
        self._hooks = [getattr(layer, f"_edge_update_forward_{kind}s") for kind in _HOOKS]

    @eager
    def __call__(self, edge_index: Any, size: Any = None, **arguments: Any) -> Tensor:
        """Return the attention of the edges."""
        layer, alpha = self.layer, arguments["alpha"]
        edge_mask = self.propagation.edge_mask
        if edge_mask is None and not (
            self.propagation.is_fused and self._applies(edge_index, arguments)
        ):
            general: Tensor = type(layer).edge_updater(layer, edge_index, size=size, **arguments)
            return general
        source, target = alpha
        graph = self.propagation.prepared.graph(plain(edge_index), source.size(0), target.size(0))
        masks = (edge_mask or ())[:3]
        for dropping in self._sources:
            if dropping.before_softmax:
                masks = (dropping.attention_mask(), False, False)
        shares = attention(graph, source, target, layer.negative_slope, *masks)
        if layer.dropout:
            shares = F.dropout(shares, layer.dropout, layer.training)
        for dropping in self._sources:
            if not dropping.before_softmax:
                mask = dropping.attention_mask()
                shares = masked_multiply(shares, mask, graph.directed_coordinates)
        return shares

    @property
    def _sources(self) -> list[AttentionSource]:
        return [source for source in self.propagation.attention_sources if source.is_active]

    def _applies(self, edge_index: Any, arguments: dict[str, Any]) -> bool:
        """Whether the scores follow from the two ends of an edge alone, and nobody looks on."""
        ends = arguments.get("alpha", (None, None))
        return (
            arguments.get("edge_attr") is None
            and isinstance(edge_index, Tensor)
            and edge_index.layout == torch.strided
            # Those of our own site, which acts here; two masks before a softmax are not one.
            and sum(map(len, self._hooks)) == len(self.propagation.attention_sources) <= 1
            and all(isinstance(end, Tensor) and end.dim() == 2 for end in ends)
        )


class AttentiveForward:
    """Stands in for `layer.forward` of a GATConv.

    Args:
        layer: the layer.
        propagation: that of the layer.
    """

    def __init__(self, layer: nn.Module, propagation: EdgeMasks) -> None:
        self.layer: Any = layer
        self.propagation = propagation
        self.__signature__ = inspect.signature(layer.forward)

    @eager
    def __call__(self, x: Any, edge_index: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer with the self-loops in place."""
        layer = self.layer
        is_ours = (
            layer.add_self_loops
            and isinstance(x, Tensor)
            and isinstance(edge_index, Tensor)
            and edge_index.layout == torch.strided
            and not args
            and kwargs.keys() <= {"return_attention_weights"}
        )
        if not is_ours:
            return type(layer).forward(layer, x, edge_index, *args, **kwargs)
        looped = self.propagation.prepared.looped(edge_index, x.size(0))
        is_usual = not kwargs and x.dim() == 2 and layer.lin is not None and layer.res is None
        if is_usual and self.propagation.is_fused:
            return self._attend(x, looped)
        layer.__dict__["add_self_loops"] = False
        try:
            return type(layer).forward(layer, x, looped, **kwargs)
        finally:
            layer.__dict__["add_self_loops"] = True

    def _attend(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Do what GATConv does, without its N x H x C products of nodes and attention vectors."""
        layer = self.layer
        h = layer.lin(x)
        vectors = _by_head(torch.cat([layer.att_src, layer.att_dst]))
        scores = (h @ vectors).view(-1, 2, layer.heads).transpose(0, 1).contiguous().unbind()
        alpha = layer.edge_updater(edge_index, alpha=scores, edge_attr=None)
        h = h.view(-1, layer.heads, layer.out_channels)
        out: Tensor = layer.propagate(edge_index, x=(h, h), alpha=alpha)
        out = out.flatten(1) if layer.concat else out.mean(1)
        return out if layer.bias is None else out + layer.bias


_HOOKS = ("pre_hook", "hook")


def _by_head(vectors: Tensor) -> Tensor:
    """Turn K vectors of every head, (K, H, C), into the matrix H C x K H that gives all scores."""
    # Of shape (H, C, K, H) before it is flattened, with zeros where the two heads differ.
    return torch.diag_embed(vectors.permute(2, 0, 1), dim1=0, dim2=-1).flatten(2).flatten(0, 1)
