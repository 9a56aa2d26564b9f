"""Block dropout: all nodes within some hops of random centres, together."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from scipy.optimize import brentq
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, Memo, endpoints
from gnndrop.kernels import aggregate, masked_multiply
from gnndrop.masks import Mask, keep
from gnndrop.operators._base import FeatureOperator, Share, declare


@declare
class DropBlock(FeatureOperator):
    r"""Drop the features of contiguous blocks of nodes, which keep their edges.

    Every node is a centre with probability $\gamma$; all nodes within `radius` hops of one are
    dropped. Directions of edges do not matter. With $b_i$ nodes in the ball around node i,
    $P(m_i = 1) = (1-\gamma)^{b_i}$, and $\gamma$ is the solution of
    $\frac{1}{N} \sum_i (1-\gamma)^{b_i} = 1-p$: the expected fraction of dropped nodes is exactly p
    on every graph. (DropBlock's own calibration is to first order, on a grid.)

    $\tilde x_{ic} = m_i x_{ic} / (1-p)$: unbiased on average over the nodes, while a node of a
    large ball is dropped more often than one of a small ball. Nodes i and k are both kept with
    probability $(1-\gamma)^{|B_i \cup B_k|}$. `radius=0` is `drop-node`. The sizes of the balls are
    found once per graph, at the cost of the adjacency's power `radius`.

    Source: Ghiasi et al., "DropBlock: a regularization method for convolutional networks" (NeurIPS
    2018), with balls of a graph in the place of squares of an image.

    Args:
        p: the expected fraction of nodes that are dropped, in [0, 1]; default 0.5; 1 gives zeros.
        share: `layer` (default) or `forward`; see `Operator`.
        rescale: `inverse` (default) divides kept rows by 1-p, `none` leaves them, `eval` leaves
            them and multiplies all rows by 1-p in evaluation.
        radius: the number of hops from a centre to the nodes that it drops; default 1.

    Raises:
        ParameterError: if an option is out of its range.

    Example:
        >>> edge_index = torch.tensor([[0, 2], [1, 3]])
        >>> x = DropBlock()(torch.ones(4, 2), edge_index)
        >>> bool((x[0] == x[1]).all() and (x[2] == x[3]).all())
        True
    """

    name = "drop-block"
    axes = ("node",)
    source = "Ghiasi et al. 2018"
    is_product = False
    needs_graph = True

    def __init__(
        self,
        p: float = 0.5,
        share: Share = "layer",
        rescale: str = "inverse",
        radius: int = 1,
    ) -> None:
        super().__init__(p, share, rescale)
        if type(radius) is not int or radius < 0:
            raise ParameterError(f"radius must be a whole number of hops, 0 or more, got {radius}")
        self.radius = radius
        self._calibrate = Memo(_calibrate)

    @property
    def is_unbiased(self) -> bool:
        """Whether every masked value has the clean one as its expectation: never below p = 1."""
        return False

    def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
        """Mask node features in training; the identity otherwise.

        Args:
            x: floating, shape (N, ...), or sparse CSR of shape (N, F).
            edge_index: int64 of shape (2, E), or a torch sparse matrix, rows the targets.

        Returns:
            Shape and layout of `x`.

        Raises:
            ParameterError: if `x` is not floating, `edge_index` missing, or it holds a node that
                `x` has not.
        """
        if not self.is_active:
            return x
        return self.mask_features(x, self.next_mask(), 0, edge_index)

    def mask_features(
        self, x: Tensor, mask: Mask, node_dim: int = 0, edge_index: Tensor | None = None
    ) -> Tensor:
        """Apply a given mask along the nodes of `x`, whose edges are `edge_index`."""
        if mask.p > 0:  # else it is that of evaluation
            if edge_index is None:
                raise ParameterError(f"{self.name} needs the edge_index of the features, got none")
            mask = self._toss(edge_index, x.size(node_dim), mask)
        return super().mask_features(x, mask, node_dim)

    def _toss(self, edge_index: Tensor, num_nodes: int, mask: Mask) -> "_BlockMask":
        """Find the blocks: a dropped node takes the coin of a centre, others keep their own."""
        ends = self.prepare(endpoints(edge_index), num_nodes).edge_index
        rate, _, neighbours = self._calibrate(ends, num_nodes, self.radius, self.p)
        nodes = torch.arange(num_nodes, device=ends.device)
        dropped = centres = ~keep(replace(mask, p=rate), nodes, nodes)
        with torch.no_grad():
            for _ in range(self.radius):
                reached = aggregate(neighbours, dropped[:, None].float())
                dropped = dropped | (reached[:, 0] > 0)
        if num_nodes:
            nodes = torch.where(dropped, centres.int().argmax(), nodes)
        return _BlockMask(**{**vars(mask), "p": rate}, rows=nodes)

    def mean_factors(self, edge_index: Tensor, num_nodes: int) -> Tensor:
        """Return the mean of every node's factor in training, float64 of shape (num_nodes,)."""
        ends = self.prepare(endpoints(edge_index), num_nodes).edge_index
        rate, sizes, _ = self._calibrate(ends, num_nodes, self.radius, self.p)
        kept = (1 - rate) ** sizes.double()
        return kept / (1 - self.p) if self.rescale == "inverse" and self.p < 1 else kept

    def feature_covariance(self, x: Tensor, edge_index: Tensor) -> Tensor:
        r"""Return the covariance of all masked entries of `x`, shape (N * C, N * C).

        $\mathrm{Cov}(m_i, m_k) = (1-\gamma)^{|B_i \cup B_k|} - (1-\gamma)^{b_i + b_k}$; it forms
        all pairs of nodes: for small graphs.
        """
        ends = self.prepare(endpoints(edge_index), len(x)).edge_index
        rate, sizes, _ = self._calibrate(ends, len(x), self.radius, self.p)
        balls = _balls(ends, len(x), self.radius).astype(np.int64)
        common = torch.from_numpy((balls @ balls.T).toarray())
        apart = sizes[:, None] + sizes
        spread = (1 - rate) ** (apart - common).double() - (1 - rate) ** apart.double()
        if self.rescale == "inverse" and self.p < 1:
            spread = spread / (1 - self.p) ** 2
        values = x.flatten()
        places = torch.arange(len(x)).repeat_interleave(x.size(1))
        return spread[places[:, None], places] * values[:, None] * values

    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a matrix of nodes x channels."""
        if not isinstance(mask, _BlockMask):
            return super().multiply(x, mask)
        return masked_multiply(x, mask, mask.rows)

    def multiply_sparse(self, x: Tensor, mask: Mask) -> Tensor:
        """Apply a given mask to a sparse CSR matrix."""
        if not isinstance(mask, _BlockMask):
            return super().multiply_sparse(x, mask)
        pointer = x.crow_indices()
        kept = keep(mask, mask.rows, mask.rows).repeat_interleave(pointer.diff())
        values = torch.where(kept, x.values() * mask.scale, 0)
        return torch.sparse_csr_tensor(
            pointer, x.col_indices(), values, x.shape, check_invariants=False
        )


@dataclass(frozen=True, kw_only=True)
class _BlockMask(Mask):
    """A mask whose nodes share coins.

    Args:
        rows: int64, the node whose coin decides about every node.
    """

    rows: Tensor


class _Calibration(NamedTuple):
    """What a graph makes of a rate.

    Args:
        rate: the rate of centres.
        sizes: int64 of shape (num_nodes,): how many nodes the ball around each one holds.
        neighbours: the edges in both directions.
    """

    rate: float
    sizes: Tensor
    neighbours: Graph


def _calibrate(edge_index: Tensor, num_nodes: int, radius: int, p: float) -> _Calibration:
    """Find the rate of centres at which the expected fraction of dropped nodes is p."""
    balls = _balls(edge_index, num_nodes, radius)
    sizes = torch.from_numpy(np.diff(balls.indptr).astype(np.int64)).to(edge_index.device)
    known, counts = torch.unique(sizes, return_counts=True)
    known, shares = known.double(), counts.double() / max(num_nodes, 1)

    def excess(rate: float) -> float:
        return (
            float((shares * -torch.expm1(known * torch.log1p(-known.new_tensor(rate)))).sum()) - p
        )

    # All nodes as centres drop all of them. No node, or all to be dropped: nothing to solve.
    rate = brentq(excess, 0.0, 1.0, xtol=1e-14) if num_nodes and p < 1 else p
    both = torch.cat([edge_index, edge_index.flip(0)], 1)
    return _Calibration(float(rate), sizes, Graph(both, num_nodes))


def _balls(edge_index: Tensor, num_nodes: int, radius: int) -> scipy.sparse.csr_array:
    """Return which nodes lie in the ball around each one, boolean of shape (N, N)."""
    source, target = edge_index.cpu().numpy()
    size = num_nodes, num_nodes
    edges = scipy.sparse.coo_array((np.ones(len(source), dtype=bool), (source, target)), shape=size)
    identity = scipy.sparse.eye_array(num_nodes, dtype=bool, format="csr")
    step = (edges + edges.T).tocsr() + identity
    reached = identity
    for _ in range(radius):
        reached = reached @ step
    return reached
