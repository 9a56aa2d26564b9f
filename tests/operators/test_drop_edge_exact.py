"""Edge dropout that keeps the expectation of the normalized adjacency, and a fixed count."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import AttachError, ParameterError
from gnndrop.graph import Graph, to_csr
from gnndrop.masks import Mask
from gnndrop.operators import DropEdge, make_operator

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),  # torch calls its CSR layout beta
    pytest.mark.filterwarnings("ignore:Converting sparse"),  # PyG, of COO
]

NODES = 6
PAIRS = torch.tensor([[0, 0, 1, 2, 3], [1, 2, 2, 3, 4]])  # node 5 is isolated
BOTH = torch.cat([PAIRS, PAIRS.flip(0)], 1)
UNDIRECTED = {
    "simple": BOTH,
    "with loops": torch.cat([BOTH, torch.tensor([[4, 1], [4, 1]])], 1),
    "star": torch.tensor([[0, 1, 0, 2, 0, 3, 0, 4], [1, 0, 2, 0, 3, 0, 4, 0]]),
    "empty": BOTH[:, :0],
}
ANY = UNDIRECTED | {
    "directed": torch.cat([PAIRS, torch.tensor([[3, 5, 1], [0, 2, 1]])], 1),
    "duplicates": torch.tensor([[0, 0, 1, 2, 2, 2], [1, 1, 0, 1, 2, 2]]),
}


def gcn() -> Any:
    layer = pyg.GCNConv(NODES, NODES, bias=False).double()
    layer.lin.weight.data = torch.eye(NODES, dtype=torch.float64)
    return layer.requires_grad_(requires_grad=False)


NORMALIZED = {"gcn": gcn, "appnp": lambda: pyg.APPNP(1, 0.0)}
MEANS = {
    "mean": lambda: pyg.SimpleConv(aggr="mean"),
    "mean with loops": lambda: pyg.SimpleConv(aggr="mean", combine_root="self_loop"),
}


class Listed(DropEdge):
    """Keeps the pairs that it is told to: every mask in turn."""

    kept_pairs: frozenset[tuple[int, int, int]] = frozenset()

    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        names = pairs_of(graph.edge_index, self.is_symmetric(graph))
        return torch.tensor([name is None or name in self.kept_pairs for name in names]).bool()


def pairs_of(edge_index: Tensor, symmetric: bool) -> list[tuple[int, int, int] | None]:
    """Name the coin of every edge; a loop has none."""
    edges = [tuple(edge) for edge in edge_index.T.tolist()]
    return [
        None
        if a == b
        else (*(sorted((a, b)) if symmetric else (a, b)), edges[:place].count((a, b)))
        for place, (a, b) in enumerate(edges)
    ]


def mean_over_all_masks(layer: Any, edge_index: Tensor, p: float, *weight: Tensor) -> Tensor:
    """Sum what the attached layer makes of one-hot features over all masks."""
    operator, x = Listed(p, rescale="exact"), torch.eye(NODES, dtype=torch.float64)
    symmetric = operator.is_symmetric(Graph(edge_index))
    names = sorted({name for name in pairs_of(edge_index, symmetric) if name is not None})
    total = torch.zeros(NODES, NODES, dtype=torch.float64)
    with attach(layer, operator):
        for outcome in itertools.product([False, True], repeat=len(names)):
            operator.kept_pairs = frozenset(itertools.compress(names, outcome))
            probability = (1 - p) ** sum(outcome) * p ** (len(names) - sum(outcome))
            total += probability * layer(x, edge_index, *weight)
    return total


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("graph", UNDIRECTED)
@pytest.mark.parametrize("name", NORMALIZED)
def test_all_masks_of_a_normalized_layer(name: str, graph: str, p: float) -> None:
    layer, edge_index = NORMALIZED[name](), UNDIRECTED[graph]
    clean = layer(torch.eye(NODES, dtype=torch.float64), edge_index)
    torch.testing.assert_close(mean_over_all_masks(layer, edge_index, p), clean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("graph", ANY)
@pytest.mark.parametrize("name", MEANS)
def test_all_masks_of_a_mean(name: str, graph: str, p: float) -> None:
    layer, edge_index = MEANS[name](), ANY[graph]
    clean = layer(torch.eye(NODES, dtype=torch.float64), edge_index)
    torch.testing.assert_close(mean_over_all_masks(layer, edge_index, p), clean, rtol=0, atol=1e-12)
    weight = 0.5 + torch.arange(edge_index.size(1), dtype=torch.float64)
    weighted = layer(torch.eye(NODES, dtype=torch.float64), edge_index, weight)
    torch.testing.assert_close(
        mean_over_all_masks(layer, edge_index, p, weight), weighted, rtol=0, atol=1e-12
    )


def g(n: int, p: float) -> float:
    """Return the expectation of (2 + Bin(n, 1-p)) ^ -1/2."""
    return sum(
        math.comb(n, k) * (1 - p) ** k * p ** (n - k) * (2 + k) ** -0.5 for k in range(n + 1)
    )


@pytest.mark.parametrize("p", [0.3, 0.8])
@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, coins: Any, p: float, share: str) -> None:
    edges = case.edge_index
    loopless = case.matrix(edges).fill_diagonal_(0)
    degree = loopless.sum(1).long().tolist()
    clean = case.dense.normalized(loopless)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    for i in range(7):
        expected[i, i] = (1 - p ** (degree[i] + 1)) / ((1 - p) * (degree[i] + 1))
        for j in range(7):
            if loopless[i, j]:
                expected[i, j] = (1 - p) * g(degree[i] - 1, p) * g(degree[j] - 1, p)
    ratio = torch.where(expected > 0, clean / expected.clamp(min=1e-300), 0.0)

    def adjacency(layer: int) -> Tensor:
        coin = coins("drop-edge", p, 7, layer if share == "layer" else 0)
        stay = [
            bool(edges[0, edge] == edges[1, edge]) or coin.edge(edges, edge, True)
            for edge in range(edges.size(1))
        ]
        kept = case.matrix(edges[:, torch.tensor(stay)]).fill_diagonal_(0)
        return case.dense.normalized(kept) * ratio

    out = case.run(f"drop-edge:p={p},rescale=exact,share={share}", 7)
    torch.testing.assert_close(out, case.dense(case.x, adjacency))


def test_by_sampling_two_linear_layers() -> None:
    """Fresh masks: the product has the clean one as its mean, where renormalizing has not."""
    edge_index, samples = UNDIRECTED["with loops"], 2000
    x = torch.eye(NODES, dtype=torch.float64)
    model = torch.nn.ModuleList([gcn(), gcn()])
    clean = model[1](model[0](x, edge_index), edge_index)
    off = {}
    for rescale in ("exact", "renormalize"):
        outs = []
        with attach(model, DropEdge(0.5, rescale=rescale)) as handle:
            for seed in range(samples):
                handle.operator.start_pass(seed)
                outs.append(model[1](model[0](x, edge_index), edge_index))
        found = torch.stack(outs)
        error = found.std(0) / samples**0.5 + 1e-12
        off[rescale] = float(((found.mean(0) - clean).abs() / error).max())
    assert off["exact"] < 5
    assert off["renormalize"] > 20


def test_every_form_of_a_graph_and_derivatives() -> None:
    edge_index = BOTH[:, torch.argsort(BOTH[1] * NODES + BOTH[0])]
    matrix = torch.zeros(NODES, NODES, dtype=torch.float64)
    matrix[edge_index[1], edge_index[0]] = 1
    x = torch.rand(NODES, NODES, dtype=torch.float64, requires_grad=True)
    for layer in (gcn(), pyg.SAGEConv(NODES, 3).double()):
        outs = []
        with attach(layer, "drop-edge:p=0.4,rescale=exact") as handle:
            for form in (edge_index, edge_index.flip(1), to_csr(matrix), matrix.to_sparse_coo()):
                handle.operator.start_pass(5)
                out = layer(x, form)
                outs.append((out, torch.autograd.grad((out**2).sum(), x)[0]))
        for other in outs[1:]:
            torch.testing.assert_close(other, outs[0])


def test_evaluation_is_clean(generators_untouched: None) -> None:
    layer = pyg.SimpleConv(aggr="mean")
    x = torch.eye(NODES)
    clean = layer(x, BOTH)
    with attach(layer.eval(), "drop-edge:rescale=exact"):
        assert torch.equal(layer(x, BOTH), clean)
    assert make_operator("drop-edge:rescale=exact").is_unbiased


@pytest.mark.parametrize(
    "layer",
    [
        pyg.GATConv(NODES, 2),
        pyg.GraphConv(NODES, 2),
        pyg.SAGEConv(NODES, 2, aggr="max"),
        pyg.GCNConv(NODES, 2, improved=True),
        pyg.GCNConv(NODES, 2, add_self_loops=False),
        pyg.GCNConv(NODES, 2, normalize=False),
        pyg.TransformerConv(NODES, 2, aggr="mean"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_are_refused(layer: Any) -> None:
    before = dict(layer.__dict__)
    with pytest.raises(AttachError, match="rescale=exact needs"):
        attach(layer, "drop-edge:rescale=exact")
    assert layer.__dict__ == before


def test_other_graphs_are_refused() -> None:
    x, exact = torch.eye(NODES, dtype=torch.float64), "drop-edge:rescale=exact"
    twice = torch.cat([BOTH, BOTH[:, :1], BOTH[:, :1].flip(0)], 1)
    layer = gcn()
    for spec, edge_index in (
        (exact, PAIRS),
        (exact, twice),
        (f"{exact},symmetric=false", BOTH),
        (f"{exact},symmetric=true", PAIRS),
    ):
        with attach(layer, spec), pytest.raises(ParameterError, match="undirected graph"):
            layer(x, edge_index)
    with attach(layer, exact):
        layer(x, BOTH, torch.ones(BOTH.size(1), dtype=torch.float64))
        with pytest.raises(AttachError, match="needs edges without weights"):
            layer(x, BOTH, torch.full((BOTH.size(1),), 2.0, dtype=torch.float64))
        with pytest.raises(AttachError, match="needs edges without weights"):
            layer(x, to_csr(2 * torch.eye(NODES, dtype=torch.float64)))
    with pytest.raises(ParameterError, match="got edges alone; attach it"):
        make_operator(exact)(BOTH)  # type: ignore[operator]  # an edge operator


@pytest.mark.parametrize("option", ["p=1", "protect_self_loops=false", "fixed_count=true"])
def test_other_options_are_refused(option: str) -> None:
    with pytest.raises(ParameterError, match="needs p below 1, independent coins and protected"):
        make_operator(f"drop-edge:rescale=exact,{option}")


# --- a fixed count -------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_rong_keeps_a_fixed_number_of_directed_edges(p: float) -> None:
    operator = make_operator(f"drop-edge:p={p},preset=rong2020")
    assert (operator.options["share"], operator.options["symmetric"]) == ("forward", False)
    assert operator.spec == f"drop-edge:p={p},preset=rong2020"
    edge_index = UNDIRECTED["with loops"]
    kept: Any
    for seed in range(5):
        operator.start_pass(seed)
        kept, _ = operator(edge_index)  # type: ignore[operator]  # an edge operator
        assert int((kept[0] != kept[1]).sum()) == round(10 * (1 - p))
        assert int((kept[0] == kept[1]).sum()) == 2


def test_a_fixed_count_draws_every_set_alike() -> None:
    """All 10 pairs of 5 edges, 4000 times: within five standard errors of a tenth."""
    operator = DropEdge(0.6, fixed_count=True)
    samples, found = 4000, dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for seed in range(samples):
        operator.start_pass(seed)
        _, places = operator(PAIRS, torch.arange(5))
        assert places is not None
        found[tuple(places.tolist())] += 1
    error = math.sqrt(0.1 * 0.9 / samples)
    assert all(abs(count / samples - 0.1) < 5 * error for count in found.values())
