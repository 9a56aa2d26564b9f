"""Edge dropout: one coin for every edge."""

import math
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.graph import endpoints, to_csr
from gnndrop.operators.drop_edge import DropEdge

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14)


def tensor(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).T


def kept(edges: Tensor, coin: Any, symmetric: bool, protected: bool = True) -> Tensor:
    """Say which edges stay."""
    return torch.tensor(
        [
            (protected and bool(edges[0, edge] == edges[1, edge]))
            or coin.edge(edges, edge, symmetric)
            for edge in range(edges.size(1))
        ],
        dtype=torch.bool,
    )


@settings(deadline=None, max_examples=60)
@given(
    edges=EDGES,
    undirect=st.booleans(),
    symmetric=st.sampled_from([None, True, False]),
    protected=st.booleans(),
    p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**64),
)
def test_stand_alone(
    coins: Any,
    edges: list[tuple[int, int]],
    undirect: bool,
    symmetric: bool | None,
    protected: bool,
    p: float,
    seed: int,
) -> None:
    if undirect:
        edges = edges + [(b, a) for a, b in edges if a != b]
    edge_index, weight = tensor(edges), torch.arange(1.0, len(edges) + 1)
    operator = DropEdge(p, symmetric=symmetric, protect_self_loops=protected).start_pass(seed)
    out, out_weight = operator(edge_index, weight)
    if symmetric is None:
        symmetric = sorted(edges) == sorted((b, a) for a, b in edges)
    stay = kept(edge_index, coins("drop-edge", p, seed), symmetric, protected)
    assert torch.equal(out, edge_index[:, stay])
    assert torch.equal(out_weight, weight[stay])
    if symmetric and undirect:  # what was undirected still is, and each weight is its edge's own
        assert sorted(out.T.tolist()) == sorted(out.flip(0).T.tolist())


@settings(deadline=None, max_examples=30)
@given(edges=st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))), seed=st.integers(0, 2**64))
def test_every_form_has_the_same_edges(edges: set[tuple[int, int]], seed: int) -> None:
    edge_index = tensor(sorted(edges))
    out = DropEdge().start_pass(seed)(edge_index)[0]
    dense = torch.zeros(6, 6)
    dense[edge_index[1], edge_index[0]] = 1.0 + torch.arange(len(edges))
    expected = torch.zeros(6, 6)
    expected[out[1], out[0]] = dense[out[1], out[0]]
    for sparse in (to_csr(dense), dense.to_sparse_coo(), dense.to_sparse_csc()):
        got, _ = DropEdge().start_pass(seed)(sparse)
        assert got.layout == sparse.layout
        assert torch.equal(got.to_dense(), expected)
        assert endpoints(got).size(1) == out.size(1)
        twice, _ = DropEdge(rescale="inverse").start_pass(seed)(sparse)
        scale = 2 - torch.eye(6)  # self-loops are protected
        assert torch.equal(twice.to_dense(), expected * scale)


@pytest.mark.parametrize("p", [0.3, 0.8])
@pytest.mark.parametrize("share", ["layer", "forward"])
@pytest.mark.parametrize("symmetric", [None, False])
def test_renormalized_in_a_gcn(
    case: Any, coins: Any, p: float, share: str, symmetric: bool | None
) -> None:
    def adjacency(layer: int) -> Tensor:
        coin = coins("drop-edge", p, 7, layer if share == "layer" else 0)
        stay = kept(case.edge_index, coin, symmetric is None)
        return case.dense.normalized(case.matrix(case.edge_index[:, stay]))

    operator = DropEdge(p=p, share=share, symmetric=symmetric)
    torch.testing.assert_close(case.run(operator, 7), case.dense(case.x, adjacency))


@pytest.mark.parametrize("rescale", ["inverse", "none"])
@pytest.mark.parametrize("protected", [True, False])
def test_behind_the_normalization_of_a_gcn(
    case: Any, coins: Any, rescale: str, protected: bool
) -> None:
    clean = case.dense.normalized(case.matrix(case.edge_index))
    edges = clean.nonzero().T.flip(0)

    def adjacency(layer: int) -> Tensor:
        stay = kept(edges, coins("drop-edge", 0.3, 7, layer), True, protected)
        scale = torch.full((7, 7), 1 / 0.7 if rescale == "inverse" else 1.0, dtype=torch.float64)
        if protected:
            scale.fill_diagonal_(1)
        return clean * case.matrix(edges[:, stay]) * scale

    operator = DropEdge(p=0.3, rescale=rescale, protect_self_loops=protected)
    torch.testing.assert_close(case.run(operator, 7), case.dense(case.x, adjacency))


def test_inverse_under_a_mean_keeps_the_denominator(case: Any, coins: Any) -> None:
    layer = pyg.SAGEConv(5, 3, root_weight=False, bias=False).double()
    stay = kept(case.edge_index, coins("drop-edge", 0.4, 3), True)
    degree = case.matrix(case.edge_index).sum(1).clamp(min=1)
    matrix = case.matrix(case.edge_index[:, stay])
    scale = torch.full((7, 7), 1 / 0.6, dtype=torch.float64).fill_diagonal_(1)
    expected = (matrix * scale / degree[:, None]) @ case.x @ layer.lin_l.weight.T
    with attach(layer, "drop-edge:p=0.4,rescale=inverse") as handle:
        handle.operator.start_pass(3)
        torch.testing.assert_close(layer(case.x, case.edge_index), expected)

    kept_degree = matrix.sum(1).clamp(min=1)  # renormalized: the mean of what is left
    expected = (matrix / kept_degree[:, None]) @ case.x @ layer.lin_l.weight.T
    with attach(layer, "drop-edge:p=0.4") as handle:
        handle.operator.start_pass(3)
        torch.testing.assert_close(layer(case.x, case.edge_index), expected)


def test_attention_before_and_behind_the_softmax(case: Any, coins: Any) -> None:
    layer = pyg.GATConv(5, 4, heads=2, bias=False).double()

    def aggregate(edges: Tensor, alpha: Tensor) -> Tensor:
        messages = alpha[:, :, None] * layer.lin(case.x).view(7, 2, 4)[edges[0]]
        out = torch.zeros(7, 2, 4, dtype=torch.float64)
        return out.index_add_(0, edges[1], messages).flatten(1)

    _, (edges, alpha) = layer(case.x, case.edge_index, return_attention_weights=True)
    stay = kept(edges, coins("drop-edge", 0.4, 3), True)
    scale = torch.where(edges[0] == edges[1], 1.0, 1 / 0.6)
    expected = aggregate(edges, alpha * (stay * scale)[:, None])
    with attach(layer, "drop-edge:p=0.4,rescale=inverse") as handle:
        handle.operator.start_pass(3)
        torch.testing.assert_close(layer(case.x, case.edge_index), expected)

    stay = kept(case.edge_index, coins("drop-edge", 0.4, 3), True)
    _, (edges, alpha) = layer(case.x, case.edge_index[:, stay], return_attention_weights=True)
    sums = torch.zeros(7, 2, dtype=torch.float64).index_add_(0, edges[1], alpha)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    with attach(layer, "drop-edge:p=0.4") as handle:
        handle.operator.start_pass(3)
        out = layer(case.x, case.edge_index)
    torch.testing.assert_close(out, aggregate(edges, alpha))


def test_under_a_maximum_a_dropped_edge_is_absent(case: Any, coins: Any) -> None:
    layer = pyg.SimpleConv(aggr="max")
    x = case.x.abs() * -1  # so that a zero would be the largest
    stay = kept(case.edge_index, coins("drop-edge", 0.5, 2), True)
    edges = case.edge_index[:, stay]
    expected = torch.zeros(7, 5, dtype=torch.float64)
    for node in set(edges[1].tolist()):
        expected[node] = x[edges[0]][edges[1] == node].amax(0)
    with attach(layer, "drop-edge") as handle:
        handle.operator.start_pass(2)
        assert torch.equal(layer(x, case.edge_index), expected)


@pytest.mark.parametrize("q", [0.3, 0.5, 0.8])
def test_expected_adjacency_of_renormalizing(case: Any, q: float) -> None:
    """Exact finite sums for the symmetric norm, one coin per edge, and for row normalization."""
    samples = 1500
    edges = case.edge_index[:, case.edge_index[0] != case.edge_index[1]]
    degree = case.matrix(edges).sum(1).long()
    gcn = pyg.GCNConv(7, 7, bias=False).double()
    gcn.lin.weight.data = torch.eye(7, dtype=torch.float64)
    row = pyg.SimpleConv(aggr="mean", combine_root="self_loop")

    def g(n: int) -> float:
        """Return the expectation of (2 + Bin(n, 1-q)) ^ -1/2."""
        return sum(
            math.comb(n, k) * (1 - q) ** k * q ** (n - k) * (2 + k) ** -0.5 for k in range(n + 1)
        )

    for layer in (gcn, row):
        expected = torch.zeros(7, 7, dtype=torch.float64)
        for i in range(7):
            d = int(degree[i])
            expected[i, i] = (1 - q ** (d + 1)) / ((1 - q) * (d + 1))
        for j, i in edges.T.tolist():
            if layer is gcn:
                expected[i, j] = (1 - q) * g(int(degree[i]) - 1) * g(int(degree[j]) - 1)
            else:
                expected[i, j] = (1 - expected[i, i]) / degree[i]
        with attach(layer, DropEdge(p=q)) as handle:
            outs = []
            for seed in range(samples):
                handle.operator.start_pass(seed)
                outs.append(layer(torch.eye(7, dtype=torch.float64), edges))
            found = torch.stack(outs)
        error = 5 * found.std(0) / samples**0.5 + 1e-12
        assert bool(((found.mean(0) - expected).abs() < error).all())


def test_weights_of_another_kind() -> None:
    edge_index = torch.tensor([[0, 1, 2], [1, 2, 2]])
    for seed in range(4):
        operator = DropEdge(p=0.3, rescale="inverse", symmetric=False).start_pass(seed)
        out, weight = operator(edge_index, torch.tensor([1, 2, 3]))
        expected = torch.where(out[0] == out[1], 3.0, (1.0 + out[0]) / 0.7)
        torch.testing.assert_close(weight, expected)  # integers are not rounded down
    exact = DropEdge(p=0.3, rescale="inverse").start_pass(1)
    _, weight = exact(edge_index, torch.ones(3, dtype=torch.float64))
    assert set(weight.tolist()) <= {1.0, 1 / 0.7}
    assert len(weight) > 1
    out, weight = DropEdge(p=0.3, rescale="inverse").start_pass(1)(edge_index)
    assert weight.dtype == torch.float32
    assert len(weight) == out.size(1)
    assert DropEdge().start_pass(1)(edge_index)[1] is None


def test_attributes_of_any_shape_follow_their_edges() -> None:
    edge_index = torch.arange(20).repeat(2, 1).add(torch.tensor([[0], [1]]))
    attributes = torch.arange(20)[:, None, None].repeat(1, 3, 2)
    out, kept_attributes = DropEdge().start_pass(0)(edge_index, attributes)
    assert 0 < out.size(1) < 20
    assert torch.equal(kept_attributes[:, 2, 1], out[0])


def test_other_values_are_refused() -> None:
    edge_index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(ParameterError, match="one weight per edge, got 3 weights for 2 edges"):
        DropEdge()(edge_index, torch.ones(3))
    inverse = DropEdge(rescale="inverse")
    with pytest.raises(
        ParameterError, match=r"one weight per edge, got attributes of shape \(2, 4"
    ):
        inverse(edge_index, torch.ones(2, 4))
    with pytest.raises(ParameterError, match="as its values, got edge_weight beside it"):
        inverse(to_csr(torch.ones(2, 2)), torch.ones(4))
    with pytest.raises(ParameterError, match="edge_index must be int64"):
        DropEdge()(edge_index.float())
    with pytest.raises(ParameterError, match="edge_index or a torch sparse matrix, got list"):
        DropEdge()([[0, 1], [1, 0]])
    with pytest.raises(ParameterError, match="share=forward needs a forward pass"):
        DropEdge(share="forward")(edge_index)
