"""Edges dropped before the normalization: listed row by row, equal to a graph built anew."""

import sys
from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.attach import attach
from gnndrop.graph import Graph
from gnndrop.operators import DropEdge

N, F, C = 12, 6, 4

FUSED: dict[str, Callable[[], nn.Module]] = {
    "gcn": lambda: pyg.GCNConv(F, C),
    "gcn improved": lambda: pyg.GCNConv(F, C, improved=True),
    "gcn without loops": lambda: pyg.GCNConv(F, C, add_self_loops=False),
    "gcn not normalized": lambda: pyg.GCNConv(F, C, normalize=False),
    "sage": lambda: pyg.SAGEConv(F, C),
    "sage sum": lambda: pyg.SAGEConv(F, C, aggr="sum"),
    "gin": lambda: pyg.GINConv(nn.Linear(F, C)),
    "graph": lambda: pyg.GraphConv(F, C),
    "simple": lambda: pyg.SimpleConv(aggr="mean", combine_root="self_loop"),
    "appnp": lambda: pyg.APPNP(4, 0.1),
    "gat": lambda: pyg.GATConv(F, C, heads=2),
    "gat without loops": lambda: pyg.GATConv(F, C, heads=2, add_self_loops=False),
}
WEIGHTED = ("gcn", "gcn improved", "gcn not normalized", "graph", "simple", "appnp")


@pytest.fixture(autouse=True)
def seeded() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def no_new_graph(monkeypatch) -> None:
    def refuse(*arguments: object) -> Tensor:
        raise AssertionError("a graph was built")

    module = sys.modules[attach.__module__]  # the name in the package is the function
    monkeypatch.setattr(module, "select_edges", refuse)


def inputs() -> tuple[Tensor, Tensor]:
    """Loops and duplicates among the edges; the last node is isolated."""
    x = torch.randn(N, F, dtype=torch.float64, requires_grad=True)
    return x, torch.randint(N - 1, (2, 40))


def derivatives(out: Tensor, x: Tensor, layer: nn.Module) -> list[Tensor]:
    wanted = [x, *layer.parameters()]
    return [out.detach(), *torch.autograd.grad(out.square().sum(), wanted)]


def expected(
    layer: nn.Module, operator: DropEdge, x: Tensor, edge_index: Tensor, weight: Tensor | None
) -> list[Tensor]:
    """Call the layer itself on the kept edges."""
    kept = operator.kept_edges(Graph(edge_index, N, N), operator.start_pass(7).next_mask())
    operator.end_pass()
    rest = [] if weight is None else [weight[kept]]
    return derivatives(layer(x, edge_index[:, kept], *rest), x, layer)


@pytest.mark.usefixtures("no_new_graph")
@pytest.mark.parametrize("protect", [True, False])
@pytest.mark.parametrize("name", FUSED)
def test_no_graph_is_built(name: str, protect: bool) -> None:
    if name == "simple" and not protect:
        pytest.skip("it adds loops of its own, which must not be dropped")
    layer, (x, edge_index) = FUSED[name]().double(), inputs()
    operator = DropEdge(p=0.4, protect_self_loops=protect)
    wanted = expected(layer, operator, x, edge_index, None)
    with attach(layer, operator):
        operator.start_pass(7)
        found = derivatives(layer(x, edge_index), x, layer)
        operator.end_pass()
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("no_new_graph")
@pytest.mark.parametrize("name", WEIGHTED)
def test_nor_with_weights(name: str) -> None:
    layer, (x, edge_index) = FUSED[name]().double(), inputs()
    weight, operator = torch.rand(40, dtype=torch.float64), DropEdge(p=0.4)
    wanted = expected(layer, operator, x, edge_index, weight)
    with attach(layer, operator):
        operator.start_pass(7)
        found = derivatives(layer(x, edge_index, weight), x, layer)
        operator.end_pass()
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gcn", "graph"])
def test_weights_may_be_learnt(name: str) -> None:
    layer, (x, edge_index) = FUSED[name]().double(), inputs()
    weight = torch.rand(40, dtype=torch.float64, requires_grad=True)
    operator = DropEdge(p=0.4)
    kept = operator.kept_edges(Graph(edge_index, N, N), operator.start_pass(7).next_mask())
    operator.end_pass()
    out = layer(x, edge_index[:, kept], weight[kept])
    (wanted,) = torch.autograd.grad(out.square().sum(), weight)
    with attach(layer, operator):
        operator.start_pass(7)
        (found,) = torch.autograd.grad(layer(x, edge_index, weight).square().sum(), weight)
        operator.end_pass()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_the_structure_is_prepared_once(name: str, monkeypatch) -> None:
    layer, (x, edge_index) = FUSED[name]().double(), inputs()
    made: list[object] = []
    real = Graph.__init__

    def count(self: Graph, *arguments: object) -> None:
        made.append(self)
        real(self, *arguments)

    with attach(layer, DropEdge(p=0.4)):
        layer(x, edge_index)
        monkeypatch.setattr(Graph, "__init__", count)
        for _ in range(3):
            layer(x, edge_index).sum().backward()
    assert not made


def test_an_exception_ends_the_drop() -> None:
    layer, (x, edge_index) = FUSED["gcn"]().double(), inputs()
    handle = attach(layer, DropEdge(p=0.4))
    with pytest.raises(RuntimeError):
        layer(x[:, :3], edge_index)
    clean = layer.eval()(x, edge_index)
    handle.remove()
    assert torch.equal(layer(x, edge_index), clean)


def test_no_step_of_a_propagation_loses_more_than_another() -> None:
    """PyG's APPNP drops of what it has dropped; here all steps share the kept graph."""
    edge_index = torch.randint(30, (2, 400))
    for steps in (1, 10):
        layer = pyg.APPNP(steps, 0.0)
        with attach(layer, DropEdge(p=0.5)):
            total = torch.stack([layer(torch.ones(30, 1), edge_index).sum() for _ in range(30)])
        assert float(total.mean()) > 20  # compounding would leave a thousandth of the edges
