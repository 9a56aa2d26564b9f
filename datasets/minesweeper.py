"""Minesweeper boards: a task that needs the neighbours although the graph is not homophilous."""

import numpy as np
import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.utils import grid, remove_self_loops

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.heterophilous import CITATION
from gnndrop.datasets.splits import Split, check_seed, random_splits
from gnndrop.errors import ParameterError

# Columns of x, as in the published file: unknown, then 0, 1, 2, 3, 4, and 5 or more mines.
LARGEST_COUNT = 5
FEATURES = LARGEST_COUNT + 2


def make_minesweeper(
    width: int = 50, height: int = 50, mines: float = 0.2, hidden: float = 0.5, seed: int = 0
) -> Data:
    """Draw a Minesweeper board as Platonov et al. (2023) made theirs, which was 100 x 100.

    Each cell is a node, joined to its (up to eight) neighbours; round(mines * cells) random cells
    are mines, and the task is to find them. The features are a one-hot code of the number of mines
    among the neighbours, replaced by "unknown" in round(hidden * cells) random cells.

    Args:
        width: cells per row, at least 2.
        height: number of rows, at least 2.
        mines: share of cells that are mines, in [0, 1].
        hidden: share of cells whose number is unknown, in [0, 1].
        seed: at least 0; no global generator is used or changed.

    Returns:
        An undirected graph: `x` `[cells, 7]`, `edge_index` `[2, edges]`, `y` `[cells]` (1: a mine).

    Raises:
        ParameterError: if a value is out of its range.

    Example:
        >>> data = make_minesweeper(width=10, height=5)
        >>> data.num_nodes, data.x.sum(dim=1).unique().tolist(), int(data.y.sum())
        (50, [1.0], 10)
    """
    _check(width, height, mines, hidden, seed)
    cells = width * height
    generator = np.random.default_rng(seed)
    edge_index, _ = remove_self_loops(grid(height, width)[0])
    y = torch.zeros(cells, dtype=torch.long)
    y[generator.permutation(cells)[: round(mines * cells)]] = 1
    counts = torch.zeros_like(y).index_add_(0, edge_index[1], y[edge_index[0]])
    column = 1 + counts.clamp(max=LARGEST_COUNT)
    column[generator.permutation(cells)[: round(hidden * cells)]] = 0
    return Data(x=F.one_hot(column, FEATURES).float(), edge_index=edge_index, y=y)


def _check(width: int, height: int, mines: float, hidden: float, seed: int) -> None:
    if width < 2 or height < 2:
        raise ParameterError(f"width and height must be at least 2, got {width} and {height}")
    if not (0 <= mines <= 1 and 0 <= hidden <= 1):
        raise ParameterError(f"mines and hidden must be in [0, 1], got {mines} and {hidden}")
    check_seed(seed)


@DATASETS.register("minesweeper-grid")
def minesweeper_grid(
    width: int = 50, height: int = 50, mines: float = 0.2, hidden: float = 0.5, seed: int = 0
) -> Declaration:
    """Minesweeper board, random: the options are those of `make_minesweeper`."""
    _check(width, height, mines, hidden, seed)

    def build(_: object) -> tuple[Data, list[Split]]:
        data = make_minesweeper(width, height, mines, hidden, seed)
        return data, random_splits(data.y, train=0.5, val=0.25, seed=seed)

    rows, columns, diagonals = (
        height * (width - 1),
        width * (height - 1),
        (height - 1) * (width - 1),
    )
    return Declaration(
        build=build,
        nodes=width * height,
        edges=2 * (rows + columns + 2 * diagonals),
        features=FEATURES,
        classes=2,
        splits=10,
        citation=CITATION,
        licence="generated",
        metric="roc_auc",
        note="generated from its seed; ten random splits 50/25/25, stratified by class",
        homophily=mines**2 + (1 - mines) ** 2,  # two cells are mines as good as independently
    )
