"""The study of uncertainty end to end, on graphs that are drawn."""

import pickle

import numpy as np
import pytest
import torch

from gnndrop.config import TrainConfig
from gnndrop.datasets import load
from gnndrop.errors import DataError, ParameterError
from gnndrop.models import GCN, MODELS
from gnndrop.operators import OPERATORS
from gnndrop.study.graphs import write_graph
from gnndrop.study.store import Result
from gnndrop.study.uncertainty import assess_uncertainty
from gnndrop.study.uncertainty_plan import UncertaintyConfig, plan_members
from gnndrop.study.uncertainty_store import OutputStore
from gnndrop.study.uncertainty_trial import load_weights, sample_trial
from gnndrop.uncertainty.sampling import mc_predict

GRAPH = "csbm:nodes=80,classes=2,features=4"
QUICK = {"samples": 4, "train": TrainConfig(epochs=3), "jobs": 1}


def numbers(assessment):
    return [(cell.method, cell.score, cell.task, cell.scores) for cell in assessment.study.cells]


def test_every_method_is_scored_at_every_task(generators_untouched):
    found = assess_uncertainty(["dropout"], [GRAPH], seeds=2, members=2, **QUICK)
    methods = {cell.method for cell in found.study.cells}
    assert methods == {"softmax", "energy", "temperature", "ensemble", "mc-dropout"}
    assert {cell.task for cell in found.study.cells if cell.method == "mc-dropout"} == {
        *("accuracy", "confidence", "nll", "brier", "ece", "aurc", "e-aurc", "auroc")
    }
    assert all(len(cell.scores) == 2 for cell in found.study.cells)
    assert {one.by for one in found.study.strata} == {"homophily", "degree", "distance"}
    (facts,) = found.study.facts
    assert "dropout:p=0.5" in facts.sites[0]
    (table,) = found.nodes
    assert len(list(table.rows(0.1))) == 80


def test_results_do_not_depend_on_jobs_and_do_on_seeds(tmp_path):
    settings = {**QUICK, "seeds": 2, "members": 1}
    alone = assess_uncertainty(["drop-edge"], [GRAPH], **settings)
    shared = assess_uncertainty(["drop-edge"], [GRAPH], **{**settings, "jobs": 2})
    assert numbers(alone) == numbers(shared)
    nll = next(cell for cell in alone.study.cells if cell.task == "nll")
    assert nll.scores[0] != nll.scores[1]


def test_a_run_goes_on_where_it_ended_and_repeats_what_was_torn(tmp_path):
    settings = {**QUICK, "seeds": 2, "members": 2, "out": tmp_path / "run"}
    first = assess_uncertainty(["dropout"], [GRAPH], **settings)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(written) == 4
    torn, lost, *whole = written
    torn.write_bytes(torn.read_bytes()[:100])
    lost.unlink()
    again = assess_uncertainty(["dropout"], [GRAPH], **settings)
    assert numbers(again) == numbers(first)
    assert all(path.stat().st_mtime_ns == written[path] for path in whole)
    # How it is judged may change, what was run may not.
    assess_uncertainty(["dropout"], [GRAPH], **settings, risk=0.3, margin=0.1)
    with pytest.raises(ParameterError, match="samples"):
        assess_uncertainty(["dropout"], [GRAPH], **{**settings, "samples": 5})


def test_the_model_that_is_sampled_is_the_one_that_is_evaluated(tmp_path):
    dataset = load(GRAPH)
    config = UncertaintyConfig(("dropout",), (GRAPH,), ("gcn",), seeds=1, members=1)
    (trial,) = plan_members(config, {GRAPH: 1})
    model = GCN(4, 64, out_channels=2)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    write_graph(dataset, tmp_path / "graph.pt")
    store = OutputStore(tmp_path)
    result = sample_trial(
        trial, {GRAPH: tmp_path / "graph.pt"}, OPERATORS, MODELS, store, 5, tmp_path / "weights.pt"
    )
    assert (result.status, result.validation) == ("ok", None)
    outputs = store.outputs(trial)
    with torch.no_grad():
        logits = model.eval()(dataset.data.x, dataset.data.edge_index)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6)
    from gnndrop.attach import attach

    with attach(model, "dropout"):
        prediction = mc_predict(model, dataset.data, samples=5, seed=trial.random_state)
    np.testing.assert_allclose(outputs["mean"], prediction.mean, atol=1e-6)
    np.testing.assert_allclose(outputs["variance"], prediction.std.square().sum(-1), atol=1e-9)


def test_what_was_written_is_not_unpickled(tmp_path):
    config = UncertaintyConfig(("dropout",), ("graph",), ("gcn",), seeds=1, members=1)
    (trial,) = plan_members(config, {"graph": 1})
    store = OutputStore(tmp_path)
    store.save_outputs(trial, {"logits": np.zeros(2)})
    store.save(Result(trial, "ok"))
    assert list(store.results([trial])) == [trial.key]
    (path,) = tmp_path.rglob("*.npz")
    np.savez(path, logits=np.array([{}], dtype=object))
    assert store.outputs(trial) is None
    assert store.results([trial]) == {}


def test_a_low_rate_is_not_judged_by_the_first_two_samples():
    """Of 34 nodes at 0.001 two samples may well be equal; 200 are not."""
    found = assess_uncertainty(
        ["drop-edge:p=0.001"], ["karate"], seeds=1, members=1, **{**QUICK, "samples": 200}
    )
    assert found.study.failures == ()


def test_a_batch_normalization_is_warned_of_once():
    """Of eight trainings and samplings: where the sites are looked for."""
    with pytest.warns(UserWarning, match="acts before a batch normalization") as told:
        assess_uncertainty(["dropout"], [GRAPH], ["gcn:norm=batch"], seeds=2, members=2, **QUICK)
    assert len(told) == 1


def test_unlabelled_nodes_take_no_part():
    labelled = load(GRAPH)
    dataset = load(GRAPH)
    dataset.data.y = labelled.data.y.clone()
    nodes = torch.cat([mask.nonzero()[:3, 0] for mask in dataset.splits[0]])
    dataset.data.y[nodes] = -1
    found = assess_uncertainty(["dropout"], [dataset], seeds=1, members=1, **QUICK)
    assert not found.study.failures
    assert found.study.unlabelled == {GRAPH: 9}
    rows = list(found.nodes[0].rows(0.1))
    assert all(rows[node]["label"] == "" for node in nodes.tolist())
    total = sum(one.nodes for one in found.study.strata if one.by == "degree")
    assert total == 2 * (int(dataset.splits[0].test.sum()) - 3)  # of two methods


def test_an_operator_without_a_place_is_no_failure():
    found = assess_uncertainty(["drop-attention"], [GRAPH], seeds=1, members=1, **QUICK)
    assert [cell.status for cell in found.study.cells] == ["not-applicable"]
    assert not found.study.failures


def test_a_model_that_fails_costs_its_seed_alone(monkeypatch):
    from gnndrop.study import uncertainty_trial

    fit = uncertainty_trial.fit

    def fail_once(model, *arguments, **options):
        if torch.initial_seed() == 1:
            raise ArithmeticError("no")
        return fit(model, *arguments, **options)

    monkeypatch.setattr(uncertainty_trial, "fit", fail_once)
    found = assess_uncertainty(["dropout"], [GRAPH], seeds=3, members=1, **QUICK)
    assert [one.seed for one in found.study.failures] == [1]
    accuracy = next(cell for cell in found.study.cells if cell.task == "accuracy")
    assert [score is None for score in accuracy.scores] == [False, True, False]
    assert {one.missing for one in found.study.verdicts} == {1}


@pytest.mark.parametrize("operator", ["none", "dropout:p=0", "drop-edge:p=0"])
def test_nothing_random_is_told_before_anything_runs(tmp_path, operator):
    with pytest.raises(ParameterError, match=r"random site|drop something"):
        assess_uncertainty([operator], [GRAPH], out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_a_graph_without_test_nodes_is_refused():
    dataset = load(GRAPH)
    dataset.splits[0] = dataset.splits[0]._replace(test=torch.zeros(80, dtype=torch.bool))
    with pytest.raises(ParameterError, match="train, validate and test"):
        assess_uncertainty(["dropout"], [dataset], **QUICK)


class TestCheckpoints:
    @pytest.fixture
    def path(self, tmp_path):
        torch.manual_seed(0)
        torch.save(GCN(4, 64, out_channels=2).state_dict(), tmp_path / "weights.pt")
        return tmp_path / "weights.pt"

    def test_weights_are_taken_instead_of_training(self, path):
        with torch.random.fork_rng():
            found = assess_uncertainty(
                ["dropout"], [GRAPH], seeds=1, members=1, checkpoint=path, **QUICK
            )
        assert len(found.study.protocol["checkpoint"]) == 64
        assert found.study.facts[0].best_epoch is None
        assert not any(cell.method == "ensemble" for cell in found.study.cells)

    def test_another_file_is_another_study(self, path, tmp_path):
        settings = {**QUICK, "seeds": 1, "members": 1, "checkpoint": path, "out": tmp_path / "run"}
        assess_uncertainty(["dropout"], [GRAPH], **settings)
        torch.save(GCN(4, 64, out_channels=2).state_dict(), path)
        with pytest.raises(ParameterError, match="checkpoint"):
            assess_uncertainty(["dropout"], [GRAPH], **settings)

    @pytest.mark.parametrize("content", [b"", b"nonsense", b"hello", pickle.dumps(print)])
    def test_what_is_no_checkpoint_is_one_sentence(self, tmp_path, content):
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        with pytest.raises(DataError, match="must be what") as caught:
            load_weights(GCN(4, 8, out_channels=2), path)
        assert "\n" not in str(caught.value)

    def test_a_whole_model_is_not_unpickled(self, tmp_path):
        torch.save(GCN(4, 8, out_channels=2), tmp_path / "model.pt")
        with pytest.raises(DataError, match="state_dict"):
            load_weights(GCN(4, 8, out_channels=2), tmp_path / "model.pt")

    def test_a_list_is_no_state_dict(self, tmp_path):
        torch.save([torch.zeros(1)], tmp_path / "list.pt")
        with pytest.raises(DataError, match="names to tensors, got list"):
            load_weights(GCN(4, 8, out_channels=2), tmp_path / "list.pt")

    def test_weights_of_another_model_are_one_sentence(self, path):
        with pytest.raises(ParameterError, match="size mismatch") as caught:
            load_weights(GCN(4, 16, out_channels=2), path)
        assert "\n" not in str(caught.value)

    def test_weights_that_are_not_finite_are_refused(self, path):
        weights = torch.load(path, weights_only=True)
        next(iter(weights.values())).fill_(float("nan"))
        torch.save(weights, path)
        with pytest.raises(ParameterError, match="finite"):
            load_weights(GCN(4, 64, out_channels=2), path)
