"""Generated graphs follow the models that their docstrings state."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch_geometric.data import Data
from torch_geometric.utils import contains_isolated_nodes, contains_self_loops, to_dense_adj

from gnndrop.datasets import load, make_csbm, make_minesweeper
from gnndrop.errors import ParameterError

SIGMAS = 5


def is_simple(data: Data) -> bool:
    return bool(
        data.is_undirected() and data.is_coalesced() and not contains_self_loops(data.edge_index)
    )


# The contextual stochastic block model


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(40, 300),
    classes=st.integers(2, 6),
    homophily=st.floats(0, 1),
    degree=st.floats(1, 5),
    seed=st.integers(0, 10**6),
)
def test_csbm_has_the_degree_and_homophily_asked_for(
    nodes: int, classes: int, homophily: float, degree: float, seed: int
) -> None:
    data = make_csbm(nodes, classes, homophily, degree, features=2, seed=seed)
    sizes = data.y.bincount()
    assert is_simple(data)
    assert int(sizes.sum()) == nodes
    assert int(sizes.max() - sizes.min()) <= 1
    # Numbers of edges are sums of independent coins, so their variance is at most their mean. With
    # hundreds of draws per run the bound is 7 standard deviations, and room for small means.
    same = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    for found, share in ((same, homophily), (~same, 1 - homophily)):
        expected = share * nodes * degree / 2
        assert abs(int(found.sum()) / 2 - expected) <= 7 * max(expected, 1) ** 0.5 + 7


@pytest.mark.parametrize("homophily", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_csbm_homophily_is_within_its_stated_error(homophily: float) -> None:
    data = make_csbm(homophily=homophily, seed=11)
    same = data.y[data.edge_index[0]] == data.y[data.edge_index[1]]
    deviation = (homophily * (1 - homophily) / (data.num_edges / 2)) ** 0.5
    assert abs(float(same.double().mean()) - homophily) <= SIGMAS * deviation + 1e-12


def test_csbm_joins_every_pair_of_a_kind_equally_often() -> None:
    draws = 400
    adjacency = sum(
        to_dense_adj(make_csbm(12, 2, 0.7, 4, 1, seed=seed).edge_index, max_num_nodes=12)[0]
        for seed in range(draws)
    )
    assert isinstance(adjacency, torch.Tensor)
    y = make_csbm(12, 2, 0.7, 4, 1).y
    rates = adjacency.double() / draws
    inside = (y[:, None] == y) & ~torch.eye(12, dtype=torch.bool)
    for pairs, edges, total in ((inside, 0.7 * 24, 30), (y[:, None] != y, 0.3 * 24, 36)):
        rate = edges / total
        bound = SIGMAS * (rate * (1 - rate) / draws) ** 0.5
        assert float((rates[pairs] - rate).abs().max()) <= bound


@pytest.mark.parametrize("signal", [0.0, 1.5, 4.0])
def test_csbm_features_are_class_means_and_unit_noise(signal: float) -> None:
    nodes, classes, features = 4000, 4, 50
    data = make_csbm(nodes, classes, 0.5, 2, features, signal, seed=7)
    x = data.x.double()
    members = nodes // classes
    means = torch.stack([x[data.y == label].mean(dim=0) for label in range(classes)])
    noise = x - means[data.y]
    degrees_of_freedom = (nodes - classes) * features
    variance = float((noise**2).sum()) / degrees_of_freedom
    assert abs(variance - 1) <= SIGMAS * (2 / degrees_of_freedom) ** 0.5
    # |mean|^2 is signal^2 plus noise: chi-square over members, with a cross term.
    lengths = (means**2).sum(dim=1) - features / members
    deviation = (2 * features + 4 * signal**2 * members) ** 0.5 / members
    assert float((lengths - signal**2).abs().max()) <= SIGMAS * deviation
    assert float(noise.T.cov().fill_diagonal_(0).abs().max()) <= 6 / nodes**0.5


def test_csbm_without_edges() -> None:
    data = make_csbm(nodes=10, classes=2, degree=0)
    assert data.edge_index.shape == (2, 0)
    assert data.num_nodes == 10


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("option", ["degree", "signal"])
def test_csbm_takes_finite_numbers(option: str, value: float) -> None:
    with pytest.raises(ParameterError, match="degree and signal must be finite and at least 0"):
        make_csbm(nodes=10, classes=2, homophily=0.0, **{option: value})


@pytest.mark.usefixtures("generators_untouched")
def test_csbm_is_its_seed() -> None:
    first, again, other = (make_csbm(nodes=80, classes=2, seed=seed) for seed in (4, 4, 5))
    assert all(torch.equal(first[key], again[key]) for key in ("x", "edge_index", "y"))
    assert not torch.equal(first.x, other.x)
    assert not torch.equal(first.edge_index, other.edge_index)


def test_the_csbm_pair_tells_graphs_that_help_from_graphs_that_hurt() -> None:
    accuracy = {}
    for name in ("csbm-homophilous", "csbm-heterophilous"):
        dataset = load(name)
        data = dataset.data
        adjacency = to_dense_adj(data.edge_index, max_num_nodes=data.num_nodes)[0]
        adjacency += torch.eye(data.num_nodes)
        walk = adjacency / adjacency.sum(dim=1, keepdim=True)
        for view, x in (("alone", data.x), ("smoothed", walk @ walk @ data.x)):
            scores = []
            for split in dataset.splits[:3]:
                model = LogisticRegression(max_iter=2000)
                model.fit(x[split.train].numpy(), data.y[split.train].numpy())
                scores.append(model.score(x[split.test].numpy(), data.y[split.test].numpy()))
            accuracy[name, view] = float(np.mean(scores))
    # 200 test nodes, three splits: a standard error below 0.03.
    assert 0.4 < accuracy["csbm-homophilous", "alone"] < 0.75
    assert (
        accuracy["csbm-homophilous", "alone"] + 0.15
        < accuracy["csbm-homophilous", "smoothed"]
        < 0.99
    )
    assert (
        accuracy["csbm-heterophilous", "smoothed"] + 0.15 < accuracy["csbm-heterophilous", "alone"]
    )


# Minesweeper


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(2, 9),
    height=st.integers(2, 9),
    mines=st.floats(0, 1),
    hidden=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_minesweeper_follows_the_rules_of_the_game(
    width: int, height: int, mines: float, hidden: float, seed: int
) -> None:
    data = make_minesweeper(width, height, mines, hidden, seed)
    assert is_simple(data)
    board = nx.strong_product(nx.path_graph(height), nx.path_graph(width))
    joined = {(a * width + b, c * width + d) for (a, b), (c, d) in board.to_directed().edges}
    assert set(map(tuple, data.edge_index.t().tolist())) == joined
    assert int(data.y.sum()) == round(mines * width * height)
    assert int(data.x[:, 0].sum()) == round(hidden * width * height)
    for row in range(height):
        for column in range(width):
            cell = row * width + column
            around = [a * width + b for a, b in board[row, column]]
            count = sum(int(data.y[other]) for other in around)
            shown = int(data.x[cell].argmax())
            assert float(data.x[cell].sum()) == 1
            assert shown in (0, 1 + min(count, 5))


def test_minesweeper_at_the_published_size_has_the_published_counts() -> None:
    data = make_minesweeper(100, 100)
    assert (data.num_nodes, data.num_edges, data.num_features) == (10_000, 78_804, 7)
    assert int(data.y.sum()) == 2_000
    assert int(data.x[:, 0].sum()) == 5_000


@pytest.mark.usefixtures("generators_untouched")
def test_minesweeper_is_its_seed() -> None:
    first, again, other = (make_minesweeper(9, 9, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.y, again.y)
    assert not torch.equal(first.y, other.y)


def test_minesweeper_hides_mines_and_free_cells_alike() -> None:
    data = make_minesweeper(100, 100, seed=3)
    hidden_mines = float(data.x[data.y == 1, 0].mean())
    # Hypergeometric: 2000 of 10000 cells, half of which are hidden.
    assert abs(hidden_mines - 0.5) <= SIGMAS * (0.25 / 2000) ** 0.5


# Embedded graphs


@pytest.mark.parametrize(("labels", "sizes"), [("club", [17, 17]), ("communities", [13, 4, 12, 5])])
def test_karate_is_zacharys(labels: str, sizes: list[int]) -> None:
    data = load(f"karate:labels={labels}").data
    assert is_simple(data)
    ours = nx.Graph(data.edge_index.t().tolist())
    assert nx.utils.graphs_equal(ours, nx.Graph(nx.karate_club_graph().edges()))
    assert sorted(data.y.bincount().tolist()) == sorted(sizes)


@pytest.mark.parametrize("k", [1, 5])
def test_digits_are_joined_to_their_nearest(k: int) -> None:
    data = load(f"digits:k={k}").data
    pixels, labels = load_digits(return_X_y=True)
    assert is_simple(data)
    assert not contains_isolated_nodes(data.edge_index, data.num_nodes)
    assert torch.equal(data.y, torch.from_numpy(labels))
    assert data.x.min() == 0
    assert data.x.max() == 1
    distances = ((pixels[:, None, :].astype(np.int16) - pixels[None].astype(np.int16)) ** 2).sum(2)
    neighbours = np.zeros_like(distances, dtype=bool)
    order = np.lexsort((np.broadcast_to(np.arange(1797), distances.shape), distances))
    for node in range(1797):
        nearest = [other for other in order[node] if other != node][:k]
        neighbours[node, nearest] = True
    expected = neighbours | neighbours.T
    assert (to_dense_adj(data.edge_index)[0].bool().numpy() == expected).all()


@pytest.mark.parametrize("make", [make_csbm, make_minesweeper])
def test_bad_seeds_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ParameterError, match="seed must be at least 0, got -1"):
        make(seed=-1)
