"""The figures of `gnndrop uncertainty --plot`; matplotlib, an extra, is imported where it draws."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import k_hop_subgraph

from gnndrop.cli._plot_file import check_installed, save
from gnndrop.errors import ParameterError
from gnndrop.study.uncertainty_nodes import NodeTable
from gnndrop.study.uncertainty_report import METHODS, MONTE_CARLO
from gnndrop.study.uncertainty_scores import BINS
from gnndrop.uncertainty.calibration import expected_calibration_error, reliability_diagram
from gnndrop.uncertainty.ranking import risk_coverage
from gnndrop.uncertainty.strata import MINIMUM_NODES, by_homophily

if TYPE_CHECKING:
    import networkx

DRAWN = ("softmax", "temperature", MONTE_CARLO)
COLOURS = {
    "softmax": "#444444",
    "energy": "#888888",
    "temperature": "#0072b2",
    "ensemble": "#009e73",
    MONTE_CARLO: "#d55e00",
}
WHOLE = 2000
"""Nodes of a graph that is drawn whole; of a larger one the most uncertain node's surroundings."""
SURROUNDINGS = 300
"""Nodes drawn of surroundings, the nearest first: a hub's second neighbours may be everybody."""


def check_folder(folder: Path) -> None:
    """Make sure that figures can be drawn there, before anything is trained.

    Raises:
        ParameterError: if matplotlib is not installed, or the folder cannot be made or written.
    """
    check_installed()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ParameterError(
            f"--plot must be a folder, got {error.strerror!r} at {folder}; choose another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise ParameterError(f"--plot must be a folder that can be written to, got {folder}")


def draw(folder: Path, tables: Sequence[NodeTable]) -> None:
    """Draw four figures of each dataset, model and operator: PNG files, each replaced atomically.

    Raises:
        ParameterError: if a file cannot be written.
    """
    for table in tables:
        place = "-".join((table.dataset, table.model, table.operator))
        name = re.sub(r"[^\w.=]+", "-", place).strip("-")
        for kind, paint in (
            ("reliability", _reliability),
            ("risk-coverage", _risk_coverage),
            ("homophily", _homophily),
            ("graph", _graph),
        ):
            save(paint(table), folder / f"{name}-{kind}.png", dpi=120)


def _figure(table: NodeTable, title: str, width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # not pyplot: it keeps figures alive, and opens windows

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(
        f"{title}\n{table.operator} in {table.model} on {table.dataset}, seed {table.seed}",
        fontsize=10,
    )
    return figure


def _reliability(table: NodeTable) -> Any:
    """Accuracy over confidence with intervals, and how many nodes are in each bin."""
    run = table.run
    figure = _figure(table, "Reliability: right as often as sure?", 9.6, 3.9)
    upper, lower = figure.subplots(
        2, len(DRAWN), sharex=True, sharey="row", height_ratios=[4, 1], squeeze=False
    )
    y = run.y[run.test]
    for above, below, method in zip(upper, lower, DRAWN, strict=True):
        probs = run.probs[method][run.test]
        diagram = reliability_diagram(probs, y, bins=BINS)
        filled = diagram.counts > 0
        sure, right = diagram.confidence[filled].numpy(), diagram.accuracy[filled].numpy()
        reach = np.abs(
            np.stack([diagram.low[filled].numpy(), diagram.high[filled].numpy()]) - right
        )
        error = expected_calibration_error(probs, y, bins=BINS)
        above.set_title(f"{METHODS[method]}, ECE {100 * error:.1f}", fontsize=9)
        above.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        above.vlines(sure, sure, right, color=COLOURS[method], alpha=0.25, linewidth=5)
        above.errorbar(
            sure, right, reach, fmt="o-", color=COLOURS[method], markersize=4, linewidth=1
        )
        edges = diagram.edges.numpy()
        below.bar(edges[:-1], diagram.counts.numpy(), np.diff(edges), align="edge", color="#bbbbbb")
        below.set_xlabel("confidence", fontsize=8)
        for axis in (above, below):
            axis.set_xlim(0, 1)
            axis.tick_params(labelsize=7)
    upper[0].set_ylim(0, 1)
    upper[0].set_ylabel("accuracy (95 % interval)", fontsize=8)
    lower[0].set_ylabel("test nodes", fontsize=8)
    return figure


def _risk_coverage(table: NodeTable) -> Any:
    """The share of errors among the surest nodes, over how many are kept."""
    run = table.run
    figure = _figure(table, "Risk of keeping the surest nodes alone, ranked by entropy", 5.6, 4.2)
    axis = figure.subplots()
    curves = {
        (method, score): METHODS[method]
        for method, score in (
            ("softmax", "entropy"),
            ("energy", "energy"),
            ("temperature", "entropy"),
            ("ensemble", "entropy"),
            (MONTE_CARLO, "entropy"),
        )
        if (method, score) in run.uncertainties
    }
    curves[MONTE_CARLO, "mutual-information"] = "MC dropout, mutual information"
    for (method, score), name in curves.items():
        right = run.correct(method)[run.test]
        curve = risk_coverage(-run.uncertainties[method, score][run.test], right)
        # The first few nodes are noise.
        shown = curve.coverage >= min(0.02, float(curve.coverage[-1]))
        axis.plot(
            curve.coverage[shown].numpy(),
            100 * curve.risk[shown].numpy(),
            color=COLOURS[method],
            linestyle="--" if score == "mutual-information" else "-",
            linewidth=1.2,
            label=name,
        )
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("coverage: share of test nodes kept", fontsize=8)
    axis.set_ylabel("risk: % of errors among them", fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)
    return figure


def _homophily(table: NodeTable) -> Any:
    """Uncertainty and errors by the share of neighbours with the node's label."""
    run = table.run
    figure = _figure(table, "Uncertainty by node homophily", 7.2, 4.0)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    groups = by_homophily(table.edge_index, run.y)
    sizes = groups.sizes(run.test)
    kept = [number for number, size in enumerate(sizes) if size]
    names = [
        f"{groups.names[number]}\nn = {sizes[number]}"
        + ("\n(few)" if sizes[number] < MINIMUM_NODES else "")
        for number in kept
    ]
    total = run.uncertainties[MONTE_CARLO, "entropy"]
    expected = run.uncertainties[MONTE_CARLO, "expected-entropy"]
    members = [run.test & (groups.group == number) for number in kept]
    places = np.arange(len(kept))
    for shift, values, name, colour in (
        (-0.2, total, "total: entropy of the mean", COLOURS[MONTE_CARLO]),
        (0.2, expected, "expected entropy", "#e8a87c"),
    ):
        boxes = left.boxplot(
            [values[nodes].numpy() for nodes in members],
            positions=places + shift,
            widths=0.32,
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for box in boxes["boxes"]:
            box.set_facecolor(colour)
        boxes["boxes"][0].set_label(name)
    left.set_ylabel("nats", fontsize=8)
    left.legend(fontsize=7, frameon=False)
    correct = run.correct(MONTE_CARLO)
    errors = [100 * float((~correct[nodes]).double().mean()) for nodes in members]
    sure = [100 * float((1 - run.probs[MONTE_CARLO][nodes].amax(-1)).mean()) for nodes in members]
    right.bar(places - 0.2, errors, 0.38, label="wrong", color="#444444")
    right.bar(
        places + 0.2,
        sure,
        0.38,
        label="expected wrong: 100 - confidence",
        color=COLOURS[MONTE_CARLO],
    )
    right.set_ylabel("% of test nodes", fontsize=8)
    right.set_ylim(0, 115)
    right.legend(fontsize=7, frameon=False, loc="upper right")
    for axis in (left, right):
        axis.set_xticks(places, names, fontsize=6)
        axis.tick_params(axis="y", labelsize=7)
        axis.set_xlabel("share of neighbours of the same class", fontsize=8)
    return figure


def _graph(table: NodeTable) -> Any:
    """The graph, or the surroundings of its most uncertain test node, coloured by entropy."""
    run = table.run
    unsure = run.uncertainties[MONTE_CARLO, "entropy"]
    worst = int(torch.where(run.test, unsure, -1.0).argmax())
    whole = len(run.y) <= WHOLE
    kept = torch.arange(len(run.y)) if whole else _surroundings(worst, table.edge_index)
    what = "Uncertain nodes" if whole else f"Around node {worst}, the most uncertain test node"
    figure = _figure(table, f"{what}: entropy of MC dropout's mean", 7.0, 6.2)
    axis = figure.subplots()
    graph = _networkx(kept, table.edge_index)
    places = _layout(graph)
    spots = np.array([places[node] for node in kept.tolist()])
    from matplotlib.collections import LineCollection

    lines = [(places[source], places[target]) for source, target in graph.edges]
    few = len(kept) <= 400
    axis.add_collection(
        LineCollection(lines, colors="#999999", linewidths=0.5 if few else 0.2, alpha=0.5, zorder=1)
    )
    wrong = (~run.correct(MONTE_CARLO) & run.test)[kept].numpy()
    size = min(max(6000 / len(kept), 10), 120)
    dots = axis.scatter(
        *spots.T,
        c=unsure[kept].numpy(),
        s=size,
        cmap="viridis_r",
        linewidths=0,
        zorder=2,
    )
    axis.scatter(
        *spots[wrong].T,
        s=1.8 * size,
        facecolors="none",
        edgecolors="#d00000",
        linewidths=0.9 if few else 0.4,
        label="test node that is wrong",
        zorder=3,
    )
    if not whole:
        axis.scatter(
            *np.array(places[worst])[:, None],
            s=4 * size,
            marker="s",
            facecolors="none",
            edgecolors="black",
            label=f"node {worst}",
            zorder=3,
        )
    figure.colorbar(dots, ax=axis, label="nats", shrink=0.7)
    axis.legend(fontsize=7, frameon=False, loc="lower left")
    axis.set_axis_off()
    return figure


def _surroundings(node: int, edge_index: Tensor) -> Tensor:
    """Return a node, its neighbours and theirs, the nearest 300 of them by number of hops."""
    found: dict[int, None] = {node: None}
    for hops in (1, 2):
        nodes = k_hop_subgraph(node, hops, edge_index)[0]
        found.update(dict.fromkeys(nodes.tolist()))
    return torch.tensor(list(found)[:SURROUNDINGS])


def _networkx(nodes: Tensor, edge_index: Tensor) -> "networkx.Graph[int]":
    import networkx

    graph: networkx.Graph[int] = networkx.Graph()
    graph.add_nodes_from(nodes.tolist())
    inside = torch.isin(edge_index, nodes).all(0) & (edge_index[0] != edge_index[1])
    graph.add_edges_from(edge_index[:, inside].t().tolist())
    return graph


def _layout(graph: "networkx.Graph[int]") -> Mapping[int, Any]:
    """Return where each node is drawn, the same every time; no global generator is used."""
    import networkx

    places: Mapping[int, Any] = networkx.spring_layout(graph, iterations=60, seed=0)
    return places
