"""Concrete dropout: relaxed coins, and a rate that is learnt through them."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.config import TrainConfig
from gnndrop.datasets import load
from gnndrop.errors import ParameterError
from gnndrop.graph import to_csr
from gnndrop.masks import Mask, fractions, mask_bits, stream_key
from gnndrop.models import GCN
from gnndrop.operators import ConcreteDropout, Dropout
from gnndrop.training import fit

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta


def numbers(rows: int, columns: int, seed: int, layer: int = 0, call: int = 0) -> Tensor:
    """The uniform numbers, whose coins tests/test_masks.py checks."""
    mask = Mask(stream_key(seed, "concrete-dropout", layer, call), 0.5)
    return fractions(mask_bits(mask, torch.arange(rows)[:, None], torch.arange(columns)))


def factors(u: Tensor, p: Tensor | float, temperature: float = 0.1) -> Tensor:
    """The paper's relaxation, with logarithms and an exponential."""
    p = torch.as_tensor(p, dtype=torch.float64)
    odds = (u / (1 - u)).log() - (p / (1 - p)).log()
    return 1 / (1 + (-odds / temperature).exp()) / (1 - p)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_stand_alone(p: float, temperature: float) -> None:
    x = torch.linspace(-2, 3, 54, dtype=torch.float64).view(9, 6).requires_grad_()
    operator = ConcreteDropout(p, temperature=temperature).double().start_pass(11)
    for call in range(2):
        expected = factors(numbers(9, 6, 11, call=call), p, temperature)
        out = operator(x)
        torch.testing.assert_close(out, x * expected, rtol=1e-5, atol=1e-6)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("rescale", ["inverse", "none"])
def test_the_rates_gradient_is_that_of_the_same_numbers(p: float, rescale: str) -> None:
    """Against central differences by p itself, with the chain rule for the logit by hand."""
    x = 1 + torch.rand(20, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, weight = numbers(20, 10, 5), torch.linspace(-1, 2, 200, dtype=torch.float64).view(20, 10)

    def loss(rate: float) -> float:
        scale = 1.0 if rescale == "inverse" else 1 - rate
        return float((weight * (x * factors(u, rate) * scale).square()).sum())

    operator = ConcreteDropout(p, rescale=rescale).double()
    operator.logit.data[0] = math.log(p / (1 - p))
    (weight * operator.start_pass(5)(x).square()).sum().backward()
    step = 1e-6
    by_p = (loss(p + step) - loss(p - step)) / (2 * step)
    gradient = operator.logit.grad
    assert gradient is not None
    assert math.isclose(float(gradient[0]), by_p * p * (1 - p), rel_tol=1e-5)
    assert not gradient[1:].any()  # other layers have rates of their own


def test_cold_it_is_dropout_by_the_same_coins(coins: Any) -> None:
    for p in (0.2, 0.5, 0.8):
        operator = ConcreteDropout(p, temperature=1e-5).double()
        out = operator.start_pass(3)(torch.ones(30, 20, dtype=torch.float64))
        coin = coins("concrete-dropout", p, 3)
        kept = [[float(coin(row, column)) for column in range(20)] for row in range(30)]
        expected = torch.tensor(kept, dtype=torch.float64) / (1 - p)
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)


def test_extremes() -> None:
    x = torch.ones(4, 3, requires_grad=True)
    none, all_ = ConcreteDropout(0.0), ConcreteDropout(1.0)
    assert none(x) is x
    for operator in (none, all_):
        assert not operator.logit.requires_grad  # an infinite logit is nothing to be learnt
        assert operator.penalty() == 0
    for out in (all_(x), all_(to_csr(x.detach())).to_dense()):
        assert not out.any()
    (gradient,) = torch.autograd.grad(all_(x).sum(), x)
    assert not gradient.any()
    learnt = ConcreteDropout(0.5)
    for extreme in (-80.0, 80.0):  # a rate that learning has driven to an end
        learnt.logit.data[:] = extreme
        learnt.logit.grad = None
        out = learnt(torch.ones(4, 3))
        (out.sum() + learnt.penalty()).backward()
        assert bool(out.isfinite().all())
        assert bool(learnt.logit.grad.isfinite().all())


@pytest.mark.parametrize("rescale", ["inverse", "none"])
@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_declared_cumulants_are_those_of_a_sample(rescale: str, temperature: float) -> None:
    for p in (0.1, 0.5, 0.9):
        operator = ConcreteDropout(p, rescale=rescale, temperature=temperature).double()
        mean, variance, fourth = operator.factor_cumulants
        sample = operator.start_pass(1)(torch.ones(1000, 200, dtype=torch.float64)).detach()
        error = (sample.mean() - mean).abs() / math.sqrt(variance / sample.numel())
        assert float(error) < 5
        spread = (fourth + 2 * variance**2) / sample.numel()
        assert float((sample.var() - variance).abs()) < 5 * math.sqrt(spread)
        cold = ConcreteDropout(p, rescale=rescale, temperature=1e-3).factor_cumulants
        dropout = Dropout(p, rescale=rescale).factor_cumulants
        assert all(abs(a - b) < 0.02 * abs(b) + 0.02 for a, b in zip(cold, dropout, strict=True))


@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn_every_layer_has_its_rate(case: Any, share: Any) -> None:
    rates = [0.2, 0.6] if share == "layer" else [0.2, 0.2]

    def mask(layer: int, x: Tensor) -> Tensor:
        number = layer if share == "layer" else 0
        return x * factors(numbers(*x.shape, 7, number), rates[layer])

    operator = ConcreteDropout(0.5, share).double()
    operator.logit.data[:2] = torch.tensor([0.2, 0.6], dtype=torch.float64).logit()
    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense(case.x, lambda layer: adjacency, mask)
    torch.testing.assert_close(case.run(operator, 7), expected, rtol=1e-6, atol=1e-7)


def test_evaluation() -> None:
    x = torch.ones(3, 2)
    assert ConcreteDropout().eval()(x) is x
    operator = ConcreteDropout(0.5, rescale="eval").eval()
    operator.logit.data[0] = torch.tensor(0.2).logit()
    torch.testing.assert_close(operator(x), 0.8 * x)  # by the rate that was learnt


def test_sparse_features_are_masked_like_dense_ones() -> None:
    x = torch.eye(6, 8)
    operator = ConcreteDropout(0.3)
    dense = operator.start_pass(2)(x)
    (by_dense,) = torch.autograd.grad(dense.square().sum(), operator.logit)
    sparse = operator.start_pass(2)(to_csr(x))
    assert sparse.layout == torch.sparse_csr
    torch.testing.assert_close(sparse.to_dense(), dense)
    (by_sparse,) = torch.autograd.grad(sparse.values().square().sum(), operator.logit)
    torch.testing.assert_close(by_sparse, by_dense)


# --- the regularizer -----------------------------------------------------------------------------


def test_penalty_is_the_papers() -> None:
    operator = ConcreteDropout(0.3, entropy_strength=0.1, weight_strength=0.01).double()
    operator.logit.data[:2] = torch.tensor([0.3, 0.8], dtype=torch.float64).logit()
    assert float(operator.penalty().detach()) == 0
    operator.start_pass(0)
    x = torch.ones(4, 6, dtype=torch.float64)
    operator.mask_features(x, operator.next_mask(0))
    operator.mask_features(x[:, :5], operator.next_mask(1))
    operator.end_pass()

    def entropy(p: float) -> float:
        return p * math.log(p) + (1 - p) * math.log(1 - p)

    expected = 0.1 * (6 * entropy(0.3) + 5 * entropy(0.8))
    assert math.isclose(float(operator.penalty().detach()), expected, rel_tol=1e-9)
    weights = torch.full((6, 2), 2.0).double(), torch.full((5, 3), 3.0).double()
    expected += 0.01 * (48 / 0.7 + 135 / 0.2)
    assert math.isclose(float(operator.penalty(*weights).detach()), expected, rel_tol=1e-9)
    operator.penalty().backward()
    by_logit = 0.1 * 6 * math.log(0.3 / 0.7) * 0.3 * 0.7
    gradient = operator.logit.grad
    assert gradient is not None
    assert math.isclose(float(gradient[0]), by_logit, rel_tol=1e-9)
    with pytest.raises(ParameterError, match="one weight per layer, got 1 for 2 layers"):
        operator.penalty(weights[0])


def test_weights_count_as_the_paper_has_them() -> None:
    """Those of the paper multiply coins that are not rescaled; ours are 1-p times them."""
    x, weight = torch.ones(4, 6), torch.full((6, 2), 3.0)
    penalties = []
    for rescale, factor in (("none", 1.0), ("inverse", 0.8), ("eval", 1.0)):
        operator = ConcreteDropout(0.2, rescale=rescale, entropy_strength=0.0, weight_strength=0.5)
        operator.start_pass(0)(x)
        penalties.append(float(operator.penalty(factor * weight).detach()))
    assert all(math.isclose(one, 0.5 * 0.8 * 108, rel_tol=1e-6) for one in penalties)


@pytest.mark.parametrize(("entropy", "rises"), [(0.0, False), (10.0, True)])
def test_the_rate_is_learnt(entropy: float, rises: bool) -> None:
    """Noise costs a regression, so that p falls, unless the entropy is worth more."""
    x = 1 + torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    operator = ConcreteDropout(0.3, entropy_strength=entropy)
    optimizer = torch.optim.Adam(operator.parameters(), lr=0.05)
    for seed in range(40):
        optimizer.zero_grad()
        loss = (operator.start_pass(seed)(x) - x).square().mean() + operator.penalty()
        loss.backward()
        optimizer.step()
    rate = float(operator.rates[0])
    assert (0.4 < rate < 0.55) if rises else rate < 0.15


def test_fit_learns_the_rates_and_keeps_the_best() -> None:
    data = load("karate").data
    torch.manual_seed(0)
    model = GCN(data.num_features, 8, out_channels=int(data.y.max()) + 1)
    names = set(model.state_dict())
    with attach(model, "concrete-dropout:p=0.4") as handle:
        fit(model, data, TrainConfig(epochs=20))
        rates = handle.operator.rates
        assert bool(((rates[:2] - 0.4).abs() > 1e-4).all())
    assert set(model.state_dict()) == names


def test_other_values_are_refused() -> None:
    for option, value in (
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("entropy_strength", -1.0),
        ("weight_strength", math.inf),
        ("max_layers", 0),
    ):
        with pytest.raises(ParameterError, match=option):
            ConcreteDropout(**{option: value})
    operator = ConcreteDropout(max_layers=2).start_pass(0)
    with pytest.raises(ParameterError, match="max_layers must be above"):
        operator.next_mask(2)
