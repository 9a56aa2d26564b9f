"""The outcome: cells and verdicts from results, and every form they are shown in."""

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from gnndrop.config import CompareConfig
from gnndrop.study.plan import plan
from gnndrop.study.provenance import environment
from gnndrop.study.report import CSV_COLUMNS, GraphSummary, summarize_results
from gnndrop.study.store import Result

GRAPH = GraphSummary("graph", 10, 20, {"edge": 0.8, "node": math.nan}, True, "accuracy", 1, 0.5)
CONFIG = CompareConfig(("none", "dropout"), ("graph",), ("gcn",), seeds=6)


def outcome(operators, config, score, graphs=(GRAPH,)):
    """Return a comparison whose trials end as `score` says: (validation, test), or a status."""
    trials = plan(config, {graph.name: graph.splits for graph in graphs}, operators)
    results = {}
    for trial in trials:
        end = score(trial)
        if isinstance(end, str):
            results[trial.key] = Result(trial, end, error=f"it is {end}")
        else:
            results[trial.key] = Result(trial, "ok", *end, end[1], 1, 2, 1.0 + trial.seed)
    return summarize_results(config, graphs, trials, results, environment())


def gain(by):
    """Return scores where `dropout` is better by `by`, give or take."""
    return lambda trial: (
        0.5,
        0.7 + (trial.operator == "dropout") * (by + (trial.seed % 2) / 1000),
    )


def test_the_schema(operators):
    document = outcome(operators, CONFIG, gain(0.05)).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert list(document) == [
        *("schema", "environment", "protocol", "datasets", "cells", "verdicts", "failures")
    ]
    assert document["schema"] == 1
    assert document["datasets"][0].items() >= {"name": "graph", "nodes": 10, "edges": 20}.items()
    assert document["datasets"][0]["homophily"] == {"edge": 0.8, "node": None}
    cell, verdict = document["cells"][1], document["verdicts"][0]
    assert set(cell) >= {
        *("dataset", "model", "operator", "metric", "scores", "mean", "std", "seconds", "status")
    }
    assert set(verdict) >= {
        *("dataset", "model", "operator", "baseline", "difference", "interval", "p_value"),
        *("p_adjusted", "test", "pairs", "verdict", "wilcoxon_p", "equivalence_p"),
    }
    assert document["protocol"]["train"]["learning_rate"] == 0.01
    assert set(document["environment"]) >= {
        *("gnndrop", "python", "torch", "torch-geometric", "numpy", "scipy", "numba"),
        *("platform", "cpu", "cores"),
    }


def test_cells_stand_in_the_order_asked(operators):
    config = CompareConfig(("drop-edge", "none", "dropout"), ("graph",), ("mlp", "gcn"), seeds=1)
    cells = outcome(operators, config, gain(0)).cells
    assert [(cell.model, cell.operator) for cell in cells] == [
        *(("mlp", "none"), ("mlp", "drop-edge"), ("mlp", "dropout")),
        *(("gcn", "none"), ("gcn", "drop-edge"), ("gcn", "dropout")),
    ]


def test_a_cell_sums_up_its_trials(operators):
    comparison = outcome(operators, CONFIG, gain(0.05))
    cell = comparison.cells[1]
    assert cell.scores == pytest.approx([0.75, 0.751] * 3)
    assert cell.mean == pytest.approx(0.7505)
    assert cell.std == pytest.approx(0.0005 * math.sqrt(6 / 5))
    assert (cell.seconds, cell.status, cell.rates) == (3.5, "ok", ())


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (0.05, "helps gcn on graph: +5.0 points [5.0, 5.1], p < .001 (Holm)"),
        (-0.05, "hurts gcn on graph: -4.9 points [-5.0, -4.9], p < .001 (Holm)"),
        (
            -0.0005,
            "is equivalent to none within 1 point in gcn on graph: 0.0 points [-0.1, 0.1], "
            "p < .001 (equivalence, Holm)",
        ),
    ],
)
def test_sentences(operators, by, sentence):
    (found,) = outcome(operators, CONFIG, gain(by)).sentences()
    assert found == f"dropout {sentence}, 6 pairs, on this split."


def test_an_undecided_sentence(operators):
    (found,) = outcome(operators, replace(CONFIG, seeds=5), gain(0.05)).sentences()
    assert found.startswith("dropout is undecided in gcn on graph: +5.0 points [")
    assert found.endswith("5 pairs of the 6 it takes, on this split.")


def test_varying_splits_are_no_single_split(operators):
    graph = replace(GRAPH, splits=6)
    comparison = outcome(operators, CONFIG, gain(0.05), [graph])
    assert comparison.verdicts[0].test == "nadeau-bengio-t"
    assert "on this split" not in comparison.sentences()[0]


def test_seeds_are_averaged_within_a_split(operators):
    """Two seeds on each of six splits are six pairs; seeds that cancel leave nothing."""
    graph = replace(GRAPH, splits=6)
    config = replace(CONFIG, seeds=2, splits="all")

    def cancel(trial):
        sign = (1 if trial.seed else -1) if trial.operator == "dropout" else 0
        return 0.5, 0.5 + sign * (0.1 + trial.split / 100)

    (verdict,) = outcome(operators, config, cancel, [graph]).verdicts
    assert (verdict.pairs, verdict.test) == (6, "nadeau-bengio-t")
    assert verdict.interval == pytest.approx((0, 0), abs=1e-12)
    assert verdict.verdict == "equivalent"


def test_few_splits_are_few_pairs(operators):
    (verdict,) = outcome(operators, CONFIG, gain(0.05), [replace(GRAPH, splits=3)]).verdicts
    assert (verdict.pairs, verdict.verdict) == (3, "undecided")


@pytest.mark.parametrize("failing", ["none", "dropout"])
def test_a_failed_trial_leaves_no_verdict(operators, failing):
    def score(trial):
        fails = trial.operator == failing and trial.seed == 3
        return "failed" if fails else gain(0.05)(trial)

    comparison = outcome(operators, replace(CONFIG, seeds=8), score)
    (verdict,) = comparison.verdicts
    assert (verdict.verdict, verdict.missing, verdict.pairs) == ("undecided", 1, 7)
    cell = next(cell for cell in comparison.cells if cell.operator == failing)
    assert (cell.status, cell.scores[3], len(cell.scores)) == ("failed", None, 8)
    assert cell.mean is not None
    (failure,) = comparison.failures
    assert (failure.operator, failure.seed, failure.error) == (failing, 3, "it is failed")
    assert "1 of 8 pairs are missing" in comparison.sentences()[0]


def test_all_trials_failed(operators):
    comparison = outcome(operators, CONFIG, lambda trial: "failed")
    assert [cell.status for cell in comparison.cells] == ["failed", "failed"]
    assert (comparison.cells[0].mean, comparison.verdicts[0].difference) == (None, None)
    assert len(comparison.failures) == 12
    assert "undecided" in str(comparison)
    json.dumps(comparison.to_dict(), allow_nan=False)


def test_not_applicable_is_no_failure(operators):
    comparison = outcome(
        operators,
        CONFIG,
        lambda trial: "not-applicable" if trial.operator == "dropout" else (0.5, 0.5),
    )
    cell = comparison.cells[1]
    assert (cell.status, cell.scores, cell.mean) == ("not-applicable", (), None)
    assert comparison.verdicts == comparison.failures == ()
    assert "not-applicable" in str(comparison)


def test_the_restart_with_the_best_validation_counts(operators):
    """Rates and restarts are chosen on validation, though another would be better on test."""
    config = replace(CONFIG, rates=(0.1, 0.5, 0.9))
    validation = {0: 0.5, 1: 0.6, 2: 0.6}

    def score(trial):
        return validation[trial.restart], {0: 0.9, 1: 0.7, 2: 0.8}[trial.restart]

    none, dropout = outcome(operators, config, score).cells
    assert none.scores == dropout.scores == (0.7,) * 6  # the first of equals
    assert (none.rates, dropout.rates) == ((), (0.5,) * 6)


def test_a_restart_that_failed_leaves_no_score(operators):
    config = replace(CONFIG, rates=(0.1, 0.5), seeds=1)
    comparison = outcome(
        operators, config, lambda trial: "failed" if trial.rate == 0.5 else (0.5, 0.5)
    )
    assert comparison.cells[1].scores == (None,)
    assert comparison.failures[0].operator == "dropout:p=0.5"


def test_csv_has_a_line_for_each_cell(operators):
    comparison = outcome(operators, CONFIG, gain(0.05))
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [row["operator"] for row in rows] == ["none", "dropout"]
    assert tuple(rows[0]) == CSV_COLUMNS
    assert (rows[0]["verdict"], rows[1]["verdict"]) == ("", "better")
    assert float(rows[1]["mean"]) == comparison.cells[1].mean
    assert float(rows[1]["low"]) == comparison.verdicts[0].interval[0]
    assert (rows[1]["trials"], rows[1]["pairs"], rows[1]["baseline"]) == ("6", "6", "none")


def test_groups(operators):
    graphs = [GRAPH, replace(GRAPH, name="other", homophilous=False)]
    config = replace(CONFIG, datasets=("graph", "other"))
    comparison = outcome(operators, config, gain(0.05), graphs)
    assert (comparison.homophilous, comparison.heterophilous) == (("graph",), ("other",))
    text = str(comparison)
    assert text.index("graph (homophilous)") < text.index("other (heterophilous)")
    assert "75.1 ± 0.1 better" in text
    assert all(sentence in text for sentence in comparison.sentences())
