"""`gnndrop recommend`: its output and its exit codes."""

import json

import pytest

GRAPH = ("-d", "csbm:nodes=60,classes=2,features=4")
QUICK = ("recommend", *GRAPH, "--epochs", "2", "--jobs", "1", "-o", "dropout", "--rates", "0.5")
QUICK = (*QUICK, "--budget", "60s")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """A recommendation that has enough after six pairs, so that no test takes its whole budget."""
    monkeypatch.setattr("gnndrop.study.recommend.SEEDS_AT_MOST", 6)


def test_the_sentence_comes_first(gnndrop):
    run = gnndrop(*QUICK)
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("use ")
    assert "6 pairs" in run.out.splitlines()[0]
    assert "- dropout:p=0.5: " in run.out
    assert "s of 60 s used." in run.out


def test_json_is_one_document(gnndrop):
    run = gnndrop(*QUICK, "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    assert document["schema"] == 1
    assert document["sentence"].startswith("use ")
    assert document["verdict"]["pairs"] == 6
    assert document["candidates"][0]["spec"] == "dropout:p=0.5"


def test_a_graph_of_ones_own(gnndrop, tmp_path):
    edges, nodes = tmp_path / "edges.csv", tmp_path / "nodes.csv"
    pairs = [(k, (k + step) % 40) for k in range(40) for step in (1, 2)]
    edges.write_text("source,target\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    nodes.write_text("id,label,x\n" + "".join(f"{k},{'ab'[k % 2]},{k % 7}\n" for k in range(40)))
    run = gnndrop("recommend", "-g", str(edges), "--nodes", str(nodes), *QUICK[3:])
    assert (run.code, run.err) == (0, "")
    assert run.out.startswith("use ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "for one graph, got 0"),
        ([*GRAPH, "--budget", "5"], "a budget must be a duration"),
        ([*GRAPH, "--budget", "0s"], "a budget must be a duration"),
        ([*GRAPH, "--budget", "1s"], "the budget must allow a search and 6 pairs"),
        ([*GRAPH, "--rates", "2"], "rates must be in [0, 1]"),
        ([*GRAPH, "--rates", "some"], "rates must be numbers"),
        ([*GRAPH, "-o", "drop-egde"], "did you mean 'drop-edge'?"),
        (["-d", "csbm-homophilus"], "did you mean 'csbm-homophilous'?"),
        ([*GRAPH, "-m", "gnc"], "did you mean 'gcn'?"),
        ([*GRAPH, "-d", "karate"], "a recommendation is for one graph, got 2"),
        ([*GRAPH, "-m", "gcn", "-m", "mlp"], "recommend must be given one --model, got 2"),
        ([*GRAPH, "--directed"], "belong to --graph"),
        ([*GRAPH, "--jobs", "0"], "jobs must be at least 1"),
    ],
)
def test_wrong_use_is_told(gnndrop, arguments, message):
    run = gnndrop("recommend", "--jobs", "1", *arguments)
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err


def test_an_interruption_reports_what_is_there(gnndrop, monkeypatch):
    from gnndrop.study import trial

    fit, calls = trial.fit, []

    def interrupt_the_tenth(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(trial, "fit", interrupt_the_tenth)
    run = gnndrop(*QUICK)
    assert (run.code, run.err) == (130, "")
    assert run.out.splitlines()[0].endswith("(interrupted).")
    assert "- dropout:p=0.5: " in run.out
