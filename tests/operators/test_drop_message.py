"""Message dropout: one coin for every edge and channel."""

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.operators.drop_message import DropMessage

LOOPS = torch.arange(7).repeat(2, 1)


def factors(edges: Tensor, columns: int, coin: Any, p: float) -> Tensor:
    """Return the factor of every entry of the messages."""
    kept = [
        [coin.edge(edges, edge, False, column) for column in range(columns)]
        for edge in range(edges.size(1))
    ]
    return torch.tensor(kept, dtype=torch.float64).view(-1, columns) / (1 - p)


def masked(edges: Tensor, weight: Tensor, factor: Tensor) -> Tensor:
    """Return the masked adjacency, one for each channel."""
    matrix = torch.zeros(7, 7, factor.size(1), dtype=torch.float64)
    return matrix.index_put_((edges[1], edges[0]), weight[:, None] * factor, accumulate=True)


@settings(deadline=None, max_examples=30)
@given(
    edges=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12),
    p=st.sampled_from([0.1, 0.5, 0.9]),
    seed=st.integers(0, 2**64),
)
def test_stand_alone(coins: Any, edges: list[tuple[int, int]], p: float, seed: int) -> None:
    edge_index = torch.tensor(edges, dtype=torch.int64).view(-1, 2).T
    messages = (1 + torch.rand(len(edges), 3, dtype=torch.float64)).requires_grad_()
    operator = DropMessage(p=p).start_pass(seed)
    for call in range(2):
        out = operator(messages, edge_index)
        factor = factors(edge_index, 3, coins("drop-message", p, seed, call=call), p)
        torch.testing.assert_close(out, messages * factor, rtol=1e-15, atol=0)
        (gradient,) = torch.autograd.grad(out.sum(), messages)
        torch.testing.assert_close(gradient, factor, rtol=1e-15, atol=0)


def test_without_edges_the_position_decides(coins: Any) -> None:
    coin = coins("drop-message", 0.5, 3)
    out = DropMessage().start_pass(3)(torch.ones(6, 4))
    kept = torch.tensor([[coin(row, column) for column in range(4)] for row in range(6)])
    assert torch.equal(out, kept * 2.0)


@pytest.mark.parametrize("p", [0.3, 0.8])
@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, coins: Any, p: float, share: str) -> None:
    """The messages carry the norm of the whole graph; those of self-loops are dropped alike."""
    clean = case.dense.normalized(case.matrix(case.edge_index))
    edges = clean.nonzero().T.flip(0)

    def adjacency(layer: int) -> Tensor:
        coin = coins("drop-message", p, 7, layer if share == "layer" else 0)
        factor = factors(edges, (6, 3)[layer], coin, p)
        return masked(edges, clean[edges[1], edges[0]], factor)

    expected = case.dense(case.x, adjacency)
    torch.testing.assert_close(case.run(DropMessage(p=p, share=share), 7), expected)


def test_in_attention_every_head_has_its_channels(case: Any, coins: Any) -> None:
    layer = pyg.GATConv(5, 4, heads=3, bias=False).double()
    _, (edges, alpha) = layer(case.x, case.edge_index, return_attention_weights=True)
    factor = factors(edges, 12, coins("drop-message", 0.4, 5), 0.4).view(-1, 3, 4)
    messages = alpha[:, :, None] * layer.lin(case.x).view(7, 3, 4)[edges[0]] * factor
    expected = torch.zeros(7, 3, 4, dtype=torch.float64).index_add_(0, edges[1], messages)
    with attach(layer, "drop-message:p=0.4") as handle:
        handle.operator.start_pass(5)
        torch.testing.assert_close(layer(case.x, case.edge_index), expected.flatten(1))


@pytest.mark.parametrize("share", ["layer", "forward"])
def test_every_step_of_a_propagation_has_its_mask(case: Any, coins: Any, share: str) -> None:
    layer = pyg.APPNP(K=4, alpha=0.2)
    clean = case.dense.normalized(case.matrix(case.edge_index))
    edges = clean.nonzero().T.flip(0)
    expected = case.x
    for step in range(4):
        coin = coins("drop-message", 0.5, 9, call=step if share == "layer" else 0)
        matrix = masked(edges, clean[edges[1], edges[0]], factors(edges, 5, coin, 0.5))
        expected = 0.8 * (matrix * expected[None]).sum(1) + 0.2 * case.x
    with attach(layer, DropMessage(share=share)) as handle:
        handle.operator.start_pass(9)
        torch.testing.assert_close(layer(case.x, case.edge_index), expected)


def test_under_a_maximum_a_dropped_entry_counts_as_zero(case: Any, coins: Any) -> None:
    layer = pyg.SimpleConv(aggr="max")
    x = case.x.abs() * -1  # so that a zero is the largest
    factor = factors(case.edge_index, 5, coins("drop-message", 0.5, 2), 0.5)
    expected = torch.zeros(7, 5, dtype=torch.float64)
    for node in range(6):  # node 6 has no edge
        into = case.edge_index[1] == node
        expected[node] = (x[case.edge_index[0]] * factor)[into].amax(0)
    with attach(layer, "drop-message") as handle:
        handle.operator.start_pass(2)
        torch.testing.assert_close(layer(x, case.edge_index), expected)
    assert bool((expected == 0).any())
    assert bool((expected < 0).any())


def test_other_values_are_refused() -> None:
    edge_index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ParameterError, match="one message per edge, got 3 messages for 2 edges"):
        DropMessage()(torch.ones(3, 2), edge_index)
    for arguments in [(torch.ones(2, 2).long(),), (torch.ones(2, 2).long(), edge_index)]:
        with pytest.raises(ParameterError, match=r"floating point messages, got torch\.int64"):
            DropMessage()(*arguments)
    with pytest.raises(ParameterError, match="share=forward needs a forward pass"):
        DropMessage(share="forward")(torch.ones(2, 2))
