"""Aggregation dropout: one coin for every target, which all of its in-edges follow."""

from typing import ClassVar

import torch
from torch import Tensor

from gnndrop.graph import Graph
from gnndrop.masks import Mask, keep
from gnndrop.operators._base import EdgeOperator, Share, declare


@declare
class DropAgg(EdgeOperator):
    r"""Drop all in-edges of a node together: it aggregates nothing but itself.

    $\tilde A_{ij} = m_i A_{ij}$ with $m_i \sim B(1-p)$ for targets i; normalization sees the kept
    graph.

    Self-loops stay. The node still sends: $\tilde A$ is not symmetric, also of an undirected graph.
    Of a row-normalized adjacency with self-loops and in-degree d the diagonal is
    $p + (1-p)/(d+1)$ in the mean, see `gnndrop.theory.row_drop_agg`.

    Source: Singh et al. (arXiv 2502.07364).

    Args:
        p: the rate at which nodes lose their in-edges, in [0, 1]; default 0.5; 1 leaves self-loops
            alone.
        share: `layer` (default) or `forward`; see `Operator`.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> edge_index = torch.tensor([[0, 2, 1, 2], [1, 1, 0, 2]])
        >>> kept, _ = DropAgg()(edge_index)
        >>> int((kept[1] == 1).sum()) in (0, 2)
        True
    """

    name = "drop-agg"
    axes = ("node",)
    source = "Singh et al. 2025"
    rescales: ClassVar[tuple[str, ...]] = ("renormalize",)
    is_product = False

    def __init__(self, p: float = 0.5, share: Share = "layer") -> None:
        super().__init__(p, share)

    def is_symmetric(self, graph: Graph, bipartite: bool = False) -> bool:
        """Return whether both directions of an edge share their fate: they end at two nodes."""
        return False

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return which edges a mask keeps, boolean of shape (E,)."""
        nodes = torch.arange(graph.num_targets, device=graph.target.device)
        kept = keep(mask, nodes, nodes)[graph.target]
        return kept if bipartite else kept | graph.is_loop
