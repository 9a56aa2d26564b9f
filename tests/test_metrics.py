"""The metrics against counting."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnndrop.errors import ParameterError
from gnndrop.metrics import METRICS, accuracy, roc_auc

nodes = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 1)), min_size=1, max_size=12
)


def split(rows: list[tuple[int, int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.tensor(rows)
    return table[:, :2].float(), table[:, 2]


@given(nodes)
def test_accuracy_counts(rows) -> None:
    logits, y = split(rows)
    hits = sum((first >= second) == (label == 0) for first, second, label in rows)
    assert accuracy(logits, y) == pytest.approx(hits / len(rows))
    assert METRICS["accuracy"] is accuracy


def test_accuracy_is_exact_for_many_nodes() -> None:
    """A float32 mean would be off: 2^24 is where it stops counting."""
    y = torch.zeros(3_000_001, dtype=torch.int64)
    logits = torch.tensor([[1.0, 0.0]]).repeat(len(y), 1)
    logits[0] = torch.tensor([0.0, 1.0])
    assert accuracy(logits, y) == 3_000_000 / 3_000_001


def test_accuracy_of_nobody_is_nan() -> None:
    assert math.isnan(accuracy(torch.empty(0, 3), torch.empty(0, dtype=torch.int64)))


@given(nodes)
def test_roc_auc_counts_pairs(rows) -> None:
    logits, y = split(rows)
    scores = [(second - first, label) for first, second, label in rows]
    positive = [score for score, label in scores if label == 1]
    negative = [score for score, label in scores if label == 0]
    if not positive or not negative:
        with pytest.raises(ParameterError, match="both present"):
            roc_auc(logits, y)
        return
    wins = sum((p > n) + (p == n) / 2 for p in positive for n in negative)
    assert roc_auc(logits, y) == pytest.approx(wins / len(positive) / len(negative))
    assert METRICS["roc_auc"] is roc_auc


def test_roc_auc_ignores_what_both_logits_share() -> None:
    logits, y = torch.tensor([[5.0, 6.0], [0.0, 0.5], [9.0, 8.0]]), torch.tensor([1, 1, 0])
    assert roc_auc(logits, y) == 1


def test_roc_auc_takes_logits_in_a_graph_of_derivatives() -> None:
    logits = torch.eye(2, requires_grad=True) * 1
    assert roc_auc(logits, torch.tensor([0, 1])) == 1


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [(3, [0, 1]), (1, [0, 1]), (2, [0, 0]), (2, [1, 1]), (2, [1, 2]), (2, [-1, 1]), (2, [0, 1, 2])],
)
def test_roc_auc_needs_two_classes(outputs: int, labels: list[int]) -> None:
    with pytest.raises(ParameterError, match="labels 0 and 1, both present"):
        roc_auc(torch.zeros(len(labels), outputs), torch.tensor(labels))
