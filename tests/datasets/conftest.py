"""Miniature raw files in each upstream format, known to the manifest, with what they hold."""

import dataclasses
import functools
import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp

from gnndrop.datasets import DATASETS, Declaration, _files
from gnndrop.datasets._files import RawFile
from gnndrop.registry import parse_spec

CLASSES, FEATURES = 2, 6
TRAIN, VAL = 4, 500  # of Planetoid's public split: one node per row of `y`, then always 500


class Content(NamedTuple):
    """What a graph holds: `edges` as published, `masks` `[3, splits, nodes]`."""

    x: np.ndarray
    y: np.ndarray
    edges: np.ndarray
    masks: np.ndarray


class Miniature(NamedTuple):
    root: Path
    content: Content
    declared: Declaration


def draw(nodes: int, splits: int) -> Content:
    """Draw a directed graph with a self-loop, a repeated link and a link back."""
    generator = np.random.default_rng(nodes)
    x = generator.integers(0, 2, (nodes, FEATURES))
    x[:, 0], x[0, -1] = 1, 1  # no empty rows, and the last column is needed
    links = generator.integers(0, nodes, (3 * nodes, 2))
    edges = np.concatenate([links, links[:1], links[1:2, ::-1], [[3, 3]]])
    part = generator.integers(0, 3, (splits, nodes))
    return Content(x, np.arange(nodes) % CLASSES, edges, np.stack([part == k for k in range(3)]))


def archive(**arrays: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def text(header: str, rows: Any) -> bytes:
    return "\n".join([header, *("\t".join(map(str, row)) for row in rows), ""]).encode()


def planetoid(content: Content, name: str) -> dict[str, bytes]:
    nodes = len(content.y)
    known = TRAIN + VAL
    # Test nodes are listed in an order of their own; CiteSeer lacks some altogether.
    test = np.random.default_rng(1).permutation(np.arange(known, nodes))
    if name == "CiteSeer":
        content.x[known + 1], content.y[known + 1] = 0, 0
        test = test[test != known + 1]
    sparse, one_hot = sp.csr_matrix(content.x.astype("f4")), np.eye(CLASSES)[content.y]
    lists: dict[int, list[int]] = {node: [] for node in range(nodes)}
    for one, other in content.edges.tolist():  # upstream lists a link at both of its ends
        lists[one].append(other)
        lists[other].append(one)
    parts = {
        "x": sparse[:TRAIN],
        "tx": sparse[test],
        "allx": sparse[:known],
        "y": one_hot[:TRAIN],
        "ty": one_hot[test],
        "ally": one_hot[:known],
        "graph": lists,
    }
    files = {f"ind.{name.lower()}.{part}": pickle.dumps(value) for part, value in parts.items()}
    files[f"ind.{name.lower()}.test.index"] = "".join(f"{node}\n" for node in test).encode()
    return files


def splits(content: Content, prefix: str) -> dict[str, bytes]:
    names = ("train_mask", "val_mask", "test_mask")
    return {
        f"{prefix}_split_0.6_0.2_{index}.npz": archive(
            **{name: mask.astype("u1") for name, mask in zip(names, masks, strict=True)}
        )
        for index, masks in enumerate(content.masks.transpose(1, 0, 2))
    }


def geom_gcn(content: Content, prefix: str) -> dict[str, bytes]:
    def features(row: np.ndarray) -> str:
        return ",".join(map(str, np.flatnonzero(row) if prefix == "film" else row))

    rows = [(node, features(content.x[node]), label) for node, label in enumerate(content.y)]
    return {
        "out1_node_feature_label.txt": text("node_id\tfeature\tlabel", rows),
        "out1_graph_edges.txt": text("node_id\tnode_id", content.edges.tolist()),
        **splits(content, prefix),
    }


def heterophilous(content: Content) -> bytes:
    train, val, test = content.masks
    return archive(
        node_features=content.x.astype("f4"),
        node_labels=content.y,
        edges=content.edges,
        train_masks=train,
        val_masks=val,
        test_masks=test,
    )


def pitfalls(content: Content) -> bytes:
    nodes = len(content.y)
    matrices = {
        "attr": sp.csr_matrix(3 * content.x.astype("f4")),  # counts, which load as 0 or 1
        "adj": sp.csr_matrix((np.ones(len(content.edges)), content.edges.T), shape=(nodes, nodes)),
    }
    parts = ("data", "indices", "indptr", "shape")
    arrays = {
        f"{name}_{part}": np.array(getattr(matrix, part))
        for name, matrix in matrices.items()
        for part in parts
    }
    return archive(**arrays, labels=content.y, class_names=np.array(["a", None]))  # pickled


def wikics(content: Content) -> bytes:
    links: list[list[int]] = [[] for _ in content.y]
    for one, other in content.edges.tolist():
        links[one].append(other)
    train, val, test = content.masks.tolist()
    document = {
        "features": content.x.tolist(),
        "labels": content.y.tolist(),
        "links": links,
        "train_masks": train,
        "val_masks": val,
        "stopping_masks": val,
        "test_mask": test[0],
    }
    return json.dumps(document).encode()


def write(declared: Declaration, content: Content) -> dict[str, bytes]:
    """Return the raw files of a dataset, by their path in the manifest."""
    folder, _, name = declared.files[0].rpartition("/")
    if folder.startswith("Planetoid"):
        files = planetoid(content, folder.split("/")[1])
        if declared.splits > 1:
            files |= splits(content, name.split(".")[1])
    elif declared.files[-1].endswith("_9.npz"):
        files = geom_gcn(content, declared.files[-1].rpartition("/")[2].split("_")[0])
    elif folder.startswith(("heterophilous_filtered", "Heterophilous")):
        files = {name: heterophilous(content)}
    else:
        files = {name: wikics(content) if name == "data.json" else pitfalls(content)}
    return {f"{folder}/{file}": data for file, data in files.items()}


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes], str], None]:
    """Return a function that makes files known to the manifest, with the sums that it knows of."""

    def publish(files: dict[str, bytes], address: str) -> None:
        known = dict(_files.manifest())
        for path, data in files.items():
            summed = path not in known or known[path].sha256
            known[path] = RawFile(
                path,
                len(data) if summed else None,
                hashlib.sha256(data).hexdigest() if summed else None,
                f"{address}/{path}",
            )
        monkeypatch.setattr(_files, "manifest", lambda: known)

    return publish


@pytest.fixture
def miniature(
    publish: Callable[[dict[str, bytes], str], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[[str], Miniature]:
    """Return a function that writes a mirror with a dataset's files in miniature."""
    monkeypatch.delenv("GNNDROP_DATA", raising=False)
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))

    def make(spec: str) -> Miniature:
        name = parse_spec(spec)[0]
        declared = DATASETS.make(spec)
        nodes = TRAIN + VAL + 20 if declared.files[0].startswith("Planetoid") else 30
        content = draw(nodes, declared.splits)
        files = write(declared, content)
        for path, data in files.items():
            (tmp_path / "mirror" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "mirror" / path).write_bytes(data)
        publish(files, "http://127.0.0.1:9")
        counts = {"nodes": nodes, "edges": len(expected_edges(spec, content.edges))}
        original = DATASETS[name]

        @functools.wraps(original)  # its options are the original's
        def factory(**options: Any) -> Declaration:
            return dataclasses.replace(
                original(**options), features=FEATURES, classes=CLASSES, **counts
            )

        monkeypatch.setitem(DATASETS._entries, name, factory)
        return Miniature(tmp_path / "mirror", content, factory(**dict(parse_spec(spec)[1])))

    return make


DIRECTED = ("cornell", "texas", "wisconsin", "actor", "chameleon", "squirrel")
# Upstream has no self-loops in these files, and neither PyG nor we take out what is not there.
KEEPS_LOOPS = ("filtered", "minesweeper", "tolokers", "roman", "amazon-r", "questions", "wikics")


def expected_edges(spec: str, edges: np.ndarray) -> set[tuple[int, int]]:
    """Return the columns of `edge_index` that published links stand for, by the field's use."""
    links = set(map(tuple, edges.tolist()))
    if spec in DIRECTED:
        return links
    links |= {(b, a) for a, b in links}
    keeps = any(word in spec for word in KEEPS_LOOPS)
    return links if keeps else {(a, b) for a, b in links if a != b}
