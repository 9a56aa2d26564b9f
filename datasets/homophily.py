"""How often neighbours share a label, and how much they tell of each other's."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import homophily as pyg_homophily
from torch_geometric.utils import subgraph, to_undirected

# Published graphs leave a wide gap here: the heterophilous benchmarks of Platonov et al. (2023) end
# at 0.14, citation and co-purchase graphs begin near 0.6.
HOMOPHILOUS_FROM = 0.3


@dataclass(frozen=True)
class Homophily:
    """The homophily of one graph; each value is `nan` where it is not defined.

    Args:
        edge: share of edges that join equal labels, in [0, 1] (Zhu et al. 2020).
        node: mean over nodes of the share of neighbours with the node's label, in [0, 1]; a node
            without neighbours counts 0 (Pei et al. 2020, as PyG computes it).
        adjusted: edge homophily corrected for chance, at most 1, 0 where labels do not matter
            (Platonov et al. 2023).
        edge_insensitive: excess of each class's edge homophily over its share of nodes, in [0, 1]
            (Lim et al. 2021).
        label_informativeness: share of the uncertainty of a node's label that a neighbour's label
            removes, in [0, 1] (Platonov et al. 2023).

    Example:
        >>> homophily(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1])).is_homophilous
        False
    """

    edge: float
    node: float
    adjusted: float
    edge_insensitive: float
    label_informativeness: float

    @property
    def is_homophilous(self) -> bool:
        """Whether results on this graph belong to the homophilous group: adjusted >= 0.3.

        Adjusted homophily decides because it alone compares graphs with different numbers and
        sizes of classes: Minesweeper's edge homophily is 0.68, of which chance explains all.
        `False` where it is not defined (a graph without edges, or with one class only).
        """
        return self.adjusted >= HOMOPHILOUS_FROM


def homophily(edge_index: Tensor, y: Tensor) -> Homophily:
    """Measure how homophilous a labelled graph is.

    `edge` = Σ_k e_kk with e_kl the share of edges from class k to class l; it, `node` and
    `edge_insensitive` are those of `torch_geometric.utils.homophily`: on a directed graph they
    follow its directions, and repeated edges count as often as they are there.
    `adjusted_homophily` and `label_informativeness` have their own definitions.

    Args:
        edge_index: `[2, edges]`, integer; an undirected edge is two columns.
        y: `[nodes]`, integer; nodes labelled -1 are left out with their edges.

    Returns:
        The five measures; a measure that is not defined is `nan`.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
        >>> h = homophily(edge_index, torch.tensor([0, 0, 1, 1]))
        >>> round(h.edge, 3), round(h.node, 3), round(h.adjusted, 3), round(h.edge_insensitive, 3)
        (0.667, 0.75, 0.333, 0.333)
        >>> round(h.label_informativeness, 3)
        0.082
    """
    edge_index, y = _labelled(edge_index, y)
    if edge_index.size(1) == 0:
        return Homophily(math.nan, math.nan, math.nan, math.nan, math.nan)
    mixing = _mixing(edge_index, y)
    return Homophily(
        edge=pyg_homophily(edge_index, y, method="edge"),
        node=pyg_homophily(edge_index, y, method="node"),
        adjusted=_adjusted(mixing),
        # PyG refuses a single class.
        edge_insensitive=pyg_homophily(edge_index, y, method="edge_insensitive")
        if int(y.max()) > 0
        else math.nan,
        label_informativeness=_informativeness(mixing),
    )


def adjusted_homophily(edge_index: Tensor, y: Tensor) -> float:
    """Return edge homophily corrected for what chance explains, given the classes' degrees.

    With e_kl the share of edges between classes k and l and D_k the sum of degrees in class k:

        (Σ_k e_kk - Σ_k (D_k / 2|E|)²) / (1 - Σ_k (D_k / 2|E|)²)

    It is defined for undirected graphs without repeated edges, so directions and repetitions are
    dropped first, as the implementation of its authors in DGL does; a self-loop is one entry.

    Source: Platonov et al. 2023, Characterizing Graph Datasets for Node Classification:
    Homophily-Heterophily Dichotomy and Beyond.

    Args:
        edge_index: `[2, edges]`, integer.
        y: `[nodes]`, integer; nodes labelled -1 are left out with their edges.

    Returns:
        A number of at most 1; `nan` without edges, or where all of them are in one class.

    Example:
        >>> adjusted_homophily(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1, 0]))
        -1.0
    """
    return _adjusted(_mixing(edge_index, y))


def label_informativeness(edge_index: Tensor, y: Tensor) -> float:
    """Return how much of a label's uncertainty the label of a neighbour removes.

    With (ξ, η) the ends of an edge drawn uniformly, I mutual information and H entropy, this is
    LI_edge = I(y_ξ, y_η) / H(y_ξ) = 2 - H(y_ξ, y_η) / H(y_ξ). It is 0 where neighbours tell
    nothing and 1 where they decide, be it by likeness or by difference. Directions and repetitions
    of edges are dropped first, as for `adjusted_homophily`.

    Source: Platonov et al. 2023, Characterizing Graph Datasets for Node Classification:
    Homophily-Heterophily Dichotomy and Beyond.

    Args:
        edge_index: `[2, edges]`, integer.
        y: `[nodes]`, integer; nodes labelled -1 are left out with their edges.

    Returns:
        A number in [0, 1]; `nan` without edges, or where all of them are in one class.

    Example:
        >>> label_informativeness(torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1, 0]))
        1.0
    """
    return _informativeness(_mixing(edge_index, y))


def _adjusted(mixing: Tensor) -> float:
    by_chance = float(mixing.sum(0).square().sum())
    return (float(mixing.trace()) - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def _informativeness(mixing: Tensor) -> float:
    entropy = float(torch.special.entr(mixing.sum(0)).sum())
    if entropy == 0:
        return math.nan
    return max(0.0, 2 - float(torch.special.entr(mixing).sum()) / entropy)  # never -1e-16


def _mixing(edge_index: Tensor, y: Tensor) -> Tensor:
    """Return `[classes, classes]`: the shares of edges between classes, each edge both ways."""
    edge_index, y = _labelled(edge_index, y)
    if edge_index.size(1) == 0:
        return torch.ones(1, 1, dtype=torch.float64)  # where both measures are not defined, either
    edge_index = to_undirected(edge_index, num_nodes=y.numel())
    classes = int(y.max()) + 1
    pairs = y[edge_index[0]] * classes + y[edge_index[1]]
    counts = torch.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts.double() / edge_index.size(1)


def _labelled(edge_index: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the graph of the labelled nodes."""
    labelled = y >= 0
    if labelled.all():
        return edge_index, y
    edge_index, _ = subgraph(labelled, edge_index, relabel_nodes=True, num_nodes=y.numel())
    return edge_index, y[labelled]
