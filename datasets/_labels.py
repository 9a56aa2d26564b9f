"""Labels as users have them, whole numbers or names, to classes 0..C-1."""

from operator import index
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gnndrop.datasets._checks import plain_tensor
from gnndrop.errors import ParameterError

SHOWN = 10  # classes that a note spells out


class Labels(NamedTuple):
    """Encoded labels.

    Args:
        y: `[nodes]`, int64, in 0..C-1; -1 where a node has none.
        classes: what each class was called, in the order of its number.
        note: how they were encoded; empty where they were 0..C-1 already.
    """

    y: Tensor
    classes: list[int] | list[str]
    note: str


def encode_labels(labels: object) -> Labels:
    """Number the distinct labels from 0 in sorted order: whole numbers by value, else as texts.

    Numbers written as text are numbers. No label is: None, an empty text, NaN, and the number -1.

    Args:
        labels: one for each node: a tensor or array `[nodes]` or `[nodes, 1]`, or a sequence.

    Raises:
        ParameterError: if there is not one label per node, the labels are quantities or below -1,
            there are fewer than two classes, or no two nodes share one.

    Example:
        >>> encode_labels(["b", "", "a", "b"])
        Labels(y=tensor([ 1, -1,  0,  1]), classes=['a', 'b'], note='classes 0=a, 1=b')
    """
    values = _values(labels)
    numbers = _whole_numbers(values)
    names: list[Any] = (  # all integers, or all texts
        [None if value is None else str(value) for value in values]
        if numbers is None
        else [None if number == -1 else number for number in numbers]
    )
    classes = sorted({name for name in names if name is not None})
    known = sum(name is not None for name in names)
    if len(classes) < 2:
        raise ParameterError(
            f"labels must name at least two classes, got {len(classes)} on {len(names)} nodes "
            "(-1 and an empty label stand for none)"
        )
    if len(classes) == known > 2:
        raise ParameterError(
            f"labels must be classes that nodes share, got {known} labels on {known} nodes; "
            "choose what holds the classes (label_col, --label-col)"
        )
    place = {name: number for number, name in enumerate(classes)}
    y = torch.tensor([-1 if name is None else place[name] for name in names])
    return Labels(y, classes, _note(classes))


def _values(labels: object) -> list[Any]:
    array = plain_tensor("labels", labels).numpy() if isinstance(labels, Tensor) else labels
    if isinstance(array, np.ndarray):
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise ParameterError(
                f"labels must be one per node, got an array of shape {array.shape}; "
                "a one-hot code is made labels by its argmax(1)"
            )
        array = array.tolist()
    if not isinstance(array, list | tuple):
        raise ParameterError(
            f"labels must be an array or a list, one per node, got {type(labels).__name__}"
        )
    # NaN is what differs from itself.
    return [None if value is None or value != value or value == "" else value for value in array]


def _whole_numbers(values: list[Any]) -> list[int] | None:
    """Return the labels as integers, -1 for none; None where they are names."""
    try:
        numbers = [-1 if value is None else _number(value) for value in values]
    except (TypeError, ValueError):
        return None
    for number in numbers:
        if number % 1 or number < -1:
            raise ParameterError(
                f"labels must be classes, whole numbers from 0 or names, got {number}; "
                "quantities are not classified, and -1 alone stands for no label"
            )
    return [int(number) for number in numbers]


def _number(value: Any) -> float:
    """Read an integer exactly, beyond what a float holds, too; else a float."""
    try:
        return int(value) if isinstance(value, str) else index(value)
    except (TypeError, ValueError):
        return float(value)


def _note(classes: list[int] | list[str]) -> str:
    if classes == list(range(len(classes))):
        return ""
    shown = [f"{number}={name}" for number, name in enumerate(classes[:SHOWN])]
    return f"classes {', '.join(shown)}{', ...' if len(classes) > SHOWN else ''}"
