r"""The exact expectation of a normalized adjacency, (N, N) with targets as rows, under dropping.

All of it is of a simple graph with weights of one, whose self-loops are added after dropping, as
GCN does: $\hat A = D^{-1}(A' + I)$ by rows or $D^{-1/2}(A' + I)D^{-1/2}$, where A' is what was
kept of the adjacency and D the degrees of what was kept. The normalization does not commute with
the expectation: $E[\hat A]$ is another matrix than $\hat A$, so that training and evaluation
differ in the mean.
"""

from typing import Literal

import torch
from scipy.stats import binom
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.masks import check_rate
from gnndrop.theory.enumeration import masks

Normalization = Literal["row", "symmetric"]


def neighbours(graph: Graph) -> Tensor:
    """Return the adjacency without self-loops, float64 of shape (N, N): targets are the rows.

    Raises:
        ParameterError: if an edge stands there twice, or sources and targets are other nodes.

    Example:
        >>> neighbours(Graph(torch.tensor([[0, 1], [1, 1]]))).tolist()
        [[0.0, 0.0], [1.0, 0.0]]
    """
    if graph.num_sources != graph.num_targets:
        raise ParameterError(
            "a normalized adjacency needs one set of nodes, "
            f"got {graph.num_sources} sources and {graph.num_targets} targets"
        )
    counts = torch.zeros(graph.num_targets, graph.num_sources, dtype=torch.float64)
    ones = torch.ones(len(graph.target), dtype=torch.float64)
    counts.index_put_((graph.target, graph.source), ones, accumulate=True)
    if bool((counts > 1).any()):
        raise ParameterError(
            "the exact expectation needs a graph without duplicate edges, got one with some; "
            "remove them with torch_geometric.utils.coalesce"
        )
    return counts.fill_diagonal_(0)


def row_drop_edge(graph: Graph, p: float) -> Tensor:
    r"""Return $E[\hat A]$ of the row-normalized adjacency under drop-edge.

    $E[\hat A_{ii}] = (1 - p^{d+1}) / ((1-p)(d+1))$ for a node of d in-edges, and each of its
    in-edges has $(1 - E[\hat A_{ii}])/d$. One coin for both directions of an edge changes nothing:
    a row holds no two of them.

    Source: Singh et al. (arXiv 2502.07364), lemma 3.1.

    Args:
        graph: a simple graph; its self-loops are ignored, protected ones are added.
        p: the rate at which edges are dropped, in [0, 1].

    Returns:
        float64 of shape (N, N), whose rows sum to one.

    Raises:
        ParameterError: if the graph has duplicate edges, or `p` is no rate.

    Example:
        >>> row_drop_edge(Graph(torch.tensor([[0, 1], [1, 0]])), 0.5).tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    adjacency, p = neighbours(graph), check_rate(p)
    return _with_own_share(adjacency, _kept_share(adjacency.sum(1), p))


def row_drop_agg(graph: Graph, p: float) -> Tensor:
    r"""Return $E[\hat A]$ of the row-normalized adjacency under drop-agg.

    Drop-agg removes all in-edges of a node by one coin: $E[\hat A_{ii}] = p + (1-p)/(d+1)$.

    Source: as `row_drop_edge`.

    Args:
        graph: see `row_drop_edge`.
        p: the rate at which nodes lose their in-edges, in [0, 1].

    Returns:
        float64 of shape (N, N), whose rows sum to one.

    Raises:
        ParameterError: if the graph has duplicate edges, or `p` is no rate.

    Example:
        >>> row_drop_agg(Graph(torch.tensor([[0, 1], [1, 0]])), 0.5).tolist()
        [[0.75, 0.25], [0.25, 0.75]]
    """
    adjacency, p = neighbours(graph), check_rate(p)
    return _with_own_share(adjacency, p + (1 - p) / (adjacency.sum(1) + 1))


def row_remove_node(graph: Graph, p: float) -> Tensor:
    r"""Return $E[\hat A]$ of the row-normalized adjacency under remove-node.

    Remove-node drops all edges that touch a removed node, which keeps its own features by its
    self-loop: $E[\hat A_{ii}] = p + (1 - p^{d+1})/(d+1)$.

    Source: as `row_drop_edge`, where it is called DropGNN.

    Args:
        graph: see `row_drop_edge`.
        p: the rate at which nodes are removed, in [0, 1].

    Returns:
        float64 of shape (N, N), whose rows sum to one.

    Raises:
        ParameterError: if the graph has duplicate edges, or `p` is no rate.

    Example:
        >>> row_remove_node(Graph(torch.tensor([[0, 1], [1, 0]])), 0.5).tolist()
        [[0.875, 0.125], [0.125, 0.875]]
    """
    adjacency, p = neighbours(graph), check_rate(p)
    return _with_own_share(adjacency, p + (1 - p) * _kept_share(adjacency.sum(1), p))


def symmetric_drop_edge(graph: Graph, p: float, symmetric: bool | None = None) -> Tensor:
    r"""Return $E[\hat A]$ of GCN's normalized adjacency under drop-edge, a finite sum.

    With one coin for both directions of an undirected edge, for nodes of degrees d,

    $$E[\hat A_{ij}] = (1-p)\, g_2(d_i - 1)\, g_2(d_j - 1), \qquad
      g_c(n) = E[(c + \mathrm{Bin}(n, 1-p))^{-1/2}],$$

    since given that the edge is kept, the other edges of its ends are different ones. With a coin
    for each direction, and in-degrees, the source's degree does not know of the edge:
    $(1-p)\, g_2(d_i - 1)\, g_1(d_j)$. The diagonal is that of `row_drop_edge`.

    The first form is ours; it is checked against a sum over all masks.

    Args:
        graph: see `row_drop_edge`.
        p: the rate at which edges are dropped, in [0, 1].
        symmetric: one coin for both directions; None: where the graph is undirected.

    Returns:
        float64 of shape (N, N).

    Raises:
        ParameterError: if the graph has duplicate edges, `p` is no rate, or a directed graph is to
            have one coin for both directions.

    Example:
        >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> [round(value, 6) for value in symmetric_drop_edge(pair, 0.5)[0].tolist()]
        [0.75, 0.25]
    """
    adjacency, p = neighbours(graph), check_rate(p)
    is_undirected = torch.equal(adjacency, adjacency.T)
    if symmetric and not is_undirected:
        raise ParameterError(
            "one coin for both directions has an exact expectation on undirected graphs, "
            "got a directed one; add the reverse edges, or set symmetric=False"
        )
    degree = adjacency.sum(1)
    target = _inverse_root(degree - 1, 2, p)
    one_coin = is_undirected if symmetric is None else symmetric
    source = target if one_coin else _inverse_root(degree, 1, p)
    return (1 - p) * adjacency * target[:, None] * source + _kept_share(degree, p).diag()


def expected_power(
    graph: Graph,
    p: float,
    depth: int,
    normalization: Normalization = "row",
    symmetric: bool | None = None,
) -> Tensor:
    r"""Return $E[\hat A^L]$ under drop-edge with one mask for all layers, by a sum over all masks.

    A fresh mask for every layer gives the power of the expectation $E[\hat A]^L$ instead: the two
    tell the modes apart.

    Args:
        graph: see `row_drop_edge`; of at most 16 coins.
        p: the rate at which edges are dropped, in [0, 1].
        depth: the number L of layers.
        normalization: `row` or `symmetric`.
        symmetric: one coin for both directions; None: where the graph is undirected.

    Returns:
        float64 of shape (N, N).

    Raises:
        ParameterError: if the graph has duplicate edges or more than 16 coins, or `p` is no rate.

    Example:
        >>> pair = Graph(torch.tensor([[0, 1], [1, 0]]))
        >>> expected_power(pair, 0.5, depth=2)[0, 1].item()  # one mask for both layers
        0.25
        >>> torch.linalg.matrix_power(row_drop_edge(pair, 0.5), 2)[0, 1].item()  # fresh masks
        0.375
    """
    adjacency = neighbours(graph)
    target, source = adjacency.nonzero(as_tuple=True)
    if symmetric is None:
        symmetric = torch.equal(adjacency, adjacency.T)
    ends = torch.stack([target, source])
    identity = ends.sort(0).values if symmetric else ends
    pairs, coin = torch.unique(identity, dim=1, return_inverse=True)
    outcomes, probability = masks(pairs.size(1), p)
    kept = torch.eye(len(adjacency), dtype=torch.float64).repeat(len(outcomes), 1, 1)
    kept[:, target, source] = outcomes[:, coin]
    powers = torch.linalg.matrix_power(normalized(kept, normalization), depth)
    return torch.einsum("m,mij->ij", probability, powers)


def normalized(adjacency: Tensor, normalization: Normalization) -> Tensor:
    """Normalize adjacencies that have their self-loops, (..., N, N), by the sums of their rows.

    Example:
        >>> normalized(torch.ones(2, 2), "row").tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    degree = adjacency.sum(-1)
    if normalization == "row":
        return adjacency / degree[..., None]
    root = degree.rsqrt()
    return root[..., None] * adjacency * root[..., None, :]


def hop_distance(graph: Graph) -> Tensor:
    """Return how many edges the shortest path takes from each source to each target.

    Returns:
        int64 of shape (N, N), targets as rows; -1 where there is no path.

    Example:
        >>> hop_distance(Graph(torch.tensor([[0, 1], [1, 2]])))[2].tolist()
        [2, 1, 0]
    """
    step = neighbours(graph).bool()
    reached = torch.eye(len(step), dtype=torch.bool)
    distance = torch.where(reached, 0, -1)
    for hops in range(1, len(step)):
        new = (step.double() @ reached.double() > 0) & ~reached
        distance[new] = hops
        reached |= new
    return distance


def sensitivity(expected: Tensor, distance: Tensor, hops: int) -> Tensor:
    r"""Return the expected sensitivity of a linear GNN of L layers to nodes L hops away.

    The derivative of a node's output by another's input is $(\hat A_L \cdots \hat A_1)_{ij}$, with
    fresh masks $(E[\hat A]^L)_{ij}$ in the mean. For nodes exactly L hops apart it falls with p:
    all shortest paths must be kept.

    Source: Singh et al. (arXiv 2502.07364), theorem 3.1.

    Args:
        expected: $E[\hat A]$, shape (N, N), as of `row_drop_edge`.
        distance: of `hop_distance`, the same shape.
        hops: the number L of layers and of hops.

    Returns:
        One value for every pair of nodes at that distance, row by row.

    Example:
        >>> path = Graph(torch.tensor([[0, 1], [1, 2]]))
        >>> [sensitivity(row_drop_edge(path, p), hop_distance(path), 2).item() for p in (0, 0.5)]
        [0.25, 0.0625]
    """
    power: Tensor = torch.linalg.matrix_power(expected, hops)
    return power[distance == hops]


def _kept_share(degree: Tensor, p: float) -> Tensor:
    """Return E[1/(1 + Bin(d, 1-p))]: the mean of p^0 to p^d."""
    if p == 1:
        return torch.ones_like(degree)
    return (1 - p ** (degree + 1)) / ((1 - p) * (degree + 1))


def _with_own_share(adjacency: Tensor, own: Tensor) -> Tensor:
    """Return the rows that have `own` on the diagonal and share the rest among the in-edges."""
    share = (1 - own) / adjacency.sum(1).clamp(min=1)
    return adjacency * share[:, None] + own.diag()


def _inverse_root(trials: Tensor, certain: int, p: float) -> Tensor:
    """Return E[(certain + Bin(n, 1-p))^-1/2] for every n; of n below 0, which no edge asks for."""
    values: list[Tensor] = []
    for n in trials.clamp(min=0).int().tolist():
        kept = torch.arange(n + 1, dtype=torch.float64)
        probability = torch.from_numpy(binom.pmf(kept.numpy(), n, 1 - p))
        values.append((probability / (certain + kept).sqrt()).sum())
    return torch.stack(values) if values else trials.new_empty(0)
