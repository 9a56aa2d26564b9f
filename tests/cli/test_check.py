"""`gnndrop check` tells who keeps the contract, and what theory and measurement say."""

import json

import pytest

from gnndrop.cli import _plot, _plot_file
from gnndrop.operators import OPERATORS
from gnndrop.testing import Check, ContractError
from gnndrop.theory.measurement import Measurement

RIGHT = Measurement("mean", 0.5, (1.0, 2.0), (1.01, 2.0), (0.1, 0.1))
FARTHER = Measurement("mean", 0.9, (1.0, 2.0), (1.0, 2.05), (0.1, 0.1))
WRONG = Measurement("gap", 0.5, (1.0,), (float("nan"),), (0.1,))


@pytest.fixture
def measured(monkeypatch):
    """Replace the measurements by few; return the specs that are checked."""
    asked = []

    def check(spec):
        asked.append(spec)
        return (Check("expectation", "right", True, (RIGHT, FARTHER)), Check("rate", "", True))

    monkeypatch.setattr("gnndrop.testing.check_operator", check)
    monkeypatch.setattr(
        "gnndrop.theory.measured_graphs.measure_adjacency", lambda operator: iter(())
    )
    monkeypatch.setattr("gnndrop.theory.measured.measure_theory", lambda: iter([RIGHT]))
    return asked


def test_all_operators_and_the_general_theory(gnndrop, measured):
    run = gnndrop("check")
    assert (run.code, run.err) == (0, "")
    assert measured == list(OPERATORS)
    lines = run.out.splitlines()
    assert [line.split(":")[0] for line in lines[: len(measured)]] == measured
    assert [line.split()[0] for line in lines if line.endswith(" ok")] == [*measured, "theory"]


def test_of_every_quantity_the_farthest_off_is_shown(gnndrop, measured):
    rows = [line.split() for line in gnndrop("check", "dropout:p=0.3").out.splitlines()]
    assert ["dropout:p=0.3", "mean", "0.9", "2", "2.05", "0.1", "ok"] in rows
    assert not any(row[:1] == ["theory"] for row in rows)


def test_the_theory_alone(gnndrop, measured):
    run = gnndrop("check", "--theory")
    assert (run.code, run.err, measured) == (0, "", [])
    assert [line.split() for line in run.out.splitlines() if line.startswith("theory")] == [
        ["theory", "mean", "0.5", "1", "1.01", "0.1", "ok"]
    ]


def test_the_document(gnndrop, measured):
    run = gnndrop("check", "none", "--theory", "--json")
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out) == {
        "schema": 1,
        "operators": [
            {
                "operator": "none",
                "passed": True,
                "clauses": [
                    {"clause": "expectation", "detail": "right", "passed": True},
                    {"clause": "rate", "detail": "", "passed": True},
                ],
            }
        ],
        "measurements": [
            {"subject": "none", **RIGHT.to_dict()},
            {"subject": "none", **FARTHER.to_dict()},
            {"subject": "theory", **RIGHT.to_dict()},
        ],
    }


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_what_theory_does_not_say(gnndrop, measured, monkeypatch, option):
    monkeypatch.setattr("gnndrop.theory.measured.measure_theory", lambda: iter([WRONG]))
    run = gnndrop("check", "--theory", *option)
    assert (run.code, run.err) == (3, "")
    if option:
        assert json.loads(run.out)["measurements"][0]["measured"] is None
    else:
        assert ["theory", "gap", "0.5", "1", "nan", "0.1", "OFF"] in map(
            str.split, run.out.splitlines()
        )


def test_an_adjacency_that_is_not_as_expected(gnndrop, measured, monkeypatch):
    monkeypatch.setattr(
        "gnndrop.theory.measured_graphs.measure_adjacency", lambda operator: iter([WRONG])
    )
    run = gnndrop("check", "drop-edge")
    assert (run.code, run.err) == (3, "")
    assert run.out.startswith("drop-edge: failed, gap is not what theory says\n")


def test_an_operator_that_passes(gnndrop, generators_untouched):
    run = gnndrop("check", "none")
    assert (run.code, run.err) == (0, "")
    assert run.out == "none: passed, 3 clauses\n"


def test_an_operator_that_fails_does_not_stop_the_others(gnndrop, measured, monkeypatch):
    def check(spec):
        if spec == "dropout:p=0.3":
            error = ContractError("dropout breaks the contract: the rate is p: it is not")
            error.checks = (Check("the rate is p", "it is not", passed=False),)
            raise error
        return ()

    monkeypatch.setattr("gnndrop.testing.check_operator", check)
    run = gnndrop("check", "dropout:p=0.3", "none")
    assert (run.code, run.err) == (3, "")
    failed, passed = run.out.splitlines()
    assert failed == "dropout:p=0.3: failed, the rate is p: it is not"
    assert passed.startswith("none: passed")


@pytest.mark.parametrize("spec", ["drop-egde", "dropout:p=2"])
def test_wrong_use_is_told_before_anything_is_checked(gnndrop, measured, spec):
    run = gnndrop("check", "none", spec)
    assert (run.code, run.out, measured) == (2, "", [])
    assert run.err.startswith("Error: ")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_figure(gnndrop, measured, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    figure = tmp_path / f"theory.{suffix}"
    figure.write_text("what was there")
    run = gnndrop("check", "dropout", "--theory", "--plot", str(figure))
    assert (run.code, run.err) == (0, "")
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    assert figure.read_bytes().startswith(starts[suffix])
    assert list(tmp_path.glob("*theory*")) == [figure]


def test_the_figure_shows_every_quantity(measured, tmp_path):
    pytest.importorskip("matplotlib")
    figure = tmp_path / "theory.svg"
    _plot.draw(figure, [("dropout", RIGHT), ("dropout", FARTHER), ("theory", WRONG)])
    text = figure.read_text()
    assert all(f"<!-- {title} -->" in text for title in ("mean", "gap"))


def test_the_entries_of_a_panel():
    assert _plot._entries([3.0, 1.0, 1.0, 2.0]) == [2, 3, 0]
    assert _plot._entries([5.0]) == [0]
    assert _plot._entries([float(value) for value in range(10)]) == [0, 3, 6, 9]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("-", "--plot needs a file of .png, .svg, .pdf, got "),
        ("theory.xls", "--plot needs a file of .png, .svg, .pdf, got "),
        ("missing/theory.png", "--plot needs a folder that exists, got "),
    ],
)
def test_a_figure_that_cannot_be_drawn(gnndrop, measured, tmp_path, name, message):
    pytest.importorskip("matplotlib")
    run = gnndrop("check", "--plot", str(tmp_path / name))
    assert (run.code, run.out, measured) == (2, "", [])
    assert run.err.startswith(f"Error: {message}")


def test_without_matplotlib(gnndrop, measured, tmp_path, monkeypatch):
    monkeypatch.setattr(_plot_file, "find_spec", lambda name: None)
    run = gnndrop("check", "--plot", str(tmp_path / "theory.png"))
    assert (run.code, run.out, measured) == (2, "", [])
    assert "which is not installed; pip install 'gnndrop[plot]'" in run.err


def test_a_folder_in_the_figures_place(gnndrop, measured, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "theory.png").mkdir()
    run = gnndrop("check", "--theory", "--plot", str(tmp_path / "theory.png"))
    assert run.code == 2
    assert run.err.startswith("Error: --plot must be writable, got: ")
    assert "theory  mean" in run.out
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
