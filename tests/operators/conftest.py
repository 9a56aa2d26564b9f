"""An independent reference: masks in plain integers, a GCN in dense matrices."""

import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

WORD, HALF = 2**64 - 1, 2**32 - 1
GOLDEN = 0x9E3779B97F4A7C15


def finalize(z: int) -> int:
    """Apply splitmix64's finalizer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


class Coins:
    """The coins of one mask: `coins(row, column)` says whether they keep.

    Args:
        name: the operator's name.
        p: its rate.
        seed: of the forward pass.
        layer: the layer's place in the model.
        call: the number of earlier calls of the layer.
    """

    def __init__(self, name: str, p: float, seed: int, layer: int = 0, call: int = 0) -> None:
        self.key, self.threshold = 0, round(p * 2**32)
        for value in (seed & WORD, zlib.crc32(name.encode()), layer, call):
            self.key = finalize(((self.key + GOLDEN) & WORD) ^ value)

    def __call__(self, row: int, column: int | None = None) -> bool:
        key = finalize((row & WORD) ^ ((self.key + GOLDEN) & WORD))
        if column is None:
            return key >> 32 >= self.threshold
        word = (column + 1) * 0x9E3779B9 & HALF
        for bits, multiplier in ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB)):
            word = (word ^ word >> bits) * multiplier & HALF
        word ^= word >> 14
        return ((key & HALF ^ word) * (key >> 32 | 1)) & HALF >= self.threshold

    def edge(self, edge_index: Tensor, edge: int, symmetric: bool, *column: int) -> bool:
        """Toss the coin of an edge: of its ends, and how many equal edges stand before it."""
        pairs = [tuple(pair) for pair in edge_index.T.tolist()]
        source, target = pairs[edge]
        occurrence = pairs[:edge].count((source, target))
        first, second = sorted((source, target)) if symmetric else (source, target)
        row = finalize((first << 32) ^ second) + occurrence * GOLDEN
        return self(row, *column)


class DenseGCN:
    """PyG's GCN of two layers, in matrices.

    Args:
        model: whose parameters to take.
    """

    def __init__(self, model: nn.Module) -> None:
        self.layers = [(conv.lin.weight.detach(), conv.bias.detach()) for conv in model.convs]

    def __call__(
        self,
        x: Tensor,
        adjacency: Callable[[int], Tensor],
        mask: Callable[[int, Tensor], Tensor] = lambda layer, x: x,
    ) -> Tensor:
        """Return the logits; an adjacency is (N, N), or (N, N, C) with one for each channel."""
        for number, (weight, bias) in enumerate(self.layers):
            x = x.relu() if number else x
            x = mask(number, x) @ weight.T
            matrix = adjacency(number)
            matrix = matrix[:, :, None] if matrix.dim() == 2 else matrix
            x = (matrix * x[None]).sum(1) + bias
        return x

    @staticmethod
    def normalized(matrix: Tensor) -> Tensor:
        """Return D^-1/2 (A + I) D^-1/2; a self-loop that is there already stays as it is."""
        loops = torch.where(matrix.diagonal() == 0, 1.0, matrix.diagonal())
        matrix = matrix - matrix.diagonal().diag() + loops.diag()
        root = matrix.sum(1) ** -0.5
        return root[:, None] * matrix * root


class Case:
    """A graph, features, and a GCN with its dense twin.

    Attributes:
        edge_index: undirected, with a self-loop at node 4 and node 6 isolated.
        x: features of 7 nodes in 5 channels.
    """

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        pairs = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (4, 5), (1, 5)]
        both = pairs + [(b, a) for a, b in pairs] + [(4, 4)]
        self.edge_index = torch.tensor(both).T.contiguous()
        self.x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        self.model = pyg.GCN(5, 6, num_layers=2, out_channels=3).double()
        for parameter in self.model.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        self.dense = DenseGCN(self.model)

    def matrix(self, edge_index: Tensor) -> Tensor:
        """Return the adjacency: rows are the targets."""
        matrix = torch.zeros(7, 7, dtype=torch.float64)
        ones = torch.ones(edge_index.size(1), dtype=torch.float64)
        return matrix.index_put_((edge_index[1], edge_index[0]), ones, accumulate=True)

    def run(self, operator: Any, seed: int) -> Tensor:
        """Return the model's output with the operator attached."""
        from gnndrop.attach import attach  # the rest of this file is to know nothing of ours

        with attach(self.model, operator) as handle:
            handle.operator.start_pass(seed)
            out: Tensor = self.model(self.x, self.edge_index)
            handle.operator.end_pass()
        return out


@pytest.fixture
def case() -> Case:
    return Case()


@pytest.fixture(scope="session")
def coins() -> type[Coins]:
    return Coins
