"""`compare` itself: real graphs, models and operators, small."""

from dataclasses import replace

import pytest
import torch

from gnndrop.config import TrainConfig
from gnndrop.datasets import Dataset, load
from gnndrop.errors import ParameterError, UnknownNameError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.study import compare
from gnndrop.study.graphs import fingerprint, read_graph, summarize, write_graph
from gnndrop.study.plan import Trial
from gnndrop.study.trial import train_trial

GRAPH = "csbm:nodes=80,classes=2,features=8,homophily=0.9"
SHORT = TrainConfig(epochs=4)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dataset():
    return load(GRAPH)


def small(*operators, jobs=1, datasets=(GRAPH,), models=("gcn",), **options):
    options = {"seeds": 3, "train": SHORT, **options}
    return compare(operators, datasets, models, jobs=jobs, **options)


def make_trial(**changes):
    trial = Trial(GRAPH, "gcn", "dropout", "dropout", 0, 0, 0, None, 7, SHORT, "cpu")
    return replace(trial, **changes)


def run_trial(dataset, tmp_path, **changes):
    path = tmp_path / "graph.pt"
    if not path.exists():
        write_graph(dataset, path)
    return train_trial(make_trial(**changes), {GRAPH: path}, OPERATORS, MODELS)


@pytest.mark.parametrize("jobs", [1, 2])
def test_end_to_end(jobs, cache):
    comparison = small("dropout", "drop-edge:p=0.3", jobs=jobs, models=("gcn", "mlp"))
    ends = {(cell.model, cell.operator): cell.status for cell in comparison.cells}
    assert ends == {
        ("gcn", "none"): "ok",
        ("gcn", "dropout"): "ok",
        ("gcn", "drop-edge:p=0.3"): "ok",
        ("mlp", "none"): "ok",
        ("mlp", "dropout"): "ok",
        ("mlp", "drop-edge:p=0.3"): "not-applicable",
    }
    assert all(0 <= score <= 1 for cell in comparison.cells for score in cell.scores)
    assert len(comparison.verdicts) == 3
    assert comparison.failures == ()
    assert comparison.homophilous == (GRAPH,)
    assert not list(cache.glob("runs/*"))


def test_jobs_do_not_change_the_scores():
    one, two = (small("dropout", jobs=jobs) for jobs in (1, 2))
    assert [cell.scores for cell in one.cells] == [cell.scores for cell in two.cells]
    assert one.verdicts == two.verdicts


def test_an_interrupted_comparison_continues_by_itself(cache):
    """Without a run folder, too; and it ends with the scores of an unbroken run."""

    def interrupt(done, total, result):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small("dropout", on_result=interrupt)
    calls = []
    resumed = small("dropout", on_result=lambda done, total, result: calls.append(done))
    assert calls[0] == 3
    assert not list(cache.glob("runs/*"))
    unbroken = small("dropout")
    assert [cell.scores for cell in resumed.cells] == [cell.scores for cell in unbroken.cells]


def test_a_run_folder_resumes_and_refuses_another_comparison(tmp_path):
    calls = []
    first = small("dropout", out=tmp_path, command="gnndrop compare")
    again = small("dropout", out=tmp_path, on_result=lambda *call: calls.append(call))
    assert first == again
    assert calls == [(6, 6, None)]
    with pytest.raises(ParameterError, match=r"config\.seeds 3 there and 4 here"):
        small("dropout", out=tmp_path, seeds=4)


def test_a_run_folder_refuses_other_data(tmp_path, dataset):
    small("dropout", out=tmp_path, datasets=[dataset])
    other = replace(dataset, data=dataset.data.clone())
    other.data.x += 1
    with pytest.raises(ParameterError, match="data"):
        small("dropout", out=tmp_path, datasets=[other])


def test_a_dataset_of_ones_own_is_its_spec(dataset):
    own, spec = (small("dropout", datasets=[item]) for item in (dataset, GRAPH))
    assert [cell.scores for cell in own.cells] == [cell.scores for cell in spec.cells]


def test_an_operator_of_ones_own_reaches_the_workers(monkeypatch):
    """What a script registers is known to worker processes that never ran the script."""
    from gnndrop.operators import Dropout

    class OwnDropout(Dropout):  # local: cloudpickle sends it by value, as from a script
        pass

    monkeypatch.setattr(OPERATORS, "_entries", {**dict(OPERATORS), "own": OwnDropout})
    comparison = small("own", jobs=2)
    assert [cell.status for cell in comparison.cells] == ["ok", "ok"]


def test_rates_are_chosen_on_validation():
    none, dropout = small("dropout", rates=(0.1, 0.9)).cells
    assert none.rates == ()
    assert len(dropout.rates) == 3
    assert set(dropout.rates) <= {0.1, 0.9}


def test_a_diverging_trial_is_a_failure(dataset):
    wild = replace(dataset, data=dataset.data.clone())
    wild.data.x[wild.splits[0].train] = torch.nan
    comparison = small("dropout", datasets=[wild])
    assert {cell.status for cell in comparison.cells} == {"failed"}
    assert comparison.failures
    assert comparison.verdicts[0].verdict == "undecided"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"operators": ["drop-egde"]}, UnknownNameError),
        ({"operators": ["dropout:p=2"]}, ParameterError),
        ({"operators": ["dropout:rate=0.1"]}, ParameterError),
        ({"operators": ["dropout:p=0.1"], "rates": [0.1, 0.2]}, ParameterError),
        ({"models": ["gnc"]}, UnknownNameError),
        ({"models": ["gcn:num_layers=0"]}, ParameterError),
        ({"datasets": ["coar"]}, UnknownNameError),
        ({"datasets": ["csbm:nodes=x"]}, ParameterError),
        ({"datasets": [GRAPH], "seeds": 0}, ParameterError),
        ({"datasets": [GRAPH], "jobs": 0}, ParameterError),
        ({"datasets": [GRAPH], "device": "nowhere"}, ParameterError),
    ],
)
def test_wrong_input_is_found_before_the_first_trial(options, error, cache):
    with pytest.raises(error):
        compare(
            **{"datasets": [GRAPH], "train": SHORT, "jobs": 1, **options}, on_result=pytest.fail
        )
    assert not list(cache.glob("runs/*"))


def test_an_empty_split_is_refused(dataset):
    train, val, test = dataset.splits[0]
    empty = replace(dataset, splits=[(train, val, torch.zeros_like(test))])
    with pytest.raises(ParameterError, match="each must hold nodes"):
        small("dropout", datasets=[empty])


def test_a_trial_is_reproducible_and_leaves_the_generator_alone(dataset, tmp_path):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    first = run_trial(dataset, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    again, other = run_trial(dataset, tmp_path), run_trial(dataset, tmp_path, random_state=8)
    assert replace(again, seconds=first.seconds) == first
    assert (other.train, other.validation) != (first.train, first.validation)


def test_operators_start_from_the_same_weights(dataset, tmp_path, monkeypatch):
    """Pairing: training begins with equal weights, whatever operator is attached."""
    seen = []

    def look(model, data, config, *, split, metric):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        raise ParameterError("seen")

    monkeypatch.setattr("gnndrop.study.trial.fit", look)
    for spec in ("none", "dropout", "drop-edge:p=0.3", "drop-message"):
        with pytest.raises(ParameterError, match="seen"):
            run_trial(dataset, tmp_path, spec=spec)
    assert len(seen) == 4
    for weights in seen[1:]:
        assert weights.keys() == seen[0].keys()
        assert all(torch.equal(weights[name], seen[0][name]) for name in weights)


def test_graphs_reach_the_workers_to_the_bit(dataset, tmp_path):
    write_graph(dataset, tmp_path / "graph.pt")
    graph = read_graph(tmp_path / "graph.pt", "cpu")
    for name in ("x", "edge_index", "y"):
        assert torch.equal(graph.data[name], dataset.data[name])
    for there, here in zip(graph.splits, dataset.splits, strict=True):
        assert all(map(torch.equal, there, here))
    assert (graph.classes, graph.metric) == (2, "accuracy")


def test_fingerprints_tell_contents_apart(dataset):
    assert fingerprint(dataset) == fingerprint(load(GRAPH))
    changed = [replace(dataset, data=dataset.data.clone()) for _ in range(2)]
    changed[0].data.x[0, 0] += 1e-6
    changed[1].data.y[0] = 1 - changed[1].data.y[0]
    more = replace(dataset, splits=dataset.splits * 2)
    assert len({fingerprint(each) for each in (dataset, *changed, more)}) == 4


def test_the_summary_of_a_dataset():
    dataset = load("karate")
    summary = summarize(dataset)
    assert (summary.nodes, summary.edges, summary.splits) == (34, 156, len(dataset.splits))
    ratios = [int(test.sum()) / int(train.sum()) for train, _, test in dataset.splits]
    assert summary.test_train_ratio == pytest.approx(sum(ratios) / len(ratios))
    assert summary.homophily["edge"] == dataset.homophily.edge


def test_own_datasets_need_dense_tensors(dataset):
    sparse = dataset.data.clone()
    sparse.x = sparse.x.to_sparse()
    own = Dataset("own", sparse, dataset.splits, "accuracy")
    with pytest.raises(ParameterError, match="dense tensor x"):
        small("dropout", datasets=[own])
