"""Sweeps: which points, paired how, and what is said of the textbook claim."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from gnndrop.config import TrainConfig
from gnndrop.errors import ParameterError, UnknownNameError
from gnndrop.study import compare
from gnndrop.study.session import at_rates
from gnndrop.study.sweep import read_numbers, sweep

GRAPH = "csbm:nodes=60,classes=2,features=4"
SHORT = TrainConfig(epochs=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small(over, operators=("drop-edge",), datasets=(GRAPH,), **options):
    return sweep(over, operators, datasets, **{"seeds": 2, "train": SHORT, "jobs": 1, **options})


@pytest.fixture
def scored(monkeypatch):
    """Return what a trial gets: scores by a rule instead of training, and the trials it saw."""
    seen = []

    def use(rule):
        def execute(trial, files, operators, models):
            from gnndrop.study.store import Result

            seen.append(trial)
            score = rule(trial)
            return Result(trial, "ok", score, score, score, 1, 2, 0.1)

        monkeypatch.setattr("gnndrop.study.session.train_trial", execute)
        return seen

    return use


def homophily(trial):
    return float(trial.dataset.split("homophily=")[1].split(",")[0])


def test_a_sweep_over_the_rate_is_a_comparison_of_the_operators_at_their_rates():
    found = small("rate", ("drop-edge", "dropout"), values=(0.2, 0.6), seeds=6)
    specs = ["drop-edge:p=0.2", "drop-edge:p=0.6", "dropout:p=0.2", "dropout:p=0.6"]
    same = compare(specs, [GRAPH], ["gcn"], 6, train=SHORT, jobs=1)
    assert [point.scores for point in found.points] == [cell.scores for cell in same.cells]
    assert [(point.difference, point.interval) for point in found.points[1:]] == [
        (verdict.difference, verdict.interval) for verdict in same.verdicts
    ]
    assert [(point.operator, point.value) for point in found.points] == [
        ("none", None),
        *[(name, rate) for name in ("drop-edge", "dropout") for rate in (0.2, 0.6)],
    ]
    assert found.claims == ()


@pytest.mark.parametrize("over", ["homophily", "signal", "degree"])
def test_on_an_axis_of_the_graph_each_seed_draws_its_own(over, scored):
    seen = scored(lambda trial: 0.5)
    values = (0.25, 1.0)
    found = small(over, values=values, rates=(0.3, 0.5), seeds=3)
    assert {trial.dataset for trial in seen} == {
        f"{GRAPH},{over}={value},seed={seed}" for value in values for seed in range(3)
    }
    for trial in seen:
        assert trial.random_state == int(trial.dataset[-1]) == trial.seed
        assert trial.split == 0
    assert len(seen) == 2 * 3 * (1 + 2)
    assert [(p.operator, p.value, p.rate) for p in found.points] == [
        (name, value, rate)
        for value in values
        for name, rate in (("none", None), ("drop-edge", 0.3), ("drop-edge", 0.5))
    ]


def test_depth_goes_to_the_model(scored):
    seen = scored(lambda trial: 0.5)
    found = small("depth", values=(2, 3), rates=(0.3,), models=["gcn:hidden_channels=8"])
    assert {trial.model for trial in seen} == {
        f"gcn:hidden_channels=8,num_layers={layers}" for layers in (2, 3)
    }
    assert {trial.dataset for trial in seen} == {GRAPH}
    assert {point.model for point in found.points} == {"gcn:hidden_channels=8"}


@pytest.mark.parametrize(
    ("above", "below", "answer"),
    [
        (-0.05, 0.05, "supported"),
        (0.05, 0.05, "contradicted"),
        (-0.05, -0.05, "contradicted"),
        (-0.05, 0.0, "undecided"),
        (0.0, 0.05, "undecided"),
    ],
)
def test_the_claim_is_answered_by_the_signs_in_the_two_halves(scored, above, below, answer):
    def score(trial):
        if trial.operator == "none":
            return 0.5
        gain = above if homophily(trial) > 0.8 else below
        return 0.5 + gain + 0.001 * (-1) ** trial.seed

    scored(score)
    found = small("homophily", values=(0.1, 0.3, 0.9), rates=(0.3, 0.5), seeds=8)
    (claim,) = found.claims
    assert found.homophilous == (0.9,)
    assert claim.answer == answer
    assert claim.homophilous.difference == pytest.approx(above)
    (sentence,) = found.sentences()
    assert f"is {answer} (under homophily (0.9)" in sentence


def test_where_a_half_begins_is_the_graphs_own_matter(scored):
    """At 0.5 adjusted homophily is 0 with two classes, and 3/8 with five."""

    def score(trial):
        gains = {0.1: 0.05, 0.5: 0.01, 0.9: -0.05}
        gain = 0.0 if trial.operator == "none" else gains[homophily(trial)]
        return 0.5 + gain + 0.001 * (-1) ** trial.seed

    scored(score)
    graphs = [f"csbm:nodes=400,classes={classes},features=4" for classes in (2, 5)]
    found = small("homophily", datasets=graphs, values=(0.1, 0.5, 0.9), rates=(0.5,), seeds=8)
    assert found.homophilous == (0.5, 0.9)
    two, five = found.claims
    assert (two.values, five.values) == ((0.9,), (0.5, 0.9))
    assert two.homophilous.difference == pytest.approx(-0.05)
    assert two.heterophilous.difference == pytest.approx(0.03)
    assert five.homophilous.difference == pytest.approx(-0.02)
    assert five.heterophilous.difference == pytest.approx(0.05)
    assert "under heterophily (0.1, 0.5)" in found.sentences()[0]
    assert "under heterophily (0.1)" in found.sentences()[1]


def test_a_half_is_tested_on_the_means_of_its_seeds(scored):
    """An independent reference: scipy's t interval of the means over values and rates."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0.5, 0.05, (4, 3, 8))  # values, operators at rates, seeds
    values, rates = (0.1, 0.3, 0.7, 0.9), (0.2, 0.4)

    def score(trial):
        row = values.index(homophily(trial))
        column = 0 if trial.operator == "none" else 1 + rates.index(float(trial.spec[-3:]))
        return float(noise[row, column, trial.seed])

    scored(score)
    (claim,) = small("homophily", values=values, rates=rates, seeds=8).claims
    for verdict, rows in ((claim.heterophilous, slice(0, 2)), (claim.homophilous, slice(2, 4))):
        gains = (noise[rows, 1:] - noise[rows, :1]).mean(axis=(0, 1))
        interval = stats.ttest_1samp(gains, 0.0).confidence_interval()
        assert verdict.difference == pytest.approx(gains.mean())
        assert verdict.interval == pytest.approx((interval.low, interval.high))
        assert verdict.pairs == 8


def test_nothing_is_never_negative(scored):
    """A gain of -0.01 points is written 0.0."""
    scored(lambda trial: 0.5 - 0.0001 * (trial.operator != "none"))
    text = str(small("homophily", values=(0.1, 0.9), rates=(0.3,), seeds=8))
    assert "-0.0" not in text
    assert "+0.0" not in text
    assert "the gain is 0.0 points [0.0, 0.0], 8 graphs" in text


def test_one_half_alone_decides_nothing(scored):
    scored(lambda trial: 0.5 if trial.operator == "none" else 0.4)
    (claim,) = small("homophily", values=(0.9,), rates=(0.3,), seeds=8).claims
    assert claim.heterophilous is None
    assert claim.answer == "undecided"


def test_a_failed_trial_is_a_missing_pair_of_its_point_and_half(scored):
    def score(trial):
        if trial.operator != "none" and trial.seed == 3 and homophily(trial) == 0.1:
            raise ArithmeticError("the loss must be finite")
        return 0.5 if trial.operator == "none" else 0.6

    scored(score)
    found = small("homophily", values=(0.1, 0.9), rates=(0.3,), seeds=8)
    (claim,) = found.claims
    assert claim.heterophilous.missing == 1
    assert claim.heterophilous.verdict == "undecided"
    assert claim.homophilous.verdict == "better"
    assert len(found.failures) == 1
    assert "seed 3: ArithmeticError: the loss must be finite" in str(found)


def test_an_operator_without_a_place_is_said_so_and_bears_on_no_claim():
    found = small("homophily", values=(0.1, 0.9), rates=(0.3,), models=["mlp"])
    assert {point.status for point in found.points if point.operator == "drop-edge"} == {
        "not-applicable"
    }
    assert found.claims == ()
    assert "not-applicable" in str(found)


def test_the_text_has_a_row_for_each_operator_and_rate():
    found = small("signal", values=(1, 2), rates=(0.3, 0.5))
    lines = str(found).splitlines()
    assert lines[0] == f"gcn on {GRAPH}, over signal"
    assert lines[1].split() == ["1", "2"]
    rows = [line.partition("  ")[0] for line in lines[2:5]]
    assert rows == ["none", "drop-edge p=0.3", "drop-edge p=0.5"]
    none = next(point for point in found.points if point.operator == "none")
    assert lines[2].split()[1] == f"{100 * none.mean:.1f}"


def test_json_and_csv_hold_every_point(cache):
    found = small("homophily", values=(0.1, 0.9), rates=(0.3,))
    assert not list(cache.glob("runs/*"))  # complete, and nobody asked to keep it
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(document["points"]) == 4
    assert document["claims"][0]["operator"] == "drop-edge"
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["operator"] for row in rows] == ["none", "drop-edge"] * 2
    assert rows[0]["low"] == ""
    assert float(rows[1]["low"]) == found.points[1].interval[0]


def test_an_interrupted_sweep_continues(tmp_path, monkeypatch):
    def interrupt(done, total, result):
        if done == 3:
            raise KeyboardInterrupt

    arguments = {"values": (0.1, 0.9), "rates": (0.3,), "out": tmp_path / "run"}
    with pytest.raises(KeyboardInterrupt):
        small("homophily", on_result=interrupt, **arguments)
    counts = []
    found = small("homophily", on_result=lambda done, *_: counts.append(done), **arguments)
    assert counts == [3, *range(4, 9)]
    assert found.points == small("homophily", values=(0.1, 0.9), rates=(0.3,)).points


@pytest.mark.parametrize(
    ("over", "options", "message"),
    [
        ("homophly", {}, "did you mean 'homophily'?"),
        ("rate", {"rates": (0.1,)}, "leave rates out"),
        ("rate", {"values": (1.5,)}, r"rates must be in \[0, 1\], got 1.5"),
        ("rate", {"values": (0.1, 0.1)}, "each once"),
        ("rate", {"operators": ()}, "operators must be given"),
        ("rate", {"operators": ("none",)}, "must have a rate p"),
        ("rate", {"operators": ("dropout:p=0.1",)}, "leave p out"),
        ("rate", {"datasets": ()}, "datasets must be given"),
        ("homophily", {"datasets": ("karate",)}, "needs csbm graphs"),
        ("homophily", {"datasets": ("csbm:homophily=0.1",)}, "leave homophily out"),
        ("homophily", {"datasets": ("csbm:seed=1",)}, "leave seed out"),
        ("homophily", {"values": (1.5,)}, r"homophily must be in \[0, 1\]"),
        ("homophily", {"values": (float("nan"),)}, "homophily"),
        ("homophily", {"rates": (float("nan"),)}, "rates must be in"),
        ("homophily", {"seeds": 0}, "seeds must be at least 1"),
        ("depth", {"values": (2.5,)}, "whole numbers"),
        ("depth", {"values": (float("nan"),)}, "whole numbers"),
        ("depth", {"models": ("gcn:num_layers=2",)}, "leave num_layers out"),
        ("depth", {"jobs": 0}, "jobs must be at least 1"),
    ],
)
def test_wrong_input_is_told_before_anything_runs(over, options, message, cache):
    with pytest.raises(ParameterError, match=message):
        small(over, **options)
    assert not list(cache.rglob("trials/*"))


def test_an_unknown_operator_is_told():
    with pytest.raises(UnknownNameError, match="did you mean 'drop-edge'"):
        small("rate", ("drop-egde",))


def test_another_sweep_is_refused_in_a_run_folder(tmp_path):
    small("rate", values=(0.1,), out=tmp_path)
    with pytest.raises(ParameterError, match="choose another folder"):
        small("rate", values=(0.2,), out=tmp_path)


def test_helpers():
    assert read_numbers("", "values") == ()
    for text in (",", "some", "0.1,,0.2"):
        with pytest.raises(ParameterError, match="values must be numbers"):
            read_numbers(text, "values")
    assert at_rates("dropout+drop-edge", (0.1,)) == [("dropout:p=0.1+drop-edge:p=0.1", 0.1)]
