"""The models of a comparison: GCN, GAT, SAGE on PyG's layers, and the MLP, which ignores the graph.

None of them drops anything by itself: operators are attached. All return logits.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.errors import ParameterError
from gnndrop.kernels import rectify
from gnndrop.linear import Linear
from gnndrop.registry import Registry

Norm = Literal["none", "batch", "layer"]
Layout = Literal["plain", "tuned"]

MODELS: Registry[Callable[..., nn.Module]] = Registry("model", "gnndrop.models", "gnndrop.models")


class _Network(nn.Module):
    """A stack of layers with normalization, ReLU and residual connections between them.

    A hidden layer computes relu(norm(layer(x))) + skip(x), and the last layer returns the logits.
    In the layout `tuned` it computes relu(norm(layer(x) + skip(x))), all `num_layers` are hidden,
    and a linear map behind them returns the logits: Luo, Shi and Wu, "Classic GNNs are strong
    baselines" (NeurIPS 2024).

    Args:
        in_channels: size of a node's features.
        hidden_channels: width of the hidden layers; default 64.
        out_channels: number of classes, or of outputs.
        num_layers: depth, at least 1; default 2.
        norm: `none` (default), `batch` or `layer` normalization after every hidden layer.
        residual: add a linear map of a hidden layer's input to its output; default False.
        layout: `plain` (default) or `tuned`, as above.

    Raises:
        ParameterError: if a size is below 1, or `norm` or `layout` unknown.
    """

    takes_sparse: ClassVar[bool] = True
    """Whether the first layer takes sparse CSR features."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 64,
        out_channels: int = 2,
        num_layers: int = 2,
        norm: Norm = "none",
        residual: bool = False,
        layout: Layout = "plain",
    ) -> None:
        super().__init__()
        sizes = {
            "in_channels": in_channels,
            "hidden_channels": hidden_channels,
            "out_channels": out_channels,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ParameterError(f"{name} must be at least 1, got {size}")
        if norm not in _NORMS:
            raise ParameterError(f"norm must be one of {', '.join(_NORMS)}, got {norm!r}")
        if layout not in get_args(Layout):
            raise ParameterError(f"layout must be plain or tuned, got {layout!r}")
        self.layout = layout
        hidden_layers = num_layers if layout == "tuned" else num_layers - 1
        widths = [in_channels, *[hidden_channels] * hidden_layers]
        self.layers = nn.ModuleList(
            self.hidden_layer(width, hidden_channels) for width in widths[:-1]
        )
        if layout == "tuned":
            self.head = Linear(widths[-1], out_channels)
        else:
            self.layers.append(self.last_layer(widths[-1], out_channels))
        self.norms = nn.ModuleList(_NORMS[norm](hidden_channels) for _ in widths[:-1])
        self.skips = nn.ModuleList(
            Linear(width, hidden_channels) for width in widths[:-1] if residual
        )

    @property
    def feature_layers(self) -> list[nn.Module]:
        """The layers at whose input attached feature operators act."""
        return [*self.layers, self.head] if self.layout == "tuned" else list(self.layers)

    @property
    def residual_branches(self) -> list[nn.Module]:
        """The modules at whose outputs residual branches are dropped; none without shortcuts.

        In the layout `plain` a ReLU stands between them and the sum, which a factor of 0 or more
        passes through.
        """
        branches = self.layers if self.layout == "tuned" else self.norms
        return list(branches) if len(self.skips) else []

    def hidden_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build a hidden layer."""
        raise NotImplementedError

    def last_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build the layer that returns logits; by default another hidden layer."""
        return self.hidden_layer(in_channels, out_channels)

    def apply_layer(self, layer: nn.Module, x: Tensor, edge_index: Any, edge_weight: Any) -> Tensor:
        """Call one layer."""
        result: Tensor = layer(x, edge_index)
        return result

    def forward(
        self, x: Tensor, edge_index: Tensor | None = None, edge_weight: Tensor | None = None
    ) -> Tensor:
        """Return logits of shape (N, out_channels).

        Args:
            x: node features of shape (N, in_channels); sparse CSR too where `takes_sparse`.
            edge_index: int64 of shape (2, E), or a torch sparse adjacency, rows the targets.
            edge_weight: shape (E,); used by the GCN alone.
        """
        is_tuned, layers = self.layout == "tuned", iter(self.layers)
        skips = iter(self.skips)
        for norm in self.norms:
            out = self.apply_layer(next(layers), x, edge_index, edge_weight)
            skip = next(skips, None)
            shortcut = None if skip is None else skip(x)
            if is_tuned and shortcut is not None:
                out = out + shortcut
            out = rectify(norm(out))
            x = out if is_tuned or shortcut is None else out + shortcut
        if is_tuned:
            logits: Tensor = self.head(x)
            return logits
        return self.apply_layer(next(layers), x, edge_index, edge_weight)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}


@MODELS.register("gcn")
class GCN(_Network):
    """Graph convolutional network.

    Every layer computes D^-1/2 (A + I) D^-1/2 X W.

    Source: Kipf and Welling, "Semi-supervised classification with graph convolutional networks"
    (ICLR 2017).

    Args:
        in_channels: size of a node's features.
        hidden_channels: width of the hidden layers; default 64.
        out_channels: number of classes, or of outputs.
        num_layers: depth, at least 1; default 2.
        norm: `none` (default), `batch` or `layer` normalization after every hidden layer.
        residual: add a linear map of a hidden layer's input to its output; default False.
        layout: `plain` (default), or `tuned`: shortcuts are added before normalization, and a
            linear map behind `num_layers` hidden layers returns the logits (Luo et al. 2024).

    Raises:
        ParameterError: if a size is below 1, or `norm` or `layout` unknown.

    Example:
        >>> import torch
        >>> model = GCN(8, 16, out_channels=3)
        >>> model(torch.ones(4, 8), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 3])
    """

    def hidden_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build a GCNConv."""
        layer: nn.Module = pyg.GCNConv(in_channels, out_channels)
        layer.lin = Linear(in_channels, out_channels, bias=False)
        return layer

    def apply_layer(self, layer: nn.Module, x: Tensor, edge_index: Any, edge_weight: Any) -> Tensor:
        """Call one layer, with the edge weights."""
        result: Tensor = layer(x, edge_index, edge_weight)
        return result


@MODELS.register("gat")
class GAT(_Network):
    """Graph attention network, without attention dropout.

    Source: Veličković et al., "Graph attention networks" (ICLR 2018).

    Args:
        in_channels: size of a node's features.
        hidden_channels: width of the hidden layers, all heads together; default 64.
        out_channels: number of classes, or of outputs.
        num_layers: depth, at least 1; default 2.
        norm: `none` (default), `batch` or `layer` normalization after every hidden layer.
        residual: add a linear map of a hidden layer's input to its output; default False.
        layout: `plain` (default), or `tuned`: shortcuts are added before normalization, and a
            linear map behind `num_layers` hidden layers returns the logits (Luo et al. 2024).
        heads: attention heads of the hidden layers, a divisor of `hidden_channels`; default 8. The
            last layer has one.

    Raises:
        ParameterError: if a size is below 1, `norm` or `layout` unknown, or `heads` no divisor.

    Example:
        >>> import torch
        >>> model = GAT(8, 16, out_channels=3, heads=4)
        >>> model(torch.ones(4, 8), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 64,
        out_channels: int = 2,
        num_layers: int = 2,
        norm: Norm = "none",
        residual: bool = False,
        heads: int = 8,
        layout: Layout = "plain",
    ) -> None:
        if heads < 1 or hidden_channels % heads:
            raise ParameterError(
                f"heads must divide hidden_channels, got {heads} heads for {hidden_channels}"
            )
        self.heads = heads
        super().__init__(
            in_channels, hidden_channels, out_channels, num_layers, norm, residual, layout
        )

    def hidden_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build a GATConv whose heads share the width."""
        return self._attention(in_channels, out_channels // self.heads, self.heads)

    def last_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build a GATConv of one head."""
        return self._attention(in_channels, out_channels, 1)

    def _attention(self, in_channels: int, channels_per_head: int, heads: int) -> nn.Module:
        layer: nn.Module = pyg.GATConv(in_channels, channels_per_head, heads)
        layer.lin = Linear(in_channels, channels_per_head * heads, bias=False)
        return layer


@MODELS.register("sage")
class SAGE(_Network):
    """GraphSAGE with mean aggregation.

    Source: Hamilton et al., "Inductive representation learning on large graphs" (NeurIPS 2017).

    Args:
        in_channels: size of a node's features.
        hidden_channels: width of the hidden layers; default 64.
        out_channels: number of classes, or of outputs.
        num_layers: depth, at least 1; default 2.
        norm: `none` (default), `batch` or `layer` normalization after every hidden layer.
        residual: add a linear map of a hidden layer's input to its output; default False.
        layout: `plain` (default), or `tuned`: shortcuts are added before normalization, and a
            linear map behind `num_layers` hidden layers returns the logits (Luo et al. 2024).

    Raises:
        ParameterError: if a size is below 1, or `norm` or `layout` unknown.

    Example:
        >>> import torch
        >>> model = SAGE(8, 16, out_channels=3)
        >>> model(torch.ones(4, 8), torch.tensor([[0, 1], [1, 0]])).shape
        torch.Size([4, 3])
    """

    takes_sparse = False  # its layer aggregates the features themselves

    def hidden_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build a SAGEConv."""
        layer: nn.Module = pyg.SAGEConv(in_channels, out_channels)
        return layer


@MODELS.register("mlp")
class MLP(_Network):
    """Multilayer perceptron on the nodes: what the features tell without the graph.

    Args:
        in_channels: size of a node's features.
        hidden_channels: width of the hidden layers; default 64.
        out_channels: number of classes, or of outputs.
        num_layers: depth, at least 1; default 2.
        norm: `none` (default), `batch` or `layer` normalization after every hidden layer.
        residual: add a linear map of a hidden layer's input to its output; default False.
        layout: `plain` (default), or `tuned`: shortcuts are added before normalization, and a
            linear map behind `num_layers` hidden layers returns the logits (Luo et al. 2024).

    Raises:
        ParameterError: if a size is below 1, or `norm` or `layout` unknown.

    Example:
        >>> import torch
        >>> MLP(8, 16, out_channels=3)(torch.ones(4, 8)).shape
        torch.Size([4, 3])
    """

    def hidden_layer(self, in_channels: int, out_channels: int) -> nn.Module:
        """Build a linear layer."""
        return Linear(in_channels, out_channels)

    def apply_layer(self, layer: nn.Module, x: Tensor, edge_index: Any, edge_weight: Any) -> Tensor:
        """Call one layer, without the graph."""
        result: Tensor = layer(x)
        return result
