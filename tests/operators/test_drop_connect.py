"""DropConnect: one coin for every weight of a linear map."""

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop import models
from gnndrop.attach import attach
from gnndrop.errors import AttachError, ParameterError
from gnndrop.graph import to_csr
from gnndrop.operators.drop_connect import DropConnect


def masked(weight: Tensor, coin: Any, p: float) -> Tensor:
    """Mask weights of shape (outputs, inputs): the input is the row of the coins."""
    rows = [[coin(given, out) for given in range(weight.size(1))] for out in range(weight.size(0))]
    return weight * torch.tensor(rows) / (1 - p)


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_in_a_gcn(case: Any, coins: Any, p: float) -> None:
    """All nodes see the same masked weights; every layer has its own."""
    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense
    expected.layers = [
        (masked(weight, coins("drop-connect", p, 3, layer), p), bias)
        for layer, (weight, bias) in enumerate(expected.layers)
    ]
    expected = expected(case.x, lambda _: adjacency)
    torch.testing.assert_close(case.run(DropConnect(p=p), 3), expected)


def test_only_kept_weights_have_a_gradient_and_none_is_written(case: Any, coins: Any) -> None:
    layer = pyg.GCNConv(5, 4).double()
    before, version = layer.lin.weight.detach().clone(), layer.lin.weight._version
    parameters = list(layer.parameters())
    with attach(layer, "drop-connect:p=0.6") as handle:
        handle.operator.start_pass(1)
        out = layer(case.x, case.edge_index)
        assert all(a is b for a, b in zip(layer.parameters(), parameters, strict=True))
        out.sum().backward()
    kept = masked(torch.ones(4, 5), coins("drop-connect", 0.6, 1), 0.6) > 0
    assert torch.equal(layer.lin.weight.grad != 0, kept)
    assert torch.equal(layer.lin.weight, before)
    assert layer.lin.weight._version == version


def test_every_linear_map_of_a_layer_has_its_own_mask(case: Any, coins: Any) -> None:
    """An MLP inside of GIN too, and both maps of SAGE, in the order of their calls."""
    inner = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    layer = pyg.GINConv(inner).double()
    sums = case.x + case.matrix(case.edge_index) @ case.x
    hidden, last = (
        masked(linear.weight.detach(), coins("drop-connect", 0.5, 2, call=call), 0.5)
        for call, linear in enumerate((inner[0], inner[2]))
    )
    expected = (sums @ hidden.T + inner[0].bias).relu() @ last.T + inner[2].bias
    with attach(layer, "drop-connect") as handle:
        handle.operator.start_pass(2)
        torch.testing.assert_close(layer(case.x, case.edge_index), expected)


def test_a_shared_linear_map_is_masked_once(case: Any) -> None:
    """Nested calls would compound the rates: here the map is an attention layer's own child."""
    layer, seen = pyg.GCNConv(5, 5, bias=False).double(), []
    nn.init.ones_(layer.lin.weight)
    other = pyg.GCNConv(5, 5, bias=False).double()
    other.lin = layer.lin
    model = nn.ModuleList([layer, other])
    layer.lin.register_forward_hook(lambda module, *_: seen.append(module.weight))
    with attach(model, "drop-connect:p=0.5") as handle:
        for seed in range(20):
            handle.operator.start_pass(seed)
            other(layer(case.x, case.edge_index), case.edge_index)
            handle.operator.end_pass()
    weights = torch.stack(seen)
    assert set(weights.unique().tolist()) == {0.0, 2.0}
    number = weights.numel()
    assert abs(float((weights == 0).double().mean()) - 0.5) < 5 * 0.5 / number**0.5
    assert isinstance(layer.lin.weight, nn.Parameter)


def test_after_an_exception_the_parameters_are_back(case: Any) -> None:
    layer = pyg.GCNConv(5, 4).double()
    with attach(layer, "drop-connect"), pytest.raises(RuntimeError):
        layer(case.x[:, :2], case.edge_index)
    assert isinstance(layer.lin.weight, nn.Parameter)
    assert "weight" not in layer.lin.__dict__


def test_in_an_mlp_and_on_sparse_features() -> None:
    x = torch.eye(6)
    model = models.GCN(6, 4, 3)
    edges = torch.tensor([[0, 1], [1, 0]])
    outs = []
    with attach(model, "drop-connect") as handle:
        for features in (x, to_csr(x)):
            handle.operator.start_pass(0)
            outs.append(model(features, edges))
            handle.operator.end_pass()
    torch.testing.assert_close(*outs)
    with attach(models.MLP(6, 4, 3), "drop-connect") as handle:
        assert handle.layers == ("layers.0", "layers.1")


def test_other_places_are_refused() -> None:
    with pytest.raises(AttachError, match="needs a layer with linear maps, got SimpleConv"):
        attach(pyg.SimpleConv(), "drop-connect")
    with pytest.raises(ParameterError, match=r"shape \(outputs, inputs\), got \(3,\)"):
        DropConnect()(torch.ones(3))
    with pytest.raises(ParameterError, match="floating point weights"):
        DropConnect()(torch.ones(3, 2).long())
