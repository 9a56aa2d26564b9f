"""The weights of residual stacks; what they do is measured in `tests/test_theory_general.py`."""

import pytest
import torch
from torch import nn

from gnndrop.errors import ParameterError
from gnndrop.init import initialize_residual_, residual_growth, second_moment


def linears(count: int, width: int = 100) -> list[nn.Module]:
    return [nn.Linear(width, width) for _ in range(count)]


def test_second_moment() -> None:
    assert second_moment(0.75) == 4
    assert second_moment(0.75, rescale="none") == 0.25
    assert second_moment(0) == second_moment(0, "none") == 1


def test_growth() -> None:
    assert residual_growth(1) == 2
    assert 2.6 < residual_growth(100) < 2.71829
    assert residual_growth(3, share=0.5) == 1.5**3


def squared_stds(layers: list[nn.Module]) -> list[float]:
    return [layer.get_parameter("weight").detach().var().item() * 100 for layer in layers]


def test_weights_follow_the_shares() -> None:
    """10,000 weights tell a variance to 1.4 per cent."""
    branches, skips = linears(2), linears(2)
    generator = torch.Generator().manual_seed(0)
    initialize_residual_(branches, skips, p=[0.0, 0.5], share=0.25, generator=generator)
    assert squared_stds(branches) == pytest.approx([0.5, 0.25], rel=0.08)
    assert squared_stds(skips) == pytest.approx([0.75, 0.75], rel=0.08)
    initialize_residual_(
        branches, skips, p=0.5, rescale="none", nonlinearity="linear", generator=generator
    )
    assert squared_stds(branches) == pytest.approx([1.0, 1.0], rel=0.08)
    initialize_residual_(branches, p=0.5, generator=generator)
    assert squared_stds(branches) == pytest.approx([0.25, 0.25], rel=0.08)
    assert all(not layer.get_parameter("bias").any() for layer in branches + skips)


def test_a_generator_decides(generators_untouched: None) -> None:
    with torch.random.fork_rng(devices=()):
        one, other = linears(1), linears(1)
    for layers in (one, other):
        initialize_residual_(layers, generator=torch.Generator().manual_seed(3))
    assert torch.equal(one[0].get_parameter("weight"), other[0].get_parameter("weight"))


def test_no_layers_are_no_mistake() -> None:
    initialize_residual_([])


def test_refusals() -> None:
    with pytest.raises(ParameterError, match="rescale must be one of inverse, none, eval, got 'in"):
        second_moment(0.5, "invers")
    two = linears(2)
    with pytest.raises(ParameterError, match="got 2 branches, 2 rates and 1 skip connections"):
        initialize_residual_(two, linears(1))
    with pytest.raises(ParameterError, match="got 2 branches, 1 rates"):
        initialize_residual_(two, p=[0.5])
    with pytest.raises(ParameterError, match="p must be below 1"):
        initialize_residual_(two, p=1.0)
    with pytest.raises(ParameterError, match="p must be in"):
        initialize_residual_(two, p=-0.1)
    with pytest.raises(ParameterError, match="share must be above 0 and at most 1, got 0"):
        initialize_residual_(two, share=0)
    with pytest.raises(ParameterError, match="must be relu or linear, got 'gelu'"):
        initialize_residual_(two, linears(2), nonlinearity="gelu")  # type: ignore[arg-type]  # on purpose
    with pytest.raises(ParameterError, match="need branches of mean zero"):
        initialize_residual_(two, nonlinearity="relu")
    with pytest.raises(ParameterError, match="needs a weight matrix, got LayerNorm"):
        initialize_residual_([nn.LayerNorm(3)])
