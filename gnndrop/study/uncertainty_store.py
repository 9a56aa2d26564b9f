"""The run folder of a study of uncertainty: beside each result, what the model said of every node.

outputs/<key>.npz    arrays of one finished trial, written before its result
"""

import os
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnndrop.errors import DataError
from gnndrop.study.plan import Trial
from gnndrop.study.store import Result, Store

Outputs = dict[str, Any]
"""Arrays by name."""


@dataclass(frozen=True)
class OutputStore(Store):
    """The finished trials in a run folder, with their arrays.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     OutputStore(Path(folder)).results([])
        {}
    """

    def results(self, trials: Iterable[Trial]) -> dict[str, Result]:
        """Return the results of those of the trials that are finished, by key.

        A good result whose arrays cannot be read back counts as not done.
        """
        found = super().results(trials)
        return {
            key: result
            for key, result in found.items()
            if result.status != "ok" or self.outputs(result.trial) is not None
        }

    def save_outputs(self, trial: Trial, outputs: Outputs) -> None:
        """Write the arrays of a trial, atomically.

        Raises:
            DataError: if the file cannot be written.
        """
        path = self._place(trial)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    np.savez(file, **outputs)
                Path(temporary).replace(path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise DataError(
                f"the run folder must be writable, got {error.strerror!r} at {path}; finished "
                "trials are kept: make room and run the same command again"
            ) from error

    def outputs(self, trial: Trial) -> Outputs | None:
        """Return the arrays of a trial; None where they are absent, torn, or not what we write."""
        try:
            # Opened here: numpy leaves a file that it opened itself open when it is torn.
            with self._place(trial).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def _place(self, trial: Trial) -> Path:
        return self.folder / "outputs" / f"{trial.key}.npz"
