"""PyG layers whose message passing is a weighted sum, computed without forming the messages.

A `Propagation` stands in for the method `propagate` of one layer. It aggregates by the kernels
where that gives what PyG's general path gives, and calls that path everywhere else: other hooks on
the layer, another aggregation, sparse adjacencies, explanation, compilation. A `Normalization`
stands in for the method `forward` of layers that normalize the graph at every call: it remembers
the normalized graph, and notices when the graph has changed. Where edges are dropped before the
normalization both keep the whole graph's structure, and count the degrees of the kept edges.
"""

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from gnndrop.attention import ATTENTIVE, Attention, AttentionSource, AttentiveForward
from gnndrop.compilation import eager
from gnndrop.graph import Graph, plain
from gnndrop.kernels import (
    Kept,
    aggregate,
    aggregate_kept,
    convolve,
    masked_multiply,
    masked_multiply_sparse,
)
from gnndrop.linear import Linear, is_product
from gnndrop.masks import Mask
from gnndrop.prepared import NormalizedGraph, Prepared

# The argument of `propagate` that multiplies the messages of each supported layer, by exact type:
# a subclass may compute other messages.
FACTORS: dict[type[nn.Module], str | None] = {
    pyg.APPNP: "edge_weight",
    pyg.GATConv: "alpha",
    pyg.GATv2Conv: "alpha",
    pyg.GCNConv: "edge_weight",
    pyg.GINConv: None,
    pyg.GraphConv: "edge_weight",
    pyg.SAGEConv: None,
    pyg.SimpleConv: "edge_weight",
}


NORMALIZING = (pyg.APPNP, pyg.GCNConv)


class MaskSource(Protocol):
    """What masks the messages of a layer."""

    @property
    def is_active(self) -> bool:
        """Whether it would mask anything now."""

    def message_mask(self, graph: Graph) -> tuple[Mask | None, Tensor | None]:
        """Return the mask of this call by edge and channel, or the factors of whole edges.

        There may be factors for blocks of channels, one for each column.
        """


class MaskedFeatures(NamedTuple):
    """Features on their way to a `Normalization`, which masks them where it multiplies by them.

    Args:
        x: what the layer was called with.
        mask: by node and channel.
    """

    x: Tensor
    mask: Mask

    def multiply(self) -> Tensor:
        """Return the masked features."""
        multiply = masked_multiply_sparse if self.x.is_sparse_csr else masked_multiply
        return multiply(self.x, self.mask)


class EdgeMask(NamedTuple):
    """An edge mask, with what decides which edges share a coin and which have none.

    Args:
        mask: by edge.
        symmetric: whether both directions of an edge share their coins.
        protect_self_loops: keep, and do not scale, the edges from a node to itself.
        chosen: boolean of shape (E,), which edges to keep, in the place of the mask's coins.
    """

    mask: Mask
    symmetric: bool
    protect_self_loops: bool
    chosen: Tensor | None = None

    def looped(self, edge_index: Tensor, num_nodes: int) -> "EdgeMask":
        """Return the mask of a graph whose loops gave way to one of each node, at its end.

        Such a loop is always kept: one that was dropped would be added again.
        """
        chosen = self.chosen
        if chosen is not None:
            is_edge = edge_index[0] != edge_index[1]
            chosen = torch.cat([chosen[is_edge], chosen.new_ones(num_nodes)])
        return self._replace(protect_self_loops=True, chosen=chosen)


class Propagation:
    """Stands in for `layer.propagate`.

    Args:
        layer: a `MessagePassing` layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        built: Any = layer
        self.layer = built
        # What a layer is built with, and keeps.
        self._sums_weighted = bool(
            type(layer) in FACTORS
            and built.aggr in ("sum", "add", "mean")
            and built.flow == "source_to_target"
            and built.decomposed_layers == 1
        )
        self.sources: list[MaskSource] = []
        self.attention_sources: list[AttentionSource] = []
        self.users = self.accelerations = 0
        self.prepared = Prepared()
        self._hooks = [getattr(layer, f"_{kind}_hooks") for kind in _HOOKS]
        self.edge_mask: EdgeMask | None = None
        self.forget()

    @eager
    def __call__(self, edge_index: Any, size: Any = None, **arguments: Any) -> Tensor:
        """Aggregate the messages of the layer."""
        if self.edge_mask is not None and not isinstance(self.layer, ATTENTIVE):
            return self._aggregate_kept(self.edge_mask, edge_index, arguments)
        x_source, num_targets = _ends(arguments.get("x"))
        weight = arguments.get(FACTORS.get(type(self.layer)) or "")
        if not self._applies(edge_index, size, x_source, num_targets, weight):
            general: Tensor = type(self.layer).propagate(
                self.layer, edge_index, size=size, **arguments
            )
            return general
        graph = self.prepared.graph(plain(edge_index), x_source.size(0), num_targets)
        width = x_source.shape[1:].numel()
        weight, mask = self._mask_messages(graph, weight, width, x_source.dtype)
        out = aggregate(graph, x_source.flatten(1), weight, mask)
        if self.layer.aggr == "mean":
            out = out / graph.by_target.pointer.diff().clamp(min=1).to(out.dtype)[:, None]
        # No view where none is needed: what is done to a view in place costs autograd six copies.
        return out if x_source.dim() == 2 else out.view(num_targets, *x_source.shape[1:])

    def convolve(
        self, x: Tensor, normalized: NormalizedGraph, feature_mask: Mask | None
    ) -> Tensor | None:
        """Do all that a GCNConv does behind the normalization at once; None where it may not be."""
        layer, linear, is_sparse = self.layer, self.layer.lin, x.layout == torch.sparse_csr
        if not (self._is_weighted_sum and self._is_wanted and is_product(linear)):
            return None
        weight, bias, factors = linear.weight, layer.bias, normalized.factors  # a module searches
        possible = (
            layer.aggr != "mean"
            and (type(linear) is Linear if is_sparse else x.layout == torch.strided)
            and x.dim() == 2
            and x.dtype == weight.dtype == factors.dtype
            and not torch.is_autocast_enabled(x.device.type)
            and layer.__dict__.get("propagate") is self  # nobody's replacement
            and (bias is None or bias.shape == weight.shape[:1])
        )
        if not possible:
            return None
        graph, width = normalized.graph, layer.out_channels
        message_factors, mask = self._mask_messages(graph, factors, width, x.dtype)
        return convolve(
            graph,
            x.values() if is_sparse else x,
            weight,
            bias,
            factors=message_factors,
            mask=mask,
            pattern=linear.pattern(x) if is_sparse else None,
            feature_mask=feature_mask,
        )

    def _mask_messages(
        self, graph: Graph, weight: Tensor | None, width: int, dtype: torch.dtype
    ) -> tuple[Tensor | None, Mask | None]:
        """Return the factors of the messages, so many channels wide, and their mask."""
        mask = None
        for source in self.sources:
            mask, factor = source.message_mask(graph)
            if factor is not None:
                weight = _multiply(weight, factor.to(dtype), width)
        return weight, mask

    def drop(self, edge_mask: EdgeMask, arguments: dict[str, Any]) -> bool:
        """Drop edges during the coming call of the layer, if that is possible here.

        Args:
            edge_mask: what to drop; kept until `forget`.
            arguments: those of the call.

        Returns:
            Whether the layer will see the kept edges; otherwise nothing is changed.
        """
        x, edge_index = arguments.get("x"), arguments.get("edge_index")
        weight = arguments.get("edge_weight")
        layer = self.layer
        is_normalized = isinstance(layer, NORMALIZING) and layer.normalize
        possible = (
            self._is_weighted_sum
            and not (self.sources or self.attention_sources)
            and self._has_known_factors(arguments)
            and isinstance(edge_index, Tensor)
            and edge_index.layout == torch.strided
            and edge_index.dtype == torch.int64
            and isinstance(x, Tensor)
            and x.is_floating_point()
            and x.dim() == 2
            and (x.layout == torch.strided or is_normalized or isinstance(layer, ATTENTIVE))
            and _fits(edge_index, arguments.get("size"), (len(x), len(x)))
            and (weight is None or (_is_factor(weight, edge_index, x) and not weight.requires_grad))
            # A layer that adds loops must not lose them, nor bring back a heavier one.
            and (edge_mask.protect_self_loops or not _adds_loops(layer, weight))
            and (edge_mask.chosen is None or not _hides_edges(layer))
        )
        if possible and isinstance(layer, ATTENTIVE) and layer.add_self_loops:
            edge_mask = edge_mask._replace(protect_self_loops=True)  # it would add them again
        self.edge_mask = edge_mask if possible else None
        return possible

    def _has_known_factors(self, arguments: dict[str, Any]) -> bool:
        """Whether the factors of the messages are weights, or an attention that we compute."""
        layer = self.layer
        if not isinstance(layer, ATTENTIVE):  # an APPNP with dropout changes its weights
            return FACTORS[type(layer)] != "alpha" and getattr(layer, "dropout", 0) == 0
        rest = arguments.keys() - {"x", "edge_index"}
        return isinstance(layer.__dict__.get("edge_updater"), Attention) and not rest

    def forget(self) -> None:
        """End what `drop` began."""
        self.edge_mask = None
        self.normalizes = False
        self._kept: Kept | None = None

    def _aggregate_kept(
        self, edge_mask: EdgeMask, edge_index: Tensor, arguments: dict[str, Any]
    ) -> Tensor:
        x, num_targets = _ends(arguments["x"])
        weight = arguments.get("edge_weight")
        if self._kept is None or self._kept.dtype != x.dtype:  # steps of one call share it
            graph = self.prepared.graph(plain(edge_index), len(x), num_targets)
            mask, symmetric, protected, chosen = edge_mask
            self._kept = Kept(graph, mask, symmetric, protected, weight, x.dtype, chosen)
        kept, left, right = self._kept, None, None
        if self.normalizes:
            left = right = kept.inverse_degree(is_root=True)
        if self.layer.aggr == "mean":
            mean = kept.inverse_degree(is_root=False)
            left = mean if left is None else left * mean
        return aggregate_kept(kept, x, left, right)

    @property
    def _is_weighted_sum(self) -> bool:
        hooks = sum(map(len, self._hooks))
        return (
            self._sums_weighted
            and not self.layer.explain
            and hooks == 2 * len(self.sources) <= 2  # those of our own site, at most one
        )

    @property
    def is_fused(self) -> bool:
        """Whether the messages will not be formed, as far as that can be told beforehand."""
        return self._is_weighted_sum and self._is_wanted

    @property
    def _is_wanted(self) -> bool:
        """Not where nothing is masked: kernels round differently, that layer is to stay as it was.

        Unless `accelerate` asked for them.
        """
        return (
            self.accelerations > 0
            or self.edge_mask is not None
            or any(source.is_active for source in self.sources)
            or any(source.is_active for source in self.attention_sources)
        )

    def _applies(
        self, edge_index: Any, size: Any, x_source: Any, num_targets: int, weight: Any
    ) -> bool:
        return (
            self._is_weighted_sum
            and self._is_wanted
            and isinstance(edge_index, Tensor)
            and edge_index.layout == torch.strided
            and edge_index.dtype == torch.int64
            and isinstance(x_source, Tensor)
            and x_source.layout == torch.strided
            and x_source.is_floating_point()
            and x_source.dim() == (3 if self.layer.node_dim == 0 else 2)
            and _fits(edge_index, size, (x_source.size(0), num_targets))
            and (weight is None or _is_factor(weight, edge_index, x_source))
        )


class Normalization:
    """Stands in for `layer.forward` of a `GCNConv` or an `APPNP`.

    Args:
        layer: the layer.
        propagation: that of the layer.
    """

    def __init__(self, layer: nn.Module, propagation: Propagation) -> None:
        self.layer: Any = layer
        self.propagation = propagation
        self.__signature__ = inspect.signature(layer.forward)

    def masks(self, x: Any) -> bool:
        """Whether it would take these features as `MaskedFeatures`, too."""
        return (
            self.propagation.accelerations > 0
            and isinstance(self.layer, pyg.GCNConv)
            and isinstance(x, Tensor)
            and x.layout in (torch.strided, torch.sparse_csr)
            and x.dim() == 2
            and x.is_floating_point()
        )

    @eager
    def __call__(
        self, x: Tensor | MaskedFeatures, edge_index: Any, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Call the layer with the normalized graph in the place of its own cache."""
        layer, masked = self.layer, x if isinstance(x, MaskedFeatures) else None
        x = x.x if isinstance(x, MaskedFeatures) else x
        is_ours = (
            layer.normalize
            and not layer.cached
            and isinstance(x, Tensor)
            and isinstance(edge_index, Tensor)
            and edge_index.layout == torch.strided
            and (edge_weight is None or not edge_weight.requires_grad)
        )
        if not is_ours:
            x = x if masked is None else masked.multiply()
            general: Tensor = type(layer).forward(layer, x, edge_index, edge_weight)
            return general
        propagation = self.propagation
        if propagation.edge_mask is not None:
            graph = self._looped(propagation.edge_mask, x, edge_index, edge_weight)
        else:
            improved = getattr(layer, "improved", False)
            rest = improved, layer.add_self_loops, layer.flow, x.dtype
            num_nodes = x.size(layer.node_dim)
            normalized = propagation.prepared.normalized(edge_index, edge_weight, num_nodes, *rest)
            if isinstance(layer, pyg.GCNConv):
                mask = None if masked is None else masked.mask
                done = propagation.convolve(x, normalized, mask)
                if done is not None:
                    return done
            graph = normalized.edges
        x = x if masked is None else masked.multiply()
        if isinstance(layer, pyg.GCNConv):
            return self._convolve(x, *graph)
        state = layer.__dict__  # the attribute itself: a module looks at what is set on it
        state["_cached_edge_index"] = graph
        try:
            out: Tensor = type(layer).forward(layer, x, edge_index, edge_weight)
        finally:
            state["_cached_edge_index"] = None
        return out

    def _convolve(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None) -> Tensor:
        """Do what GCNConv does behind the normalization, with two arrays of the output less."""
        layer = self.layer
        out: Tensor = layer.propagate(edge_index, x=layer.lin(x), edge_weight=edge_weight)
        if layer.bias is None:
            return out
        return out.add_(layer.bias) if self.propagation.is_fused else out + layer.bias

    def _looped(
        self, edge_mask: EdgeMask, x: Tensor, edge_index: Any, edge_weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the graph before its normalization, which follows the kept edges."""
        layer, propagation, num_nodes = self.layer, self.propagation, x.size(self.layer.node_dim)
        propagation.normalizes = True
        if not layer.add_self_loops:
            return edge_index, edge_weight
        propagation.edge_mask = edge_mask.looped(edge_index, num_nodes)
        fill = 2.0 if getattr(layer, "improved", False) else 1.0
        graph: tuple[Tensor, Tensor | None] = propagation.prepared.completed(
            edge_index, edge_weight, fill, num_nodes
        )
        return graph


_HOOKS = (
    "propagate_forward_pre",
    "propagate_forward",
    "message_forward_pre",
    "message_forward",
    "aggregate_forward_pre",
    "aggregate_forward",
)


def acquire(layer: nn.Module) -> Propagation | None:
    """Put a `Propagation` in the place of a supported layer's method; count its users.

    Example:
        >>> layer = pyg.GCNConv(2, 2)
        >>> propagation = acquire(layer)
        >>> propagation is layer.propagate
        True
        >>> release(propagation)
        >>> isinstance(layer.propagate, Propagation)
        False
    """
    if type(layer) not in FACTORS:
        return None
    propagation = layer.__dict__.get("propagate")
    if propagation is None:
        propagation = Propagation(layer)
        layer.__dict__["propagate"] = propagation
        for name, substitute in _substitutes(layer, propagation).items():
            layer.__dict__.setdefault(name, substitute)
    elif not isinstance(propagation, Propagation):  # somebody else's replacement
        return None
    propagation.users += 1
    return propagation


def _substitutes(layer: nn.Module, propagation: Propagation) -> dict[str, object]:
    """Return what stands in for a layer's other methods."""
    if isinstance(layer, NORMALIZING):
        return {"forward": Normalization(layer, propagation)}
    if isinstance(layer, ATTENTIVE):
        return {
            "forward": AttentiveForward(layer, propagation),
            "edge_updater": Attention(layer, propagation),
        }
    return {}


def release(propagation: Propagation) -> None:
    """Give a `Propagation` back; the last user restores the layer's own methods."""
    propagation.users -= 1
    if propagation.users:
        return
    attributes = propagation.layer.__dict__
    if attributes.get("propagate") is propagation:  # PyG's `explain` puts its own there
        del attributes["propagate"]
    for name in ("forward", "edge_updater"):
        if isinstance(attributes.get(name), Normalization | AttentiveForward | Attention):
            del attributes[name]


@contextmanager
def accelerate(model: nn.Module) -> Iterator[None]:
    """Aggregate by the kernels in every supported layer of a model, while the context lasts.

    Example:
        >>> model = pyg.GCN(4, 8, 2, 3)
        >>> x, edge_index = torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]])
        >>> plain = model(x, edge_index)
        >>> with accelerate(model):
        ...     torch.allclose(model(x, edge_index), plain, atol=1e-6)
        True
    """
    acquired = [propagation for layer in model.modules() if (propagation := acquire(layer))]
    prepared = Prepared(4 * len(acquired))  # most layers see the same graph
    for propagation in acquired:
        propagation.accelerations += 1
        propagation.prepared = prepared
    try:
        yield
    finally:
        for propagation in acquired:
            propagation.accelerations -= 1
            release(propagation)


def _ends(x: Any) -> tuple[Any, int]:
    """Return the vectors of the sources, and the number of targets."""
    x_source, x_target = x if isinstance(x, tuple) else (x, None)
    return x_source, (x_source if x_target is None else x_target).size(0)


def _fits(edge_index: Tensor, size: Any, expected: tuple[int, int]) -> bool:
    """Whether the numbers of nodes, where they are given, are those of the vectors."""
    given = edge_index.sparse_size() if isinstance(edge_index, EdgeIndex) else size or ()
    return all(one in (None, other) for one, other in zip(given, expected, strict=False))


def _is_factor(weight: Any, edge_index: Tensor, x: Tensor) -> bool:
    """Whether there is a number per edge and head; PyG knows what to make of anything else."""
    shape = edge_index.size(1), *x.shape[1:-1]
    return isinstance(weight, Tensor) and weight.dtype == x.dtype and weight.shape == shape


def _adds_loops(layer: Any, weight: Tensor | None) -> bool:
    """Whether a layer adds self-loops other than those which `Normalization` knows."""
    is_normalized = isinstance(layer, NORMALIZING) and layer.normalize
    return (is_normalized and weight is not None) or (
        getattr(layer, "combine_root", None) == "self_loop"
    )


def _hides_edges(layer: Any) -> bool:
    """Whether the messages have other edges than the call, and not those of `EdgeMask.looped`."""
    return isinstance(layer, ATTENTIVE) or getattr(layer, "combine_root", None) == "self_loop"


def _multiply(weight: Tensor | None, factor: Tensor, num_channels: int) -> Tensor:
    """Multiply the weights of heads by the factors of whole edges, or of blocks of channels."""
    if weight is None:
        weight = factor.new_ones(1, 1)
    weight, factor = (one if one.dim() == 2 else one[:, None] for one in (weight, factor))
    heads, blocks = weight.size(1), factor.size(1)
    if num_channels % blocks == 0 and (heads in (1, blocks) or blocks == 1):
        return weight * factor
    # As few columns as are cut at the ends of all heads and blocks; blocks may end within a head.
    columns = math.lcm(heads, blocks) if num_channels % blocks == 0 else num_channels
    places = torch.arange(columns, device=factor.device)
    return weight[:, places * heads // columns] * factor[:, places * blocks // columns]
