"""Edge dropout: one coin for every edge, before the graph is normalized."""

from typing import ClassVar

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, Memo
from gnndrop.masks import Mask
from gnndrop.operators._base import EdgeOperator, Presets, Share, declare, with_presets
from gnndrop.operators._expectation import Normalization, expected_entries, kept_entries
from gnndrop.operators._selection import make_pool, select, selection_means


@declare
class DropEdge(EdgeOperator):
    r"""Drop edges, then normalize the kept graph.

    $\tilde A = A \odot M$ with $m_e \sim B(1-p)$.

    An edge's coin depends on its endpoints, not its position, and both directions of an undirected
    edge share it: $\tilde A$ stays symmetric. Self-loops stay. The default sees the kept graph in
    the normalization and is therefore not unbiased: an entry of the normalized adjacency has
    another expectation than the clean one. Under max aggregation a dropped edge is absent.

    `rescale=exact` preserves the expectation of the normalized adjacency,
    $\hat A'_{ij} = \hat A(\tilde A)_{ij} \, \hat A_{ij} / E[\hat A(\tilde A)_{ij}]$, by the exact
    finite sum: for GCN's symmetric normalization, with degrees d without self-loops,
    $E_{ij} = (1-p)\, g(d_i-1)\, g(d_j-1)$ with $g(n) = E[(2 + \mathrm{Bin}(n, 1-p))^{-1/2}]$, and
    $E_{ii} = (1-p^{d_i+1}) / ((1-p)(d_i+1))$; for a mean the like. The layer's normalization is
    part of it: it is for attached layers of sums with GCN's normalization on simple undirected
    graphs without weights, and for means on any graph.

    Source: Rong et al., "DropEdge: towards deep graph convolutional networks on node
    classification" (ICLR 2020), whose code keeps an exact number of directed entries and one mask
    for all layers: `preset=rong2020`.

    Args:
        p: the rate, in [0, 1]; default 0.5; 1 leaves self-loops alone.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `renormalize` (default), `inverse`, `none`, see `EdgeOperator`, or `exact`.
        symmetric: one coin for both directions; by default where the graph is undirected.
        protect_self_loops: keep self-loops (default).
        fixed_count: keep exactly the fraction 1-p of the edges, rounded, in the place of
            independent coins; default False.
        preset: `rong2020` for `share=forward,symmetric=false,fixed_count=true`; options that are
            given win.

    Raises:
        ParameterError: if an option is out of its range, the preset unknown, or `rescale=exact`
            is to have p = 1, unprotected self-loops or a fixed count.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 2, 2], [1, 0, 1, 2]])
        >>> DropEdge(p=1.0)(edge_index)
        (tensor([[2],
                [2]]), None)
        >>> DropEdge(p=0.0)(edge_index)[0] is edge_index
        True
        >>> DropEdge(preset="rong2020").share
        'forward'
    """

    name = "drop-edge"
    axes = ("edge",)
    source = "Rong et al. 2020"
    rescales: ClassVar[tuple[str, ...]] = (*EdgeOperator.rescales, "exact")
    presets: ClassVar[Presets] = {
        "rong2020": {"share": "forward", "symmetric": False, "fixed_count": True}
    }

    @with_presets
    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "renormalize",
        symmetric: bool | None = None,
        protect_self_loops: bool = True,
        fixed_count: bool = False,
        preset: str | None = None,
    ) -> None:
        super().__init__(p, share, rescale, symmetric, protect_self_loops)
        self.fixed_count = fixed_count
        if rescale == "exact" and (self.p == 1 or fixed_count or not protect_self_loops):
            raise ParameterError(
                f"{self.name}:rescale=exact needs p below 1, independent coins and protected "
                f"self-loops, got p={self.p}, fixed_count={fixed_count} and "
                f"protect_self_loops={protect_self_loops}"
            )
        self._pool = Memo(make_pool)
        self._expected = Memo(expected_entries)

    @property
    def is_product(self) -> bool:  # type: ignore[override]  # of options, not of the class alone
        """Whether every edge has a factor of its own: not where their number is fixed."""
        return not self.fixed_count and self.rescale != "exact"

    @property
    def is_unbiased(self) -> bool:
        """Whether a linear layer's output has the clean one as its expectation."""
        return super().is_unbiased or self.rescale == "exact"

    @property
    def has_coins(self) -> bool:
        """Whether the mask's own coins decide, so that kernels may toss them."""
        return type(self).kept_edges is DropEdge.kept_edges and not self.fixed_count

    def forward(
        self, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Drop edges in training; the identity otherwise.

        Args:
            edge_index: see `EdgeOperator`.
            edge_weight: see `EdgeOperator`.

        Returns:
            The kept edges in their order and layout, and their weights.

        Raises:
            ParameterError: as `EdgeOperator`, and with `rescale=exact`, which needs the layer.
        """
        if self.is_active and self.rescale == "exact":
            raise ParameterError(
                f"{self.name}:rescale=exact needs the layer whose normalization it corrects, "
                "got edges alone; attach it to the model"
            )
        return super().forward(edge_index, edge_weight)

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return which edges a mask keeps, boolean of shape (E,)."""
        if not self.fixed_count:
            return super().kept_edges(graph, mask, bipartite)
        keeps_loops = self.protect_self_loops and not bipartite
        symmetric = self.is_symmetric(graph, bipartite)
        return select(self._pool(graph.edge_index, symmetric, keeps_loops), mask)

    def exact_factors(
        self, graph: Graph, mask: Mask, normalization: Normalization, bipartite: bool = False
    ) -> Tensor:
        """Return what messages behind the whole graph's normalization are multiplied by.

        Args:
            graph: that of the messages, self-loops included.
            mask: of the call.
            normalization: `symmetric`, or `mean`.
            bipartite: whether sources and targets are different nodes.

        Returns:
            float64 of shape (E,): zero where dropped, with a mean of one.

        Raises:
            ParameterError: if the normalization is symmetric and the graph directed, or not simple.
        """
        symmetric = self.is_symmetric(graph, bipartite)
        if normalization == "symmetric" and (graph.occurrence is not None or not symmetric):
            raise ParameterError(
                f"{self.name}:rescale=exact needs a simple undirected graph with one coin for both "
                "directions under GCN's normalization, got another; "
                "use rescale=inverse, which is unbiased, too"
            )
        if normalization == "symmetric" and not graph.is_undirected:
            raise ParameterError(
                f"{self.name}:rescale=exact needs an undirected graph under GCN's normalization, "
                "got a directed one; use rescale=inverse, which is unbiased, too"
            )
        is_fixed = torch.zeros_like(graph.is_loop) if bipartite else graph.is_loop
        kept = self.kept_edges(graph, mask, bipartite)
        expected = self._expected(graph.edge_index, is_fixed, self.p, normalization)
        return kept_entries(graph.edge_index, kept, normalization) / expected

    def mean_factors(self, edge_index: Tensor, num_nodes: int, x: Tensor | None = None) -> Tensor:
        """Return the mean of every edge's factor in training, float64 of shape (E,)."""
        if self.rescale == "exact":
            return torch.ones(edge_index.size(1), dtype=torch.float64)
        if not self.fixed_count:
            return super().mean_factors(edge_index, num_nodes, x)
        graph = Graph(edge_index, num_nodes)
        pool = make_pool(edge_index, self.is_symmetric(graph), self.protect_self_loops)
        means, scale = selection_means(pool, self.p), 1.0
        if self.rescale == "inverse" and self.p < 1:
            scale = 1 / (1 - self.p)
        return torch.where(pool.place < 0, 1.0, means * scale)
