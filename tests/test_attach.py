"""`attach` on unmodified PyG models: the right masks at the right place, no trace afterwards."""

import copy
import pickle
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise, permutations, product
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric import EdgeIndex
from torch_geometric.nn import MessagePassing
from torch_geometric.typing import OptTensor  # PyG does not read Tensor | None

from gnndrop import models, propagation
from gnndrop.attach import Attachment, attach
from gnndrop.errors import AttachError, GnndropError
from gnndrop.graph import Graph, to_csr
from gnndrop.operators import (
    Combined,
    DropEdge,
    DropMessage,
    Dropout,
    EdgeOperator,
    FeatureOperator,
    make_operator,
)

pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:Converting sparse tensor to CSR")

N, F = 12, 6
SPECS = [
    "dropout:p=0.4",
    "drop-node:p=0.4",
    "drop-feature:p=0.4",
    "drop-edge:p=0.4",
    "drop-edge:p=0.4,rescale=inverse",
    "drop-edge:p=0.4,rescale=none",
    "drop-message:p=0.4",
]
BEHIND = [spec for spec in SPECS if "inverse" in spec or "none" in spec or "message" in spec]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        yield


class Own(MessagePassing):
    """A user's layer: messages of both ends, weighted."""

    def __init__(self) -> None:
        super().__init__(aggr="sum")
        self.lin = nn.Linear(2 * F, 4)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: OptTensor = None) -> Tensor:
        return self.propagate(edge_index, x=x, edge_weight=edge_weight)

    def message(self, x_i: Tensor, x_j: Tensor, edge_weight: OptTensor) -> Tensor:
        out = self.lin(torch.cat([x_i, x_j], -1)).tanh()
        return out if edge_weight is None else out * edge_weight[:, None]


class Net(nn.Module):
    """A user's model, with containers inside of containers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = pyg.GCNConv(F, 8)
        self.rest = nn.ModuleList([nn.ModuleDict({"conv": pyg.SAGEConv(8, 8)}), Wrapped()])
        self.last = pyg.GATConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        x = self.rest[0]["conv"](x, edge_index).relu()
        return self.last(self.rest[1](x, edge_index), edge_index)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.GraphConv(8, 8)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.conv(x, edge_index=edge_index).relu()


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(F, 8), nn.ReLU(), nn.Linear(8, 4))


# Layers, and the argument that carries a value per edge.
LAYERS: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "gcn": (lambda: pyg.GCNConv(F, 4), "edge_weight"),
    "gcn-without-loops": (lambda: pyg.GCNConv(F, 4, add_self_loops=False), "edge_weight"),
    "gat": (lambda: pyg.GATConv(F, 4, heads=3), None),
    "gat-attributes": (lambda: pyg.GATConv(F, 4, heads=2, edge_dim=2), "edge_attr"),
    "gatv2": (lambda: pyg.GATv2Conv(F, 4, heads=2), None),
    "sage": (lambda: pyg.SAGEConv(F, 4), None),
    "sage-max": (lambda: pyg.SAGEConv(F, 4, aggr="max"), None),
    "gin": (lambda: pyg.GINConv(mlp()), None),
    "graph": (lambda: pyg.GraphConv(F, 4), "edge_weight"),
    "simple": (lambda: pyg.SimpleConv(), "edge_weight"),
    "simple-mean": (lambda: pyg.SimpleConv(aggr="mean", combine_root="self_loop"), None),
    "appnp": (lambda: pyg.APPNP(K=3, alpha=0.1), "edge_weight"),
    "sg": (lambda: pyg.SGConv(F, 4, K=2), "edge_weight"),
    "transformer": (lambda: pyg.TransformerConv(F, 4, heads=2, edge_dim=2), "edge_attr"),
    "gine": (lambda: pyg.GINEConv(mlp(), edge_dim=2), "edge_attr"),
    "nn": (lambda: pyg.NNConv(F, 4, nn.Linear(2, 4 * F)), "edge_attr"),
    "rgcn": (lambda: pyg.RGCNConv(F, 4, num_relations=3), "edge_type"),
    "own": (Own, "edge_weight"),
}
SUPPORTED = [name for name, (make, _) in LAYERS.items() if type(make()) in propagation.FACTORS]
PYG_MODELS: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: pyg.GCN(F, 8, num_layers=2, out_channels=3),
    "GAT": lambda: pyg.GAT(F, 8, num_layers=2, out_channels=3, heads=2),
    "GraphSAGE": lambda: pyg.GraphSAGE(F, 8, num_layers=2, out_channels=3),
    "GIN": lambda: pyg.GIN(F, 8, num_layers=2, out_channels=3),
    "Net": Net,
}


def graph() -> Tensor:
    """Undirected, without self-loops or duplicates; node 11 isolated."""
    pairs = torch.combinations(torch.arange(N - 1))[::3].T
    return torch.cat([pairs, pairs.flip(0)], 1)


def messy() -> Tensor:
    """Directed, with self-loops and duplicates."""
    return torch.cat([graph()[:, :20], torch.tensor([[0, 4, 4, 1, 1], [0, 4, 4, 5, 5]])], 1)


def features(channels: int = F) -> Tensor:
    return torch.randn(N, channels, dtype=torch.float64)


def values(argument: str | None, edge_index: Tensor) -> dict[str, Tensor]:
    """Return a layer's argument by edge: the same for both directions, positive."""
    total, product = edge_index.sum(0), edge_index.prod(0)
    numbers = 0.5 + ((7 * total + 3 * product) % 11).double() / 10
    match argument:
        case "edge_weight":
            return {argument: numbers}
        case "edge_attr":
            return {argument: torch.stack([numbers, numbers.cos()], 1)}
        case "edge_type":
            return {argument: (total + product) % 3}
    return {}


def run(layer: nn.Module, spec: Any, seed: int, *args: Any, **kwargs: Any) -> Tensor:
    """Return the output with an operator attached under a seed."""
    with attach(layer, spec) as handle:
        handle.operator.start_pass(seed)
        out: Tensor = layer(*args, **kwargs)
        handle.operator.end_pass()
    return out


def makes_sense(name: str, spec: str) -> bool:
    return not ("max" in name and "edge" in spec and spec in BEHIND)


# --- the right masks -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("edges", [graph, messy])
@pytest.mark.parametrize("spec", ["drop-edge:p=0.4", "drop-edge:p=0.4,protect_self_loops=false"])
def test_dropped_edges_are_as_if_never_there(
    name: str, edges: Callable[[], Tensor], spec: str
) -> None:
    """The plain layer on the kept edges; over all steps of a propagation it is one graph."""
    make, argument = LAYERS[name]
    layer, x, edge_index = make().double(), features(), edges()
    operator = make_operator(spec)
    assert isinstance(operator, EdgeOperator)
    kept = operator.start_pass(5).kept_edges(Graph(edge_index), operator.next_mask(0))
    assert 0 < kept.sum() < len(kept)
    by_edge = values(argument, edge_index)
    expected = layer(x, edge_index[:, kept], **{k: v[kept] for k, v in by_edge.items()})
    torch.testing.assert_close(run(layer, spec, 5, x, edge_index, **by_edge), expected)
    positional = run(layer, spec, 5, x, edge_index, *by_edge.values())
    torch.testing.assert_close(positional, expected)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("spec", [spec for spec in SPECS if "message" not in spec][:3])
def test_feature_masks_act_at_the_input(name: str, spec: str) -> None:
    make, argument = LAYERS[name]
    layer, x, edge_index = make().double(), features(), messy()
    operator = make_operator(spec)
    assert isinstance(operator, FeatureOperator)
    masked = operator.mask_features(x, operator.start_pass(5).next_mask(0))
    by_edge = values(argument, edge_index)
    expected = layer(masked, edge_index, **by_edge)
    torch.testing.assert_close(run(layer, spec, 5, x, edge_index, **by_edge), expected)


@pytest.mark.parametrize(
    ("name", "spec"), [pair for pair in product(LAYERS, BEHIND) if makes_sense(*pair)]
)
@pytest.mark.parametrize("edges", [graph, messy])
def test_messages_are_masked_behind_the_normalization(
    name: str, edges: Callable[[], Tensor], spec: str
) -> None:
    """A hook of our own multiplies each step's messages by the stand-alone operator's factors."""
    make, argument = LAYERS[name]
    layer, x, edge_index = make().double(), features(), edges()
    by_edge = values(argument, edge_index)
    out = run(layer, spec, 5, x, edge_index, **by_edge)

    operator = make_operator(spec).start_pass(5)
    seen: list[Tensor] = []

    def before(layer: Any, inputs: Any) -> None:
        seen.append(inputs[0])

    def mask(layer: Any, inputs: Any, messages: Tensor) -> Tensor:
        if isinstance(operator, DropMessage):
            return operator(messages, seen[-1])
        ends = Graph(seen[-1])
        drop = operator.next_mask(0)
        factor = operator.kept_edges(ends, drop) * operator.edge_scale(ends, drop)
        return messages * factor.view(-1, *[1] * (messages.dim() - 1))

    any_layer: Any = layer
    any_layer.register_propagate_forward_pre_hook(before)
    any_layer.register_message_forward_hook(mask)
    torch.testing.assert_close(out, layer(x, edge_index, **by_edge))
    assert seen


FORMS: dict[str, Callable[[Tensor, Tensor | None], tuple[Any, Tensor | None]]] = {
    "permuted": lambda ends, weight: (
        ends[:, shuffled(ends)],
        None if weight is None else weight[shuffled(ends)],
    ),
    "EdgeIndex": lambda ends, weight: (EdgeIndex(ends, sparse_size=(N, N)), weight),
    "EdgeIndex by source": lambda ends, weight: by_order(ends, weight, "row"),
    "EdgeIndex by target": lambda ends, weight: by_order(ends, weight, "col"),
    "CSR": lambda ends, weight: (to_csr(matrix(ends, weight)), None),
    "COO": lambda ends, weight: (matrix(ends, weight).to_sparse_coo(), None),
    "CSC": lambda ends, weight: (matrix(ends, weight).to_sparse_csc(), None),
}


def shuffled(ends: Tensor) -> Tensor:
    return torch.randperm(ends.size(1), generator=torch.Generator().manual_seed(1))


def by_order(ends: Tensor, weight: Tensor | None, order: Any) -> tuple[Any, Tensor | None]:
    sorted_, place = EdgeIndex(ends, sparse_size=(N, N)).sort_by(order)
    return sorted_, None if weight is None else weight[place]


def matrix(ends: Tensor, weight: Tensor | None) -> Tensor:
    dense = torch.zeros(N, N)
    dense[ends[1], ends[0]] = 1.0 if weight is None else weight
    return dense


# PyG takes CSC where it multiplies at once, nowhere else.
NO_CSC = {"gcn", "gcn-without-loops", "gat", "gatv2", "simple-mean", "appnp", "sg", "own"}


@pytest.mark.parametrize(
    ("name", "form", "weighted"),
    [
        (name, form, weighted)
        for name, (_, argument) in LAYERS.items()
        for form in FORMS
        for weighted in (False, True)
        if argument == "edge_weight" or (argument is None and not weighted)
        if not (form == "CSC" and name in NO_CSC)
    ],
)
def test_every_form_of_a_graph_has_the_same_masks(name: str, form: str, weighted: bool) -> None:
    make, argument = LAYERS[name]
    layer, x, edge_index = make(), features().float(), graph()
    weight = values(argument, edge_index)["edge_weight"].float() if weighted else None
    other, other_weight = FORMS[form](edge_index, weight)
    weights = () if weight is None else (weight,)
    other_weights = () if other_weight is None else (other_weight,)
    plain = layer(x, other, *other_weights)
    torch.testing.assert_close(plain, layer(x, edge_index, *weights))
    for spec in SPECS:
        if makes_sense(name, spec):
            expected = run(layer, spec, 5, x, edge_index, *weights)
            assert not torch.allclose(expected, plain), f"{spec} did nothing"
            torch.testing.assert_close(
                run(layer, spec, 5, x, other, *other_weights), expected, msg=f"{spec} differs"
            )


@pytest.mark.parametrize("spec", SPECS)
def test_indices_of_32_bits(spec: str) -> None:
    """As scipy makes them; PyG takes them where it multiplies a sparse matrix at once."""
    layer, x, edge_index = LAYERS["sage"][0](), features().float(), graph()
    adjacency = to_csr(matrix(edge_index, None))
    short = torch.sparse_csr_tensor(
        adjacency.crow_indices().int(), adjacency.col_indices().int(), adjacency.values(), (N, N)
    )
    expected = run(layer, spec, 5, x, edge_index)
    torch.testing.assert_close(run(layer, spec, 5, x, short), expected)
    torch.testing.assert_close(run(layer, spec, 5, x, edge_index.int()), expected)


@pytest.mark.parametrize(
    ("name", "spec"), [pair for pair in product(SUPPORTED, SPECS) if makes_sense(*pair)]
)
@pytest.mark.parametrize("edges", [graph, messy])
def test_the_fused_path_equals_the_general_one(
    name: str, edges: Callable[[], Tensor], spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, argument = LAYERS[name]
    layer, x, edge_index = make().double(), features().requires_grad_(), edges()
    by_edge = values(argument, edge_index)
    if argument == "edge_weight" and "gcn" not in name and name != "appnp":
        by_edge[argument].requires_grad_()
    inputs = [x, *layer.parameters(), *(v for v in by_edge.values() if v.requires_grad)]
    calls = 0

    def counted(real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            nonlocal calls
            calls += 1
            return real(*args, **kwargs)

        return call

    for kernel in ("aggregate", "convolve"):
        monkeypatch.setattr(propagation, kernel, counted(getattr(propagation, kernel)))

    def results() -> list[Tensor]:
        out = run(layer, spec, 5, x, edge_index, **by_edge)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        return [out, *torch.autograd.grad((out * weights).sum(), inputs, allow_unused=True)]

    fused, fused_calls = results(), calls
    any_layer: Any = layer
    hook = any_layer.register_message_forward_hook(lambda *args: None)
    general = results()
    hook.remove()
    is_linear = layer.aggr in ("sum", "add", "mean")
    is_attention = name == "gat" and spec.startswith("drop-edge")  # weights of zero
    assert bool(fused_calls) == ((spec in BEHIND or is_attention) and is_linear)
    assert calls == fused_calls
    for one, other in zip(fused, general, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("share", ["layer", "forward"])
@pytest.mark.parametrize("spec", ["drop-message:p=0.4", "drop-edge:p=0.4,rescale=inverse"])
def test_survival_does_not_compound_over_steps(spec: str, share: str) -> None:
    """With alpha = 1 every step starts from the features, so that a zero is a dropped message."""
    layer, x = pyg.APPNP(K=8, alpha=1.0), torch.ones(400, 1)
    edge_index = torch.stack([torch.arange(400), (torch.arange(400) + 1) % 400])
    steps: list[Tensor] = []
    with attach(layer, f"{spec},share={share}") as handle:
        any_layer: Any = layer
        any_layer.register_message_forward_hook(lambda layer, inputs, out: steps.append(out != 0))
        handle.operator.start_pass(0)
        layer(x, edge_index)
    assert len(steps) == 8
    for step in steps:
        kept = step[:400].double().mean()  # the edges; self-loops follow
        assert abs(kept - 0.6) < 5 * (0.4 * 0.6 / 400) ** 0.5
        assert torch.equal(step, steps[0]) == (share == "forward" or step is steps[0])


def test_unbiased_means() -> None:
    """rescale=inverse: the mean over many seeds is the clean output, in sums, means, attention."""
    x, edge_index, samples = features(), messy(), 800
    for name in ("gcn", "sage", "gat", "graph"):
        layer = LAYERS[name][0]().double()
        clean = layer(x, edge_index)
        for spec in ("drop-edge:p=0.3,rescale=inverse", "drop-message:p=0.3"):
            with attach(layer, spec) as handle:
                outs = []
                for seed in range(samples):
                    handle.operator.start_pass(seed)
                    outs.append(layer(x, edge_index).detach())
            found = torch.stack(outs)
            error = 6 * found.std(0) / samples**0.5 + 1e-9
            assert bool(((found.mean(0) - clean).abs() < error).all()), (name, spec)


class Silencing(DropMessage):
    """A plug-in with a way of its own to mask messages."""

    def mask_messages(self, messages: Tensor, *args: Any) -> Tensor:
        return messages * 0


class Thinning(DropEdge):
    """A plug-in with a way of its own to choose edges."""

    def kept_edges(self, graph: Graph, *args: Any) -> Tensor:
        return graph.source < graph.target


@pytest.mark.parametrize("name", ["graph", "transformer"])
def test_what_a_plug_in_overrides_is_called(name: str) -> None:
    """Also where messages need not be formed."""
    make, argument = LAYERS[name]
    layer, x, edge_index = make().double(), features(), graph()
    by_edge = values(argument, edge_index)
    nothing = layer(x, edge_index[:, :0], **{key: value[:0] for key, value in by_edge.items()})
    torch.testing.assert_close(run(layer, Silencing(), 1, x, edge_index, **by_edge), nothing)
    kept = edge_index[0] < edge_index[1]
    upper = layer(x, edge_index[:, kept], **{key: value[kept] for key, value in by_edge.items()})
    torch.testing.assert_close(run(layer, Thinning(), 1, x, edge_index, **by_edge), upper)


# --- bipartite inputs ----------------------------------------------------------------------------

BIPARTITE = {
    "sage": lambda: pyg.SAGEConv((F, 5), 4),
    "graph": lambda: pyg.GraphConv((F, 5), 4),
    "gat": lambda: pyg.GATConv((F, 5), 4, heads=2, add_self_loops=False),
}


def bipartite_graph() -> Tensor:
    """Return edges from 12 sources to 7 targets that look undirected, with pairs (i, i)."""
    pairs = torch.tensor([[0, 1, 2, 3, 4, 5, 1, 2], [0, 1, 2, 3, 4, 5, 2, 3]])
    return torch.cat([pairs, pairs[:, 6:].flip(0), torch.tensor([[11, 9], [6, 0]])], 1)[:, :10]


@pytest.mark.parametrize("name", BIPARTITE)
def test_source_and_target_i_are_different_nodes(name: str) -> None:
    layer, edge_index = BIPARTITE[name]().double(), bipartite_graph()
    x = features(), features(5)[:7]
    assert Graph(edge_index).is_undirected  # if the two sides were one
    for spec in ("drop-edge:p=0.6", "drop-edge:p=0.6,rescale=inverse"):
        operator = make_operator(spec + ",symmetric=false,protect_self_loops=false").start_pass(5)
        kept = operator.kept_edges(Graph(edge_index), operator.next_mask(0))
        assert not bool(kept[edge_index[0] == edge_index[1]].all())
        out = run(layer, spec, 5, x, edge_index)
        if operator.rescale == "renormalize":
            torch.testing.assert_close(out, layer(x, edge_index[:, kept]))
        else:
            any_layer: Any = layer
            factor = kept / 0.4
            hook = any_layer.register_message_forward_hook(
                lambda layer, inputs, out, factor=factor: (
                    out * factor.view(-1, *[1] * (out.dim() - 1))
                )
            )
            torch.testing.assert_close(out, layer(x, edge_index))
            hook.remove()


@pytest.mark.parametrize("name", BIPARTITE)
def test_features_of_both_sides_are_masked(name: str) -> None:
    layer, edge_index = BIPARTITE[name]().double(), bipartite_graph()
    x = features(), features(5)[:7]
    operator = Dropout(p=0.4).start_pass(5)
    masked = tuple(operator.mask_features(side, operator.next_mask(0)) for side in x)
    torch.testing.assert_close(
        run(layer, "dropout:p=0.4", 5, x, edge_index), layer(masked, edge_index)
    )


@pytest.mark.parametrize("name", ["sage", "graph", "gat"])
@pytest.mark.parametrize("spec", SPECS)
def test_bipartite_without_targets(name: str, spec: str) -> None:
    """The number of targets is told by `size`, or by an EdgeIndex."""
    layer, edge_index = BIPARTITE[name]().double(), bipartite_graph()
    x = features(), None
    by_size = run(layer, spec, 5, x, edge_index, size=(N, 7))
    assert by_size.shape[0] == 7
    if name != "gat":  # PyG's edge_updater forgets the size of an EdgeIndex
        by_index = run(layer, spec, 5, x, EdgeIndex(edge_index, sparse_size=(N, 7)))
        torch.testing.assert_close(by_index, by_size)
    assert run(layer, spec, 5, x, edge_index, size=(N, None)).shape[0] == N


# --- whole models --------------------------------------------------------------------------------


def shape_of(module: nn.Module) -> list[tuple[str, Any]]:
    """Describe a model: attributes, methods that were replaced, hooks, and its state."""
    found: list[tuple[str, Any]] = []
    for name, part in module.named_modules():
        for key, value in part.__dict__.items():
            if key.endswith("hooks") or "hooks_" in key or key == "_modules":
                found.append((f"{name}.{key}", list(value)))
            else:
                found.append((f"{name}.{key}", None))
        methods = ("forward", "propagate", "message", "aggregate", "update")
        found += [(f"{name}.{it}()", getattr(part, it)) for it in methods if hasattr(part, it)]
    return found + [(key, value.clone()) for key, value in module.state_dict().items()]


def same_shape(one: list[tuple[str, Any]], other: list[tuple[str, Any]]) -> bool:
    return len(one) == len(other) and all(
        a[0] == b[0] and (torch.equal(a[1], b[1]) if isinstance(a[1], Tensor) else a[1] == b[1])
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("name", PYG_MODELS)
@pytest.mark.parametrize("spec", SPECS)
def test_life_of_an_attached_model(name: str, spec: str) -> None:
    model, x, edge_index = PYG_MODELS[name]().double(), features(), messy()
    before, shape = model(x, edge_index), shape_of(model)
    keys = list(model.state_dict())
    inputs = [(value, value.clone(), value._version) for value in (x, edge_index)]
    handle = attach(model, spec)
    assert handle.layers == tuple(
        name for name, module in model.named_modules() if isinstance(module, MessagePassing)
    )
    assert list(model.state_dict()) == keys
    assert list(model.parameters())

    torch.manual_seed(3)
    first, second = model(x, edge_index), model(x, edge_index)
    assert not torch.allclose(first, before)
    assert not torch.allclose(first, second)
    torch.manual_seed(3)
    assert torch.equal(model(x, edge_index), first)

    state = torch.get_rng_state()
    seeded = []
    for seed in (1, 1, 2):
        handle.operator.start_pass(seed)
        seeded.append(model(x, edge_index))
        assert handle.operator.in_pass
        handle.operator.end_pass()
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.allclose(seeded[0], seeded[2])
    model.eval()
    assert torch.equal(model(x, edge_index), before)
    assert torch.equal(torch.get_rng_state(), state)
    model.train()
    assert not torch.allclose(model(x, edge_index), before)

    for value, clone, version in inputs:
        assert torch.equal(value, clone)
        assert value._version == version
    handle.remove()
    handle.remove()
    assert same_shape(shape_of(model), shape)
    assert torch.equal(model(x, edge_index), before)


@pytest.mark.parametrize("name", PYG_MODELS)
@pytest.mark.parametrize("spec", [spec.replace("0.4", "0") for spec in SPECS])
def test_a_rate_of_zero_is_the_identity_to_the_bit(name: str, spec: str) -> None:
    """In float32, on a graph large enough for another order or rounding of the sums to show."""
    model = PYG_MODELS[name]()
    edge_index, x = torch.randint(0, 90, (2, 2000)), torch.randn(90, F)
    before = model(x, edge_index)
    state = torch.get_rng_state()
    with attach(model, spec):
        assert torch.equal(model(x, edge_index), before)
    with attach(model, spec.replace("p=0", "p=0.5")):
        model.eval()
        assert torch.equal(model(x, edge_index), before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("form", ["CSR", "EdgeIndex by target"])
def test_evaluation_on_other_forms_is_the_identity_to_the_bit(form: str) -> None:
    edge_index, x = graph(), torch.randn(N, F)
    adjacency, _ = FORMS[form](edge_index, None)
    for name in ("gcn", "graph", "sage", "gat"):
        layer = LAYERS[name][0]().eval()
        before = layer(x, adjacency)
        for spec in SPECS:
            with attach(layer, spec):
                assert torch.equal(layer(x, adjacency), before)


@pytest.mark.parametrize("spec", SPECS)
def test_an_operator_follows_the_mode_of_its_model(spec: str) -> None:
    model, x, edge_index = PYG_MODELS["GCN"](), torch.randn(N, F), graph()
    before = model.eval()(x, edge_index)
    handle = attach(model, spec)  # the model is in evaluation already
    assert torch.equal(model(x, edge_index), before)
    assert not handle.operator.training
    model.train()
    assert not torch.allclose(model(x, edge_index), before)
    container = nn.ModuleList([model.convs[0]]).eval()
    handle.remove()
    with attach(container, spec) as handle:
        assert not handle.operator.training
        container.train()
        assert handle.operator.training


@pytest.mark.parametrize("spec", SPECS)
def test_precision_follows_the_model(spec: str) -> None:
    model, edge_index = PYG_MODELS["GCN"](), graph()
    x = torch.randn(N, F)
    with attach(model, spec) as handle:
        handle.operator.start_pass(1)
        single = model(x, edge_index)
        model.to(torch.float64)
        handle.operator.start_pass(1)
        double = model(x.double(), edge_index)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single, double.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["copy", "pickle"],
)
def test_a_copy_is_independent(spec: str, duplicate: Callable[[nn.Module], nn.Module]) -> None:
    model, x, edge_index = PYG_MODELS["GCN"](), torch.randn(N, F), graph()
    handle = attach(model, spec)
    model(x, edge_index).sum().backward()
    other = duplicate(model)
    torch.manual_seed(1)
    expected = model(x, edge_index)
    torch.manual_seed(1)
    torch.testing.assert_close(other(x, edge_index), expected)
    handle.remove()
    torch.manual_seed(1)
    torch.testing.assert_close(other(x, edge_index), expected)
    (operator,) = [m for m in other.modules() if type(m) is type(handle.operator)]
    assert operator is not handle.operator
    clean = model.eval()(x, edge_index)
    assert not torch.allclose(other(x, edge_index), clean)
    assert torch.equal(other.eval()(x, edge_index), clean)


def test_a_copy_of_the_handle_detaches_the_copy() -> None:
    model, x, edge_index = PYG_MODELS["GCN"](), torch.randn(N, F), graph()
    before, shape = model(x, edge_index), shape_of(model)
    handle = attach(model, "drop-message")
    other, other_handle = copy.deepcopy((model, handle))
    other_handle.remove()
    assert torch.equal(other(x, edge_index), before)
    assert sorted(name for name, _ in shape_of(other)) == sorted(name for name, _ in shape)
    assert not torch.equal(model(x, edge_index), before)


# --- masks of a pass -----------------------------------------------------------------------------


class Shared(nn.Module):
    """One layer, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = pyg.SimpleConv()
        self.other = pyg.SimpleConv()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return torch.stack(
            [self.conv(x, edge_index) for _ in range(3)] + [self.other(x, edge_index)]
        )


@pytest.mark.parametrize("spec", SPECS)
def test_calls_of_a_shared_layer_are_counted(spec: str) -> None:
    model, x, edge_index = Shared(), torch.rand(N, F) + 1, graph()
    fresh = run(model, spec, 3, x, edge_index)
    assert not any(torch.allclose(a, b) for a, b in combinations(fresh, 2))
    shared = run(model, spec + ",share=forward", 3, x, edge_index)
    assert all(torch.equal(out, shared[0]) for out in shared)
    assert torch.equal(shared[0], fresh[0])  # the first layer's first call
    assert torch.equal(run(model, spec, 3, x, edge_index), fresh)  # calls count from 0 again


@pytest.mark.parametrize("spec", SPECS)
def test_a_layer_keeps_its_masks_when_others_are_left_out(spec: str) -> None:
    model, x, edge_index = Shared(), torch.rand(N, F), graph()
    both = run(model, spec, 1, x, edge_index)
    with attach(model, spec, layers=["other"]) as handle:
        assert handle.layers == ("other",)
        handle.operator.start_pass(1)
        alone = model(x, edge_index)
    assert torch.equal(alone[3], both[3])
    assert torch.equal(alone[0], model.conv(x, edge_index))


def test_layers_may_be_one_name_or_any_iterable() -> None:
    model = PYG_MODELS["GCN"]()
    for layers in ("convs.1", ["convs.1"], iter(["convs.1"]), {"convs.1"}):
        with attach(model, "drop-edge", layers=layers) as handle:
            assert handle.layers == ("convs.1",)
    linear = nn.Sequential(nn.Linear(F, F), nn.ReLU(), nn.Linear(F, F))
    with attach(linear, "dropout:p=1", layers=["2"]) as handle:
        assert handle.layers == ("2",)
        assert torch.equal(linear(torch.ones(3, F)), linear[2].bias.expand(3, F))
        assert len(linear) == 3


def test_layers_called_directly() -> None:
    """Each call of a layer outside of its model is a pass of its own."""
    layers, x, edge_index = (
        nn.ModuleList([pyg.SimpleConv(), pyg.SimpleConv()]),
        torch.rand(N, F),
        graph(),
    )
    with attach(layers, "drop-message:p=0.4") as handle:
        assert len(layers) == 2
        assert handle.layers == ("0", "1")
        torch.manual_seed(1)
        outs = [layer(x, edge_index) for layer in layers]
        torch.manual_seed(1)
        assert all(
            torch.equal(layer(x, edge_index), out) for layer, out in zip(layers, outs, strict=True)
        )
        assert not torch.allclose(*outs)
        assert not handle.operator.in_pass
        shared = DropMessage(share="forward")
    with attach(layers, shared):
        shared.start_pass(1)
        outs = [layer(x, edge_index) for layer in layers]
        assert torch.equal(*outs)


@pytest.mark.parametrize("spec", [*SPECS, "none"])
def test_containers_do_not_take_the_operator_for_a_layer(spec: str) -> None:
    x, edge_index = torch.rand(N, F), graph()
    blocks = pyg.Sequential(
        "x, edge_index",
        [
            (pyg.GCNConv(F, 8), "x, edge_index -> x"),
            nn.ReLU(),
            (pyg.SAGEConv(8, 3), "x, edge_index -> x"),
        ],
    )
    listed = nn.ModuleList([pyg.GCNConv(F, F), pyg.GATConv(F, F)])
    named = nn.ModuleDict({"a": pyg.GCNConv(F, F), "b": pyg.GATConv(F, F)})
    for model in (listed, named, nn.Sequential(blocks), blocks):
        length = len(model)
        with attach(model, spec):
            assert len(model) == length
            assert [type(layer) for layer in listed] == [pyg.GCNConv, pyg.GATConv]
            assert list(named) == ["a", "b"]
        assert len(model) == length
    with attach(blocks, spec):
        outs = [blocks(x, edge_index) for _ in range(2)]
        assert torch.equal(*outs) == (spec == "none")


@pytest.mark.parametrize("spec", SPECS)
def test_in_a_sequential_of_torch(spec: str) -> None:
    """A layer that takes one argument, as in a model with a fixed graph."""

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = pyg.GCNConv(F, F)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x, graph())

    model, x = nn.Sequential(Fixed(), nn.ReLU(), Fixed()), torch.rand(N, F)
    before = model(x)
    with attach(model, spec) as handle:
        assert handle.layers == ("0.conv", "2.conv")
        assert not torch.allclose(model(x), before)
        assert torch.equal(model.eval()(x), before)
    assert torch.equal(model.train()(x), before)


# --- never stale ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gcn", "appnp", "sage", "gat", "graph", "own"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_graph_that_changed_is_noticed(name: str, spec: str) -> None:
    make, argument = LAYERS[name]
    layer, x, edge_index = make().double(), features(), graph()
    weight = values(argument, edge_index).get("edge_weight")
    weights = [] if weight is None else [weight]
    with attach(layer, spec) as handle:

        def out(*inputs: Any) -> Tensor:
            handle.operator.start_pass(1)
            result: Tensor = layer(x, *inputs)
            return result

        first = out(edge_index, *weights)
        smaller = edge_index[:, :-4]
        expected = out(smaller, *(w[:-4] for w in weights))
        assert not torch.allclose(first, expected)
        assert torch.equal(out(edge_index, *weights), first)
        edge_index[:, 0] = torch.tensor([3, 7])
        changed = out(edge_index, *weights)
        assert torch.equal(out(edge_index.clone(), *(w.clone() for w in weights)), changed)
        assert not torch.allclose(changed, first)
        if weights:
            weights[0][::2] = 9.0
            heavier = out(edge_index, *weights)
            assert not torch.allclose(heavier, changed)
            assert torch.equal(out(edge_index, weights[0].clone()), heavier)


@pytest.mark.parametrize("name", PYG_MODELS)
@pytest.mark.parametrize("spec", BEHIND)
def test_inference_mode_leaves_nothing_that_training_cannot_use(name: str, spec: str) -> None:
    model, x, edge_index = PYG_MODELS[name](), torch.randn(N, F), graph()
    with attach(model, spec):
        model.eval()
        with torch.inference_mode():
            model(x, edge_index)
            model.train()
            model(x, edge_index)
        model(x, edge_index).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


# --- exceptions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_an_exception_leaves_no_pass_open(spec: str) -> None:
    model, x, edge_index = PYG_MODELS["Net"](), torch.randn(N, F), graph()
    before = model(x, edge_index)
    with attach(model, spec) as handle:

        def fail(*args: Any) -> None:
            raise KeyError("in the middle")

        hook = model.rest[1].register_forward_pre_hook(fail)
        torch.manual_seed(0)
        seeds = []
        for _ in range(2):
            with pytest.raises(KeyError, match="in the middle"):
                model(x, edge_index)
            assert not handle.operator.in_pass
            seeds.append(torch.get_rng_state())
        assert not torch.equal(*seeds)  # each attempt had a seed of its own
        hook.remove()
        outs = [model(x, edge_index) for _ in range(2)]
        assert not torch.allclose(*outs)
        with pytest.raises(KeyError), attach(model, "drop-node"):
            raise KeyError
    assert torch.equal(model(x, edge_index), before)


def test_wrong_arguments_leave_no_pass_open() -> None:
    model, x = PYG_MODELS["GCN"](), torch.randn(N, F)
    with attach(model, "drop-edge") as handle:
        with pytest.raises(TypeError):
            model(x)
        with pytest.raises(GnndropError, match="edge_index must be int64"):
            model(x, graph().float())
        assert not handle.operator.in_pass


# --- several operators, other people's hooks -----------------------------------------------------


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize(
    "specs",
    [
        ("dropout:p=0.3", "drop-edge:p=0.3", "drop-message:p=0.3"),
        ("drop-message:p=0.3", "drop-message:p=0.2", "drop-edge:p=0.3,rescale=inverse"),
    ],
)
def test_operators_are_removed_in_any_order(specs: tuple[str, ...], order: tuple[int, ...]) -> None:
    model, x, edge_index = PYG_MODELS["Net"]().double(), features(), graph()
    before, shape = model(x, edge_index), shape_of(model)

    def out(handles: list[Attachment]) -> Tensor:
        for number, handle in enumerate(handles):
            handle.operator.start_pass(number)
        result: Tensor = model(x, edge_index)
        for handle in handles:
            handle.operator.end_pass()
        return result

    handles = [attach(model, spec) for spec in specs]
    outs = [out(handles)]
    for place in order:
        handles[place].remove()
        outs.append(out(handles))
    assert not any(torch.allclose(a, b) for a, b in pairwise(outs))
    assert torch.equal(outs[-1], before)
    assert same_shape(shape_of(model), shape)


def test_two_operators_multiply() -> None:
    """Both masks act, in the one dense computation."""
    layer, x, edge_index = pyg.SimpleConv(), features(), graph()
    ones = torch.ones(edge_index.size(1), F, dtype=torch.float64)
    first = DropMessage(p=0.3).start_pass(1)(ones, edge_index)
    second = DropMessage(p=0.2).start_pass(2)(ones, edge_index)
    expected = torch.zeros_like(x).index_add_(0, edge_index[1], x[edge_index[0]] * first * second)
    for adjacency in (edge_index, to_csr(matrix(edge_index, None).double())):
        with attach(layer, "drop-message:p=0.3") as one, attach(layer, "drop-message:p=0.2") as two:
            one.operator.start_pass(1)
            two.operator.start_pass(2)
            torch.testing.assert_close(layer(x, adjacency), expected)


@pytest.mark.parametrize("spec", SPECS)
def test_hooks_of_the_user_survive(spec: str) -> None:
    layer, x, edge_index = pyg.GCNConv(F, 4), torch.randn(N, F), graph()
    before = layer(x, edge_index)
    fired: list[str] = []
    any_layer: Any = layer
    layer.register_forward_hook(lambda *args: fired.append("forward"))
    any_layer.register_message_forward_hook(lambda *args: fired.append("message"))
    with attach(layer, spec):
        any_layer.register_propagate_forward_pre_hook(lambda *args: fired.append("propagate"))
        layer(x, edge_index)
        assert sorted(fired) == ["forward", "message", "propagate"]
    fired.clear()
    assert torch.equal(layer(x, edge_index), before)
    assert sorted(fired) == ["forward", "message", "propagate"]


def test_explanation_while_attached() -> None:
    """PyG puts its own method there; ours must not come back, nor stay."""
    layer, x, edge_index = pyg.GCNConv(F, 4), torch.randn(N, F), graph()
    before = layer(x, edge_index)
    handle = attach(layer, "drop-message:p=0.4")
    layer.explain = True
    layer.explain = False
    handle.operator.start_pass(1)
    torch.testing.assert_close(
        layer(x, edge_index), run(pickled(layer, handle), "drop-message:p=0.4", 1, x, edge_index)
    )
    handle.remove()
    assert "forward" not in layer.__dict__
    assert not isinstance(layer.__dict__.get("propagate"), propagation.Propagation)
    assert torch.equal(layer(x, edge_index), before)


def pickled(layer: nn.Module, handle: Attachment) -> nn.Module:
    """Return a clean copy of an attached layer."""
    other, other_handle = copy.deepcopy((layer, handle))
    other_handle.remove()
    return other


def test_learned_values_of_a_sparse_adjacency() -> None:
    """They get their gradient, and are let go."""
    edge_index, x = graph(), features()
    weight = torch.rand(edge_index.size(1), dtype=torch.float64, requires_grad=True)
    layer = pyg.SAGEConv(F, 4).double()
    order = torch.argsort(edge_index[1] * N + edge_index[0])
    coo = torch.sparse_coo_tensor(edge_index.flip(0)[:, order], weight[order], (N, N)).coalesce()
    with attach(layer, "drop-message:p=0.4") as handle:
        handle.operator.start_pass(1)
        layer(x, coo).sum().backward()
        copy.deepcopy(layer)  # would refuse a part of somebody's computation
    ones = DropMessage(p=0.4).start_pass(1)(torch.ones(edge_index.size(1), F).double(), edge_index)
    degree = torch.bincount(edge_index[1], minlength=N)
    ends = (layer.lin_l.weight.sum(0) * x[edge_index[0]] * ones).sum(1) / degree[edge_index[1]]
    torch.testing.assert_close(weight.grad, ends)


# --- sparse features -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gcn", "gat", "mlp"])
@pytest.mark.parametrize("spec", SPECS[:3])
def test_sparse_features(name: str, spec: str) -> None:
    model = models.MODELS.make(name, in_channels=F, hidden_channels=8, out_channels=3).double()
    x, edge_index = features().relu(), graph()
    with attach(model, spec) as handle:
        outs = []
        for inputs in (x, to_csr(x)):
            handle.operator.start_pass(2)
            outs.append(model(inputs, edge_index))
    torch.testing.assert_close(*outs)
    assert not torch.allclose(outs[0], model(x, edge_index))


@pytest.mark.parametrize("layout", ["plain", "tuned"])
@pytest.mark.parametrize("kind", [models.MLP, models.GCN])
def test_layers_are_listed_by_a_model_inside_of_another(kind: Any, layout: Any) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = kind(4, 8, 3, layout=layout)
            self.outer = pyg.SAGEConv(3, 3)

    model = Wrapper()
    names = attach(model.inner, "dropout").layers
    expected = (*(f"inner.{name}" for name in names), "outer")
    assert attach(model, "drop-feature").layers == expected


def test_the_mlp_drops_at_every_linear_layer() -> None:
    model = models.MLP(F, 8, 3).double()
    x = features()
    operator = Dropout(p=0.4).start_pass(2)
    hidden = model.layers[0](operator.mask_features(x, operator.next_mask(0))).relu()
    expected = model.layers[1](operator.mask_features(hidden, operator.next_mask(1)))
    torch.testing.assert_close(run(model, "dropout:p=0.4", 2, x), expected)


# --- refusals ------------------------------------------------------------------------------------


def refused(model: nn.Module, spec: Any, match: str, **options: Any) -> None:
    shape = shape_of(model)
    with pytest.raises(AttachError, match=match) as caught:
        attach(model, spec, **options)
    assert isinstance(caught.value, TypeError)
    assert "\n" not in str(caught.value)
    assert same_shape(shape_of(model), shape)


class Keywords(MessagePassing):
    def forward(self, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("spec", SPECS)
def test_refused_models(spec: str) -> None:
    for layer in (
        pyg.GCNConv(F, 4, cached=True),
        pyg.SGConv(F, 4, cached=True),
        pyg.APPNP(2, 0.1, cached=True),
    ):
        refused(layer, spec, "must be built with cached=False, got cached=True")
    refused(pyg.GCN(F, 8, 2, 3, cached=True), spec, r"convs\.0 must be built with cached=False")
    relations = {("a", "to", "a"): pyg.SAGEConv((F, F), 4)}
    refused(
        nn.ModuleList([pyg.HeteroConv(relations)]),
        spec,
        "must be homogeneous, got HeteroConv at '0'",
    )
    metadata = (["a"], [("a", "to", "a")])
    hetero = pyg.to_hetero(pyg.GraphSAGE(F, 8, 2, 3), metadata)
    refused(hetero, spec, "must be homogeneous, got")
    refused(pyg.HGTConv(F, 4, metadata), spec, "must be homogeneous, got HGTConv")
    refused(Keywords(), spec, "needs a layer with an argument")
    refused(nn.Linear(F, 4), spec, "message-passing layers, got Linear, which has none")
    refused(
        PYG_MODELS["GCN"](), spec, r"no layer 'convs\.2', did you mean 'convs\.", layers=["convs.2"]
    )
    refused(PYG_MODELS["GCN"](), spec, "no layer 'convs'", layers=["convs"])
    refused(PYG_MODELS["GCN"](), spec, "layers must name one at least", layers=[])


def test_a_part_is_attached_once() -> None:
    model, part = pyg.GCN(F, 4, 2, 3), Dropout()
    attach(model, part)
    with pytest.raises(AttachError, match="must be attached once"):
        attach(model, Combined([part, "drop-edge"]))


def test_refused_operators() -> None:
    model = PYG_MODELS["GCN"]()
    handle = attach(model, DropEdge())
    refused(model, handle.operator, "must be attached once, got one that the model holds already")
    for spec in ("drop-edge:rescale=inverse", "drop-edge:rescale=none"):
        for aggregation in ("max", "min", ["sum", "mean"], pyg.aggr.SoftmaxAggregation()):
            layer = pyg.SAGEConv(F, 4, aggr=aggregation)
            refused(layer, spec, "needs a sum or a mean, got")
    for spec in ("drop-edge", "drop-edge:rescale=inverse", "drop-message"):
        refused(models.MLP(F), spec, "of message-passing layers, got MLP, which has none")
    refused(pyg.HypergraphConv(F, 4), "drop-edge", "needs a layer with an argument 'edge_index'")
    refused(pyg.HypergraphConv(F, 4), "drop-message", "needs a layer with an argument 'edge_index'")
    attach(pyg.HypergraphConv(F, 4), "dropout").remove()
    parts = pyg.SimpleConv(decomposed_layers=2)
    refused(parts, "drop-message", "must be built with decomposed_layers=1, got 2")
    refused(model, "drop-message", "no layer 'act'", layers=["act"])
    with pytest.raises(KeyError, match="did you mean 'drop-edge'"):
        attach(model, "drop-egde")
    with pytest.raises(ValueError, match="an Operator or a spec string, got float"):
        attach(model, 0.5)


@pytest.mark.parametrize("spec", SPECS)
def test_refused_inputs(spec: str) -> None:
    layer, x, edge_index = pyg.SAGEConv(F, 4), torch.rand(N, F), graph()
    with (
        attach(layer, spec),
        pytest.raises(AttachError, match="homogeneous, got a dictionary in SAGE"),
    ):
        layer({"a": x}, {("a", "to", "a"): edge_index})


def test_layers_that_form_no_messages_are_not_passed_over() -> None:
    class Silent(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return x

    for spec in BEHIND:
        with attach(Silent(), spec) as handle:
            with pytest.raises(AttachError, match="needs a layer that forms messages, got Silent"):
                handle.model(torch.rand(N, F), graph())
            assert not handle.operator.in_pass


def test_representation() -> None:
    handle = attach(PYG_MODELS["GCN"](), DropEdge(p=0.3, symmetric=False))
    assert repr(handle) == (
        "Attachment('drop-edge:p=0.3,symmetric=false', layers=['convs.0', 'convs.1'])"
    )


# --- gradient checkpointing ----------------------------------------------------------------------


class Checkpointed(nn.Module):
    """Recomputes its first layer in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = pyg.GCNConv(F, 8), pyg.GCNConv(8, 3)

    def forward(self, x: Tensor, edge_index: Tensor, recompute: bool = True) -> Tensor:
        if recompute:
            x = checkpoint(self.first, x, edge_index, use_reentrant=False)
        else:
            x = self.first(x, edge_index)
        return self.second(x.relu(), edge_index)


def derivatives(model: nn.Module, out: Tensor) -> list[Tensor]:
    model.zero_grad()
    out.square().sum().backward()
    return [out.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("spec", SPECS)
def test_recomputed_layers_never_have_other_masks(spec: str) -> None:
    model, x, edge_index = Checkpointed(), torch.randn(N, F), graph()
    with attach(model, spec) as handle:
        with pytest.raises(
            AttachError, match=r"must wrap the whole attached model, got .* GCNConv"
        ):
            derivatives(model, model(x, edge_index))
        assert not handle.operator.in_pass
        assert derivatives(model.eval(), model(x, edge_index))
    whole = PYG_MODELS["GCN"]()
    with attach(model.train().first, spec), attach(whole, spec):
        for run in (
            lambda recompute: derivatives(model, model(x, edge_index, recompute)),
            lambda recompute: derivatives(
                whole,
                checkpoint(whole, x, edge_index, use_reentrant=False)
                if recompute
                else whole(x, edge_index),
            ),
        ):
            results = []
            for recompute in (True, False):
                torch.manual_seed(5)
                results.append(run(recompute))
            for one, other in zip(*results, strict=True):
                torch.testing.assert_close(one, other)


def test_a_batch_normalization_behind_is_warned_of() -> None:
    model = pyg.GCN(F, 8, 3, 4, norm="batch")
    with pytest.warns(UserWarning, match="dropout acts before a batch normalization"):
        attach(model, "dropout").remove()
    with pytest.warns(UserWarning, match="drop-node acts before a batch normalization"):
        attach(model, "drop-edge+drop-node", layers=["convs.1"]).remove()
    attach(model, "dropout", layers="convs.2").remove()
    attach(model, "dropout:p=0").remove()
    attach(model, "drop-edge").remove()
    attach(pyg.GCN(F, 8, 3, 4, norm="layer"), "dropout").remove()
