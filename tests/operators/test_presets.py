"""Options that name a paper, names that are options, and scaling that waits for evaluation."""

from typing import Any

import pytest
import torch
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.graph import to_csr
from gnndrop.operators import DropNode, Dropout, LockedDropout, make_operator, with_presets

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta


def evaluate(case: Any, operator: Any) -> Tensor:
    with attach(case.model.eval(), operator):
        out: Tensor = case.model(case.x, case.edge_index)
    case.model.train()
    return out


def adjacency(case: Any) -> Any:
    return lambda layer: case.dense.normalized(case.matrix(case.edge_index))


def rows(coin: Any, x: Tensor) -> Tensor:
    """Mask whole rows, without any scale."""
    return x * torch.tensor([[float(coin(row))] for row in range(len(x))], dtype=x.dtype)


def entries(coin: Any, x: Tensor) -> Tensor:
    kept = [[float(coin(row, column)) for column in range(x.size(1))] for row in range(x.size(0))]
    return x * torch.tensor(kept, dtype=x.dtype)


# --- rescale=eval: neither scaled twice nor never ------------------------------------------------


def test_scaling_in_evaluation_alone(case: Any, coins: Any, generators_untouched: None) -> None:
    def mask(layer: int, x: Tensor) -> Tensor:
        return entries(coins("dropout", 0.3, 7, layer), x)

    spec = "dropout:p=0.3,rescale=eval"
    torch.testing.assert_close(case.run(spec, 7), case.dense(case.x, adjacency(case), mask))
    scaled = case.dense(case.x, adjacency(case), lambda layer, x: 0.7 * x)
    torch.testing.assert_close(evaluate(case, spec), scaled)


@pytest.mark.parametrize("name", ["dropout", "drop-feature", "drop-node", "locked-dropout"])
def test_evaluation_draws_nothing_and_keeps_the_layout(
    name: str, generators_untouched: None
) -> None:
    operator = make_operator(f"{name}:p=0.25,rescale=eval").eval()
    x = torch.eye(4, 6, requires_grad=True)
    out = operator(x)
    assert torch.equal(out, 0.75 * x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 0.75))
    sparse = operator(to_csr(x.detach()))
    assert sparse.layout == torch.sparse_csr
    assert torch.equal(sparse.to_dense(), out)
    assert make_operator(f"{name}:p=0,rescale=eval").eval()(x) is x
    assert not make_operator(f"{name}:p=1,rescale=eval").eval()(x).any()
    assert not make_operator(name).eval().is_active


# --- GRAND ---------------------------------------------------------------------------------------


def test_grand_masks_the_input_alone_and_scales_it_in_evaluation(case: Any, coins: Any) -> None:
    coin = coins("drop-node", 0.4, 3)
    for share in ("layer", "forward"):
        spec = f"drop-node:p=0.4,preset=grand,share={share}"
        masked = case.dense(case.x, adjacency(case), lambda layer, x: x if layer else rows(coin, x))
        torch.testing.assert_close(case.run(spec, 3), masked)
        scaled = case.dense(case.x, adjacency(case), lambda layer, x: x if layer else 0.6 * x)
        torch.testing.assert_close(evaluate(case, spec), scaled)


def test_a_preset_sets_what_is_not_given() -> None:
    grand = DropNode(preset="grand")
    assert (grand.rescale, grand.input_only, grand.p) == ("eval", True, 0.5)
    assert grand.spec == "drop-node:p=0.5,preset=grand"
    mine = DropNode(0.2, preset="grand", rescale="inverse")  # given, though the default
    assert (mine.rescale, mine.input_only, mine.p) == ("inverse", True, 0.2)
    assert mine.spec == "drop-node:p=0.2,rescale=inverse,preset=grand"
    for operator in (grand, mine, DropNode()):
        assert make_operator(operator.spec).options == operator.options
    assert DropNode().preset is None
    with pytest.raises(ParameterError, match="preset must be one of grand, got 'sand'"):
        make_operator("drop-node:preset=sand")


def test_presets_are_for_every_operator() -> None:
    class Mine(Dropout):
        presets = {"loud": {"p": 0.9, "share": "forward"}}  # noqa: RUF012 - as a user writes it

        @with_presets
        def __init__(self, p: float = 0.5, share: Any = "layer", preset: str | None = None) -> None:
            super().__init__(p, share)

    assert (Mine(preset="loud").p, Mine(preset="loud").share) == (0.9, "forward")
    assert Mine(0.1, preset="loud").p == 0.1
    assert (Mine().p, Mine().preset) == (0.5, None)


# --- locked-dropout ------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", ["inverse", "none", "eval"])
def test_locked_dropout_is_dropout_shared(case: Any, coins: Any, rescale: str) -> None:
    locked, shared = LockedDropout(0.3, rescale), Dropout(0.3, "forward", rescale)
    assert torch.equal(case.run(locked, 5), case.run(shared, 5))
    assert torch.equal(evaluate(case, locked), evaluate(case, shared))
    coin, scale = coins("dropout", 0.3, 5), 0.7 if rescale == "inverse" else 1

    expected = case.dense(case.x, adjacency(case), lambda layer, x: entries(coin, x) / scale)
    torch.testing.assert_close(case.run(locked, 5), expected)


def test_locked_dropout_is_a_name_of_its_own() -> None:
    assert LockedDropout().spec == "locked-dropout:p=0.5"
    assert make_operator("locked-dropout:p=0.2").share == "forward"
    with pytest.raises(ParameterError, match="unknown option 'share'"):
        make_operator("locked-dropout:share=layer")
    with pytest.raises(ParameterError, match="share=forward needs a forward pass"):
        LockedDropout()(torch.ones(2, 2))
