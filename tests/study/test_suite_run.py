"""Running suites: folders, missing data, published numbers, factors."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from gnndrop.config import TrainConfig
from gnndrop.errors import DataError, ParameterError
from gnndrop.study.bench import GraphSource, run_suite
from gnndrop.study.estimate import estimate_suite
from gnndrop.study.factors import Contrast, factor_effects
from gnndrop.study.protocol import compare
from gnndrop.study.published import difference_interval, reproduce
from gnndrop.study.report import Cell
from gnndrop.study.statistics import paired_test
from gnndrop.study.suite import PublishedRow, Suite
from gnndrop.study.uncertainty import assess_uncertainty

GRAPH = "csbm:nodes=60,classes=2,features=4"
TEXT = f"""
title = "Tiny"
description = "D"
budget = "1 second"
[[comparison]]
name = "plain"
datasets = ["{GRAPH}"]
models = ["mlp"]
operators = ["dropout"]
seeds = 6
train = {{epochs = 3}}
[[comparison]]
name = "deep"
against = "plain"
datasets = ["{GRAPH}"]
models = ["mlp:num_layers=3"]
operators = ["dropout"]
seeds = 6
train = {{epochs = 3}}
[[published]]
comparison = "deep"
dataset = "{GRAPH}"
model = "mlp:num_layers=3"
operator = "dropout"
value = 50
spread = 1
runs = 3
margin = 5
source = "nobody"
"""
ASSESSMENT = f"""
title = "Tiny"
description = "D"
budget = "1 second"
[[uncertainty]]
name = "worth"
datasets = ["{GRAPH}"]
models = ["mlp"]
operators = ["dropout"]
seeds = 2
samples = 3
members = 2
train = {{epochs = 3}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GNNDROP_DATA", raising=False)


def suite(text: str = TEXT) -> Suite:
    return Suite("tiny", text, "tiny.toml")


def test_a_suite_is_its_comparisons(tmp_path) -> None:
    calls = []
    result = run_suite(
        suite(), out=tmp_path / "out", jobs=1, on_result=lambda *call: calls.append(call[:3])
    )
    alone = compare(
        *(["dropout"], [GRAPH], ["mlp:num_layers=3"], 6),
        train=suite().settings.comparison[1].config().train,
        jobs=1,
    )
    assert result.comparisons["deep"].cells[1].scores == alone.cells[1].scores
    assert calls[0] == ("plain", 0, 12)
    assert calls[-1] == ("deep", 12, 12)
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (study["schema"], study["suite"], study["finished"]) == (1, "tiny", True)
    assert study["comparisons"] == ["plain", "deep"]
    assert study["left_out"] == []
    assert study["seconds"] >= 0
    assert (study["published"][0]["ours"], study["published"][0]["value"]) == (
        alone.cells[1].mean,
        0.5,
    )
    assert (tmp_path / "out" / "suite.toml").read_text() == TEXT
    document = json.loads((tmp_path / "out" / "deep" / "result.json").read_text())
    assert document == json.loads(json.dumps(result.comparisons["deep"].to_dict()))
    assert len(list((tmp_path / "out" / "deep" / "trials").iterdir())) == 12
    assert (tmp_path / "out" / "deep" / "config.json").is_file()
    json.dumps(result.to_dict(), allow_nan=False)


def test_a_folder_resumes_its_own_suite_and_refuses_another(tmp_path) -> None:
    first = run_suite(suite(), out=tmp_path, jobs=1)
    trials = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/trials/*")}
    # What is only said of it may change.
    again = run_suite(suite(TEXT.replace('"D"', '"E"')), out=tmp_path, jobs=1)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/trials/*")} == trials
    assert again.factors == first.factors
    for other, options in (
        (TEXT.replace("epochs = 3", "epochs = 4"), {}),
        (TEXT.replace('"deep"', '"other"'), {}),
        (TEXT, {"seeds": 2}),
    ):
        with pytest.raises(ParameterError, match="choose another folder"):
            run_suite(suite(other), out=tmp_path, jobs=1, **options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/trials/*")} == trials


def test_a_folder_with_something_else_is_left_alone(tmp_path) -> None:
    (tmp_path / "study.json").write_text("notes of mine")
    with pytest.raises(ParameterError, match="choose another"):
        run_suite(suite(), out=tmp_path, jobs=1)
    assert (tmp_path / "study.json").read_text() == "notes of mine"
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["study.json"]


def test_a_folder_resumed_with_other_seeds_says_so(tmp_path) -> None:
    run_suite(suite(), out=tmp_path, jobs=1, seeds=2)
    for seeds, got in ((3, "--seeds 3"), (None, "the suite's own")):
        with pytest.raises(ParameterError, match=f"got {got} for .* was run with --seeds 2; give"):
            run_suite(suite(), out=tmp_path, jobs=1, seeds=seeds)


@pytest.mark.parametrize("name", ["config.json", "suite.toml"])
def test_a_folder_of_another_run_is_refused_and_kept(tmp_path, name) -> None:
    (tmp_path / name).write_text("of mine")
    with pytest.raises(ParameterError, match="choose another folder"):
        run_suite(suite(), out=tmp_path, jobs=1)
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == [name]
    assert (tmp_path / name).read_text() == "of mine"


def test_its_own_text_is_no_other_run(tmp_path) -> None:
    """What a kill between the two files leaves."""
    (tmp_path / "suite.toml").write_text(ASSESSMENT)
    run_suite(suite(ASSESSMENT), out=tmp_path, jobs=1)
    assert (tmp_path / "study.json").is_file()


def test_an_assessment_is_that_of_assess_uncertainty(tmp_path) -> None:
    calls = []
    result = run_suite(
        suite(ASSESSMENT), out=tmp_path, jobs=1, on_result=lambda *call: calls.append(call[:3])
    )
    alone = assess_uncertainty(
        ["dropout"], [GRAPH], ["mlp"], 2, samples=3, members=2, train=TrainConfig(3), jobs=1
    ).study
    assert (calls[0], calls[-1]) == (("worth", 0, 4), ("worth", 4, 4))
    scores = [[cell.scores for cell in one.cells] for one in (result.assessments["worth"], alone)]
    assert scores[0] == scores[1]
    assert (result.comparisons, result.failures) == ({}, 0)
    study = json.loads((tmp_path / "study.json").read_text())
    assert (study["comparisons"], study["assessments"]) == ([], ["worth"])
    kept = json.loads((tmp_path / "worth" / "result.json").read_text())
    assert kept == json.loads(json.dumps(result.assessments["worth"].to_dict(), allow_nan=False))
    assert result.to_dict()["assessments"]["worth"]["cells"] == kept["cells"]


def test_an_assessment_is_resumed_and_refused_when_changed(tmp_path) -> None:
    def interrupt(name: str, done: int, total: int, result: object) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite(ASSESSMENT), out=tmp_path, jobs=1, on_result=interrupt)
    assert not json.loads((tmp_path / "study.json").read_text())["finished"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("worth/trials/*")}
    assert len(before) == 3
    resumed = run_suite(suite(ASSESSMENT), out=tmp_path, jobs=1)
    assert (
        before.items()
        < {path: path.stat().st_mtime_ns for path in tmp_path.glob("worth/trials/*")}.items()
    )
    unbroken = run_suite(suite(ASSESSMENT), jobs=1)
    ends = [[cell.scores for cell in one.assessments["worth"].cells] for one in (resumed, unbroken)]
    assert ends[0] == ends[1]
    with pytest.raises(ParameterError, match="must be resumed with its own suite"):
        run_suite(suite(ASSESSMENT.replace("samples = 3", "samples = 4")), out=tmp_path, jobs=1)


def test_an_assessment_leaves_out_what_is_missing() -> None:
    text = ASSESSMENT.replace("datasets = [", 'datasets = ["cora", ')
    result = run_suite(suite(text), jobs=1)
    assert [(one.comparison, one.dataset) for one in result.left_out] == [("worth", "cora")]
    assert {cell.dataset for cell in result.assessments["worth"].cells} == {GRAPH}
    with pytest.raises(DataError, match=r"^no graph of tiny.toml is to be had"):
        run_suite(suite(ASSESSMENT.replace(GRAPH, "cora")), jobs=1)


def test_an_estimate_counts_the_models_of_an_assessment() -> None:
    (estimate,), left_out = estimate_suite(suite(ASSESSMENT), jobs=1, seeds=3)
    assert (estimate.comparison, estimate.trials, left_out) == ("worth", 6, [])
    assert list(estimate.cells) == [(GRAPH, "mlp", "dropout")]
    assert estimate.seconds == pytest.approx(6 * estimate.cells[GRAPH, "mlp", "dropout"])


def test_an_estimate_without_any_graph_is_an_error_of_data() -> None:
    with pytest.raises(DataError, match=r"^no graph of tiny.toml is to be had: .*cora"):
        estimate_suite(suite(TEXT.replace(GRAPH, "cora")), jobs=1)


def test_an_interrupted_suite_says_so_and_continues(tmp_path) -> None:
    def interrupt(name: str, done: int, total: int, result: object) -> None:
        if (name, done) == ("deep", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite(), out=tmp_path, jobs=1, on_result=interrupt)
    study = json.loads((tmp_path / "study.json").read_text())
    assert (study["finished"], study["comparisons"]) == (False, ["plain", "deep"])
    before = set(tmp_path.glob("*/trials/*"))
    assert len(before) == 15
    result = run_suite(suite(), out=tmp_path, jobs=1)
    assert before < set(tmp_path.glob("*/trials/*"))
    unbroken = run_suite(suite(), jobs=1)
    ends = [[cell.scores for cell in one.comparisons["deep"].cells] for one in (result, unbroken)]
    assert ends[0] == ends[1]
    assert json.loads((tmp_path / "study.json").read_text())["finished"]


def test_a_graph_that_cannot_be_had_is_named_and_the_rest_runs(tmp_path) -> None:
    text = TEXT.replace(f'datasets = ["{GRAPH}"]', f'datasets = ["cora", "{GRAPH}"]', 1)
    result = run_suite(suite(text), out=tmp_path / "out", jobs=1, seeds=2)
    ((name, dataset),) = {(one.comparison, one.dataset) for one in result.left_out}
    assert (name, dataset) == ("plain", "cora")
    assert "cora" in result.left_out[0].reason
    assert {cell.dataset for cell in result.comparisons["plain"].cells} == {GRAPH}
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (study["left_out"][0]["dataset"], study["seeds"]) == ("cora", 2)


def test_a_published_row_without_its_graph_is_undecided() -> None:
    text = TEXT.replace(GRAPH, "cora").replace('"cora"', f'"{GRAPH}"', 1)
    (row,) = run_suite(suite(text), jobs=1, seeds=2).published
    assert (row.ours, row.interval, row.agreement) == (None, None, "undecided")


def test_without_any_graph_it_is_an_error_of_data() -> None:
    with pytest.raises(DataError, match=r"^no graph of tiny.toml is to be had: .*cora"):
        run_suite(suite(TEXT.replace(GRAPH, "cora")), jobs=1)


def test_seeds_override_every_comparison() -> None:
    result = run_suite(suite(), jobs=1, seeds=2)
    assert {len(cell.scores) for one in result.comparisons.values() for cell in one.cells} == {2}
    with pytest.raises(ParameterError, match="seeds must be at least 1, got 0"):
        run_suite(suite(), jobs=1, seeds=0)


def test_undirected_gives_every_edge_its_reverse(root_with) -> None:
    source = GraphSource(root_with("texas"))
    one_way, both = source.load("texas"), source.load("texas", undirected=True)
    assert (one_way.data.is_undirected(), both.data.is_undirected()) == (False, True)
    pairs = {tuple(edge) for edge in one_way.data.edge_index.t().tolist()}
    there = {tuple(edge) for edge in both.data.edge_index.t().tolist()}
    assert there == pairs | {(target, source) for source, target in pairs}
    assert both.name == "texas"
    assert "reverse" in both.note
    assert source.load("texas") is one_way


def test_an_estimate_counts_the_trials_that_a_run_does() -> None:
    estimates, left_out = estimate_suite(suite(TEXT.replace(GRAPH, "cora", 1)), jobs=1, seeds=2)
    assert [(one.comparison, one.trials) for one in estimates] == [("plain", 0), ("deep", 4)]
    assert estimates[1].seconds > 0
    assert [one.dataset for one in left_out] == ["cora"]
    twice, _ = estimate_suite(suite(), jobs=2, seeds=2)
    assert [one.trials for one in twice] == [4, 4]


def row(**changes: object) -> PublishedRow:
    names = {"comparison": "c", "dataset": "d", "model": "m", "operator": "o", "source": "s"}
    return PublishedRow(**{**names, "value": 80.0, "margin": 1.0, **changes})


def cell(*scores: float | None) -> Cell:
    status = "failed" if None in scores else "ok"
    return Cell("d", "m", "o", "accuracy", scores, None, None, None, (), status)


@pytest.mark.parametrize(
    ("scores", "agreement"),
    [
        ((0.799, 0.800, 0.801, 0.802), "agrees"),
        ((0.805, 0.806, 0.804, 0.805), "agrees"),  # it excludes 0, within the margin
        ((0.829, 0.830, 0.831, 0.832), "differs"),
        ((0.769, 0.770, 0.771, 0.772), "differs"),
        ((0.70, 0.80, 0.90), "undecided"),
        ((0.86, 0.83, 0.80), "undecided"),
        ((0.80,), "undecided"),
        ((0.80, 0.80, None), "undecided"),
        ((), "undecided"),
        ((0.80, 0.80), "agrees"),  # equal scores are handled
        ((0.82, 0.82), "differs"),
    ],
)
def test_agreement_is_an_interval_within_the_margin(scores, agreement) -> None:
    assert reproduce(row(), cell(*scores)).agreement == agreement


def test_units_are_those_of_the_metric() -> None:
    points = reproduce(row(spread=2.0), cell(0.8, 0.82))
    fraction = reproduce(row(value=0.8, spread=0.02, margin=0.01, unit="fraction"), cell(0.8, 0.82))
    assert points.interval == pytest.approx(fraction.interval)
    assert (points.margin, points.spread) == pytest.approx((0.01, 0.02))
    assert points.difference == pytest.approx(0.01)


def test_the_interval_is_welchs() -> None:
    """Against scipy, whose test takes the moments."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.normal(0.8, 0.02, 10), generator.normal(0.78, 0.05, 4)
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    interval = difference_interval(
        ours.tolist(), float(theirs.mean()), float(theirs.std(ddof=1)), runs=4
    )
    assert interval == pytest.approx((expected.low, expected.high))


def test_a_spread_without_its_runs_is_the_error_itself() -> None:
    low, high = difference_interval([0.8, 0.8, 0.8], 0.8, 0.01)
    assert (low, high) == pytest.approx((-0.01 * stats.norm.ppf(0.975), 0.01 * 1.959964), rel=1e-6)
    exact = difference_interval([0.79, 0.80, 0.81], 0.8)
    reach = stats.t.ppf(0.975, 2) * 0.01 / math.sqrt(3)
    assert exact == pytest.approx((-reach, reach))


def test_a_factor_is_tested_on_paired_gains() -> None:
    result = run_suite(suite(), jobs=1)
    (effect,) = result.factors
    none, dropout = ([c.scores for c in result.comparisons[n].cells] for n in ("plain", "deep"))
    gains = [np.subtract(scores[1], scores[0]) for scores in (none, dropout)]
    expected = paired_test((gains[1] - gains[0]).tolist())
    assert (effect.comparison, effect.against, effect.operator) == ("deep", "plain", "dropout")
    assert effect.effect == pytest.approx(expected.difference)
    assert effect.interval == pytest.approx(expected.interval)
    assert (effect.gain, effect.gain_against) == pytest.approx((gains[1].mean(), gains[0].mean()))


def test_where_splits_vary_the_unit_is_the_split() -> None:
    graph = f"{GRAPH},splits=3"
    outcomes = [
        compare(["dropout"], [graph], [model], 6, jobs=1) for model in ("mlp", "mlp:num_layers=1")
    ]
    (effect,) = factor_effects([Contrast("new", "old", outcomes[1], outcomes[0])])
    assert effect.pairs == 3
    assert effect.verdict == "undecided"


def test_no_pairs_no_effects() -> None:
    one = compare(["dropout"], [GRAPH], ["mlp"], 2, jobs=1)
    other = compare(["dropout"], [GRAPH], ["mlp"], 3, jobs=1)
    assert factor_effects([Contrast("new", "old", one, other)]) == []
    assert factor_effects([]) == []


def test_the_result_is_kept_whole_when_a_disk_is_full(tmp_path, monkeypatch) -> None:
    run_suite(suite(), out=tmp_path, jobs=1)
    before = (tmp_path / "study.json").read_text()

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        run_suite(suite(), out=tmp_path, jobs=1)
    assert (tmp_path / "study.json").read_text() == before
    assert not list(tmp_path.glob(".*.tmp"))
