"""`read_graph`: every format as others write it, and every way in which a file can be bad."""

import csv
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import coalesce, to_undirected

from gnndrop.datasets import from_data, from_networkx, load, read_graph
from gnndrop.errors import DataError, ParameterError

NODES = 20
RING = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
BOTH_WAYS = to_undirected(RING)
Y = torch.arange(NODES) % 2
X = torch.arange(NODES * 2).reshape(NODES, 2).float()


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a file and returns its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def table(columns: dict[str, list], index: bool = False) -> str:
    """Write columns as pandas's `to_csv(index=index)` does."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    rows = list(zip(*columns.values(), strict=True))
    writer.writerow([""] * index + list(columns))
    writer.writerows([number] * index + list(row) for number, row in enumerate(rows))
    return text.getvalue()


IDS = [f"n{k}" for k in range(NODES)]
EDGES = {"source": [IDS[k] for k in RING[0]], "target": [IDS[k] for k in RING[1]]}
COLUMNS = {
    "id": IDS,
    "label": ["no" if k % 2 == 0 else "yes" for k in range(NODES)],
    "age": [2.0 * k for k in range(NODES)],
    "size": list(range(1, 2 * NODES, 2)),
}


def data(**changes):
    return Data(**{"x": X, "edge_index": BOTH_WAYS, "y": Y, **changes})


def arrays(**changes):
    made = {"edges": RING.t().numpy(), "node_labels": Y.numpy(), "node_features": X.numpy()}
    return {key: value for key, value in {**made, **changes}.items() if value is not None}


def attributed(label="label"):
    graph = nx.Graph(RING.t().tolist())
    for node, values in graph.nodes(data=True):
        values.update({label: "yes" if node % 2 else "no", "age": 2 * node, "size": 2 * node + 1})
    return graph


def npz(path: Path, **made: np.ndarray) -> Path:
    np.savez(path, **made)
    return path


def check(own, name):
    """All formats hold the same graph."""
    assert own.name == str(name)
    assert torch.equal(own.data.x, X)
    assert own.data.num_edges == 2 * NODES
    assert torch.equal(coalesce(own.data.edge_index), BOTH_WAYS)
    assert torch.equal(own.data.y, Y)
    assert len(own.splits) == 10
    assert own.homophily.adjusted == pytest.approx(-1)


def test_pt(tmp_path):
    path = tmp_path / "graph.pt"
    torch.save(data(), path)
    check(read_graph(path), path)
    torch.save(data().to_dict(), path)
    check(read_graph(str(path)), path)


def test_pt_with_masks_and_more(tmp_path):
    path = tmp_path / "graph.PT"
    masks = {
        f"{part}_mask": torch.arange(NODES) % 5 == k
        for k, part in enumerate(("train", "val", "test"))
    }
    full = data(**masks, edge_weight=torch.rand(2 * NODES), names=["a"] * NODES, shape=(1, 2))
    torch.save(full, path)
    own = read_graph(path)
    assert len(own.splits) == 1
    assert torch.equal(own.data.edge_weight, full.edge_weight)
    assert "not used: names, shape" in own.note


def test_npz(tmp_path):
    path = npz(tmp_path / "graph.npz", **arrays())
    check(read_graph(path), path)
    assert torch.equal(read_graph(path, directed=True).data.edge_index, RING)


def test_npz_with_splits_and_names_of_classes(tmp_path):
    masks = {
        f"{part}_masks": np.stack([np.arange(NODES) % 5 == k, np.arange(NODES) % 4 == k])
        for k, part in enumerate(("train", "val", "test"))
    }
    labels = np.array(["yes" if k % 2 else "no" for k in range(NODES)])
    own = read_graph(npz(tmp_path / "graph.npz", **arrays(node_labels=labels), **masks))
    assert len(own.splits) == 2
    assert torch.equal(own.splits[1].val, torch.arange(NODES) % 4 == 1)
    assert torch.equal(own.data.y, Y)


def test_the_published_npz_is_the_dataset(root_with):
    root = root_with("chameleon-filtered")
    own = read_graph(root / "heterophilous_filtered/chameleon_filtered.npz")
    theirs = load("chameleon-filtered", root)
    for key in ("x", "edge_index", "y"):
        assert torch.equal(own.data[key], theirs.data[key])
    for ours, published in zip(own.splits, theirs.splits, strict=True):
        assert all(map(torch.equal, ours, published))


@pytest.mark.parametrize("directed", [False, True])
def test_graphml(tmp_path, directed):
    path = tmp_path / "graph.graphml"
    graph = attributed()
    nx.write_graphml(graph.to_directed() if directed else graph, path)
    check(read_graph(path), path)


def test_gml_where_label_is_the_name_of_a_node(tmp_path):
    path = tmp_path / "graph.gml"
    nx.write_gml(attributed("kind"), path)
    check(read_graph(path, label_col="kind"), path)  # the names 0, 1, ... are no feature
    with pytest.raises(DataError, match=r"20 labels on 20 nodes; choose .*--label-col"):
        read_graph(path)


def test_files_of_networkx_are_its_graphs(tmp_path):
    club = nx.karate_club_graph()
    nx.write_graphml(club, tmp_path / "club.graphml")
    file = read_graph(tmp_path / "club.graphml", label_col="club")
    own = from_networkx(club, label_col="club")
    assert torch.equal(file.data.edge_index, own.data.edge_index)
    assert torch.equal(file.data.y, own.data.y)


@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(write, index, mark):
    edges = write("edges.csv", mark + table(EDGES, index))
    nodes = write("nodes.csv", mark + table(COLUMNS, index))
    check(read_graph(edges, nodes=nodes), edges)


def test_csv_with_columns_of_other_names(write):
    edges = write(
        "edges.csv", table({"a": EDGES["source"], "b": EDGES["target"], "w": [1] * NODES})
    )
    renamed = {"who": IDS, "kind": COLUMNS["label"], "age": COLUMNS["age"], "size": COLUMNS["size"]}
    own = read_graph(edges, nodes=write("nodes.csv", table(renamed)), label_col="kind")
    check(own, edges)
    assert "columns of the edges not used: w" in own.note


def test_csv_with_pandas_index_as_ids(write):
    plain = {"source": RING[0].tolist(), "target": RING[1].tolist()}
    nodes = {name: values for name, values in COLUMNS.items() if name != "id"}
    edges = write("edges.csv", table(plain))
    check(read_graph(edges, nodes=write("nodes.csv", table(nodes, index=True))), edges)


def test_csv_split_text_columns_and_missing_labels(write):
    columns = {
        **COLUMNS,
        "label": ["", *COLUMNS["label"][1:]],
        "part": ["", *(["train", "validation", "Test"][k % 3] for k in range(1, NODES))],
        "city": ["Oslo, N"] * NODES,
        "empty": [""] * NODES,
    }
    own = read_graph(
        write("edges.csv", table(EDGES)), nodes=write("nodes.csv", table(columns)), split_col="part"
    )
    assert own.data.y[0] == -1
    assert len(own.splits) == 1
    assert own.splits[0].val.nonzero()[:, 0].tolist() == list(range(1, NODES, 3))
    assert own.data.num_features == 2
    assert "columns of the nodes not used, no numbers: city, empty" in own.note
    assert "1 nodes without a label, in no split" in own.note


def test_csv_directed(write):
    edges, nodes = write("edges.csv", table(EDGES)), write("nodes.csv", table(COLUMNS))
    own = read_graph(edges, nodes=nodes, directed=True)
    assert torch.equal(own.data.edge_index, RING)
    assert "directed, kept so" in own.note


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("graph.txt", {}, "must end in one of .pt, .npz, .graphml, .gml, .csv, got 'graph.txt'"),
        ("graph", {}, "must end in one of"),
        ("graph.pt", {"label_col": "x"}, ".pt files have no use for label_col (--label-col)"),
        ("graph.pt", {"directed": True}, ".pt files have no use for directed (--directed)"),
        ("graph.npz", {"split_col": "x"}, ".npz files have no use for split_col (--split-col)"),
        ("graph.graphml", {"nodes": "n.csv"}, ".graphml files have no use for nodes (--nodes)"),
        ("graph.gml", {"directed": True}, ".gml files have no use for directed (--directed)"),
        ("graph.csv", {}, "a CSV file of edges needs nodes (--nodes)"),
    ],
)
def test_wrong_use(tmp_path, name, options, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        read_graph(tmp_path / name, **options)


@pytest.mark.parametrize("options", [{"label_col": "lable"}, {"split_col": "split"}])
def test_columns_that_are_not_there_are_wrong_use(write, tmp_path, options):
    edges, nodes = write("edges.csv", table(EDGES)), write("nodes.csv", table(COLUMNS))
    with pytest.raises(ParameterError, match=re.escape(f"{nodes}: ")):
        read_graph(edges, nodes=nodes, **options)
    nx.write_graphml(attributed(), tmp_path / "graph.graphml")
    with pytest.raises(ParameterError, match=r"graph\.graphml: .* must be a column or attribute"):
        read_graph(tmp_path / "graph.graphml", **options)


def refused(path: Path, message: str, named: Path | None = None, **options) -> None:
    """Assert that a file is refused in one sentence, of a length to read, with its name."""
    with pytest.raises(DataError) as told:
        read_graph(path, **options)
    text = str(told.value)
    assert message in text
    assert str(named or path) in text
    assert "\n" not in text
    assert "unsafe" not in text  # no advice to unpickle it after all
    assert "pickle.load" not in text
    assert "weights_only" not in text
    assert len(text) < 500 + 2 * len(str(path))


@pytest.mark.parametrize("kind", ["pt", "npz", "graphml", "gml"])
def test_files_that_are_not_there_or_no_files(tmp_path, kind):
    refused(tmp_path / f"graph.{kind}", "must exist")
    (tmp_path / f"folder.{kind}").mkdir()
    refused(tmp_path / f"folder.{kind}", "must exist")


@pytest.mark.parametrize("name", ["x" * 300 + ".pt", "a\0b.pt"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(DataError, match="must exist"):
        read_graph(tmp_path / name)


def test_csv_files_that_are_not_there(write, tmp_path):
    edges = write("edges.csv", table(EDGES))
    refused(edges, "must exist", tmp_path / "nodes.csv", nodes=tmp_path / "nodes.csv")
    refused(tmp_path / "none.csv", "must exist", nodes=edges)


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_hostile_pt_runs_nothing(tmp_path):
    path, trace = tmp_path / "graph.pt", tmp_path / "trace"
    attacks = [Hostile(trace), {"x": Hostile(trace)}, data(x=Hostile(trace))]
    for attack in attacks:
        torch.save(attack, path)
        refused(path, "without code")
        path.write_bytes(pickle.dumps(attack, protocol=2))
        refused(path, "without code")
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # what it would have done


def test_a_hostile_npz_runs_nothing(tmp_path):
    path, trace = tmp_path / "graph.npz", tmp_path / "trace"
    hostile = np.array([Hostile(trace)], dtype=object)
    for attack in (arrays(node_features=hostile), arrays(more=hostile)):
        npz(path, **attack)
        refused(path, "without pickles")
    path.write_bytes(pickle.dumps(Hostile(trace)))
    refused(path, "without pickles")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 64, b"<html>404</html>", b"PK\x03\x04nothing", pickle.dumps([1, 2])],
)
@pytest.mark.parametrize("kind", ["pt", "npz", "graphml", "gml"])
def test_garbage(write, kind, content):
    refused(write(f"graph.{kind}", content), "must be")


@pytest.mark.parametrize("kind", ["pt", "npz", "graphml", "gml"])
def test_truncated_files_at_any_place(tmp_path, kind):
    path = tmp_path / f"graph.{kind}"
    writers = {
        "pt": lambda: torch.save(data(), path),
        "npz": lambda: npz(path, **arrays()),
        "graphml": lambda: nx.write_graphml(attributed(), path),
        "gml": lambda: nx.write_gml(attributed("kind"), path),
    }
    writers[kind]()
    whole = path.read_bytes().rstrip()
    for end in range(0, len(whole), max(1, len(whole) // 40)):
        path.write_bytes(whole[:end])
        refused(path, "must", **({"label_col": "kind"} if kind == "gml" else {}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HeteroData(), "must be a PyG Data"),
        ([data()], "a list; save one graph"),
        (torch.ones(3), "a Tensor; save one graph"),
        ({"x": X}, "a Data must have edge_index and y, got x"),
        (data(edge_index=BOTH_WAYS + 1), "edges must join nodes 0..19, got node 20"),
        (data(x=X / 0), "x must be finite in float32, got nan at node 0"),
        (data(y=None), "must have edge_index and y"),
        (data(train_mask=Y > 0), "got none of val_mask, test_mask"),
        (data(x=torch.ones(2, 2, device="meta")), "x must be an array of numbers"),
    ],
)
def test_pt_that_holds_no_sound_graph(tmp_path, content, message):
    torch.save(content, tmp_path / "graph.pt")
    refused(tmp_path / "graph.pt", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": None}, "an array edges is needed, got node_labels, node_features"),
        ({"node_labels": None}, "an array node_labels is needed"),
        ({"edges": RING.numpy()}, "edges must have the shape [edges, 2], got [2, 20]"),
        ({"edges": RING.t().numpy() + 5}, "edges must join nodes 0..19, got node 20"),
        ({"train_masks": Y.numpy()[None]}, "all of train_masks, val_masks, test_masks are needed"),
        (
            dict(
                zip(
                    ("train_masks", "val_masks", "test_masks"),
                    torch.eye(3, 20).bool().numpy(),
                    strict=True,
                )
            )
            | {"test_masks": np.ones((2, 20), dtype=bool)},
            "masks must have one shape",
        ),
        ({"node_features": np.array([["a"]] * NODES)}, "x must be an array of numbers"),
    ],
)
def test_npz_that_holds_no_sound_graph(tmp_path, changes, message):
    refused(npz(tmp_path / "graph.npz", **arrays(**changes)), message)


def test_an_npz_that_promises_more_than_there_is_memory(tmp_path):
    path = npz(tmp_path / "graph.npz", **arrays())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 2**10)}
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_masks.npy", header.getvalue())
    refused(path, "must be arrays")


def test_xml_entities_are_refused(write):
    levels = "".join(f'<!ENTITY e{k + 1} "{f"&e{k};" * 10}">' for k in range(9))
    bomb = f'<?xml version="1.0"?><!DOCTYPE g [<!ENTITY e0 "boom">{levels}]><graphml>&e9;</graphml>'
    refused(write("bomb.graphml", bomb), "it defines the XML entity 'e0'")
    outside = '<!DOCTYPE g [<!ENTITY e SYSTEM "file:///etc/hostname">]><graphml>&e;</graphml>'
    refused(write("outside.graphml", outside), "it defines the XML entity 'e'")


def test_a_deeply_nested_gml_is_refused(write):
    refused(write("deep.gml", "graph [ " + "a [ " * 100_000), "must be a graph")


@pytest.mark.parametrize(
    ("edges", "nodes", "message", "named"),
    [
        ("", None, "got an empty file", "edges"),
        (
            "source,target\nn0,n1,n2\n",
            None,
            "2 values in every line, as in its first, got 3 in line 2",
            "edges",
        ),
        ("source,target\n\nn0\n", None, "got 1 in line 3", "edges"),
        ("source,target\nn0,n99\n", None, "got the unknown node 'n99' in edge 1", "edges"),
        ("source,target\nn0,\n", None, "got the unknown node '' in edge 1", "edges"),
        ("n0,n1\nn1,n2\n", None, "must begin with the names of its columns", "edges"),
        ("source;target\nn0;n1\n", None, "two columns with the ends of each edge", "edges"),
        ("a,a\nn0,n1\n", None, "name each column once, got 'a' twice", "edges"),
        ('source,target\n"n0,n1\n', None, "CSV file in UTF-8", "edges"),
        (b"source,target\n\xff\xfe,n1\n", None, "CSV file in UTF-8", "edges"),
        (b"source,target\nn0,\x00n1\n", None, "n1", "edges"),
        (None, "", "got an empty file", "nodes"),
        (None, "id,label\nn0,a\nn0,b\n", "each node once in column 'id', got 'n0'", "nodes"),
        (None, "id,label\n,a\n", "each node once in column 'id', got ''", "nodes"),
        (None, "id,label,age\nn0,a\n", "3 values in every line, as in its first, got 2", "nodes"),
    ],
)
def test_bad_csv(write, edges, nodes, message, named):
    paths = {
        "edges": write("edges.csv", table(EDGES) if edges is None else edges),
        "nodes": write("nodes.csv", table(COLUMNS) if nodes is None else nodes),
    }
    refused(paths["edges"], message, paths[named], nodes=paths["nodes"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"age": ["", *COLUMNS["age"][1:]]},
            "column 'age' must hold finite numbers for every node",
        ),
        ({"age": [*COLUMNS["age"][1:], "old"]}, "got 'old' at node 'n19'"),
        ({"age": [*COLUMNS["age"][1:], "inf"]}, "got 'inf' at node 'n19'"),
        ({"label": ["no"] * NODES}, "at least two classes, got 1"),
        ({"label": IDS}, "20 labels on 20 nodes"),
        ({"label": [f"{k}.5" for k in COLUMNS["size"]]}, "quantities are not classified"),
        ({"part": ["exam"] * NODES}, "got 'exam' at node 'n0'"),
        ({"part": ["train"] * NODES}, "the val mask of split 0 must mark labelled nodes"),
    ],
)
def test_nodes_that_hold_no_sound_graph(write, change, message):
    edges = write("edges.csv", table(EDGES))
    nodes = write("nodes.csv", table({**COLUMNS, **change}))
    refused(edges, message, nodes, nodes=nodes, split_col="part" if "part" in change else None)


def test_a_graph_without_edges_is_one(write):
    own = read_graph(write("edges.csv", "source,target\n"), nodes=write("n.csv", table(COLUMNS)))
    assert own.data.num_edges == 0


def test_reading_changes_no_list_of_safe_globals(tmp_path):
    torch.save(data(), tmp_path / "graph.pt")
    before = set(torch.serialization.get_safe_globals())
    read_graph(tmp_path / "graph.pt")
    assert set(torch.serialization.get_safe_globals()) == before


def test_pt_is_from_data(tmp_path):
    torch.save(data(), tmp_path / "graph.pt")
    assert read_graph(tmp_path / "graph.pt").note == from_data(data()).note
