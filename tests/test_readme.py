"""The tables of the pages are what the registry and the committed results say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_tables_are_current() -> None:
    tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    for page in tables["PAGES"]:
        text = page.read_text()
        assert "<!-- end of" in text
        assert tables["rewrite"](text) == text, "run python benchmarks/tables.py"
