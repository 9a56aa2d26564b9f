"""What the operators on edges have in common: which edges they keep, all layers must see alike."""

import copy
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric import EdgeIndex

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, to_csr
from gnndrop.operators import EdgeOperator, make_operator

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),  # torch calls its CSR layout beta
    pytest.mark.filterwarnings("ignore:Converting sparse"),  # PyG, of COO
]

SPECS = [
    "remove-node:p=0.4",
    "drop-agg:p=0.4",
    "drop-sens:p=0.9,retain=0.5",
    "drop-edge-plus:p=0.5",
    "drop-edge-plus:p=0.5,symmetric=false",
    "drop-edge:p=0.4,preset=rong2020",
    "drop-edge:p=0.4,fixed_count=true,protect_self_loops=false",
]
LAYERS: dict[str, Any] = {
    "gcn": lambda: pyg.GCNConv(5, 4),
    "gcn-improved": lambda: pyg.GCNConv(5, 4, improved=True),
    "gcn-loopless": lambda: pyg.GCNConv(5, 4, add_self_loops=False),
    "gcn-plain": lambda: pyg.GCNConv(5, 4, normalize=False),
    "graph": lambda: pyg.GraphConv(5, 4),
    "sage": lambda: pyg.SAGEConv(5, 4),
    "sage-max": lambda: pyg.SAGEConv(5, 4, aggr="max"),
    "gin": lambda: pyg.GINConv(torch.nn.Linear(5, 4)),
    "gat": lambda: pyg.GATConv(5, 4, heads=2),
    "appnp": lambda: pyg.APPNP(3, 0.1),
    "mean-with-loops": lambda: pyg.SimpleConv(aggr="mean", combine_root="self_loop"),
}
WEIGHTED = ("gcn", "gcn-plain", "graph", "appnp", "mean-with-loops")


def graphs() -> dict[str, Tensor]:
    """Seven nodes, the last one isolated."""
    pairs = torch.tensor([[0, 0, 1, 2, 3, 4, 1], [1, 2, 2, 3, 4, 5, 5]])
    both = torch.cat([pairs, pairs.flip(0)], 1)
    return {
        "undirected": both,
        "loops": torch.cat([both, torch.tensor([[4, 1], [4, 1]])], 1),
        "directed": torch.cat([pairs, torch.tensor([[5, 2, 2], [0, 2, 1]])], 1),
        "duplicates": torch.cat([pairs, both, torch.tensor([[3, 3], [3, 3]])], 1),
        "empty": pairs[:, :0],
    }


def features(requires_grad: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(7, 5, generator=generator, dtype=torch.float64)
    return x.requires_grad_(requires_grad)


def alone(spec: str, edge_index: Tensor, x: Tensor, seed: int) -> Tensor:
    """Return which edges the operator keeps, by the weights that it gives back."""
    operator: Any = make_operator(spec).start_pass(seed)
    more = {"x": x} if spec.startswith("drop-edge-plus") else {}
    kept, places = operator(edge_index, torch.arange(edge_index.size(1)), **more)
    assert torch.equal(kept, edge_index[:, places])
    stay = torch.zeros(edge_index.size(1), dtype=torch.bool)
    stay[places] = True
    return stay


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_see_the_kept_graph(name: str, spec: str) -> None:
    """Where loops are dropped and not added again included; values and derivatives."""
    layer = LAYERS[name]().double()
    for edge_index in graphs().values():
        for is_weighted in (False, True) if name in WEIGHTED else (False,):
            weight = 0.5 + torch.rand(
                edge_index.size(1),
                generator=torch.Generator().manual_seed(2),
                dtype=torch.float64,
            )
            for seed in range(3):
                x = features(requires_grad=True)
                stay = alone(spec, edge_index, x, seed)
                given = [weight] if is_weighted else []
                expected = layer(x, edge_index[:, stay], *[one[stay] for one in given])
                with attach(layer, spec) as handle:
                    handle.operator.start_pass(seed)
                    out = layer(x, edge_index, *given)
                torch.testing.assert_close(out, expected)
                gradients = [
                    torch.autograd.grad((one**2).sum(), x, retain_graph=True)[0]
                    for one in (out, expected)
                ]
                torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("spec", SPECS)
def test_every_form_of_a_graph(spec: str) -> None:
    edge_index, x = graphs()["loops"], features()
    order = torch.argsort(edge_index[1] * 7 + edge_index[0])
    edge_index = edge_index[:, order]
    matrix = torch.zeros(7, 7, dtype=torch.float64)
    matrix[edge_index[1], edge_index[0]] = 1
    layer = pyg.GraphConv(5, 4).double()
    forms = [edge_index, edge_index.flip(1), EdgeIndex(edge_index, sparse_size=(7, 7))]
    forms += [to_csr(matrix), matrix.to_sparse_coo(), matrix.to_sparse_csc()]
    outs = []
    with attach(layer, spec) as handle:
        for form in forms:
            handle.operator.start_pass(3)
            outs.append(layer(x, form))
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0])


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_of_an_earlier_graph_is_left(spec: str) -> None:
    """Also where the tensor is the same one, changed in place."""
    layer = pyg.GCNConv(5, 4).double()
    twin, operator = copy.deepcopy(layer), make_operator(spec)
    first, second = graphs()["undirected"], graphs()["directed"]
    changing = first.clone()
    with attach(layer, operator):
        for edge_index in (first, second, changing, changing.copy_(first.fliplr() % 4)):
            for seed in range(8):
                operator.start_pass(seed)
                out = layer(features(), edge_index)
                with attach(twin, spec) as fresh:
                    fresh.operator.start_pass(seed)
                    torch.testing.assert_close(out, twin(features(), edge_index))


@pytest.mark.parametrize("spec", SPECS)
def test_evaluation_is_clean_and_p_zero_is_the_identity(spec: str) -> None:
    edge_index, x = graphs()["loops"], features()
    layer = pyg.GCNConv(5, 4).double().requires_grad_(requires_grad=False)
    state = torch.get_rng_state()
    clean = layer(x, edge_index)
    with attach(layer.eval(), spec):
        assert torch.equal(layer(x, edge_index), clean)
    name = spec.partition(":")[0]
    with attach(layer.train(), f"{name}:p=0"):
        assert torch.equal(layer(x, edge_index), clean)
    operator: Any = make_operator(spec).eval()
    assert operator(edge_index)[0] is edge_index
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "protect" not in spec])
def test_loops_stay_once(spec: str) -> None:
    edge_index, x = graphs()["loops"], features()
    for seed in range(10):
        kept = edge_index[:, alone(spec, edge_index, x, seed)]
        assert sorted(kept[0, kept[0] == kept[1]].tolist()) == [1, 4]


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_declared_of_both_directions(spec: str) -> None:
    operator = make_operator(spec)
    assert isinstance(operator, EdgeOperator)
    edge_index, x = graphs()["undirected"], features()
    differs = False
    for seed in range(20):
        kept = edge_index[:, alone(spec, edge_index, x, seed)]
        differs |= sorted(kept.T.tolist()) != sorted(kept.flip(0).T.tolist())
    assert differs != operator.is_symmetric(Graph(edge_index))


@pytest.mark.parametrize("spec", SPECS)
def test_declared_means(spec: str) -> None:
    """Within five standard errors of 3000 samples: 60 comparisons, none fails by chance."""
    for name, edge_index in graphs().items():
        if name == "duplicates" and "plus" in spec:
            continue  # more edges than can be enumerated
        x = features()
        operator = make_operator(spec)
        assert isinstance(operator, EdgeOperator)
        edges = edge_index[:, :12] if "plus" in spec else edge_index
        samples, total = 3000, torch.zeros(edges.size(1), dtype=torch.float64)
        graph = Graph(edges)
        for seed in range(samples):
            operator.start_pass(seed)
            operator.observe(x)
            total += operator.kept_edges(graph, operator.next_mask())
        operator.end_pass()
        means = operator.mean_factors(edges, 7, x if "plus" in spec else None)
        error = (means * (1 - means) / samples).sqrt()
        assert bool(((total / samples - means).abs() <= 5 * error + 1e-12).all())


@pytest.mark.parametrize("spec", SPECS)
def test_two_sets_of_nodes(spec: str) -> None:
    layer = pyg.SAGEConv((5, 5), 4).double()
    edge_index = torch.tensor([[0, 1, 2, 6, 6], [0, 1, 2, 0, 1]])
    x = features(), features()[:3]
    with attach(layer, spec) as handle:
        handle.operator.start_pass(1)
        if spec.startswith("remove-node"):
            with pytest.raises(ParameterError, match="remove-node needs one set of nodes"):
                layer(x, edge_index)
            return
        out = layer(x, edge_index)
        handle.operator.start_pass(1)
        operator: Any = handle.operator
        stay = operator.kept_edges(Graph(edge_index), operator.next_mask(), bipartite=True)
        assert not bool(stay[:3].all()) or "drop-sens" in spec or "drop-agg" in spec
    torch.testing.assert_close(out, layer(x, edge_index[:, stay]))
