"""Node removal: one coin for every node, which all of its edges follow."""

from typing import ClassVar

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.masks import Mask, keep
from gnndrop.operators._base import EdgeOperator, Share, declare


@declare
class RemoveNode(EdgeOperator):
    r"""Remove nodes with all of their edges: what is left is an induced subgraph.

    $\tilde A_{ij} = m_i m_j A_{ij}$ with $m_i \sim B(1-p)$; normalization sees the kept graph.

    No node is taken out of the tensors: a removed one keeps its own row, and its self-loop, which
    it has or which the layer adds. It neither sends nor receives anything else. An edge is kept
    with probability $(1-p)^2$; of a row-normalized adjacency with self-loops and in-degree d the
    diagonal is $p + (1-p^{d+1})/(d+1)$ in the mean, see `gnndrop.theory.row_remove_node`.
    Libraries call this DropNode, too, or DropGNN, whose own code zeroes input rows and keeps the
    edges: that is `drop-node:rescale=none,input_only=true`.

    Source: You et al., "Graph contrastive learning with augmentations" (NeurIPS 2020), where it is
    node dropping.

    Args:
        p: the rate at which nodes are removed, in [0, 1]; default 0.5; 1 leaves self-loops alone.
        share: `layer` (default) or `forward`; see `Operator`.

    Raises:
        ParameterError: if an option is out of its range; by a call, if the layer is bipartite.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 2, 2], [1, 0, 1, 2]])
        >>> RemoveNode(p=1.0)(edge_index)
        (tensor([[2],
                [2]]), None)
    """

    name = "remove-node"
    axes = ("node",)
    source = "You et al. 2020"
    rescales: ClassVar[tuple[str, ...]] = ("renormalize",)
    is_product = False

    def __init__(self, p: float = 0.5, share: Share = "layer") -> None:
        super().__init__(p, share)

    def is_symmetric(self, graph: Graph, bipartite: bool = False) -> bool:
        """Return whether both directions of an edge share their fate: they do."""
        return True

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return which edges a mask keeps, boolean of shape (E,)."""
        if bipartite:
            raise ParameterError(
                f"{self.name} needs one set of nodes, got a layer from some nodes to others; "
                "use drop-edge or drop-agg there"
            )
        nodes = torch.arange(graph.num_sources, device=graph.source.device)
        stays = keep(mask, nodes, nodes)
        return (stays[graph.source] & stays[graph.target]) | graph.is_loop

    def mean_factors(self, edge_index: Tensor, num_nodes: int, x: Tensor | None = None) -> Tensor:
        """Return how likely every edge is kept, float64 of shape (E,)."""
        is_loop = edge_index[0] == edge_index[1]
        return is_loop.double().clamp(min=(1 - self.p) ** 2)
