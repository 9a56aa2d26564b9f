"""The run folder: every finished trial is a file of its own, so a kill loses one trial at most.

    config.json          what is run, by which version, on which data, and where
    trials/<key>.json    one finished trial, `key` being the digest of its content

Files are replaced atomically; several processes may work in one folder, since equal keys hold equal
results. What cannot be read back counts as not done.
"""

import functools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import pooch
from pydantic import TypeAdapter

from gnndrop.errors import DataError, ParameterError
from gnndrop.study.files import replace_bytes
from gnndrop.study.plan import Trial, digest

SAID = 3  # differences that an error names

Status = Literal["ok", "failed", "not-applicable"]


@dataclass(frozen=True)
class Result:
    """How a trial ended; scores are the metric at the best validation epoch, in [0, 1].

    Args:
        trial: the trial.
        status: `ok`, `failed`, or `not-applicable` (the model has no place for the operator).
        validation: validation score; None unless `ok`, like all that follow.
        test: test score.
        train: training score.
        best_epoch: epoch of the best validation score.
        epochs: epochs trained.
        seconds: duration of the training.
        error: why it is not `ok`, in one sentence.
    """

    trial: Trial
    status: Status
    validation: float | None = None
    test: float | None = None
    train: float | None = None
    best_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Store:
    """The finished trials in a run folder.

    Args:
        folder: the run folder.
    """

    folder: Path

    def save(self, result: Result) -> None:
        """Write a result, atomically.

        Raises:
            DataError: if the file cannot be written.
        """
        self._write(self._path(result.trial), _as_json(asdict(result)))

    def results(self, trials: Iterable[Trial]) -> dict[str, Result]:
        """Return the results of those of the trials that are finished, by key."""
        found = ((trial.key, self._read(trial)) for trial in trials)
        return {key: result for key, result in found if result is not None}

    def remove(self) -> None:
        """Delete the run folder."""
        shutil.rmtree(self.folder, ignore_errors=True)  # another process may be deleting it, too

    def _write(self, path: Path, content: bytes) -> None:
        try:
            _replace(path, content)
        except OSError as error:
            raise DataError(
                f"the run folder must be writable, got {error.strerror!r} at {path}; finished "
                "trials are kept: make room and run the same command again"
            ) from error

    def _path(self, trial: Trial) -> Path:
        return self.folder / "trials" / f"{trial.key}.json"

    def _read(self, trial: Trial) -> Result | None:
        try:
            result = _result_reader().validate_json(self._path(trial).read_bytes())
        except (OSError, ValueError):  # absent, torn, or not what we write
            return None
        return result if result.trial == trial else None


@functools.cache
def _result_reader() -> TypeAdapter[Result]:
    return TypeAdapter(Result)


def default_folder(identity: Mapping[str, object]) -> Path:
    """Return the folder in the user's cache for a run of this identity.

    The cache is `GNNDROP_CACHE` where it is set, else the system's place for caches.
    """
    cache = os.environ.get("GNNDROP_CACHE") or pooch.os_cache("gnndrop")
    return Path(cache).expanduser() / "runs" / digest(identity)[:16]


def open_store(
    folder: Path, identity: Mapping[str, object], provenance: Mapping[str, object]
) -> Store:
    """Open a run folder, or make it.

    Args:
        folder: the run folder.
        identity: what must be equal to resume (configuration, version, data), fit for JSON.
        provenance: what is kept beside it (environment, command), fit for JSON.

    Returns:
        The store of its finished trials.

    Raises:
        ParameterError: if the folder belongs to another identity (the message names what
            differs) or to a suite, cannot be made, or holds a `config.json` that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = open_store(Path(folder), {"seeds": 10}, {})
        ...     open_store(Path(folder), {"seeds": 5}, {})
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: a run folder must be resumed with its own configuration, ...
    """
    path = folder / "config.json"
    if (folder / "study.json").exists() and not path.exists():
        raise ParameterError(
            f"a run folder must not be that of a suite, got study.json in {folder}; "
            "choose another folder"
        )
    try:
        if not path.exists():
            _replace(path, _as_json({**identity, **provenance}))
        # Read even what was just written: another process may have been faster.
        there = json.loads(path.read_bytes())
    except OSError as error:
        raise ParameterError(
            f"the run folder must be readable and writable, got {error.strerror!r} at "
            f"{error.filename}; choose another with out (--out) or GNNDROP_CACHE"
        ) from error
    except ValueError as error:
        raise ParameterError(
            f"{path} must be a configuration that gnndrop wrote, got something else; "
            "choose another folder"
        ) from error
    here = json.loads(json.dumps(identity))
    old, new = dict(flatten(there)), dict(flatten(here))
    differing = [
        key for key in old | new if key.split(".")[0] in here and old.get(key) != new.get(key)
    ]
    if differing:
        # Other graphs have other data: that says nothing more.
        telling = [key for key in differing if not key.startswith("data.")] or differing
        said = [f"{key} {old.get(key)!r} there and {new.get(key)!r} here" for key in telling]
        more = f" and {len(said) - SAID} more" if len(said) > SAID else ""
        raise ParameterError(
            f"a run folder must be resumed with its own configuration, got in {folder} "
            f"{', '.join(said[:SAID])}{more}; choose another folder"
        )
    return Store(folder)


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the leaves of nested dictionaries with their dotted paths.

    Example:
        >>> dict(flatten({"seeds": 10, "train": {"epochs": 200}}))
        {'seeds': 10, 'train.epochs': 200}
    """
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, item in value.items():
        yield from flatten(item, f"{prefix}.{key}" if prefix else key)


def _as_json(value: object) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def _replace(path: Path, content: bytes) -> None:
    """Replace a file atomically; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_bytes(path, content)
