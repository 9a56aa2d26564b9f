"""How a verdict reads."""

import pytest

from gnndrop.study.statistics import Pairing, judge
from gnndrop.study.words import p_text, signed_points, verdict_sentence


def sentence(differences, ratio=0.0, missing=0):
    pairing = Pairing("cora", "gcn", "drop-edge", "none", tuple(differences), ratio, missing)
    return verdict_sentence(judge([pairing])[0], 0.01)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            [0.05, 0.0508] * 4,
            "drop-edge helps gcn on cora: +5.0 points [5.0, 5.1], p < .001 (Holm)",
        ),
        ([-0.05, -0.0508] * 4, "drop-edge hurts gcn on cora: -5.0 points [-5.1, -5.0], p < .001 "),
        ([0.0] * 8, "drop-edge is equivalent to none within 1 point in gcn on cora: 0.0 points "),
        (
            [0.2, -0.2] * 4,
            "drop-edge is undecided in gcn on cora: 0.0 points [-17.9, 17.9], p = 1.",
        ),
    ],
)
def test_decisions(differences, expected):
    found = sentence(differences)
    assert found.startswith(expected)
    assert found.endswith("8 pairs, on this split.")


def test_the_p_of_an_equivalence_is_its_own():
    assert "p < .001 (equivalence, Holm)" in sentence([0.0] * 8)


def test_varying_splits_are_no_single_split():
    assert sentence([0.05, 0.0508] * 4, ratio=0.5).endswith("8 pairs.")


def test_what_cannot_be_said():
    assert "5 pairs of the 6 it takes" in sentence([0.05, 0.051, 0.05, 0.051, 0.05])
    assert "undecided in gcn on cora: it takes 6 pairs, got 1, on" in sentence([0.05])
    assert "it takes 6 pairs, got 0" in sentence([])
    assert "undecided in gcn on cora: 2 of 8 pairs are missing" in sentence([0.05] * 6, missing=2)


def test_numbers():
    assert [signed_points(value) for value in (0.0149, -0.0149, -0.0001, 0.0004)] == [
        *("+1.5", "-1.5", "0.0", "0.0")
    ]
    assert [p_text(value) for value in (1.0, 0.05, 0.0004, 0.0)] == [
        *("p = 1.000", "p = .050", "p < .001", "p < .001")
    ]
