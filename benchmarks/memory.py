"""The peak memory of a training step with message dropout, in a process of its own.

python -m benchmarks.memory "gnndrop" | "PyG's GCN" | "E x F" EDGES [profile]

The first takes the GCN of `gnndrop.models`, the others PyG's: with the operator attached, or with a
hook that drops entries of the messages that PyG forms. `profile` gives the peaks between the
outputs of the model's layers, and between their derivatives, in feature arrays above the graph and
the features.
"""

import ctypes
import json
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.speed import MASK, measure, random_graph
from gnndrop import attach
from gnndrop.kernels import aggregate
from gnndrop.models import GCN

CHANNELS = 128


def status(field: str) -> int:
    """Read a line of this process's status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise LookupError(field)


def forget_peak() -> None:
    """Let the peak of this process be what it takes now."""
    Path("/proc/self/clear_refs").write_text("5")


def note_peaks(model: nn.Module, features: float) -> dict[str, float]:
    """Note the peak up to each module's output and derivative, from now on."""
    peaks: dict[str, float] = {}
    before = status("VmRSS")

    def note(name: str) -> None:
        peaks[name] = (status("VmHWM") - before) / features
        forget_peak()

    def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
        name = f"{len(peaks)} {type(module).__name__}"
        note(f"{name}: output")
        output.register_hook(lambda gradient: note(f"{name}: derivative by its output"))

    for module in model.modules():
        if isinstance(module, pyg.GCNConv | nn.ReLU):
            module.register_forward_hook(hook)
    return peaks


def main() -> None:
    """Print one JSON document: bytes and seconds."""
    way, edges = sys.argv[1], int(sys.argv[2])
    warnings.filterwarnings("ignore", "Sparse")
    graph, matrix = random_graph(edges)
    if way != "gnndrop":
        del matrix
    x = torch.randn(graph.num_targets, CHANNELS, generator=torch.Generator().manual_seed(0))
    y = torch.randint(8, (graph.num_targets,), generator=torch.Generator().manual_seed(1))
    model: nn.Module = pyg.GCN(CHANNELS, CHANNELS, num_layers=2, out_channels=8)
    if way == "gnndrop":
        model = GCN(CHANNELS, CHANNELS, out_channels=8)
    if way == "E x F":
        plain.add_message_hooks(model)
    else:
        attach(model, "drop-message:p=0.5")
    found: dict[str, float] = {"features": x.numel() * x.element_size()}
    if way == "gnndrop" and edges > 10**7:
        with torch.no_grad():
            times = measure(
                {"plain": lambda: matrix @ x, "message": lambda: aggregate(graph, x, None, MASK)}, 3
            )
        found |= {name: one["median"] / 1000 for name, one in times.items()}
        del matrix

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(x, graph.edge_index), y).backward()

    if way != "E x F":
        step()  # prepares the model's graph, which belongs to the graph
        model.zero_grad()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed counts no more
    forget_peak()
    if "profile" in sys.argv:
        found = note_peaks(model, found["features"])
        step()
        print(json.dumps(found, indent=1))
        return
    before, started = status("VmRSS"), time.perf_counter()
    step()
    found["seconds"] = time.perf_counter() - started
    found["step"], found["total"] = status("VmHWM") - before, status("VmHWM")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
