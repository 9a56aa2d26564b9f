"""Every operator in every kind of layer: the kernels give what PyG's general path gives.

Hooks that do nothing force the general path, which forms the messages.
"""

import inspect
import itertools
from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.attach import attach
from gnndrop.errors import GnndropError
from gnndrop.operators import OPERATORS
from gnndrop.propagation import FACTORS

N, F = 12, 4

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "gcn": lambda: pyg.GCNConv(F, F),
    "gcn improved": lambda: pyg.GCNConv(F, F, improved=True),
    "gcn without loops": lambda: pyg.GCNConv(F, F, add_self_loops=False),
    "gcn not normalized": lambda: pyg.GCNConv(F, F, normalize=False),
    "gcn mean": lambda: pyg.GCNConv(F, F, aggr="mean", bias=False),
    "gat": lambda: pyg.GATConv(F, 3, 2),
    "gat without loops": lambda: pyg.GATConv(F, 3, 2, add_self_loops=False),
    "gat averaged": lambda: pyg.GATConv(F, 3, 2, concat=False, bias=False),
    "gat residual": lambda: pyg.GATConv(F, 3, 2, residual=True),
    "gatv2": lambda: pyg.GATv2Conv(F, 3, 2),
    "gin": lambda: pyg.GINConv(nn.Linear(F, F)),
    "graph": lambda: pyg.GraphConv(F, F),
    "graph mean": lambda: pyg.GraphConv(F, F, aggr="mean"),
    "sage": lambda: pyg.SAGEConv(F, F),
    "sage projected": lambda: pyg.SAGEConv(F, F, project=True, normalize=True),
    "simple": lambda: pyg.SimpleConv(combine_root="sum"),
    "simple mean": lambda: pyg.SimpleConv(aggr="mean", combine_root="self_loop"),
    "appnp": lambda: pyg.APPNP(3, 0.1),
    "appnp mean": lambda: pyg.APPNP(3, 0.1, aggr="mean"),
    "appnp not normalized": lambda: pyg.APPNP(3, 0.1, normalize=False),
}
OPTIONS = (
    "drop-edge:p=1",
    "drop-edge:protect_self_loops=false",
    "drop-edge:symmetric=false",
    "drop-edge:rescale=inverse",
    "drop-edge:rescale=exact",
    "drop-edge:fixed_count=true",
    "drop-message:p=1",
)
SPECS = [*(name for name in OPERATORS if name not in ("none", "drop-path")), *OPTIONS]


def test_every_supported_layer_is_among_them() -> None:
    assert {type(layer()) for layer in LAYERS.values()} == set(FACTORS)


def takes_weights(name: str) -> bool:
    return "edge_weight" in inspect.signature(LAYERS[name]().forward).parameters


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("name", "weighted"),
    [(name, weighted) for name in LAYERS for weighted in {False, takes_weights(name)}],
)
def test_fused_is_general(name: str, weighted: bool) -> None:
    compared = 0
    for spec, is_undirected in itertools.product(SPECS, (False, True)):
        fused, general = (outcome(name, spec, weighted, is_undirected, one) for one in (0, 1))
        assert isinstance(fused, str) == isinstance(general, str), (spec, fused, general)
        if not isinstance(fused, str):
            compared += 1
            for one, other in zip(fused, general, strict=True):
                torch.testing.assert_close(
                    one, other, rtol=1e-4, atol=1e-5, msg=lambda m, spec=spec: f"{spec}: {m}"
                )
    assert compared > len(SPECS) / 2


def outcome(
    name: str, spec: str, weighted: bool, is_undirected: bool, is_general: bool
) -> tuple[Tensor, Tensor] | str:
    """Return the output and its derivative, or why the operator is refused."""
    generator = torch.Generator().manual_seed(3)
    edge_index = torch.randint(0, N - 1, (2, 30), generator=generator)  # loops, duplicates
    if is_undirected:
        edge_index = torch.unique(torch.cat([edge_index, edge_index.flip(0)], 1), dim=1)
    weight = 0.5 + torch.rand(edge_index.size(1), generator=generator)
    x = torch.randn(N, F, generator=generator).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = LAYERS[name]()
        if is_general:
            layer.register_propagate_forward_hook(lambda *_: None)
            layer.register_edge_update_forward_hook(lambda *_: None)
        try:
            with attach(layer, spec):
                out = layer(x, edge_index, *[weight] * weighted)
        except GnndropError as error:
            return str(error)
    return out.detach(), torch.autograd.grad(out.square().sum(), x)[0]
