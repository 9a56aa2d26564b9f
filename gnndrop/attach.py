"""`attach(model, operator)`: make an operator act inside of an unmodified model."""

import inspect
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torch_geometric import EdgeIndex
from torch_geometric.nn import HANConv, HeteroConv, HGTConv, MessagePassing
from torch_geometric.nn.to_hetero_module import ToHeteroLinear, ToHeteroMessagePassing

from gnndrop.errors import AttachError
from gnndrop.graph import Graph, endpoints, entries, is_sparse_adjacency, select_edges
from gnndrop.masks import Mask
from gnndrop.operators import (
    EdgeOperator,
    FeatureOperator,
    MessageOperator,
    Operator,
    make_operator,
)
from gnndrop.propagation import EdgeMask, acquire, release
from gnndrop.registry import did_you_mean

HETEROGENEOUS = (HANConv, HeteroConv, HGTConv, ToHeteroLinear, ToHeteroMessagePassing)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
LINEAR_AGGREGATIONS = ("sum", "add", "mean")


class Attachment:
    """An operator at work in a model; the handle that takes it out again.

    A context manager: leaving it, also by an exception, removes the operator.

    Args:
        model: the model.
        operator: the operator.
        sites: the layers it acts on, with their names.
    """

    def __init__(self, model: nn.Module, operator: Operator, sites: dict[str, "_Site"]) -> None:
        self.model = model
        self.operator = operator
        self.layers = tuple(sites)
        self._owner: nn.Module | None = None
        self._owners: set[nn.Module] = set()
        self._hooks: list[RemovableHandle] = []
        self._sites = list(sites.values())
        layers = [site.layer for site in self._sites]
        # A submodule, so that train(), eval() and to() reach the operator. Containers would take it
        # for one of their layers: there the first layer keeps it.
        self._home = layers[0] if layers and isinstance(model, CONTAINERS) else model
        self._name = _free_name(self._home, operator)
        if layers:
            self._home.add_module(self._name, operator)
            operator.train(self._home.training)
        for module in dict.fromkeys((model, *layers)):
            self._hooks.append(module.register_forward_pre_hook(self._begin))
        for site in self._sites:
            self._hooks.extend(site.install())
        for module in dict.fromkeys((model, *layers)):
            self._hooks.append(module.register_forward_hook(self._finish, always_call=True))

    def remove(self) -> None:
        """Take the operator out, which restores the model to the bit; repeating is harmless."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        for site in self._sites:
            site.uninstall()
        self._sites.clear()
        if self._home._modules.get(self._name) is self.operator:
            delattr(self._home, self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Attachment({self.operator.spec!r}, layers={list(self.layers)})"

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        """Start a pass at the outermost of the modules, unless the caller has started one."""
        if not self.operator.is_active or self.operator.in_pass:
            return
        is_recomputed = torch._C._current_graph_task_id() >= 0  # by a backward pass
        if is_recomputed and module not in self._owners:
            raise AttachError(
                "gradient checkpointing must wrap the whole attached model, got a recomputation of "
                f"{type(module).__name__} alone, whose masks would not be those of its forward pass"
            )
        self.operator.start_pass()
        self._owner = module
        self._owners.add(module)

    def _finish(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._owner is module:
            self.operator.end_pass()
            self._owner = None


def attach(
    model: nn.Module, operator: Operator | str, layers: Iterable[str] | str | None = None
) -> Attachment:
    """Make an operator act in every message-passing layer of a model, until removed.

    Feature operators act on the layer's input; edge operators on its edges, with their weights and
    attributes, before any normalization (with `rescale=inverse` or `none` behind it, on the
    messages); message operators on its messages. A model without message passing may list the
    layers at whose input features are dropped as `feature_layers`, as `gnndrop.models.MLP` does.
    The model's own dropout stays as it is. Nothing is drawn from the global generator but one seed
    per training forward pass.

    Args:
        model: a PyG model, any module that is or contains `MessagePassing` layers.
        operator: an operator that is attached nowhere yet, or a spec string.
        layers: names of the layers to act on, as in `model.named_modules()`, or one name; by
            default all.

    Returns:
        The handle: `handle.remove()` restores the model to the bit; also a context manager.

    Raises:
        AttachError: if the model has no place for the operator, caches its graph, or is
            heterogeneous.
        UnknownNameError: if no operator has the name in the spec string.
        ParameterError: if the spec string cannot be read.

    Example:
        >>> from torch_geometric.nn import GCN
        >>> model = GCN(8, 16, num_layers=2, out_channels=3)
        >>> with attach(model, "drop-edge:p=0.3") as handle:
        ...     handle
        Attachment('drop-edge:p=0.3', layers=['convs.0', 'convs.1'])
    """
    operator = make_operator(operator)
    if any(operator is module for module in model.modules()):
        raise AttachError("an operator must be attached once, got one that the model holds already")
    if operator.site == "none":
        return Attachment(model, operator, {})
    for name, module in model.named_modules():
        if isinstance(module, (*HETEROGENEOUS, torch.fx.GraphModule)):
            raise AttachError(
                "the model must be homogeneous, "
                f"got {type(module).__name__} at {name or 'its root'!r}"
            )
    wanted = layers if layers is None else [layers] if isinstance(layers, str) else list(layers)
    sites = {
        name: _SITES[operator.site](layer, number, operator)
        for number, (name, layer) in enumerate(_layers(model, operator, wanted).items())
        if wanted is None or name in wanted
    }
    for name, site in sites.items():
        site.check(name or type(site.layer).__name__)
    return Attachment(model, operator, sites)


def _layers(model: nn.Module, operator: Operator, wanted: list[str] | None) -> dict[str, nn.Module]:
    """Return a model's layers in order: message-passing ones, then others that were asked for."""
    found: dict[str, nn.Module] = {
        name: module for name, module in model.named_modules() if isinstance(module, MessagePassing)
    }
    if not found and isinstance(operator, FeatureOperator):
        listed = list(getattr(model, "feature_layers", ()))
        found = {name: module for name, module in model.named_modules() if module in listed}
    if wanted == []:
        raise AttachError(f"layers must name one at least, {did_you_mean('', list(found))}")
    for name in wanted or ():
        if name not in found:
            modules = dict(model.named_modules())
            module = modules.get(name)
            is_called = module is not None and not isinstance(module, nn.ModuleList | nn.ModuleDict)
            if not (is_called and isinstance(operator, FeatureOperator)):
                raise AttachError(f"no layer {name!r}, {did_you_mean(name, list(found))}")
            found[name] = modules[name]
    if not found:
        raise AttachError(
            f"{operator.name} acts on {operator.site} of message-passing layers, "
            f"got {type(model).__name__}, which has none"
        )
    return found


def _free_name(home: nn.Module, operator: Operator) -> str:
    stem, number = f"gnndrop_{operator.name.replace('-', '_')}", 0
    while hasattr(home, f"{stem}_{number}"):
        number += 1
    return f"{stem}_{number}"


class _Site:
    """One layer that an operator acts on."""

    argument: str
    """The parameter of the layer's forward that must be there."""

    def __init__(self, layer: nn.Module, number: int, operator: Operator) -> None:
        self.layer = layer
        self.number = number
        self.operator: Any = operator
        self.signature = inspect.signature(layer.forward)
        kinds = {parameter.kind for parameter in self.signature.parameters.values()}
        # Binding arguments by hand is five times as fast, where it is as simple as this.
        self.names = tuple(self.signature.parameters)
        self.has_plain_names = kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD}

    def check(self, name: str) -> None:
        """Refuse a layer on which the operator makes no sense."""
        if getattr(self.layer, "cached", False):
            raise AttachError(
                f"{name} must be built with cached=False, got cached=True: "
                "it would keep the first dropped graph for ever"
            )
        if self.argument not in self.signature.parameters and isinstance(
            self.layer, MessagePassing
        ):
            raise AttachError(
                f"{self.operator.name} needs a layer with an argument {self.argument!r}, "
                f"got {type(self.layer).__name__} at {name!r}"
            )

    def install(self) -> list[RemovableHandle]:
        """Register the hooks."""
        return [self.layer.register_forward_pre_hook(self.on_input, with_kwargs=True)]

    def uninstall(self) -> None:
        """Undo what `install` did beside the hooks."""

    def on_input(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Replace the arguments of a call of the layer."""
        if not self.operator.is_active:
            return None
        arguments = {**dict(zip(self.names, args, strict=False)), **kwargs}
        is_complete = self.argument in arguments and len(arguments) == len(args) + len(kwargs)
        if self.has_plain_names and is_complete:
            self._transform(arguments)
            return tuple(arguments.pop(name) for name in self.names[: len(args)]), arguments
        bound = self.signature.bind(*args, **kwargs)
        self._transform(bound.arguments)
        return bound.args, bound.kwargs

    def _transform(self, arguments: dict[str, Any]) -> None:
        if isinstance(arguments.get(self.argument), dict):
            raise AttachError(
                f"the model must be homogeneous, got a dictionary in {type(self.layer).__name__}"
            )
        self.transform(arguments)

    def transform(self, arguments: dict[str, Any]) -> None:
        """Change the arguments in place of the dictionary, never their tensors."""
        raise NotImplementedError


class _FeatureSite(_Site):
    argument = "x"

    def transform(self, arguments: dict[str, Any]) -> None:
        name = self.argument if self.argument in arguments else next(iter(arguments))
        x = arguments[name]
        if isinstance(x, tuple | list):  # a bipartite layer's sources and targets
            arguments[name] = tuple(None if end is None else self._mask(end) for end in x)
        else:
            arguments[name] = self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        operator: FeatureOperator = self.operator
        node_dim = (
            getattr(self.layer, "node_dim", 0) if isinstance(x, Tensor) and x.dim() > 1 else 0
        )
        return operator.mask_features(x, operator.next_mask(self.number), node_dim)


class _GraphSite(_Site):
    """Edges before the normalization: the layer sees the kept graph."""

    argument = "edge_index"

    def install(self) -> list[RemovableHandle]:
        # A plug-in's own way to keep edges needs them listed.
        is_plain = type(self.operator).kept_edges is EdgeOperator.kept_edges
        self.propagation = acquire(self.layer) if is_plain else None
        return [
            *super().install(),
            self.layer.register_forward_hook(self.on_output, always_call=True),
        ]

    def uninstall(self) -> None:
        if self.propagation is not None:
            release(self.propagation)

    def transform(self, arguments: dict[str, Any]) -> None:
        operator: EdgeOperator = self.operator
        adjacency = arguments[self.argument]
        graph = operator.prepare(endpoints(adjacency))
        mask, is_bipartite = operator.next_mask(self.number), _is_bipartite(arguments)
        if self.propagation is not None and self.propagation.drop(
            EdgeMask(
                mask,
                operator.is_symmetric(graph, is_bipartite),
                operator.protect_self_loops and not is_bipartite,
            ),
            arguments,
        ):
            return
        kept = operator.kept_edges(graph, mask, is_bipartite)
        arguments[self.argument] = select_edges(adjacency, kept)
        if isinstance(adjacency, EdgeIndex) and "size" in self.signature.parameters:
            arguments["size"] = adjacency.sparse_size()  # a plain tensor does not know its own
        for name, value in arguments.items():
            per_edge = isinstance(value, Tensor) and value.dim() and len(value) == len(kept)
            if name.startswith("edge_") and name != self.argument and per_edge:
                arguments[name] = value[kept]

    def on_output(self, layer: Any, inputs: Any, output: Any) -> None:
        """End what the input began, also after an exception."""
        if self.propagation is not None:
            self.propagation.forget()


class _MessageSite(_Site):
    """Messages behind the normalization: of every channel, or of whole edges."""

    argument = "edge_index"

    def check(self, name: str) -> None:
        if not isinstance(self.layer, MessagePassing):
            raise AttachError(
                f"{self.operator.name} needs a message-passing layer, "
                f"got {type(self.layer).__name__} at {name!r}"
            )
        aggregation = self.layer.aggr
        if self.operator.site == "edges" and aggregation not in LINEAR_AGGREGATIONS:
            raise AttachError(
                f"rescale={self.operator.rescale} needs a sum or a mean, got {name!r} with "
                f"{aggregation!r}; use rescale=renormalize, under which a dropped edge is absent"
            )
        if self.layer.decomposed_layers > 1:
            raise AttachError(
                f"{name!r} must be built with decomposed_layers=1, got "
                f"{self.layer.decomposed_layers}: its messages come in parts"
            )
        super().check(name)

    def install(self) -> list[RemovableHandle]:
        layer: Any = self.layer
        # A plug-in's own way to mask messages needs messages.
        masking = getattr(type(self.operator), "mask_messages", MessageOperator.mask_messages)
        is_plain = masking is MessageOperator.mask_messages
        self.propagation = acquire(layer) if is_plain else None
        if self.propagation is not None:
            self.propagation.sources.append(self)
        return [
            *super().install(),
            layer.register_propagate_forward_pre_hook(self.on_propagate),
            layer.register_message_forward_hook(self.on_message),
            layer.register_forward_hook(self.on_output),
        ]

    def uninstall(self) -> None:
        if self.propagation is not None:
            self.propagation.sources.remove(self)
            release(self.propagation)

    @property
    def is_active(self) -> bool:
        """See `gnndrop.propagation.MaskSource`."""
        return bool(self.operator.is_active)

    def transform(self, arguments: dict[str, Any]) -> None:
        self.bipartite = _is_bipartite(arguments)
        self.messages_seen = 0

    def on_propagate(
        self, layer: Any, inputs: tuple[Any, Any, dict[str, Any]]
    ) -> tuple[Any, Any, dict[str, Any]] | None:
        """Note the edges as the messages see them, and unfuse sparse adjacencies.

        Where the adjacency is sparse, PyG multiplies it at once and no message ever exists.
        """
        if not self.operator.is_active:
            return None
        adjacency, size, arguments = inputs
        edge_index = endpoints(adjacency)
        self.graph: Graph = self.operator.prepare(edge_index)
        self.mask: Mask = self.operator.next_mask(self.number)
        self.factor: Tensor | None = None
        if isinstance(adjacency, EdgeIndex):
            size = adjacency.sparse_size()
        if is_sparse_adjacency(adjacency):
            values = entries(adjacency)
            size = (adjacency.size(1), adjacency.size(0))
            names = [name for name in ("edge_weight", "edge_attr") if name in arguments]
            if not names and layer.fuse:
                self.factor = values  # as the fused product would have done
            elif (
                names
                and arguments[names[0]] is None
                and (names[0] == "edge_weight" or values.dim() > 1)
            ):
                arguments[names[0]] = values
        return edge_index, size, arguments

    def message_mask(self, graph: Graph) -> tuple[Mask | None, Tensor | None]:
        """Mask the messages that are never formed; see `gnndrop.propagation.MaskSource`."""
        if not self.operator.is_active:
            return None, None
        self.messages_seen += 1
        mask = self.operator.next_mask(self.number)
        if isinstance(self.operator, MessageOperator):
            return mask, None
        return None, self._edge_factor(graph, mask)

    def on_message(self, layer: Any, inputs: Any, messages: Tensor) -> Tensor | None:
        """Mask the messages."""
        if not self.operator.is_active:
            return None
        self.messages_seen += 1
        if self.factor is not None:
            messages = messages * _along(self.factor, messages, layer.node_dim)
        if isinstance(self.operator, MessageOperator):
            coordinates = self.graph.directed_coordinates
            return self.operator.mask_messages(messages, coordinates, self.mask, layer.node_dim)
        factor = self._edge_factor(self.graph, self.mask).to(messages.dtype)
        return messages * _along(factor, messages, layer.node_dim)

    def _edge_factor(self, graph: Graph, mask: Mask) -> Tensor:
        operator: EdgeOperator = self.operator
        kept = operator.kept_edges(graph, mask, self.bipartite)
        return torch.where(kept, operator.edge_scale(graph, mask, self.bipartite), 0)

    def on_output(self, layer: Any, inputs: Any, output: Any) -> None:
        """Never stay silent where nothing was dropped."""
        if self.operator.is_active and not self.messages_seen:
            raise AttachError(
                f"{self.operator.name} needs a layer that forms messages, "
                f"got {type(layer).__name__}, which formed none"
            )
        self.factor = None  # it may hold the graph of a derivative


_SITES: dict[str, Any] = {
    "features": _FeatureSite,
    "edges": lambda layer, number, operator: (
        _GraphSite if operator.rescale == "renormalize" else _MessageSite
    )(layer, number, operator),
    "messages": _MessageSite,
}


def _is_bipartite(arguments: dict[str, Any]) -> bool:
    """Whether node i as a source and node i as a target are different nodes."""
    return isinstance(arguments.get("x"), tuple | list)


def _along(values: Tensor, messages: Tensor, dim: int) -> Tensor:
    """Shape one value per edge so that it multiplies messages whose axis `dim` holds the edges."""
    shape = [1] * messages.dim()
    shape[dim] = len(values)
    return values.view(shape)
