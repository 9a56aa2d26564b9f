"""The run folder: nothing is lost, nothing torn is believed, nothing foreign is mixed in."""

import json
import subprocess
import sys
from dataclasses import replace

import joblib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnndrop.errors import DataError, ParameterError
from gnndrop.study.run import run
from gnndrop.study.store import Result, default_folder, open_store

scores = st.floats(0, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(scores, scores, st.text(max_size=20))
def test_results_come_back_to_the_bit(store, trials, score, seconds, error):
    result = Result(trials[0], "ok", score, score, score, 3, 5, seconds, error)
    store.save(result)
    assert store.results(trials) == {trials[0].key: result}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.data())
def test_a_torn_file_counts_as_not_done(store, trials, data):
    store.save(Result(trials[0], "ok", 0.5, 0.5, 0.5, 1, 1, 1.0))
    path = store.folder / "trials" / f"{trials[0].key}.json"
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert store.results(trials) == {}
    path.write_bytes(whole)
    assert trials[0].key in store.results(trials)


@pytest.mark.parametrize("content", [b"\xff\x00", b"[]", b"{}", b'{"trial": null}'])
def test_a_corrupt_file_counts_as_not_done(store, trials, content):
    store.save(Result(trials[0], "ok"))
    (store.folder / "trials" / f"{trials[0].key}.json").write_bytes(content)
    assert store.results(trials) == {}


def test_a_result_under_the_wrong_key_counts_as_not_done(store, trials):
    store.save(Result(trials[0], "ok"))
    folder = store.folder / "trials"
    (folder / f"{trials[0].key}.json").rename(folder / f"{trials[1].key}.json")
    assert store.results(trials) == {}


def test_the_same_identity_opens_whatever_the_provenance(tmp_path):
    open_store(tmp_path, {"rates": (0.1, 0.5)}, {"command": "one"})
    assert open_store(tmp_path, {"rates": (0.1, 0.5)}, {"command": "two"}).folder == tmp_path
    assert json.loads((tmp_path / "config.json").read_text())["command"] == "one"


def test_another_identity_is_refused_and_said(tmp_path):
    open_store(tmp_path, {"config": {"seeds": 10, "train": {"epochs": 200}}, "data": "a"}, {})
    with pytest.raises(ParameterError) as caught:
        open_store(tmp_path, {"config": {"seeds": 5, "train": {"epochs": 200}}, "data": "b"}, {})
    assert "config.seeds 10 there and 5 here, data 'a' there and 'b' here;" in str(caught.value)
    assert "epochs" not in str(caught.value)


def test_of_many_differences_three_are_said(tmp_path):
    open_store(tmp_path, {"config": dict.fromkeys("abcde", 1)}, {})
    with pytest.raises(ParameterError, match=r"config.c 1 there and 2 here and 2 more; choose"):
        open_store(tmp_path, {"config": dict.fromkeys("abcde", 2)}, {})


def test_other_data_are_said_only_when_nothing_else_differs(tmp_path):
    open_store(tmp_path, {"config": {"datasets": ["one"]}, "data": {"one": "x"}}, {})
    with pytest.raises(ParameterError) as caught:
        open_store(tmp_path, {"config": {"datasets": ["two"]}, "data": {"two": "y"}}, {})
    assert "config.datasets" in str(caught.value)
    assert "data.one" not in str(caught.value)
    with pytest.raises(ParameterError, match=r"data.one 'x' there and 'y' here"):
        open_store(tmp_path, {"config": {"datasets": ["one"]}, "data": {"one": "y"}}, {})


def test_the_folder_of_a_suite_is_refused_and_kept(tmp_path):
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(ParameterError, match=r"must not be that of a suite, got study.json in"):
        open_store(tmp_path, {"seeds": 1}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["study.json"]


@pytest.mark.parametrize("content", ["", "{", "no json"])
def test_a_foreign_config_is_refused_and_kept(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ParameterError, match="choose another folder"):
        open_store(tmp_path, {"seeds": 1}, {})
    assert (tmp_path / "config.json").read_text() == content


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match="must be readable and writable"):
        open_store(tmp_path / "file", {"seeds": 1}, {})


def test_a_result_that_cannot_be_written_is_an_error(store, trials):
    (store.folder / "trials").write_text("in the way")
    with pytest.raises(DataError, match="must be writable"):
        store.save(Result(trials[0], "ok"))


def test_writing_survives_another_process_removing_the_folder(store, trials):
    store.remove()
    store.remove()
    store.save(Result(trials[0], "ok"))
    assert trials[0].key in store.results(trials)


def test_the_default_folder_depends_on_the_identity_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path))
    folder = default_folder({"seeds": 1})
    assert folder.parent == tmp_path / "runs"
    assert folder == default_folder({"seeds": 1}) != default_folder({"seeds": 2})


def test_the_default_folder_may_lie_in_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GNNDROP_CACHE", "~/own")
    assert default_folder({}).parent == tmp_path / "own" / "runs"


def test_a_kill_loses_only_the_trial_that_was_running(store, trials, make_execute, tmp_path):
    """A process that is killed with -9 in its fourth trial leaves three; the rest follows."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "import joblib\n"
        "from gnndrop.study.run import run\n"
        "from gnndrop.study.store import Result, Store\n"
        f"trials = joblib.load({str(tmp_path / 'trials')!r})\n"
        "def execute(trial):\n"
        "    if trial == trials[3]:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return Result(trial, 'ok', 0.5, 0.5, 0.5, 1, 1, 1.0)\n"
        f"run(trials, execute, Store(Path({str(store.folder)!r})), jobs=1)\n"
    )
    joblib.dump(trials, tmp_path / "trials")
    assert subprocess.run([sys.executable, script], check=False).returncode == -9
    done = store.results(trials)
    assert list(done) == [trial.key for trial in trials[:3]]
    again = run(trials, make_execute(), store, jobs=1)
    assert {key: again[key] for key in done} == done
    assert len(again) == len(trials)


def test_two_processes_may_share_a_folder(store, trials, make_execute):
    execute = make_execute()
    both = joblib.Parallel(2)(joblib.delayed(run)(trials, execute, store, jobs=1) for _ in range(2))
    assert both[0] == both[1] == store.results(trials)
    assert not list((store.folder / "trials").glob(".*.tmp"))


def test_no_temporary_file_stays_after_an_error(store, trials):
    store.save(Result(trials[0], "ok"))
    with pytest.raises(ValueError, match="JSON"):
        store.save(Result(replace(trials[0], rate=float("nan")), "ok"))
    assert [path.suffix for path in (store.folder / "trials").iterdir()] == [".json"]
