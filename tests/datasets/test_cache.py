"""The cache of parsed graphs saves time, and can neither lie nor stand in the way."""

import errno
import hashlib
import io
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.io import fs

from gnndrop.datasets import Dataset, Split, _base, _cache, load
from gnndrop.errors import DataError

Make = Callable[[str], Any]


def accept(*_: object) -> bool:
    return True


def kept(tmp_path: Path) -> Path:
    """Return the one file of the cache."""
    (file,) = (tmp_path / "cache/parsed").iterdir()
    return file


def sealed(content: bytes) -> bytes:
    return hashlib.sha256(content).digest() + content


def archive(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def same(one: Dataset, other: Dataset) -> bool:
    keys = ("x", "edge_index", "y", "train_mask", "val_mask", "test_mask")
    return all(torch.equal(one.data[key], other.data[key]) for key in keys)


class Hostile:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# The format


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Data, list[Split]]:
    nodes, features = draw(st.integers(1, 8)), draw(st.integers(1, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = generator.standard_normal((nodes, features)) * (
        generator.random((nodes, features)) < draw(st.sampled_from([0.0, 0.1, 0.4, 1.0]))
    )
    edges = generator.integers(0, nodes, (2, draw(st.integers(0, 20))))
    masks = generator.random((draw(st.integers(0, 3)), 3, nodes)) < 0.5
    data = Data(
        x=torch.from_numpy(x).float(),
        edge_index=torch.from_numpy(edges),
        y=torch.from_numpy(generator.integers(-1, 5, nodes)),
    )
    return data, [Split(*map(torch.from_numpy, three)) for three in masks]


@given(graphs())
def test_what_is_read_is_what_was_written(graph: tuple[Data, list[Split]]) -> None:
    data, splits = graph
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "new" / "graph"
        _cache.write(place, data, splits)
        read = _cache.read(place, accept)
    assert read is not None
    for key in ("x", "edge_index", "y"):
        assert read[0][key].dtype == data[key].dtype
        assert torch.equal(read[0][key], data[key])
    assert len(read[1]) == len(splits)
    for one, other in zip(read[1], splits, strict=True):
        assert all(map(torch.equal, one, other))


def test_bags_of_words_are_kept_by_their_words(tmp_path: Path) -> None:
    x = torch.zeros(300, 8000)
    x[:, ::250] = 1  # 32 words of 8000, about as Coauthor Physics has
    data = Data(x=x, edge_index=torch.zeros(2, 1, dtype=torch.long), y=torch.zeros(300).long())
    _cache.write(tmp_path / "graph", data, [])
    dense = 4 * x.numel()
    assert (tmp_path / "graph").stat().st_size < dense / 50


def test_no_file_is_no_graph(tmp_path: Path) -> None:
    assert _cache.read(tmp_path / "none", accept) is None


# Damage and malice


def truncated(content: bytes, _: Path) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes, _: Path) -> bytes:
    return content[:-400] + bytes([content[-400] ^ 1]) + content[-399:]


def emptied(*_: object) -> bytes:
    return b""


def a_pickle(_: bytes, mark: Path) -> bytes:
    return pickle.dumps(Hostile(mark))


def a_sealed_pickle(_: bytes, mark: Path) -> bytes:
    return sealed(pickle.dumps(Hostile(mark)))


def objects(_: bytes, mark: Path) -> bytes:
    return sealed(archive(x=np.array([Hostile(mark)], dtype=object)))


def changed(**arrays: np.ndarray) -> Callable[[bytes, Path], bytes]:
    """Return a forger who knows the format: the sum is right, some arrays are not."""

    def forge(content: bytes, _: Path) -> bytes:
        with np.load(io.BytesIO(content[_cache.DIGEST_BYTES :])) as old:
            return sealed(archive(**{**old, **arrays}))

    return forge


@pytest.mark.parametrize(
    "forge",
    [
        *(truncated, flipped, emptied, a_pickle, a_sealed_pickle, objects),
        changed(edge_index=np.full((2, 5), 10**6, dtype="i4")),
        changed(edge_index=np.full((2, 5), -1, dtype="i4")),
        changed(edge_index=np.zeros((2, 0), dtype="i4")),
        changed(y=np.full(30, 10**9)),
        changed(y=np.zeros(3, dtype="i8")),
        changed(values=np.zeros(3, dtype="f4")),
        changed(values=np.zeros(180), places=np.zeros(0, dtype="i8")),
        changed(values=np.zeros(1, dtype="f4"), places=np.full(1, 10**9)),
        changed(shape=np.array([2**40, 2**40])),
        changed(splits=np.zeros((10, 3, 2), dtype=bool)),
    ],
)
def test_a_file_that_is_not_ours_is_made_anew(
    forge: Callable[[bytes, Path], bytes], miniature: Make, tmp_path: Path
) -> None:
    root = miniature("texas").root
    first = load("texas", root)
    file = kept(tmp_path)
    content = file.read_bytes()
    file.write_bytes(forge(content, tmp_path / "mark"))
    assert same(first, load("texas", root))
    assert not (tmp_path / "mark").exists(), "a pickle was opened"
    assert file.read_bytes()[:32] == hashlib.sha256(file.read_bytes()[32:]).digest()
    assert _cache.read(file, accept) is not None


def test_a_folder_in_its_place_is_done_without(miniature: Make, tmp_path: Path) -> None:
    root = miniature("texas").root
    first = load("texas", root)
    file = kept(tmp_path)
    file.unlink()
    file.mkdir()
    assert same(first, load("texas", root))


def test_a_corrupt_mirror_is_not_hidden_by_the_cache(miniature: Make) -> None:
    mini = miniature("texas")
    load("texas", mini.root)
    (mini.root / mini.declared.files[1]).write_bytes(b"swapped")
    with pytest.raises(DataError, match=r"out1_graph_edges\.txt must have"):
        load("texas", mini.root)


@pytest.mark.parametrize("name", ["questions", "wikics"])
def test_another_file_without_a_sum_is_another_graph(name: str, miniature: Make) -> None:
    mini = miniature(name)
    before = load(name, mini.root)
    raw = mini.root / mini.declared.files[0]
    if name == "wikics":
        raw.write_bytes(raw.read_bytes().replace(b'"features": [[1', b'"features": [[5'))
    else:
        with np.load(raw) as arrays:
            features = 5 * arrays["node_features"]
            raw.write_bytes(archive(**{**arrays, "node_features": features}))
    assert load(name, mini.root).data.x[0, 0] == 5 * before.data.x[0, 0]


# Files without a known sum


def half(content: bytes, _: Path) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("name", ["roman-empire", "amazon-ratings", "questions", "wikics"])
@pytest.mark.parametrize("forge", [half, emptied, a_pickle, lambda *_: b"<html>404</html>"])
def test_an_unsummed_file_that_is_not_the_graph_is_refused(
    name: str, forge: Callable[[bytes, Path], bytes], miniature: Make, tmp_path: Path
) -> None:
    mini = miniature(name)
    raw = mini.root / mini.declared.files[0]
    raw.write_bytes(forge(raw.read_bytes(), tmp_path / "mark"))
    with pytest.raises(DataError) as caught:
        load(name, mini.root)
    message = str(caught.value)
    assert message.startswith(f"{name}: {raw} must hold the published graph, got ")
    url = f"http://127.0.0.1:9/{mini.declared.files[0]}"
    assert message.endswith(f"; delete it, and it is fetched from {url}")
    assert "\n" not in message
    assert not (tmp_path / "mark").exists(), "a pickle was opened"


@pytest.mark.parametrize("key", ["node_features", "node_labels", "edges", "train_masks"])
def test_objects_in_an_archive_are_not_unpickled(key: str, miniature: Make, tmp_path: Path) -> None:
    mini = miniature("questions")
    raw = mini.root / mini.declared.files[0]
    with np.load(raw) as arrays:
        objects = np.array([Hostile(tmp_path / "mark")], dtype=object)
        raw.write_bytes(archive(**{**arrays, key: objects}))
    with pytest.raises(DataError, match="must hold the published graph"):
        load("questions", mini.root)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("edges", np.array([[0, 1], [1, 2]]), "edges"),
        ("edges", np.full((90, 2), 10**6), "edges|ends|Error"),
        ("node_features", np.ones((30, 5), dtype="f4"), "features 5 instead of 6"),
        ("node_labels", np.arange(30) % 3, "classes"),
        ("train_masks", np.ones((10, 7), dtype=bool), "masks"),
    ],
)
def test_an_unsummed_file_with_another_graph_is_refused(
    key: str, value: np.ndarray, says: str, miniature: Make
) -> None:
    mini = miniature("questions")
    raw = mini.root / mini.declared.files[0]
    with np.load(raw) as arrays:
        raw.write_bytes(archive(**{**arrays, key: value}))
    with pytest.raises(DataError, match=f"must hold the published graph, got .*({says})"):
        load("questions", mini.root)


# No room, no right to write


def test_a_cache_that_cannot_be_made_is_done_without(miniature: Make, tmp_path: Path) -> None:
    root = miniature("texas").root
    (tmp_path / "cache").write_text("a file in the folder's place")
    assert load("texas", root).data.num_nodes == 30


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_done_without(
    number: int, miniature: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    root = miniature("texas").root
    monkeypatch.setattr(Path, "replace", refuse)
    assert load("texas", root).data.num_nodes == 30
    assert not list((tmp_path / "cache/parsed").iterdir()), "a part was left"


def test_a_disk_that_fills_up_leaves_no_part(
    miniature: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tempfile.NamedTemporaryFile

    def small(**options: Any) -> Any:
        file = real(**options)
        monkeypatch.setattr(file, "write", full)
        return file

    root = miniature("texas").root
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", small)
    assert load("texas", root).data.num_nodes == 30
    assert not list((tmp_path / "cache/parsed").iterdir()), "a part was left"


def test_a_full_disk_for_temporary_files_is_told(
    miniature: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = miniature("texas").root
    for holder, name in (
        (tempfile, "TemporaryDirectory"),
        (shutil, "copyfile"),
        (fs, "torch_save"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(holder, name, full)
            with pytest.raises(DataError, match=r"No space left on device.*TMPDIR"):
                load("texas", root)
    assert load("texas", root).data.num_nodes == 30


def test_a_bug_in_a_parser_is_not_taken_for_bad_data(
    miniature: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    mini = miniature("texas")
    with monkeypatch.context() as patch:
        patch.setattr(_base, "_differences", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            load("texas", mini.root)
    monkeypatch.setattr(_base, "_differences", lambda *_: "edges 3 instead of 4")
    with pytest.raises(DataError, match="texas: the published files must give the declared graph"):
        load("texas", mini.root)
