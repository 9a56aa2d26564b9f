"""The run folder of a study of uncertainty: beside each result, what the model said of every node.

outputs/<key>.npz    arrays of one finished trial, written before its result
"""

import io
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnndrop.study.plan import Trial
from gnndrop.study.store import Result, Store

Outputs = dict[str, Any]
"""Arrays by name."""


@dataclass(frozen=True)
class OutputStore(Store):
    """The finished trials in a run folder, with their arrays.

    Example:
        >>> import tempfile
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
        content = io.BytesIO()
        np.savez(content, **outputs)
        self._write(self._place(trial), content.getvalue())

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
