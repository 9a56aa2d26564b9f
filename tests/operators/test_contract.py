"""Every registered operator keeps the contract, under every kind of options."""

from typing import get_args, get_type_hints

import pytest
import torch

from gnndrop import testing
from gnndrop.operators import OPERATORS, EdgeOperator, FeatureOperator, MessageOperator
from gnndrop.operators._base import Site
from gnndrop.registry import format_spec
from gnndrop.testing import Check, check_operator

# Numbers that change a mask, at values that are not the defaults.
NUMBERS = {
    "blocks": (1, 3),
    "growth": (0.0, 0.5),
    "radius": (0, 2),
    "retain": (0.3,),
    "temperature": (0.3,),
}
# Options that change no mask, or are varied by the contract itself.
OTHERS = {"p", "length_scale", "strength", "max_layers"}


def choices(name: str, option: str) -> tuple[object, ...]:
    """Return the values of an option beside its default, as its declaration has them."""
    operator = OPERATORS[name]
    declared = {"rescale": operator.rescales, "preset": tuple(operator.presets)} | NUMBERS
    hint = get_type_hints(operator.__init__)[option]
    if option in declared:
        values = declared[option]
    elif bool in (hint, *get_args(hint)):
        values = (True, False)
    else:
        values = get_args(hint)
    return tuple(value for value in values if value != OPERATORS.options(name)[option])


def spec_of(name: str, **options: object) -> str:
    return format_spec(name, options)


VARIANTS = [
    spec_of(name, **{option: choice})
    for name in OPERATORS
    for option in OPERATORS.options(name)
    if option not in OTHERS
    for choice in choices(name, option)
]
EXTREMES = [
    "dropout:p=0",
    "drop-message:p=1",
    "drop-edge:p=0.01,symmetric=false,share=forward",
    "drop-edge:fixed_count=true,symmetric=false,rescale=inverse",
    "drop-edge:preset=rong2020,share=layer",
    "drop-path:per=node,growing=true",
    "drop-block:radius=2,rescale=none",
]


@pytest.mark.parametrize("spec", OPERATORS)
def test_contract(spec: str, generators_untouched: None) -> None:
    checks = check_operator(spec)
    assert all(isinstance(check, Check) and check.passed for check in checks)


@pytest.mark.parametrize("spec", [*VARIANTS, *EXTREMES])
def test_contract_with_options(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "SAMPLES", 200)  # what differs from above shows early
    monkeypatch.setattr(testing, "RATES", (0.3, 0.9))
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
        "drop-edge:preset=rong2020",
        "drop-edge:fixed_count=true",
        "drop-path:growing=true",
        "drop-path:per=node",
        "drop-edge-plus:growth=0.0",
        "locked-dropout:rescale=eval",
    } <= set(VARIANTS)


@pytest.mark.parametrize("name", OPERATORS)
def test_every_option_is_varied(name: str) -> None:
    """A new option is either derived above, or a number that must be given there."""
    missing = [
        option
        for option in set(OPERATORS.options(name)) - OTHERS
        if not choices(name, option) and option != "rescale"  # which may be the only one
    ]
    assert not missing


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
