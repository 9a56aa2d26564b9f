"""`gnndrop compare --graph`: the user's own graphs, from the file to the table."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

GNNDROP = str(Path(sys.executable).with_name("gnndrop"))
QUICK = ("-m", "mlp", "-o", "dropout", "--epochs", "5", "--seeds", "2", "--jobs", "1")
NODES = 30


def network():
    graph = nx.cycle_graph(NODES)
    for node, values in graph.nodes(data=True):
        values.update(label=["cat", "dog", "eel"][node // 10], weight=node / 3, age=node % 7)
    return graph


@pytest.fixture
def graphml(tmp_path):
    path = tmp_path / "net.graphml"
    nx.write_graphml(network(), path)
    return str(path)


@pytest.fixture
def table(tmp_path):
    """Write edges and nodes as pandas's `to_csv(index=False)` does; return the options."""
    edges, nodes = tmp_path / "edges.csv", tmp_path / "nodes.csv"
    graph = network()
    with edges.open("w", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *graph.edges])
    with nodes.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "weight", "age"))
        writer.writerows((node, *values.values()) for node, values in graph.nodes(data=True))
    return "--graph", str(edges), "--nodes", str(nodes)


@pytest.fixture
def pt(tmp_path):
    edge_index = to_undirected(torch.tensor(list(network().edges)).t())
    y = torch.arange(NODES) // 10
    x = torch.stack([torch.arange(NODES) / 3, torch.arange(NODES) % 7], dim=1).float()
    path = tmp_path / "data.pt"
    torch.save(Data(x=x, edge_index=edge_index, y=y), path)
    return str(path)


def test_all_formats_have_the_same_scores(gnndrop, graphml, table, pt):
    graphs = (["--graph", graphml], table, ["-g", pt])
    cells = []
    for words in graphs:
        run = gnndrop("compare", *words, *QUICK, "--json")
        assert (run.code, run.err) == (0, "")
        document = json.loads(run.out)
        (graph,) = document["datasets"]
        assert (graph["name"], graph["nodes"], graph["edges"]) == (words[1], NODES, 2 * NODES)
        assert "ten random splits 48/32/20" in graph["note"]
        cells.append([cell["scores"] for cell in document["cells"]])
    assert cells[0] == cells[1] == cells[2]


def test_the_note_is_printed(gnndrop, graphml):
    run = gnndrop("compare", "-g", graphml, *QUICK)
    assert run.code == 0
    assert f"- {graphml}: undirected, every edge joined both ways; classes 0=cat" in run.out


def test_own_graphs_stand_beside_named_ones(gnndrop, graphml, pt):
    run = gnndrop("compare", "-d", "karate", "-g", graphml, "-g", pt, *QUICK, "--json")
    assert run.code == 0
    names = [graph["name"] for graph in json.loads(run.out)["datasets"]]
    assert names == ["karate", graphml, pt]


def test_a_run_belongs_to_the_content_of_its_file(gnndrop, pt, tmp_path):
    words = ("compare", "-g", pt, *QUICK, "--out", str(tmp_path / "run"))
    first = gnndrop(*words)
    trials = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/trials").iterdir()}
    assert gnndrop(*words).out == first.out
    assert trials == {path: path.stat().st_mtime_ns for path in (tmp_path / "run/trials").iterdir()}
    data = torch.load(pt, weights_only=False)
    data.x[0, 0] += 1
    torch.save(data, pt)
    run = gnndrop(*words)
    assert (run.code, run.out) == (2, "")
    assert "must be resumed with its own configuration" in run.err
    assert pt in run.err


def test_as_a_user_in_two_processes(table, tmp_path):
    run = subprocess.run(
        [GNNDROP, "compare", *table, *QUICK[:-1], "2"],
        env={**os.environ, "GNNDROP_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")
    # The path may be broken between lines, and is all there.
    assert f"{table[1]}:nodes30,edges60,splits10" in "".join(run.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--nodes", "n.csv"], 2, "belong to --graph, got no --graph"),
        (["--directed"], 2, "belong to --graph, got no --graph"),
        (
            ["--graph", "{pt}", "--label-col", "y"],
            2,
            ".pt files have no use for label_col (--label-col)",
        ),
        (["--graph", "{pt}", "--graph", "{pt}"], 2, "datasets must be given, each once"),
        (["--graph", "nowhere.pt"], 4, "the graph's file must exist, got nowhere.pt"),
        (["--graph", "{graphml}", "--label-col", "lable"], 2, "did you mean 'label'?"),
        (["--graph", "{bad}"], 4, "must be a PyG Data that torch.save wrote, without code"),
    ],
)
def test_errors(gnndrop, graphml, pt, tmp_path, arguments, code, message):
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    words = [word.format(graphml=graphml, pt=pt, bad=bad) for word in arguments]
    run = gnndrop("compare", *words, *QUICK)
    assert (run.code, run.out) == (code, "")
    assert message in run.err
    assert len(run.err.splitlines()) == 1
