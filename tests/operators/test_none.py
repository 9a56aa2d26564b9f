"""The operator that drops nothing."""

from typing import Any

import torch

from gnndrop.operators.none import NoDrop


def test_values_pass_as_they_are() -> None:
    x, other = torch.ones(2, 2), torch.zeros(1)
    operator = NoDrop()
    assert operator(x) is x
    assert operator(x, other) == (x, other)
    assert not operator.is_active
    assert operator.train().spec == "none"


def test_a_model_stays_as_it_is(case: Any, generators_untouched: None) -> None:
    before = case.model(case.x, case.edge_index)
    assert torch.equal(case.run("none", 0), before)
    assert torch.equal(case.model(case.x, case.edge_index), before)
