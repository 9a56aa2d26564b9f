"""Running trials: in parallel, each once, whatever becomes of them."""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from joblib.externals.loky import process_executor

from gnndrop.errors import AttachError, DataError, DivergedError, ParameterError
from gnndrop.study.run import run
from gnndrop.study.store import Result

both = pytest.mark.parametrize("jobs", [1, 2])


@both
def test_every_trial_is_executed_once_and_resuming_repeats_nothing(
    store, trials, make_execute, count_executions, jobs
):
    first = run(trials, make_execute(), store, jobs=jobs)
    again = run(trials, make_execute(), store, jobs=jobs)
    assert first == again == store.results(trials)
    assert list(map(count_executions, trials)) == [1] * len(trials)


def test_jobs_do_not_change_the_results(store, trials, make_execute):
    alone = run(trials, make_execute(), store, jobs=1)
    store.remove()
    assert run(trials, make_execute(), store, jobs=2) == alone


@both
def test_a_failing_trial_is_a_record(store, trials, make_execute, jobs):
    errors = {
        trials[0].key: DivergedError("the loss must be finite, got nan"),
        trials[1].key: AttachError("mlp has no edges"),
        trials[2].key: RuntimeError("first line\nsecond line"),
        trials[3].key: AssertionError(),
    }

    def fail(trial):
        if trial.key in errors:
            raise errors[trial.key]

    results = run(trials, make_execute(fail), store, jobs=jobs)
    ends = [(results[trial.key].status, results[trial.key].error) for trial in trials]
    assert ends == [
        ("failed", "the loss must be finite, got nan"),
        ("not-applicable", "mlp has no edges"),
        ("failed", "RuntimeError: first line"),
        ("failed", "AssertionError: "),
        *[("ok", "")] * (len(trials) - 4),
    ]
    assert results == store.results(trials)


def test_a_score_that_is_not_finite_is_a_failure(store, trials):
    def execute(trial):
        return Result(trial, "ok", float("nan"), 0.5, 0.5, 1, 1, 1.0)

    (result,) = run(trials[:1], execute, store, jobs=1).values()
    assert result.status == "failed"
    assert "finite" in result.error


def test_a_lost_worker_costs_its_own_trial_alone(
    store, trials, make_execute, count_executions, tmp_path
):
    """One trial always kills its worker; another does the first time, as if memory ran out."""
    always, once, marker = trials[1].key, trials[2].key, tmp_path / "marker"

    def die(trial):
        if trial.key == always or (trial.key == once and not marker.exists()):
            marker.touch()
            os._exit(1)

    results = run(trials, make_execute(die), store, jobs=2)
    assert [trial.key for trial in trials if results[trial.key].status != "ok"] == [always]
    assert "killed even when it ran alone" in results[always].error
    # Once alone; before that only if its neighbour did not take the pool down first.
    assert count_executions(trials[1]) in (1, 2)
    assert results == store.results(trials)


def test_a_worker_that_grows_is_replaced(store, trials, make_execute):
    """loky gives up a worker whose memory grew by 300 MB; here one that grew by nothing."""

    def look_often(trial):
        process_executor._MAX_MEMORY_LEAK_SIZE = -(1 << 62)
        process_executor._MEMORY_LEAK_CHECK_DELAY = -1
        (store.folder / f"{trial.key}.pid").write_text(str(os.getpid()))

    results = run(trials, make_execute(look_often), store, jobs=2)
    workers = {path.read_text() for path in store.folder.glob("*.pid")}
    assert {result.status for result in results.values()} == {"ok"}
    assert len(workers) > 2


@both
def test_an_interruption_keeps_what_is_done(store, trials, make_execute, count_executions, jobs):
    def interrupt(done, total, result):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(trials, make_execute(), store, jobs=jobs, on_result=interrupt)
    kept = store.results(trials)
    assert len(kept) >= 2
    results = run(trials, make_execute(), store, jobs=jobs)
    assert {key: results[key] for key in kept} == kept
    assert all(count_executions(trial) == 1 for trial in trials if trial.key in kept)


@pytest.mark.parametrize(
    ("signal", "times", "code", "output"),
    [
        ("SIGINT", 1, 0, "interrupted\n"),
        ("SIGINT", 200, 0, "interrupted\n"),
        ("SIGKILL", 1, -9, ""),
    ],
)
def test_workers_end_with_the_driver(store, trials, tmp_path, signal, times, code, output):
    """Workers that would never end by themselves, when their driver is interrupted or killed.

    Who is in a hurry presses Ctrl-C more than once, while the workers are being stopped.
    """
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, threading\n"
        "from pathlib import Path\n"
        "import joblib\n"
        "from gnndrop.study.run import run\n"
        "from gnndrop.study.store import Result, Store\n"
        f"trials = joblib.load({str(tmp_path / 'trials')!r})\n"
        "driver = os.getpid()\n"
        "def execute(trial):\n"
        "    if trial.seed:\n"
        f"        for _ in range({times}):\n"
        f"            os.kill(driver, signal.{signal})\n"
        "            sum(range(10_000))\n"
        "        threading.Event().wait()\n"
        "    return Result(trial, 'ok', 0.5, 0.5, 0.5, 1, 1, 1.0)\n"
        "try:\n"
        f"    run(trials, execute, Store(Path({str(store.folder)!r})), jobs=2)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    joblib.dump(trials, tmp_path / "trials")
    # Workers hold the pipe: it ends when the last of them has.
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (code, output)
    assert "Traceback" not in done.stderr


def test_progress_is_told(store, trials, make_execute):
    calls = []
    run(trials[:2], make_execute(), store, jobs=1)
    run(trials, make_execute(), store, jobs=1, on_result=lambda *call: calls.append(call))
    total = len(trials)
    assert calls[0] == (2, total, None)
    assert [(done, of) for done, of, _ in calls] == [(n, total) for n in range(2, total + 1)]
    assert [result.trial for _, _, result in calls[1:]] == trials[2:]


def test_workers_have_one_thread(store, trials, tmp_path):
    def execute(trial):
        (tmp_path / trial.key).write_text(os.environ["OMP_NUM_THREADS"])
        return Result(trial, "ok")

    run(trials, execute, store, jobs=2)
    assert {(tmp_path / trial.key).read_text() for trial in trials} == {"1"}


@both
def test_a_full_disk_ends_the_run(store, trials, make_execute, jobs):
    Path(store.folder / "trials").write_text("in the way")
    with pytest.raises(DataError, match="must be writable"):
        run(trials, make_execute(), store, jobs=jobs)


@pytest.mark.parametrize("jobs", [0, -1])
def test_jobs_below_one_are_refused(store, trials, make_execute, jobs):
    with pytest.raises(ParameterError, match="jobs must be at least 1"):
        run(trials, make_execute(), store, jobs=jobs)


def test_joblib_works_before_and_after(store, trials, make_execute):
    """Its workers and ours are kept in one place."""
    for _ in range(2):
        assert joblib.Parallel(2)(joblib.delayed(abs)(value) for value in (-1, -2)) == [1, 2]
        run(trials, make_execute(), store, jobs=2)
        store.remove()


def test_nothing_to_do_starts_no_worker(store, make_execute, monkeypatch):
    monkeypatch.setattr("gnndrop.study.run.get_memmapping_executor", pytest.fail)
    assert run([], make_execute(), store, jobs=2) == {}
