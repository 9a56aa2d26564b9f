"""The figures of `gnndrop sweep --plot`: curves with their intervals, and phase maps."""

from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnndrop.cli._plot_file import save

if TYPE_CHECKING:
    from gnndrop.study.sweep import Point, Sweep

UNCERTAIN = "////"  # the hatch of a cell whose interval covers 0


def draw(path: Path, sweep: "Sweep") -> None:
    """Draw a sweep, a row for each graph and model.

    First the scores, then the gain of each operator with its interval; over another axis than the
    rate with its phase map below, axis x rate.

    The file is replaced atomically.

    Raises:
        ParameterError: if the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot: it keeps figures alive, and opens windows

    operators = list(dict.fromkeys(p.operator for p in sweep.points if p.operator != "none"))
    places = list(dict.fromkeys((p.dataset, p.model) for p in sweep.points))
    maps = sweep.over != "rate"
    rows = len(places) * (2 if maps else 1)
    columns = 1 + len(operators)
    figure = Figure(figsize=(3.2 * columns, 2.9 * rows + 0.9), layout="constrained")
    hatched = "; hatched: the interval covers 0" if maps else ""
    figure.suptitle(f"Gain over none, over {sweep.over}\nbands: intervals{hatched}", fontsize=10)
    axes = figure.subplots(rows, columns, squeeze=False)
    reach = _reach(sweep)
    for place, row in zip(places, range(0, rows, rows // len(places)), strict=True):
        points = [p for p in sweep.points if (p.dataset, p.model) == place]
        _scores(axes[row][0], f"{place[1]} on {place[0]}", sweep, points)
        meshes = []
        for column, operator in enumerate(operators, start=1):
            own = [p for p in points if p.operator == operator]
            _curves(axes[row][column], operator, sweep, own)
            if maps:
                meshes.append(_map(axes[row + 1][column], sweep, own, reach))
        if maps:
            axes[row + 1][0].set_axis_off()
            figure.colorbar(meshes[0], ax=list(axes[row + 1][1:]), label="gain in points")
    save(figure, path)


def _scores(axis: Any, title: str, sweep: "Sweep", points: "list[Point]") -> None:
    """Draw the mean score of none, and in a sweep over the rate of every operator."""
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.set_xlabel(sweep.over, fontsize=8)
    axis.set_ylabel("score in points", fontsize=8)
    drawn = [p for p in points if p.mean is not None]
    for operator in dict.fromkeys(p.operator for p in drawn):
        if operator != "none" and sweep.over != "rate":
            continue
        known = [(p.value, 100 * (p.mean or 0.0)) for p in drawn if p.operator == operator]
        if operator == "none" and sweep.over == "rate":  # one score for all rates
            known = [(value, known[0][1]) for value in sweep.values]
        axis.plot(*zip(*sorted(known), strict=True), marker=".", linewidth=1, label=operator)
    if drawn:
        axis.legend(fontsize=6)


def _curves(axis: Any, title: str, sweep: "Sweep", points: "list[Point]") -> None:
    """Draw the gain along the axis, one line for each rate, with a band for its interval."""
    axis.set_title(title, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.axhline(0, color="gray", linewidth=0.8)
    axis.set_xlabel(sweep.over, fontsize=8)
    axis.set_ylabel("gain in points", fontsize=8)
    known = [p for p in points if p.difference is not None]
    if not known:
        axis.text(0.5, 0.5, "no score", ha="center", va="center", transform=axis.transAxes)
        return
    for rate in [None] if sweep.over == "rate" else sweep.rates:
        own = sorted((p for p in known if rate in (None, p.rate)), key=lambda p: p.value or 0.0)
        values = [p.value for p in own]
        gains = [100 * (p.difference or 0.0) for p in own]
        name = None if rate is None else f"p={rate:g}"
        (line,) = axis.plot(values, gains, marker=".", linewidth=1, label=name)
        low, high = ([100 * p.interval[end] if p.interval else nan for p in own] for end in (0, 1))
        axis.fill_between(values, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    if sweep.over != "rate":
        axis.legend(fontsize=6)


def _map(axis: Any, sweep: "Sweep", points: "list[Point]", reach: float) -> Any:
    """Draw the gain over axis and rate; hatched where the interval covers 0."""
    from matplotlib.patches import Rectangle

    cells = {(p.rate, p.value): p for p in points}
    gains = [[_points(cells.get((rate, value))) for value in sweep.values] for rate in sweep.rates]
    mesh = axis.pcolormesh(gains, cmap="RdBu", vmin=-reach, vmax=reach)
    for row, rate in enumerate(sweep.rates):
        for column, value in enumerate(sweep.values):
            point = cells.get((rate, value))
            if point is None or point.difference is None:
                continue
            if point.interval is None or point.interval[0] <= 0 <= point.interval[1]:
                hatch = Rectangle(
                    (column, row), 1, 1, fill=False, hatch=UNCERTAIN, edgecolor="gray", linewidth=0
                )
                axis.add_patch(hatch)
            axis.text(
                column + 0.5,
                row + 0.5,
                f"{100 * point.difference:+.1f}",
                ha="center",
                va="center",
                fontsize=6,
                bbox={"facecolor": "white", "alpha": 0.6, "linewidth": 0, "pad": 0.8},
            )
    axis.set_xticks([k + 0.5 for k in range(len(sweep.values))], [f"{v:g}" for v in sweep.values])
    axis.set_yticks([k + 0.5 for k in range(len(sweep.rates))], [f"{r:g}" for r in sweep.rates])
    axis.tick_params(labelsize=7)
    axis.set_xlabel(sweep.over, fontsize=8)
    axis.set_ylabel("rate p", fontsize=8)
    return mesh


def _points(point: "Point | None") -> float:
    return nan if point is None or point.difference is None else 100 * point.difference


def _reach(sweep: "Sweep") -> float:
    """Return the greatest gain or loss in points: the colours of all maps mean the same."""
    known = [abs(100 * p.difference) for p in sweep.points if p.difference is not None]
    return max(known, default=0.0) or 1.0
