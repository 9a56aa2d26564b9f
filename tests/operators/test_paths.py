"""Stochastic depth and SkipNode: layers that are left out, for all nodes or for some."""

from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop import models
from gnndrop.attach import attach
from gnndrop.errors import AttachError, ParameterError
from gnndrop.operators import OPERATORS
from gnndrop.operators.drop_path import DropPath
from gnndrop.operators.skip_node import SkipNode
from gnndrop.testing import check_operator


def residual(model: Any, x: Tensor, edge_index: Tensor, factors: Any) -> Tensor:
    """Compute a residual model, its branches multiplied by factors for each of their nodes."""
    for number, skip in enumerate(model.skips):
        branch = model.norms[number](model.layers[number](x, edge_index)).relu()
        x = skip(x) + factors(number)[:, None] * branch
    out: Tensor = model.layers[-1](x, edge_index)
    return out


@pytest.mark.parametrize("kind", [models.GCN, models.SAGE, models.GAT])
@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("growing", [False, True])
@pytest.mark.parametrize("per", ["layer", "node"])
def test_in_a_residual_model(
    case: Any, coins: Any, kind: Any, norm: Any, growing: bool, per: Any
) -> None:
    torch.manual_seed(0)
    model = kind(5, 8, 3, num_layers=4, norm=norm, residual=True).double()
    operator = DropPath(p=0.6, growing=growing, per=per)

    def factors(layer: int) -> Tensor:
        p = 0.6 * (layer + 1) / 3 if growing else 0.6
        coin = coins("drop-path", p, 5, layer)
        kept = [coin(node if per == "node" else 0) for node in range(7)]
        return torch.tensor(kept, dtype=torch.float64) / (1 - p)

    with attach(model, operator) as handle:
        assert handle.layers == ("norms.0", "norms.1", "norms.2")
        handle.operator.start_pass(5)
        out = model(case.x, case.edge_index)
    torch.testing.assert_close(out, residual(model, case.x, case.edge_index, factors))


def test_the_rate_of_a_branch_over_many_seeds(case: Any) -> None:
    """One coin for all nodes: they fall together, at the branch's own rate."""
    model = models.GCN(5, 4, 2, num_layers=3, residual=True).double()
    seen: list[list[float]] = [[], []]
    with attach(model, "drop-path:p=0.8,growing=true") as handle:
        for number, norm in enumerate(model.norms):
            norm.register_forward_hook(
                lambda _, __, out, number=number: seen[number].append(
                    float(out.detach().abs().sum())
                )
            )
        for seed in range(2000):
            handle.operator.start_pass(seed)
            model(case.x, case.edge_index)
            handle.operator.end_pass()
    for rate, branch in zip((0.4, 0.8), seen, strict=True):
        dropped = sum(total == 0 for total in branch) / 2000
        assert abs(dropped - rate) < 5 * (rate * (1 - rate) / 2000) ** 0.5


def test_the_papers_form_scales_in_evaluation(case: Any) -> None:
    model = models.GCN(5, 8, 3, num_layers=3, residual=True).double()
    with attach(model, "drop-path:p=0.6,rescale=eval,growing=true"):
        model.eval()
        out = model(case.x, case.edge_index)
    shares = torch.tensor([0.7, 0.4], dtype=torch.float64)
    expected = residual(model, case.x, case.edge_index, lambda layer: shares[layer].expand(7))
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("spec", ["per=node", "per=node,share=forward", "rescale=eval,per=node"])
def test_contract_of_nodes(spec: str) -> None:
    assert all(check.passed for check in check_operator(f"drop-path:{spec}"))


def test_branches_need_a_model_that_lists_them() -> None:
    for model in (models.GCN(5), models.MLP(5), pyg.GCN(5, 4, 2)):
        with pytest.raises(AttachError, match="needs a model that lists its residual_branches"):
            attach(model, "drop-path")
    with pytest.raises(ParameterError, match="per must be one of layer, node, got 'edge'"):
        DropPath(per="edge")  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8, 1.0])
def test_nodes_skip_layers_of_their_own_width(case: Any, coins: Any, p: float) -> None:
    model = pyg.GCN(5, 6, num_layers=3, out_channels=2).double()
    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    x = case.x
    for number, conv in enumerate(model.convs):
        x = x.relu() if number else x
        out = adjacency @ x @ conv.lin.weight.T + conv.bias
        if number == 1:
            coin = coins("skip-node", p, 4, 1)
            out = torch.where(torch.tensor([[coin(node)] for node in range(7)]), out, x)
        x = out
    with attach(model, SkipNode(p=p)) as handle:
        assert handle.layers == ("convs.1",)
        handle.operator.start_pass(4)
        torch.testing.assert_close(model(case.x, case.edge_index), x)
        model.eval()
        clean = model(case.x, case.edge_index)
    assert torch.equal(clean, model(case.x, case.edge_index))


def test_nothing_of_an_earlier_pass_is_left(case: Any) -> None:
    """The input that goes on is that of this call, for another graph of as many nodes too."""
    layer = pyg.GCNConv(5, 5).double()
    with attach(layer, "skip-node:p=1"):
        for scale in (1.0, 2.0):
            x = case.x * scale
            assert torch.equal(layer(x=x, edge_index=case.edge_index), x)


def test_skipping_needs_a_layer_that_keeps_its_width(case: Any) -> None:
    with pytest.raises(AttachError, match="as wide at its output as at its input, got GCN, which"):
        attach(models.GCN(5), "skip-node")
    with pytest.raises(AttachError, match="got another GCNConv"):
        attach(models.GCN(5), "skip-node", layers="layers.0")
    with pytest.raises(AttachError, match="which has none"):
        attach(nn.Linear(2, 2), "skip-node")
    with attach(models.GAT(5, 8, num_layers=3, heads=2), "skip-node") as handle:
        assert handle.layers == ("layers.1",)
    with pytest.raises(ParameterError, match=r"needs a layer whose output is like its input"):
        SkipNode()(torch.ones(3, 2), torch.ones(3, 1))
    with pytest.raises(ParameterError, match="floating point paths"):
        SkipNode()(torch.ones(3, 2).long(), torch.ones(3, 2).long())


@pytest.mark.parametrize("name", ["drop-path:growing=true", "drop-edge-plus"])
def test_depth_is_forgotten_with_the_model(name: str) -> None:
    operator = OPERATORS.make(name)
    alone = operator.num_layers
    handle = attach(models.GCN(5, 8, 3, num_layers=4, residual=True), operator)
    assert operator.num_layers > (alone or 0)
    handle.remove()
    assert operator.num_layers == alone
