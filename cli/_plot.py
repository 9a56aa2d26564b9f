"""The figure of `gnndrop check --plot`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnndrop.cli._plot_file import save

if TYPE_CHECKING:
    from gnndrop.theory.measurement import Measurement

COLUMNS = 4
ENTRIES = 4  # of a quantity, that a panel shows


def draw(path: Path, measured: "Sequence[tuple[str, Measurement]]") -> None:
    """Draw theory (lines) and measurements (bars as long as the bound) over the rate.

    The file is replaced atomically.

    Raises:
        ParameterError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot: it keeps figures alive, and opens windows

    panels: dict[tuple[str, str], list[Measurement]] = {}
    for subject, one in measured:
        panels.setdefault((subject, one.quantity), []).append(one)
    rows = max(1, -(-len(panels) // COLUMNS))
    figure = Figure(figsize=(3.4 * COLUMNS, 2.6 * rows + 0.6), layout="constrained")
    figure.suptitle("Theory (lines) and measurement (bars: the bound on its error) over the rate p")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axis, ((subject, quantity), series) in zip(axes, panels.items(), strict=False):
        _panel(axis, f"{subject}\n{quantity}", series)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    save(figure, path)


def _panel(axis: Any, title: str, series: "list[Measurement]") -> None:
    """Draw a quantity; the n-th measurements of all rates are of one case."""
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)
    by_rate: dict[float, list[Measurement]] = {}
    for one in series:
        by_rate.setdefault(one.p, []).append(one)
    rates = sorted(by_rate)
    for case in zip(*(by_rate[p] for p in rates), strict=True):
        for entry in _entries(case[-1].theory):
            theory = [one.theory[entry] for one in case]
            measured = [one.measured[entry] for one in case]
            bound = [one.bound[entry] for one in case]
            (line,) = axis.plot(rates, theory, linewidth=1)
            axis.errorbar(
                rates, measured, bound, fmt=".", markersize=3, linewidth=0.8, color=line.get_color()
            )


def _entries(theory: Sequence[float]) -> list[int]:
    """Return a few entries whose theory differs: the least, the greatest and some between."""
    by_value = {round(value, 9): entry for entry, value in enumerate(theory)}
    order = [by_value[value] for value in sorted(by_value)]
    count = min(ENTRIES, len(order))
    return [order[k * (len(order) - 1) // max(count - 1, 1)] for k in range(count)]
