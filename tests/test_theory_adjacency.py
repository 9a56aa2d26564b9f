"""The expected adjacencies agree with a plain sum over all masks; measurement tells mistakes."""

from collections.abc import Callable, Hashable, Iterator
from itertools import pairwise, product

import networkx as nx
import pytest
import torch
from torch import Tensor
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.masks import Mask, keep
from gnndrop.operators import DropEdge, DropMessage
from gnndrop.theory import measured_graphs
from gnndrop.theory.adjacency import (
    expected_power,
    hop_distance,
    neighbours,
    normalized,
    row_drop_agg,
    row_drop_edge,
    row_remove_node,
    sensitivity,
    symmetric_drop_edge,
)
from gnndrop.theory.measured_graphs import measure_adjacency, measure_definitions

NODES = 6  # the last one is isolated
PAIRS = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4)]
UNDIRECTED = torch.tensor(PAIRS + [(b, a) for a, b in PAIRS]).T
DIRECTED = torch.tensor([(0, 1), (1, 0), (0, 2), (1, 2), (3, 2), (2, 4), (4, 4)]).T  # and a loop
RATES = (0.0, 0.3, 0.8, 1.0)
Coins = Callable[[int, int], set[Hashable]]


def one_coin(source: int, target: int) -> set[Hashable]:
    return {frozenset((source, target))}


def two_coins(source: int, target: int) -> set[Hashable]:
    return {(source, target)}


def of_target(source: int, target: int) -> set[Hashable]:
    return {target}


def of_both_ends(source: int, target: int) -> set[Hashable]:
    return {source, target}


def adjacencies(edge_index: Tensor, p: float, coins: Coins, norm: str) -> Iterator[Tensor]:
    """Yield every normalized adjacency together with its probability, as one (N + 1, N) matrix."""
    edges = [(a, b) for a, b in edge_index.T.tolist() if a != b]
    names = list(dict.fromkeys(coin for edge in edges for coin in coins(*edge)))
    for outcome in product((0, 1), repeat=len(names)):
        kept = {name for name, keeps in zip(names, outcome, strict=True) if keeps}
        left = torch.tensor([edge for edge in edges if coins(*edge) <= kept]).view(-1, 2).T.long()
        matrix = torch.zeros(NODES, NODES, dtype=torch.float64)
        if norm == "symmetric":  # PyG's own
            ends, weight = gcn_norm(left, num_nodes=NODES, dtype=torch.float64)
            matrix[ends[1], ends[0]] = weight
        else:
            matrix[left[1], left[0]] = 1.0
            matrix = matrix + torch.eye(NODES)
            matrix = matrix / matrix.sum(1, keepdim=True)
        probability = (1 - p) ** len(kept) * p ** (len(names) - len(kept))
        yield torch.cat([matrix, torch.full((1, NODES), probability, dtype=torch.float64)])


def expectation(*case: object, depth: int = 1) -> Tensor:
    total = torch.zeros(NODES, NODES, dtype=torch.float64)
    for matrix in adjacencies(*case):  # type: ignore[arg-type]  # forwarded
        total += matrix[-1, 0] * torch.linalg.matrix_power(matrix[:-1], depth)
    return total


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize(
    ("edges", "theory", "coins"),
    [
        (UNDIRECTED, row_drop_edge, one_coin),
        (UNDIRECTED, row_drop_edge, two_coins),
        (DIRECTED, row_drop_edge, two_coins),
        (UNDIRECTED, row_drop_agg, of_target),
        (DIRECTED, row_drop_agg, of_target),
        (UNDIRECTED, row_remove_node, of_both_ends),
        (DIRECTED, row_remove_node, of_both_ends),
    ],
)
def test_rows(
    edges: Tensor, theory: Callable[[Graph, float], Tensor], coins: Coins, p: float
) -> None:
    found = theory(Graph(edges, NODES), p)
    torch.testing.assert_close(found, expectation(edges, p, coins, "row"))
    torch.testing.assert_close(found.sum(1), torch.ones(NODES, dtype=torch.float64))


@pytest.mark.parametrize("p", RATES)
@pytest.mark.parametrize(
    ("edges", "symmetric", "coins"),
    [
        (UNDIRECTED, None, one_coin),
        (UNDIRECTED, True, one_coin),
        (UNDIRECTED, False, two_coins),
        (DIRECTED, None, two_coins),
    ],
)
def test_symmetric(edges: Tensor, symmetric: bool | None, coins: Coins, p: float) -> None:
    found = symmetric_drop_edge(Graph(edges, NODES), p, symmetric)
    torch.testing.assert_close(found, expectation(edges, p, coins, "symmetric"))


@pytest.mark.parametrize("norm", ["row", "symmetric"])
@pytest.mark.parametrize(
    ("edges", "symmetric", "coins"),
    [(UNDIRECTED, None, one_coin), (UNDIRECTED, False, two_coins), (DIRECTED, None, two_coins)],
)
def test_power(edges: Tensor, symmetric: bool | None, coins: Coins, norm: str) -> None:
    found = expected_power(Graph(edges, NODES), 0.3, 3, norm, symmetric)  # type: ignore[arg-type]  # a literal
    torch.testing.assert_close(found, expectation(edges, 0.3, coins, norm, depth=3))


def test_a_shared_mask_has_another_expectation_than_fresh_ones() -> None:
    graph = Graph(UNDIRECTED, NODES)
    fresh = torch.linalg.matrix_power(row_drop_edge(graph, 0.5), 2)
    assert (expected_power(graph, 0.5, 2) - fresh).abs().max() > 0.05
    torch.testing.assert_close(expected_power(graph, 0.5, 1), row_drop_edge(graph, 0.5))


def test_hop_distance() -> None:
    for edges in (UNDIRECTED, DIRECTED):
        reference = nx.DiGraph(edges.T.tolist())
        reference.add_nodes_from(range(NODES))
        found = hop_distance(Graph(edges, NODES))
        lengths = dict(nx.all_pairs_shortest_path_length(reference))
        expected = [[lengths[j].get(i, -1) for j in range(NODES)] for i in range(NODES)]
        assert found.tolist() == expected


def test_sensitivity_falls_with_the_rate() -> None:
    graph = Graph(UNDIRECTED, NODES)
    distance = hop_distance(graph)
    for hops in (1, 2, 3):
        values = [
            sensitivity(row_drop_edge(graph, p), distance, hops) for p in (0, 0.2, 0.5, 0.9, 1)
        ]
        assert all(bool((more < less).all()) for less, more in pairwise(values))
        assert values[-1].abs().max() == 0


def test_refusals() -> None:
    with pytest.raises(ParameterError, match="without duplicate edges"):
        row_drop_edge(Graph(torch.tensor([[0, 0], [1, 1]])), 0.5)
    with pytest.raises(ParameterError, match="one set of nodes, got 2 sources and 3 targets"):
        neighbours(Graph(torch.tensor([[0, 1], [2, 2]]), 2, 3))
    with pytest.raises(ParameterError, match="got a directed one"):
        symmetric_drop_edge(Graph(DIRECTED, NODES), 0.5, symmetric=True)
    with pytest.raises(ParameterError, match="0 to 16 coins, got 17"):
        expected_power(Graph(torch.stack([torch.arange(17), torch.arange(17) + 1])), 0.5, 2)
    with pytest.raises(ParameterError, match="p must be in"):
        row_drop_edge(Graph(DIRECTED, NODES), 1.5)


@pytest.mark.parametrize("option", [{}, {"symmetric": False}, {"symmetric": True}])
def test_drop_edge_is_measured(
    option: dict[str, bool], monkeypatch: pytest.MonkeyPatch, generators_untouched: None
) -> None:
    monkeypatch.setattr(measured_graphs, "RATES", (0.3, 0.8))
    found = list(measure_adjacency(DropEdge(**option)))
    assert {one.quantity for one in found} == {
        "E[A] by rows",
        "E[A] symmetric",
        "E[A]^3, fresh masks",
        "E[A^3], a shared mask",
        "sensitivity 3 hops away",
    }
    assert all(one.passed for one in found)


def test_definitions_are_measured(generators_untouched: None) -> None:
    found = list(measure_definitions())
    assert len(found) == 8
    assert all(one.passed for one in found)


class ByTarget(DropEdge):
    """Drop-agg, from its definition."""

    name = "drop-agg"

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        return keep(mask, graph.target, graph.target)


class ByBothEnds(DropEdge):
    """Remove-node, from its definition."""

    name = "remove-node"

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        source, target = (keep(mask, end, end) for end in (graph.source, graph.target))
        return source & target


@pytest.mark.parametrize("operator", [ByTarget, ByBothEnds])
def test_operators_of_these_names_are_measured(
    operator: type[DropEdge], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(measure_adjacency(operator()))
    assert len(found) == 4
    assert all(one.passed for one in found)
    other = "remove-node" if operator.name == "drop-agg" else "drop-agg"
    monkeypatch.setattr(operator, "name", other)
    assert not any(one.passed for one in measure_adjacency(operator()))


def test_others_have_no_expected_adjacency() -> None:
    assert not list(measure_adjacency(DropMessage()))
    assert not list(measure_adjacency(DropEdge(rescale="inverse")))


def clean(graph: Graph, p: float, symmetric: bool | None = None) -> Tensor:
    loops = neighbours(graph) + torch.eye(graph.num_targets, dtype=torch.float64)
    return normalized(loops, "row")


def delta_method(graph: Graph, p: float, symmetric: bool | None = None) -> Tensor:
    """The mean degree in place of the degree: what the exact sum is not."""
    edges = (1 - p) * neighbours(graph)
    return normalized(edges + torch.eye(graph.num_targets, dtype=torch.float64), "symmetric")


def power_of_expectation(graph: Graph, p: float, depth: int, symmetric: bool | None) -> Tensor:
    return torch.linalg.matrix_power(row_drop_edge(graph, p), depth)


@pytest.mark.parametrize(
    ("name", "mistake", "quantity"),
    [
        ("row_drop_edge", clean, "E[A] by rows"),
        ("row_drop_edge", clean, "E[A]^3, fresh masks"),
        ("row_drop_edge", clean, "sensitivity 3 hops away"),
        ("symmetric_drop_edge", delta_method, "E[A] symmetric"),
        ("expected_power", power_of_expectation, "E[A^3], a shared mask"),
    ],
)
def test_measurement_tells_a_wrong_theory(
    name: str, mistake: object, quantity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured_graphs, name, mistake)
    monkeypatch.setattr(measured_graphs, "RATES", (0.5,))
    found = [one for one in measure_adjacency(DropEdge()) if one.quantity == quantity]
    assert found
    assert not any(one.passed for one in found)


def test_measurement_tells_drop_agg_from_remove_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_graphs, "row_drop_agg", row_remove_node)
    monkeypatch.setattr(measured_graphs, "row_remove_node", row_drop_agg)
    assert not any(one.passed for one in measure_definitions())
