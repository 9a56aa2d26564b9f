"""Tuning: the same effort for all, chosen on validation, judged on fresh seeds."""

import json
import warnings

import numpy as np
import pytest

from gnndrop.config import TrainConfig
from gnndrop.errors import ParameterError
from gnndrop.registry import parse_spec
from gnndrop.study import compare
from gnndrop.study import tune as module
from gnndrop.study.plan import RUNS
from gnndrop.study.store import Result
from gnndrop.study.tune import JOURNAL, tune

GRAPH = "csbm:nodes=60,classes=2,features=4"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def scored(monkeypatch):
    """Return a function that replaces training by a rule, and gives the trials that came."""
    seen = []

    def use(rule):
        def execute(trial, files, operators, models):
            seen.append(trial)
            validation, test = rule(trial)
            return Result(trial, "ok", validation, test, validation, 1, 2, 0.1)

        monkeypatch.setattr("gnndrop.study.session.train_trial", execute)
        return seen

    return use


def small(*operators, **options):
    given = {"trials": 4, "selection_seeds": 2, "seeds": 6, "jobs": 1, **options}
    return tune(GRAPH, operators=operators or ("dropout",), **given)


def near_best(trial):
    """Best at learning rate 0.03; test scores the other way round: they must not be looked at."""
    distance = abs(np.log10(trial.train.learning_rate / 0.03))
    return 0.9 - 0.1 * distance, 0.5 + 0.1 * distance


def is_search(trial):
    return trial.random_state >= RUNS


def test_all_get_the_same_number_of_trials_from_the_same_space(scored):
    seen = scored(near_best)
    found = small("dropout", "drop-edge")
    search = [trial for trial in seen if is_search(trial)]
    for operator in ("none", "dropout", "drop-edge"):
        own = [trial for trial in search if trial.operator == operator]
        assert len({(t.spec, t.model, t.train) for t in own}) == 4
        assert sorted(t.seed for t in own) == [0] * 4 + [1] * 4
    for trial in search:
        options = parse_spec(trial.model)[1]
        assert int(options["hidden_channels"]) in module.SHAPES["hidden_channels"]
        assert int(options["num_layers"]) in module.SHAPES["num_layers"]
        assert 1e-3 <= trial.train.learning_rate <= 1e-1
        assert 1e-5 <= trial.train.weight_decay <= 1e-2
        if trial.operator != "none":
            rate = float(parse_spec(trial.spec)[1]["p"])
            assert rate in {round(0.1 * k, 1) for k in range(1, 10)}
    assert [one.operator for one in found.tuned] == ["none", "dropout", "drop-edge"]
    assert {one.trials for one in found.tuned} == {4}


def test_the_first_trial_is_the_default_protocol(scored):
    seen = scored(near_best)
    small(trials=1)
    first = {(trial.spec, trial.model, trial.train) for trial in seen if is_search(trial)}
    model = "gcn:hidden_channels=64,num_layers=2"
    assert first == {
        ("none", model, TrainConfig()),
        ("dropout:p=0.5", model, TrainConfig()),
    }


def test_validation_alone_selects_and_fresh_seeds_judge(scored):
    seen = scored(near_best)
    found = small(trials=8)
    for one in found.tuned:
        own = [t for t in seen if t.operator == one.operator]
        best = max((t for t in own if is_search(t)), key=lambda t: near_best(t)[0])
        assert (one.spec, one.model, one.train) == (best.spec, best.model, best.train)
        assert one.validation == pytest.approx(near_best(best)[0])
        fresh = [t for t in own if not is_search(t)]
        assert [t.random_state for t in fresh] == [*range(6)]
        assert {(t.spec, t.model, t.train) for t in fresh} == {(one.spec, one.model, one.train)}
        (cell,) = (c for c in found.comparison.cells if c.operator == one.operator)
        assert cell.mean == pytest.approx(near_best(best)[1])
    (verdict,) = found.comparison.verdicts
    assert (verdict.operator, verdict.baseline, verdict.pairs) == ("dropout", "none", 6)


def test_the_search_learns(scored):
    """Later trials lie nearer to the optimum than random ones would, by 3 standard errors.

    The distance of log-uniform learning rates to the optimum is uniform on [0, 0.52] and
    [0, 1.48], by the lengths of the two sides.
    """
    seen = scored(near_best)
    small(trials=40, selection_seeds=1)
    own = [t for t in seen if is_search(t)][40:]  # 20 rounds of two operators
    off = [abs(np.log10(t.train.learning_rate / 0.03)) for t in own]
    short, long = np.log10(0.1 / 0.03), np.log10(0.03 / 0.001)
    mean = (short**2 + long**2) / (2 * (short + long))
    variance = (short**3 + long**3) / (3 * (short + long)) - mean**2
    assert len(off) == 40
    assert np.mean(off) < mean - 3 * np.sqrt(variance / len(off))


def test_settings_of_the_winner_are_those_of_a_real_training():
    """The fresh scores are what `compare` gives with the same settings."""
    train = TrainConfig(epochs=3)
    found = small(trials=2, selection_seeds=1, train=train)
    for one, cell in zip(found.tuned, found.comparison.cells, strict=True):
        same = compare([one.spec], [GRAPH], [one.model], 6, train=one.train, jobs=1)
        assert cell.scores == same.cells[-1].scores


@pytest.mark.parametrize("stop", [1, 3, 9, 17])
def test_an_interrupted_search_ends_as_an_unbroken_one(scored, tmp_path, stop):
    scored(near_best)

    def interrupt(done, total, result):
        if done == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small(out=tmp_path / "run", on_result=interrupt)
    calls = []
    resumed = small(out=tmp_path / "run", on_result=lambda *call: calls.append(call))
    assert calls[-1][0] == calls[-1][1] == 4 * 2 * 2 + 2 * 6
    assert resumed.tuned == small().tuned


def test_a_finished_run_trains_nothing_again(scored, tmp_path):
    seen = scored(near_best)
    first = small(out=tmp_path)
    count = len(seen)
    assert small(out=tmp_path) == first
    assert len(seen) == count


@pytest.mark.parametrize("damage", ["torn", "foreign", "gone", "asked"])
def test_a_damaged_journal_is_replaced_by_the_same_search(scored, tmp_path, damage):
    seen = scored(near_best)
    first = small(out=tmp_path)
    count, journal = len(seen), tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    if damage == "torn":
        journal.write_bytes(b"".join(lines)[:-7])
    elif damage == "foreign":
        journal.write_bytes(b"not json\n" + b"".join(lines))
    elif damage == "gone":
        journal.unlink()
    else:  # killed between asking for a trial and its last setting
        create = next(k for k, line in enumerate(lines) if json.loads(line)["op_code"] == 4)
        journal.write_bytes(b"".join(lines[: create + 3]))
    assert small(out=tmp_path).tuned == first.tuned
    assert len(seen) == count


def test_jobs_do_not_change_the_result():
    train = TrainConfig(epochs=2)
    one, two = (
        small(trials=3, selection_seeds=1, seeds=2, train=train, jobs=jobs) for jobs in (1, 2)
    )
    assert one.tuned == two.tuned
    assert [c.scores for c in one.comparison.cells] == [c.scores for c in two.comparison.cells]


def test_a_seed_changes_the_search(scored):
    scored(near_best)
    assert small(seed=1).tuned != small(seed=2).tuned


def test_trials_that_fail_are_counted_and_not_chosen(scored):
    def sometimes(trial):
        if is_search(trial) and trial.train.learning_rate != TrainConfig.learning_rate:
            raise ArithmeticError("the loss must be finite")
        return near_best(trial)

    scored(sometimes)
    found = small()
    assert {(one.trials, one.failed) for one in found.tuned} == {(4, 3)}
    assert all(one.train == TrainConfig() for one in found.tuned)


def test_an_operator_without_a_place_is_not_applicable():
    found = tune(
        GRAPH,
        "mlp",
        ["drop-edge"],
        trials=2,
        selection_seeds=1,
        seeds=2,
        train=TrainConfig(epochs=2),
        jobs=1,
    )
    assert [one.operator for one in found.tuned] == ["none"]
    assert found.comparison.cells[1].status == "not-applicable"
    assert "no trial has a score" in str(found)


def test_several_splits_are_shared_by_search_and_pairs(scored):
    seen = scored(near_best)
    tune(f"{GRAPH},splits=3", operators=["dropout"], trials=1, selection_seeds=4, seeds=6, jobs=1)
    for trial in seen:
        assert trial.split == trial.seed % 3


def test_text_and_json_say_what_was_found_and_how(scored):
    scored(near_best)
    found = small()
    text = str(found)
    assert text.splitlines()[0].split() == ["operator", "test", "validation", "found"]
    assert found.tuned[1].spec in text
    assert found.comparison.sentences()[0] in text
    assert "4 trials for each, 2 seeds a trial" in text
    assert "share" in text
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [one["operator"] for one in document["tuned"]] == ["none", "dropout"]
    assert document["verdicts"][0]["pairs"] == 6
    assert document["space"]["p"] == "0.1 to 0.9 in steps of 0.1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"selection_seeds": 0}, "selection_seeds must be at least 1"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"model": "gcn:num_layers=3"}, "leave num_layers out"),
        ({"operators": ("dropout:p=0.5",)}, "leave p out"),
        ({"operators": ("dropout+drop-edge:p=0.5",)}, "leave p out"),
        ({"operators": ()}, "operators must be given"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"device": "nonsense"}, "device must be"),
    ],
)
def test_wrong_input_is_told_before_anything_runs(options, message, cache):
    with pytest.raises(ParameterError, match=message):
        tune(GRAPH, **{"operators": ("dropout",), "jobs": 1, **options})
    assert not list(cache.rglob("trials/*"))


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ParameterError, match=r"pip install 'gnndrop\[tune\]'"):
        small()


def test_another_search_is_refused_in_a_run_folder(scored, tmp_path):
    scored(near_best)
    small(out=tmp_path)
    with pytest.raises(ParameterError, match="trials 4 there and 5 here"):
        small(out=tmp_path, trials=5)


def test_global_generators_and_optunas_log_level_are_left_alone(scored, generators_untouched):
    import optuna

    scored(near_best)
    before = optuna.logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small()
    assert optuna.logging.get_verbosity() == before
