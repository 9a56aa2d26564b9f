"""The same as a user of PyG and torch writes it: what gnndrop is measured against."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv
from torch_geometric.nn.models import GAT, GCN, GIN, MLP, GraphSAGE
from torch_geometric.utils import dropout_edge


class PlainGCN(nn.Module):
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


class PlainGAT(nn.Module):
    """The GAT of PyG's own example, eight heads of eight channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = GATConv(in_channels, 8, heads=8, dropout=0.6)
        self.conv2 = GATConv(64, out_channels, heads=1, concat=False, dropout=0.6)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return logits."""
        x = F.dropout(x, p=0.6, training=self.training)
        x = F.elu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.6, training=self.training)
        return self.conv2(x, edge_index)


def train(model: nn.Module, data: Data, epochs: int) -> float:
    """Train as PyG's examples do; return the test accuracy at the best validation epoch."""
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


def message_dropout(x: Tensor, edge_index: Tensor, num_nodes: int, p: float = 0.5) -> Tensor:
    """Drop of the messages as PyG forms them, an E x F array."""
    messages = F.dropout(x[edge_index[0]], p)
    return x.new_zeros(num_nodes, x.size(1)).index_add_(0, edge_index[1], messages)


def add_message_hooks(model: nn.Module, p: float = 0.5) -> None:
    """Drop messages through PyG's own hook."""

    def drop(layer: nn.Module, inputs: Any, messages: Tensor) -> Tensor:
        return F.dropout(messages, p, layer.training)

    for layer in model.modules():
        if isinstance(layer, GCNConv):
            layer.register_message_forward_hook(drop)


class Product(torch.autograd.Function):
    """torch's CSR product with its transpose prepared: autograd's own makes it at every call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        """Return matrix @ x."""
        ctx.transpose = transpose
        return matrix @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return transpose @ gradient."""
        return ctx.transpose @ gradients[0], None, None


@torch.no_grad()
def sample(model: nn.Module, data: Data, samples: int) -> tuple[Tensor, Tensor]:
    """Predict in a loop with dropout on; return mean and standard deviation."""
    model.train()
    probs = torch.stack([model(data.x, data.edge_index).softmax(-1) for _ in range(samples)])
    model.eval()
    return probs.mean(0), probs.std(0)


def models(in_channels: int, out_channels: int) -> dict[str, nn.Module]:
    """Return models of PyG with dropout of their own, and one that drops edges."""
    sizes = in_channels, 64, 2, out_channels
    return {
        "PyG's GraphSAGE": GraphSAGE(*sizes, dropout=0.5),
        "PyG's GAT": GAT(*sizes, heads=8, dropout=0.6),
        "PyG's GIN": GIN(*sizes, dropout=0.5),
        "PyG's GCN with batch norm": GCN(*sizes, dropout=0.5, norm="BatchNorm"),
        "PyG's MLP": GraphlessMLP(in_channels, out_channels),
        "a GCN with dropout_edge": EdgeDroppingGCN(in_channels, out_channels),
    }


class GraphlessMLP(nn.Module):
    """PyG's MLP, called with the graph."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mlp = MLP([in_channels, 64, out_channels], dropout=0.5)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return logits."""
        out: Tensor = self.mlp(x)
        return out


class EdgeDroppingGCN(nn.Module):
    """A GCN that drops edges by PyG's function."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = GCNConv(in_channels, 64)
        self.conv2 = GCNConv(64, out_channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return logits."""
        edge_index, _ = dropout_edge(edge_index, p=0.3, training=self.training)
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)
