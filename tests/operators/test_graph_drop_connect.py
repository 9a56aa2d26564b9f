"""Graph DropConnect: relaxed coins for edges and blocks of channels, at rates that are learnt."""

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.operators.graph_drop_connect import GraphDropConnect

NAME = "graph-drop-connect"
GRAPHS = {
    "undirected": [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]],
    "loops": [[0, 1, 1, 2], [0, 1, 0, 2]],
    "duplicates": [[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]],
    "empty": [[], []],
}


def keeps(edges: Tensor, coins: Any, p: float, seed: int, layer: int, blocks: int) -> Tensor:
    """Return whether the coins at rate p keep, by the integer reference."""
    coin = coins(NAME, p, seed, layer)
    kept = [
        [coin.edge(edges, edge, False, block) for block in range(blocks)]
        for edge in range(edges.size(1))
    ]
    return torch.tensor(kept, dtype=torch.bool).view(-1, blocks)


def numbers(edges: Tensor, coins: Any, seed: int, layer: int, blocks: int) -> Tensor:
    """Return the uniform numbers of coins, by bisecting the rates at which they are dropped."""
    low = torch.zeros(edges.size(1), blocks, dtype=torch.float64)
    for bit in range(1, 25):
        step = low + 2.0**-bit
        for edge in range(edges.size(1)):
            for block in range(blocks):
                coin = coins(NAME, float(step[edge, block]), seed, layer)
                if coin.edge(edges, edge, False, block):
                    low[edge, block] = step[edge, block]
    return (torch.floor(low * 2**23) + 0.5) / 2**23


def factors(uniform: Tensor, p: Tensor | float, temperature: float) -> Tensor:
    p = torch.as_tensor(p, dtype=torch.float64)
    return torch.sigmoid((uniform.logit() - p.logit()) / temperature) / (1 - p)


@pytest.mark.parametrize("kind", ["gcn", "gat", "sage", "sub-gcn"])
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_against_a_reference(case: Any, coins: Any, kind: str, graph: str, blocks: int) -> None:
    """Blocks may be cut within heads, and need not divide the channels; no path differs."""
    torch.manual_seed(0)
    gcn = type("Gcn", (pyg.GCNConv,), {})  # another type: PyG's own path
    edge_index = torch.tensor(GRAPHS[graph], dtype=torch.int64).view(2, -1)
    channels = 12
    if kind == "gat":
        layer = pyg.GATConv(5, 4, heads=3, bias=False).double()
        _, (edges, weight) = layer(case.x, edge_index, return_attention_weights=True)
        weight, values = weight.repeat_interleave(4, 1), layer.lin(case.x)
    elif kind == "sage":
        layer = pyg.SAGEConv(5, 3, root_weight=False, bias=False).double()
        channels, edges, values = 5, edge_index, case.x
        weight = (1 / edges[1].bincount(minlength=7).double())[edges[1]][:, None]
    else:
        layer = (pyg.GCNConv if kind == "gcn" else gcn)(5, 12, bias=False).double()
        edges, weight = pyg.conv.gcn_conv.gcn_norm(edge_index, None, 7, dtype=torch.float64)
        weight, values = weight[:, None], layer.lin(case.x)
    block = torch.arange(channels) * blocks // channels
    factor = factors(numbers(edges, coins, 3, 0, blocks), 0.3, 0.67)[:, block]
    messages = weight * factor * values[edges[0]]
    expected = torch.zeros(7, channels, dtype=torch.float64).index_add_(0, edges[1], messages)
    expected = layer.lin_l(expected) if kind == "sage" else expected
    operator = GraphDropConnect(p=0.3, blocks=blocks).double()
    with attach(layer, operator) as handle:
        handle.operator.start_pass(3)
        out = layer(case.x, edge_index)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-7)


def test_at_a_low_temperature_it_is_edge_dropout_by_blocks(coins: Any) -> None:
    edges = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 0]])
    operator = GraphDropConnect(p=0.4, temperature=1e-4, rescale="none").start_pass(5)
    out = operator(torch.ones(5, 6), edges)
    kept = keeps(edges, coins, 0.4, 5, 0, 2)
    assert torch.equal(out.round(), kept.repeat_interleave(3, 1).float())


def test_rates_are_learnt_by_layer_and_block(case: Any) -> None:
    """Gradients reach the rates of the layers that act alone, and agree with differences."""
    operator = GraphDropConnect(p=0.4).double()
    model = case.model
    with attach(model, operator) as handle:

        def loss() -> Tensor:
            handle.operator.start_pass(2)
            out = model(case.x, case.edge_index).square().sum() + operator.regularization()
            handle.operator.end_pass()
            result: Tensor = out
            return result

        (gradient,) = torch.autograd.grad(loss(), operator.logit)
        assert bool((gradient[:2] != 0).all())
        assert bool((gradient[2:] == 0).all())
        with torch.no_grad():
            for layer, block in ((0, 0), (1, 1)):
                ends = []
                for step in (1e-6, -2e-6):
                    operator.logit[layer, block] += step
                    ends.append(loss())
                operator.logit[layer, block] += 1e-6
                difference = (ends[0] - ends[1]) / 2e-6
                torch.testing.assert_close(difference, gradient[layer, block], rtol=1e-5, atol=0)


def test_the_regularizer_is_the_negative_entropy_of_what_acted(case: Any) -> None:
    operator = GraphDropConnect(p=0.3, strength=0.5)
    assert float(operator.regularization().detach()) == 0
    case.run(operator, 0)
    p = torch.tensor(0.3)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    torch.testing.assert_close(operator.regularization(), -0.5 * 4 * entropy)


def test_at_p_one_there_is_no_rate_to_regularize(case: Any) -> None:
    operator = GraphDropConnect(p=1.0)
    case.run(operator, 0)
    assert float(operator.regularization()) == 0


def test_evaluation_is_clean_and_p_one_gives_zeros(case: Any) -> None:
    layer = pyg.GCNConv(5, 4, bias=False).double()
    before = layer(case.x, case.edge_index)
    for p in (0.5, 1.0):
        with attach(layer, GraphDropConnect(p=p)):
            layer.eval()
            assert torch.equal(layer(case.x, case.edge_index), before)
            layer.train()
            out = layer(case.x, case.edge_index)
            assert bool((out == 0).all()) == (p == 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": 0}, "blocks must be 1 or more, got 0"),
        ({"blocks": 1.5}, "blocks must be 1 or more, got 1.5"),
        ({"max_layers": 1.5}, "max_layers must be 1 or more, got 1.5"),
        ({"max_layers": 0}, "max_layers must be 1 or more, got 0"),
        ({"temperature": 0.0}, "temperature must be above 0 and finite, got 0"),
        ({"strength": -1.0}, "strength must be 0 or more, got -1"),
    ],
)
def test_other_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        GraphDropConnect(**options)


def test_more_layers_than_rates_are_refused(case: Any) -> None:
    with pytest.raises(ParameterError, match="max_layers must be above the number of layers, got"):
        case.run(GraphDropConnect(max_layers=1), 0)
