"""Nodes as a table, from a CSV file or networkx: which columns are label, split and features."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gnndrop.datasets.splits import Split
from gnndrop.errors import ParameterError
from gnndrop.registry import did_you_mean

LABEL_COL = "label"
# What the parts of a split are called in files.
PARTS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("val", "valid", "validation", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
    **dict.fromkeys(("", "none"), -1),
}


@dataclass(frozen=True)
class NodeTable:
    """The nodes of a graph and what is known of each.

    Args:
        ids: what the nodes are called.
        columns: values by name, one for each node; None or an empty text where one is missing.
        label_col: the column with the labels.
        split_col: the column with `train`, `val` or `test`; None where there is none.

    Raises:
        ParameterError: if there is no column of these names.
    """

    ids: Sequence[Hashable]
    columns: Mapping[str, Sequence[object]]
    label_col: str = LABEL_COL
    split_col: str | None = None

    def __post_init__(self) -> None:
        asked = {
            "label_col (--label-col)": self.label_col,
            "split_col (--split-col)": self.split_col,
        }
        for option, name in asked.items():
            if name is not None and name not in self.columns:
                hint = did_you_mean(name, list(self.columns)) if self.columns else "there is none"
                raise ParameterError(
                    f"{option} must be a column or attribute of the nodes, got {name!r}, {hint}"
                )

    @property
    def labels(self) -> Sequence[object]:
        """The labels, as they stand."""
        return self.columns[self.label_col]

    def splits(self) -> list[Split] | None:
        """Return the split that a column holds; None where no column is named.

        Raises:
            ParameterError: if a value is not the name of a part.
        """
        if self.split_col is None:
            return None
        parts = np.full(len(self.ids), -1)
        for index, value in enumerate(self.columns[self.split_col]):
            name = "" if value is None else str(value).strip().lower()
            if name not in PARTS:
                raise ParameterError(
                    f"column {self.split_col!r} must hold train, val, test or nothing, "
                    f"got {value!r} at node {self.ids[index]!r}"
                )
            parts[index] = PARTS[name]
        return [Split(*(torch.from_numpy(parts == part) for part in range(3)))]

    def features(self) -> tuple[Tensor | None, str]:
        """Return the columns of numbers as `[nodes, features]`, and a note on what was left out.

        Raises:
            ParameterError: if a column holds numbers for some nodes and not for others.
        """
        others = {
            name: self._numbers(name, values)
            for name, values in self.columns.items()
            if name not in (self.label_col, self.split_col)
        }
        numeric = [numbers for numbers in others.values() if numbers is not None]
        ignored = [name for name, numbers in others.items() if numbers is None]
        note = f"columns of the nodes not used, no numbers: {', '.join(ignored)}" if ignored else ""
        return (torch.from_numpy(np.concatenate(numeric, axis=1)) if numeric else None), note

    def _numbers(self, name: str, values: Sequence[object]) -> np.ndarray | None:
        """Return a column, or several where each node has a list of numbers; None for texts."""
        numbers = [_read(value) for value in values]
        if all(one is None for one in numbers):
            return None
        width = next(len(one) for one in numbers if one is not None)
        for index, one in enumerate(numbers):
            if one is None or len(one) != width:
                raise ParameterError(
                    f"column {name!r} must hold finite numbers for every node, as many for each, "
                    f"or for none, got {values[index]!r} at node {self.ids[index]!r}; "
                    "fill it in or leave the column out"
                )
        return np.array(numbers, dtype=np.float64).reshape(len(numbers), width)


def _read(value: Any) -> list[float] | None:
    """Return finite numbers, however they are written; None for anything else."""
    many = value if isinstance(value, list | tuple | np.ndarray) else [value]
    try:
        numbers = [float(one) for one in many]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(map(math.isfinite, numbers)) else None
