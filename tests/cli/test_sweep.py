"""`gnndrop sweep`: its output, its figure, its exit codes."""

import csv
import io
import json
import shlex

import pytest

from gnndrop.study.sweep import sweep as real_sweep

SMALL = ("--epochs", "2", "--seeds", "2", "--jobs", "1", "-d", "csbm:nodes=60,classes=2,features=4")
RATE = ("sweep", *SMALL, "-o", "drop-edge", "--values", "0.1,0.5")
MAP = ("sweep", *SMALL, "-o", "drop-edge", "-o", "dropout", "--over", "homophily")
MAP = (*MAP, "--values", "0.1,0.9", "--rates", "0.3,0.7")


def test_text_has_the_table_and_the_answer(gnndrop):
    run = gnndrop(*MAP)
    assert (run.code, run.err) == (0, "")
    assert "gcn on csbm:nodes=60,classes=2,features=4, over homophily\n" in run.out
    assert [line for line in run.out.splitlines() if line.startswith("drop-edge p=0.7 ")]
    (sentence,) = (line for line in run.out.splitlines() if line.startswith("dropout in gcn on"))
    assert "harms under homophily and helps under heterophily is " in sentence


def test_json_and_csv(gnndrop):
    run = gnndrop(*RATE, "--json")
    assert (run.code, run.err) == (0, "")
    document = json.loads(run.out)
    assert document["schema"] == 1
    assert (document["over"], document["values"]) == ("rate", [0.1, 0.5])
    assert [point["value"] for point in document["points"]] == [None, 0.1, 0.5]
    assert document["protocol"]["train"]["epochs"] == 2
    rows = list(csv.DictReader(io.StringIO(gnndrop(*RATE, "--csv").out)))
    assert [row["rate"] for row in rows] == ["", "0.1", "0.5"]


def test_rates_are_the_values_of_a_sweep_over_the_rate(gnndrop):
    same = (*RATE[:-2], "--rates", "0.1,0.5")
    assert gnndrop(*same, "--csv").out == gnndrop(*RATE, "--csv").out


@pytest.mark.parametrize("arguments", [RATE, MAP, (*MAP, "-m", "mlp"), (*RATE, "--seeds", "1")])
def test_the_figure_is_drawn(gnndrop, tmp_path, arguments):
    path = tmp_path / "sweep.svg"
    run = gnndrop(*arguments, "--plot", str(path))
    assert (run.code, run.err) == (0, "")
    assert path.read_text().rstrip().endswith("</svg>")
    assert list(tmp_path.glob("*.svg")) == [path]
    assert not list(tmp_path.glob(".sweep*"))


def test_the_map_shows_each_gain_and_hatches_what_is_uncertain(gnndrop, tmp_path):
    """Matplotlib's own objects are looked at, before they are written."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from gnndrop.cli import _plot_sweep
    from gnndrop.config import TrainConfig

    found = real_sweep(
        "homophily",
        ["drop-edge"],
        ["csbm:nodes=60,classes=2,features=4"],
        values=[0.1, 0.9],
        rates=[0.3],
        seeds=3,
        train=TrainConfig(epochs=2),
        jobs=1,
    )
    axis = Figure().subplots()
    points = [point for point in found.points if point.operator == "drop-edge"]
    mesh = _plot_sweep._map(axis, found, points, reach=5.0)
    gains = [100 * point.difference for point in points]
    assert mesh.get_array().flatten().tolist() == pytest.approx(gains)
    assert mesh.get_clim() == (-5.0, 5.0)
    assert [text.get_text() for text in axis.texts] == [f"{gain:+.1f}" for gain in gains]
    hatched = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    uncertain = [k for k, p in enumerate(points) if p.interval[0] <= 0 <= p.interval[1]]
    assert [patch.get_x() for patch in hatched] == uncertain


def test_a_figure_that_cannot_be_written_leaves_the_result(gnndrop, tmp_path):
    (tmp_path / "sweep.svg").mkdir()
    run = gnndrop(*RATE, "--csv", "--plot", str(tmp_path / "sweep.svg"))
    assert run.code == 2
    assert run.err.startswith("Error: --plot must be writable, got: ")
    assert [row["rate"] for row in csv.DictReader(io.StringIO(run.out))] == ["", "0.1", "0.5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--over", "homophly"], "homophly"),
        (["--values", ","], "values must be numbers"),
        (["--rates", "some"], "rates must be numbers"),
        (["--rates", "1.5"], "rates must be in [0, 1], got 1.5"),
        (["--rates", "0.1", "--values", "0.1"], "give one"),
        (["--over", "homophily", "--values", "2"], "homophily must be in [0, 1]"),
        (["--over", "homophily", "-d", "karate"], "needs csbm graphs"),
        (["-o", "drop-egde"], "did you mean 'drop-edge'?"),
        (["-o", "none"], "must have a rate p"),
        (["--json", "--csv"], "exclude each other"),
        (["--plot", "sweep.txt"], "--plot needs a file of"),
        (["--plot", "-"], "--plot needs a file of"),
        (["--plot", "nowhere/sweep.png"], "--plot needs a folder"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--jobs", "0"], "jobs must be at least 1"),
    ],
)
def test_wrong_use_is_told_before_anything_runs(gnndrop, tmp_path, arguments, message):
    run = gnndrop("sweep", *arguments, "--out", str(tmp_path / "run"))
    assert (run.code, run.out) == (2, "")
    assert message in run.err
    assert "Traceback" not in run.err
    assert not list(tmp_path.rglob("trials/*"))


def test_failed_trials_are_listed(gnndrop, monkeypatch):
    def fail(*arguments, **options):
        raise ArithmeticError("the loss must be finite, got nan")

    monkeypatch.setattr("gnndrop.study.trial.fit", fail)
    run = gnndrop(*RATE)
    assert run.code == 3
    assert "drop-edge:p=0.1 in gcn on csbm" in run.out
    assert "the loss must be finite, got nan" in run.out


def test_an_interrupted_sweep_tells_how_to_resume(gnndrop, monkeypatch, tmp_path):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("gnndrop.study.trial.fit", interrupt)
    arguments = (*RATE, "--out", str(tmp_path))
    run = gnndrop(*arguments)
    assert (run.code, run.out) == (130, "")
    assert shlex.split(run.err.splitlines()[-1]) == ["gnndrop", *arguments]
