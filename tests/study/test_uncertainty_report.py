"""From scores by seed to cells, verdicts and sentences."""

import dataclasses
import json
import math

import pytest

from gnndrop.study.report import GraphSummary
from gnndrop.study.statistics import paired_test
from gnndrop.study.uncertainty_report import (
    Scored,
    UncertaintyStudy,
    cells_of,
    groups_of,
    judge_all,
)
from gnndrop.study.uncertainty_words import sentences, strata_sentences

PLACE = ("graph", "gcn", "dropout")
JITTER = (0.0, 0.001, -0.001, 0.002, -0.002, 0.0005)


def scored(mc: float, softmax: float, task: str = "ece", score: str = "", **changes) -> Scored:
    """Return six runs in which the two methods differ by about as much."""
    runs = tuple(
        {("mc-dropout", score, task): mc + off, ("softmax", score, task): softmax - off}
        for off in JITTER
    )
    found = Scored(*PLACE, (0,) * 6, runs, (), 1.0, "ok")
    return dataclasses.replace(found, **changes)


def study(one: Scored, ratio: float = 2.0) -> UncertaintyStudy:
    graph = GraphSummary("graph", 9, 9, {}, True, "accuracy", 1, ratio)
    return UncertaintyStudy(
        cells=tuple(cells_of(one, ratio, 0.05)),
        verdicts=judge_all([one], {"graph": ratio}, 0.01, 0.05),
        strata=tuple(groups_of(one)),
        facts=(),
        datasets=(graph,),
        unlabelled={"graph": 3},
        failures=(),
        protocol={},
        environment={},
    )


@pytest.mark.parametrize(
    ("task", "score", "mc", "verdict"),
    [
        ("ece", "", 0.25, "worse"),
        ("ece", "", 0.15, "better"),
        ("accuracy", "", 0.25, "better"),
        ("auroc", "entropy", 0.15, "worse"),
        ("nll", "", 0.2002, "equivalent"),
    ],
)
def test_what_is_better_depends_on_the_task(task, score, mc, verdict):
    (found,) = judge_all([scored(mc, 0.2, task, score)], {"graph": 2.0}, 0.01, 0.05)
    assert found.verdict == verdict
    assert found.difference == pytest.approx(mc - 0.2, abs=1e-3)
    low, high = found.interval
    assert low < found.difference < high
    same = paired_test([mc - 0.2 + 2 * off for off in JITTER])
    assert (low, high) == pytest.approx(same.interval)


def test_varying_splits_are_judged_as_resplits():
    fixed, varying = (
        judge_all([scored(0.21, 0.2, splits=splits)], {"graph": 2.0}, 0.01, 0.05)[0]
        for splits in ((0,) * 6, tuple(range(6)))
    )
    assert (fixed.test, varying.test) == ("paired-t", "nadeau-bengio-t")
    width = [high - low for low, high in (fixed.interval, varying.interval)]
    assert width[1] / width[0] == pytest.approx(math.sqrt((1 / 6 + 2) / (1 / 6)))


def test_seeds_on_one_of_several_splits_are_averaged_first():
    (found,) = judge_all([scored(0.21, 0.2, splits=(0, 1, 2, 0, 1, 2))], {"graph": 2.0}, 0.01, 0.05)
    assert (found.pairs, found.verdict) == (3, "undecided")


def test_verdicts_are_adjusted_for_their_number():
    one = scored(0.21, 0.2)
    alone, *_ = judge_all([one], {"graph": 2.0}, 0.01, 0.05)
    first, second = judge_all([one, one], {"graph": 2.0}, 0.01, 0.05)
    assert first.p_value == second.p_value == alone.p_adjusted
    assert first.p_adjusted == pytest.approx(2 * alone.p_adjusted)


def test_a_run_that_failed_is_a_pair_that_is_missing():
    one = scored(0.25, 0.2)
    one = dataclasses.replace(one, scores=(None, *one.scores[1:]), status="failed")
    (found,) = judge_all([one], {"graph": 2.0}, 0.01, 0.05)
    assert (found.missing, found.pairs, found.verdict) == (1, 5, "undecided")
    assert "1 of 6 pairs are missing" in sentences(study(one), PLACE)[0]
    cell = next(cells_of(one, 2.0, 0.05))
    assert (cell.scores[0], cell.status) == (None, "failed")


def test_what_has_no_place_is_one_cell_and_no_verdict():
    one = scored(0.25, 0.2, scores=(None,) * 6, status="not-applicable")
    found = study(one)
    assert [(cell.status, cell.scores) for cell in found.cells] == [("not-applicable", ())]
    assert found.verdicts == ()


def test_sentences_say_who_is_better_at_what_and_by_how_much():
    sentence, *_ = sentences(study(scored(0.25, 0.2)), PLACE)
    assert sentence.startswith(
        "For calibration (ECE) MC dropout (25.0) is worse than softmax by 5.0 points ["
    )
    assert sentence.endswith("on this split. Best mean: 20.0, softmax.")
    sentence, *_ = sentences(study(scored(0.15, 0.2)), PLACE)
    assert "MC dropout (15.0) is better than softmax by 5.0 points [" in sentence
    assert sentence.endswith("Best mean: 15.0, MC dropout.")


def test_an_auroc_below_one_half_is_called_inverted():
    found = sentences(study(scored(0.4, 0.6, "auroc", "entropy")), PLACE)
    (inverted,) = [line for line in found if "inverted here" in line]
    assert "MC dropout's entropy" in inverted
    assert "chance" not in inverted
    found = sentences(study(scored(0.4995, 0.6, "auroc", "entropy")), PLACE)
    (inverted,) = [line for line in found if "inverted here" in line]
    assert "within the error of chance" in inverted
    assert not any(
        "inverted" in line for line in sentences(study(scored(0.7, 0.6, "auroc", "entropy")), PLACE)
    )


def test_mutual_information_is_judged_against_what_costs_nothing():
    runs = tuple(
        {
            ("mc-dropout", "mutual-information", "auroc"): 0.6 + off,
            ("softmax", "entropy", "auroc"): 0.75,
        }
        for off in JITTER
    )
    found = sentences(study(scored(0, 0, scores=runs)), PLACE)
    assert any(
        "by its mutual information (60.0) is worse than softmax's entropy by 15.0 points" in line
        for line in found
    )


def test_groups_with_few_nodes_are_shown_and_not_ranked():
    def group(nodes: float, error: float) -> dict[str, float]:
        return {"nodes": nodes, "accuracy": 0.5, "confidence": 0.6, "ece": error, "auroc": math.nan}

    runs = tuple(
        {
            ("mc-dropout", "degree", "1"): group(31 + more, 0.1),
            ("mc-dropout", "degree", "2-3"): group(40, 0.2),
            ("mc-dropout", "degree", "4-7"): group(29 + more, 0.9),
            ("mc-dropout", "degree", "8-15"): {"nodes": 0.0},
        }
        for more in (0, 10)
    )
    groups = list(groups_of(scored(0, 0, strata=runs)))
    assert [(one.group, one.nodes, one.ranked) for one in groups] == [
        ("1", 36, True),
        ("2-3", 40, True),
        ("4-7", 34, False),
    ]
    assert groups[0].auroc is None
    (sentence,) = strata_sentences(groups)
    assert "at 2-3 (40 nodes): ECE 20.0" in sentence


def test_the_document_is_json_without_nan():
    one = scored(math.nan, 0.2, "auroc", "entropy")
    document = study(one).to_dict()
    text = json.dumps(document, allow_nan=False)
    assert json.loads(text)["datasets"][0]["unlabelled"] == 3
    assert document["verdicts"][0]["missing"] == 6
