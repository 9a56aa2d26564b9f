"""Write the tables of the pages from what they are made of: the registry, the committed results.

    python benchmarks/tables.py

`tests/test_readme.py` fails where the README is not what this writes.
"""

import json
import re
from pathlib import Path
from typing import Any

from gnndrop.operators import OPERATORS
from gnndrop.study.words import mark

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
SITES = ("none", "features", "edges", "messages", "attention", "weights", "paths", "several")
SPEED = ROOT / "benchmarks" / "results" / "speed.json"


def operators_table() -> str:
    """Return the operators as a Markdown table, by site."""
    rows = [
        f"| `{name}` | {operator.site} | {' x '.join(operator.axes)} | {operator.source} |"
        for name, operator in sorted(
            OPERATORS.items(), key=lambda item: (SITES.index(item[1].site), item[0])
        )
        if operator.site != "none"
    ]
    return "\n".join(
        ["| operator | acts on | a coin for every | source |", "|---|---|---|---|", *rows]
    )


def results_table(path: Path = RESULTS) -> str:
    """Return a committed comparison as a Markdown table: a row for each operator."""
    document: dict[str, Any] = json.loads(path.read_text())
    cells = {(c["dataset"], c["model"], c["operator"]): c for c in document["cells"]}
    verdicts = {
        (v["dataset"], v["model"], v["operator"]): v["verdict"] for v in document["verdicts"]
    }
    columns = list(dict.fromkeys((dataset, model) for dataset, model, _ in cells))
    lines = [
        "| | " + " | ".join(f"{dataset}, {model}" for dataset, model in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for operator in dict.fromkeys(operator for *_, operator in cells):
        line = [f"`{operator}`"]
        for dataset, model in columns:
            cell = cells[dataset, model, operator]
            if cell["status"] != "ok":
                line.append("-")
                continue
            decision = mark(verdicts.get((dataset, model, operator)))
            line.append(f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}{decision}")
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def speed_table() -> str:
    """Return the committed speeds as a Markdown table, every bar with what was reached."""
    lines = ["| what | ratio | measured | bar |", "|---|---|---|---|"]
    for row in json.loads(SPEED.read_text())["rows"]:
        sign = "at least" if row["higher"] else "at most"
        missed = "" if row["passed"] else " (missed)"
        lines.append(
            f"| {row['name']} | {row['ratio_is']} | {row['ratio']:.2f}{missed} | "
            f"{sign} {row['bar']:g} |"
        )
    return "\n".join(lines)


# ECE of the softmax and of Monte-Carlo dropout, AUROC of finding errors by entropy and by mutual
# information: measured by other code with these settings (3 seeds; a spread where it was given).
LEVELS = {
    ("cora", "dropout"): ("21.1", "25.1", "77.8", "68.2"),
    ("cora", "drop-edge:symmetric=false,share=forward"): ("22.2", "18.1", "77.5", "64.6"),
    ("citeseer", "dropout"): ("23.2", "25.2", "69.1", "60.5"),
    ("citeseer", "drop-edge:symmetric=false,share=forward"): ("22.6", "19.0", "71.2", "58.6"),
    ("chameleon-filtered", "dropout"): ("12.6", "12.5", "47.4 ± 6.6", "65.3 ± 4.2"),
    ("squirrel-filtered", "dropout"): ("13.1", "12.6", "37.1 ± 2.0", "62.7 ± 0.3"),
}
LEVELS_OF = (
    ("softmax", "", "ece"),
    ("mc-dropout", "", "ece"),
    ("mc-dropout", "entropy", "auroc"),
    ("mc-dropout", "mutual-information", "auroc"),
)
TASKS = {
    "ECE, softmax": ("softmax", "", "ece"),
    "MC dropout": ("mc-dropout", "", "ece"),
    "temperature": ("temperature", "", "ece"),
    "ensemble": ("ensemble", "", "ece"),
    "AUROC of errors, softmax": ("softmax", "entropy", "auroc"),
    "MC, entropy": ("mc-dropout", "entropy", "auroc"),
    "MC, mutual information": ("mc-dropout", "mutual-information", "auroc"),
}


def _scores(name: str) -> dict[tuple[str, ...], str]:
    """Return means and standard deviations of a committed run of `gnndrop uncertainty`."""
    cells = json.loads((RESULTS.parent / name).read_text())["cells"]
    keys = ("dataset", "operator", "method", "score", "task")
    return {
        tuple(cell[key] for key in keys): f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}"
        for cell in cells
    }


def uncertainty_table() -> str:
    """Return calibration and detection of errors by graph and operator, in hundredths."""
    scores = _scores("uncertainty.json")
    decisions = {
        (v["dataset"], v["operator"], v["score"], v["task"]): v["verdict"]
        for v in json.loads((RESULTS.parent / "uncertainty.json").read_text())["verdicts"]
        if v["baseline"] == "softmax"
    }
    lines = [f"| | {' | '.join(TASKS)} |", "|---|" + "---|" * len(TASKS)]
    for dataset, operator in dict.fromkeys(key[:2] for key in scores):
        line = [f"{dataset}, `{operator}`"]
        for method, score, task in TASKS.values():
            decision = decisions.get((dataset, operator, score, task))
            cell = scores[dataset, operator, method, score, task]
            line.append(cell + (mark(decision) if method == "mc-dropout" else ""))
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def levels_table() -> str:
    """Return ours beside what other code measured with the same settings."""
    scores = _scores("uncertainty-levels-scaled.json") | _scores("uncertainty-levels-raw.json")
    heads = ("ECE, softmax", "ECE, MC dropout", "AUROC, entropy", "AUROC, mutual information")
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for (dataset, operator), levels in LEVELS.items():
        ours = [scores[dataset, operator, *column] for column in LEVELS_OF]
        pairs = [f"{own} ({other})" for own, other in zip(ours, levels, strict=True)]
        lines.append(f"| {dataset}, `{operator}` | {' | '.join(pairs)} |")
    return "\n".join(lines)


def rewrite(text: str) -> str:
    """Return a page with its tables as they should be."""
    tables = {
        "operators": operators_table(),
        "results": results_table(),
        "paths": results_table(RESULTS.parent / "paths.json"),
        "speed": speed_table(),
        "uncertainty": uncertainty_table(),
        "levels": levels_table(),
    }
    for name, table in tables.items():
        block = f"<!-- {name} -->\n{table}\n<!-- end of {name} -->"
        text = re.sub(
            f"<!-- {name} -->.*<!-- end of {name} -->", lambda _, b=block: b, text, flags=re.S
        )
    return text


PAGES = (ROOT / "README.md", ROOT / "benchmarks" / "results" / "README.md")

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewrite(page.read_text()))
