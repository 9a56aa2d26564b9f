"""Operators made of operators: several at once, or another rate in every layer."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg

from gnndrop import models
from gnndrop.attach import attach
from gnndrop.config import TrainConfig
from gnndrop.errors import AttachError, ParameterError, UnknownNameError
from gnndrop.operators import (
    OPERATORS,
    Combined,
    Dropout,
    FeatureOperator,
    PerLayer,
    make_operator,
)
from gnndrop.registry import parse_spec
from gnndrop.study import compare
from gnndrop.testing import check_operator

BOTH = "dropout:p=0.5+drop-edge:p=0.2"


@pytest.mark.parametrize(
    "spec",
    [
        BOTH,
        "dropout:p=0.2/0.5",
        "drop-edge:p=0.1/0.2,symmetric=false",
        "dropout:p=0.2/0.5+drop-edge:p=0.1/0.3+drop-message:p=0.4",
    ],
)
def test_a_spec_builds_it_again(spec: str) -> None:
    operator = OPERATORS.make(spec)
    assert operator.spec == spec
    assert OPERATORS.make(operator.spec).spec == spec
    assert all(option in repr(operator) for option in ("p=", "share=layer"))


def test_together_they_do_what_each_does(case: Any, coins: Any) -> None:
    """Features at every input, edges before every normalization, each with coins of its own."""
    feature, edge = "dropout", "drop-edge"

    def adjacency(layer: int) -> torch.Tensor:
        coin = coins(edge, 0.2, 7, layer)
        kept = [
            coin.edge(case.edge_index, place, True) or bool(a == b)
            for place, (a, b) in enumerate(case.edge_index.T.tolist())
        ]
        return case.dense.normalized(case.matrix(case.edge_index[:, torch.tensor(kept)]))

    def mask(layer: int, x: torch.Tensor) -> torch.Tensor:
        coin = coins(feature, 0.5, 7, layer)
        kept = [[coin(row, column) for column in range(x.size(1))] for row in range(7)]
        return x * torch.tensor(kept) * 2

    expected = case.dense(case.x, adjacency, mask)
    torch.testing.assert_close(case.run(BOTH, 7), expected)


def test_rates_per_layer_are_those_of_the_layers_in_order(case: Any, coins: Any) -> None:
    adjacency = case.dense.normalized(case.matrix(case.edge_index))

    def mask(layer: int, x: torch.Tensor) -> torch.Tensor:
        p = (0.2, 0.6)[layer]
        coin = coins("dropout", p, 3, layer)
        kept = [[coin(row, column) for column in range(x.size(1))] for row in range(7)]
        return x * torch.tensor(kept) / (1 - p)

    expected = case.dense(case.x, lambda _: adjacency, mask)
    torch.testing.assert_close(case.run("dropout:p=0.2/0.6", 3), expected)


@pytest.mark.parametrize("spec", [BOTH, "drop-edge:p=0.2/0.5", "dropout:p=0.2/0.5+drop-message"])
def test_attached_they_leave_no_trace_and_follow_torchs_seed(case: Any, spec: str) -> None:
    model = case.model
    before, keys = model(case.x, case.edge_index), set(model.state_dict())
    with attach(model, spec):
        runs = []
        for _ in range(2):
            torch.manual_seed(0)
            runs.append(torch.stack([model(case.x, case.edge_index) for _ in range(3)]))
        assert torch.equal(*runs)
        assert not torch.equal(runs[0][0], runs[0][1])
        model.eval()
        assert torch.equal(model(case.x, case.edge_index), before)
        model.train()
    assert torch.equal(model(case.x, case.edge_index), before)
    assert set(model.state_dict()) == keys


@pytest.mark.parametrize("spec", [BOTH, "dropout:p=0.2/0.5"])
def test_copies_and_pickles_agree(case: Any, spec: str) -> None:
    operator = make_operator(spec)
    expected = case.run(copy.deepcopy(operator), 1)
    assert torch.equal(case.run(pickle.loads(pickle.dumps(operator)), 1), expected)


def test_the_contract_is_that_of_the_parts() -> None:
    checks = check_operator("none+dropout:p=0.2")
    assert len(checks) == len(check_operator("dropout")) + len(check_operator("none"))


def test_stand_alone() -> None:
    x = torch.ones(200, 50)
    operator = Combined(["dropout:p=0.5", "drop-node:p=0.2"]).start_pass(0)
    out = operator(x)
    assert set(out.unique().tolist()) == {0.0, 2.5}
    alone = Dropout(p=0.5).start_pass(0)(x) > 0
    whole_rows = make_operator("drop-node:p=0.2").start_pass(0)(x) > 0
    assert torch.equal(out > 0, alone & whole_rows)
    assert operator.eval()(x) is x


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dropout+dropout", "must have coins of their own, got dropout, dropout"),
        ("dropout+locked-dropout", "must have coins of their own, got dropout, dropout"),
        ("dropout+", "must read name:key=value|unknown operator"),
        ("dropout:p=0.2/", r"p in 'dropout:p=' cannot be read|must read name:key=value"),
        ("dropout:p=0.2/1.2", r"p must be in \[0, 1\], got 1.2"),
        ("dropout:p=0.2+drop-egde", "did you mean 'drop-edge'"),
    ],
)
def test_what_makes_no_sense_is_refused(spec: str, message: str) -> None:
    with pytest.raises((ParameterError, UnknownNameError), match=message):
        OPERATORS.make(spec)


def test_what_they_cannot_do_is_said(case: Any) -> None:
    with pytest.raises(AttachError, match="one layer for each of its 3 rates, got 2"):
        attach(case.model, "dropout:p=0.1/0.2/0.3")
    with pytest.raises(AttachError, match="drop-edge acts on edges of message-passing layers"):
        attach(models.MLP(4), BOTH)
    with pytest.raises(ParameterError, match="acts on features and edges: attach it to a model"):
        make_operator(BOTH)(torch.ones(2, 2))
    with pytest.raises(ParameterError, match="has a rate for every layer of a model"):
        make_operator("dropout:p=0.1/0.2")(torch.ones(2, 2))
    with pytest.raises(ParameterError, match="one operator that is the same otherwise"):
        PerLayer(["dropout", "drop-edge"])
    with pytest.raises(ParameterError, match="two single operators at least, got dropout"):
        Combined(["dropout"])
    part = Dropout()
    with pytest.raises(ParameterError, match="must differ, got one twice"):
        PerLayer([part, part])


def test_layers_that_are_named_have_the_rates() -> None:
    model = pyg.GCN(4, 8, num_layers=3, out_channels=2)
    with attach(model, "dropout:p=0.1/0.2", layers=["convs.0", "convs.2"]) as handle:
        assert handle.layers == ("convs.0", "convs.2")


def test_in_a_comparison() -> None:
    """Of two models of one comparison, the one without a place is not applicable."""
    comparison = compare(
        ["none", BOTH, "dropout:p=0.2/0.5", "dropout:p=0.1/0.2/0.3"],
        datasets=["karate"],
        models=["gcn", "mlp"],
        seeds=1,
        train=TrainConfig(epochs=2),
    )
    status = {(cell.operator, cell.model): cell.status for cell in comparison.cells}
    assert status[BOTH, "gcn"] == status["dropout:p=0.2/0.5", "mlp"] == "ok"
    assert status[BOTH, "mlp"] == status["dropout:p=0.1/0.2/0.3", "gcn"] == "not-applicable"


def test_a_comparison_tries_rates_for_all_parts() -> None:
    comparison = compare(
        ["dropout+drop-edge"],
        datasets=["karate"],
        models=["gcn"],
        seeds=1,
        train=TrainConfig(epochs=1),
        rates=[0.1, 0.2],
    )
    assert [cell.status for cell in comparison.cells] == ["ok", "ok"]


def test_the_rates_of_layers_stand_in_the_place_of_p() -> None:
    """Not in that of another option whose name ends in p, and whose value is that of p."""

    class Clipped(FeatureOperator):
        name = "clipped"
        axes = ("node",)

        def __init__(self, clip: float = 1.0, p: float = 0.5) -> None:
            super().__init__(p)
            self.clip = clip

    spec = PerLayer([Clipped(0.2, p) for p in (0.2, 0.5)]).spec
    assert parse_spec(spec) == ("clipped", {"clip": "0.2", "p": "0.2/0.5"})
