"""The page in a real browser: nothing fails, nothing is fetched, nothing overflows a phone."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from gnndrop.config import CompareConfig
from gnndrop.study.html import render_html
from gnndrop.study.reading import Run, Study
from gnndrop.study.report import Cell, Comparison, Failure, GraphSummary
from gnndrop.study.statistics import Pairing, judge

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")

LONG = "drop-edge:p=0.25,symmetric=false,rescale=inverse,share=forward"
OPERATORS = ("none", "dropout:p=0.5", LONG, *(f"drop-node:p={p}" for p in (0.1, 0.2, 0.4, 0.8)))
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# Written into the page for a measurement alone: the page itself has no script.
MEASURE = """<script>
const width = document.documentElement.clientWidth;
const outside = [...document.querySelectorAll("svg")].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text, path, circle, line, rect")].filter(one => {
    const inner = one.getBoundingClientRect();
    return inner.left < box.left - 1 || inner.right > box.right + 1
        || inner.top < box.top - 1 || inner.bottom > box.bottom + 1;
  }).map(one => one.textContent || one.outerHTML);
});
const scale = svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
const sizes = [...document.querySelectorAll("svg text")].map(one =>
  parseFloat(getComputedStyle(one).fontSize) * scale(one.ownerSVGElement));
const wide = [...document.querySelectorAll("body *")].filter(one =>
  !one.closest(".scroll table") && one.getBoundingClientRect().right > width + 1
).map(one => one.outerHTML.slice(0, 80));
const scroll = document.documentElement.scrollWidth;
document.body.textContent = JSON.stringify({
  width, scroll, outside, wide, smallest: Math.min(...sizes),
});
</script></body>"""


@pytest.fixture(scope="module")
def page() -> str:
    """A page with every kind of figure, long names, and an interval that leaves its figure."""
    names = ("csbm:nodes=1000,classes=5,features=64,homophily=0.25", "<img src=http://a.b/c>")
    graphs = tuple(
        GraphSummary(name, 10, 20, {"edge": 0.5}, True, "accuracy", 1, 0.5)
        for name in (*names, *"abcd")
    )
    models = ("gcn:num_layers=32,hidden_channels=256,norm=batch,residual=true", "gat")
    cells, pairings = [], []
    for graph in graphs:
        for model in models:
            for place, operator in enumerate(OPERATORS):
                pairs = 2 if operator == LONG else 8
                gains = [0.01 * place + 0.03 * (seed % 2) for seed in range(pairs)]
                scores = tuple(0.5 + gain for gain in gains)
                cells.append(
                    Cell(
                        graph.name,
                        model,
                        operator,
                        "accuracy",
                        scores,
                        scores[0],
                        0.01,
                        1.0,
                        (),
                        "ok",
                    )
                )
                if place:
                    pairings.append(Pairing(graph.name, model, operator, "none", tuple(gains), 0.0))
    config = CompareConfig(OPERATORS, tuple(graph.name for graph in graphs), models)
    protocol = {**vars(config), "train": vars(config.train)}
    failures = (Failure("a", "gat", LONG, 0, 0, "the loss must be finite, got nan" * 9),)
    comparison = Comparison(
        tuple(cells), tuple(judge(pairings)), graphs, failures, protocol, {"cpu": "x" * 300}
    )
    run = Run("run", comparison, 36, 90, "gnndrop compare " + "-o dropout " * 30)
    return render_html(Study("run", (run,), {"cpu": "x" * 300}, run.command, is_finished=False))


@pytest.fixture
def browse(tmp_path):
    """Return a function that opens a page and returns the document and what the console said."""

    def open_page(text: str, *flags: str) -> tuple[str, list[str]]:
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        command = [
            *(str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
            "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever is fetched fails, and is told
            *flags,
            path.as_uri(),
        ]
        end = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return end.stdout, [line for line in end.stderr.splitlines() if ":CONSOLE" in line]

    return open_page


def test_nothing_fails_and_nothing_is_fetched(browse, page):
    document, console = browse(page)
    assert "Ranks over datasets" in document
    assert console == []


@pytest.mark.parametrize("intruder", ['<img src="http://a.b/c.png">', "<script>fetch(1)</script>"])
def test_the_console_would_tell(browse, page, intruder):
    """The page's policy refuses what a mistake of ours might let in, and the test above sees it."""
    _, console = browse(page.replace("</body>", f"{intruder}</body>"))
    assert "Content Security Policy" in console[0]


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits(browse, page, width):
    # A frame is as narrow as a phone, a window of the browser need not be.
    inner = POLICY.sub("", page).replace("</body>", MEASURE)
    frame = inner.replace("&", "&amp;").replace('"', "&quot;")
    document, _ = browse(
        f'<iframe width="{width}" height="800" style="border:0" srcdoc="{frame}"></iframe>'
        "<script>onload = () => { document.body.textContent ="
        " frames[0].document.body.textContent }</script>",
        "--window-size=1400,900",
    )
    measured = json.loads(unescape(re.search(r"<body>(.*)</body>", document, re.S)[1]))
    assert measured["width"] in range(width - 20, width + 1)
    assert measured["wide"] == []
    assert measured["scroll"] <= measured["width"]
    assert measured["outside"] == []
    assert measured["smallest"] >= 10.5
