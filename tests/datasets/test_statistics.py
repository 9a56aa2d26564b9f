"""What `describe` counts, against networkx and by hand."""

import json
import math

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data

from gnndrop.datasets import Dataset, describe, from_arrays, load


def dataset(edges: list[tuple[int, int]], y: list[int], x: torch.Tensor | None = None) -> Dataset:
    edge_index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).t()
    x = torch.ones(len(y), 1) if x is None else x
    return Dataset("graph", Data(x=x, edge_index=edge_index, y=torch.tensor(y)), [], "accuracy")


@given(st.integers(1, 8), st.data())
def test_counts_are_those_of_networkx(nodes: int, data: st.DataObject) -> None:
    ends = st.tuples(st.integers(0, nodes - 1), st.integers(0, nodes - 1))
    edges = data.draw(st.lists(ends, max_size=20))
    graph = nx.MultiDiGraph(edges)
    graph.add_nodes_from(range(nodes))
    found = describe(dataset(edges, [0] * nodes))
    degrees = sorted(degree for _, degree in graph.in_degree())
    alone = nx.Graph(graph)
    alone.remove_edges_from(list(nx.selfloop_edges(alone)))
    assert found.nodes == nodes
    assert found.edges == len(edges)
    assert found.self_loops == nx.number_of_selfloops(graph)
    assert found.repeated_edges == len(edges) - len(set(edges))
    assert found.isolated_nodes == nx.number_of_isolates(alone)
    assert found.components == nx.number_weakly_connected_components(graph)
    assert (found.degree.min, found.degree.max) == (degrees[0], degrees[-1])
    assert found.degree.median == degrees[(nodes - 1) // 2]
    assert found.degree.mean == pytest.approx(len(edges) / nodes)


@pytest.mark.parametrize(
    ("edges", "directed"),
    [([(0, 1), (1, 0)], False), ([(0, 1)], True), ([(0, 0)], False), ([], False)],
)
def test_a_graph_is_directed_where_a_reverse_is_missing(edges, directed):
    assert describe(dataset(edges, [0, 1])).directed == directed


def test_features_and_labels_by_hand():
    x = torch.tensor([[0.0, 1.0], [0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    found = describe(dataset([(0, 1)], [1, 0, 1, -1], x))
    assert (found.features, found.feature_density) == (2, 0.25)
    assert (found.classes, found.unlabelled) == ((1, 2), 1)


def test_the_side_of_the_divide_is_said_with_its_rule():
    assert describe(load("csbm-homophilous")).sentence.startswith("homophilous: adjusted homophily")
    assert describe(load("csbm-heterophilous")).sentence.endswith("below 0.3")
    lone = describe(dataset([], [0, 1]))
    assert lone.sentence.startswith("on no side")
    assert math.isnan(lone.homophily.edge)


def test_the_document_is_json_and_null_where_nothing_is_defined():
    document = describe(dataset([], [0, 1], torch.ones(2, 0))).to_dict()
    json.dumps(document, allow_nan=False)
    assert set(document["homophily"].values()) == {None}
    assert document["feature_density"] is None
    assert document["homophilous"] is False


def test_the_note_of_an_own_graph_is_told():
    own = from_arrays(None, [[0], [1]], [0, 1] * 10)
    assert "directed, kept so" in describe(own).note
