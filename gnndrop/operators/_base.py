"""What an operator is: a random mask, defined by the coordinates that it depends on.

A concrete operator declares its `name`, `site`, `axes` and `source`, stores its options, and is
done: drawing, scaling, attaching, listing and checking are derived from the declaration.
"""

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar, Literal, ParamSpec, Self

import torch
from torch import Tensor, nn

from gnndrop.compilation import eager
from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, Memo, endpoints, entries, is_sparse_adjacency, select_edges
from gnndrop.kernels import masked_multiply, masked_multiply_sparse
from gnndrop.masks import Mask, check_rate, draw_seed, inverse_scale, stream_key
from gnndrop.registry import Registry, format_spec

Share = Literal["layer", "forward"]
Presets = dict[str, dict[str, Any]]
Site = Literal["none", "features", "edges", "messages", "attention", "weights", "paths", "several"]
Distribution = Literal["bernoulli", "gaussian", "concrete"]
Arguments = ParamSpec("Arguments")

ROW_AXES = {"node", "edge", "in"}
COLUMN_AXES = {"channel", "head", "out"}


class _Pass:
    """Where an operator stands in a forward pass: no attributes of the module, which sets slowly.

    Attributes:
        seed: None outside of a pass.
        seeds: those of samples that are computed at once; empty for one sample.
        calls: the number of calls of each layer.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self.seeds: tuple[int, ...] = ()
        self.calls: Counter[int] = Counter()


class Operator(nn.Module):
    """Base of all operators.

    In training a forward call outside of a pass is a pass of its own: its seed is one draw from
    torch's global generator. `start_pass` fixes the seed of all calls until `end_pass`;
    `gnndrop.attach` does that for every forward pass of the model.

    Args:
        p: the rate at which coordinates are dropped, in [0, 1].
        share: `layer` draws a fresh mask for every layer and call, `forward` one for the whole
            forward pass.
        rescale: one of the class's `rescales`.

    Raises:
        ParameterError: if `p` is not in [0, 1], or another option is not among its choices.

    Example:
        >>> operator = make_operator("dropout:p=0.3")
        >>> operator.axes, operator.spec
        (('node', 'channel'), 'dropout:p=0.3')
    """

    name: str
    """The registered name; also the site in the hash, so that no two operators share coins."""
    site: Site
    """What the mask acts on."""
    axes: tuple[str, ...]
    """The coordinates that the mask depends on."""
    rescales: ClassVar[tuple[str, ...]] = ("inverse", "none")
    """The choices of `rescale`; the first is the default."""
    source: ClassVar[str]
    """The paper that defined it."""
    distribution: ClassVar[Distribution] = "bernoulli"
    """Of the factors; but for the first, nothing is dropped at a p below 1."""
    is_product: ClassVar[bool] = True
    """Whether entries are multiplied by independent factors, one for every point of the axes: all
    moments are then known. Other operators on features say `mean_factors`, and the covariance of
    masked features, `feature_covariance(x, edge_index)`, where they know it."""
    presets: ClassVar[Presets] = {}
    """Values of options that reproduce a paper, by name; see `with_presets`."""
    alias_of: ClassVar[str | None] = None
    """The operator that it is under another name: their coins are the same."""

    def __init__(self, p: float, share: Share, rescale: str) -> None:
        super().__init__()
        self.p = check_rate(p)
        self.share = _choice("share", share, ("layer", "forward"))
        self.rescale = _choice("rescale", rescale, self.rescales)
        self._pass = _Pass()
        self.prepare = Memo(Graph)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in cls.__dict__:  # of plug-ins too
            cls.forward = eager(cls.forward)

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's options and their present values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def spec(self) -> str:
        """The spec string that builds this operator: p and every option that is not the default."""
        defaults = {k: v.default for k, v in inspect.signature(type(self)).parameters.items()}
        defaults |= self.presets.get(str(self.options.get("preset")), {})
        said = {k: v for k, v in self.options.items() if k == "p" or v != defaults[k]}
        return format_spec(self.name, said)

    @property
    def is_active(self) -> bool:
        """Whether a call would change anything: at a rate above 0, in training or to rescale."""
        return self.p > 0 and (self.training or self.rescale == "eval")

    @property
    def is_unbiased(self) -> bool:
        """Whether the masked values have the clean ones as their expectation."""
        return self.rescale == "inverse" and self.p < 1

    @property
    def factor_cumulants(self) -> tuple[float, float, float]:
        """Mean, variance and fourth cumulant of the factor of an entry, in training.

        Of a scaled coin with $q = 1-p$ they are $sq$, $s^2 pq$ and $s^4 pq(1-6pq)$.
        """
        scale = inverse_scale(self.p) if self.rescale == "inverse" else 1.0
        spread = self.p * (1 - self.p)
        return scale * (1 - self.p), scale**2 * spread, scale**4 * spread * (1 - 6 * spread)

    def start_pass(self, seed: int | None = None, *others: int) -> Self:
        """Begin a forward pass: masks follow `seed` and calls count from 0, until `end_pass`.

        Args:
            seed: any integer; None takes one draw from torch's global generator, in evaluation,
                where nothing is random, none.
            others: the seeds of further samples, computed at once, one block of nodes below the
                other (`Mask.keys`).
        """
        if seed is None:
            seed = draw_seed() if self.training else 0
        state = self._pass
        state.seed, state.seeds = seed, (seed, *others) if others else ()
        state.calls.clear()
        return self

    def end_pass(self) -> None:
        """End the pass: each further call outside of one is its own."""
        self._pass.seed, self._pass.seeds = None, ()

    @property
    def in_pass(self) -> bool:
        """Whether a pass has been started."""
        return self._pass.seed is not None

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer; with `rescale=eval`, 1-p in evaluation.

        Raises:
            ParameterError: if `share` is `forward` outside of a pass, where nothing can be shared.
        """
        if self.rescale == "eval" and not self.training:
            return Mask(key=0, p=0.0, scale=1 - self.p)
        state = self._pass
        if state.seed is None and self.share == "forward":
            raise ParameterError(
                "share=forward needs a forward pass, got a single call: "
                "attach the operator to the model, or call start_pass() before and end_pass() after"
            )
        seed, call = state.seed, 0
        if seed is None:
            seed = draw_seed()
        elif self.share == "forward":
            layer = 0
        else:
            call = state.calls[layer]
            state.calls[layer] += 1
        site = self.alias_of or self.name
        return Mask(
            key=stream_key(seed, site, layer, call),
            p=self.p,
            by_row=not ROW_AXES.isdisjoint(self.axes),
            by_column=not COLUMN_AXES.isdisjoint(self.axes),
            scale=inverse_scale(self.p) if self.rescale == "inverse" else 1.0,
            keys=tuple(stream_key(one, site, layer, call) for one in state.seeds),
        )

    def extra_repr(self) -> str:
        """Show the options in `print(model)`."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items())


class FeatureOperator(Operator):
    """Base of the operators on node features.

    Args:
        p: see `Operator`.
        share: see `Operator`.
        rescale: `inverse` divides kept entries by 1-p in training; `eval` multiplies all of them by
            1-p in evaluation instead; `none` does neither.
    """

    site: Site = "features"
    rescales: ClassVar[tuple[str, ...]] = ("inverse", "none", "eval")
    keeps_zeros: ClassVar[bool] = True
    """Whether a zero stays zero, so that sparse features stay sparse."""
    needs_graph: ClassVar[bool] = False
    """Whether calls and `mask_features` take the `edge_index`, too."""

    def __init__(self, p: float = 0.5, share: Share = "layer", rescale: str = "inverse") -> None:
        super().__init__(p, share, rescale)

    def forward(self, x: Tensor) -> Tensor:
        """Mask node features in training; the identity otherwise.

        Args:
            x: floating, shape (N, ...): nodes first, every further axis a channel; or sparse CSR of
                shape (N, F), which keeps its layout and pattern.

        Returns:
            Shape and layout of `x`, a new tensor where the operator is active.

        Raises:
            ParameterError: if `x` is not floating, or sparse in another layout.
        """
        return self.mask_features(x, self.next_mask()) if self.is_active else x

    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        """Apply a given mask along the nodes of `x`."""
        _check_floating(self, x)
        if x.layout == torch.sparse_csr:
            return self.multiply_sparse(x, mask)
        if x.layout != torch.strided:
            raise ParameterError(
                f"{self.name} takes dense or sparse CSR features, got {x.layout}; "
                "convert them with to_sparse_csr()"
            )
        return _along(x, node_dim, lambda matrix: self.multiply(matrix, mask))

    @property
    def has_coins(self) -> bool:
        """Whether features are multiplied by the mask's own coins, so that kernels may do it."""
        base, own = FeatureOperator, type(self)
        methods = "mask_features", "multiply", "multiply_sparse"
        return all(getattr(own, name) is getattr(base, name) for name in methods)

    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a matrix of nodes x channels."""
        return masked_multiply(x, mask)

    def multiply_sparse(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a sparse CSR matrix."""
        return masked_multiply_sparse(x, mask)

    def mean_factors(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return the mean of every node's factors in training, float64 of shape (num_nodes,).

        The expectation of a masked entry is the clean one times it. An operator that is no product
        of independent factors gives its own.
        """
        return torch.full((num_nodes,), self.factor_cumulants[0], dtype=torch.float64)


class MessageOperator(Operator):
    """Base of the operators on messages."""

    site: Site = "messages"

    def __init__(self, p: float = 0.5, share: Share = "layer", rescale: str = "inverse") -> None:
        super().__init__(p, share, rescale)

    def forward(self, messages: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Mask messages in training; the identity otherwise.

        Args:
            messages: floating, shape (E, ...): edges first, every further axis a channel.
            edge_index: int64 of shape (2, E), which makes the coins depend on an edge's endpoints;
                without it they depend on its position.

        Returns:
            Shape of `messages`.

        Raises:
            ParameterError: if `messages` is not floating, or there are not as many as edges.
        """
        if not self.is_active:
            return messages
        if edge_index is None:
            coordinates = torch.arange(len(messages), device=messages.device)
        else:
            coordinates = self.prepare(edge_index).directed_coordinates
        return self.mask_messages(messages, coordinates, self.next_mask())

    def mask_messages(
        self, messages: Tensor, coordinates: Tensor, mask: Mask, edge_dim: int = 0
    ) -> Tensor:
        """Apply a given mask along the edges of `messages`."""
        _check_floating(self, messages)
        if messages.size(edge_dim) != len(coordinates):
            raise ParameterError(
                f"there must be one message per edge, got {messages.size(edge_dim)} messages "
                f"for {len(coordinates)} edges"
            )
        return _along(messages, edge_dim, lambda matrix: masked_multiply(matrix, mask, coordinates))


class EdgeOperator(Operator):
    """Base of the operators that keep or drop whole edges.

    Args:
        p: see `Operator`.
        share: see `Operator`.
        rescale: `renormalize` leaves the weights of kept edges alone, so that a normalization that
            follows sees the kept graph. `inverse` and `none` belong behind a normalization that saw
            the whole graph: attached, they act on the normalized messages; stand-alone, `inverse`
            multiplies the kept weights by 1/(1-p).
        symmetric: one coin for both directions of an edge; None decides by the graph: True where it
            is undirected.
        protect_self_loops: never drop (nor rescale) an edge from a node to itself.
    """

    site = "edges"
    rescales: ClassVar[tuple[str, ...]] = ("renormalize", "inverse", "none")
    num_layers = 1
    """The number of the model's layers, as far as it acts in them; `attach` counts them."""

    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "renormalize",
        symmetric: bool | None = None,
        protect_self_loops: bool = True,
    ) -> None:
        super().__init__(p, share, rescale)
        self.symmetric = symmetric
        self.protect_self_loops = protect_self_loops

    def forward(
        self, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Drop edges in training; the identity otherwise.

        Args:
            edge_index: int64 of shape (2, E), or a torch sparse matrix, rows the targets.
            edge_weight: shape (E,), or attributes of shape (E, ...); None for none.

        Returns:
            The kept edges in their order and layout, and their weights.

        Raises:
            ParameterError: if there are not as many weights as edges, or `rescale=inverse` meets
                attributes, which are no factors, or weights beside a sparse matrix.
        """
        if not self.is_active:
            return edge_index, edge_weight
        ends = endpoints(edge_index)
        if edge_weight is not None and len(edge_weight) != ends.size(1):
            raise ParameterError(
                f"there must be one weight per edge, got {len(edge_weight)} weights "
                f"for {ends.size(1)} edges"
            )
        graph = self.prepare(ends)
        mask = self.next_mask()
        kept = self.kept_edges(graph, mask)
        if self.rescale != "inverse":
            weight = None if edge_weight is None else edge_weight[kept]
            return select_edges(edge_index, kept), weight
        sparse = is_sparse_adjacency(edge_index)
        weight = entries(edge_index) if sparse else edge_weight
        if weight is not None and weight.dim() > 1:
            raise ParameterError(
                f"{self.name}:rescale=inverse needs one weight per edge, "
                f"got attributes of shape {tuple(weight.shape)}"
            )
        if sparse and edge_weight is not None:
            raise ParameterError(
                f"{self.name}:rescale=inverse needs the weights of a sparse adjacency "
                "as its values, got edge_weight beside it"
            )
        # Integers are promoted: as integers they would round the scale down.
        dtype = torch.get_default_dtype()
        if weight is not None and weight.is_floating_point():
            dtype = weight.dtype
        scale = self.edge_scale(graph, mask).to(dtype)
        weight = scale if weight is None else weight * scale
        if sparse:
            return select_edges(edge_index, kept, weight), None
        return select_edges(edge_index, kept), weight[kept]

    def is_symmetric(self, graph: Graph, bipartite: bool = False) -> bool:
        """Return whether both directions of an edge of this graph share their coins."""
        if self.symmetric is None:
            return not bipartite and graph.is_undirected
        return self.symmetric

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return which edges a mask keeps, boolean of shape (E,)."""
        coordinates = graph.coordinates(self.is_symmetric(graph, bipartite))
        ones = torch.ones(len(coordinates), 1, device=coordinates.device)
        kept = masked_multiply(ones, mask, coordinates)[:, 0] > 0
        return kept | graph.is_loop if self.protect_self_loops and not bipartite else kept

    @property
    def has_coins(self) -> bool:
        """Whether the mask's own coins decide, so that kernels may toss them."""
        return type(self).kept_edges is EdgeOperator.kept_edges

    def observe(self, x: Tensor | None) -> None:
        """Note the features that a layer is about to aggregate: nothing, but for who needs them.

        Args:
            x: shape (N, C), or sparse; None where there are none, or two sets of nodes.
        """

    def mean_factors(self, edge_index: Tensor, num_nodes: int, x: Tensor | None = None) -> Tensor:
        """Return the mean of every edge's factor in training, float64 of shape (E,).

        The expectation of a sum of messages is that of the clean ones times it. An operator that is
        no product of independent factors gives its own.

        Args:
            edge_index: int64 of shape (2, E).
            num_nodes: the number N of nodes.
            x: the features that the first layer sees, shape (N, C), for who needs them.
        """
        means = torch.full((edge_index.size(1),), self.factor_cumulants[0], dtype=torch.float64)
        if self.protect_self_loops:
            means[edge_index[0] == edge_index[1]] = 1
        return means

    def edge_scale(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return the factors of kept edges, float64 of shape (E,): 1 for protected ones."""
        scale = torch.full_like(graph.source, mask.scale, dtype=torch.float64)
        if self.protect_self_loops and not bipartite:
            scale[graph.is_loop] = 1
        return scale


def with_presets(init: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let a constructor's option `preset` set the options that the caller leaves out.

    The class declares its `presets`, the constructor takes `preset: str | None = None`.

    Raises:
        ParameterError: by the constructor, if there is no such preset.

    Example:
        >>> make_operator("drop-node:preset=grand").rescale
        'eval'
        >>> make_operator("drop-node:preset=grand,rescale=none").rescale
        'none'
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def configured(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        given = signature.bind(*args, **kwargs).arguments
        operator, preset = given["self"], given.get("preset")
        if preset is not None:
            _choice("preset", preset, tuple(operator.presets))
            given = {**operator.presets[preset], **given}
        init(**given)  # type: ignore[call-arg]  # bound above
        operator.preset = preset

    return configured


OPERATORS: Registry[type[Operator]] = Registry("operator", "gnndrop.operators", "gnndrop.operators")


def declare(operator: type[Operator]) -> type[Operator]:
    """Register an operator class under its own name."""
    return OPERATORS.register(operator.name)(operator)


def make_operator(operator: "Operator | str") -> Operator:
    """Return the operator, building it if a spec string was given.

    Raises:
        UnknownNameError: if no operator has that name.
        ParameterError: if an option cannot be read, or it is neither an operator nor a string.
    """
    if isinstance(operator, Operator):
        return operator
    if isinstance(operator, str):
        made: Operator = OPERATORS.make(operator)
        return made
    raise ParameterError(
        f"an operator must be an Operator or a spec string, got {type(operator).__name__}"
    )


def _check_floating(operator: Operator, values: object) -> None:
    if not (isinstance(values, Tensor) and values.is_floating_point()):
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise ParameterError(f"{operator.name} needs floating point {operator.site}, got {got}")


def _along(values: Tensor, dim: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of matrices: axis `dim` holds the rows, the others, flattened, columns."""
    if dim in (0, -2) and values.dim() == 2:
        return function(values)
    moved = values.movedim(dim, 0)
    columns = moved.shape[1:].numel()
    return function(moved.reshape(moved.size(0), columns)).view(moved.shape).movedim(0, dim)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
