"""Four measures of homophily against independent references and published values."""

import math
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.utils import to_undirected

from gnndrop.datasets import Homophily, homophily, load

NAN = (math.nan,) * 4


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
    mixing = one_hot.T @ adjacency @ one_hot / edges
    chance = mixing.sum(0) @ mixing.sum(1)
    if chance < 1:
        assert h.adjusted == pytest.approx((np.trace(mixing) - chance) / (1 - chance))
    else:
        assert math.isnan(h.adjusted)

    classes = one_hot.shape[1]
    if classes > 1:
        inside = (one_hot.T @ (adjacency * same) @ np.ones(len(y))) / np.maximum(
            one_hot.T @ degree, 1
        )
        excess = np.maximum(inside - one_hot.mean(0), 0).sum() / (classes - 1)
        assert h.edge_insensitive == pytest.approx(excess, abs=1e-6)
    else:
        assert math.isnan(h.edge_insensitive)


@given(labelled_graphs())
def test_adjusted_is_the_assortativity_coefficient(graph: tuple[Tensor, Tensor]) -> None:
    edge_index, y = graph
    if len(y[edge_index].unique()) == 1:
        return  # networkx divides by zero
    directed = nx.DiGraph(edge_index.t().tolist())
    nx.set_node_attributes(directed, dict(enumerate(y.tolist())), "y")
    try:
        expected = nx.attribute_assortativity_coefficient(directed, "y")
    except ZeroDivisionError:
        return
    if np.isfinite(expected):
        assert homophily(edge_index, y).adjusted == pytest.approx(expected)


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
        [one.edge, one.node, one.adjusted, one.edge_insensitive],
        [other.edge, other.node, other.adjusted, other.edge_insensitive],
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


@pytest.mark.parametrize(
    ("name", "edge", "edge_insensitive", "adjusted", "homophilous"),
    [
        # The first two as PyG measures them, adjusted as Platonov et al. (2023) publish it.
        ("cora", 0.810, 0.766, 0.77, True),
        ("chameleon-filtered", 0.236, 0.044, 0.03, False),
        ("texas", 0.108, 0.000, None, False),
    ],
)
def test_published_values(
    name: str,
    edge: float,
    edge_insensitive: float,
    adjusted: float | None,
    homophilous: bool,
    root_with: Callable[[str], Path],
) -> None:
    h = load(name, root_with(name)).homophily
    assert h.edge == pytest.approx(edge, abs=5e-4)
    assert h.edge_insensitive == pytest.approx(edge_insensitive, abs=5e-4)
    assert adjusted is None or h.adjusted == pytest.approx(adjusted, abs=5e-3)
    assert h.is_homophilous == homophilous


def test_published_values_of_minesweeper(data_root: Path) -> None:
    file = data_root / "HeterophilousGraphDataset/minesweeper/raw/minesweeper.npz"
    if not file.is_file():
        pytest.skip(f"GNNDROP_DATA lacks {file}")
    with np.load(file) as arrays:
        edge_index = to_undirected(torch.from_numpy(arrays["edges"]).t().contiguous())
        h = homophily(edge_index, torch.from_numpy(arrays["node_labels"]))
    assert h.edge == pytest.approx(0.683, abs=5e-4)
    assert h.adjusted == pytest.approx(0.01, abs=5e-3)
    assert h.edge_insensitive == pytest.approx(0.009, abs=5e-4)
    assert not h.is_homophilous
