"""Every registered operator keeps the contract, under every kind of options."""

from typing import get_args

import pytest
import torch

from gnndrop import testing
from gnndrop.operators import OPERATORS, EdgeOperator, FeatureOperator, MessageOperator
from gnndrop.operators._base import Site
from gnndrop.testing import Check, check_operator

VARIANTS = [
    f"{name}:{option}={choice}"
    for name, operator in OPERATORS.items()
    for option, choices in {
        "share": ("forward",),
        "rescale": operator.rescales[1:],
        "preset": operator.presets,
        "symmetric": ("true", "false"),
        "protect_self_loops": ("false",),
    }.items()
    if option in OPERATORS.options(name)
    for choice in choices
]
EXTREMES = ["dropout:p=0", "drop-message:p=1", "drop-edge:p=0.01,symmetric=false,share=forward"]


@pytest.mark.parametrize("spec", OPERATORS)
def test_contract(spec: str, generators_untouched: None) -> None:
    checks = check_operator(spec)
    assert all(isinstance(check, Check) and check.passed for check in checks)


@pytest.mark.parametrize("spec", [*VARIANTS, *EXTREMES])
def test_contract_with_options(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "SAMPLES", 300)  # what differs from above shows early
    checks = check_operator(spec)
    assert all(isinstance(check, Check) and check.passed for check in checks)


def test_the_variants_are_there() -> None:
    """The list above is derived: make sure that it derives something."""
    assert {
        "dropout:share=forward",
        "drop-feature:rescale=none",
        "drop-edge:rescale=inverse",
        "drop-edge:rescale=none",
        "drop-edge:symmetric=true",
        "drop-edge:symmetric=false",
        "drop-edge:protect_self_loops=false",
        "drop-message:rescale=none",
        "dropout:rescale=eval",
        "drop-node:preset=grand",
    } <= set(VARIANTS)


@pytest.mark.parametrize("name", OPERATORS)
def test_declarations_are_complete(name: str) -> None:
    operator = OPERATORS[name]()
    assert operator.name == name
    assert operator.source
    assert operator.site in get_args(Site)
    bases = {"features": FeatureOperator, "edges": EdgeOperator, "messages": MessageOperator}
    assert isinstance(operator, bases.get(operator.site, object))
    assert OPERATORS[name].__doc__
    if operator.site != "none":
        assert operator.p == 0.5
        assert operator.axes
        assert operator.rescale == operator.rescales[0]


@pytest.mark.parametrize("name", OPERATORS)
def test_print_shows_the_options(name: str) -> None:
    operator = OPERATORS[name]()
    text = repr(torch.nn.Sequential(operator))
    assert all(f"{option}={value}" in text for option, value in operator.options.items())
