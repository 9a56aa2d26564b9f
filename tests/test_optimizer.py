"""Adam called as a function: torch's class, to the bit."""

import pytest
import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.optimizer import Adam

STEPS = 5


def parameters(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Also a single number, nothing at all, and what is laid out column by column."""
    generator = torch.Generator().manual_seed(0)
    shapes = (6, 4), (7,), (), (0, 3), (5, 8)
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    made[-1] = made[-1].t()
    assert not made[-1].is_contiguous()
    return [one.requires_grad_() for one in made]


def derive(parameters: list[Tensor], step: int, skipped: tuple[tuple[int, int], ...] = ()) -> None:
    """Give every parameter a gradient, but for those skipped, by step and place."""
    generator = torch.Generator().manual_seed(100 + step)
    for place, one in enumerate(parameters):
        one.grad = None
        slope = torch.randn(one.shape, generator=generator).to(one.dtype)
        if (step, place) not in skipped:
            (one * slope).sum().backward()


def compare(
    decays: list[tuple[slice, float]],
    dtype: torch.dtype = torch.float32,
    skipped: tuple[tuple[int, int], ...] = (),
    learning_rate: float = 0.01,
) -> list[Tensor]:
    """Take steps by both, with no gradient at (step, place); return what ours has reached."""
    ours, torchs = parameters(dtype), parameters(dtype)
    mine = Adam([(ours[part], decay) for part, decay in decays], learning_rate)
    groups = [{"params": torchs[part], "weight_decay": decay} for part, decay in decays]
    theirs = torch.optim.Adam(groups, lr=learning_rate, fused=True)
    for step in range(STEPS):
        derive(ours, step, skipped)
        derive(torchs, step, skipped)
        mine.step()
        theirs.step()
        for one, other in zip(ours, torchs, strict=True):
            assert torch.equal(one, other)
    assert all(one.is_leaf and one.requires_grad for one in ours)
    return ours


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_is_torchs(dtype, decay) -> None:
    reached = compare([(slice(None), decay)], dtype)
    for one, before in zip(reached, parameters(dtype), strict=True):
        assert torch.equal(one, before) == (one.numel() == 0)


@pytest.mark.parametrize(
    "decays",
    [
        [(slice(0, 2), 0.5), (slice(2, None), 0.0)],
        [(slice(0, 2), 0.5), (slice(2, 2), 0.1), (slice(2, None), 0.2)],
        [(slice(0, 1), 0.1)],  # the others stay
    ],
)
def test_groups_have_a_decay_each(decays) -> None:
    compare(decays, learning_rate=0.1)


def test_decays_differ() -> None:
    """Where nothing else does."""
    first, second = (compare([(slice(None), decay)]) for decay in (0.0, 0.5))
    assert not torch.equal(first[0], second[0])


def test_without_a_gradient_nothing_moves() -> None:
    """Neither the parameter nor its number of steps, at the first steps or in between."""
    skipped = ((0, 0), (1, 0), (2, 1), (3, 2), *((step, 4) for step in range(STEPS)))
    reached = compare([(slice(None), 0.1)], skipped=skipped)
    assert torch.equal(reached[4], parameters()[4])


@pytest.mark.parametrize("groups", [[], [([], 0.0)], [([], 0.1), ([], 0.0)]])
def test_nothing_to_move(groups) -> None:
    Adam(groups, 0.1).step()


def test_groups_may_be_given_once() -> None:
    one = torch.ones(2, requires_grad=True)
    optimizer = Adam(iter([([one], 0.0)]), 0.25)
    for expected in (0.75, 0.5):
        one.grad = torch.ones(2)
        optimizer.step()
        torch.testing.assert_close(one, torch.full((2,), expected))


def test_the_layout_of_a_parameter_changes_nothing() -> None:
    """The fused step walks through memory: autograd lays the gradient out like the parameter."""
    reached = []
    for layout in (Tensor.contiguous, lambda one: one.t().contiguous().t()):
        one = layout(torch.linspace(-1, 1, 40).view(8, 5)).requires_grad_()
        optimizer = Adam([([one], 0.1)], 0.01)
        for step in range(STEPS):
            derive([one], step)
            optimizer.step()
        reached.append(one)
    assert reached[0].stride() != reached[1].stride()
    assert torch.equal(*reached)


def test_nothing_is_noted() -> None:
    one = torch.ones(2, requires_grad=True)
    one.grad = torch.ones(2, requires_grad=True)
    Adam([([one], 0.1)], 0.1).step()
    assert one.grad_fn is None
    assert torch.equal(one.grad, torch.ones(2))


def test_gradients_may_be_laid_out_in_any_way() -> None:
    """Torch's fused operation mistakes those that are laid out otherwise than their parameter."""
    ours, torchs = parameters(), parameters()
    mine, theirs = Adam([(ours, 0.1)], 0.01), torch.optim.Adam(torchs, 0.01, weight_decay=0.1)
    for step in range(STEPS):
        for made in (ours, torchs):
            derive(made, step)
            for one in made:
                assert one.grad is not None
                flipped = one.grad.t().contiguous().t() if one.dim() == 2 else one.grad.clone()
                one.grad = flipped if one.is_contiguous() else one.grad.contiguous()
        assert any(one.grad.stride() != one.stride() for one in ours if one.grad is not None)
        mine.step()
        theirs.step()
        for one, other in zip(ours, torchs, strict=True):
            torch.testing.assert_close(one, other)


def test_parameters_with_gaps_are_refused() -> None:
    gaps = torch.ones(4, 4)[:, ::2].requires_grad_()
    with pytest.raises(ParameterError, match=r"fill their memory, got shape \(4, 2\)"):
        Adam([([gaps], 0.0)], 0.1)


def test_steps_are_counted_in_float32() -> None:
    """Whatever torch's default is: it reads them so on other devices."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        compare([(slice(None), 0.1)])
        optimizer = Adam([([torch.ones(1, requires_grad=True)], 0.0)], 0.1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert optimizer._groups[0]._clock.dtype == torch.float32
