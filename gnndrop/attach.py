"""`attach(model, operator)`: make an operator act inside of an unmodified model."""

import inspect
import warnings
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.utils.hooks import RemovableHandle
from torch_geometric import EdgeIndex
from torch_geometric.nn import (
    GATConv,
    GATv2Conv,
    HANConv,
    HeteroConv,
    HGTConv,
    Linear,
    MessagePassing,
    TransformerConv,
)
from torch_geometric.nn.to_hetero_module import ToHeteroLinear, ToHeteroMessagePassing

from gnndrop.batch_norm import precedes_batch_norm
from gnndrop.compilation import eager
from gnndrop.errors import AttachError
from gnndrop.graph import Graph, endpoints, entries, is_sparse_adjacency, select_edges
from gnndrop.masks import Mask
from gnndrop.operators import (
    AttentionOperator,
    Combined,
    EdgeOperator,
    FeatureOperator,
    MessageOperator,
    Operator,
    PerLayer,
    make_operator,
)
from gnndrop.operators._expectation import Normalization
from gnndrop.propagation import (
    FACTORS,
    NORMALIZING,
    EdgeMask,
    MaskedFeatures,
    acquire,
    release,
)
from gnndrop.propagation import Normalization as NormalizedForward
from gnndrop.registry import did_you_mean

HETEROGENEOUS = (HANConv, HeteroConv, HGTConv, ToHeteroLinear, ToHeteroMessagePassing)
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
ATTENTION = (GATConv, GATv2Conv, TransformerConv)
LINEAR_AGGREGATIONS = ("sum", "add", "mean")


class Attachment:
    """An operator at work in a model; the handle that takes it out again.

    A context manager: leaving it, also by an exception, removes the operator.

    Args:
        model: the model.
        operator: the operator.
        sites: the layers it acts on, with their names.
    """

    def __init__(
        self, model: nn.Module, operator: Operator, sites: list[tuple[str, "_Site"]]
    ) -> None:
        self.model = model
        self.operator = operator
        self.layers = tuple(dict.fromkeys(name for name, _ in sites))
        self._owner: nn.Module | None = None
        self._owners: set[nn.Module] = set()
        self._hooks: list[RemovableHandle] = []
        self._sites = [site for _, site in sites]
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
            vars(site.operator).pop("num_layers", None)
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

    @eager
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

    @eager
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
    messages); message operators on its messages, those on attention where it has any; operators on
    weights in its linear maps; those on paths at residual branches, which a model lists as
    `residual_branches`. A model may list the layers at whose input features are dropped as
    `feature_layers`, as those of `gnndrop.models` do. The model's own dropout stays as
    it is. Nothing is drawn from the global generator but one seed per training forward pass.

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
        UserWarning: if features are dropped before a batch normalization, which shifts its
            variance (`gnndrop.batch_norm`).
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
    if not set(model.modules()).isdisjoint(operator.modules()):
        raise AttachError("an operator must be attached once, got one that the model holds already")
    if operator.site == "none":
        return Attachment(model, operator, [])
    for name, module in model.named_modules():
        if isinstance(module, (*HETEROGENEOUS, torch.fx.GraphModule)):
            raise AttachError(
                "the model must be homogeneous, "
                f"got {type(module).__name__} at {name or 'its root'!r}"
            )
    wanted = layers if layers is None else [layers] if isinstance(layers, str) else list(layers)
    sites = _sites(model, operator, wanted)
    _warn_of_batch_norm(model, [site for _, site in sites])
    return Attachment(model, operator, sites)


def _sites(
    model: nn.Module, operator: Operator, wanted: list[str] | None
) -> list[tuple[str, "_Site"]]:
    """Return the layers that an operator, or each of its parts, acts on, with their names."""
    if isinstance(operator, Combined):
        return [one for part in operator.operators for one in _sites(model, part, wanted)]
    first = operator.operators[0] if isinstance(operator, PerLayer) else operator
    found = _layers(model, first, wanted)
    chosen = [
        (name, number)
        for number, (name, layer) in enumerate(found.items())
        if (name in wanted if wanted else not _brings_shortcuts(first) or _keeps_width(layer))
    ]
    if not chosen:
        raise AttachError(
            f"{operator.name} needs a layer as wide at its output as at its input, "
            f"got {type(model).__name__}, which has none"
        )
    parts: list[Any] = [operator] * len(chosen)
    if isinstance(operator, PerLayer):
        parts = operator.operators
        if len(parts) != len(chosen):
            raise AttachError(
                f"{operator.spec} needs one layer for each of its {len(parts)} rates, "
                f"got {len(chosen)}: {', '.join(name or 'the model' for name, _ in chosen)}"
            )
    sites = []
    for part, (name, number) in zip(parts, chosen, strict=True):
        site: _Site = _SITES[part.site](found[name], number, part)
        site.check(name or type(site.layer).__name__)
        sites.append((name, site))
        if hasattr(part, "num_layers"):
            part.num_layers = 1 + chosen[-1][1]
    return sites


def _warn_of_batch_norm(model: nn.Module, sites: list["_Site"]) -> None:
    """Warn of the variance shift; of the last layer's output no normalization is to be expected."""
    last = [module for module in model.modules() if isinstance(module, MessagePassing)][-1:]
    early = [
        site
        for site in sites
        if site.operator.site == "features" and site.operator.p > 0 and site.layer not in last
    ]
    if early and precedes_batch_norm(model, [site.layer for site in early]):
        warnings.warn(
            f"{early[0].operator.name} acts before a batch normalization, whose running variance "
            "will be that of training, with the noise of the masks; name the layers behind the "
            "last one by layers=, or normalize by layer",
            stacklevel=3,
        )


def _layers(model: nn.Module, operator: Operator, wanted: list[str] | None) -> dict[str, nn.Module]:
    """Return a model's layers in order: message-passing ones, then others that were asked for."""
    found: dict[str, nn.Module] = {
        name: module for name, module in model.named_modules() if isinstance(module, MessagePassing)
    }
    if operator.site == "paths":
        found = found if _brings_shortcuts(operator) else _branches(model, operator)
    is_anywhere = operator.site in ("features", "weights")
    listed = _listed(model, "feature_layers")
    on_features = operator.site == "features" and not getattr(operator, "needs_graph", False)
    if listed and (on_features or (not found and is_anywhere)):
        listing = [one for one in model.modules() if hasattr(one, "feature_layers")]
        inside = {part for one in listing for part in one.modules()}
        chosen = {*listed, *(layer for layer in found.values() if layer not in inside)}
        found = {name: module for name, module in model.named_modules() if module in chosen}
    if wanted == []:
        raise AttachError(f"layers must name one at least, {did_you_mean('', list(found))}")
    for name in wanted or ():
        if name not in found:
            modules = dict(model.named_modules())
            module = modules.get(name)
            is_called = module is not None and not isinstance(module, nn.ModuleList | nn.ModuleDict)
            if not (is_called and is_anywhere):
                raise AttachError(f"no layer {name!r}, {did_you_mean(name, list(found))}")
            found[name] = modules[name]
    if not found:
        raise AttachError(
            f"{operator.name} acts on {operator.site} of message-passing layers, "
            f"got {type(model).__name__}, which has none"
        )
    return found


def _brings_shortcuts(operator: Operator) -> bool:
    """Whether an operator on paths goes round layers of its own accord, where one can."""
    return bool(getattr(operator, "needs_input", False))


def _listed(model: nn.Module, attribute: str) -> list[nn.Module]:
    """Return what a model, or models inside of it, list under a name."""
    return [one for module in model.modules() for one in getattr(module, attribute, ())]


def _branches(model: nn.Module, operator: Operator) -> dict[str, nn.Module]:
    """Return the modules whose outputs are a model's residual branches, in order."""
    branches = _listed(model, "residual_branches")
    if not branches:
        raise AttachError(
            f"{operator.name} needs a model that lists its residual_branches, as those of "
            f"gnndrop.models do with residual=true, got {type(model).__name__}"
        )
    return {name: module for name, module in model.named_modules() if module in branches}


def _free_name(home: nn.Module, operator: Operator) -> str:
    stem, number = f"gnndrop_{operator.name.replace('-', '_').replace('+', '_')}", 0
    while hasattr(home, f"{stem}_{number}"):
        number += 1
    return f"{stem}_{number}"


class _Site:
    """One layer that an operator acts on."""

    argument: str = ""
    """The parameter of the layer's forward that must be there, if any must."""

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
        lacks_argument = self.argument and self.argument not in self.signature.parameters
        if lacks_argument and isinstance(self.layer, MessagePassing):
            raise AttachError(
                f"{self.operator.name} needs a layer with an argument {self.argument!r}, "
                f"got {type(self.layer).__name__} at {name!r}"
            )

    def install(self) -> list[RemovableHandle]:
        """Register the hooks."""
        return [self.layer.register_forward_pre_hook(self.on_input, with_kwargs=True)]

    def uninstall(self) -> None:
        """Undo what `install` did beside the hooks."""

    @eager
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

    def check(self, name: str) -> None:
        super().check(name)
        if self.operator.needs_graph and "edge_index" not in self.signature.parameters:
            raise AttachError(
                f"{self.operator.name} needs a layer with an argument 'edge_index', "
                f"got {type(self.layer).__name__} at {name!r}"
            )

    def install(self) -> list[RemovableHandle]:
        if hasattr(self.operator, "precede"):  # one that regularizes the weights behind it
            self.operator.precede(self.number, *_input_maps(self.layer))
        hooks = super().install()
        self.hook_id = hooks[0].id
        self.has_coins = self.operator.has_coins
        return hooks

    def uninstall(self) -> None:
        if hasattr(self.operator, "precede"):
            self.operator.precede(self.number)

    def transform(self, arguments: dict[str, Any]) -> None:
        name = self.argument if self.argument in arguments else next(iter(arguments))
        x = arguments[name]
        if self.operator.needs_graph:
            if _is_bipartite(arguments):
                raise AttachError(
                    f"{self.operator.name} needs a layer whose sources are its targets, "
                    f"got a bipartite {type(self.layer).__name__}"
                )
            arguments[name] = self._mask(x, endpoints(arguments["edge_index"]))
        elif isinstance(x, tuple | list):  # a bipartite layer's sources and targets
            arguments[name] = tuple(None if end is None else self._mask(end) for end in x)
        elif self.has_coins and self._layer_may_mask(x):
            arguments[name] = MaskedFeatures(x, self.operator.next_mask(self.number))
        else:
            arguments[name] = self._mask(x)

    def _layer_may_mask(self, x: Any) -> bool:
        """Whether the layer may mask the features itself: nobody else looks at its arguments."""
        layer = self.layer
        forward = layer.__dict__.get("forward")
        return (
            isinstance(forward, NormalizedForward)
            and forward.masks(x)
            and next(reversed(layer._forward_pre_hooks)) == self.hook_id
            and not (layer._backward_hooks or layer._backward_pre_hooks)
            and not _has_any_global_hook()  # type: ignore[no-untyped-call]  # untyped in torch
            and all(map(_ends_a_pass, layer._forward_hooks.values()))
        )

    def _mask(self, x: Tensor, *graph: Tensor) -> Tensor:
        operator: Any = self.operator  # `graph` only for one that needs it
        node_dim = (
            getattr(self.layer, "node_dim", 0) if isinstance(x, Tensor) and x.dim() > 1 else 0
        )
        masked: Tensor = operator.mask_features(
            x, operator.next_mask(self.number), node_dim, *graph
        )
        return masked


def _ends_a_pass(hook: object) -> bool:
    """Whether this is the hook of an attachment that looks at no arguments."""
    return getattr(hook, "__func__", None) is Attachment._finish


class _GraphSite(_Site):
    """Edges before the normalization: the layer sees the kept graph."""

    argument = "edge_index"

    def install(self) -> list[RemovableHandle]:
        self.propagation = acquire(self.layer)
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
        is_bipartite = _is_bipartite(arguments)
        operator.observe(None if is_bipartite else arguments.get("x"))
        mask = operator.next_mask(self.number)
        if operator.has_coins:
            kept, is_protected = None, operator.protect_self_loops and not is_bipartite
            is_symmetric = operator.is_symmetric(graph, is_bipartite)
        else:  # an own way to keep edges: whether it is symmetric, nobody vouches for
            kept = operator.kept_edges(graph, mask, is_bipartite)
            is_protected, is_symmetric = bool(kept[graph.is_loop].all()), False
        edge_mask = EdgeMask(mask, is_symmetric, is_protected, kept)
        if self.propagation is not None and self.propagation.drop(edge_mask, arguments):
            return
        if kept is None:
            kept = operator.kept_edges(graph, mask, is_bipartite)
        arguments[self.argument] = select_edges(adjacency, kept)
        if isinstance(adjacency, EdgeIndex) and "size" in self.signature.parameters:
            arguments["size"] = adjacency.sparse_size()  # a plain tensor does not know its own
        for name, value in arguments.items():
            per_edge = isinstance(value, Tensor) and value.dim() and len(value) == len(kept)
            if name.startswith("edge_") and name != self.argument and per_edge:
                arguments[name] = value[kept]

    @eager
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
        _check_undecomposed(self.layer, name)
        super().check(name)

    def install(self) -> list[RemovableHandle]:
        layer: Any = self.layer
        # A plug-in's own way to mask messages needs messages.
        masking = getattr(type(self.operator), "mask_messages", MessageOperator.mask_messages)
        is_plain = masking is MessageOperator.mask_messages or self._has_edge_factors
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

    @property
    def _has_edge_factors(self) -> bool:
        """Whether the operator has factors for edges and blocks of channels at once."""
        return hasattr(self.operator, "edge_factors")

    def transform(self, arguments: dict[str, Any]) -> None:
        self.bipartite = _is_bipartite(arguments)
        self.messages_seen = 0

    @eager
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
        if self._has_edge_factors:
            return None, self.operator.edge_factors(graph, mask)
        if isinstance(self.operator, MessageOperator):
            return mask, None
        return None, self._edge_factor(graph, mask)

    @eager
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

    @eager
    def on_output(self, layer: Any, inputs: Any, output: Any) -> None:
        """Never stay silent where nothing was dropped."""
        if self.operator.is_active and not self.messages_seen:
            raise AttachError(
                f"{self.operator.name} needs a layer that forms messages, "
                f"got {type(layer).__name__}, which formed none"
            )
        self.factor = None  # it may hold the graph of a derivative


class _AttentionSite(_Site):
    """Attention, where the layer has it: of every head, or of whole edges."""

    argument = "edge_index"

    def check(self, name: str) -> None:
        layer: Any = self.layer
        if not isinstance(layer, ATTENTION):
            raise AttachError(
                f"{self.operator.name} needs a GATConv, a GATv2Conv or a TransformerConv, "
                f"got {type(layer).__name__} at {name!r}"
            )
        if self.before_softmax and layer.dropout:
            raise AttachError(
                f"{self.operator.name} needs a layer without attention dropout of its own, "
                f"got dropout={layer.dropout} at {name!r}"
            )
        _check_undecomposed(layer, name)
        super().check(name)

    def install(self) -> list[RemovableHandle]:
        layer: Any = self.layer
        # A plug-in's own way to mask attention needs it as PyG forms it.
        is_plain = type(self.operator).mask_attention is AttentionOperator.mask_attention
        self.propagation = acquire(layer) if is_plain else None
        if self.propagation is not None:
            self.propagation.attention_sources.append(self)
        if isinstance(layer, TransformerConv):
            return [
                layer.register_propagate_forward_pre_hook(self.on_propagate),
                layer.register_message_forward_hook(self.on_message),
            ]
        hook: RemovableHandle = layer.register_edge_update_forward_hook(self.on_attention)
        if self.before_softmax:  # also before others that act behind it
            layer._edge_update_forward_hooks.move_to_end(hook.id, last=False)
        return [hook]

    def uninstall(self) -> None:
        if self.propagation is not None:
            self.propagation.attention_sources.remove(self)
            release(self.propagation)

    @property
    def is_active(self) -> bool:
        """See `gnndrop.attention.AttentionSource`."""
        return bool(self.operator.is_active)

    @property
    def before_softmax(self) -> bool:
        """See `gnndrop.attention.AttentionSource`."""
        return bool(self.operator.before_softmax)

    def attention_mask(self) -> Mask:
        """See `gnndrop.attention.AttentionSource`."""
        mask: Mask = self.operator.next_mask(self.number)
        return mask

    @eager
    def on_attention(self, layer: Any, inputs: Any, attention: Tensor) -> Tensor | None:
        """Mask what PyG has computed."""
        if not self.is_active:
            return None
        graph = self.operator.prepare(endpoints(inputs[0]))
        masked: Tensor = self.operator.mask_attention(attention, graph, self.attention_mask())
        return masked

    @eager
    def on_propagate(self, layer: Any, inputs: Any) -> None:
        """Note the edges as the messages see them."""
        if self.is_active:
            self.graph: Graph = self.operator.prepare(endpoints(inputs[0]))

    @eager
    def on_message(self, layer: Any, inputs: Any, messages: Tensor) -> Tensor | None:
        """Mask messages of shape (E, H, C), which a TransformerConv weighs itself."""
        if not self.is_active:
            return None
        operator: AttentionOperator = self.operator
        factors = operator.message_factors(layer._alpha, self.graph, self.attention_mask())
        return messages * factors[:, :, None]


class _ExactSite(_MessageSite):
    """Messages behind a normalization of the kept graph that is to keep its expectation."""

    def check(self, name: str) -> None:
        super().check(name)
        layer: Any = self.layer
        is_gcn = isinstance(layer, NORMALIZING) and layer.normalize and layer.add_self_loops
        is_gcn = is_gcn and layer.aggr != "mean" and not getattr(layer, "improved", False)
        is_mean = layer.aggr == "mean" and FACTORS.get(type(layer), "alpha") != "alpha"
        if not (is_gcn or (is_mean and not isinstance(layer, NORMALIZING))):
            raise AttachError(
                "rescale=exact needs GCN's normalization with self-loops, or a mean of messages, "
                f"got {type(layer).__name__} at {name!r}; use rescale=inverse"
            )
        self.normalization: Normalization = "symmetric" if is_gcn else "mean"

    def transform(self, arguments: dict[str, Any]) -> None:
        super().transform(arguments)
        adjacency, weight = arguments[self.argument], arguments.get("edge_weight")
        if is_sparse_adjacency(adjacency):
            weight = entries(adjacency)
        if self.normalization == "symmetric" and weight is not None and bool((weight != 1).any()):
            raise AttachError(
                "rescale=exact needs edges without weights under GCN's normalization, got some; "
                "use rescale=inverse"
            )

    def _edge_factor(self, graph: Graph, mask: Mask) -> Tensor:
        factors: Tensor = self.operator.exact_factors(
            graph, mask, self.normalization, self.bipartite
        )
        return factors


_EDGE_SITES = {"renormalize": _GraphSite, "exact": _ExactSite}


class _WeightSite(_Site):
    """The weights of every linear map inside of a layer, for the time of its calls."""

    def check(self, name: str) -> None:
        if not self._linear_maps:
            raise AttachError(
                f"{self.operator.name} needs a layer with linear maps, "
                f"got {type(self.layer).__name__} at {name!r}, which has none"
            )
        super().check(name)

    @property
    def _linear_maps(self) -> list[nn.Module]:
        return [one for one in self.layer.modules() if isinstance(one, nn.Linear | Linear)]

    def install(self) -> list[RemovableHandle]:
        hooks = []
        for linear in self._linear_maps:
            hooks.append(linear.register_forward_pre_hook(self.on_call))
            hooks.append(linear.register_forward_hook(self.on_return, always_call=True))
        return hooks

    @eager
    def on_call(self, linear: Any, inputs: Any) -> None:
        """Put masked weights before the parameter, which stays what it is.

        They are masked already where two layers share a linear map.
        """
        if self.operator.is_active and "weight" not in linear.__dict__:
            mask = self.operator.next_mask(self.number)
            linear.__dict__["weight"] = self.operator.mask_weight(linear.weight, mask)

    @eager
    def on_return(self, linear: Any, inputs: Any, output: Any) -> None:
        """Take them away again, also after an exception."""
        linear.__dict__.pop("weight", None)


class _BranchSite(_Site):
    """The output of a residual branch."""

    def install(self) -> list[RemovableHandle]:
        return [self.layer.register_forward_hook(self.on_output)]

    @eager
    def on_output(self, layer: Any, inputs: Any, branch: Tensor) -> Tensor | None:
        """Mask the branch."""
        operator: FeatureOperator = self.operator
        if not operator.is_active:
            return None
        return operator.mask_features(branch, operator.next_mask(self.number))


class _SkipSite(_Site):
    """A layer that nodes can skip: as wide at its output as at its input."""

    argument = "x"

    def check(self, name: str) -> None:
        if not _keeps_width(self.layer):
            raise AttachError(
                f"{self.operator.name} needs layers as wide at the output as at the input, "
                f"got another {type(self.layer).__name__} at {name!r}"
            )
        super().check(name)

    def install(self) -> list[RemovableHandle]:
        return [self.layer.register_forward_hook(self.on_output, with_kwargs=True)]

    @eager
    def on_output(
        self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
    ) -> Tensor | None:
        """Give the nodes that skip their input back."""
        if not self.operator.is_active:
            return None
        x = self.signature.bind(*args, **kwargs).arguments["x"]
        x = x[1] if isinstance(x, tuple | list) else x  # of a bipartite layer, the targets
        mask = self.operator.next_mask(self.number)
        mixed: Tensor = self.operator.mix(out, x.to_dense() if x.is_sparse_csr else x, mask)
        return mixed


_SITES: dict[str, Any] = {
    "attention": _AttentionSite,
    "weights": _WeightSite,
    "paths": lambda layer, number, operator: (
        _SkipSite if _brings_shortcuts(operator) else _BranchSite
    )(layer, number, operator),
    "features": _FeatureSite,
    "edges": lambda layer, number, operator: _EDGE_SITES.get(operator.rescale, _MessageSite)(
        layer, number, operator
    ),
    "messages": _MessageSite,
}


def _keeps_width(layer: Any) -> bool:
    """Whether a layer is as wide at its output as at its input, as far as it says so."""
    before, after = (getattr(layer, f"{end}_channels", None) for end in ("in", "out"))
    heads = getattr(layer, "heads", 1) if getattr(layer, "concat", False) else 1
    return not (isinstance(before, int) and isinstance(after, int)) or before == heads * after


def _input_maps(layer: nn.Module) -> list[nn.Module]:
    """Return the linear maps of a layer's input, as far as it is one or holds them itself."""
    if isinstance(layer, nn.Linear | Linear):
        return [layer]
    width = getattr(layer, "in_channels", None)
    widths = width if isinstance(width, tuple) else (width,)
    # Of other values: attributes of edges, and in SAGEConv what a projection has made of the input.
    others = ("lin_edge", "lin_l") if getattr(layer, "project", False) else ("lin_edge",)
    return [
        one
        for name, one in layer.named_children()
        if isinstance(one, nn.Linear | Linear) and name not in others
        if getattr(one, "in_features", getattr(one, "in_channels", None)) in widths
    ]


def _check_undecomposed(layer: Any, name: str) -> None:
    if layer.decomposed_layers > 1:
        raise AttachError(
            f"{name!r} must be built with decomposed_layers=1, got "
            f"{layer.decomposed_layers}: its messages come in parts"
        )


def _is_bipartite(arguments: dict[str, Any]) -> bool:
    """Whether node i as a source and node i as a target are different nodes."""
    return isinstance(arguments.get("x"), tuple | list)


def _along(values: Tensor, messages: Tensor, dim: int) -> Tensor:
    """Shape one value per edge so that it multiplies messages whose axis `dim` holds the edges."""
    shape = [1] * messages.dim()
    shape[dim] = len(values)
    return values.view(shape)
