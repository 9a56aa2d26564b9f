"""Every loader, driven by miniature files in its upstream's format."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gnndrop.datasets import DATASETS, Dataset, _base, load, random_splits
from gnndrop.datasets._files import manifest
from gnndrop.errors import ParameterError

SPECS = [
    spec
    for spec in [*DATASETS, *(f"{name}:split=geom-gcn" for name in ("cora", "citeseer", "pubmed"))]
    if not DATASETS.make(spec).is_offline
]
DIRECTED = {"cornell", "texas", "wisconsin", "actor", "chameleon", "squirrel"}
UNSUMMED = ("roman-empire", "amazon-ratings", "questions", "wikics")
DRAWN = ("computers", "photo", "cs", "physics")


def quietly(spec: str, root: object) -> Dataset:
    """Load a dataset, and see that it warns exactly where it is declared to."""
    warned = bool(DATASETS.make(spec).warning)
    with pytest.warns(UserWarning, match="duplicate nodes") if warned else contextlib.nullcontext():
        return load(spec, root)


def equal(one: Dataset, other: Dataset) -> bool:
    """Say whether two datasets are the same to the bit, types included."""
    tensors = [
        [*(dataset.data[key] for key in sorted(dataset.data.keys())), *sum(dataset.splits, ())]
        for dataset in (one, other)
    ]
    return len(tensors[0]) == len(tensors[1]) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*tensors, strict=True)
    )


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.usefixtures("generators_untouched")
def test_a_miniature_loads_as_it_was_written(spec: str, miniature: Callable[[str], Any]) -> None:
    mini = miniature(spec)
    dataset = quietly(spec, mini.root)
    data, content = dataset.data, mini.content
    assert data.x.dtype == torch.float32
    assert (data.x.numpy() == content.x).all()
    assert (data.y.numpy() == content.y).all()
    columns = data.edge_index.t().tolist()
    assert len(columns) == mini.declared.edges, "an edge stands twice"
    assert data.is_directed() == (spec in DIRECTED)
    published = set(map(tuple, content.edges.tolist()))
    both = published | {(b, a) for a, b in published}
    assert {(a, b) for a, b in map(tuple, columns) if a != b} == {
        (a, b) for a, b in (published if spec in DIRECTED else both) if a != b
    }
    assert len(dataset.splits) == mini.declared.splits


@pytest.mark.parametrize("spec", SPECS)
def test_splits_are_the_published_ones(spec: str, miniature: Callable[[str], Any]) -> None:
    mini = miniature(spec)
    loaded = np.array(
        [[mask.numpy() for mask in split] for split in quietly(spec, mini.root).splits]
    )
    if spec in DRAWN:
        drawn = random_splits(torch.from_numpy(mini.content.y))
        assert (loaded == np.array([[mask.numpy() for mask in split] for split in drawn])).all()
        assert "no published splits" in mini.declared.note
    elif mini.declared.splits == 1:  # Planetoid's: where x ends, the next 500, and those listed
        train, val, test = loaded[0]
        assert np.flatnonzero(train).tolist() == list(range(4))
        assert np.flatnonzero(val).tolist() == list(range(4, 504))
        absent = {505} if spec == "citeseer" else set()
        assert set(np.flatnonzero(test)) == set(range(504, 524)) - absent
    else:
        masks = mini.content.masks.transpose(1, 0, 2).copy()
        if spec == "wikics":  # one test set serves all
            masks[:, 2] = masks[0, 2]
        assert (loaded == masks).all()


@pytest.mark.parametrize("spec", SPECS)
def test_the_cache_gives_the_same_to_the_bit_without_parsing(
    spec: str, miniature: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mini = miniature(spec)
    first = quietly(spec, mini.root)
    monkeypatch.setattr(_base, "_parse", lambda *_: pytest.fail("parsed again"))
    assert equal(first, quietly(spec, mini.root))


@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_draws_other_splits_of_the_same_kept_graph(
    name: str, miniature: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mini = miniature(name)
    first = load(name, mini.root)
    monkeypatch.setattr(_base, "_parse", lambda *_: pytest.fail("parsed again"))
    other = load(f"{name}:seed=1", mini.root)
    assert torch.equal(first.data.x, other.data.x)
    assert not torch.equal(first.splits[0].train, other.splits[0].train)
    with pytest.raises(ParameterError, match="seed must"):
        load(f"{name}:seed=-1", mini.root)


@pytest.mark.parametrize("name", ["chameleon", "squirrel"])
def test_raw_wikipedia_graphs_warn_of_their_duplicates(
    name: str, miniature: Callable[[str], Any]
) -> None:
    root = miniature(name).root
    with pytest.warns(
        UserWarning, match=f"^{name}: duplicate nodes .* use {name}-filtered"
    ) as seen:
        load(name, root)
    assert [warning.filename for warning in seen] == [__file__], "it must name who loads"


def test_the_metric_is_the_published_one() -> None:
    by_area = {name for name in DATASETS if DATASETS.make(name).metric == "roc_auc"}
    assert by_area == {"minesweeper", "tolokers", "questions", "minesweeper-grid"}


def test_these_have_no_known_sum_and_all_others_have() -> None:
    without = {name for name in DATASETS if DATASETS.make(name).bytes is None}
    assert without == set(UNSUMMED)
    for file in manifest().values():
        assert (file.size is None) == (file.sha256 is None)
        assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
