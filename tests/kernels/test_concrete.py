"""Relaxed coins: the compiled kernel against the formula in double precision."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gnndrop.errors import ParameterError
from gnndrop.graph import to_csr
from gnndrop.kernels import cpu, reference
from gnndrop.kernels.concrete import relaxed_multiply, relaxed_multiply_sparse
from gnndrop.kernels.noise import uniforms
from gnndrop.masks import Mask, stream_key

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

MASK = Mask(stream_key(2, "test"), 0.5)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def formula(numbers: Tensor, logit: Tensor, temperature: float, is_scaled: bool) -> Tensor:
    """By powers of the odds, in place of logarithms."""
    odds = numbers / (1 - numbers) / logit.exp()
    relaxed = 1 / (1 + odds ** (-1 / temperature))
    return relaxed * (1 + logit.exp()) if is_scaled else relaxed


@pytest.mark.parametrize("is_scaled", [True, False])
@pytest.mark.parametrize("temperature", [1 / 32, 1 / 31, 0.05, 0.1, 0.67, 1.0, 3.0])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.99])
def test_the_kernel_is_the_formula(p: float, temperature: float, is_scaled: bool) -> None:
    x = random(70, 90)  # of more than one block
    gradient, logit = random(70, 90, seed=1), torch.tensor(p, dtype=torch.float64).logit()
    numbers = uniforms(x, MASK)
    slack = {"rtol": 2e-5, "atol": 2e-5 * (1 / (1 - p) if is_scaled else 1)}
    expected = x * formula(numbers, logit, temperature, is_scaled)
    narrow = x.float(), numbers.float(), logit.float(), temperature, is_scaled
    out = cpu.multiply_relaxed(*narrow)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, **slack)

    x.requires_grad_()
    logit.requires_grad_()
    total = (gradient * x * formula(numbers, logit, temperature, is_scaled)).sum()
    by_x, by_logit = torch.autograd.grad(total, (x, logit))
    x, logit = x.detach(), logit.detach()
    values = (x.float(), gradient.float(), numbers.float(), logit.float())
    from_kernel = cpu.relaxed_derivatives(*values, temperature, is_scaled)
    torch.testing.assert_close(from_kernel[0].double(), by_x, **slack)
    scale = float((gradient * x).abs().sum()) / temperature
    assert abs(float(from_kernel[1]) - float(by_logit)) < slack["atol"] * scale
    wide = reference.relaxed_derivatives(x, gradient, numbers, logit, temperature, is_scaled)
    torch.testing.assert_close(wide, (by_x, by_logit))


def test_extreme_numbers_and_rates() -> None:
    """The outermost numbers at rates that learning has driven to an end: no NaN, no infinity."""
    ends = torch.tensor([2.0**-24, 0.5, 1 - 2.0**-24])
    for logit in (-200.0, -80.0, 0.0, 80.0, 200.0):
        for temperature in (1e-4, 0.1, 10.0):
            values = torch.ones(3), ends.clone(), torch.tensor(logit), temperature
            out = cpu.multiply_relaxed(*values, False)
            exact = torch.sigmoid((ends.double().logit() - logit) / temperature)
            torch.testing.assert_close(out.double(), exact, rtol=0, atol=1e-5)
            values = torch.ones(3), torch.ones(3), ends.clone(), torch.tensor(logit), temperature
            for is_scaled in (True, False):
                for one in cpu.relaxed_derivatives(*values, is_scaled):
                    assert bool(one.isfinite().all()), (logit, temperature, is_scaled)


@pytest.mark.parametrize("is_scaled", [True, False])
def test_derivatives_of_every_order(is_scaled: bool) -> None:
    x, logit = random(4, 3).requires_grad_(), torch.tensor(0.4, dtype=torch.float64)
    logit.requires_grad_()

    def product(x: Tensor, logit: Tensor) -> Tensor:
        return relaxed_multiply(x, MASK, logit, 0.5, is_scaled)

    pattern = to_csr(x.detach().relu())

    def stored(values: Tensor, logit: Tensor) -> Tensor:
        sparse = torch.sparse_csr_tensor(
            pattern.crow_indices(), pattern.col_indices(), values, pattern.shape
        )
        return relaxed_multiply_sparse(sparse, MASK, logit, 0.5, is_scaled).values()

    assert gradcheck(product, (x, logit))
    assert gradgradcheck(product, (x, logit))
    assert gradcheck(stored, (pattern.values().requires_grad_(), logit))
    # The step from a CSR matrix to its values has no second derivative, and says so.
    out = stored(pattern.values(), logit).square().sum()
    with pytest.raises(ParameterError, match="create_graph=True"):
        torch.autograd.grad(out, logit, create_graph=True)


def test_any_use_of_a_sparse_product_is_differentiated() -> None:
    """Its gradient is sparse from its values, dense from a dense copy, or a sum of both."""
    x, other = random(6, 5), random(5, 3, seed=1)
    pattern = to_csr(x.relu())
    uses = {
        "values": lambda y: y.values().square().sum(),
        "dense": lambda y: y.to_dense().square().sum(),
        "both": lambda y: y.values().sum() + y.to_dense().square().sum(),
        "product": lambda y: (y @ other).square().sum(),
    }
    for name, use in uses.items():
        logit = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        sparse = relaxed_multiply_sparse(pattern, MASK, logit, 0.5, True)
        (found,) = torch.autograd.grad(use(sparse), logit)
        dense = relaxed_multiply(pattern.to_dense(), MASK, logit, 0.5, True)
        expected = {
            "values": dense.square().sum(),
            "dense": dense.square().sum(),
            "both": dense.sum() + dense.square().sum(),
            "product": (dense @ other).square().sum(),
        }[name]
        torch.testing.assert_close(found, torch.autograd.grad(expected, logit)[0])


def test_first_derivatives_are_the_same_where_second_ones_are_wanted() -> None:
    """Compiled in one case, of torch's operations in the other."""
    x, logit = random(30, 20).float().requires_grad_(), torch.tensor(-0.3, requires_grad=True)
    out = relaxed_multiply(x, MASK, logit, 0.1, True).square().sum()
    compiled = torch.autograd.grad(out, (x, logit), retain_graph=True)
    plain = torch.autograd.grad(out, (x, logit), create_graph=True)
    torch.testing.assert_close(compiled, tuple(one.detach() for one in plain), rtol=1e-4, atol=1e-4)


def test_any_memory_format_will_do() -> None:
    wide, logit = random(20, 30).float(), torch.tensor(0.0)
    for view in (wide.t(), wide[::2, ::3], wide[:1].expand(20, 30)):
        expected = relaxed_multiply(view.clone().contiguous(), MASK, logit, 0.1, True)
        assert torch.equal(relaxed_multiply(view, MASK, logit, 0.1, True), expected)


def test_threads_make_no_difference() -> None:
    x, logit = torch.ones(1100, 1000, requires_grad=True), torch.tensor(0.2, requires_grad=True)
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            out = relaxed_multiply(x, MASK, logit, 0.1, True)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), (x, logit))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_nothing_to_multiply_and_half_precision() -> None:
    logit = torch.tensor(0.0, requires_grad=True)
    for shape in ((0, 3), (3, 0)):
        x = torch.ones(shape, requires_grad=True)
        out = relaxed_multiply(x, MASK, logit, 0.1, True)
        assert out.shape == shape
        by_x, by_logit = torch.autograd.grad(out.sum(), (x, logit))
        assert (by_x.shape, float(by_logit)) == (shape, 0.0)
    half = relaxed_multiply(torch.ones(5, 4).bfloat16(), MASK, logit.bfloat16(), 0.5, True)
    full = relaxed_multiply(torch.ones(5, 4), MASK, logit, 0.5, True)
    torch.testing.assert_close(half.float(), full, rtol=0.05, atol=0.05)
    assert math.isclose(float(reference.inverse_keep(torch.tensor(0.0))), 2.0)
