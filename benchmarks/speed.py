"""What dropout costs: gnndrop, PyG as a user writes it, and the same without any dropout.

    python -m benchmarks.speed [ROW ...] [--repeats 7] [--seeds 10] [--threads N]
        [--data-root DIR] [--out FILE]

Every ROW has a process of its own. All ways of one take turns in it, after each has run; a turn
fills 10 ms at least. The medians and the minima are reported, and a bar is held against the ratio
of medians. What is timed is checked on the timed inputs: masked results against the torch reference
with the same mask, accuracy over several seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.models import GCN as PygGCN

from benchmarks import plain
from gnndrop import TrainConfig, attach, fit
from gnndrop.datasets import load
from gnndrop.graph import Graph
from gnndrop.inputs import prepare_inputs
from gnndrop.kernels import (
    Kept,
    aggregate,
    aggregate_kept,
    masked_multiply,
    masked_multiply_sparse,
    reference,
)
from gnndrop.masks import Mask, stream_key
from gnndrop.models import GAT, GCN
from gnndrop.study.provenance import environment
from gnndrop.uncertainty import mc_predict

MASK = Mask(stream_key(0, "benchmark"), 0.5, scale=2.0)
EDGE_MASK = Mask(stream_key(0, "benchmark"), 0.5, by_column=False)
DEGREE = 20  # edges of a random graph for each of its nodes


@dataclass
class Row:
    """One line of the table.

    Args:
        name: what is computed.
        ratio_is: which two numbers are divided.
        bar: the bound on `ratio`.
        ratio: what was measured; good at or below the bar, unless `higher`.
        higher: whether the ratio must be at least the bar.
        milliseconds: medians and minima by way.
        checks: what was verified.
    """

    name: str
    ratio_is: str
    bar: float
    ratio: float
    higher: bool = False
    milliseconds: dict[str, dict[str, float]] = field(default_factory=dict)
    checks: str = ""

    @property
    def passed(self) -> bool:
        """Whether the bar is reached."""
        return self.ratio >= self.bar if self.higher else self.ratio <= self.bar


Ways = dict[str, Callable[[], Any]]


def measure(ways: Ways, repeats: int) -> dict[str, dict[str, float]]:
    """Time every way in turn, in milliseconds a call; one turn is as many calls as fill 10 ms."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    calls = dict.fromkeys(ways, 1)
    for name, way in ways.items():
        started = time.perf_counter()
        way()  # compiles, prepares the graph
        if (first := time.perf_counter() - started) < 1:
            way()
            calls[name] = max(1, round(0.01 / (time.perf_counter() - started - first)))
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            for _ in range(calls[name]):
                way()
            seconds[name].append((time.perf_counter() - started) / calls[name])
    return {
        name: {"median": 1000 * statistics.median(times), "min": 1000 * min(times)}
        for name, times in seconds.items()
    }


def random_graph(edges: int) -> tuple[Graph, Tensor]:
    """Return a random directed graph sorted by target, and its matrix in torch's CSR layout."""
    nodes = edges // DEGREE
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(nodes, (2, edges), generator=generator)
    edge_index = ends[:, torch.argsort(ends[1] * nodes + ends[0])]
    graph = Graph(edge_index, nodes, nodes)
    graph.places(symmetric=False), graph.places(symmetric=False, transposed=True)
    rows = graph.by_target
    matrix = torch.sparse_csr_tensor(rows.pointer, rows.other, torch.ones(edges), (nodes, nodes))
    return graph, matrix


def normalized(graph: Graph, x: Tensor) -> Tensor:
    """Drop edges and normalize what is left, as GCN does."""
    kept = Kept(graph, EDGE_MASK, protect_self_loops=True)
    scale = kept.inverse_degree(is_root=True)
    return aggregate_kept(kept, x, scale, scale)


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    """Equal up to float32 rounding of sums of a few dozen numbers near one."""
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def feature_dropout_dense(options: argparse.Namespace) -> list[Row]:
    """Dense features of Cora's size."""
    x, out = torch.rand(2708, 1433), torch.empty(2708, 1433)
    assert torch.equal(masked_multiply(x, MASK), reference.multiply(x, None, MASK))
    times = measure(
        {
            "copy": lambda: out.copy_(x),
            "gnndrop": lambda: masked_multiply(x, MASK),
            "F.dropout": lambda: F.dropout(x, 0.5),
        },
        10 * options.repeats,
    )
    return [_row("feature dropout, dense 2708 x 1433", "copy", 2.5, times, "equal to the bit")]


def feature_dropout_sparse(options: argparse.Namespace) -> list[Row]:
    """The stored entries of Cora's features, against dropout of the dense array."""
    data = load("cora", root=options.data_root).data
    (x, _), dense = prepare_inputs(GCN(1433, 64, 7), data), data.x
    expected = reference.multiply(x.to_dense(), None, MASK)
    assert torch.equal(masked_multiply_sparse(x, MASK).to_dense(), expected)
    times = measure(
        {
            "F.dropout": lambda: F.dropout(dense, 0.5),
            "gnndrop": lambda: masked_multiply_sparse(x, MASK),
        },
        10 * options.repeats,
    )
    name = "feature dropout, Cora's features sparse"
    return [_row(name, "F.dropout", 100, times, "equal to the bit", faster=True)]


def message_dropout(options: argparse.Namespace) -> list[Row]:
    """Message and edge dropout against torch's plain product, forward and with derivatives."""
    rows = []
    for edges, channels in ((1_000_000, 64), (4_000_000, 128)):
        graph, matrix = random_graph(edges)
        nodes, size = graph.num_targets, f"{edges // 10**6} M edges x {channels}"
        x = torch.randn(nodes, channels, generator=torch.Generator().manual_seed(1))
        expected = reference.aggregate(graph.by_target, x, None, graph.places(False), MASK)
        assert_equal(aggregate(graph, x, None, MASK), expected)
        del expected
        forward = measure(
            {
                "plain": lambda x=x, matrix=matrix: matrix @ x,
                "message": lambda x=x, graph=graph: aggregate(graph, x, None, MASK),
                "edge": lambda x=x, graph=graph: normalized(graph, x),
            },
            options.repeats,
        )
        formed = measure(
            {"E x F": lambda x=x, g=graph: plain.message_dropout(x, g.edge_index, g.num_targets)},
            max(options.repeats // 3, 1),
        )
        checks = "equal to the reference with the same mask"
        name = f"message dropout forward, {size}"
        times = {"plain": forward["plain"], "gnndrop": forward["message"], **formed}
        rows.append(_row(name, "plain", 1.5, times, checks))
        rows.append(_row(name, "E x F", 50, times, checks, faster=True))
        kept = reference.list_kept(
            graph.by_target, graph.places(False), EDGE_MASK, True, None, x.dtype
        )[0]
        degree = reference.inverse_degrees(kept, None, True, x.dtype)[:, None]
        assert_equal(
            normalized(graph, x), degree * reference.aggregate(kept, degree * x, None, None, None)
        )
        times = {"plain": forward["plain"], "gnndrop": forward["edge"]}
        name = f"edge dropout, degrees of the kept graph, {size}"
        rows.append(_row(name, "plain", 1.0, times, checks))
        rows.append(_derivatives(graph, matrix, x, size, options))
    return rows


def _derivatives(
    graph: Graph, matrix: Tensor, x: Tensor, size: str, options: argparse.Namespace
) -> Row:
    gradient, transpose = torch.ones_like(x), matrix.t().to_sparse_csr()

    def both(function: Callable[[Tensor], Tensor]) -> Tensor:
        inputs = x.clone().requires_grad_()
        function(inputs).backward(gradient)
        assert inputs.grad is not None
        return inputs.grad

    def ours(x: Tensor) -> Tensor:
        return aggregate(graph, x, None, MASK)

    places = graph.places(symmetric=False, transposed=True)
    expected = reference.aggregate(graph.by_source, gradient, None, places, MASK)
    assert_equal(both(ours), expected)
    del expected
    times = measure(
        {
            "plain": lambda: both(lambda x: plain.Product.apply(x, matrix, transpose)),
            "plain by autograd": lambda: both(lambda x: matrix @ x),
            "gnndrop": lambda: both(ours),
        },
        options.repeats,
    )
    name = f"message dropout forward and backward, {size}"
    return _row(name, "plain", 1.6, times, "derivative equal to the reference")


def training(options: argparse.Namespace) -> list[Row]:
    """200 epochs with validation on Cora's public split, no early stop."""
    return [_training("GCN", 25, options), _training("GAT", 8, options)]


def _training(kind: str, bar: float, options: argparse.Namespace) -> Row:
    data = load("cora", root=options.data_root).data
    sizes = data.num_features, int(data.y.max()) + 1
    scores: dict[str, list[float]] = {"gnndrop": [], "PyG": []}

    def ours() -> None:
        torch.manual_seed(len(scores["gnndrop"]))
        model = (GCN if kind == "GCN" else GAT)(sizes[0], 64, sizes[1])
        for spec in ["dropout"] if kind == "GCN" else ["dropout:p=0.6", "drop-attention:p=0.6"]:
            attach(model, spec)
        scores["gnndrop"].append(fit(model, data, TrainConfig(epochs=200, patience=0)).test)

    def theirs() -> None:
        torch.manual_seed(len(scores["PyG"]))
        model = (plain.PlainGCN if kind == "GCN" else plain.PlainGAT)(*sizes)
        scores["PyG"].append(plain.train(model, data, 200))

    times = measure({"PyG": theirs, "gnndrop": ours}, max(options.repeats // 2, 1))
    for way, run in (("gnndrop", ours), ("PyG", theirs)):
        while len(scores[way]) < options.seeds:
            run()
    checks = "; ".join(
        f"accuracy of {way} {100 * statistics.mean(values):.1f} +- "
        f"{100 * statistics.stdev(values):.1f} over {len(values)} seeds"
        for way, values in scores.items()
    )
    return _row(f"{kind} on Cora, 200 epochs", "PyG", bar, times, checks, faster=True)


def attached(options: argparse.Namespace) -> list[Row]:
    """A training step of PyG's own GCN with attached message dropout."""
    edges, channels = 1_000_000, 64
    graph, _ = random_graph(edges)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(graph.num_targets, channels, generator=generator)
    y = torch.randint(8, (graph.num_targets,), generator=generator)
    models = {way: PygGCN(channels, channels, 2, 8) for way in ("no dropout", "hook", "gnndrop")}
    plain.add_message_hooks(models["hook"])
    attach(models["gnndrop"], "drop-message:p=0.5")

    def step(way: str) -> None:
        models[way].zero_grad()
        F.cross_entropy(models[way](x, graph.edge_index), y).backward()

    times = measure({way: lambda way=way: step(way) for way in models}, options.repeats)
    name = "attach(PyG's GCN, drop-message), a step at 1 M edges x 64"
    return [_row(name, "hook", 20, times, "tested in tests/test_propagation.py", faster=True)]


def memory(options: argparse.Namespace) -> list[Row]:
    """Peak memory of training steps, above what the graph and the features take."""
    rows = []
    for edges, bar in ((4_000_000, 3.0), (20_000_000, 12.0)):
        found = {
            way: json.loads(
                subprocess.run(
                    [sys.executable, "-m", "benchmarks.memory", way, str(edges)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for way in (("gnndrop", "PyG's GCN", "E x F") if edges < 10**7 else ("gnndrop",))
        }
        ours, size = (
            found["gnndrop"],
            f"{edges // DEGREE // 1000} k nodes, {edges // 10**6} M edges",
        )
        features = ours["features"]
        checks = "; ".join(
            f"{way} {one['step'] / features:.1f} x the features, {one['total'] / 2**30:.1f} GiB "
            f"in all, {one['seconds']:.1f} s a step"
            for way, one in found.items()
        )
        if edges < 10**7:
            ratio, ratio_is = ours["step"] / features, "above the graph / the feature array"
        else:
            ratio, ratio_is = ours["total"] / 2**30, "GiB in all"
        rows.append(
            Row(
                f"step of gnndrop's GCN with message dropout, {size} x 128",
                ratio_is,
                bar,
                ratio,
                checks=checks,
            )
        )
        if edges > 10**7:
            times = {
                "plain": {"median": 1000 * ours["plain"], "min": 1000 * ours["plain"]},
                "gnndrop": {"median": 1000 * ours["message"], "min": 1000 * ours["message"]},
            }
            rows.append(_row(f"its aggregation, {size} x 128", "plain", 1.6, times, ""))
    return rows


SAMPLES = 100


def sampling(options: argparse.Namespace) -> list[Row]:
    """Monte-Carlo dropout against the loop that a user writes, on Cora."""
    data = load("cora", root=options.data_root).data
    sizes = data.num_features, int(data.y.max()) + 1
    gcn, gat = GCN(sizes[0], 64, sizes[1]), GAT(sizes[0], 64, sizes[1])
    attach(gcn, "dropout")
    for spec in ("dropout:p=0.6", "drop-attention:p=0.6"):
        attach(gat, spec)
    unmodified = PygGCN(sizes[0], 64, 2, sizes[1], dropout=0.5)
    pairs: list[tuple[str, float, nn.Module, nn.Module]] = [
        ("GCN-64", 80, plain.PlainGCN(*sizes), gcn),
        ("GAT 8 x 8", 15, plain.PlainGAT(*sizes), gat),
        ("PyG's GCN, unmodified", 3, unmodified, unmodified),
        *((f"{name}, unmodified", 1, one, one) for name, one in plain.models(*sizes).items()),
    ]
    rows = []
    for name, bar, theirs, ours in pairs:
        times = measure(
            {
                "loop": lambda m=theirs: plain.sample(m, data, SAMPLES),
                "gnndrop": lambda m=ours: mc_predict(
                    m, data.x, data.edge_index, samples=SAMPLES, progress=False
                ),
            },
            max(options.repeats // 2, 1),
        )
        checks = _agreement(ours, data)
        rows.append(_row(f"{name}, {SAMPLES} samples", "loop", bar, times, checks, faster=True))
    return rows


def _agreement(model: nn.Module, data: Data) -> str:
    """Compare the mean with that of a loop over the same model, in standard errors."""
    prediction = mc_predict(model, data.x, data.edge_index, samples=SAMPLES, seed=1)
    mean, std = plain.sample(model, data, SAMPLES)
    error = (prediction.std.square() + std.double().square()).div(SAMPLES).sqrt().clamp(min=1e-9)
    z = (prediction.mean - mean) / error
    return (
        f"root mean square distance of the means in standard errors {z.square().mean().sqrt():.2f}"
    )


def default_compare(options: argparse.Namespace) -> list[Row]:
    """The default run of the command."""
    started = time.perf_counter()
    subprocess.run(
        [Path(sys.executable).parent / "gnndrop", "compare"], check=True, capture_output=True
    )
    seconds = time.perf_counter() - started
    return [Row("gnndrop compare, the default run", "seconds", 60, seconds)]


ROWS: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
    "dense": feature_dropout_dense,
    "sparse": feature_dropout_sparse,
    "messages": message_dropout,
    "attach": attached,
    "training": training,
    "memory": memory,
    "sampling": sampling,
    "compare": default_compare,
}


def _row(
    name: str,
    against: str,
    bar: float,
    times: dict[str, dict[str, float]],
    checks: str,
    faster: bool = False,
) -> Row:
    ratio = times["gnndrop"]["median"] / times[against]["median"]
    if faster:
        return Row(name, f"{against} / gnndrop", bar, 1 / ratio, True, times, checks)
    return Row(name, f"gnndrop / {against}", bar, ratio, False, times, checks)


def main() -> None:
    """Measure and print, and write a JSON document where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"any of {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", "Sparse")  # torch calls its CSR layout beta
    names, measured = options.rows or list(ROWS), []
    for name in names:
        measured += measure_row(name, options) if len(names) == 1 else in_own_process(name, options)
        if options.out:  # after every row: a failure later on loses nothing
            document = {
                "command": "python -m benchmarks.speed " + " ".join(sys.argv[1:]),
                "environment": environment(),
                "rows": measured,
            }
            options.out.write_text(json.dumps(document, indent=1) + "\n")


def measure_row(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print."""
    measured = []
    for row in ROWS[name](options):
        measured.append({**asdict(row), "passed": row.passed})
        sign, verdict = (">=" if row.higher else "<="), ("" if row.passed else "   MISSED")
        print(f"{row.name:62s} {row.ratio_is}: {row.ratio:.2f} ({sign} {row.bar:g}){verdict}")
        for way, times in row.milliseconds.items():
            print(f"    {way:20s} {times['median']:10.2f} ms, minimum {times['min']:10.2f}")
        print(f"    {row.checks}", flush=True)
    return measured


def in_own_process(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure as `measure_row`, but not in the memory that another row left behind."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "benchmarks.speed", name, "--out", str(out)]
        for setting in ("repeats", "seeds", "threads", "data_root"):
            if getattr(options, setting) is not None:
                command += [f"--{setting.replace('_', '-')}", str(getattr(options, setting))]
        subprocess.run(command, check=True)
        rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    return rows


if __name__ == "__main__":
    main()
