"""Linear maps: of dense and sparse features, and which are nothing but a product."""

from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize

from gnndrop import attach
from gnndrop.errors import ParameterError
from gnndrop.linear import Linear, is_product

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

N, F, C = 10, 7, 3


@pytest.fixture(autouse=True)
def seeded() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def features() -> Tensor:
    """Mostly zeros; a node and a channel without any entry."""
    x = torch.randn(N, F, dtype=torch.float64).relu()
    x[2], x[:, 3] = 0, 0
    return x


# --- the layer ----------------------------------------------------------------------------------


def test_linear_is_pygs_on_dense_and_sparse_inputs() -> None:
    layer, x = Linear(F, C).double(), features()
    expected = x @ layer.weight.t() + layer.bias
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x.to_sparse_csr()), expected)
    bare = Linear(F, C, bias=False).double()
    torch.testing.assert_close(bare(x.to_sparse_csr()), x @ bare.weight.t())
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_linear_notices_other_sparse_features() -> None:
    """Another pattern of the same size, the same pattern with other values, values written to."""
    layer, x = Linear(F, C, bias=False).double(), features()
    flipped, sparse = x.flip(0), x.to_sparse_csr()
    layer(sparse)
    for other in (flipped.to_sparse_csr(), (2 * x).to_sparse_csr(), x[:4].to_sparse_csr(), sparse):
        torch.testing.assert_close(layer(other), other.to_dense() @ layer.weight.t())
    sparse.values().mul_(3)
    torch.testing.assert_close(layer(sparse), 3 * x @ layer.weight.t())
    columns = sparse.col_indices()
    columns.copy_(F - 1 - columns)
    dense = torch.zeros(N, F, dtype=torch.float64)
    rows = torch.repeat_interleave(sparse.crow_indices().diff())
    dense[rows, columns] = sparse.values()
    torch.testing.assert_close(layer(sparse), dense @ layer.weight.t())


def test_linear_refuses_sparse_features_of_another_width() -> None:
    with pytest.raises(ParameterError, match="rows"):
        Linear(F + 1, C).double()(features().to_sparse_csr())


def test_a_pattern_is_remembered() -> None:
    layer, sparse = Linear(F, C), features().to_sparse_csr()
    pattern = layer.pattern(sparse)
    assert (pattern.num_sources, pattern.num_targets) == (F, N)
    assert layer.pattern(sparse) is layer.pattern(sparse * 2) is pattern
    assert layer.pattern(features().flip(0).to_sparse_csr()) is not pattern


# --- which are products -------------------------------------------------------------------------


class Louder(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.mark.parametrize("layer", [Linear, pyg.Linear])
def test_a_product_is_one(layer: type[pyg.Linear]) -> None:
    one, x = layer(F, C, bias=False).double(), features()
    assert is_product(one)
    torch.testing.assert_close(one(x), x @ one.weight.t())
    assert not is_product(layer(F, C))


@pytest.mark.parametrize(
    "other",
    [
        lambda: nn.Linear(F, C, bias=False),
        lambda: Louder(F, C, bias=False),
        lambda: pyg.HeteroLinear(F, C, 2, bias=False),
        lambda: pyg.Linear(-1, C, bias=False),  # whose weight is still to come
        lambda: nn.Identity(),
        lambda: nn.Sequential(Linear(F, C, bias=False)),
    ],
)
def test_other_modules_are_none(other: Callable[[], nn.Module]) -> None:
    assert not is_product(other())


def test_a_lazy_one_is_one_from_its_first_call_on() -> None:
    layer = pyg.Linear(-1, C, bias=False)
    layer(features().float())
    assert is_product(layer)


REGISTER: dict[str, Callable[[nn.Module], object]] = {
    "forward pre": lambda one: one.register_forward_pre_hook(lambda *_: None),
    "forward pre with keywords": lambda one: one.register_forward_pre_hook(
        lambda *_: None, with_kwargs=True
    ),
    "forward": lambda one: one.register_forward_hook(lambda *_: None),
    "forward, always": lambda one: one.register_forward_hook(lambda *_: None, always_call=True),
    "full backward": lambda one: one.register_full_backward_hook(lambda *_: None),
    "full backward pre": lambda one: one.register_full_backward_pre_hook(lambda *_: None),
    "backward": lambda one: one.register_backward_hook(lambda *_: None),
}


@pytest.mark.parametrize("kind", REGISTER)
@pytest.mark.parametrize("layer", [Linear, pyg.Linear])
def test_none_with_a_hook(layer: type[pyg.Linear], kind: str) -> None:
    one = layer(F, C, bias=False)
    handle = REGISTER[kind](one)
    assert not is_product(one)
    handle.remove()
    assert is_product(one)


@pytest.mark.parametrize(
    "register",
    [
        torch_module.register_module_forward_pre_hook,
        torch_module.register_module_forward_hook,
        torch_module.register_module_full_backward_hook,
        torch_module.register_module_full_backward_pre_hook,
    ],
)
def test_none_with_a_hook_on_all_modules(register) -> None:
    one = Linear(F, C, bias=False)
    handle = register(lambda *_: None)
    try:
        assert not is_product(one)
    finally:
        handle.remove()
    assert is_product(one)


def parametrized(one: nn.Module) -> Callable[[], object]:
    parametrize.register_parametrization(one, "weight", Doubled())
    return lambda: parametrize.remove_parametrizations(one, "weight", leave_parametrized=False)


def replaced(one: nn.Module) -> Callable[[], object]:
    one.forward = lambda x: x
    return lambda: delattr(one, "forward")


def spectral(one: nn.Module) -> Callable[[], object]:
    parametrizations.spectral_norm(one)
    return lambda: parametrize.remove_parametrizations(one, "weight")


def spectral_by_hook(one: nn.Module) -> Callable[[], object]:
    nn.utils.spectral_norm(one)
    return lambda: nn.utils.remove_spectral_norm(one)


def biased(one: nn.Module) -> Callable[[], object]:
    one.bias = nn.Parameter(torch.ones(C))
    return lambda: setattr(one, "bias", None)


def masked(one: nn.Module) -> Callable[[], object]:
    return attach(nn.Sequential(one), "drop-connect", layers="0").remove


@pytest.mark.parametrize(
    "change", [parametrized, replaced, spectral, spectral_by_hook, biased, masked]
)
@pytest.mark.parametrize("layer", [Linear, pyg.Linear])
def test_none_while_it_is_changed(layer: type[pyg.Linear], change) -> None:
    one = layer(F, C, bias=False)
    undo = change(one)
    assert not is_product(one)
    undo()
    assert is_product(one)
