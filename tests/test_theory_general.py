"""The general theory agrees with plain sums over all masks, and measurement tells mistakes."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, Ridge
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.theory import measured, measured_graphs
from gnndrop.theory.ensemble import geometric_mean, subnetworks
from gnndrop.theory.enumeration import masks
from gnndrop.theory.gap import output_moments, train_test_gap
from gnndrop.theory.gradient import expected_gradient, relu_gradient_variance
from gnndrop.theory.measurement import Measurement
from gnndrop.theory.penalty import dropout_penalty, dropout_weights

RATES = (0.0, 0.3, 0.5, 0.9)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def outcomes(coins: int, p: float) -> Iterator[tuple[float, list[int]]]:
    """Yield every mask of independent coins, with its probability."""
    for outcome in product((0, 1), repeat=coins):
        kept = sum(outcome)
        yield (1 - p) ** kept * p ** (coins - kept), list(outcome)


@given(coins=st.integers(0, 6), p=st.floats(0, 1))
def test_masks(coins: int, p: float) -> None:
    found, probability = masks(coins, p)
    expected = list(outcomes(coins, p))
    assert found.tolist() == [outcome for _, outcome in expected]
    assert probability.tolist() == pytest.approx([one for one, _ in expected], rel=1e-12)


def test_too_many_coins() -> None:
    with pytest.raises(ParameterError, match="0 to 16 coins, got 17"):
        masks(17, 0.5)


def data() -> tuple[Tensor, Tensor]:
    x = normal(30, 4) @ normal(4, 4, seed=1)
    y = x.sum(1) + normal(30, seed=2)
    return x - x.mean(0), y - y.mean()


@pytest.mark.parametrize("p", RATES)
def test_on_standardized_data_it_is_ridge_regression(p: float) -> None:
    x, y = data()
    x = x / x.std(0, unbiased=False)
    ridge = Ridge(alpha=len(x) * p / (1 - p), fit_intercept=False).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(dropout_weights(x, y, p).numpy(), ridge.coef_)
    assert float(dropout_penalty(x, torch.from_numpy(ridge.coef_), p)) == pytest.approx(
        p / (1 - p) * float((ridge.coef_**2).sum())
    )


GROUPS = [None, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 2]), torch.zeros(4).long()]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("p", RATES)
def test_it_is_least_squares_over_all_masks(p: float, groups: Tensor | None) -> None:
    x, y = data()
    coins = torch.arange(4) if groups is None else groups
    rows, targets, weights = [], [], []
    for probability, outcome in outcomes(int(coins.max()) + 1, p):
        rows.append(x * torch.tensor(outcome)[coins] / (1 - p))
        targets.append(y)
        weights.append(torch.full_like(y, probability))
    inputs, target, weight = (torch.cat(list(parts)).numpy() for parts in (rows, targets, weights))
    fitted = LinearRegression(fit_intercept=False).fit(inputs, target, sample_weight=weight)
    found = dropout_weights(x, y, p, groups)
    np.testing.assert_allclose(found.numpy(), fitted.coef_, rtol=1e-6)

    some = normal(4, seed=3)
    loss = float((weight * (target - inputs @ some.numpy()) ** 2).sum()) / len(x)
    clean = float(((y - x @ some) ** 2).mean())
    assert loss - clean == pytest.approx(float(dropout_penalty(x, some, p, groups)), abs=1e-9)


def test_nothing_is_left_to_predict_from_at_one() -> None:
    with pytest.raises(ParameterError, match="p must be below 1"):
        dropout_weights(*data(), p=1.0)


@pytest.mark.parametrize("p", RATES)
def test_output_moments_and_gap(p: float) -> None:
    first, second, x = normal(5, 4), normal(4, 2, seed=1), normal(5, seed=2)

    def network(inputs: Tensor) -> Tensor:
        return (inputs @ first).relu() @ second

    runs = [
        (probability, network(x * torch.tensor(outcome) / (1 - p)))
        for probability, outcome in outcomes(5, p)
    ]
    mean = torch.stack([probability * out for probability, out in runs]).sum(0)
    square = torch.stack([probability * out**2 for probability, out in runs]).sum(0)
    found = output_moments(network, x, p)
    torch.testing.assert_close(found[0], mean)
    torch.testing.assert_close(found[1], square - mean**2)
    torch.testing.assert_close(train_test_gap(network, x, p), mean - network(x))
    assert bool((train_test_gap(network, x, p).abs() > 1e-3).all()) == (p > 0)


def test_a_linear_network_has_no_gap() -> None:
    first, x = normal(5, 4), normal(5, seed=2)
    gap = train_test_gap(lambda inputs: inputs @ first, x, 0.7)
    torch.testing.assert_close(gap, torch.zeros_like(gap))


@pytest.mark.parametrize("p", RATES)
def test_the_geometric_mean_is_the_prediction_without_a_mask(p: float) -> None:
    weight, bias, x = normal(3, 6), normal(3, seed=1), normal(6, seed=2)
    runs = [
        ((weight @ (x * torch.tensor(outcome)) / (1 - p) + bias).softmax(0), probability)
        for probability, outcome in outcomes(6, p)
    ]
    powers = torch.stack([prediction**probability for prediction, probability in runs])
    product_of_all = powers.prod(0)
    found = geometric_mean(weight, bias, x, p)
    torch.testing.assert_close(found, product_of_all / product_of_all.sum())
    torch.testing.assert_close(found, (weight @ x + bias).softmax(0))
    logs, probabilities = subnetworks(weight, bias, x, p)
    arithmetic = probabilities @ logs.exp()
    assert torch.allclose(arithmetic, found) == (p == 0)


ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [torch.relu, torch.tanh, torch.nn.functional.gelu]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("p", [*RATES, 1.0])
def test_the_expected_gradient(activation: Callable[[Tensor], Tensor], p: float) -> None:
    a = torch.tensor([-2.0, -0.1, 0.3, 1.5], dtype=torch.float64, requires_grad=True)
    expected = p * activation(0 * a)
    if p < 1:
        expected = expected + (1 - p) * activation(a / (1 - p))
    (derivative,) = torch.autograd.grad(expected.sum(), a)
    torch.testing.assert_close(expected_gradient(activation, a, p), derivative)


def test_through_relu_it_does_not_depend_on_p() -> None:
    a = torch.tensor([-2.0, -0.1, 0.3, 1.5])
    for p in RATES:
        assert expected_gradient(torch.relu, a, p).tolist() == [0, 0, 1, 1]
        assert relu_gradient_variance(a, p).tolist() == pytest.approx([0, 0, *[p / (1 - p)] * 2])
    through_tanh = [expected_gradient(torch.tanh, a, p) for p in RATES]
    assert all(not torch.allclose(one, through_tanh[0]) for one in through_tanh[1:])


def test_through_two_layers_of_relu_it_does() -> None:
    """The limit of the statement: a mask that moves the next layer's pre-activation."""
    gradients = []
    for p in (0.0, 0.5):
        a = torch.ones(2, requires_grad=True)
        expected = torch.zeros(())
        for probability, outcome in outcomes(2, p):
            masked = a.relu() * torch.tensor(outcome) / (1 - p)
            expected = expected + probability * (masked[0] - 0.4 * masked[1] - 0.3).relu()
        (gradient,) = torch.autograd.grad(expected, a)
        gradients.append(gradient)
    assert not torch.allclose(*gradients)


def test_all_of_it_is_measured(generators_untouched: None) -> None:
    found = list(measured.measure_theory())
    assert all(one.passed for one in found)
    quantities = {one.quantity for one in found}
    assert len(quantities) == 15
    assert len(found) == 4 * len(quantities)


def same(value: Any) -> Callable[..., Any]:
    return lambda *args, **options: value


def without_odds(x: Tensor, y: Tensor, p: float, groups: Tensor | None) -> Tensor:
    return dropout_weights(x, y, p / (1 + p), groups)  # a penalty of strength p


def unaware_of_p(branches: Any, skips: Any, p: float, generator: torch.Generator) -> None:
    from gnndrop.init import initialize_residual_

    initialize_residual_(branches, skips, 0.0, generator=generator)


MISTAKES: dict[str, tuple[object, set[str]]] = {
    "dropout_weights": (
        without_odds,
        {"weights of a linear model", "weights, by variances", "weights, by groups"},
    ),
    "train_test_gap": (same(torch.zeros(3)), {"E[g(a)] - g(E[a])"}),
    "output_moments": (
        lambda network, x, p: (network(x[None])[0], output_moments(network, x, p)[1]),
        {"squared error of the mean of 10 passes", "squared error of the mean of 100 passes"},
    ),
    "geometric_mean": (
        lambda *case: subnetworks(*case)[1] @ subnetworks(*case)[0].exp(),
        {"geometric mean of all subnetworks"},
    ),
    "expected_gradient": (
        lambda activation, a, p: expected_gradient(activation, a, 0.0),
        {"gradient through tanh"},
    ),
    "relu_gradient_variance": (
        lambda a, p: relu_gradient_variance(a, p) * (1 - p),
        {"variance of relu's gradient"},
    ),
    "initialize_residual_": (
        unaware_of_p,
        {"growth of a residual stack", "growth, identity skips"},
    ),
    "variance_shift": (same(torch.ones(3)), {"variance behind batch norm in evaluation"}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_measurement_tells_a_wrong_theory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake, quantities = MISTAKES[name]
    monkeypatch.setattr(measured, name, mistake)
    monkeypatch.setattr(measured, "RATES", (0.5,))
    monkeypatch.setattr(measured_graphs, "RATES", ())
    assert {one.quantity for one in measured.measure_theory() if not one.passed} == quantities


def test_a_measurement() -> None:
    samples = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0]], dtype=torch.float64)
    theory = torch.tensor([1e-6, 2.5], dtype=torch.float64)
    one = Measurement.of_samples("some", 0.3, theory, samples)
    assert one.measured == (0.0, 2.0)
    assert one.bound == pytest.approx((1e-5, 5.5 * (1 / 3) ** 0.5 + 1e-5))
    assert one.deviation == pytest.approx(0.5 / one.bound[1])
    assert (one.worst, one.passed) == (1, True)
    assert one.to_dict() == {
        "quantity": "some",
        "p": 0.3,
        "entries": 2,
        "theory": 2.5,
        "measured": 2.0,
        "bound": one.bound[1],
        "passed": True,
    }


def test_what_is_no_number_fails() -> None:
    one = Measurement("some", 0.5, (1.0, 1.0), (1.0, float("nan")), (0.1, 0.1))
    assert not one.passed
    assert one.worst == 1
    assert one.to_dict()["measured"] is None
