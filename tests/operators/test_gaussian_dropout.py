"""Gaussian dropout: the normal numbers as arithmetic and as chance, and what they multiply."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gnndrop.graph import to_csr
from gnndrop.kernels import cpu, reference
from gnndrop.kernels.noise import gaussian_multiply, gaussian_multiply_sparse, uniforms
from gnndrop.masks import (
    Mask,
    fractions,
    gaussian_deviation,
    mask_bits,
    normal_chords,
    normals,
    stream_key,
)
from gnndrop.operators import GaussianDropout

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta
AXES = list(itertools.product([True, False], repeat=2))
SIGMAS = 5


def normal(bits: int) -> float:
    """The upper quantile of the last 31 bits, with the sign of the first."""
    size = float(stats.norm.isf((bits % 2**31 + 0.5) / 2**32))
    return size if bits >= 2**31 else -size


def factors(mask: Mask, rows: int, columns: int) -> Tensor:
    """An independent form of the factors, but for the coins, which tests/test_masks.py checks."""
    bits = mask_bits(mask, torch.arange(rows)[:, None], torch.arange(columns))
    bits = bits.expand(rows, columns)
    deviation = math.sqrt(mask.p / (1 - mask.p))
    numbers = [1 + deviation * normal(one) for one in bits.flatten().tolist()]
    return torch.tensor(numbers, dtype=torch.float64).view(rows, columns)


def sample(seed: int = 0, p: float = 0.5, rows: int = 1000, columns: int = 1000) -> Tensor:
    mask = Mask(stream_key(seed, "gaussian"), p)
    return (gaussian_multiply(torch.ones(rows, columns), mask) - 1).double()


# --- the numbers ---------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_normals_are_quantiles(bits: int) -> None:
    value = float(normals(torch.tensor(bits)))
    assert abs(value - normal(bits)) < 4e-6
    assert value == -float(normals(torch.tensor(bits ^ 2**31)))


@pytest.mark.parametrize("half", [0, 2**31])
def test_normals_at_the_edges(half: int) -> None:
    for tail in (0, 1, 2, 3, 2**24 - 1, 2**24 + 1, 2**30, 2**31 - 2**7, 2**31 - 2, 2**31 - 1):
        assert abs(float(normals(torch.tensor(half + tail))) - normal(half + tail)) < 4e-6


def test_chords_lie_on_the_quantile() -> None:
    offsets, slopes = normal_chords()
    assert offsets.dtype == slopes.dtype == torch.float32
    assert bool(torch.isfinite(offsets).all() and (slopes <= 0).all())


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.5, 0.9]))
def test_fractions_are_on_the_side_of_their_coin(bits: int, p: float) -> None:
    number = float(fractions(torch.tensor(bits)))
    assert 0 < number < 1
    assert number == float(torch.tensor(number, dtype=torch.float32))
    if abs(bits / 2**32 - p) > 2**-23:
        assert (number > p) == (bits >= round(p * 2**32))


@pytest.mark.parametrize("seed", range(3))
def test_the_sample_is_normal(seed: int) -> None:
    """A thousandth of a million of such tests would fail by chance at 5 standard errors: none."""
    noise = sample(seed).flatten()
    number = noise.numel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = ((noise**power).mean() - moment).abs() / math.sqrt(variance / number)
        assert error < SIGMAS, f"moment {power} is {error:.1f} standard errors off"
    assert stats.kstest(noise.numpy(), "norm").pvalue > 1e-6


def test_the_numbers_are_uncorrelated() -> None:
    """Between channels, rows, shifted rows, seeds, and their squares too."""
    one, other = sample(0), sample(1)
    pairs = {
        "channels": (one[:, :-1], one[:, 1:]),
        "rows": (one[:-1], one[1:]),
        "shifted rows": (one[:-1, :-1], one[1:, 1:]),
        "seeds": (one, other),
    }
    for name, (first, second) in pairs.items():
        for power, variance in ((1, 1), (2, 2)):
            centred = [values**power - (power - 1) for values in (first, second)]
            error = (centred[0] * centred[1]).sum() / (variance * math.sqrt(first.numel()))
            assert abs(error) < SIGMAS, f"{name}, power {power}: {error:.1f} standard errors"


def test_totals_over_consecutive_seeds_vary_as_they_should() -> None:
    totals = torch.stack([sample(seed, rows=50, columns=40).sum() for seed in range(400)])
    share = float(totals.var() / 2000)
    assert abs(share - 1) < SIGMAS * math.sqrt(2 / 399)


# --- the products --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("by_row", "by_column"), AXES)
def test_backends_agree(by_row: bool, by_column: bool, dtype: torch.dtype) -> None:
    mask = Mask(stream_key(1, "gaussian"), 0.7, by_row, by_column)
    x = torch.linspace(-2, 2, 35, dtype=dtype).view(7, 5)
    expected = factors(mask, 7, 5) * x
    pattern = to_csr(x)
    csr = pattern.crow_indices(), pattern.col_indices(), pattern.values(), mask
    for backend in (cpu, reference):
        got = backend.multiply_gaussian(x, mask)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=5e-5)
        stored = backend.multiply_gaussian_csr(*csr)
        torch.testing.assert_close(stored, got[x != 0], rtol=1e-5, atol=1e-6)
        rows, columns = torch.arange(7)[:, None], torch.arange(5)
        numbers = fractions(mask_bits(mask, rows, columns)).expand(7, 5).to(dtype)
        assert torch.equal(backend.uniforms(x, mask), numbers)
        assert torch.equal(backend.uniforms_csr(*csr), numbers[x != 0])
    torch.testing.assert_close(
        cpu.multiply_gaussian(x, mask), reference.multiply_gaussian(x, mask), rtol=1e-5, atol=1e-6
    )


def test_derivatives_of_every_order() -> None:
    mask = Mask(stream_key(1, "gaussian"), 0.5)
    x = torch.randn(
        4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).requires_grad_()
    assert gradcheck(lambda x: gaussian_multiply(x, mask), x)
    assert gradgradcheck(lambda x: gaussian_multiply(x, mask) ** 2, x)
    pattern = to_csr(x.detach())

    def stored(values: Tensor) -> Tensor:
        sparse = torch.sparse_csr_tensor(
            pattern.crow_indices(), pattern.col_indices(), values, pattern.shape
        )
        return gaussian_multiply_sparse(sparse, mask).to_dense()

    assert gradcheck(stored, pattern.values().requires_grad_())


def test_threads_make_no_difference() -> None:
    mask, x = Mask(stream_key(0, "gaussian"), 0.5), torch.ones(1100, 1000)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append((gaussian_multiply(x, mask), uniforms(x, mask)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_half_precision_and_strides() -> None:
    operator = GaussianDropout(0.3)
    x = torch.ones(6, 4).t()
    expected = operator.start_pass(0)(x.contiguous())
    assert torch.equal(operator.start_pass(0)(x), expected)
    half = operator.start_pass(0)(x.bfloat16())
    torch.testing.assert_close(half.float(), expected, rtol=0.02, atol=0.02)


# --- the operator --------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, p: float, share: Any) -> None:
    def mask(layer: int, x: Tensor) -> Tensor:
        number = layer if share == "layer" else 0
        return x * factors(Mask(stream_key(7, "gaussian-dropout", number), p), *x.shape)

    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense(case.x, lambda layer: adjacency, mask)
    out = case.run(GaussianDropout(p, share), 7)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)


def test_extremes_and_degenerate_shapes() -> None:
    x = torch.ones(3, 2)
    assert GaussianDropout(0.0)(x) is x
    assert not GaussianDropout(1.0)(x).any()
    assert not GaussianDropout(1.0)(x.half()).any()
    sparse = GaussianDropout(1.0)(to_csr(x))
    assert not sparse.to_dense().any()
    for shape in ((0, 3), (3, 0)):
        assert GaussianDropout()(torch.ones(shape)).shape == shape
        assert GaussianDropout()(to_csr(torch.ones(shape))).shape == shape
    assert gaussian_deviation(1.0) == math.inf
    assert GaussianDropout()(torch.ones(5)).shape == (5,)
    assert GaussianDropout()(torch.ones(5, 2, 3)).shape == (5, 2, 3)


def test_stored_zeros_stay_and_others_are_as_if_dense() -> None:
    x = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    dense = GaussianDropout().start_pass(4)(x)
    sparse = GaussianDropout().start_pass(4)(to_csr(x))
    torch.testing.assert_close(sparse.to_dense(), dense)
    assert torch.equal(sparse.col_indices(), to_csr(x).col_indices())
