"""Write the tables of the pages from what they are made of: the registry, the committed results.

    python benchmarks/tables.py

`tests/test_readme.py` fails where the README is not what this writes.
"""

import json
import re
from pathlib import Path
from typing import Any

from gnndrop.operators import OPERATORS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
MARKS = {"better": " ▲", "worse": " ▼", "equivalent": " =", "undecided": ""}
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


def results_table() -> str:
    """Return the committed comparison as a Markdown table: a row for each operator."""
    document: dict[str, Any] = json.loads(RESULTS.read_text())
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
            mark = MARKS.get(verdicts.get((dataset, model, operator), ""), "")
            line.append(f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}{mark}")
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


def rewrite(text: str) -> str:
    """Return a page with its tables as they should be."""
    tables = {
        "operators": operators_table(),
        "results": results_table(),
        "speed": speed_table(),
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
