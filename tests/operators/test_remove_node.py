"""Node removal: one coin for every node, which all of its edges follow."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.operators import RemoveNode
from gnndrop.theory.measured_graphs import measure_adjacency

EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14)


def tensor(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).T


@settings(deadline=None, max_examples=60)
@given(edges=EDGES, p=st.sampled_from([0.1, 0.5, 0.9, 1.0]), seed=st.integers(0, 2**64))
def test_stand_alone(coins: Any, edges: list[tuple[int, int]], p: float, seed: int) -> None:
    """On any graph: empty, directed, with self-loops, duplicates and isolated nodes."""
    edge_index, weight = tensor(edges), torch.arange(1.0, len(edges) + 1)
    operator = RemoveNode(p).start_pass(seed)
    for call in range(2):
        coin = coins("remove-node", p, seed, call=call)
        stay = torch.tensor([a == b or (coin(a) and coin(b)) for a, b in edges], dtype=torch.bool)
        out, out_weight = operator(edge_index, weight)
        assert torch.equal(out, edge_index[:, stay])
        assert torch.equal(out_weight, weight[stay])


@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, coins: Any, share: Any) -> None:
    """A removed node has its own features, by the loop that the layer adds."""

    def adjacency(layer: int) -> Tensor:
        coin = coins("remove-node", 0.4, 7, layer if share == "layer" else 0)
        stays = torch.tensor([float(coin(node)) for node in range(7)], dtype=torch.float64)
        matrix = case.matrix(case.edge_index)
        kept = matrix * stays[:, None] * stays
        return case.dense.normalized(kept + (matrix - kept).diagonal().diag())

    torch.testing.assert_close(case.run(RemoveNode(0.4, share), 7), case.dense(case.x, adjacency))


def test_the_expected_adjacency_is_that_of_theory() -> None:
    measurements = list(measure_adjacency(RemoveNode()))
    assert len(measurements) == 4
    assert all(one.passed for one in measurements)


def test_the_mean_is_exact_in_float64() -> None:
    edge_index = torch.tensor([[0, 1], [1, 1]])
    assert RemoveNode(0.3).mean_factors(edge_index, 2).tolist() == [0.7**2, 1.0]
