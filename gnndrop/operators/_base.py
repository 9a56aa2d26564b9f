"""What an operator is: a random mask, defined by the coordinates that it depends on.

A concrete operator declares its `name`, `site`, `axes` and `source`, stores its options, and is
done: drawing, scaling, attaching, listing and checking are derived from the declaration.
"""

import inspect
from collections import Counter
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, Memo, endpoints, entries, is_sparse_adjacency, select_edges
from gnndrop.kernels import masked_multiply, masked_multiply_sparse
from gnndrop.masks import Mask, check_rate, draw_seed, inverse_scale, keep, stream_key
from gnndrop.registry import Registry, format_spec

Share = Literal["layer", "forward"]

ROW_AXES = {"node", "edge", "in"}
COLUMN_AXES = {"channel", "head", "out"}


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

    name: ClassVar[str]
    """The registered name; also the site in the hash, so that no two operators share coins."""
    site: ClassVar[Literal["none", "features", "edges", "messages"]]
    """What the mask acts on."""
    axes: ClassVar[tuple[str, ...]]
    """The coordinates that the mask depends on."""
    rescales: ClassVar[tuple[str, ...]] = ("inverse", "none")
    """The choices of `rescale`; the first is the default."""
    source: ClassVar[str]
    """The paper that defined it."""

    def __init__(self, p: float, share: Share, rescale: str) -> None:
        super().__init__()
        self.p = check_rate(p)
        self.share = _choice("share", share, ("layer", "forward"))
        self.rescale = _choice("rescale", rescale, self.rescales)
        self._seed: int | None = None
        self._calls: Counter[int] = Counter()
        self.prepare = Memo(Graph)

    @property
    def options(self) -> dict[str, Any]:
        """The constructor's options and their present values."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    @property
    def spec(self) -> str:
        """The spec string that builds this operator: p and every option that is not the default."""
        defaults = {k: v.default for k, v in inspect.signature(type(self)).parameters.items()}
        said = {k: v for k, v in self.options.items() if k == "p" or v != defaults[k]}
        return format_spec(self.name, said)

    @property
    def is_active(self) -> bool:
        """Whether a call would drop anything: in training, and at a rate above 0."""
        return self.training and self.p > 0

    @property
    def is_unbiased(self) -> bool:
        """Whether the masked values have the clean ones as their expectation."""
        return self.rescale == "inverse" and self.p < 1

    def start_pass(self, seed: int | None = None) -> Self:
        """Begin a forward pass: masks follow `seed` and calls count from 0, until `end_pass`.

        Args:
            seed: any integer; None takes one draw from torch's global generator.
        """
        self._seed = draw_seed() if seed is None else seed
        self._calls.clear()
        return self

    def end_pass(self) -> None:
        """End the pass: each further call outside of one is its own."""
        self._seed = None

    @property
    def in_pass(self) -> bool:
        """Whether a pass has been started."""
        return self._seed is not None

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of the next call of a layer.

        Raises:
            ParameterError: if `share` is `forward` outside of a pass, where nothing can be shared.
        """
        if self._seed is None and self.share == "forward":
            raise ParameterError(
                "share=forward needs a forward pass, got a single call: "
                "attach the operator to the model, or call start_pass() before and end_pass() after"
            )
        seed, call = self._seed, 0
        if seed is None:
            seed = draw_seed()
        elif self.share == "forward":
            layer = 0
        else:
            call = self._calls[layer]
            self._calls[layer] += 1
        return Mask(
            key=stream_key(seed, self.name, layer, call),
            p=self.p,
            by_row=not ROW_AXES.isdisjoint(self.axes),
            by_column=not COLUMN_AXES.isdisjoint(self.axes),
            scale=inverse_scale(self.p) if self.rescale == "inverse" else 1.0,
        )

    def extra_repr(self) -> str:
        """Show the options in `print(model)`."""
        return ", ".join(f"{name}={value}" for name, value in self.options.items())


class FeatureOperator(Operator):
    """Base of the operators on node features."""

    site = "features"

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
            return masked_multiply_sparse(x, mask)
        if x.layout != torch.strided:
            raise ParameterError(
                f"{self.name} takes dense or sparse CSR features, got {x.layout}; "
                "convert them with to_sparse_csr()"
            )
        return _mask_along(x, mask, node_dim, None)


class MessageOperator(Operator):
    """Base of the operators on messages."""

    site = "messages"

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
        return _mask_along(messages, mask, edge_dim, coordinates)


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
    rescales = ("renormalize", "inverse", "none")

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
        kept = keep(mask, coordinates, coordinates)
        return kept | graph.is_loop if self.protect_self_loops and not bipartite else kept

    def edge_scale(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return the factors of kept edges, float64 of shape (E,): 1 for protected ones."""
        scale = torch.full_like(graph.source, mask.scale, dtype=torch.float64)
        if self.protect_self_loops and not bipartite:
            scale[graph.is_loop] = 1
        return scale


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


def _mask_along(values: Tensor, mask: Mask, dim: int, rows: Tensor | None) -> Tensor:
    """Mask an array: axis `dim` holds the rows, the others, flattened, the columns."""
    if dim in (0, -2) and values.dim() == 2:
        return masked_multiply(values, mask, rows)
    moved = values.movedim(dim, 0)
    columns = moved.shape[1:].numel()
    masked = masked_multiply(moved.reshape(moved.size(0), columns), mask, rows)
    return masked.view(moved.shape).movedim(0, dim)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
