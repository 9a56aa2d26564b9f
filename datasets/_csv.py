"""A graph as two CSV files: edges, and nodes with their columns."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gnndrop.datasets._table import NodeTable
from gnndrop.errors import DataError

Columns = Mapping[str, Sequence[str]]
# What the columns of ends and of ids are called; where they are not, the first ones are taken.
ENDS = ("source", "target")
ID = "id"


def read_nodes(path: Path, label_col: str, split_col: str | None) -> NodeTable:
    """Read a table of nodes: `id`, or else the first column, and the columns that tell of them.

    Args:
        path: comma-separated values in UTF-8, the first line with the names of the columns.
        label_col: the column with the labels.
        split_col: the column with the split, or None.

    Raises:
        DataError: if the file cannot be read as such, or a node stands there twice.
        ParameterError: if a column does not exist.
    """
    columns = read_columns(path)
    key = ID if ID in columns else next(iter(columns))
    ids = columns[key]
    seen: set[str] = set()
    for name in ids:
        if not name or name in seen:
            raise DataError(f"{path} must name each node once in column {key!r}, got {name!r}")
        seen.add(name)
    # A column without a name is pandas's index.
    others = {name: values for name, values in columns.items() if name not in (key, "")}
    return NodeTable(ids, others, label_col, split_col)


def read_edges(path: Path, nodes: NodeTable, nodes_path: Path) -> tuple[Tensor, str]:
    """Read a list of edges: `source` and `target`, or else the first two columns.

    Args:
        path: comma-separated values in UTF-8, the first line with the names of the columns.
        nodes: whose ids the ends are.
        nodes_path: where they were read.

    Returns:
        The ends as `[2, edges]`, by the order of the nodes, and a note on what was left out.

    Raises:
        DataError: if the file cannot be read as such, or an end is no node.
    """
    columns = read_columns(path)
    names = [name for name in columns if name]  # pandas's index has none
    ends = list(ENDS) if set(ENDS) <= set(names) else names[:2]
    if len(ends) < 2:
        raise DataError(
            f"{path} must have two columns with the ends of each edge, got {', '.join(names)}"
        )
    place = {name: index for index, name in enumerate(nodes.ids)}
    if all(name in place for name in ends):
        raise DataError(
            f"{path} must begin with the names of its columns, such as source,target, "
            f"got an edge, {','.join(ends)}"
        )
    rows = list(zip(*(columns[name] for name in ends), strict=True))
    for number, row in enumerate(rows, start=1):
        for name in row:
            if name not in place:
                raise DataError(
                    f"{path} must join nodes of {nodes_path}, got the unknown node {name!r} in "
                    f"edge {number}"
                )
    ignored = [name for name in names if name not in ends]
    note = f"columns of the edges not used: {', '.join(ignored)}" if ignored else ""
    numbers = [[place[source], place[target]] for source, target in rows]
    return torch.tensor(numbers, dtype=torch.int64).reshape(-1, 2).t(), note


def read_columns(path: Path) -> Columns:
    """Read a CSV file whose first line holds the names of its columns.

    Raises:
        DataError: if the file does not exist, is no text in UTF-8, is empty, or its rows are not
            all as long as the first; the message has the number of the line.
    """
    try:
        # -sig: Excel puts a mark before the first name.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            numbered = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path} must be a CSV file in UTF-8 that can be read, got: {reason}"
        ) from error
    if not numbered:
        raise DataError(f"{path} must begin with the names of its columns, got an empty file")
    (_, names), *rows = numbered
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} must name each column once, got {twice!r} twice")
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{path} must have {len(names)} values in every line, as in its first, "
                f"got {len(row)} in line {line}"
            )
    values = list(zip(*(row for _, row in rows), strict=True)) or [()] * len(names)
    return dict(zip(names, values, strict=True))
