"""Degree-aware edge dropout: the rate that a node's degree can bear."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.operators import DropEdge, DropSens, make_operator
from gnndrop.operators.drop_sens import sensitive_rate
from gnndrop.theory import row_drop_edge

EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14)
# Of the equation, tabulated to three decimals.
KNOWN = {
    0.8: {1: 0.200, 2: 0.306, 4: 0.455, 8: 0.621, 16: 0.764},
    0.95: {1: 0.050, 2: 0.092, 4: 0.167, 8: 0.286, 16: 0.444},
}


def tensor(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).T


def rate_by_bisection(degree: int, retain: float) -> float:
    """Solve d(1-c)(1-q) - q + q^(d+1) = 0 below the root 1, where it turns negative."""
    low, high = 0.0, 1.0
    for _ in range(60):
        q = (low + high) / 2
        value = math.fsum(q**k for k in range(1, degree + 1)) / max(degree, 1)
        low, high = (q, high) if value < 1 - retain else (low, q)
    return low


@pytest.mark.parametrize("retain", KNOWN)
def test_rates_of_degrees(retain: float) -> None:
    for degree, rate in KNOWN[retain].items():
        assert abs(sensitive_rate(degree, retain) - rate) < 5.1e-4
        q = sensitive_rate(degree, retain)
        assert abs(degree * (1 - retain) * (1 - q) - q + q ** (degree + 1)) < 1e-12
    assert sensitive_rate(0, retain) == 0
    assert sensitive_rate(5, 1.0) == 0
    assert sensitive_rate(5, 0.0) == 1
    assert 0.99 < sensitive_rate(5000, retain) < 1


@pytest.mark.parametrize("retain", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("degree", [1, 2, 5])
def test_it_keeps_the_fraction_that_it_says(degree: int, retain: float) -> None:
    """Of the weight that a node gives to its neighbours, in the mean."""
    star = Graph(torch.stack([torch.arange(1, degree + 1), torch.zeros(degree).long()]))
    expected = row_drop_edge(star, sensitive_rate(degree, retain))[0, 1:].sum()
    assert abs(float(expected) - retain * degree / (degree + 1)) < 1e-12


@settings(deadline=None, max_examples=60)
@given(
    edges=EDGES,
    p=st.sampled_from([0.1, 0.4, 0.9, 1.0]),
    retain=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    seed=st.integers(0, 2**64),
)
def test_stand_alone(
    coins: Any, edges: list[tuple[int, int]], p: float, retain: float, seed: int
) -> None:
    """Degrees count in-edges, duplicates too, but not self-loops, which stay."""
    edge_index, weight = tensor(edges), torch.arange(1.0, len(edges) + 1)
    out, out_weight = DropSens(p, retain=retain).start_pass(seed)(edge_index, weight)
    stay = []
    for place, (a, b) in enumerate(edges):
        degree = sum(target == b and source != b for source, target in edges)
        rate = min(p, rate_by_bisection(degree, retain)) if retain else p
        coin = coins("drop-sens", rate if retain < 1 else 0.0, seed)
        stay.append(a == b or coin.edge(edge_index, place, False))
    assert torch.equal(out, edge_index[:, torch.tensor(stay, dtype=torch.bool)])
    assert torch.equal(out_weight, weight[torch.tensor(stay, dtype=torch.bool)])


def test_in_a_gcn(case: Any, coins: Any) -> None:
    degrees = [2, 3, 3, 2, 2, 2, 0]

    def adjacency(layer: int) -> Tensor:
        stay = []
        for place, (a, b) in enumerate(case.edge_index.T.tolist()):
            rate = min(0.45, rate_by_bisection(degrees[b], 0.7))
            coin = coins("drop-sens", rate, 7, layer)
            stay.append(a == b or coin.edge(case.edge_index, place, False))
        return case.dense.normalized(case.matrix(case.edge_index[:, torch.tensor(stay)]))

    torch.testing.assert_close(
        case.run("drop-sens:p=0.45,retain=0.7", 7), case.dense(case.x, adjacency)
    )


def test_at_retain_zero_it_is_drop_edge_of_directed_coins() -> None:
    """Up to the name, which has coins of its own: the same rate for all edges."""
    edge_index = torch.randint(0, 50, (2, 400), generator=torch.Generator().manual_seed(0))
    means = DropSens(0.3, retain=0.0).mean_factors(edge_index, 50)
    torch.testing.assert_close(means, DropEdge(0.3).mean_factors(edge_index, 50))


def test_options() -> None:
    assert make_operator("drop-sens:retain=0.9").options == {
        "p": 0.5,
        "share": "layer",
        "retain": 0.9,
    }
    for retain in (-0.1, 1.5, math.nan, True):
        with pytest.raises(ParameterError, match=r"retain must be a fraction in \[0, 1\]"):
            DropSens(retain=retain)
