"""What a figure shows: scales that hold what they must, curves of what differs by its rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnndrop.study.figures import Axis, curves, difference_axis
from gnndrop.study.statistics import Pairing, judge


def verdict(operator, differences):
    return judge([Pairing("graph", "gcn", operator, "none", tuple(differences), 0.0)])[0]


def around(mean, pairs=6):
    return [mean + (0.001 if place % 2 else -0.001) for place in range(pairs)]


@given(st.floats(-1e3, 1e3), st.floats(1e-6, 1e3))
def test_ticks_are_few_round_and_inside(low, span):
    axis = Axis(low, low + span)
    assert 2 <= len(axis.ticks) <= 6
    slack = 1e-6 * (span + abs(low))
    assert all(low - slack <= tick <= low + span + slack for tick in axis.ticks)
    steps = {round(b - a, 9) for a, b in zip(axis.ticks, axis.ticks[1:], strict=False)}
    assert len(steps) <= 2  # one, but for rounding
    step = max(steps)
    assert any(
        math.isclose(step, digit * 10.0**power, rel_tol=1e-3)
        for digit in (1, 2, 5)
        for power in range(-9, 4)
    )


def test_an_axis_is_linear_and_clipped():
    axis = Axis(0.0, 10.0, start=100.0, end=0.0)
    assert [axis.at(value) for value in (-5, 0, 2.5, 10, 11)] == [100, 100, 75, 0, 0]
    assert axis.holds(10)
    assert not axis.holds(10.01)


def test_the_margin_and_zero_are_always_shown():
    axis = difference_axis([verdict("a", around(0.2))], margin=0.01)
    assert all(axis.holds(value) for value in (-1, 0, 1, 20.1))
    assert difference_axis([], margin=0.01).holds(0)


def test_an_interval_of_two_pairs_does_not_squash_the_rest():
    few = verdict("few", [0.0, 0.1])  # its interval reaches beyond half of the scale
    assert few.interval[1] > 0.5
    axis = difference_axis([verdict("many", around(0.02)), few], margin=0.01)
    assert axis.holds(5)
    assert not axis.holds(100 * few.interval[1])


def test_curves_are_what_differs_by_its_rate_alone():
    specs = [
        *("drop-edge:p=0.7", "drop-edge:p=0.1", "drop-edge:p=0.3,symmetric=false"),
        *("dropout:p=0.5", "drop-edge:symmetric=false,p=0.5", "none", "drop-node"),
        *("dropout:p=0.1+drop-edge:p=0.2", "dropout:p=0.1/0.2"),
    ]
    found = curves([verdict(spec, around(0.01)) for spec in specs])
    assert [(curve.operator, [point.rate for point in curve.rates]) for curve in found] == [
        ("drop-edge", [0.1, 0.7]),
        ("drop-edge:symmetric=false", [0.3, 0.5]),
    ]
    assert found[0].rates[0].verdict.operator == "drop-edge:p=0.1"


def test_a_point_without_a_difference_is_no_point():
    assert curves([verdict("a:p=0.1", []), verdict("a:p=0.2", around(0.0))]) == []


@pytest.mark.parametrize("mean", [0.0, 0.2, -0.2])
def test_curves_grow_upwards(mean):
    axis = difference_axis([verdict("a", around(mean))], 0.01, start=190.0, end=16.0)
    assert axis.at(1) < axis.at(-1)
