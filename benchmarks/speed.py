"""How long training takes with dropout: gnndrop against PyG as a user writes it, in one run.

    python benchmarks/speed.py [--repeats 3] [--epochs 200] [--seeds 10] [--threads N]
        [--data-root DIR] [--out FILE]

GCN-64 on Cora's public split, dropout .5 on the input and on the hidden layer, Adam, validation
after every epoch, no early stop. The two loops take turns in one process; the median ratio of the
pairs is the result. Then the accuracy of gnndrop's loop over several seeds.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from gnndrop import TrainConfig, attach, fit
from gnndrop.datasets import load
from gnndrop.models import GCN
from gnndrop.study.provenance import environment


class PlainGCN(torch.nn.Module):
    """The two-layer GCN of PyG's own example."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = GCNConv(in_channels, 64)
        self.conv2 = GCNConv(64, out_channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return logits."""
        x = F.dropout(x, p=0.5, training=self.training)
        x = self.conv1(x, edge_index).relu()
        x = F.dropout(x, p=0.5, training=self.training)
        return self.conv2(x, edge_index)


def plain(data: Data, epochs: int, seed: int) -> float:
    """Train as PyG's example does; return the test accuracy at the best validation epoch."""
    torch.manual_seed(seed)
    model = PlainGCN(data.num_features, int(data.y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    x = data.x / data.x.sum(1, keepdim=True).clamp(min=1)
    best = test = 0.0
    for _ in range(epochs):
        model.train()
        optimizer.zero_grad()
        out = model(x, data.edge_index)
        F.cross_entropy(out[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            correct = model(x, data.edge_index).argmax(1) == data.y
        validation = float(correct[data.val_mask].float().mean())
        if validation > best:
            best, test = validation, float(correct[data.test_mask].float().mean())
    return test


def ours(data: Data, epochs: int, seed: int) -> float:
    """Train the same by `gnndrop.fit`; return the test accuracy."""
    torch.manual_seed(seed)
    model = GCN(data.num_features, 64, int(data.y.max()) + 1)
    attach(model, "dropout:p=0.5")
    return fit(model, data, TrainConfig(epochs=epochs, patience=0)).test


def main() -> None:
    """Measure and print, and write a JSON document where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data-root", default=None)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load("cora", root=arguments.data_root).data
    ours(data, 2, 0)  # compiles the kernels
    rows = []
    for repeat in range(arguments.repeats):
        seconds = []
        for loop in (plain, ours):
            started = time.perf_counter()
            loop(data, arguments.epochs, repeat)
            seconds.append(time.perf_counter() - started)
        rows.append({"plain": seconds[0], "gnndrop": seconds[1], "ratio": seconds[0] / seconds[1]})
        print(f"PyG {seconds[0]:6.2f} s   gnndrop {seconds[1]:5.2f} s   {rows[-1]['ratio']:5.1f} x")
    ratio = statistics.median(row["ratio"] for row in rows)
    scores = [ours(data, arguments.epochs, seed) for seed in range(arguments.seeds)]
    mean, std = statistics.mean(scores), statistics.stdev(scores)
    print(f"median ratio {ratio:.1f} x; accuracy {mean:.4f} +- {std:.4f} over {len(scores)} seeds")
    if arguments.out:
        document = {
            "command": f"python benchmarks/speed.py --repeats {arguments.repeats} "
            f"--epochs {arguments.epochs} --seeds {arguments.seeds} --threads {arguments.threads}",
            "environment": environment(),
            "rows": rows,
            "median_ratio": ratio,
            "accuracy": {"mean": mean, "std": std, "scores": scores},
        }
        arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
