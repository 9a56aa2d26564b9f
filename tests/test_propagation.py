"""Accelerated layers give what PyG's own path gives, notice every change, and leave no trace."""

import copy
import functools
import inspect
from collections.abc import Callable

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from gnndrop import prepared, propagation
from gnndrop.errors import ParameterError
from gnndrop.propagation import Propagation, accelerate

# torch calls its CSR layout beta, and PyG would rather have CSR than COO.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:Converting sparse tensor to CSR")

N, F, C = 12, 6, 4


@pytest.fixture(autouse=True)
def seeded() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def kernel_calls(monkeypatch) -> list[object]:
    """The masks with which the kernels were called, one for each call."""
    calls: list[object] = []

    def spy(kernel):
        @functools.wraps(kernel)
        def call(*args, **kwargs):
            bound = inspect.signature(kernel).bind(*args, **kwargs)
            calls.append(bound.arguments.get("mask"))
            return kernel(*args, **kwargs)

        return call

    for name in ("aggregate", "convolve"):
        monkeypatch.setattr(propagation, name, spy(getattr(propagation, name)))
    return calls


def edges(sources: int = N, targets: int = N, number: int = 40) -> Tensor:
    """Loops and duplicates among them; the last node is isolated."""
    ends = [torch.randint(0, side - 1, (number,)) for side in (sources, targets)]
    return torch.stack(ends)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(F, 8), nn.ReLU(), nn.Linear(8, C))


WEIGHTED: dict[str, Callable[[], nn.Module]] = {
    "gcn": lambda: pyg.GCNConv(F, C),
    "gcn improved": lambda: pyg.GCNConv(F, C, improved=True, bias=False),
    "gcn without loops": lambda: pyg.GCNConv(F, C, add_self_loops=False),
    "gcn not normalized": lambda: pyg.GCNConv(F, C, normalize=False),
    "gcn mean": lambda: pyg.GCNConv(F, C, aggr="mean"),
    "graph": lambda: pyg.GraphConv(F, C),
    "graph mean": lambda: pyg.GraphConv(F, C, aggr="mean"),
    "simple": lambda: pyg.SimpleConv(aggr="sum"),
    "simple mean": lambda: pyg.SimpleConv(aggr="mean", combine_root="sum"),
    "appnp": lambda: pyg.APPNP(3, 0.2),
    "appnp not normalized": lambda: pyg.APPNP(3, 0.2, normalize=False),
}
UNWEIGHTED: dict[str, Callable[[], nn.Module]] = {
    "sage": lambda: pyg.SAGEConv(F, C),
    "sage sum": lambda: pyg.SAGEConv(F, C, aggr="sum", root_weight=False),
    "sage project": lambda: pyg.SAGEConv(F, C, normalize=True, project=True),
    "gin": lambda: pyg.GINConv(mlp(), train_eps=True),
    "gat": lambda: pyg.GATConv(F, C),
    "gat heads": lambda: pyg.GATConv(F, C, heads=3),
    "gat heads averaged": lambda: pyg.GATConv(F, C, heads=2, concat=False, residual=True),
    "gatv2": lambda: pyg.GATv2Conv(F, C, heads=2),
    "gatv2 shared": lambda: pyg.GATv2Conv(F, C, heads=2, share_weights=True),
}
ALL = WEIGHTED | UNWEIGHTED


def run(layer: nn.Module, x: object, *graph: object) -> list[Tensor]:
    """Return the output and every derivative."""
    ends = [end for end in (x if isinstance(x, tuple) else (x,)) if end is not None]
    given = [tensor for tensor in graph if isinstance(tensor, Tensor) and tensor.requires_grad]
    out = layer(x, *graph)
    inputs = [*ends, *given, *layer.parameters()]
    total = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
    return [
        out,
        *(g for g in torch.autograd.grad(total, inputs, allow_unused=True) if g is not None),
    ]


def assert_same(layer: nn.Module, *inputs: object, exactly: bool = False) -> None:
    layer = layer.double()
    plain = run(layer, *inputs)
    with accelerate(layer):
        fast = run(layer, *inputs)
    slack = 0 if exactly else 1e-12
    assert len(plain) == len(fast) >= 2
    for expected, actual in zip(plain, fast, strict=True):
        torch.testing.assert_close(actual, expected, rtol=slack, atol=slack)


def features(rows: int = N) -> Tensor:
    return torch.randn(rows, F, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", ALL)
def test_the_same_without_weights(name: str, kernel_calls) -> None:
    assert_same(ALL[name](), features(), edges())
    assert kernel_calls


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("learned", [True, False])
def test_the_same_with_weights(name: str, learned: bool, kernel_calls) -> None:
    weight = torch.rand(40, dtype=torch.float64, requires_grad=learned)
    assert_same(WEIGHTED[name](), features(), edges(), weight)
    assert kernel_calls


@pytest.mark.parametrize("name", ["gat", "gat heads", "gatv2"])
def test_the_same_with_attributes_of_edges(name: str, kernel_calls) -> None:
    layer = {"gat": pyg.GATConv, "gat heads": pyg.GATConv, "gatv2": pyg.GATv2Conv}[name](
        F, C, heads=2, edge_dim=3
    )
    assert_same(layer, features(), edges(), torch.randn(40, 3, dtype=torch.float64))
    assert kernel_calls


BIPARTITE: dict[str, Callable[[], nn.Module]] = {
    "sage": lambda: pyg.SAGEConv((F, F), C),
    "gin": lambda: pyg.GINConv(mlp()),
    "graph": lambda: pyg.GraphConv((F, F), C, aggr="mean"),
    "simple": lambda: pyg.SimpleConv(),
    "gat": lambda: pyg.GATConv((F, F), C, heads=2, add_self_loops=False),
    "gatv2": lambda: pyg.GATv2Conv((F, F), C, heads=2, add_self_loops=False),
}


@pytest.mark.parametrize("name", BIPARTITE)
def test_the_same_between_two_sets_of_nodes(name: str, kernel_calls) -> None:
    graph, layer = edges(N, 5), BIPARTITE[name]()
    assert_same(layer, (features(N), features(5)), graph)
    if name != "gatv2":  # which takes no size
        assert_same(layer, (features(N), features(5)), graph, *sized(layer, (N, 5)))
    assert kernel_calls


def sized(layer: nn.Module, size: tuple[int | None, int | None]) -> tuple[object, ...]:
    """Return the arguments that tell a layer the size of its graph."""
    return (size,) if isinstance(layer, pyg.SAGEConv | pyg.GINConv) else (None, size)


@pytest.mark.parametrize("name", ["sage", "graph", "gin"])
@pytest.mark.parametrize("size", [(N, 5), (N, None), (None, 5), (N, N), (None, None)])
def test_targets_without_features(name: str, size) -> None:
    layer = BIPARTITE[name]()
    if name == "graph":
        layer = pyg.GraphConv((F, F), C)
    assert_same(layer, (features(), None), edges(N, 5), *sized(layer, size))


@pytest.mark.parametrize("name", ["sage", "gin", "graph", "gat"])
@pytest.mark.parametrize("size", [(N + 1, 5), (N, 6), (N, 4)])
def test_a_wrong_size_is_refused_as_without(name: str, size) -> None:
    layer, x, graph = BIPARTITE[name]().double(), (features(N), features(5)), edges(N, 5)
    with pytest.raises(ValueError, match="expected size"):
        layer(x, graph, *sized(layer, size))
    with accelerate(layer), pytest.raises(ValueError, match="expected size"):
        layer(x, graph, *sized(layer, size))


# PyG's own GraphConv multiplies an EdgeIndex by ones of float32: it fails in float64.
@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("graph")])
def test_the_same_on_an_edge_index_object(name: str) -> None:
    graph = EdgeIndex(edges(), sparse_size=(N, N)).sort_by("col").values
    assert_same(ALL[name](), features(), graph)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("nodes", [1, N])
def test_the_same_without_edges(name: str, nodes: int) -> None:
    assert_same(ALL[name](), features(nodes), torch.empty(2, 0, dtype=torch.int64))


@pytest.mark.parametrize(
    "model",
    [
        lambda: pyg.GCN(F, 8, 3, C, jk="cat", norm="layer"),
        lambda: pyg.GAT(F, 8, 2, C, heads=2, v2=True),
        lambda: pyg.GraphSAGE(F, 8, 2, C, project=True),
        lambda: pyg.GIN(F, 8, 2, C, norm=None),
    ],
)
def test_the_same_for_whole_models(model, kernel_calls) -> None:
    assert_same(model(), features(), edges())
    assert len(kernel_calls) >= 2


def test_a_layer_used_twice_is_the_same_twice() -> None:
    layer = pyg.GCNConv(F, F)
    model = pyg.Sequential("x, e", [(layer, "x, e -> x"), nn.ReLU(), (layer, "x, e -> x")])
    assert_same(model, features(), edges())
    assert "propagate" not in layer.__dict__


def test_dropout_of_attention_uses_the_same_draws() -> None:
    layer, x, graph = pyg.GATConv(F, C, heads=2, dropout=0.5).double(), features(), edges()
    outputs = []
    for fast in (False, True):
        torch.manual_seed(3)
        if fast:
            with accelerate(layer):
                outputs.append(layer(x, graph))
        else:
            outputs.append(layer(x, graph))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


# --- where PyG's own path is taken --------------------------------------------------------------


class Louder(pyg.GCNConv):
    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        return 2 * super().message(x_j, edge_weight)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: pyg.SAGEConv(F, C, aggr="max"),
        lambda: pyg.SAGEConv(F, C, aggr=["mean", "max"]),
        lambda: pyg.GraphConv(F, C, aggr="min"),
        lambda: pyg.SimpleConv(aggr="mul"),
        lambda: pyg.GCNConv(F, C, flow="target_to_source"),
        lambda: pyg.GraphConv(F, C, flow="target_to_source"),
        lambda: pyg.GCNConv(F, C, decomposed_layers=2),
        lambda: Louder(F, C),
        lambda: pyg.TAGConv(F, C),
        lambda: pyg.ARMAConv(F, C),
    ],
)
def test_other_layers_take_their_own_path(layer, kernel_calls) -> None:
    assert_same(layer(), features(), edges(), exactly=True)
    assert not kernel_calls


@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("name", ["gcn", "graph", "sage", "gin", "gat", "appnp"])
def test_sparse_adjacencies_take_their_own_path(name: str, layout: str, kernel_calls) -> None:
    graph = torch.eye(N, dtype=torch.float64) + torch.diag(torch.ones(N - 1).double(), 1)
    adjacency = graph.to_sparse_csr() if layout == "csr" else graph.to_sparse_coo()
    layer = ALL[name]().double()
    x = features()
    plain = layer(x, adjacency)
    with accelerate(layer):
        assert torch.equal(layer(x, adjacency), plain)
    assert not kernel_calls


HOOKS = {
    "propagate pre": ("register_propagate_forward_pre_hook", lambda layer, inputs: None),
    "propagate": ("register_propagate_forward_hook", lambda layer, inputs, out: out + 1),
    "message pre": ("register_message_forward_pre_hook", lambda layer, inputs: None),
    "message": ("register_message_forward_hook", lambda layer, inputs, out: 2 * out),
    "aggregate pre": ("register_aggregate_forward_pre_hook", lambda layer, inputs: None),
    "aggregate": ("register_aggregate_forward_hook", lambda layer, inputs, out: out * out),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_of_others_fire(kind: str, kernel_calls) -> None:
    layer = pyg.GCNConv(F, C)
    fired = []
    register, hook = HOOKS[kind]

    def counted(*arguments: object) -> object:
        fired.append(1)
        return hook(*arguments)

    handle = getattr(layer, register)(counted)
    assert_same(layer, features(), edges(), exactly=True)
    assert len(fired) == 2
    assert not kernel_calls
    handle.remove()
    assert_same(layer, features(), edges())
    assert kernel_calls


def test_explanation_takes_its_own_path(kernel_calls) -> None:
    layer, x, graph = pyg.SAGEConv(F, C).double(), features(), edges()
    plain = layer(x, graph)
    with accelerate(layer):
        layer.explain = True
        layer._edge_mask, layer._loop_mask, layer._apply_sigmoid = (
            torch.zeros(40).double(),
            torch.ones(40, dtype=torch.bool),
            False,
        )
        assert not torch.allclose(layer(x, graph), plain)
    layer.explain = None
    assert not kernel_calls


@pytest.mark.parametrize(
    "weight", [torch.ones(40, 1).double(), torch.ones(40), torch.ones(1).double()]
)
def test_weights_of_another_form_mean_what_they_do_in_pyg(weight: Tensor, kernel_calls) -> None:
    assert_same(pyg.GraphConv(F, C), features(), edges(), weight, exactly=True)
    assert not kernel_calls


@pytest.mark.parametrize(
    "weight", [torch.ones(39).double(), torch.ones(41).double(), torch.ones(40, 2).double()]
)
def test_weights_of_another_length_are_refused_as_without(weight: Tensor) -> None:
    layer = pyg.GraphConv(F, C).double()
    with pytest.raises(RuntimeError) as plain:
        layer(features(), edges(), weight)
    with accelerate(layer), pytest.raises(RuntimeError) as fast:
        layer(features(), edges(), weight)
    assert str(fast.value) == str(plain.value)


def test_stacks_of_graphs_take_their_own_path(kernel_calls) -> None:
    x = torch.randn(3, N, F, dtype=torch.float64, requires_grad=True)
    assert_same(pyg.GCNConv(F, C), x, edges(), exactly=True)
    assert not kernel_calls


def test_autocast_gives_the_types_it_gives_without() -> None:
    layer, x, graph = pyg.GCNConv(F, C), torch.randn(N, F), edges()
    with torch.autocast("cpu", torch.bfloat16):
        plain = layer(x, graph)
        with accelerate(layer):
            fast = layer(x, graph)
    assert fast.dtype == plain.dtype
    torch.testing.assert_close(fast, plain, rtol=0.02, atol=0.02)


def test_nodes_out_of_range_are_refused() -> None:
    layer = pyg.SAGEConv(F, C).double()
    for bad in ([[0], [N]], [[N], [0]], [[-1], [0]], [[0], [-1]]):
        with accelerate(layer), pytest.raises(ParameterError, match="must hold nodes from 0"):
            layer(features(), torch.tensor(bad))


# --- changes ------------------------------------------------------------------------------------


def changes() -> dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]]:
    def write(tensor: Tensor, value: float) -> Tensor:
        tensor[..., 0] = value
        return tensor

    return {
        "nothing": lambda x, e, w: (x, e, w),
        "edges written to": lambda x, e, w: (x, write(e, 3), w),
        "weights written to": lambda x, e, w: (x, e, write(w, 9.0)),
        "weights written to by a view": lambda x, e, w: (x, e, w[:5].mul_(2)._base),
        "other edges": lambda x, e, w: (x, e.flip(1), w),
        "other weights": lambda x, e, w: (x, e, w * 2),
        "no weights": lambda x, e, w: (x, e),
        "more nodes": lambda x, e, w: (torch.cat([x, x]), e, w),
        "fewer edges": lambda x, e, w: (x, e[:, 1:], w[1:]),
        "other type": lambda x, e, w: (x.float(), e, w.float()),
        "learned weights": lambda x, e, w: (x, e, w.clone().requires_grad_()),
        "the same weights, learned": lambda x, e, w: (x, e, w.requires_grad_()),
    }


@pytest.mark.parametrize("change", changes())
@pytest.mark.parametrize("name", ["gcn", "appnp", "graph", "simple mean", "gcn not normalized"])
def test_a_changed_graph_is_noticed(name: str, change: str) -> None:
    layer = WEIGHTED[name]().double()
    x, graph, weight = features().detach(), edges(), torch.rand(40, dtype=torch.float64) + 0.5
    with accelerate(layer):
        before = layer(x, graph, weight)
        layer(x, graph, weight)
        inputs = changes()[change](x, graph, weight)
        layer.to(inputs[0].dtype)
        after = layer(*inputs)
        again = layer(*inputs)
    torch.testing.assert_close(after, layer(*inputs), rtol=1e-5, atol=1e-5)
    assert torch.equal(after, again)
    if change not in ("nothing", "learned weights", "the same weights, learned"):
        same = after.shape == before.shape and torch.allclose(after.double(), before, 1e-4, 1e-4)
        assert same == (change == "other type")
    if "learned" in change:
        assert after.requires_grad
        (derivative,) = torch.autograd.grad(after.square().sum(), inputs[2])
        (expected,) = torch.autograd.grad(layer(*inputs).square().sum(), inputs[2])
        torch.testing.assert_close(derivative, expected)


@pytest.mark.parametrize("name", ALL)
def test_graphs_may_alternate(name: str) -> None:
    layer, x = ALL[name]().double(), features()
    graphs = [edges(number=40) for _ in range(7)]
    plain = [layer(x, graph) for graph in graphs]
    with accelerate(layer):
        for _ in range(2):
            for graph, expected in zip(graphs, plain, strict=True):
                torch.testing.assert_close(layer(x, graph), expected, rtol=1e-12, atol=1e-12)


def test_a_changed_setting_of_a_layer_is_noticed() -> None:
    layer, x, graph = pyg.GCNConv(F, C).double(), features(), edges()
    with accelerate(layer):
        layer(x, graph)
        layer.add_self_loops = False
        fast = layer(x, graph)
    torch.testing.assert_close(fast, layer(x, graph), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_training_follows_evaluation_in_inference_mode(name: str) -> None:
    layer, x, graph = ALL[name]().double(), features(), edges()
    expected = run(layer, x, graph)
    with accelerate(layer):
        with torch.inference_mode():
            evaluated = layer(x, graph)
        actual = run(layer, x, graph)
    assert torch.equal(evaluated, actual[0])
    for one, other in zip(expected, actual, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_normalized_graph_is_computed_once(monkeypatch) -> None:
    calls = []
    real = prepared.gcn_norm
    monkeypatch.setattr(prepared, "gcn_norm", lambda *a: calls.append(1) or real(*a))
    model, x, graph = pyg.GCN(F, 8, 2, C).double(), features(), edges()
    with accelerate(model):
        for _ in range(5):
            model(x, graph)
    assert len(calls) == 1  # for both layers


@pytest.mark.parametrize("name", ["gcn", "gat", "appnp", "sage"])
def test_another_graph_of_the_same_size_is_another(name: str) -> None:
    """A wrapper's address in memory is 0, whatever it wraps."""
    graphs = [EdgeIndex(edges(), sparse_size=(N, N)) for _ in range(2)]
    layer, x = ALL[name]().double(), features()
    plain = [layer(x, graph) for graph in graphs]
    with accelerate(layer):
        for graph, expected in zip(graphs, plain, strict=True):
            torch.testing.assert_close(layer(x, graph), expected, rtol=1e-12, atol=1e-12)


# --- traces -------------------------------------------------------------------------------------


def attributes(model: nn.Module) -> list[dict[str, object]]:
    return [dict(module.__dict__) for module in model.modules()]


@pytest.mark.parametrize("name", ALL)
def test_no_trace_is_left(name: str) -> None:
    layer, x, graph = ALL[name]().double(), features(), edges()
    before, plain = attributes(layer), layer(x, graph)
    with accelerate(layer):
        layer(x, graph)
        assert isinstance(layer.__dict__["propagate"], Propagation)
    assert attributes(layer) == before
    assert torch.equal(layer(x, graph), plain)


def test_no_trace_is_left_by_an_exception() -> None:
    model = pyg.GCN(F, 8, 2, C).double()
    before = attributes(model)
    with pytest.raises(ParameterError), accelerate(model):  # in its first layer
        model(torch.ones(N, F + 1).double(), edges())
    assert attributes(model) == before
    with pytest.raises(KeyError), accelerate(model):  # between its calls
        raise KeyError
    assert attributes(model) == before


def test_contexts_nest() -> None:
    model = pyg.GCN(F, 8, 2, C).double()
    before = attributes(model)
    with accelerate(model):
        with accelerate(model.convs[0]):
            pass
        assert "propagate" in model.convs[0].__dict__
        model(features(), edges())
    assert attributes(model) == before


def test_replacements_of_others_are_left_alone(kernel_calls) -> None:
    layer = pyg.SAGEConv(F, C).double()
    layer.propagate = lambda edge_index, x, size: torch.zeros(N, F).double()
    mine = layer.propagate
    with accelerate(layer):
        assert layer.propagate is mine
        layer(features(), edges())
    assert layer.propagate is mine
    assert not kernel_calls


def test_the_cache_of_a_layer_is_its_own() -> None:
    """cached=True is the user's promise that the graph stays: it goes on as without."""
    layer, x = pyg.GCNConv(F, C, cached=True).double(), features()
    first, second = edges(), edges()
    plain = layer(x, first)
    with accelerate(layer):
        torch.testing.assert_close(layer(x, second), plain, rtol=1e-12, atol=1e-12)
    assert torch.equal(layer(x, second), plain)


def test_models_can_be_copied_meanwhile() -> None:
    model, x, graph = pyg.GCN(F, 8, 2, C).double(), features(), edges()
    with accelerate(model):
        expected = model(x, graph)
        other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(other(x, graph), expected)


def test_nothing_is_drawn() -> None:
    layer, x, graph = pyg.GCNConv(F, C), torch.ones(N, F), edges()
    state = torch.get_rng_state()
    with accelerate(layer):
        layer(x, graph)
    assert torch.equal(torch.get_rng_state(), state)
