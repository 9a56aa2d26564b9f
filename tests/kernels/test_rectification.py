"""A ReLU in place, of large arrays by our kernel: torch's in all but memory."""

import math

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.multiprocessing.reductions import StorageWeakRef

from gnndrop.kernels import rectification, rectify, reference
from gnndrop.models import GCN

FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]
STRANGE = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 1.0, -1.0, 2.0, -3.0, 0.5]


@pytest.fixture
def everything_is_large(monkeypatch) -> None:
    monkeypatch.setattr(rectification, "LARGE", 1)


def strange(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(STRANGE, dtype=dtype).view(4, 3).requires_grad_()


def is_ours(out: Tensor) -> bool:
    return "_Rectify" in type(out.grad_fn).__name__


def assert_equal(one: Tensor, other: Tensor) -> None:
    """To the bit, with NaN equal to itself."""
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES])
@pytest.mark.parametrize("is_large", [False, True])
def test_it_is_torchs(dtype, is_large, monkeypatch) -> None:
    if is_large:
        monkeypatch.setattr(rectification, "LARGE", 1)
    x, twin = strange(dtype), strange(dtype)
    out, expected = rectify(x * 1), (twin * 1).relu_()
    assert is_ours(out) == is_large
    assert_equal(out, expected)
    gradient = torch.tensor([math.inf, math.nan, -2.0] * 4, dtype=dtype).view(4, 3)
    out.backward(gradient)
    expected.backward(gradient)
    assert_equal(x.grad, twin.grad)


@pytest.mark.parametrize("size", [rectification.LARGE - 1, rectification.LARGE])
def test_large_is_from_there_on(size: int) -> None:
    x = torch.linspace(-1, 1, size).requires_grad_()
    out = rectify(x * 1)
    assert is_ours(out) == (size == rectification.LARGE)
    assert torch.equal(out, x.relu())
    out.sum().backward()  # by an expanded number
    assert torch.equal(x.grad, (x > 0).float())


@pytest.mark.usefixtures("everything_is_large")
def test_it_is_done_in_place() -> None:
    leaf = strange()
    x = leaf * 1
    place, version = x.data_ptr(), x._version
    out = rectify(x)
    assert out is x
    assert (out.data_ptr(), out._version) == (place, version + 1)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("function", [rectify, Tensor.relu_])
def test_who_needed_the_input_is_told(function) -> None:
    x = strange() * 1
    result = x.exp() + x.square()  # which derives by x
    function(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("function", [rectify, Tensor.relu_])
def test_who_needs_the_result_may_not_change_it(function) -> None:
    out = function(strange() * 1)
    squares = out.square()
    out.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squares.sum().backward()


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("function", [rectify, Tensor.relu_])
def test_a_leaf_is_refused(function) -> None:
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        function(strange())


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("part", [slice(1, 3), slice(0, 0), slice(None, None, 2)])
def test_a_view_of_another_is_one_still(part: slice) -> None:
    """Contiguous, empty, and with gaps."""
    results = []
    for function in (rectify, Tensor.relu_):
        leaf = torch.linspace(-2, 3, 12, dtype=torch.float64).view(4, 3).flip(1).requires_grad_()
        base = leaf * 1
        function(base[part])
        results.append([base, *torch.autograd.grad(base.square().sum(), leaf)])
    for ours, torchs in zip(*results, strict=True):
        assert torch.equal(ours, torchs)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("layout", [lambda x: x.t(), lambda x: x[:, ::2], lambda x: x[:, :, None]])
def test_any_memory_format_will_do(layout) -> None:
    leaf = torch.linspace(-1, 1, 12, dtype=torch.float64).view(4, 3).requires_grad_()
    out = rectify(layout(leaf * 1))
    expected = layout(leaf).relu()
    assert torch.equal(out, expected)
    slope = torch.linspace(1, 2, out.numel(), dtype=torch.float64)
    slopes = slope.view_as(out), slope.view(out.shape[::-1]).movedim(0, -1).reshape(out.shape)
    for one in (*slopes, slope[:1].expand_as(out)):
        ours, torchs = (
            torch.autograd.grad(result, leaf, one, retain_graph=True)[0]
            for result in (out, expected)
        )
        assert torch.equal(ours, torchs)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("is_reference", [False, True])
def test_derivatives_to_the_second_order(is_reference, monkeypatch) -> None:
    if is_reference:
        monkeypatch.setattr(rectification, "backend", lambda x: reference)
    x = torch.tensor([-1.0, 0.5, 2.0, -0.3, 1.0, 0.7], dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda x: rectify(x * 2), x)
    assert gradgradcheck(lambda x: rectify(x * 2).pow(3), x)


@pytest.mark.usefixtures("everything_is_large")
def test_nothing_is_noted_for_who_does_not_derive() -> None:
    leaf = strange()
    with torch.no_grad():
        out = rectify(leaf * 1)
    constant = rectify(leaf.detach() * 1)
    with torch.inference_mode():
        inferred = rectify(leaf * 1)
    assert out.grad_fn is constant.grad_fn is inferred.grad_fn is None
    for one in (out, constant, inferred):
        assert_equal(one, leaf.detach().relu())


@pytest.mark.usefixtures("everything_is_large")
def test_the_result_may_go_before_the_derivative() -> None:
    """What it is for: torch's holds the result."""
    leaf = torch.linspace(-1, 1, 12).requires_grad_()
    out = rectify(leaf * 1)
    place = StorageWeakRef(out.untyped_storage())
    total = out.sum()
    del out
    assert place.expired()
    total.backward()
    assert torch.equal(leaf.grad, (leaf > 0).float())


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("options", [{}, {"residual": True}, {"layout": "tuned", "residual": True}])
def test_a_model_is_the_same(norm, options, monkeypatch) -> None:
    torch.manual_seed(0)
    model = GCN(6, 8, 3, num_layers=3, norm=norm, **options).double()
    x, edge_index = torch.randn(20, 6).double(), torch.randint(20, (2, 60))
    asked, results, select = [], [], rectification._Select

    class Asked(select):
        @staticmethod
        def forward(*arguments: object) -> Tensor:
            asked.append(1)
            return select.forward(*arguments)

    monkeypatch.setattr(rectification, "_Select", Asked)
    for large in (rectification.LARGE, 20 * 8):
        monkeypatch.setattr(rectification, "LARGE", large)
        out = model(x, edge_index)
        results.append([out, *torch.autograd.grad(out.square().sum(), model.parameters())])
    assert len(asked) == len(model.norms)
    for small, large in zip(*results, strict=True):
        assert torch.equal(small, large)
