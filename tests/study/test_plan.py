"""The plan: every trial once, paired, with equal budgets."""

import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError, UnknownNameError
from gnndrop.study.plan import plan

configs = st.builds(
    CompareConfig,
    operators=st.lists(
        st.sampled_from(["none", "dropout", "drop-edge:symmetric=false"]), min_size=1, unique=True
    ).map(tuple),
    datasets=st.lists(st.sampled_from("abc"), min_size=1, unique=True).map(tuple),
    models=st.lists(st.sampled_from(["gcn", "mlp"]), min_size=1, unique=True).map(tuple),
    seeds=st.integers(1, 5),
    splits=st.sampled_from(["default", "all"]),
    rates=st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0]), max_size=3, unique=True).map(tuple),
)
counts = st.fixed_dictionaries({name: st.integers(1, 4) for name in "abc"})
with_fixture = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50
)


@with_fixture
@given(configs, counts)
def test_every_trial_stands_once(operators, config, counts):
    trials = plan(config, counts, operators)
    assert len({trial.key for trial in trials}) == len(trials)
    runs = sum(
        config.seeds * (counts[name] if config.splits == "all" else 1) for name in config.datasets
    )
    restarts = max(1, len(config.rates))
    assert len(trials) == runs * len(config.models) * len(config.operators) * restarts


@with_fixture
@given(configs, counts)
def test_operators_are_paired(operators, config, counts):
    """Operators see the same splits from the same random states, restart by restart."""
    seen = defaultdict(Counter)
    for trial in plan(config, counts, operators):
        place = (trial.seed, trial.split, trial.restart, trial.random_state)
        seen[trial.dataset, trial.model, trial.operator][place] += 1
    for (dataset, model, _), places in seen.items():
        assert places == seen[dataset, model, "none"]
        assert set(places.values()) == {1}


@with_fixture
@given(configs, counts)
def test_random_states_never_collide(operators, config, counts):
    states = defaultdict(set)
    for trial in plan(config, counts, operators):
        assert 0 <= trial.random_state < 2**32
        run = (trial.seed, trial.split, trial.restart)
        states[trial.dataset, trial.random_state].add(run)
    assert all(len(runs) == 1 for runs in states.values())


def test_torch_reads_no_more_than_the_bits_that_the_plan_uses():
    """The reason for the plan's 32-bit states: torch's CPU generator ignores the higher bits."""
    low = torch.Generator().manual_seed(5)
    high = torch.Generator().manual_seed(5 + 2**32)
    assert torch.equal(torch.rand(4, generator=low), torch.rand(4, generator=high))


def test_default_splits_go_round(operators, config):
    trials = plan(replace(config, seeds=5, operators=("none",)), {"graph": 3}, operators)
    assert [(trial.seed, trial.split) for trial in trials] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 0),
        (4, 1),
    ]


def test_rates_give_every_operator_the_same_budget(operators, config):
    config = replace(config, operators=("none", "drop-edge:symmetric=false"), rates=(0.1, 0.5))
    trials = plan(replace(config, seeds=1), {"graph": 1}, operators)
    assert [(trial.spec, trial.restart, trial.rate) for trial in trials] == [
        ("none", 0, None),
        ("none", 1, None),
        ("drop-edge:symmetric=false,p=0.1", 0, 0.1),
        ("drop-edge:symmetric=false,p=0.5", 1, 0.5),
    ]


def test_a_rate_and_rates_exclude_each_other(operators, config):
    config = replace(config, operators=("none", "dropout:p=0.3"), rates=(0.1,))
    with pytest.raises(ParameterError, match="must not set p where rates are given"):
        plan(config, {"graph": 1}, operators)


def test_a_rate_is_given_once(config):
    with pytest.raises(ParameterError, match="rates must be given each once"):
        replace(config, rates=(0.1, 0.5, 0.1))


def test_unknown_operator_with_rates(operators, config):
    with pytest.raises(UnknownNameError, match="did you mean 'drop-edge'"):
        plan(replace(config, operators=("drop-egde",), rates=(0.1,)), {"graph": 1}, operators)


def test_too_many_runs_are_refused(operators, config):
    with pytest.raises(ParameterError, match="at most 65536"):
        plan(replace(config, seeds=2**16, splits="all"), {"graph": 2}, operators)


def test_the_key_depends_on_all_of_the_content(trials):
    trial = trials[0]
    others = {
        "dataset": "other",
        "model": "gat",
        "operator": "x",
        "spec": "x",
        "seed": 9,
        "split": 9,
        "restart": 9,
        "rate": 0.5,
        "random_state": 9,
        "train": TrainConfig(epochs=7),
        "device": "cuda",
    }
    keys = {replace(trial, **{name: value}).key for name, value in others.items()}
    assert set(others) == set(vars(replace(trial)))
    assert len(keys | {trial.key}) == len(others) + 1


def test_keys_are_the_same_in_every_process(trials):
    code = (
        "from gnndrop.config import TrainConfig; from gnndrop.study.plan import Trial\n"
        f"print({trials[0]!r}.key)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == trials[0].key
