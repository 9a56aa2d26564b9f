"""Reports of run folders: what is read back, and what the page and the tables show of it."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from gnndrop.config import CompareConfig
from gnndrop.datasets import load
from gnndrop.errors import DataError, GnndropError, ParameterError
from gnndrop.operators import OPERATORS
from gnndrop.study.document import write_report
from gnndrop.study.files import write_text
from gnndrop.study.graphs import fingerprint, summarize
from gnndrop.study.html import render_html
from gnndrop.study.plan import plan
from gnndrop.study.reading import read_study
from gnndrop.study.report import CSV_COLUMNS, Comparison, GraphSummary, summarize_results
from gnndrop.study.store import Result, open_store
from gnndrop.study.tables import render_csv, render_latex, render_markdown

NASTY = "<script>alert('&')</script>|*_%$#{}~^\\`"
VOID = {"meta", "br", "img", "link", "input", "hr"}
# Gains of every operator over none, in the scores of even and odd seeds.
GAINS = {
    "none": (0.0, 0.0),
    "dropout:p=0.5": (0.05, 0.0508),
    "drop-edge:p=0.2": (-0.05, -0.0508),
    "drop-edge:p=0.6": (0.0002, -0.0002),
    "drop-message": (0.2, -0.2),
}


def graph(name: str, homophilous: bool = True) -> GraphSummary:
    homophily = {"edge": 0.5, "label_informativeness": float("nan")}
    return GraphSummary(name, 10, 20, homophily, homophilous, "accuracy", 1, 0.5, note="made up")


GRAPHS = (graph("one"), graph("two", False))


def score(trial):
    """Return how a trial ends: a score, or a status."""
    if trial.operator == "drop-message" and trial.model == "mlp":
        return "not-applicable"
    if trial.operator == "drop-message" and trial.seed == 3:
        return "failed"
    return 0.6 + GAINS[trial.operator][trial.seed % 2]


def write_run(folder, score=score, share=1.0, graphs=GRAPHS, **changes):
    """Write a run folder as `compare` does, without training; return the trials and their results.

    `share` is how much of the plan has run.
    """
    settings = {"models": ("gcn", "mlp"), "operators": tuple(GAINS), "seeds": 8, **changes}
    config = CompareConfig(datasets=tuple(one.name for one in graphs), **settings)
    identity = {"schema": 1, "gnndrop": "0", "config": asdict(config), "data": {}}
    provenance = {"environment": {"torch": "2.13"}, "command": f"gnndrop compare -o {NASTY}"}
    store = open_store(folder, identity, provenance)
    trials = plan(config, {one.name: one.splits for one in graphs}, OPERATORS)
    results = {}
    for trial in trials[: round(share * len(trials))]:
        end = score(trial)
        if isinstance(end, str):
            result = Result(trial, end, error=f"it is {end}: {NASTY}")
        else:
            result = Result(trial, "ok", end, end, end, 1, 2, 1.5)
        results[trial.key] = result
        store.save(result)
    outcome = Comparison((), (), tuple(graphs), (), {}, {})
    write_text(folder / "result.json", json.dumps(outcome.to_dict()))
    return config, trials, results


@pytest.fixture
def make_run(tmp_path):
    """Return a function that writes a run folder and returns it."""

    def make(name="run", **changes):
        write_run(tmp_path / name, **changes)
        return tmp_path / name

    return make


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The default run, for tests of what is made of it."""
    folder = tmp_path_factory.mktemp("study") / "run"
    write_run(folder)
    return read_study(folder)


@pytest.fixture
def make_suite(make_run, tmp_path):
    """Return a function that writes a suite of two comparisons, of which one may be missing."""

    def make(finished=True):
        make_run("suite/base", graphs=(graph("one"),), models=("gcn",))
        (tmp_path / "suite/later").mkdir(exist_ok=True)
        effect = {
            "comparison": "later", "against": "base", "dataset": "one", "operator": NASTY,
            "gain": 0.02, "gain_against": 0.0, "effect": 0.02, "interval": [0.01, 0.03],
            "p_adjusted": 0.01, "pairs": 8, "verdict": "better",
        }  # fmt: skip
        row = {
            "comparison": "base", "dataset": "one", "model": "gcn", "operator": "none",
            "value": 0.59, "spread": 0.01, "runs": None, "margin": 0.02, "ours": 0.6, "std": 0.0,
            "scores": 8, "difference": 0.01, "interval": [0.0, 0.02], "agreement": "agrees",
            "differs": "", "source": "https://example.org/a_b, table 1",
        }  # fmt: skip
        bare = dict.fromkeys(("spread", "ours", "std", "difference", "interval"))
        missing = {**row, **bare, "dataset": "two", "agreement": "undecided"}
        document = {
            "schema": 1, "suite": "mine", "title": f"Mine {NASTY}", "description": "It asks.",
            "budget": "none", "notes": ["a note"], "seeds": None, "command": None,
            "comparisons": ["base", "later"], "finished": finished, "seconds": 12.3,
            "settings": [{"name": "base", "note": "the base"}, {"name": "later", "note": ""}],
            "published": [row, missing], "factors": [effect], "environment": {"torch": "2.13"},
            "left_out": [{"comparison": "base", "dataset": "lost", "reason": "not to be had"}],
        }  # fmt: skip
        write_text(tmp_path / "suite/study.json", json.dumps(document))
        return tmp_path / "suite"

    return make


class Page(HTMLParser):
    """What a test asks of a page: its elements, its texts by element, and that tags are closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", " ".join(data.split())))

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags):
        return " ".join(text for tag, text in self.texts if (tag in tags) == bool(tags) and text)


@pytest.fixture(scope="module")
def page(study):
    return Page(render_html(study))


# What is read back.


def test_a_run_from_python_has_no_command(make_run):
    folder = make_run(graphs=(graph("one"),))
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "command": None}))
    study = read_study(folder)
    assert study.command == study.runs[0].command == ""
    assert "Made with torch 2.13." in render_markdown(study)


def test_a_run_is_read_back_as_it_ended(tmp_path):
    config, trials, results = write_run(tmp_path / "run", graphs=(graph("one"),))
    study = read_study(tmp_path / "run")
    (run,) = study.runs
    assert (study.title, study.is_finished, study.is_suite) == ("run", True, False)
    assert (run.finished, run.planned) == (80, 80)
    outcome = summarize_results(config, [graph("one")], trials, results, {"torch": "2.13"})
    assert run.comparison.to_dict() == outcome.to_dict()


def test_an_unfinished_run_says_so_and_claims_nothing_of_missing_pairs(make_run):
    study = read_study(make_run(share=0.4))
    (run,) = study.runs
    assert (study.is_finished, run.finished, run.planned) == (False, 64, 160)
    statuses = {(cell.dataset, cell.model): cell.status for cell in run.comparison.cells[:20:5]}
    assert statuses == {
        ("one", "gcn"): "ok",
        ("one", "mlp"): "unfinished",
        ("two", "gcn"): "unfinished",
        ("two", "mlp"): "unfinished",
    }
    decided = {one.model for one in run.comparison.verdicts if one.verdict != "undecided"}
    assert decided == {"gcn"}
    text = Page(render_html(study)).text("strong")
    assert "Unfinished: 64 of 160 trials." in text
    assert "Unfinished: 64 of 160 trials" in "".join(render_markdown(study).splitlines()[:3])
    assert "Unfinished: 64 of 160 trials" in "".join(render_latex(study).splitlines()[:3])
    assert {row["status"] for row in csv.DictReader(io.StringIO(render_csv(study)))} == {
        *("ok", "failed", "not-applicable", "unfinished")
    }


def test_a_run_that_goes_on_is_reported_anew(make_run):
    """Finished in two goes, a run gives the page that it gives in one."""
    small = {"graphs": (graph("one"),), "models": ("gcn",)}
    first = render_html(read_study(make_run(share=0.4, **small)))
    second = render_html(read_study(make_run(**small)))
    shutil.rmtree(make_run(**small))
    assert first != second == render_html(read_study(make_run(**small)))


def test_without_a_result_the_data_tell_what_they_are(make_run):
    name = "csbm:nodes=60,classes=2,features=4"
    dataset = load(name)
    folder = make_run(graphs=(replace(summarize(dataset), name=name),), share=0.5)
    (folder / "result.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    for data, error in ((fingerprint(dataset), None), ("other", "another csbm")):
        (folder / "config.json").write_text(json.dumps({**config, "data": {name: data}}))
        if error:
            with pytest.raises(ParameterError, match=error):
                read_study(folder)
        else:
            assert read_study(folder).runs[0].comparison.datasets[0].nodes == 60


def test_the_run_may_keep_what_there_is_to_say_of_its_graphs(make_run):
    """A graph of one's own can be loaded by no name."""
    folder = make_run(graphs=(graph("own.csv"),))
    expected = render_csv(read_study(folder))
    (folder / "result.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    text = json.dumps({**config, "graphs": [asdict(graph("own.csv"))]})
    (folder / "config.json").write_text(text)
    assert render_csv(read_study(folder)) == expected


def test_a_suite_is_read_back(make_suite):
    study = read_study(make_suite())
    assert [run.name for run in study.runs] == ["base"]
    assert (study.is_suite, study.is_finished, study.seconds) == (True, True, 12.3)
    assert study.left_out == ("base, lost: not to be had", "later: not begun")
    assert not read_study(make_suite(finished=False)).is_finished


def broken(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "needs a folder that holds a run"),
        (lambda folder: shutil.rmtree(folder), "needs a folder that holds a run"),
        (lambda folder: shutil.rmtree(folder / "trials"), "got 0 of 160"),
        (lambda folder: (folder / "config.json").write_text("[]"), "schema 1, got None"),
        (lambda folder: (folder / "config.json").write_text("{"), "must be a JSON document"),
        (lambda folder: broken(folder, schema=2), "schema 1, got 2"),
        (lambda folder: broken(folder, config={"operators": 3}), "ValidationError"),
        (lambda folder: broken(folder, config=None), "ValidationError"),
        (lambda folder: (folder / "result.json").write_text('{"schema": 1}'), "KeyError"),
    ],
)
def test_what_is_no_run(make_run, spoil, message):
    folder = make_run()
    spoil(folder)
    with pytest.raises(ParameterError, match=message) as caught:
        read_study(folder)
    assert "\n" not in str(caught.value)


def test_a_suite_that_is_none(make_suite):
    folder = make_suite()
    (folder / "study.json").write_text('{"schema": 1}')
    with pytest.raises(ParameterError, match="as gnndrop wrote them"):
        read_study(folder)


def test_data_that_are_not_to_be_had(make_run, tmp_path, monkeypatch):
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))
    folder = make_run(graphs=(graph("cora"),))
    (folder / "result.json").unlink()
    with pytest.raises(DataError):
        read_study(folder, root=tmp_path / "nowhere")


# The page.


def test_the_page_is_well_formed_and_accessible(page):
    assert page.find("html") == [{"lang": "en"}]
    assert len(page.find("h1")) == 1
    assert len(page.find("caption")) == len(page.find("table")) > 0
    assert {cell.get("scope") for cell in page.find("th")} == {"row", "col"}
    drawings = [one for one in page.find("svg") if one.get("role") == "img"]
    assert len(page.find("desc")) == len(drawings) == len(page.find("title")) - 1 > 0
    assert all(one.get("aria-hidden") for one in page.find("svg") if one not in drawings)
    places = [one["id"] for _, one in page.elements if "id" in one]
    assert len(places) == len(set(places))


def test_the_page_loads_nothing(page, study):
    text = render_html(study)
    for name, attributes in page.elements:
        assert name not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not {"src", "srcset", "xlink:href", "style"} & set(attributes)
        assert not any(key.startswith("on") for key in attributes)
        assert name == "a" or "href" not in attributes
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = (one for one in page.find("meta") if "http-equiv" in one)
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_verdicts_come_first_and_every_one_is_there(page, study):
    comparison = study.runs[0].comparison
    text = page.text()
    assert "Helps: 4 · Hurts: 4 · Equivalent: 4 · Undecided: 2" in text
    assert text.index("dropout:p=0.5 helps gcn on one: +5.0 points") < text.index(
        "Test accuracy in points"
    )
    assert len(re.findall(r"Holm\), 8 pairs|pairs are missing", page.text("li"))) == len(
        comparison.verdicts
    )


def test_every_score_is_in_its_table(page):
    cells = page.text("td")
    # none and drop-edge:p=0.6, each in two models on two graphs
    assert cells.count("60.0 ± 0.0") == 8
    assert cells.count("65.0 ± 0.0") == cells.count("55.0 ± 0.0") == 4
    assert cells.count("(7/8)") == 2
    assert cells.count("n/a") == 2
    assert page.text("h3").index("one") < page.text("h3").index("two")  # homophilous first


def test_failures_have_their_reasons(page):
    assert page.text("li").count(f"drop-message in gcn on one, seed 3: it is failed: {NASTY}") == 1


def test_provenance(page):
    assert f"gnndrop compare -o {NASTY}" in page.text("pre")
    assert "train.epochs" in page.text("dt")
    assert "2.13" in page.text("dd")
    assert "Rong et al" in page.text("dd")  # DropEdge's declaration


def test_what_users_write_stays_text(make_run, make_suite):
    nasty = graph(NASTY)
    for folder in (make_run("nasty", graphs=(nasty,), models=("gcn",)), make_suite()):
        found = Page(render_html(read_study(folder)))
        assert "script" not in {name for name, _ in found.elements}
        assert "alert('&')</script>|*_%$#" in found.text()


def test_curves_where_operators_differ_by_rate(page):
    assert "drop-edge: -5.0 points at 0.2, 0.0 points at 0.6." in page.text("desc")
    assert page.text("figcaption").count("over the drop rate") == 4


def test_ranks_need_five_datasets(page, make_run):
    assert "No critical-difference diagram of gcn: a ranking needs at least 5" in page.text("p")
    graphs = [graph(f"g{number}") for number in range(6)]
    found = Page(render_html(read_study(make_run("six", graphs=graphs))))
    # The failed trials of drop-message leave gcn no complete dataset; mlp has no place for it.
    assert "No critical-difference diagram of gcn" in found.text("p")
    assert "No critical-difference diagram of mlp" not in found.text("p")
    assert "mean ranks over 6 datasets" in found.text("figcaption")
    assert "dropout:p=0.5: mean rank 1.00" in found.text("desc")


def test_figures_stay_inside(page):
    """No coordinate leaves its drawing, whatever the intervals."""
    size = None
    for name, attributes in page.elements:
        if name == "svg":
            size = [float(value) for value in attributes["viewbox"].split()[2:]]
        for key, value in attributes.items():
            if key in {"x", "x1", "x2", "cx"}:
                assert 0 <= float(value) <= size[0]
            elif key in {"y", "y1", "y2", "cy"}:
                assert 0 <= float(value) <= size[1]


def test_colours_have_contrast(study):
    """WCAG 2: text has a contrast of 4.5 to 1 at least, light and dark."""
    style = render_html(study)
    themes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block))
        for block in re.findall(r":root {(.*?)}", style, re.S)
    ]
    assert len(themes) == 2

    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)) + 0.05

    for theme in themes:
        inks = {
            name: colour
            for name, colour in theme.items()
            if re.match(r"ink|soft|be|wo|li\w*k|c\d", name)
        }
        assert len(inks) == 11
        for name, colour in inks.items():
            for ground in ("ground", "band"):
                low, high = sorted((luminance(colour), luminance(theme[ground])))
                assert high / low >= (4.5 if ground == "ground" else 3), (name, ground)


def test_a_suite_page(make_suite):
    study = read_study(make_suite(finished=False))
    found = Page(render_html(study))
    text = found.text()
    for part in (
        *("It asks.", "What makes the difference", "raises the gain", "Published scores and ours"),
        *("59.0 ± 1.0", "agrees", "base, lost: not to be had", "later: not begun", "The base"),
        "Unfinished: 40 of 40 trials of the comparisons that have begun.",
    ):
        assert part in text
    links = [one["href"] for one in found.find("a")]
    assert set(links) == {"#run-1", "#source-1", "https://example.org/a_b"}
    assert {"run-1", "source-1"} <= {one.get("id") for _, one in found.elements}


# The tables.


def parse_markdown(text):
    """Return the texts of all cells and items, and whether anything else than text came of them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    inline = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children}
    texts = ["".join(child.content for child in token.children) for token in inline]
    return texts, kinds, [token.type for token in tokens]


def test_markdown_shows_what_was_written(make_run):
    study = read_study(make_run(graphs=(graph(NASTY), graph("# two"))))
    texts, kinds, types = parse_markdown(render_markdown(study))
    assert kinds <= {"text", "text_special", "code_inline"}
    assert types.count("table_open") == 2
    assert NASTY in texts  # a column
    assert "# two" in texts
    assert f"dropout:p=0.5 helps gcn on {NASTY}: +5.0 points" in "\n".join(texts)
    assert texts[-1] == f"Made by gnndrop compare -o {NASTY} with torch 2.13."
    rows = types.count("tr_open")
    assert types.count("td_open") + types.count("th_open") == 3 * rows == 3 * 2 * (len(GAINS) + 1)


def test_markdown_links_sources(make_suite):
    texts, kinds, _ = parse_markdown(render_markdown(read_study(make_suite())))
    assert {"link_open", "link_close"} <= kinds
    assert "https://example.org/a_b, table 1" in texts


def test_latex_is_escaped_and_balanced(make_run, make_suite):
    for study in (read_study(make_run(graphs=(graph(NASTY),))), read_study(make_suite())):
        text = render_latex(study)
        body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", body) for word in ("begin", "end"))
        assert sorted(begun) == sorted(ended)
        assert set(begun) == {"table", "tabular"}
        bare = re.sub(r"\\[&%$#_{}]", "", body)
        assert bare.count("{") == bare.count("}")
        assert not re.search(r"[%#_~^<>|`]".replace("`", ""), bare)
        for lines in re.findall(r"\\toprule\n(.*?)\\bottomrule", bare, re.S):
            rows = [line for line in lines.splitlines() if line != r"\midrule"]
            assert all(row.endswith(r" \\") for row in rows)
            assert len({row.count("&") for row in rows}) == 1
        assert r"\textless{}script\textgreater{}" in body


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(make_run, tmp_path):
    tables = render_latex(read_study(make_run(graphs=(graph(NASTY),))))
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    text = rf"{head}{tables}\end{{document}}"
    (tmp_path / "a.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60, capture_output=True)


def test_csv(study, make_suite):
    assert render_csv(study) == study.runs[0].comparison.to_csv()
    rows = list(csv.DictReader(io.StringIO(render_csv(read_study(make_suite())))))
    assert tuple(rows[0]) == ("comparison", *CSV_COLUMNS)
    assert {row["comparison"] for row in rows} == {"base"}
    assert len(rows) == len(GAINS)


# The file.


def test_the_file_is_replaced_whole(make_run, tmp_path, monkeypatch):
    folder, path = make_run(), tmp_path / "page.html"
    path.write_text("old")
    write_report(folder, path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    path.write_text("old")

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", fail)
        with pytest.raises(ParameterError, match="No space left"):
            write_report(folder, path)
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("place", ["", "nowhere/page.html"])
def test_a_place_that_cannot_be_written(make_run, tmp_path, place):
    with pytest.raises(ParameterError, match="the report must be writable, got"):
        write_report(make_run(), tmp_path / place)
    assert not list(tmp_path.glob(".*"))


def test_an_unknown_format(tmp_path):
    with pytest.raises(GnndropError, match="one of html, md, latex, csv, got 'pdf'"):
        write_report(tmp_path, tmp_path / "a.pdf", "pdf")
