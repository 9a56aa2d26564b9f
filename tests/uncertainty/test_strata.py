"""Strata, against PyG, networkx and loops over the nodes."""

import math

import networkx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.utils import homophily

from gnndrop.datasets import load
from gnndrop.errors import ParameterError
from gnndrop.uncertainty.strata import Strata, by_degree, by_distance, by_homophily, strata


@st.composite
def graphs(draw):
    """Draw directed graphs with self-loops, repeated edges, isolated and unlabelled nodes."""
    nodes = draw(st.integers(1, 9))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=20))
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T
    y = torch.tensor(draw(st.lists(st.integers(-1, 2), min_size=nodes, max_size=nodes)))
    train = torch.tensor(draw(st.lists(st.booleans(), min_size=nodes, max_size=nodes)))
    return edge_index, y, train


def names_of(groups):
    return [groups.names[number] for number in groups.group.tolist()]


def interval(share):
    bounds = ((0.25, "[0, 0.25)"), (0.5, "[0.25, 0.5)"), (0.75, "[0.5, 0.75)"))
    return next((name for end, name in bounds if share < end), "[0.75, 1]")


@given(graphs())
def test_homophily_by_a_loop_over_the_neighbours(graph):
    edge_index, y, _ = graph
    expected = []
    for node, label in enumerate(y.tolist()):
        labels = [int(y[a]) for a, b in edge_index.T.tolist() if b == node and y[a] >= 0]
        if label < 0:
            expected.append("unlabelled")
        elif labels:
            expected.append(interval(labels.count(label) / len(labels)))
        else:
            expected.append("isolated")
    assert names_of(by_homophily(edge_index, y)) == expected


def test_homophily_is_what_pyg_averages():
    """Of a graph whose nodes are all at 0, 1/2 or 1 the groups give the mean back."""
    edge_index = torch.tensor([[1, 2, 0, 3, 0, 2, 1], [0, 0, 1, 1, 2, 3, 3]])
    y = torch.tensor([0, 0, 1, 0, 1])
    share = {"[0, 0.25)": 0.0, "[0.5, 0.75)": 0.5, "[0.75, 1]": 1.0, "isolated": 0.0}
    found = [share[name] for name in names_of(by_homophily(edge_index, y))]
    assert sum(found) / 5 == pytest.approx(homophily(edge_index, y, method="node"))


@given(graphs())
def test_degree_by_counting(graph):
    edge_index, y, _ = graph
    groups = by_degree(edge_index, len(y))
    for node, name in enumerate(names_of(groups)):
        degree = edge_index[1].tolist().count(node)
        low, _, high = name.partition("-")
        assert int(low) <= degree <= int(high or low)
    assert groups.sizes()[-1] > 0


def test_degrees_on_the_powers_of_two():
    degrees = [0, 1, 2, 3, 4, 7, 8, 15, 16]
    targets = torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees))
    groups = by_degree(torch.stack([torch.zeros_like(targets), targets]), len(degrees))
    assert groups.names == ("0", "1", "2-3", "4-7", "8-15", "16-31")
    assert groups.group.tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 5]


@given(graphs())
def test_distance_is_networkx_breadth_first_search(graph):
    edge_index, _, train = graph
    plain = networkx.Graph()
    plain.add_nodes_from(range(len(train)))
    plain.add_edges_from(edge_index.T.tolist())
    sources = set(train.nonzero().flatten().tolist())
    found = networkx.multi_source_dijkstra_path_length(plain, sources) if sources else {}
    expected = [
        "3+" if found.get(node, 0) >= 3 else str(found.get(node, "unreachable"))
        for node in range(len(train))
    ]
    assert names_of(by_distance(edge_index, len(train), train)) == expected


@given(graphs())
def test_40_every_group_is_reported_with_its_size_and_the_small_are_not_ranked(graph):
    edge_index, y, train = graph
    found = strata(Data(edge_index=edge_index, y=y, num_nodes=len(y)), train)
    assert list(found) == ["homophily", "degree", "distance"]
    evaluated = ~train
    for groups in found.values():
        assert groups.group.dtype == torch.int64
        assert sum(groups.sizes()) == len(y)
        rows = groups.measure(lambda nodes: float(nodes.sum()), evaluated)
        assert tuple(row.nodes for row in rows) == groups.sizes(evaluated)
        assert sum(row.nodes for row in rows) == int(evaluated.sum())
        for row in rows:
            assert row.value == row.nodes or (row.nodes == 0 and math.isnan(row.value))
            assert not row.ranked


@pytest.mark.parametrize(("nodes", "ranked"), [(29, False), (30, True)])
def test_40_thirty_nodes_are_ranked(nodes, ranked):
    groups = Strata(("few", "none"), torch.zeros(40, dtype=torch.long))
    mask = torch.arange(40) < nodes
    few, none = groups.measure(lambda members: float(torch.equal(members, mask)), mask)
    assert (few.value, few.nodes, few.ranked) == (1.0, nodes, ranked)
    assert (none.nodes, none.ranked) == (0, False)


def test_measuring_does_not_change_the_groups():
    groups = Strata(("a", "b"), torch.tensor([0, 1, 1]))
    mask = torch.tensor([True, True, False])
    groups.measure(lambda nodes: 0.0, mask)
    assert groups.sizes() == (1, 2)
    assert mask.tolist() == [True, True, False]


def test_real_graphs_have_strata_and_their_accuracy(data_root):
    data = load("cora", root=data_root).data
    found = strata(data, data.train_mask)
    assert found["distance"].sizes()[0] == int(data.train_mask.sum())
    right = data.y == 3
    for groups in found.values():
        rows = groups.measure(lambda nodes: float(right[nodes].double().mean()), data.test_mask)
        whole = sum(row.nodes * row.value for row in rows if row.nodes) / 1000
        assert whole == pytest.approx(float(right[data.test_mask].double().mean()))


def test_labels_that_are_not_one_class_per_node_have_no_homophily():
    edge_index = torch.tensor([[0, 1], [1, 0]])
    train = torch.tensor([True, False])
    for y in (None, torch.zeros(2, 3), torch.zeros(2)):
        found = strata(Data(edge_index=edge_index, y=y, num_nodes=2), train)
        assert list(found) == ["degree", "distance"]


def test_what_is_no_graph_or_no_mask_is_refused():
    data = Data(edge_index=torch.tensor([[0, 1], [1, 0]]), num_nodes=2)
    for wrong in (torch.tensor([0, 1]), torch.tensor([True]), [[True, False]]):
        with pytest.raises(ParameterError, match="mask"):
            strata(data, wrong)
    with pytest.raises(ParameterError, match="edge_index"):
        strata(Data(x=torch.ones(2, 1)), torch.tensor([True, False]))
    groups = Strata(("a",), torch.tensor([0, 0]))
    with pytest.raises(ParameterError, match="mask"):
        groups.measure(lambda nodes: 0.0, torch.tensor([0, 1]))
