"""What is declared is what loads, and `load` keeps its promises."""

import dataclasses
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gnndrop.datasets import DATASETS, Dataset, Declaration, load, make_csbm, random_splits
from gnndrop.datasets._files import manifest
from gnndrop.errors import ParameterError, UnknownNameError

SPECS = [
    *DATASETS,
    *(f"{name}:split=geom-gcn" for name in ("cora", "citeseer", "pubmed")),
    "csbm:nodes=101,classes=3,homophily=0.2,degree=4,features=7,seed=3",
    "minesweeper-grid:width=7,height=4,mines=0.3,seed=1",
    "karate:labels=communities,seed=2",
    "digits:k=3",
]
UNPUBLISHED = ("wikics", "digits:k=3")
OFFLINE = [spec for spec in SPECS if DATASETS.make(spec).is_offline]

RootWith = Callable[[str], Path]


def load_real(spec: str, root_with: RootWith) -> Dataset:
    if spec in OFFLINE:
        return load(spec)
    with warnings.catch_warnings():
        # The raw graphs warn; another test looks at that.
        warnings.filterwarnings("ignore", ".*duplicate nodes")
        return load(spec, root_with(spec))


@pytest.fixture
def request_root(request: pytest.FixtureRequest) -> RootWith:
    # Asked for late, so that offline graphs are tested without a mirror too.
    return lambda spec: request.getfixturevalue("root_with")(spec)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_declared_is_what_loads(spec: str, request_root: RootWith) -> None:
    declared, dataset = DATASETS.make(spec), load_real(spec, request_root)
    data = dataset.data
    assert dataset.name == spec
    assert data.num_nodes == declared.nodes == len(data.x) == len(data.y)
    assert declared.edges in (data.num_edges, None)
    assert data.num_features == declared.features
    assert dataset.num_classes == declared.classes == len(data.y.unique())
    assert len(dataset.splits) == declared.splits
    assert (dataset.metric, dataset.licence, dataset.citation, dataset.note) == (
        *(declared.metric, declared.licence, declared.citation, declared.note),
    )
    assert declared.licence
    assert declared.citation
    assert set(declared.files) <= set(manifest())


@pytest.mark.parametrize("spec", SPECS)
def test_the_declared_homophily_is_the_measured_one(spec: str, request_root: RootWith) -> None:
    declared, dataset = DATASETS.make(spec), load_real(spec, request_root)
    if declared.homophily is None:
        assert spec in UNPUBLISHED
        return
    digits = len(str(declared.homophily).partition(".")[2])
    bound = 0.5 * 10 ** -max(digits, 2) + 1e-9
    if declared.licence == "generated":
        # Five standard deviations of a share of so many edges, were they independent. On boards
        # they are not, and a mine sits in eight of them.
        h, edges = declared.homophily, dataset.data.num_edges / 2
        bound = 5 * (h * (1 - h) / edges) ** 0.5 * (8**0.5 if "minesweeper" in spec else 1)
    assert dataset.homophily.edge == pytest.approx(declared.homophily, abs=bound)


@pytest.mark.parametrize("spec", SPECS)
def test_every_dataset_has_one_form(spec: str, request_root: RootWith) -> None:
    dataset = load_real(spec, request_root)
    data = dataset.data
    assert data.x.dtype == torch.float32
    assert data.x.layout == torch.strided
    assert data.edge_index.dtype == data.y.dtype == torch.int64
    assert data.validate()
    for masks in dataset.splits:
        assert all(mask.dtype == torch.bool and mask.shape == data.y.shape for mask in masks)
        assert int(sum(mask.int() for mask in masks).max()) == 1, "masks overlap"
        assert all(mask.any() for mask in masks)
    default = (data.train_mask, data.val_mask, data.test_mask)
    assert all(map(torch.equal, default, dataset.splits[0]))


@pytest.mark.parametrize(
    ("spec", "sizes"),
    [
        ("cora", (140, 500, 1000)),
        ("cora:split=geom-gcn", (1192, 796, 497)),
        ("citeseer", (120, 500, 1000)),
        ("citeseer:split=geom-gcn", (1596, 1065, 666)),
        ("pubmed", (60, 500, 1000)),
        ("pubmed:split=geom-gcn", (9463, 6310, 3944)),
        ("minesweeper", (5000, 2500, 2500)),
        ("tolokers", (5879, 2939, 2940)),
        ("chameleon-filtered", (409, 287, 194)),
        ("squirrel-filtered", (1053, 718, 452)),
        ("cornell", (87, 59, 37)),
        ("texas", (87, 59, 37)),
        ("wisconsin", (120, 80, 51)),
        ("actor", (3648, 2432, 1520)),
        ("chameleon", (1092, 729, 456)),
        ("squirrel", (2496, 1664, 1041)),
    ],
)
def test_the_published_splits(spec: str, sizes: tuple[int, ...], root_with: RootWith) -> None:
    splits = load_real(spec, root_with).splits
    assert tuple(int(mask.sum()) for mask in splits[0]) == sizes
    tests = {tuple(split.test.tolist()) for split in splits}
    assert len(tests) == len(splits), "two splits are equal"


def test_texas_keeps_its_directions_and_loops(root_with: RootWith) -> None:
    data = load("texas", root_with("texas")).data
    lines = (root_with("texas") / "WebKB/texas/raw/out1_graph_edges.txt").read_text().split()
    published = {tuple(map(int, pair)) for pair in zip(lines[2::2], lines[3::2], strict=True)}
    assert set(map(tuple, data.edge_index.t().tolist())) == published
    assert data.is_directed()
    assert data.has_self_loops()


@pytest.mark.parametrize(
    "spec", ["cornell", "texas", "wisconsin", "actor", "chameleon", "squirrel"]
)
def test_geom_gcn_graphs_are_directed_with_loops(spec: str, root_with: RootWith) -> None:
    data = load_real(spec, root_with).data
    assert data.is_directed()
    assert data.has_self_loops()


@pytest.mark.parametrize(
    ("spec", "isolated"),
    [
        *(("cora", False), ("citeseer", True), ("pubmed", False), ("photo", True)),
        *(("computers", True), ("minesweeper", False), ("squirrel-filtered", False)),
        *(("cs", False), ("physics", False), ("tolokers", False)),
    ],
)
def test_the_others_are_undirected_without_loops(
    spec: str, isolated: bool, root_with: RootWith
) -> None:
    data = load(spec, root_with(spec)).data
    assert data.is_undirected()
    assert not data.has_self_loops()
    assert not data.is_directed()
    assert data.has_isolated_nodes() == isolated


def test_citeseer_and_texas_are_as_their_notes_say(root_with: RootWith) -> None:
    data = load("citeseer", root_with("citeseer")).data
    assert int((data.x == 0).all(dim=1).sum()) == 15
    assert load("texas", root_with("texas")).data.y.bincount().tolist() == [33, 1, 18, 101, 30]


def test_chameleon_has_each_published_edge_both_ways(root_with: RootWith) -> None:
    dataset = load("chameleon-filtered", root_with("chameleon-filtered"))
    file = root_with("chameleon-filtered") / "heterophilous_filtered/chameleon_filtered.npz"
    with np.load(file) as arrays:
        edges = arrays["edges"].tolist()
        assert (dataset.splits[7].val.numpy() == arrays["val_masks"][7]).all()
        assert (dataset.data.x.numpy() == arrays["node_features"]).all()
    both = {(a, b) for a, b in edges} | {(b, a) for a, b in edges}
    assert set(map(tuple, dataset.data.edge_index.t().tolist())) == both


@pytest.mark.parametrize("spec", OFFLINE)
@pytest.mark.usefixtures("generators_untouched")
def test_offline_graphs_are_reproducible(spec: str) -> None:
    first, second = load(spec), load(spec)
    for key in ("x", "edge_index", "y"):
        assert torch.equal(first.data[key], second.data[key])
    for one, other in zip(first.splits, second.splits, strict=True):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("name", [name for name in OFFLINE if ":" not in name])
def test_another_seed_gives_another_draw(name: str) -> None:
    splits = [load(f"{name}:seed={seed}").splits[0].train for seed in (1, 2)]
    assert not torch.equal(*splits)


def test_the_csbm_pair_differs_in_homophily_alone() -> None:
    one, other = load("csbm-homophilous"), load("csbm-heterophilous")
    assert one.homophily.is_homophilous
    assert not other.homophily.is_homophilous
    assert torch.equal(one.data.x, other.data.x)
    assert torch.equal(one.data.y, other.data.y)


def test_a_dataset_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load("karate").metric = "roc_auc"  # type: ignore[misc]  # frozen, as the test is about


def test_a_users_own_graph_is_a_dataset() -> None:
    data = make_csbm(nodes=60, classes=2, seed=5)
    mine = Dataset("mine", data, random_splits(data.y), "accuracy")
    assert mine.num_classes == 2
    assert mine.homophily.edge > 0.5


@pytest.mark.parametrize(
    ("typo", "meant"), [("coar", "cora"), ("chameleon-filter", "chameleon-filtered")]
)
def test_unknown_names_suggest_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean '{meant}'"):
        load(typo)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("cora:split=geom", "split"),
        ("cora:spilt=public", "did you mean 'split'"),
        ("texas:seed=1", "takes none"),
        ("csbm:nodes=5,classes=3", "classes must"),
        ("csbm:classes=1", "classes must"),
        ("csbm:homophily=1.2", "homophily must"),
        ("csbm:homophily=nan", "homophily must"),
        ("csbm:degree=-1", "degree"),
        ("csbm:degree=nan", "degree"),
        ("csbm:nodes=20,degree=30", "degree must"),
        ("csbm:signal=inf", "signal"),
        ("csbm:features=0", "features must"),
        ("csbm:seed=-1", "seed must"),
        ("csbm:nodes=many", "nodes"),
        ("minesweeper-grid:width=1", "width"),
        ("minesweeper-grid:mines=2", "mines"),
        ("minesweeper-grid:hidden=-0.1", "hidden"),
        ("minesweeper-grid:seed=-1", "seed must"),
        ("karate:labels=teams", "labels"),
        ("karate:seed=-1", "seed must"),
        ("digits:k=0", "k must"),
        ("digits:k=1797", "k must"),
        ("digits:seed=-1", "seed must"),
    ],
)
def test_bad_options_are_refused_before_anything_is_built(spec: str, says: str) -> None:
    with pytest.raises(ParameterError, match=says):
        DATASETS.make(spec)
    with pytest.raises(ParameterError, match=says):
        load(spec)


def test_a_declaration_refuses_an_unknown_metric() -> None:
    with pytest.raises(ParameterError, match="metric must be one of accuracy, roc_auc, got 'f1'"):
        dataclasses.replace(DATASETS.make("karate"), metric="f1")


def test_a_stranger_declares_a_dataset_like_we_do(monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_csbm(nodes=60, classes=2)
    declared = Declaration(
        lambda _: (data, random_splits(data.y)), 60, None, 128, 2, 10, "nobody", "none"
    )
    monkeypatch.setitem(DATASETS._entries, "stranger", lambda: declared)
    assert torch.equal(load("stranger").data.x, data.x)


def test_two_processes_load_at_once_and_in_silence(root_with: RootWith, tmp_path: Path) -> None:
    # Both find an empty cache and fill it; the second load of each reads what one has written.
    code = "from gnndrop.datasets import load; [load(name) for name in ('cora', 'texas') * 2]"
    root_with("texas")
    environment = {key: os.environ[key] for key in os.environ if key != "PYTEST_CURRENT_TEST"}
    environment |= {
        "GNNDROP_DATA": str(root_with("cora")),
        "GNNDROP_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.communicate()[0] == ""
        assert process.returncode == 0
    assert not list(tmp_path.glob("gnndrop-*")), "a private folder was left behind"
    assert len(list((tmp_path / "cache/parsed").iterdir())) == 2, "a part was left behind"
