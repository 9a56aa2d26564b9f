"""The text of a comparison: every cell is shown, whatever the width; colour on terminals only."""

import statistics
import sys
from dataclasses import asdict

import pytest

from gnndrop.cli import _render
from gnndrop.config import CompareConfig
from gnndrop.study.report import Cell, Comparison, Failure, GraphSummary
from gnndrop.study.statistics import Pairing, judge

MODELS = ("gcn", "gat", "sage", "mlp")
# The gain of every operator over none, seed by seed; noise shared by all would cancel.
GAINS = {
    "none": [0.0] * 8,
    "dropout:p=0.3": [0.05, 0.06] * 4,
    "drop-node:p=0.3": [-0.05, -0.06] * 4,
    "drop-feature:p=0.3": [0.001, -0.001] * 4,
    "drop-edge:p=0.3,symmetric=false,rescale=inverse": [0.2, -0.2] * 4,
}


def graph(name: str, adjusted: float) -> GraphSummary:
    homophily = {"edge": 0.5, "node": 0.5, "adjusted": adjusted, "edge_insensitive": 0.5}
    return GraphSummary(name, 100, 400, homophily, adjusted > 0.3, "accuracy", 1, 1.0)


@pytest.fixture
def comparison() -> Comparison:
    """Each operator has one decision everywhere, but for sage, whose first two dropouts failed."""
    cells, pairings = [], []
    graphs = (graph("alike", 0.8), graph("unlike", 0.0))
    for home in graphs:
        for model in MODELS:
            for operator, gains in GAINS.items():
                scores: list[float | None] = [0.7 + gain for gain in gains]
                names = (home.name, model, operator)
                if model == "mlp" and operator.startswith("drop-edge"):
                    not_applicable = (None, None, None, (), "not-applicable")
                    cells.append(Cell(*names, "accuracy", (), *not_applicable))
                    continue
                failed = model == "sage" and operator.startswith("dropout")
                known = gains[2:] if failed else gains
                scores = [None] * (len(gains) - len(known)) + [0.7 + gain for gain in known]
                cells.append(
                    Cell(
                        *names,
                        "accuracy",
                        tuple(scores),
                        0.7 + statistics.fmean(known),
                        statistics.stdev(known),
                        1.0,
                        (),
                        "failed" if failed else "ok",
                    )
                )
                if operator != "none":
                    pairings.append(Pairing(*names, "none", tuple(known), 0.0, 2 if failed else 0))
    config = CompareConfig(tuple(GAINS), ("alike", "unlike"), MODELS, seeds=8)
    return Comparison(
        tuple(cells),
        tuple(judge(pairings, margin=0.01, alpha=0.05)),
        graphs,
        tuple(
            Failure(home.name, "sage", "dropout:p=0.3", seed, 0, "the loss must be finite")
            for home in graphs
            for seed in (0, 1)
        ),
        asdict(config),
        {},
    )


@pytest.fixture
def shown(comparison, monkeypatch, capsys):
    def show(width: int = 80, terminal: bool = False) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        _render.write_comparison(comparison)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_score_is_lost_at_any_width(shown, comparison, width):
    tables, _, _ = shown(width).partition("Mean and standard deviation")
    assert max(map(len, tables.splitlines())) <= width
    assert tables.count("±") == sum(cell.mean is not None for cell in comparison.cells)
    assert tables.count("not-applicable") == 2
    assert tables.count("(6/8)") == 2


def test_every_decision_has_its_mark(shown):
    rows = [line.split(maxsplit=1) for line in shown(80).splitlines() if "±" in line]
    marks = {"none": set(), "dropout": {"▲", "?"}, "drop-node": {"▼"}}  # ?: sage, where it failed
    marks |= {"drop-feature": {"="}, "drop-edge": {"?"}}
    for spec, scores in rows:
        if "(6/8)" in scores or spec.partition(":")[0] != "dropout":
            assert set(scores) & set("▲▼=?") == marks[spec.partition(":")[0]]


def test_groups_stand_side_by_side_where_there_is_room(shown):
    def line_of(text: str, word: str) -> int:
        return next(i for i, line in enumerate(text.splitlines()) if word in line.split())

    wide, narrow = shown(200), shown(80)
    assert line_of(wide, "HOMOPHILOUS") == line_of(wide, "HETEROPHILOUS")
    assert line_of(narrow, "HOMOPHILOUS") < line_of(narrow, "HETEROPHILOUS")


def test_a_sentence_is_one_line_in_a_file(shown, comparison):
    lines = shown(80).splitlines()
    for sentence in comparison.sentences():
        assert f"- {sentence}" in lines


def test_failures_are_grouped_by_their_reason(shown):
    assert "- dropout:p=0.3 in sage on alike, seeds 0, 1: the loss must be finite\n" in shown()


def test_colour_needs_a_terminal_and_no_no_color(shown, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert "\x1b[32m▲" in shown(terminal=True)
    assert "\x1b" not in shown(terminal=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(terminal=True)
