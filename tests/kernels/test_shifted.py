"""Products that shift what is kept and replace what is dropped."""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gnndrop.kernels import cpu, masked_multiply, reference
from gnndrop.masks import Mask, keep, stream_key

AXES = list(itertools.product([True, False], repeat=2))
FLOATS = [torch.float32, torch.float64]
SHIFTED = {"shift": 0.75, "dropped": -1.5}


def mask_of(p: float, by_row: bool = True, by_column: bool = True) -> Mask:
    return Mask(stream_key(0, "test"), p, by_row, by_column, scale=1.25)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("by_row", "by_column"), AXES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1 - 2.0**-32, 1.0])
def test_what_is_kept_and_what_is_dropped(dtype, by_row, by_column, p) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(37, 53, generator=generator, dtype=torch.float64).to(dtype)
    rows, mask = torch.arange(37) * 3 - 9, mask_of(p, by_row, by_column)
    kept = keep(mask, rows[:, None], torch.arange(53)).expand(37, 53)
    for kernels in (cpu, reference):
        out = kernels.multiply(x, rows, mask, 0.75, -1.5)
        assert out.dtype == dtype
        assert torch.equal(out == -1.5, ~kept)
        torch.testing.assert_close(out[kept], x[kept] * 1.25 + 0.75)
    torch.testing.assert_close(masked_multiply(x, mask, rows, **SHIFTED), out)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.float16, torch.bfloat16])
def test_neither_infinity_nor_nan_survives_a_drop(dtype) -> None:
    mask = mask_of(0.5)
    kept = keep(mask, torch.arange(10)[:, None], torch.arange(10))
    for strange in (math.inf, -math.inf, math.nan):
        x = torch.full((10, 10), strange, dtype=dtype, requires_grad=True)
        out = masked_multiply(x, mask, **SHIFTED)
        assert torch.equal(out == -1.5, ~kept)
        out.backward(torch.full_like(x, strange))
        assert torch.equal(x.grad == 0, ~kept)


@pytest.mark.parametrize(("by_row", "by_column"), AXES)
def test_derivatives_are_the_scale_where_kept(by_row, by_column) -> None:
    mask = mask_of(0.4, by_row, by_column)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(6, 5, generator=generator, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda x: masked_multiply(x, mask, **SHIFTED), x)
    assert gradgradcheck(lambda x: masked_multiply(x, mask, **SHIFTED) ** 2, x)
    (gradient,) = torch.autograd.grad(masked_multiply(x, mask, **SHIFTED).sum(), x)
    kept = keep(mask, torch.arange(6)[:, None], torch.arange(5)).expand(6, 5)
    assert torch.equal(gradient, 1.25 * kept.double())
