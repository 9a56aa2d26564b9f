"""Fakes for the study: trials that cost nothing and leave a file for every execution."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from gnndrop.config import CompareConfig
from gnndrop.registry import Registry
from gnndrop.study.plan import Trial, plan
from gnndrop.study.store import Store, open_store


@pytest.fixture(scope="session")
def operators():
    """A registry with operators with and without a rate, free of torch."""
    registry = Registry("operator", "gnndrop.errors", "gnndrop.nowhere")

    @registry.register("none")
    def none() -> None: ...

    @registry.register("dropout")
    def dropout(p: float = 0.5, share: str = "layer") -> None: ...

    @registry.register("drop-edge")
    def drop_edge(p: float = 0.5, symmetric: bool = True) -> None: ...

    return registry


@pytest.fixture
def config() -> CompareConfig:
    return CompareConfig(("none", "dropout"), ("graph",), ("gcn",), seeds=4)


@pytest.fixture
def trials(config, operators) -> list[Trial]:
    return plan(config, {"graph": 2}, operators)


@pytest.fixture
def store(tmp_path, config) -> Store:
    return open_store(tmp_path / "run", {"schema": 1, "config": asdict(config)}, {})


@pytest.fixture
def executions(tmp_path) -> Path:
    """A folder with one file for every execution of a trial."""
    folder = tmp_path / "executions"
    folder.mkdir()
    return folder


@pytest.fixture
def make_execute(executions) -> Callable:
    """Return a function that makes an `execute`.

    What it makes is a closure, so that cloudpickle sends it to the workers by value: they cannot
    import the tests.
    """

    def make(before: Callable[[Trial], object] = lambda trial: None) -> Callable:
        def execute(trial):
            import tempfile

            from gnndrop.study.store import Result

            tempfile.mkstemp(dir=executions, prefix=f"{trial.key}-")
            before(trial)
            score = (trial.seed + len(trial.operator)) / 100
            return Result(trial, "ok", score, score, score, 1, 2, 0.1)

        return execute

    return make


@pytest.fixture
def count_executions(executions) -> Callable[[Trial], int]:
    return lambda trial: len(list(executions.glob(f"{trial.key}-*")))
