"""Recommendations: the sentence, what it rests on, and the budget."""

import json
from types import SimpleNamespace

import pytest

from gnndrop.config import TrainConfig
from gnndrop.errors import ParameterError
from gnndrop.study import compare
from gnndrop.study import recommend as module
from gnndrop.study.plan import RUNS
from gnndrop.study.recommend import read_duration, recommend
from gnndrop.study.store import Result

GRAPH = "csbm:nodes=60,classes=2,features=4"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clock(monkeypatch):
    """Give recommendations a clock that trainings alone move: no test waits, or fails when busy."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def scored(monkeypatch, clock):
    """Return a function that replaces training by a rule, and gives the trials that came.

    A training takes a second of the clock, or what `seconds` says, and `overhead` times that.
    """
    seen = []

    def use(rule, seconds=lambda trial: 1.0, overhead=1.0):
        def execute(trial, files, operators, models):
            seen.append(trial)
            clock.seconds += overhead * seconds(trial)
            score = rule(trial)
            return Result(trial, "ok", score, score, score, 1, 2, seconds(trial))

        monkeypatch.setattr("gnndrop.study.session.train_trial", execute)
        return seen

    return use


def small(budget=120.0, **options):
    given = {"operators": ("dropout", "drop-edge"), "rates": (0.1, 0.3, 0.5, 0.7), "jobs": 1}
    return recommend(GRAPH, "gcn", budget, **{**given, **options})


def gain_of(spec, gain):
    """Return a rule by which one candidate gains that much, and all vary a little with the seed."""

    def rule(trial):
        noise = 0.001 * ((7 * trial.random_state + len(trial.spec)) % 5)
        return 0.5 + noise + (gain if trial.spec == spec else 0.0)

    return rule


def is_search(trial):
    return trial.random_state >= RUNS


def test_what_is_better_is_found_and_recommended(scored):
    seen = scored(gain_of("drop-edge:p=0.3", 0.05))
    found = small()
    assert found.choice == "drop-edge:p=0.3"
    assert found.candidates[0].spec == "drop-edge:p=0.3"
    assert found.verdict.verdict == "better"
    assert str(found).startswith("use drop-edge:p=0.3 (better than none by 5.")
    assert f"{found.verdict.pairs} pairs" in str(found)
    final = {trial.spec for trial in seen if not is_search(trial)}
    assert len(final) == 3
    assert {"none", "drop-edge:p=0.3"} <= final


@pytest.mark.parametrize("gain", [0.0, -0.05])
def test_none_is_recommended_where_nothing_is_shown_to_be_better(scored, gain):
    def rule(trial):
        return 0.5 + 0.01 * (trial.random_state % 3) + gain * (trial.spec != "none")

    scored(rule)
    found = small()
    assert found.choice == "none"
    assert found.verdict.verdict in ("equivalent", "worse")
    assert str(found).startswith("use none: nothing was shown to be better (best candidate ")
    assert found.verdict.verdict in str(found)


def test_nothing_is_never_negative(scored):
    """A difference of -0.01 points is written 0.0."""
    scored(lambda trial: 0.5 - 0.0001 * (trial.spec != "none"))
    assert ": 0.0 points [0.0, 0.0], " in str(small())


def test_a_candidate_that_is_best_on_validation_alone_is_not_recommended(scored):
    """Chosen among many it looks good; the fresh seeds decide."""
    seen = scored(
        lambda trial: (
            0.5
            + 0.02 * ((trial.random_state * 31 + len(trial.spec)) % 4)
            + (0.2 if is_search(trial) and trial.spec == "dropout:p=0.7" else 0.0)
        )
    )
    found = small()
    assert found.candidates[0].spec == "dropout:p=0.7"
    assert found.choice == "none"
    states = {
        side: {t.random_state for t in seen if is_search(t) is side} for side in (True, False)
    }
    assert not states[True] & states[False]


def test_halving_gives_the_better_ones_more_seeds(scored):
    scored(gain_of("drop-edge:p=0.3", 0.05))
    found = small(operators=("dropout", "drop-edge", "drop-node"), budget=300.0)
    seeds = [one.seeds for one in found.candidates]
    assert len(seeds) == 12
    assert seeds[0] == max(seeds) > min(seeds) >= 1


@pytest.mark.parametrize("overhead", [1.0, 1.7])
@pytest.mark.parametrize("budget", [60.0, 100.0, 250.0])
def test_the_budget_is_used_and_kept(scored, clock, budget, overhead):
    began = clock.seconds
    seen = scored(gain_of("drop-edge:p=0.3", 0.05), overhead=overhead)
    found = small(budget=budget)
    assert found.seconds == pytest.approx(clock.seconds - began)
    assert 0.85 * budget <= found.seconds <= budget
    assert found.verdict.pairs >= 6
    assert len(seen) == len(set(seen)) == pytest.approx(found.seconds / overhead)


def test_trainings_that_slow_down_are_stopped_in_time(scored):
    """Estimates are wrong when the final takes ten times as long; the pairs that fit count."""
    seen = scored(
        gain_of("drop-edge:p=0.3", 0.05), seconds=lambda trial: 1.0 if is_search(trial) else 10.0
    )
    found = small(budget=300.0)
    assert 300 <= found.seconds <= 310  # the training in which time runs out
    final = [trial for trial in seen if not is_search(trial)]
    assert found.verdict.pairs == len(final) // 3
    assert found.comparison.protocol["seeds"] == found.verdict.pairs


def test_slow_operators_get_fewer_seeds_not_more_time(scored):
    scored(
        gain_of("drop-edge:p=0.3", 0.05),
        seconds=lambda trial: 4.0 if trial.spec.startswith("drop-edge") else 1.0,
    )
    found = small(budget=200.0)
    assert found.seconds <= 200 * 1.1
    assert found.choice == "drop-edge:p=0.3"


def test_the_time_that_was_spent_before_counts(scored, clock):
    began = clock.seconds
    scored(gain_of("drop-edge:p=0.3", 0.05))
    found = small(budget=120.0, spent=50.0)
    assert found.seconds == pytest.approx(clock.seconds - began + 50.0)
    assert found.seconds <= 120.0


def test_it_ends_early_where_more_seeds_would_be_of_no_use(scored):
    scored(gain_of("dropout:p=0.1", 0.05))
    found = small(budget=1e6, operators=("dropout",), rates=(0.1, 0.5))
    assert found.verdict.pairs == 100
    assert found.seconds == 2 + 2 * 100 + 3 * 100


@pytest.mark.parametrize("after", [0, 3])
def test_what_is_there_is_reported_when_the_search_is_interrupted(scored, after):
    def rule(trial):
        if len(seen) > after:
            raise KeyboardInterrupt
        return 0.5

    seen = scored(rule)
    found = small()
    assert (found.interrupted, found.choice, found.comparison) == (True, "none", None)
    assert sum(one.seeds for one in found.candidates) == max(0, after - 2)
    assert str(found).startswith("use none: nothing was tested yet")
    assert str(found).endswith("(interrupted).")


def test_an_interruption_before_the_first_pair_names_the_best_on_validation(scored):
    def rule(trial):
        if not is_search(trial):
            raise KeyboardInterrupt
        return 0.5 + 0.01 * (trial.spec == "dropout:p=0.1")

    scored(rule)
    assert str(small()) == (
        "use none: nothing was tested yet; best on validation is dropout:p=0.1 (interrupted)."
    )


def test_an_interrupted_final_counts_its_pairs(scored):
    def rule(trial):
        if trial.seed == 8 and not is_search(trial):
            raise KeyboardInterrupt
        return gain_of("dropout:p=0.1", 0.05)(trial)

    scored(rule)
    found = small()
    assert found.interrupted
    assert found.verdict.pairs == 8
    assert found.choice == "dropout:p=0.1"


def test_the_verdict_is_that_of_compare(monkeypatch):
    """Without rule and clock: real trainings, few enough for any budget."""
    monkeypatch.setattr(module, "SEEDS_AT_MOST", 8)
    train = TrainConfig(epochs=2)
    found = small(budget=60.0, train=train, rates=(0.3,))
    finalists = [cell.operator for cell in found.comparison.cells]
    same = compare(finalists, [GRAPH], ["gcn"], found.verdict.pairs, train=train, jobs=1)
    assert found.comparison.verdicts == same.verdicts


def test_candidates_that_fail_or_have_no_place_drop_out(scored):
    from gnndrop.errors import AttachError

    def rule(trial):
        if trial.spec.startswith("drop-edge"):
            raise AttachError("the model must pass messages")
        return gain_of("dropout:p=0.3", 0.05)(trial)

    scored(rule)
    found = small()
    assert found.choice == "dropout:p=0.3"
    failed = [one for one in found.candidates if one.error]
    assert {one.spec.split(":")[0] for one in failed} == {"drop-edge"}
    assert "drop-edge:p=0.1: the model must pass messages" in found.details()


def test_where_all_fail_none_is_the_answer(scored):
    def rule(trial):
        if trial.spec != "none":
            raise ArithmeticError("the loss must be finite")
        return 0.5

    scored(rule)
    found = small()
    assert (found.choice, found.comparison, found.interrupted) == ("none", None, False)
    assert str(found) == "use none: nothing was tested, every candidate failed."


def test_json_has_the_sentence_the_candidates_and_the_comparison(scored):
    scored(gain_of("drop-edge:p=0.3", 0.05))
    found = small()
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["sentence"] == str(found)
    assert document["choice"] == "drop-edge:p=0.3"
    assert len(document["candidates"]) == 8
    assert document["comparison"]["schema"] == 1
    assert document["verdict"]["pairs"] == found.verdict.pairs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.0}, "budget must be"),
        ({"budget": float("nan")}, "budget must be"),
        ({"budget": float("inf")}, "budget must be"),
        ({"rates": (1.5,)}, "rates must be in"),
        ({"rates": ()}, "must have a rate"),
        ({"operators": ()}, "operators must be given"),
        ({"operators": ("dropout:p=0.5",)}, "leave p out"),
        ({"jobs": 0}, "jobs must be at least 1"),
    ],
)
def test_wrong_input_is_told(options, message):
    with pytest.raises(ParameterError, match=message):
        small(**options)


def test_a_budget_that_is_too_small_is_told(scored):
    seen = scored(gain_of("drop-edge:p=0.3", 0.05))
    message = "about 28 s on this graph, got 20 s; give more time"  # 2 + 8 candidates + 3 x 6 pairs
    with pytest.raises(ParameterError, match=message):
        small(budget=20.0)
    assert {trial.spec for trial in seen} == {"none"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("0.5h", 1800), (" 2m5s ", 125)],
)
def test_durations(text, seconds):
    assert read_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 minutes", "-5m", "0s", "m", "5m1h", "nan", "1e3s"])
def test_what_is_no_duration(text):
    with pytest.raises(ParameterError, match="a budget must be a duration above 0"):
        read_duration(text)
