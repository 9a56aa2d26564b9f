"""Arrays, PyG and networkx graphs of one's own: what becomes of them, and what is refused."""

import re

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data, HeteroData
from torch_geometric.utils import from_networkx as pyg_from_networkx
from torch_geometric.utils import to_undirected

from gnndrop.config import TrainConfig
from gnndrop.datasets import from_arrays, from_data, from_networkx, random_splits
from gnndrop.errors import ParameterError
from gnndrop.study import compare

NODES = 20
Y = torch.arange(NODES) % 2
X = torch.arange(NODES * 3).reshape(NODES, 3).float()
RING = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
SPLIT = (Y.cumsum(0) < 4, (Y.cumsum(0) >= 4) & (Y.cumsum(0) < 7), Y.cumsum(0) >= 7)


def make(x=X, edge_index=RING, y=Y, **options):
    return from_arrays(x, edge_index, y, **options)


def graph(**changes):
    masks = dict(zip(("train_mask", "val_mask", "test_mask"), SPLIT, strict=True))
    return Data(**{"x": X, "edge_index": RING, "y": Y, **masks, **changes})


@pytest.mark.parametrize("convert", [torch.as_tensor, np.asarray, lambda value: value.tolist()])
def test_tensors_arrays_and_lists_are_the_same(convert):
    own = from_arrays(convert(X), convert(RING), convert(Y), splits=[[convert(m) for m in SPLIT]])
    assert torch.equal(own.data.x, X)
    assert torch.equal(own.data.edge_index, RING)
    assert torch.equal(own.data.y, Y)
    assert own.data.x.dtype == torch.float32
    assert all(map(torch.equal, own.splits[0], SPLIT))
    assert torch.equal(own.data.val_mask, SPLIT[1])
    assert own.note == "directed, kept so"


def test_what_the_user_holds_is_not_shared():
    x = X.clone()
    own = make(x)
    x += 1
    assert torch.equal(own.data.x, X)


@given(st.lists(st.sampled_from(["b", "a", "", None]), min_size=8, max_size=20), st.data())
def test_text_labels_are_numbered_in_sorted_order(labels, data):
    labels = [*labels, *"aabb"]
    edge = data.draw(st.integers(0, len(labels) - 1))
    y = make(None, [[0], [edge]], [*labels, *"ab" * 10]).data.y.tolist()
    expected = [{"a": 0, "b": 1}.get(label, -1) for label in [*labels, *"ab" * 10]]
    assert y == expected


@pytest.mark.parametrize(
    ("labels", "y", "note"),
    [
        ([0, 1], [0, 1], ""),
        ([3, 1], [1, 0], "classes 0=1, 1=3"),
        (["10", "9"], [1, 0], "classes 0=9, 1=10"),
        ([1.0, 0.0], [1, 0], ""),
        ([True, False], [1, 0], ""),
        ([10**9, 0], [1, 0], "classes 0=0, 1=1000000000"),
        # A float holds no whole number beyond 2^53.
        ([10**17 + 1, 10**17], [1, 0], "classes 0=100000000000000000, 1=100000000000000001"),
        ([str(10**17 + 1), str(10**17)], [1, 0], f"0={10**17}, 1={10**17 + 1}"),
        ([np.int64(10**17 + 1), np.int64(10**17)], [1, 0], f"0={10**17}, 1={10**17 + 1}"),
        (["1.0", "0"], [1, 0], ""),
        (["10", "x"], [0, 1], "classes 0=10, 1=x"),
    ],
)
def test_gaps_are_closed_and_said(labels, y, note):
    own = make(y=labels * (NODES // 2))
    assert own.data.y.tolist() == y * (NODES // 2)
    assert own.num_classes == 2
    assert (note in own.note) if note else ("classes" not in own.note.split("ten random")[0])


def test_a_column_of_labels_is_squeezed():
    assert torch.equal(make(y=Y[:, None]).data.y, Y)


@pytest.mark.parametrize("none", [-1, -1.0, float("nan")])
def test_unlabelled_nodes_are_in_no_split(none):
    y = Y.double()
    y[:3] = none
    own = make(y=y)
    assert own.data.y[:3].tolist() == [-1] * 3
    assert "3 nodes without a label" in own.note
    assert not any(mask[:3].any() for split in own.splits for mask in split)


def test_missing_splits_are_the_random_ones_and_said():
    own = make()
    assert len(own.splits) == 10
    for ours, theirs in zip(own.splits, random_splits(Y), strict=True):
        assert all(map(torch.equal, ours, theirs))
    assert "ten random splits 48/32/20" in own.note


def test_missing_features_are_the_identity_and_said():
    own = make(None)
    assert torch.equal(own.data.x, torch.eye(NODES))
    assert "no features: each node is its own" in own.note
    with pytest.raises(ParameterError, match="a graph of 5001 nodes must have features"):
        from_arrays(None, RING, torch.arange(5001) % 2)


def test_undirected_joins_both_ways_and_merges():
    edges = [[0, 1, 1, 2, 2], [1, 0, 2, 2, 3]]
    own = make(edge_index=[[*row, row[-1]] for row in edges], undirected=True)
    assert torch.equal(own.data.edge_index, to_undirected(torch.tensor(edges)))
    assert "repeated edges merged: 2; self-loops kept: 1" in own.note


def test_repeated_edges_are_kept_and_said():
    own = make(edge_index=RING.repeat(1, 2))
    assert own.data.num_edges == 2 * NODES
    assert f"repeated edges kept: {NODES}" in own.note


def test_a_class_that_is_not_trained_on_is_said():
    train, val, test = (mask.clone() for mask in SPLIT)
    train &= Y == 0
    assert (
        "no training node of class b"
        in make(y=["ab"[k] for k in Y], splits=[(train, val, test)]).note
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"edge_index": RING + 2},
            "nodes 0..19, got node 20 in edge 17 (nodes are counted from 0)",
        ),
        (
            {"edge_index": [[1, 2], [2, 20]]},
            "got node 20 in edge 1 (nodes are counted from 0, subtract 1)",
        ),
        ({"edge_index": [[-1], [0]]}, "got node -1"),
        ({"edge_index": RING.t()}, "got [20, 2]; transpose it"),
        ({"edge_index": RING[0]}, "shape [2, edges], got [20]"),
        ({"edge_index": RING.float()}, "must hold integers"),
        ({"edge_index": [["a"], ["b"]]}, "edge_index must be an array of numbers, got list"),
        ({"edge_index": [[0, 1], [2]]}, "edge_index must be an array of numbers, got list"),
        ({"x": X[:-1]}, "for each of the 20 labels, shape [20, features], got [19, 3]"),
        ({"x": X[:, 0]}, "got [20]"),
        ({"x": X / 0}, "got nan at node 0, feature 0"),
        ({"x": X.double() * 1e300}, "finite in float32, got inf at node 0, feature 1"),
        ({"x": X.to(torch.complex64)}, "real numbers"),
        ({"x": [["a"]] * NODES}, "x must be an array of numbers"),
        ({"y": torch.zeros(NODES)}, "at least two classes, got 1"),
        ({"y": Y * 2 - 1}, "at least two classes, got 1 on 20 nodes (-1"),
        ({"y": Y - 3}, "got -3; quantities"),
        ({"y": Y + 0.5}, "got 0.5; quantities are not classified"),
        ({"y": torch.arange(NODES)}, "20 labels on 20 nodes; choose"),
        ({"y": torch.eye(NODES)}, "one per node, got an array of shape (20, 20); a one-hot"),
        ({"y": []}, "at least two classes, got 0"),
        ({"y": "ab"}, "an array or a list, one per node, got str"),
        ({"splits": []}, "at least one split"),
        ({"splits": [SPLIT[:2]]}, "three masks, train, val, test, got 2"),
        ({"splits": [(*SPLIT[:2], SPLIT[2][1:])]}, "the test mask of split 0 must be boolean"),
        (
            {"splits": [SPLIT, (SPLIT[0], SPLIT[0], SPLIT[2])]},
            "got node 0 in train and val of split 1",
        ),
        ({"splits": [(SPLIT[0], SPLIT[0] & False, SPLIT[2])]}, "the val mask of split 0 must mark"),
        ({"splits": [[[3, 4], [5], [6]]]}, "must be boolean, shape [20]"),
        ({"y": torch.where(SPLIT[0], -1, Y), "splits": [SPLIT]}, "got node 0, which has no label"),
        ({"y": [0, 1, 1, 0]}, "must have a row of features for each of the 4 labels"),
        ({"edge_weight": torch.ones(3)}, "one finite number per edge, shape [20], got [3]"),
        ({"edge_weight": torch.full((NODES,), torch.nan)}, "with NaN"),
        ({"metric": "f1"}, "metric must be one of accuracy, roc_auc, got 'f1'"),
        ({"metric": "roc_auc", "y": torch.arange(NODES) % 4}, "two classes, got 4"),
    ],
)
def test_what_cannot_be_is_told(options, message):
    with pytest.raises(ParameterError, match=re.escape(message)) as told:
        make(**options)
    assert "\n" not in str(told.value)


def test_classes_too_small_for_random_splits_are_told():
    with pytest.raises(ParameterError, match="the test mask of split 0 must mark labelled nodes"):
        from_arrays(None, [[0], [1]], [0, 0, 1])


def test_roc_auc_needs_both_classes_everywhere():
    only = [mask & (Y == 0) if part else mask for part, mask in enumerate(SPLIT)]
    with pytest.raises(ParameterError, match="got one in the val mask of split 0"):
        make(splits=[only], metric="roc_auc")
    assert make(metric="roc_auc").metric == "roc_auc"


def test_a_data_is_taken_as_it_is():
    data = graph(edge_weight=torch.rand(NODES), name="mine", train_id=torch.arange(3))
    own = from_data(data, name="mine")
    for key in ("x", "edge_index", "y", "edge_weight", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(own.data[key], data[key])
    assert own.name == "mine"
    assert own.note == "not used: name, train_id; directed, kept so"


def test_masks_of_many_splits():
    many = {
        f"{part}_mask": torch.stack([mask, mask.flip(0)], dim=1)
        for part, mask in zip(("train", "val", "test"), SPLIT, strict=True)
    }
    own = from_data(graph(**many))
    assert len(own.splits) == 2
    assert torch.equal(own.splits[1].test, SPLIT[2].flip(0))


def test_sparse_features_are_made_dense():
    assert torch.equal(from_data(graph(x=X.to_sparse())).data.x, X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HeteroData(), "torch_geometric.data.Data, got HeteroData"),
        (Data(x=X), "must have edge_index and y, got x"),
        (graph(val_mask=None), "or none, got none of val_mask"),
        (graph(val_mask="some"), "val_mask must be an array of numbers, got str"),
        (graph(val_mask=SPLIT[1][:, None]), "masks must all be [nodes], or all [nodes, splits]"),
        (graph(x="some"), "x must be an array of numbers, got str"),
        (graph(edge_index=X.to_sparse()), "[2, edges], got [20, 3]"),
    ],
)
def test_a_data_that_is_none_is_told(data, message):
    with pytest.raises(ParameterError, match=re.escape(message)):
        from_data(data)


def club():
    made = nx.karate_club_graph()
    for node, values in made.nodes(data=True):
        values.update(age=node / 2, position=[node, 1], hobby="chess")
    return made


def test_a_networkx_graph():
    own = from_networkx(club(), label_col="club")
    assert torch.equal(own.data.x, torch.tensor([[n / 2, n, 1] for n in range(34)]))
    assert own.data.y[:9].tolist() == [0] * 9
    expected = pyg_from_networkx(nx.karate_club_graph()).edge_index
    assert torch.equal(own.data.edge_index, to_undirected(expected))
    assert "not used, no numbers: hobby" in own.note
    assert "classes 0=Mr. Hi, 1=Officer" in own.note


def test_nodes_may_be_anything_and_lack_labels():
    made = nx.relabel_nodes(club(), {0: ("a", "tuple"), 1: "text"})
    del made.nodes["text"]["club"]
    assert from_networkx(made, label_col="club").data.y[:2].tolist() == [0, -1]


def test_directions_and_parallel_edges_are_kept():
    made = nx.MultiDiGraph([(0, 1), (0, 1), *((n, n + 1) for n in range(20))])
    nx.set_node_attributes(made, {n: n % 2 for n in made}, "label")
    own = from_networkx(made)
    assert own.data.edge_index[:, :3].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert "directed, kept so; repeated edges kept: 2" in own.note


def test_a_split_by_an_attribute():
    made = club()
    names = ["Training", "valid", "test", None]
    nx.set_node_attributes(made, {n: names[n % 4] for n in made}, "part")
    own = from_networkx(made, label_col="club", split_col="part")
    assert len(own.splits) == 1
    for part, mask in enumerate(own.splits[0]):
        assert mask.nonzero().flatten().tolist() == list(range(part, 34, 4))
    assert own.data.num_features == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": None}, "column 'age' must hold finite numbers for every node"),
        ({"age": "old"}, "got 'old' at node 3"),
        ({"age": float("nan")}, "got nan at node 3"),
        ({"position": [1]}, "got [1] at node 3"),
        ({"part": "exam"}, "train, val, test or nothing, got 'exam' at node 3"),
    ],
)
def test_attributes_that_cannot_be_are_told(change, message):
    made = club()
    nx.set_node_attributes(made, "train", "part")
    made.nodes[3].update(change)
    with pytest.raises(ParameterError, match=re.escape(message)):
        from_networkx(made, label_col="club", split_col="part")


@pytest.mark.parametrize(
    "options", [{}, {"label_col": "clib"}, {"label_col": "club", "split_col": "x"}]
)
def test_attributes_that_are_not_there_are_told(options):
    with pytest.raises(ParameterError, match=r"must be a column or attribute of the nodes, got"):
        from_networkx(club(), **options)


def test_compare_takes_own_graphs_beside_names(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path))
    own = from_networkx(club(), label_col="club", name="club")
    comparison = compare(
        ["dropout"],
        ["karate", own, make(name="ring")],
        ["mlp"],
        seeds=2,
        train=TrainConfig(epochs=2),
        jobs=1,
    )
    assert [graph.name for graph in comparison.datasets] == ["karate", "club", "ring"]
    assert all(cell.status == "ok" for cell in comparison.cells)
    assert "ten random splits" in comparison.to_dict()["datasets"][1]["note"]


def test_no_global_generator_is_moved(generators_untouched):
    make(None)
    from_networkx(club(), label_col="club")
