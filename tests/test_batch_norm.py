"""Where dropout reaches batch normalization; `tests/test_theory_general.py` measures the shift."""

import pytest
import torch
import torch_geometric.nn as pyg
from torch import nn

from gnndrop import models
from gnndrop.batch_norm import precedes_batch_norm, variance_shift
from gnndrop.errors import ParameterError


def convolutions(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, pyg.MessagePassing)]


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_our_models(norm: str) -> None:
    model = models.GCN(4, 8, 2, norm=norm)  # type: ignore[arg-type]  # a literal
    assert precedes_batch_norm(model, convolutions(model)) == (norm == "batch")


@pytest.mark.parametrize("norm", [None, "batch_norm", "layer_norm"])
def test_models_of_pyg(norm: str | None) -> None:
    model = pyg.GraphSAGE(4, 8, num_layers=2, norm=norm)
    assert precedes_batch_norm(model, convolutions(model)) == (norm == "batch_norm")


def test_only_what_comes_behind_counts() -> None:
    first, norm, last = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)
    model = nn.Sequential(first, norm, last)
    assert precedes_batch_norm(model, [first])
    assert precedes_batch_norm(model, [last, first])
    assert not precedes_batch_norm(model, [last])
    assert not precedes_batch_norm(model, [])


def test_a_layer_that_holds_its_normalization() -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert precedes_batch_norm(nn.Sequential(block), [block])


def test_without_running_statistics_nothing_shifts() -> None:
    linear = nn.Linear(4, 4)
    model = nn.Sequential(linear, nn.BatchNorm1d(4, track_running_stats=False))
    assert not precedes_batch_norm(model, [linear])


def test_the_shift_of_what_is_dropped_itself() -> None:
    """For a mean of zero it is the keep probability; a mean adds to the variance in training."""
    x = torch.tensor([[-1.0, 1.0], [1.0, 3.0]], dtype=torch.float64).repeat(500, 1)
    assert variance_shift(x, 0.0).tolist() == [1, 1]
    expected = [1 - 0.4, 1 / (1 + 0.4 / 0.6 * 5)]
    assert variance_shift(x, 0.4).tolist() == pytest.approx(expected, rel=2e-3)  # 1/n of variance
    with pytest.raises(ParameterError, match="p must be below 1"):
        variance_shift(x, 1.0)
