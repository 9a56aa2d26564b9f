"""Contextual stochastic block models: random graphs whose homophily is chosen."""

from itertools import combinations_with_replacement
from math import inf

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.splits import Split, check_seed, random_splits
from gnndrop.errors import ParameterError


def make_csbm(
    nodes: int = 1000,
    classes: int = 5,
    homophily: float = 0.8,
    degree: float = 4.0,
    features: int = 256,
    signal: float = 2.0,
    seed: int = 0,
) -> Data:
    """Draw a graph from a contextual stochastic block model (Deshpande et al. 2018).

    Classes are of equal size to within one node. Each pair of nodes is joined independently, with
    probability p_in inside a class and p_out between classes:

        p_in = homophily * m / P_in,   p_out = (1 - homophily) * m / P_out,   m = nodes * degree / 2

    where P_in and P_out count the pairs of either kind. So m edges are expected, a share
    `homophily` of them inside a class; the share found scatters around it with a standard deviation
    of about sqrt(homophily * (1 - homophily) / m). At homophily = 1/classes edges tell nothing
    about labels. Features are x_i = signal * u_{y_i} + z_i with one random unit vector u_k per
    class and z_i ~ N(0, I): two means are about signal * sqrt(2) apart, in units of the noise.

    Deshpande et al. treat two classes; this is the same model for any number of them. At the
    defaults, with 20 training nodes per class, edges help and features alone do not suffice: a
    plain GCN classifies about 90 % of the test nodes, an MLP 44 %; at homophily 0.1 the MLP wins
    against the GCN's 24 %.

    Args:
        nodes: number of nodes, at least 2 per class.
        classes: number of classes, at least 2.
        homophily: expected edge homophily, in [0, 1].
        degree: expected degree, at least 0.
        features: number of features, at least 1.
        signal: length of the class means, at least 0.
        seed: at least 0; no global generator is used or changed.

    Returns:
        An undirected graph: `x` `[nodes, features]`, `edge_index` `[2, edges]` (two columns per
        edge), `y` `[nodes]`, sorted by class.

    Raises:
        ParameterError: if a value is out of its range, or the graph too small for that degree.

    Example:
        >>> data = make_csbm(nodes=100, classes=2, homophily=0.9, features=8, seed=1)
        >>> data.x.shape, data.is_undirected(), data.y.bincount().tolist()
        (torch.Size([100, 8]), True, [50, 50])
    """
    sizes, inside, between = _blocks(nodes, classes, homophily, degree, features, signal, seed)
    feature_generator, edge_generator = np.random.default_rng(seed).spawn(2)
    labels = np.repeat(np.arange(classes), sizes)
    means = feature_generator.standard_normal((classes, features))
    means *= signal / np.linalg.norm(means, axis=1, keepdims=True)
    x = means[labels] + feature_generator.standard_normal((nodes, features))
    edges = torch.from_numpy(_draw_edges(sizes, inside, between, edge_generator))
    return Data(
        x=torch.from_numpy(x).float(),
        edge_index=to_undirected(edges, num_nodes=nodes),
        y=torch.from_numpy(labels),
    )


def _draw_edges(
    sizes: list[int], inside: float, between: float, generator: np.random.Generator
) -> np.ndarray:
    """Return each edge once, `[2, edges]`.

    A block's number of edges is binomial, and given it every set of pairs is equally likely: time
    and memory go with the edges. (networkx visits all pairs, and divides by zero at tiny p.)
    """
    starts = np.cumsum([0, *sizes])
    edges = []
    for a, b in combinations_with_replacement(range(len(sizes)), 2):
        pairs = sizes[a] * (sizes[a] - 1) // 2 if a == b else sizes[a] * sizes[b]
        count = generator.binomial(pairs, inside if a == b else between)
        index = generator.choice(pairs, count, replace=False, shuffle=False)
        if a == b:  # pair (row, column) with column < row has the index row (row - 1) / 2 + column
            row = (1 + np.sqrt(1 + 8 * index)).astype(np.int64) // 2
            column = index - row * (row - 1) // 2
        else:
            row, column = np.divmod(index, sizes[b])
        edges.append(np.stack([starts[a] + row, starts[b] + column]))
    return np.concatenate(edges, axis=1)


def _blocks(
    nodes: int,
    classes: int,
    homophily: float,
    degree: float,
    features: int,
    signal: float,
    seed: int,
) -> tuple[list[int], float, float]:
    """Check the parameters; return the sizes of the classes, p_in and p_out."""
    if not 2 <= classes <= nodes / 2:
        raise ParameterError(
            f"classes must be at least 2 and have 2 nodes each, got {classes} for {nodes} nodes"
        )
    if not 0 <= homophily <= 1:
        raise ParameterError(f"homophily must be in [0, 1], got {homophily}")
    if not (0 <= degree < inf and 0 <= signal < inf):
        raise ParameterError(
            f"degree and signal must be finite and at least 0, got degree={degree}, signal={signal}"
        )
    if features < 1:
        raise ParameterError(f"features must be at least 1, got {features}")
    check_seed(seed)
    sizes = [nodes // classes + (label < nodes % classes) for label in range(classes)]
    pairs_inside = sum(size * (size - 1) // 2 for size in sizes)
    pairs_between = nodes * (nodes - 1) // 2 - pairs_inside
    inside = homophily * nodes * degree / 2 / pairs_inside
    between = (1 - homophily) * nodes * degree / 2 / pairs_between
    if max(inside, between) > 1:
        raise ParameterError(
            f"degree must leave probabilities of edges in [0, 1], got degree={degree} with "
            f"homophily={homophily} on {nodes} nodes in {classes} classes; lower it"
        )
    return sizes, inside, between


@DATASETS.register("csbm")
def csbm(
    nodes: int = 1000,
    classes: int = 5,
    homophily: float = 0.8,
    degree: float = 4.0,
    features: int = 256,
    signal: float = 2.0,
    splits: int = 1,
    seed: int = 0,
) -> Declaration:
    """Contextual stochastic block model, random: the options of `make_csbm`, and how many splits.

    The default is one fixed split, of which few nodes are for training, as on the citation graphs:
    there dropout has something to do, and seeds alone vary.
    """
    _blocks(nodes, classes, homophily, degree, features, signal, seed)
    if splits < 1:
        raise ParameterError(f"splits must be at least 1, got {splits}")

    def build(_: object) -> tuple[Data, list[Split]]:
        data = make_csbm(nodes, classes, homophily, degree, features, signal, seed)
        return data, random_splits(data.y, count=splits, train=0.1, val=0.3, seed=seed)

    return Declaration(
        build=build,
        nodes=nodes,
        edges=None,
        features=features,
        classes=classes,
        splits=splits,
        citation="Deshpande et al. 2018, Contextual Stochastic Block Models",
        licence="generated",
        note="generated from its seed; random splits 10/30/60, stratified by class",
        homophily=homophily,
    )


@DATASETS.register("csbm-homophilous")
def csbm_homophilous(seed: int = 0) -> Declaration:
    """Homophilous half of the default comparison: `csbm` at edge homophily 0.8."""
    return csbm(homophily=0.8, seed=seed)


@DATASETS.register("csbm-heterophilous")
def csbm_heterophilous(seed: int = 0) -> Declaration:
    """Heterophilous half of the default comparison: `csbm` at edge homophily 0.1."""
    return csbm(homophily=0.1, seed=seed)
