"""Five measures of homophily against independent references and published values."""

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.utils import to_undirected

from gnndrop.datasets import (
    Homophily,
    adjusted_homophily,
    homophily,
    label_informativeness,
    load,
)

NAN = (math.nan,) * 5


@st.composite
def labelled_graphs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    nodes = draw(st.integers(2, 9))
    pairs = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    edges = draw(st.lists(pairs, min_size=1, max_size=25, unique=True))
    y = draw(st.lists(st.integers(0, 3), min_size=nodes, max_size=nodes))
    return torch.tensor(edges).t().contiguous(), torch.tensor(y)


@given(labelled_graphs())
def test_the_definitions_on_a_dense_matrix(graph: tuple[Tensor, Tensor]) -> None:
    edge_index, y = graph
    adjacency = np.zeros((len(y), len(y)))
    adjacency[edge_index[1], edge_index[0]] = 1  # row i: where messages to i come from
    same = np.equal.outer(y.numpy(), y.numpy())
    edges, degree = adjacency.sum(), adjacency.sum(1)
    h = homophily(edge_index, y)

    assert h.edge == pytest.approx((adjacency * same).sum() / edges)
    shares = (adjacency * same).sum(1) / np.maximum(degree, 1)
    assert h.node == pytest.approx(shares.mean(), abs=1e-6)

    one_hot = np.eye(int(y.max()) + 1)[y.numpy()]
    both_ways = np.maximum(adjacency, adjacency.T)
    mixing = one_hot.T @ both_ways @ one_hot / both_ways.sum()
    chance = (mixing.sum(0) ** 2).sum()
    if chance < 1:
        assert h.adjusted == pytest.approx((np.trace(mixing) - chance) / (1 - chance))
        assert h.label_informativeness == pytest.approx(informativeness(mixing), abs=1e-12)
    else:
        assert math.isnan(h.adjusted)
        assert math.isnan(h.label_informativeness)

    classes = one_hot.shape[1]
    if classes > 1:
        inside = (one_hot.T @ (adjacency * same) @ np.ones(len(y))) / np.maximum(
            one_hot.T @ degree, 1
        )
        excess = np.maximum(inside - one_hot.mean(0), 0).sum() / (classes - 1)
        assert h.edge_insensitive == pytest.approx(excess, abs=1e-6)
    else:
        assert math.isnan(h.edge_insensitive)


def informativeness(mixing: np.ndarray) -> float:
    """Return I(y, z) / H(y), term by term, from the joint distribution of the labels of an edge."""
    ends = mixing.sum(0)
    information = sum(
        p * math.log(p / (ends[k] * ends[m])) for (k, m), p in np.ndenumerate(mixing) if p > 0
    )
    return information / -sum(p * math.log(p) for p in ends if p > 0)


@given(labelled_graphs())
def test_adjusted_is_the_assortativity_coefficient(graph: tuple[Tensor, Tensor]) -> None:
    """Of the graph without directions; networkx counts the ends of a self-loop twice."""
    edge_index, y = graph
    edge_index = edge_index[:, edge_index[0] != edge_index[1]]
    if len(y[edge_index].unique()) < 2:
        return  # networkx divides by zero
    undirected = nx.Graph(edge_index.t().tolist())
    nx.set_node_attributes(undirected, dict(enumerate(y.tolist())), "y")
    expected = nx.attribute_assortativity_coefficient(undirected, "y")
    assert homophily(edge_index, y).adjusted == pytest.approx(expected)


@given(labelled_graphs())
def test_directions_and_repetitions_are_dropped(graph: tuple[Tensor, Tensor]) -> None:
    edge_index, y = graph
    simple = to_undirected(edge_index, num_nodes=len(y))
    for measure in (adjusted_homophily, label_informativeness):
        expected = measure(simple, y)
        for other in (edge_index, edge_index.flip(0), edge_index.repeat(1, 3)):
            assert measure(other, y) == pytest.approx(expected, nan_ok=True)


@given(labelled_graphs(), st.permutations(range(4)))
def test_the_names_of_the_classes_do_not_matter(
    graph: tuple[Tensor, Tensor], renamed: list[int]
) -> None:
    edge_index, y = graph
    h, other = homophily(edge_index, y), homophily(edge_index, torch.tensor(renamed)[y])
    assert other.adjusted == pytest.approx(h.adjusted, nan_ok=True)
    assert other.label_informativeness == pytest.approx(h.label_informativeness, nan_ok=True)


def test_the_values_of_the_authors_implementation() -> None:
    """The known answers in dgl's tests of `adjusted_homophily` and `edge_label_informativeness`.

    Their graphs are directed, their sums in float32.
    """
    adjusted = adjusted_homophily(
        torch.tensor([[1, 2, 0, 4], [0, 1, 2, 3]]), torch.tensor([0, 0, 0, 0, 1])
    )
    assert adjusted == pytest.approx(-0.1428571492433548, abs=1e-6)
    informative = label_informativeness(
        torch.tensor([[0, 1, 2, 2, 3, 4], [1, 2, 0, 3, 4, 5]]), torch.tensor([0, 0, 0, 0, 1, 1])
    )
    assert informative == pytest.approx(0.2517760099956565, abs=1e-6)


def test_strict_heterophily_is_informative() -> None:
    """A bipartite graph: labels never agree, and a neighbour's tells all."""
    h = homophily(torch.tensor([[0, 0, 1, 1], [2, 3, 2, 3]]), torch.tensor([0, 0, 1, 1]))
    assert (h.edge, h.adjusted, h.label_informativeness) == (0, -1, 1)
    assert not h.is_homophilous


def test_labels_apart_from_edges_tell_nothing() -> None:
    """Every pair of labels as often as chance has it: a complete graph with its self-loops."""
    nodes = torch.arange(6)
    h = homophily(torch.cartesian_prod(nodes, nodes).t(), nodes % 3)
    assert h.adjusted == pytest.approx(0, abs=1e-12)
    assert h.label_informativeness == pytest.approx(0, abs=1e-12)


@given(labelled_graphs())
def test_adjusted_on_undirected_graphs_is_that_of_its_paper(graph: tuple[Tensor, Tensor]) -> None:
    edge_index, y = graph
    edge_index = to_undirected(edge_index[:, edge_index[0] != edge_index[1]], num_nodes=len(y))
    if edge_index.size(1) == 0 or len(y[edge_index[0]].unique()) == 1:
        return
    degree = torch.bincount(edge_index[0], minlength=len(y))
    chance = sum((int(degree[y == k].sum()) / edge_index.size(1)) ** 2 for k in range(4))
    h = homophily(edge_index, y)
    assert h.adjusted == pytest.approx((h.edge - chance) / (1 - chance), abs=1e-6)


@given(labelled_graphs(), st.integers(0, 8))
def test_unlabelled_nodes_leave_with_their_edges(graph: tuple[Tensor, Tensor], index: int) -> None:
    edge_index, y = graph
    node = index % len(y)
    keep = [other for other in range(len(y)) if other != node]
    place = {old: new for new, old in enumerate(keep)}
    kept = [[place[a], place[b]] for a, b in edge_index.t().tolist() if node not in (a, b)]
    without = homophily(torch.tensor(kept, dtype=torch.long).reshape(-1, 2).t(), y[keep])
    y = y.clone()
    y[node] = -1
    assert same(homophily(edge_index, y), without)


def same(one: Homophily, other: Homophily) -> bool:
    return np.array_equal(
        list(asdict(one).values()),
        list(asdict(other).values()),
        equal_nan=True,
    )


@pytest.mark.parametrize(
    ("edges", "y"),
    [([], [0, 1]), ([], []), ([], [0]), ([[0, 1]], [-1, 1]), ([[0, 1]], [-1, -1])],
)
def test_nothing_to_measure_is_nan_without_a_warning(edges: list[list[int]], y: list[int]) -> None:
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    h = homophily(edge_index, torch.tensor(y, dtype=torch.long))
    assert same(h, Homophily(*NAN))
    assert not h.is_homophilous


def test_one_class_is_all_alike_but_not_beyond_chance() -> None:
    h = homophily(torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 0]))
    assert (h.edge, h.node) == (1, 1)
    assert math.isnan(h.adjusted)
    assert math.isnan(h.edge_insensitive)
    assert math.isnan(h.label_informativeness)


# Edge and class-insensitive homophily as PyG measures them, to three digits; adjusted homophily and
# label informativeness to two, from the table of Platonov et al.'s repository
# (yandex-research/heterophilous-graphs, README.md), those of cora and chameleon from their papers.
PUBLISHED = {
    "cora": (0.810, 0.766, 0.77, None, True),
    "citeseer": (0.736, 0.627, None, None, True),
    "pubmed": (0.802, 0.664, None, None, True),
    "photo": (0.827, 0.772, None, None, True),
    "cornell": (0.305, 0.062, None, None, False),
    "texas": (0.108, 0.000, None, None, False),
    "wisconsin": (0.196, 0.084, None, None, False),
    "actor": (0.219, 0.006, None, None, False),
    "chameleon-filtered": (0.236, 0.044, 0.03, None, False),
    "squirrel-filtered": (0.207, 0.040, None, None, False),
    "minesweeper": (0.683, 0.009, 0.01, 0.00, False),
    "tolokers": (0.595, 0.180, 0.09, 0.01, False),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name: str, root_with: Callable[[str], Path]) -> None:
    edge, edge_insensitive, adjusted, informative, homophilous = PUBLISHED[name]
    h = load(name, root_with(name)).homophily
    assert h.edge == pytest.approx(edge, abs=5e-4)
    assert h.edge_insensitive == pytest.approx(edge_insensitive, abs=5e-4)
    assert adjusted is None or h.adjusted == pytest.approx(adjusted, abs=5e-3)
    assert informative is None or h.label_informativeness == pytest.approx(informative, abs=5e-3)
    assert h.is_homophilous == homophilous
