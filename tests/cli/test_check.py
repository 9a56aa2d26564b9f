"""`gnndrop check` tells who keeps the contract."""

import pytest

from gnndrop.operators import OPERATORS
from gnndrop.testing import ContractError


def test_all_operators_are_checked(gnndrop, monkeypatch):
    asked = []
    monkeypatch.setattr("gnndrop.testing.check_operator", lambda spec: asked.append(spec) or ())
    run = gnndrop("check")
    assert (run.code, run.err) == (0, "")
    assert asked == list(OPERATORS)
    assert [line.split(":")[0] for line in run.out.splitlines()] == asked


def test_an_operator_that_passes(gnndrop):
    run = gnndrop("check", "none")
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("none: passed, ")


def test_an_operator_that_fails_does_not_stop_the_others(gnndrop, monkeypatch):
    def check(spec):
        if spec == "dropout:p=0.3":
            raise ContractError("the rate is p: it is not")
        return ()

    monkeypatch.setattr("gnndrop.testing.check_operator", check)
    run = gnndrop("check", "dropout:p=0.3", "none")
    assert (run.code, run.err) == (3, "")
    failed, passed = run.out.splitlines()
    assert failed == "dropout:p=0.3: failed, the rate is p: it is not"
    assert passed.startswith("none: passed")


@pytest.mark.parametrize("spec", ["drop-egde", "dropout:p=2"])
def test_wrong_use_is_told_before_anything_is_checked(gnndrop, spec):
    run = gnndrop("check", "none", spec)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("Error: ")
