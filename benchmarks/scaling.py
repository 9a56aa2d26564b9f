"""Cost against the number of edges and of channels, the plain product as the floor.

    python -m benchmarks.scaling [--repeats 5] [--out benchmarks/results/scaling]

Writes `OUT.json` and `OUT.svg`.
"""

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks import plain
from benchmarks.speed import MASK, measure, normalized, random_graph
from gnndrop.kernels import aggregate
from gnndrop.study.provenance import environment

EDGES = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000]
CHANNELS = [8, 16, 32, 64, 128, 256]
LARGEST_FORMED = 100_000_000  # entries of an E x F array


def point(edges: int, channels: int, repeats: int) -> dict[str, Any]:
    """Measure all ways at one size, in milliseconds."""
    graph, matrix = random_graph(edges)
    x = torch.randn(graph.num_targets, channels, generator=torch.Generator().manual_seed(1))
    ways = {
        "plain product (torch)": lambda: matrix @ x,
        "message dropout": lambda: aggregate(graph, x, None, MASK),
        "edge dropout, renormalized": lambda: normalized(graph, x),
    }
    if edges * channels <= LARGEST_FORMED:
        ways["message dropout, E x F"] = lambda: plain.message_dropout(
            x, graph.edge_index, graph.num_targets
        )
    return {"edges": edges, "channels": channels, "milliseconds": measure(ways, repeats)}


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Draw both curves on logarithmic axes."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, axis, fixed in (
        (panels[0], "edges", ("channels", 64)),
        (panels[1], "channels", ("edges", 1_000_000)),
    ):
        chosen = [one for one in points if one[fixed[0]] == fixed[1]]
        chosen.sort(key=lambda one: one[axis])
        for way in chosen[0]["milliseconds"]:
            found = [one for one in chosen if way in one["milliseconds"]]
            panel.loglog(
                [one[axis] for one in found],
                [one["milliseconds"][way]["median"] for one in found],
                marker="o",
                label=way,
                color="black" if way.startswith("plain") else None,
            )
        panel.set(xlabel=axis, title=f"{fixed[1]:,} {fixed[0]}")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds, forward")
    panels[0].legend(frameon=False, fontsize="small")
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Sparse")  # torch calls its CSR layout beta
    sizes = dict.fromkeys([(edges, 64) for edges in EDGES] + [(1_000_000, c) for c in CHANNELS])
    points = [point(edges, channels, options.repeats) for edges, channels in sizes]
    document = {
        "command": "python -m benchmarks.scaling " + " ".join(sys.argv[1:]),
        "environment": environment(),
        "points": points,
    }
    options.out.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    draw(points, options.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
