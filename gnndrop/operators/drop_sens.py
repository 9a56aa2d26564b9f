"""Degree-aware edge dropout: nodes of few in-edges lose few of them."""

from typing import ClassVar

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, Memo
from gnndrop.masks import Mask, mask_bits
from gnndrop.operators._base import EdgeOperator, Share, declare


@declare
class DropSens(EdgeOperator):
    r"""Drop the in-edges of a node at the rate that its degree can bear, then normalize.

    $\tilde A_{ij} = m_{ij} A_{ij}$ with $m_{ij} \sim B(1 - \min(p, q(d_i)))$, where $d_i$ counts
    the in-edges of the target i without self-loops. In a row-normalized adjacency with self-loops,
    dropping at the rate q(d) keeps the fraction c = `retain` of the expected weight that the node
    gives to its neighbours: q(d) is the root in (0, 1) of $d(1-c)(1-q) - q + q^{d+1} = 0$, which is
    $\frac1d \sum_{k=1}^d q^k = 1-c$. It grows with d, from 1-c at d = 1.

    Self-loops stay. The two directions of an edge have different rates and coins of their own. The
    rates follow the graph at hand, never an earlier one.

    Source: Singh et al. (arXiv 2502.07364).

    Args:
        p: the highest rate, in [0, 1]; default 0.5; 1 sets no limit to q(d).
        share: `layer` (default) or `forward`; see `Operator`.
        retain: the fraction c that is kept, in [0, 1]; default 0.8; at 0 all edges are dropped at
            rate p.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> [round(sensitive_rate(degree, retain=0.8), 3) for degree in (1, 2, 4, 8, 16)]
        [0.2, 0.306, 0.455, 0.621, 0.764]
        >>> star = torch.tensor([[1, 2, 3, 4, 0], [0, 0, 0, 0, 1]])
        >>> (1 - DropSens().mean_factors(star, 5)).round(decimals=3).tolist()
        [0.455, 0.455, 0.455, 0.455, 0.2]
    """

    name = "drop-sens"
    axes = ("edge",)
    source = "Singh et al. 2025"
    rescales: ClassVar[tuple[str, ...]] = ("renormalize",)
    is_product = False

    def __init__(self, p: float = 0.5, share: Share = "layer", retain: float = 0.8) -> None:
        super().__init__(p, share)
        if type(retain) is bool or not 0 <= retain <= 1:
            raise ParameterError(f"retain must be a fraction in [0, 1], got {retain}")
        self.retain = float(retain)
        self._rates = Memo(_rates)

    def is_symmetric(self, graph: Graph, bipartite: bool = False) -> bool:
        """Return whether both directions of an edge share their fate: they end at two nodes."""
        return False

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        """Return which edges a mask keeps, boolean of shape (E,)."""
        rates = self._rates(graph.edge_index, self.retain, bipartite).clamp(max=self.p)
        coordinates = graph.directed_coordinates
        return mask_bits(mask, coordinates, coordinates) >= (rates * 2**32).round()

    def mean_factors(self, edge_index: Tensor, num_nodes: int, x: Tensor | None = None) -> Tensor:
        """Return how likely every edge is kept, float64 of shape (E,)."""
        return 1 - self._rates(edge_index, self.retain, False).clamp(max=self.p)


def sensitive_rate(degree: int, retain: float) -> float:
    """Return the rate that keeps a fraction of the weight of a node's in-edges; 0 without any.

    Example:
        >>> sensitive_rate(1, retain=0.75)
        0.25
    """
    powers = np.arange(1, degree + 1)
    if not degree or retain == 1:
        return 0.0
    return float(brentq(lambda q: (q**powers).mean() - (1 - retain), 0.0, 1.0, xtol=1e-15))


def _rates(edge_index: Tensor, retain: float, bipartite: bool) -> Tensor:
    """Return the rate of every edge, float64 of shape (E,): zero for self-loops."""
    source, target = edge_index
    is_edge = torch.ones_like(source, dtype=torch.bool) if bipartite else source != target
    degrees = torch.bincount(target[is_edge], minlength=int(target.max()) + 1 if len(target) else 0)
    known, place = torch.unique(degrees, return_inverse=True)
    rates = [sensitive_rate(degree, retain) for degree in known.tolist()]
    by_node = torch.tensor(rates, dtype=torch.float64, device=target.device)[place]
    return torch.where(is_edge, by_node[target], 0.0)
