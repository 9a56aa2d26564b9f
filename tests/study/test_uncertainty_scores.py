"""What methods say of the nodes of one run, against definitions written out here."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch_geometric.data import Data

from gnndrop.study.uncertainty_nodes import NodeTable, nodes_csv
from gnndrop.study.uncertainty_scores import Run
from gnndrop.uncertainty.strata import strata

NODES, CLASSES = 120, 3


@pytest.fixture
def run() -> Run:
    """A run of three members whose sampled mean is sharper than its softmax."""
    numbers = torch.Generator().manual_seed(0)
    logits = torch.randn(3, NODES, CLASSES, generator=numbers, dtype=torch.float64)
    logits[1:] = logits[:1] + 0.5 * logits[1:]
    y = (logits[0] + 1.5 * torch.randn(NODES, CLASSES, generator=numbers)).argmax(-1)
    y[:5] = -1
    place = torch.arange(NODES)
    ones = torch.rand(3, NODES, generator=numbers, dtype=torch.float64).numpy()
    sampled = {"mean": (2 * logits[0]).softmax(-1).numpy()} | dict(
        zip(("expected_entropy", "mutual_information", "variance"), ones, strict=True)
    )
    labelled = y >= 0
    return Run(logits, sampled, y, (place % 2 == 0) & labelled, (place % 2 == 1) & labelled)


def test_methods_are_what_their_names_say(run):
    members = torch.softmax(run.logits, -1)
    torch.testing.assert_close(run.probs["softmax"], members[0])
    torch.testing.assert_close(run.probs["ensemble"], members.mean(0))
    torch.testing.assert_close(
        run.probs["temperature"], torch.softmax(run.logits[0] / run.temperature, -1)
    )
    assert (run.probs["temperature"].argmax(-1) == run.probs["softmax"].argmax(-1)).all()
    torch.testing.assert_close(
        run.uncertainties["energy", "energy"], -run.logits[0].exp().sum(-1).log()
    )


def test_scores_agree_with_other_peoples_code(run):
    scores = run.scores()
    nodes = run.test.numpy()
    y = run.y.numpy()[nodes]
    for method, probs in run.probs.items():
        ours = probs.numpy()[nodes]
        assert scores[method, "", "accuracy"] == pytest.approx((ours.argmax(-1) == y).mean())
        assert scores[method, "", "nll"] == pytest.approx(log_loss(y, ours, labels=range(CLASSES)))
        assert scores[method, "", "confidence"] == pytest.approx(ours.max(-1).mean())
        error = ours.argmax(-1) != y
        assert scores[method, "max-probability", "auroc"] == pytest.approx(
            roc_auc_score(error, -ours.max(-1))
        )


def test_the_area_under_risk_and_coverage_by_its_definition(run):
    unsure = run.uncertainties["mc-dropout", "variance"][run.test]
    wrong = ~run.correct("mc-dropout")[run.test][unsure.argsort()]
    risks = wrong.double().cumsum(0) / torch.arange(1, len(wrong) + 1)
    assert run.scores()["mc-dropout", "variance", "aurc"] == pytest.approx(float(risks.mean()))


def test_the_temperature_never_sees_a_test_label(run):
    y = run.y.clone()
    y[run.test] = (y[run.test] + 1) % CLASSES
    other = Run(run.logits, run.sampled, y, run.validation, run.test)
    assert other.temperature == run.temperature
    assert other.referral("mc-dropout", 0.2) == run.referral("mc-dropout", 0.2)
    assert other.scores() != run.scores()


def test_unlabelled_nodes_count_nowhere(run):
    logits = run.logits.clone()
    logits[:, :5] = 99.0 * torch.eye(CLASSES)[0]
    other = Run(logits, run.sampled, run.y, run.validation, run.test)
    assert other.temperature == run.temperature
    assert other.scores()["ensemble", "", "ece"] == run.scores()["ensemble", "", "ece"]


def test_one_member_is_no_ensemble(run):
    alone = Run(run.logits[:1], run.sampled, run.y, run.validation, run.test)
    assert "ensemble" not in alone.probs
    assert not any(method == "ensemble" for method, _, _ in alone.scores())


def test_without_errors_there_is_nothing_to_find(run):
    sure = Run(run.logits, run.sampled, run.probs["softmax"].argmax(-1), run.validation, run.test)
    scores = sure.scores()
    assert math.isnan(scores["softmax", "entropy", "auroc"])
    assert scores["softmax", "entropy", "aurc"] == 0


def test_strata_partition_the_test_nodes(run):
    ring = torch.arange(NODES)
    data = Data(edge_index=torch.stack([ring, (ring + 1) % NODES]), y=run.y, num_nodes=NODES)
    found = run.by_stratum(strata(data, run.validation), ("softmax", "mc-dropout"))
    for by in ("homophily", "degree", "distance"):
        groups = [
            one for (method, name, _), one in found.items() if (method, name) == ("softmax", by)
        ]
        total = sum(one["nodes"] for one in groups)
        assert total == int(run.test.sum())
        right = sum(one["nodes"] * one["accuracy"] for one in groups if one["nodes"])
        assert right / total == pytest.approx(run.scores()["softmax", "", "accuracy"])


def test_a_referral_keeps_the_surest(run):
    kept, errors = run.referred("softmax", 0.2)
    sure = run.probs["softmax"].amax(-1)[run.test]
    chosen = sure >= run.referral("softmax", 0.2).threshold
    assert kept == pytest.approx(float(chosen.double().mean()))
    wrong = ~run.correct("softmax")[run.test][chosen]
    assert errors == pytest.approx(float(wrong.double().mean()))


def test_the_table_of_nodes_says_what_the_run_says(run):
    train = torch.zeros(NODES, dtype=torch.bool)
    edges = torch.empty(2, 0, dtype=torch.int64)
    table = NodeTable("graph", "gcn", "dropout", 0, (train, run.validation, run.test), run, edges)
    rows = list(table.rows(0.2))
    assert [row["label"] for row in rows[:6]] == ["", "", "", "", "", int(run.y[5])]
    assert [row["split"] for row in rows[4:8]] == ["", "test", "val", "test"]
    probs = run.probs["mc-dropout"]
    assert np.allclose([row["probability_2"] for row in rows], probs[:, 2])
    threshold = run.referral("mc-dropout", 0.2).threshold
    assert [row["refer"] for row in rows] == (probs.amax(-1) < threshold).int().tolist()
    header, *lines = nodes_csv([table], 0.2).splitlines()
    assert header.endswith("probability_0,probability_1,probability_2")
    assert len(lines) == NODES
