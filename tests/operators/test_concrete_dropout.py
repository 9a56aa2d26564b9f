"""Concrete dropout: relaxed coins, and a rate that is learnt through them."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn

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
        assert operator.regularization() == 0
    for out in (all_(x), all_(to_csr(x.detach())).to_dense()):
        assert not out.any()
    (gradient,) = torch.autograd.grad(all_(x).sum(), x)
    assert not gradient.any()
    learnt = ConcreteDropout(0.5)
    for extreme in (-80.0, 80.0):  # a rate that learning has driven to an end
        learnt.logit.data[:] = extreme
        learnt.logit.grad = None
        out = learnt(torch.ones(4, 3))
        (out.sum() + learnt.regularization()).backward()
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


def entropy(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def gcn(widths: tuple[int, ...], operator: ConcreteDropout) -> nn.Module:
    """A GCN in double precision with the operator attached, whose rates are 0.3 and 0.8."""
    torch.manual_seed(0)
    model = GCN(*widths).double()
    attach(model, operator)
    operator.double().logit.data[:2] = torch.tensor([0.3, 0.8], dtype=torch.float64).logit()
    return model


@pytest.mark.parametrize("rescale", ["inverse", "none", "eval"])
@pytest.mark.parametrize("share", ["layer", "forward"])
def test_the_regularizer_is_the_papers(rescale: str, share: Any, case: Any) -> None:
    """By the dense weights: those of the paper multiply coins that are not rescaled."""
    operator = ConcreteDropout(0.5, share, rescale, length_scale=0.7, strength=3.0)
    model = gcn((5, 6, 2), operator)
    assert float(operator.regularization().detach()) == 0
    model(case.x, case.edge_index)
    rates = (0.3, 0.8) if share == "layer" else (0.3, 0.3)
    expected = 0.0
    for layer, p in zip(model.layers, rates, strict=True):
        weight = layer.lin.weight.detach().T
        unscaled = weight / (1 - p) if rescale == "inverse" else weight
        expected += 0.7**2 / 2 * (1 - p) * float((unscaled**2).sum())
    # One mask of all layers has coins for the channels of the last one that asked.
    channels = zip((5, 6), rates, strict=True) if share == "layer" else [(6, 0.3)]
    expected -= sum(count * entropy(p) for count, p in channels)
    assert math.isclose(float(operator.regularization().detach()), 3 * expected, rel_tol=1e-9)


def test_its_gradients_are_differences_by_the_rate_and_the_weights(case: Any) -> None:
    operator = ConcreteDropout(0.5, length_scale=0.7)
    model = gcn((5, 6, 2), operator)
    model(case.x, case.edge_index)
    weight, step = model.layers[1].lin.weight, 1e-6
    by_logit, by_weight = torch.autograd.grad(operator.regularization(), (operator.logit, weight))
    assert not by_logit[2:].any()
    torch.testing.assert_close(by_weight, 0.7**2 * weight / (1 - 0.8))
    for layer, p in enumerate((0.3, 0.8)):
        ends = []
        for rate in (p + step, p - step):
            with torch.no_grad():
                operator.logit[layer] = math.log(rate / (1 - rate))
                ends.append(float(operator.regularization()))
                operator.logit[layer] = math.log(p / (1 - p))
        by_rate = (ends[0] - ends[1]) / (2 * step)
        assert math.isclose(float(by_logit[layer]), by_rate * p * (1 - p), rel_tol=1e-6)


def test_the_weights_are_those_of_the_input_of_what_it_is_attached_to() -> None:
    attention = pyg.GATConv(5, 3, heads=2, edge_dim=5, residual=True)
    branching, projecting = pyg.SAGEConv(5, 3), pyg.SAGEConv(5, 3, project=True)
    deep = pyg.GINConv(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)))
    linear = nn.Linear(5, 3)
    for layer, expected in (
        (attention, [attention.lin.weight, attention.res.weight]),
        (branching, [branching.lin_l.weight, branching.lin_r.weight]),
        (projecting, [projecting.lin.weight, projecting.lin_r.weight]),
        (deep, []),  # nobody says which of its maps are behind the dropout
        (linear, [linear.weight]),
    ):
        model, count = nn.Sequential(layer), len(layer.state_dict())
        handle = attach(model, ConcreteDropout(), layers="0")
        assert [*map(id, handle.operator.regularized_weights)] == [*map(id, expected)]
        assert len(model.state_dict()) == count + 1  # no map a second time
        handle.remove()
        assert handle.operator.regularized_weights == ()


@pytest.mark.parametrize(
    ("options", "is_decayed"),
    [({}, False), ({"p": 0.0}, True), ({"length_scale": 0.0}, True), ({"strength": 0.0}, True)],
)
def test_fit_decays_no_weight_that_the_regularizer_shrinks(
    options: dict[str, float], is_decayed: bool
) -> None:
    """Where no gradient but the decay's reaches a weight, the decay alone would move it."""
    data = load("karate").data
    torch.manual_seed(0)
    model = GCN(data.num_features, 4, out_channels=int(data.y.max()) + 1)
    last = model.layers[1]
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.fill_(1.0)  # all logits alike
        model.layers[0].lin.weight.zero_()  # and all hidden units zero: no gradient to the weights
        model.layers[0].bias.fill_(-1.0)
    spared = last.lin.weight.detach().clone()
    options = {"length_scale": 1e-30, **options}  # whose own gradient vanishes, too
    attach(model, ConcreteDropout(**options))
    fit(model, data, TrainConfig(epochs=1, weight_decay=0.5))
    assert bool((last.lin.weight != spared).all()) == is_decayed
    assert bool((model.layers[0].bias != -1).all())  # a bias is decayed as ever


def test_fit_takes_one_over_the_number_of_training_nodes_of_it() -> None:
    """Without weights the loss depends on no rate: their gradient is the entropy's alone."""
    data = load("karate").data
    model = GCN(data.num_features, 4, out_channels=int(data.y.max()) + 1)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.lin.weight)
    found: list[Tensor] = []
    with attach(model, ConcreteDropout(0.3)) as handle:
        handle.operator.logit.register_hook(found.append)
        fit(model, data, TrainConfig(epochs=1))
    total = sum(gradient.double() for gradient in found)  # of the loss and of the regularizer
    for layer, channels in enumerate((data.num_features, 4)):
        expected = channels * math.log(0.3 / 0.7) * 0.3 * 0.7 / int(data.train_mask.sum())
        assert math.isclose(float(total[layer]), expected, rel_tol=1e-5)


def rate_learnt_by(x: Tensor, y: Tensor) -> float:
    """Train a linear layer behind the dropout; return the rate, which began at 0.3."""
    torch.manual_seed(0)
    model, operator = nn.Sequential(nn.Linear(x.size(1), 2)), ConcreteDropout(0.3, length_scale=0.5)
    attach(model, operator, layers="0")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + operator.regularization() / len(x)).backward()
        optimizer.step()
    return float(operator.rates[0])


def test_the_rate_rises_on_noise_and_falls_where_every_input_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 8, generator=generator)
    assert rate_learnt_by(x, torch.arange(1000) % 2) > 0.33  # it began at 0.3
    assert rate_learnt_by(x, (x.sum(1) > 0).long()) < 0.2


def test_strength_weighs_the_regularizer_against_the_loss() -> None:
    """Noise costs a regression, so that p falls, unless the entropy is worth more."""
    x = 1 + torch.rand(50, 4, generator=torch.Generator().manual_seed(0))
    for strength, low, high in ((0.0, 0.0, 0.15), (500.0, 0.4, 0.55)):
        operator = ConcreteDropout(0.3, strength=strength)
        optimizer = torch.optim.Adam(operator.parameters(), lr=0.05)
        for seed in range(40):
            optimizer.zero_grad()
            loss = (operator.start_pass(seed)(x) - x).square().mean()
            (loss + operator.regularization() / len(x)).backward()
            optimizer.step()
        assert low < float(operator.rates[0]) < high


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
        ("strength", -1.0),
        ("length_scale", math.inf),
        ("max_layers", 0),
    ):
        with pytest.raises(ParameterError, match=option):
            ConcreteDropout(**{option: value})
    operator = ConcreteDropout(max_layers=2).start_pass(0)
    with pytest.raises(ParameterError, match="max_layers must be above"):
        operator.next_mask(2)
