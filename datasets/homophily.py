"""How often neighbours share a label: four measures of homophily."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch_geometric.utils import homophily as pyg_homophily
from torch_geometric.utils import subgraph

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

    Example:
        >>> Homophily(edge=0.81, node=0.83, adjusted=0.77, edge_insensitive=0.77).is_homophilous
        True
    """

    edge: float
    node: float
    adjusted: float
    edge_insensitive: float

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

    With e_kl the share of edges from class k to class l, a_k = Σ_l e_kl and b_k = Σ_l e_lk:

        edge     = Σ_k e_kk
        adjusted = (Σ_k e_kk - Σ_k a_k b_k) / (1 - Σ_k a_k b_k)

    On an undirected graph a_k = b_k = D_k / 2|E|, the form of Platonov et al. (2023,
    "Characterizing Graph Datasets for Node Classification: Homophily-Heterophily Dichotomy and
    Beyond"); on a directed one it is Newman's assortativity coefficient (2003). `edge`, `node`
    and `edge_insensitive` are those of `torch_geometric.utils.homophily`.

    Args:
        edge_index: `[2, edges]`, integer; an undirected edge is two columns.
        y: `[nodes]`, integer; nodes labelled -1 are left out with their edges.

    Returns:
        The four measures; a measure that is not defined is `nan`.

    Example:
        >>> edge_index = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])
        >>> h = homophily(edge_index, torch.tensor([0, 0, 1, 1]))
        >>> round(h.edge, 3), round(h.node, 3), round(h.adjusted, 3), round(h.edge_insensitive, 3)
        (0.667, 0.75, 0.333, 0.333)
    """
    labelled = y >= 0
    edge_index, _ = subgraph(labelled, edge_index, relabel_nodes=True, num_nodes=y.numel())
    y = y[labelled]
    if edge_index.size(1) == 0:
        return Homophily(math.nan, math.nan, math.nan, math.nan)
    return Homophily(
        edge=pyg_homophily(edge_index, y, method="edge"),
        node=pyg_homophily(edge_index, y, method="node"),
        adjusted=_adjusted(edge_index, y),
        # PyG refuses a single class.
        edge_insensitive=pyg_homophily(edge_index, y, method="edge_insensitive")
        if int(y.max()) > 0
        else math.nan,
    )


def _adjusted(edge_index: Tensor, y: Tensor) -> float:
    source, target = y[edge_index[0]], y[edge_index[1]]
    classes = int(y.max()) + 1
    out = torch.bincount(source, minlength=classes).double()
    into = torch.bincount(target, minlength=classes).double()
    by_chance = float(out @ into) / edge_index.size(1) ** 2
    same = int((source == target).sum()) / edge_index.size(1)
    return (same - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan
