"""The settings of a study of uncertainty, and the models that it trains."""

import pytest

from gnndrop.errors import ParameterError
from gnndrop.study.uncertainty_plan import UncertaintyConfig, plan_members

GIVEN = (("dropout", "drop-edge"), ("first", "second"), ("gcn",))


def test_no_two_models_share_a_random_state_and_operators_are_paired():
    trials = plan_members(UncertaintyConfig(*GIVEN, seeds=3, members=2), {"first": 2, "second": 1})
    assert len(trials) == 2 * 2 * 3 * 2
    assert len({trial.key for trial in trials}) == len(trials)
    states = {
        operator: [
            (trial.dataset, trial.seed, trial.restart, trial.split, trial.random_state)
            for trial in trials
            if trial.operator == operator
        ]
        for operator in GIVEN[0]
    }
    assert states["dropout"] == states["drop-edge"]
    on_first = [state for dataset, *_, state in states["dropout"] if dataset == "first"]
    assert len(set(on_first)) == len(on_first)


def test_members_of_a_seed_share_its_split():
    trials = plan_members(UncertaintyConfig(*GIVEN, seeds=3, members=2), {"first": 2, "second": 1})
    assert all(trial.split == trial.seed % 2 for trial in trials if trial.dataset == "first")
    assert all(trial.split == 0 for trial in trials if trial.dataset == "second")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples must be at least 2, got 1"),
        ({"seeds": 0}, "seeds must be in 1 to"),
        ({"members": 0}, "members must be in 1 to"),
        ({"risk": 1.5}, "risk must be a share of errors"),
        ({"margin": 0.0}, "margin must be"),
        ({"alpha": 1.0}, "alpha must be"),
        ({"checkpoint": "ab"}, "got 2 datasets, 1 models, 10 seeds and 5 members"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ParameterError, match=message):
        UncertaintyConfig(*GIVEN, **settings)


@pytest.mark.parametrize("operators", [(), ("dropout", "dropout"), ("dropout", "none")])
def test_operators_that_make_no_sense_are_refused(operators):
    with pytest.raises(ParameterError, match=r"operator"):
        UncertaintyConfig(operators, *GIVEN[1:])
