"""Where an epoch of training on Cora goes, and a step's memory.

    python -m benchmarks.epoch [--epochs 300] [--data-root DIR] [--out FILE]

The medians of the parts of an epoch as `fit` runs it; for the GCN also that of an epoch written out
with the same functions of autograd, but without modules, hooks and checks, and those of the
operations without autograd, too: each in a loop of its own, where all that it reads is in the
caches, and all of them in turn, where it is not. The peaks of memory are those of
`benchmarks.memory ... profile`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from gnndrop import attach
from gnndrop.datasets import load
from gnndrop.graph import Graph, csr_pattern
from gnndrop.inputs import prepare_inputs
from gnndrop.kernels import convolve, cpu
from gnndrop.masks import Mask
from gnndrop.metrics import accuracy
from gnndrop.models import GAT, GCN
from gnndrop.optimizer import Adam
from gnndrop.propagation import accelerate
from gnndrop.study.provenance import environment
from gnndrop.training import training_switch

MASK = Mask(key=1, p=0.5, scale=2.0)
Microseconds = dict[str, float]
Operations = dict[str, tuple[int, Callable[[], Any]]]


def parts(model: nn.Module, data: Data, epochs: int) -> Microseconds:
    """Time the parts of an epoch, in order."""
    inputs = prepare_inputs(model, data)
    train, validation = (mask.nonzero()[:, 0] for mask in (data.train_mask, data.val_mask))
    optimizer = Adam([(list(model.parameters()), 5e-4)], 0.01)
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, function: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = function()
        seconds[name].append(time.perf_counter() - started)
        return result

    def loss_of(logits: Tensor, nodes: Tensor) -> Tensor:
        loss = F.cross_entropy(logits.index_select(0, nodes), data.y[nodes])
        loss.item()
        return loss

    def evaluate() -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(*inputs)
            return logits

    def score(logits: Tensor) -> float:
        return accuracy(logits.index_select(0, validation), data.y[validation])

    def forget() -> None:
        for parameter in model.parameters():
            parameter.grad = None

    switch = training_switch(model)
    with accelerate(model):
        for _ in range(epochs):
            timed("flags, gradients", lambda: (switch(True), forget()))
            logits = timed("forward", lambda: model(*inputs))
            loss = timed("loss", lambda logits=logits: loss_of(logits, train))
            timed("backward", loss.backward)
            timed("Adam", optimizer.step)
            timed("flags of evaluation", lambda: switch(False))
            logits = timed("forward in evaluation", evaluate)
            timed("score", lambda logits=logits: score(logits))
    return {name: 1e6 * statistics.median(values) for name, values in seconds.items()}


def by_hand(data: Data, epochs: int) -> float:
    """Time the epochs of a GCN written out: the same functions, but no modules, hooks or checks."""
    x, edge_index = prepare_inputs(GCN(data.num_features, 64, 7), data)
    pattern, nodes = csr_pattern(x.crow_indices(), x.col_indices(), x.size(1)), x.size(0)
    looped, factors = gcn_norm(edge_index, None, nodes)
    graph, y = Graph(looped, nodes, nodes), data.y
    train, validation = (mask.nonzero()[:, 0] for mask in (data.train_mask, data.val_mask))
    first = (torch.randn(x.size(1), 64) / 10).t().requires_grad_()
    second = (torch.randn(7, 64) / 10).requires_grad_()
    biases = [torch.zeros(width, requires_grad=True) for width in (64, 7)]
    parameters = [first, second, *biases]
    optimizer, milliseconds = Adam([(parameters, 5e-4)], 0.01), []

    def logits(number: int | None) -> Tensor:
        masks: list[Mask | None] = [None, None]
        if number is not None:
            masks = [Mask(key=2 * number + layer, p=0.5, scale=2.0) for layer in range(2)]
        hidden = convolve(
            graph,
            x.values(),
            first,
            biases[0],
            factors=factors,
            pattern=pattern,
            feature_mask=masks[0],
        ).relu_()
        return convolve(graph, hidden, second, biases[1], factors=factors, feature_mask=masks[1])

    for number in range(epochs):
        started = time.perf_counter()
        for parameter in parameters:
            parameter.grad = None
        loss = F.cross_entropy(logits(number).index_select(0, train), y[train])
        loss.item()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            accuracy(logits(None).index_select(0, validation), y[validation])
        milliseconds.append(1000 * (time.perf_counter() - started))
    return statistics.median(milliseconds)


def operations(data: Data) -> Operations:
    """Return the operations of a GCN's epoch, with how often each is called."""
    x, edge_index = prepare_inputs(GCN(data.num_features, 64, 7), data)
    nodes, values = x.size(0), x.values()
    words = csr_pattern(x.crow_indices(), x.col_indices(), x.size(1))
    looped, factors = gcn_norm(edge_index, None, nodes)
    graph, weight = Graph(looped, nodes, nodes), factors[:, None]
    first, second = torch.randn(x.size(1), 64), torch.randn(64, 7)
    hidden, logits = torch.randn(nodes, 64), torch.randn(nodes, 7)
    dropped = cpu.multiply_csr(x.crow_indices(), x.col_indices(), values, MASK)[:, None]
    return {
        "mask of the features": (
            1,
            lambda: cpu.multiply_csr(x.crow_indices(), x.col_indices(), values, MASK),
        ),
        "features times weights": (
            2,
            lambda: cpu.aggregate(words.by_target, first, dropped, None, None),
        ),
        "its derivative": (1, lambda: cpu.aggregate(words.by_source, hidden, dropped, None, None)),
        "aggregation of 64 channels": (
            3,
            lambda: cpu.aggregate(graph.by_target, hidden, weight, None, None),
        ),
        "aggregation of 7 channels": (
            3,
            lambda: cpu.aggregate(graph.by_target, logits, weight, None, None),
        ),
        "bias and ReLU": (2, lambda: hidden.add(0.1).relu_()),
        "derivative of the ReLU": (
            1,
            lambda: torch.ops.aten.threshold_backward(hidden, hidden, 0),
        ),
        "mask of the hidden layer": (2, lambda: cpu.multiply(hidden, None, MASK)),
        "hidden layer times weights": (2, lambda: hidden @ second),
        "its derivatives": (1, lambda: (hidden.t() @ logits, logits @ second.t())),
    }


def alone(ways: Operations, repeats: int) -> Microseconds:
    """Time each operation in a loop of its own."""
    return {
        f"{calls} x {name}": 1e6 * calls * statistics.median(_seconds(way) for _ in range(repeats))
        for name, (calls, way) in ways.items()
    }


def in_turn(ways: Operations, repeats: int) -> Microseconds:
    """Time the operations one after the other."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for name, (calls, way) in ways.items():
            seconds[f"{calls} x {name}"].append(sum(_seconds(way) for _ in range(calls)))
    return {name: 1e6 * statistics.median(values) for name, values in seconds.items()}


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def memory(way: str) -> dict[str, float]:
    """Return the peaks of memory in a step at 4 M edges, in feature arrays."""
    command = [sys.executable, "-m", "benchmarks.memory", way, "4000000", "profile"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    peaks: dict[str, float] = json.loads(printed)
    return peaks


def main() -> None:
    """Measure and print, and write a JSON document where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = load("cora", root=options.data_root).data
    gcn, gat = GCN(data.num_features, 64, 7), GAT(data.num_features, 64, 7)
    attach(gcn, "dropout")
    for spec in ("dropout:p=0.6", "drop-attention:p=0.6"):
        attach(gat, spec)
    ways = operations(data)
    found = {
        "GCN, an epoch": parts(gcn, data, options.epochs),
        "GCN, its operations in turn": in_turn(ways, options.epochs),
        "GCN, its operations alone": alone(ways, options.epochs),
        "GAT, an epoch": parts(gat, data, options.epochs),
    }
    epochs = {
        "as fit runs it": 1e-3 * sum(found["GCN, an epoch"].values()),
        "written out": by_hand(data, options.epochs),
    }
    print(epochs)
    for name, times in found.items():
        print(f"{name}: {sum(times.values()):.0f} microseconds")
        for part, microseconds in times.items():
            print(f"    {part:32s} {microseconds:8.0f}")
    if options.out:
        document = {
            "command": "python -m benchmarks.epoch " + " ".join(sys.argv[1:]),
            "threads": torch.get_num_threads(),
            "environment": environment(),
            "microseconds": found,
            "milliseconds of an epoch of GCN": epochs,
            "peaks of memory, in feature arrays": {
                way: memory(way) for way in ("gnndrop", "PyG's GCN")
            },
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
