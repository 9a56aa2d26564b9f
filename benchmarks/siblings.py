"""What every operator costs beside its nearest sibling, in a training step of a model.

    python -m benchmarks.siblings [SPEC ...] [--repeats 21] [--threads N] [--out FILE]

A step is forward and backward of a GCN (a GAT for attention) of 16, 64 and 64 channels with a
shortcut, and the operator attached at a rate of 0.5. The operators and their variants come from
the registry; the sibling is the oldest operator at the same site, or what the site multiplies. All
of them take turns on one graph, after each has run once, which prepares the graph; ratios are of
medians. What an operator costs above no dropout is in the JSON document: the step without any is
among the times.
"""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.utils import remove_self_loops, to_undirected

from benchmarks.speed import measure
from gnndrop import attach
from gnndrop.models import GAT, GCN
from gnndrop.operators import OPERATORS, make_operator
from gnndrop.propagation import accelerate
from gnndrop.study.provenance import environment

BAR = 2.0
SIBLINGS = {  # of a site
    "features": "dropout",
    "weights": "dropout",
    "paths": "dropout",
    "edges": "drop-edge",
    "messages": "drop-message",
    "attention": "drop-attention",
}
GRAPHS = {"200 k edges": (20_000, 200_000), "Cora's size": (2708, 10_556)}
TEMPERATURE = 0.3  # no default, and no reciprocal of a whole number


def variants(name: str) -> list[str]:
    """Return the specs of an operator: by default, and with the options that cost differently."""
    operator, options = OPERATORS[name], OPERATORS.options(name)
    presets = [f"{name}:preset={preset}" for preset in operator.presets]
    relaxed = [f"{name}:temperature={TEMPERATURE}"] if "temperature" in options else []
    scales = operator.rescales[1:] if operator.site == "edges" else ()
    return [name, *presets, *relaxed, *(f"{name}:rescale={scale}" for scale in scales)]


def random_graph(nodes: int, edges: int) -> Tensor:
    """Return the edge_index of a random graph, undirected and simple, hence of a few edges less."""
    ends = torch.randint(nodes, (2, edges // 2), generator=torch.Generator().manual_seed(0))
    edge_index: Tensor = to_undirected(remove_self_loops(ends)[0])
    return edge_index


def compare(specs: list[str], sibling: str, size: tuple[int, int], repeats: int) -> list[dict]:
    """Time the operators of one site, their sibling and no operator at all in turns."""
    x = torch.randn(size[0], 16, generator=torch.Generator().manual_seed(1))
    edge_index = random_graph(*size)
    kind = GAT if sibling == "drop-attention" else GCN
    models = {}
    for spec in dict.fromkeys(("none", sibling, *specs)):
        models[spec] = kind(16, 64, 64, num_layers=2, residual=True)
        attach(models[spec], spec)

    def step(spec: str) -> None:
        models[spec].zero_grad()
        models[spec](x, edge_index).square().mean().backward()

    with ExitStack() as stack:
        for model in models.values():
            stack.enter_context(accelerate(model))  # as `fit` does
        times = measure({spec: lambda spec=spec: step(spec) for spec in models}, repeats)
    return [
        {
            "operator": spec,
            "sibling": sibling,
            "ratio": times[spec]["median"] / times[sibling]["median"],
            "milliseconds": {way: times[way] for way in (spec, sibling, "none")},
        }
        for spec in specs
    ]


def main() -> None:
    """Measure and print, and write a JSON document where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("specs", nargs="*", metavar="SPEC", help="by default every operator")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    known = [spec for name in OPERATORS for spec in variants(name)]
    rows = []
    for graph, size in GRAPHS.items():
        print(f"{graph}: forward and backward")
        for site, sibling in SIBLINGS.items():
            specs = [
                spec
                for spec in options.specs or known
                if make_operator(spec).site == site and spec != sibling
            ]
            for row in compare(specs, sibling, size, options.repeats) if specs else ():
                row |= {"graph": graph, "bar": BAR, "passed": row["ratio"] <= BAR}
                rows.append(row)
                median = row["milliseconds"][row["operator"]]["median"]
                print(
                    f"    {row['operator']:38s} {sibling:15s} {median:8.2f} ms "
                    f"{row['ratio']:6.2f}   {'OK' if row['passed'] else 'MISSED'}",
                    flush=True,
                )
        if options.out:  # after every graph: a failure later on loses nothing
            document = {
                "command": "python -m benchmarks.siblings " + " ".join(sys.argv[1:]),
                "threads": options.threads,
                "environment": environment(),
                "rows": rows,
            }
            options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
