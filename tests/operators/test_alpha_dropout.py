"""Alpha dropout: an affine map of coins, not a product with them."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.graph import to_csr
from gnndrop.models import GCN
from gnndrop.operators import AlphaDropout
from gnndrop.operators.alpha_dropout import SATURATION

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta


def reference(x: Tensor, coin: Any, p: float) -> Tensor:
    """The paper's formula, entry by entry."""
    keep, low = 1 - p, -1.0507009873554805 * 1.6732632423543772
    a = (keep + low**2 * keep * (1 - keep)) ** -0.5
    b = -a * (1 - keep) * low
    out = torch.empty_like(x)
    for row in range(x.size(0)):
        for column in range(x.size(1)):
            value = x[row, column] if coin(row, column) else low
            out[row, column] = a * value + b
    return out


def test_saturation_is_that_of_selu() -> None:
    assert math.isclose(SATURATION, float(F.selu(torch.tensor(-1e3, dtype=torch.float64))))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_stand_alone(coins: Any, p: float) -> None:
    x = torch.linspace(-2, 3, 54, dtype=torch.float64).view(9, 6).requires_grad_()
    operator = AlphaDropout(p).start_pass(11)
    for call in range(2):
        coin = coins("alpha-dropout", p, 11, call=call)
        out, expected = operator(x), reference(x, coin, p)
        torch.testing.assert_close(out, expected)
        got, wanted = (torch.autograd.grad(y.square().sum(), x)[0] for y in (out, expected))
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("p", [0.3, 0.5, 0.7])
def test_its_two_values_are_those_of_torch(p: float) -> None:
    """An independent reference of a and b: torch's own, whose coins are others."""
    x = torch.linspace(-1.5, 2, 400, dtype=torch.float64)
    with torch.random.fork_rng(devices=()):
        torchs = torch.stack([F.alpha_dropout(x, p, training=True) for _ in range(60)])
    ours = torch.stack([AlphaDropout(p).start_pass(seed)(x) for seed in range(60)])
    for reduce in (torch.amin, torch.amax):
        torch.testing.assert_close(reduce(ours, 0), reduce(torchs, 0))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_mean_zero_and_variance_one_are_kept(p: float) -> None:
    """Exactly: over the coins by their two outcomes, over x by the moments of a normal one."""
    operator = AlphaDropout(p)
    a, low = operator.slope, operator.dropped_value
    b = low - a * SATURATION
    assert math.isclose((1 - p) * b + p * low, 0, abs_tol=1e-12)
    assert math.isclose((1 - p) * (a**2 + b**2) + p * low**2, 1)
    # ... and measured.
    x = torch.randn(400, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    out = operator.start_pass(1)(x)
    assert out.mean().abs() < 5 / 400
    assert (out.var() - 1).abs() < 5 * math.sqrt(float(((out**2 - 1) ** 2).mean())) / 400


def test_the_declared_mean_is_that_of_the_mask() -> None:
    x, p, samples = torch.tensor([[-1.0, 0.0, 2.0]], dtype=torch.float64), 0.3, 4000
    operator = AlphaDropout(p)
    out = torch.stack([operator.start_pass(seed)(x) for seed in range(samples)])
    expected = operator.mean_factors(torch.empty(2, 0), 1)[:, None] * x
    error = (out.mean(0) - expected).abs() / (out.var(0) / samples).sqrt()
    assert float(error.max()) < 5
    assert not operator.is_unbiased


@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, coins: Any, share: Any) -> None:
    def mask(layer: int, x: Tensor) -> Tensor:
        number = layer if share == "layer" else 0
        return reference(x, coins("alpha-dropout", 0.4, 7, number), 0.4)

    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense(case.x, lambda layer: adjacency, mask)
    torch.testing.assert_close(case.run(AlphaDropout(0.4, share), 7), expected)


def test_sparse_features_become_dense() -> None:
    x = torch.eye(6, 8)
    out = AlphaDropout().start_pass(2)(to_csr(x))
    assert out.layout == torch.strided
    assert torch.equal(out, AlphaDropout().start_pass(2)(x))
    assert bool((out != 0).all())
    edge_index, sparse = torch.tensor([[0, 1], [1, 0]]), to_csr(x)
    model = GCN(8, 4, out_channels=2)
    with attach(model, "alpha-dropout") as handle:
        handle.operator.start_pass(0)
        from_sparse = model(sparse, edge_index)
        handle.operator.end_pass()
        handle.operator.start_pass(0)
        torch.testing.assert_close(model(x, edge_index), from_sparse)
        handle.operator.end_pass()
        assert model.eval()(sparse, edge_index).isfinite().all()


def test_extremes() -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert AlphaDropout(0.0)(x) is x
    for p in (1.0, 1 - 2**-40):  # nearer to 1 than coins can tell
        out = AlphaDropout(p)(x)
        assert bool(out.isfinite().all())
        assert float(out.abs().max()) < 1e-5
    assert not AlphaDropout(1.0)(x).any()
    assert AlphaDropout()(torch.ones(0, 3)).shape == (0, 3)
