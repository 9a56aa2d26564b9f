"""`gnndrop data describe`: named graphs and own ones, as text and as JSON."""

import json

import pytest
import torch
from torch_geometric.data import Data


@pytest.fixture
def own(tmp_path):
    """A directed graph of one's own, with everything that is to be told of it."""
    edge_index = torch.tensor([[0, 0, 1, 2, 3], [1, 1, 2, 2, 0]])
    y = torch.tensor([*([0, 1] * 8), -1])
    x = torch.zeros(17, 4)
    x[0, 0] = 1
    path = tmp_path / "own.pt"
    torch.save(Data(x=x, edge_index=edge_index, y=y), path)
    return path


def test_text(gnndrop, own):
    run = gnndrop("data", "describe", "--graph", str(own))
    assert (run.code, run.err) == (0, "")
    text = " ".join(run.out.split())
    for fact in (
        "nodes 17, of which isolated 13",
        "edges 5, directed; self-loops 1, repeated 1",
        "components 14",
        "degree min 0, median 0, mean 0.29, max 2",
        "features 4, 1.5% of values not zero",
        "classes 2: 8 (50.0%), 8 (50.0%); nodes without a label 1",
        "splits 10, metric accuracy",
        "homophily heterophilous: adjusted homophily is -0.75, below 0.3",
        "label informativeness 0.",
        "note directed, kept so; repeated edges kept: 1; self-loops kept: 1",
    ):
        assert fact in text


def test_json_of_named_and_own_graphs(gnndrop, own):
    run = gnndrop("data", "describe", "karate", "-g", str(own), "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    assert document["schema"] == 1
    karate, mine = document["datasets"]
    assert (karate["name"], karate["edges"], karate["homophilous"]) == ("karate", 156, True)
    assert karate["sentence"].startswith("homophilous: ")
    assert set(karate["homophily"]) == {
        *("edge", "node", "adjusted", "edge_insensitive", "label_informativeness")
    }
    assert (mine["name"], mine["classes"], mine["directed"]) == (str(own), [8, 8], True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "a graph must be named or given by --graph"),
        (["karat"], 2, "did you mean 'karate'?"),
        (["--nodes", "nodes.csv"], 2, "a graph must be named"),
        (["karate", "--label-col", "x"], 2, "belong to --graph, got no --graph"),
        (["-g", "nowhere.pt"], 4, "the graph's file must exist, got nowhere.pt"),
        (["-g", "graph.xls"], 2, "must end in one of .pt"),
    ],
)
def test_errors(gnndrop, arguments, code, message):
    run = gnndrop("data", "describe", *arguments)
    assert (run.code, run.out) == (code, "")
    assert message in run.err
    assert "Traceback" not in run.err
