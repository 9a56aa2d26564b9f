"""Structure-aware edge dropout: similar nodes stay joined, and deeper layers see more edges."""

from typing import ClassVar, Self

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, Memo
from gnndrop.kernels._dispatch import backend
from gnndrop.masks import Mask, check_rate, draw_seed, stream_key
from gnndrop.operators._base import EdgeOperator, declare
from gnndrop.operators._selection import make_pool, select, selection_means

FLOOR = 1e-10


@declare
class DropEdgePlus(EdgeOperator):
    r"""Keep a fixed number of edges, drawn by the similarity of their ends, nested over layers.

    Layer l of L, from 0, keeps the fraction $b + l (1-b) a / (L-1)$ of the edges, where b = 1-p is
    that of the first layer and a = `growth`. They are drawn without replacement with probability
    proportional to $\max(x_u \cdot x_v, 0) + 10^{-10}$; the edges of a layer are among those of the
    next one. Normalization sees the kept graph. The features x are those that the model's first
    layer aggregates, before other parts of a combination drop any of them: the paper's code knows
    the data's alone. Of operators attached one by one, this one must be the first. Without features
    all edges are alike.

    Self-loops stay, and both directions of an undirected edge stay together. How likely an edge is
    kept has no closed form; `mean_factors` sums over all sets of few edges.

    Source: Han et al., "Structure-aware DropEdge towards deep graph convolutional networks" (TNNLS
    2023), called DropEdge++. Its code draws a layer's edges from those of the next layer by the
    same weights once more; here each layer's set is by itself distributed as above. It draws the
    two directions of an edge apart: `symmetric=false`.

    Args:
        p: the fraction of edges that the first layer drops, in [0, 1]; default 0.5.
        growth: the fraction a of the dropped edges that the last layer has back, in [0, 1]; default
            1: it sees the whole graph; 0: all layers see the same edges.
        symmetric: draw both directions of an edge together; by default where the graph is
            undirected.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 0, 2], [1, 2, 2, 3]])
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> kept, _ = DropEdgePlus()(edge_index, x=x)
        >>> kept.tolist()
        [[0, 2], [1, 3]]
    """

    name = "drop-edge-plus"
    axes = ("edge",)
    source = "Han et al. 2023"
    rescales: ClassVar[tuple[str, ...]] = ("renormalize",)
    is_product = False
    observes: ClassVar[bool] = True
    """Whether features decide; in a combination nothing drops them before."""

    def __init__(self, p: float = 0.5, growth: float = 1.0, symmetric: bool | None = None) -> None:
        super().__init__(p, "forward", symmetric=symmetric)  # the layers share their draw
        try:
            self.growth = check_rate(growth)
        except ParameterError:
            raise ParameterError(f"growth must be a fraction in [0, 1], got {growth}") from None
        self._features: Tensor | None = None
        self._pool = Memo(make_pool)
        self._weights = Memo(_weights)

    def start_pass(self, seed: int | None = None, *others: int) -> Self:
        """Begin a forward pass; see `Operator`."""
        self._features = None
        return super().start_pass(seed, *others)

    def end_pass(self) -> None:
        """End the pass, and forget the features."""
        self._features = None
        super().end_pass()

    def observe(self, x: Tensor | None) -> None:
        """Note the features of the pass: those of its first layer."""
        if self._features is None and x is not None:
            self._features = x.detach()

    def forward(
        self, edge_index: Tensor, edge_weight: Tensor | None = None, x: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Drop edges in training; the identity otherwise.

        Args:
            edge_index: see `EdgeOperator`.
            edge_weight: see `EdgeOperator`.
            x: node features, shape (N, C), dense or sparse CSR; in a pass the first ones count.

        Returns:
            The kept edges in their order and layout, and their weights.
        """
        self.observe(x)
        try:
            return super().forward(edge_index, edge_weight)
        finally:
            if not self.in_pass:
                self._features = None

    def next_mask(self, layer: int = 0) -> Mask:
        """Return the mask of a layer: one draw for all, at rates that fall with the depth."""
        seed = draw_seed() if self._pass.seed is None else self._pass.seed
        depth = layer / (self.num_layers - 1) if self.num_layers > 1 else 0.0
        rate = self.p * (1 - self.growth * min(depth, 1.0))
        return Mask(key=stream_key(seed, self.name), p=rate, by_column=False)

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return which edges a mask keeps, boolean of shape (E,)."""
        symmetric = self.is_symmetric(graph, bipartite)
        pool = self._pool(graph.edge_index, symmetric, not bipartite)
        weight = None
        if self._features is not None:
            weight = self._weights(graph.edge_index, pool.first, *_parts(self._features))
        return select(pool, mask, weight)

    def mean_factors(self, edge_index: Tensor, num_nodes: int, x: Tensor | None = None) -> Tensor:
        """Return how likely every edge is kept in the first layer, float64 of shape (E,).

        Raises:
            ParameterError: if there are more than 12 edges to draw from, and `x`.
        """
        pool = make_pool(edge_index, self.is_symmetric(Graph(edge_index)), True)
        weight = None if x is None else _weights(edge_index, pool.first, x)
        return selection_means(pool, self.p, weight)


def _parts(x: Tensor) -> tuple[object, ...]:
    """Return the dense tensors that make up the features: a memory of them knows their versions."""
    if x.layout == torch.strided:
        return x, None, None, None
    return x.values(), x.crow_indices(), x.col_indices(), x.size(1)


def _weights(
    edge_index: Tensor,
    first: Tensor,
    values: Tensor,
    pointer: Tensor | None = None,
    columns: Tensor | None = None,
    width: int | None = None,
) -> Tensor:
    """Return the similarity of the ends of some edges, float64: positive."""
    x = values
    if pointer is not None and columns is not None and width is not None:
        size = (len(pointer) - 1, width)
        x = torch.sparse_csr_tensor(pointer, columns, values, size, check_invariants=False)
        x = x.to_dense()
    x = x.flatten(1) if x.is_floating_point() else x.flatten(1).float()
    graph = Graph(edge_index[:, first], len(x), len(x))
    products = backend(x).edge_products(graph.by_target, x, x, 1, None, None)[:, 0]
    weight: Tensor = products.double().clamp(min=0) + FLOOR
    return weight
