"""A split of the nodes into training, validation and test, and random ones drawn from a seed."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gnndrop.errors import ParameterError


class Split(NamedTuple):
    """Three disjoint boolean masks of shape `[nodes]`; together they need not cover every node.

    Example:
        >>> split = random_splits(torch.tensor([0, 0, 1, 1]), count=1, train=0.5, val=0.5)[0]
        >>> int(split.train.sum()), int(split.val.sum()), int(split.test.sum())
        (2, 2, 0)
    """

    train: Tensor
    val: Tensor
    test: Tensor


def random_splits(
    y: Tensor, *, count: int = 10, train: float = 0.48, val: float = 0.32, seed: int = 0
) -> list[Split]:
    """Draw class-stratified random splits of the labelled nodes, reproducible from the seed alone.

    A class of n nodes is shuffled and cut after round(n * train) and round(n * (train + val))
    nodes, so every share is met to within one node per class. Split k depends on `seed` and k only.

    Args:
        y: `[nodes]`, integer labels; nodes labelled -1 are in no mask.
        count: number of splits, at least 1.
        train: share of training nodes, in (0, 1].
        val: share of validation nodes, in [0, 1 - train]; the rest is for testing. The default
            48/32/20 is the proportion of the Geom-GCN splits (Pei et al. 2020).
        seed: at least 0; no global generator is used or changed.

    Raises:
        ParameterError: if a share, the count or the seed is out of its range.

    Example:
        >>> splits = random_splits(torch.arange(100) % 2, seed=1)
        >>> len(splits), int(splits[0].train.sum()), int(splits[0].test.sum())
        (10, 48, 20)
    """
    if count < 1:
        raise ParameterError(f"count must be at least 1, got {count}")
    check_seed(seed)
    if not (0 < train <= 1 and val >= 0 and train + val <= 1 + 1e-9):
        raise ParameterError(
            f"train must be in (0, 1] and val in [0, 1 - train], got train={train}, val={val}"
        )
    labels = y.cpu().numpy()
    generators = np.random.default_rng(seed).spawn(count)
    return [_random_split(labels, train, train + val, generator) for generator in generators]


def check_seed(seed: int) -> None:
    """Raise ParameterError unless numpy's generators take the seed."""
    if seed < 0:
        raise ParameterError(f"seed must be at least 0, got {seed}")


def _random_split(
    labels: np.ndarray, first_cut: float, second_cut: float, generator: np.random.Generator
) -> Split:
    part = np.full(len(labels), -1)
    for label in np.unique(labels[labels >= 0]):
        nodes = generator.permutation(np.flatnonzero(labels == label))
        cuts = [round(len(nodes) * first_cut), round(len(nodes) * second_cut)]
        for index, members in enumerate(np.split(nodes, cuts)):
            part[members] = index
    return Split(*(torch.from_numpy(part == index) for index in range(3)))
