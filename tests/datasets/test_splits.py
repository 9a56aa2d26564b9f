"""Random splits are disjoint, stratified, and a function of the seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnndrop.datasets import random_splits
from gnndrop.errors import ParameterError

labels = st.lists(st.integers(-1, 4), min_size=1, max_size=60).map(torch.tensor)
seeds = st.integers(0, 2**32)


@given(labels, seeds, st.floats(0.05, 1), st.floats(0, 1))
def test_splits_partition_the_labelled_nodes_by_class(
    y: torch.Tensor, seed: int, train: float, rest: float
) -> None:
    val = rest * (1 - train)
    for split in random_splits(y, count=3, train=train, val=val, seed=seed):
        covered = sum(mask.int() for mask in split)
        assert torch.equal(covered, (y >= 0).int())
        for label in y[y >= 0].unique():
            members = y == label
            size = int(members.sum())
            assert abs(int((split.train & members).sum()) - train * size) <= 0.5
            assert abs(int((split.val & members).sum()) - val * size) <= 1
            assert abs(int((split.test & members).sum()) - (1 - train - val) * size) <= 0.5 + 1e-6


@given(seeds)
@pytest.mark.usefixtures("generators_untouched")
def test_a_seed_fixes_every_split_however_many_are_asked(seed: int) -> None:
    y = torch.arange(40) % 2
    few, many = (random_splits(y, count=count, seed=seed) for count in (2, 5))
    for one, other in zip(few, many, strict=False):
        assert all(map(torch.equal, one, other))


def test_splits_and_seeds_differ() -> None:
    y = torch.arange(200) % 4
    trains = [
        tuple(split.train.tolist()) for seed in range(5) for split in random_splits(y, seed=seed)
    ]
    assert len(set(trains)) == 50


def test_every_node_of_a_class_is_equally_likely_to_train() -> None:
    splits = random_splits(torch.zeros(20), count=2000, train=0.3, val=0.3)
    rate = torch.stack([split.train for split in splits]).double().mean(dim=0)
    # Each node's count is binomial (2000, 0.3): five standard deviations.
    assert float((rate - 0.3).abs().max()) < 5 * (0.3 * 0.7 / 2000) ** 0.5


@pytest.mark.parametrize(
    "bad",
    [
        *({"count": 0}, {"seed": -1}, {"train": 0.0}, {"train": 1.1}, {"train": 0.7}),
        *({"val": -0.1}, {"train": float("nan")}, {"val": float("nan")}),
    ],
)
def test_bad_values_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=next(iter(bad))):
        random_splits(torch.arange(4), **bad)
