"""The README's tables are what the registry and the committed results say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_tables_are_current() -> None:
    text = (ROOT / "README.md").read_text()
    rewrite = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))["rewrite"]
    assert rewrite(text) == text, "run python benchmarks/tables.py"
