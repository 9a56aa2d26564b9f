"""Comparisons: plan, run, store, statistics, report; `compare` does all of it.

Names are imported at first use: the statistics need no torch, and workers no statistics.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnndrop.study.protocol import compare
    from gnndrop.study.provenance import environment
    from gnndrop.study.report import Cell, Comparison, Failure, GraphSummary
    from gnndrop.study.statistics import Verdict

__all__ = [
    "Cell",
    "Comparison",
    "Failure",
    "GraphSummary",
    "Verdict",
    "compare",
    "environment",
]

_HOMES = {
    "Cell": "report",
    "Comparison": "report",
    "Failure": "report",
    "GraphSummary": "report",
    "Verdict": "statistics",
    "compare": "protocol",
    "environment": "provenance",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
