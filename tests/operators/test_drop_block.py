"""Block dropout: balls of nodes around random centres, calibrated to the rate."""

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import SimpleConv

from gnndrop.attach import attach
from gnndrop.errors import AttachError, ParameterError
from gnndrop.graph import to_csr
from gnndrop.models import MLP
from gnndrop.operators import DropBlock

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

NODES = 8
# Nodes 6 and 7 have no edge; duplicates, loops and single directions come up.
EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10)


def tensor(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).T


def ball(edges: list[tuple[int, int]], centre: int, radius: int) -> set[int]:
    """Search breadth first, in both directions of every edge."""
    reached = {centre}
    for _ in range(radius):
        reached |= {b for a, b in edges if a in reached} | {a for a, b in edges if b in reached}
    return reached


def rate_of_centres(operator: DropBlock, edge_index: Tensor, num_nodes: int = NODES) -> float:
    return operator._calibrate(edge_index, num_nodes, operator.radius, operator.p).rate


def kept_reference(
    edges: list[tuple[int, int]], coin: Any, radius: int, num_nodes: int = NODES
) -> Tensor:
    dropped: set[int] = set()
    for centre in range(num_nodes):
        if not coin(centre):
            dropped |= ball(edges, centre, radius)
    return torch.tensor([node not in dropped for node in range(num_nodes)])


@settings(deadline=None, max_examples=60)
@given(
    edges=EDGES,
    radius=st.integers(0, 3),
    p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**64),
    rescale=st.sampled_from(["inverse", "none"]),
)
def test_stand_alone(
    coins: Any, edges: list[tuple[int, int]], radius: int, p: float, seed: int, rescale: str
) -> None:
    edge_index = tensor(edges)
    x = torch.linspace(1, 2, 3 * NODES, dtype=torch.float64).view(NODES, 3).requires_grad_()
    operator = DropBlock(p, rescale=rescale, radius=radius).start_pass(seed)
    rate = rate_of_centres(operator, edge_index)
    scale = 1 / (1 - p) if rescale == "inverse" and p < 1 else 1.0
    for call in range(2):
        kept = kept_reference(edges, coins("drop-block", rate, seed, call=call), radius)
        factor = (kept.double() * scale)[:, None].expand(NODES, 3)
        out = operator(x, edge_index)
        torch.testing.assert_close(out, x * factor, rtol=1e-15, atol=0)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        torch.testing.assert_close(gradient, factor, rtol=1e-15, atol=0)
    sparse = operator.start_pass(seed)(to_csr(x.detach()), edge_index)
    assert sparse.layout == torch.sparse_csr
    assert torch.equal(sparse.to_dense(), operator.start_pass(seed)(x, edge_index))


@settings(deadline=None, max_examples=60)
@given(edges=EDGES, radius=st.integers(0, 3), p=st.floats(0.001, 0.999))
def test_the_expected_fraction_is_p_on_every_graph(
    edges: list[tuple[int, int]], radius: int, p: float
) -> None:
    operator = DropBlock(p, rescale="none", radius=radius)
    rate = rate_of_centres(operator, tensor(edges))
    sizes = [len(ball(edges, node, radius)) for node in range(NODES)]
    kept = [(1 - rate) ** size for size in sizes]
    assert abs(sum(kept) / NODES - (1 - p)) < 1e-9
    declared = operator.mean_factors(tensor(edges), NODES)
    torch.testing.assert_close(declared, torch.tensor(kept, dtype=torch.float64))


def test_every_set_of_kept_nodes_has_its_probability() -> None:
    """All 2^5 sets of centres by enumeration, against the frequencies of 4000 masks."""
    edges, p, samples = [(0, 1), (1, 2), (2, 3)], 0.4, 4000  # a path, and node 4 alone
    operator, edge_index = DropBlock(p), tensor(edges)
    rate = rate_of_centres(operator, edge_index, 5)
    expected: dict[tuple[bool, ...], float] = {}
    for centres in itertools.product([False, True], repeat=5):
        kept = kept_reference(edges, lambda node, c=centres: not c[node], 1, 5)
        probability = rate ** sum(centres) * (1 - rate) ** (5 - sum(centres))
        key = tuple(kept.tolist())
        expected[key] = expected.get(key, 0.0) + probability
    counts: dict[tuple[bool, ...], int] = {}
    for seed in range(samples):
        out = operator.start_pass(seed)(torch.ones(5, 1), edge_index)
        key = tuple((out[:, 0] != 0).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert set(counts) <= set(expected)
    for key, probability in expected.items():
        error = abs(counts.get(key, 0) - samples * probability)
        assert error < 5 * (samples * probability * (1 - probability)) ** 0.5 + 5
    fraction = sum(p * key.count(False) / 5 for key, p in expected.items())
    assert abs(fraction - p) < 1e-9


def test_on_a_large_graph_the_rate_is_p() -> None:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(0, 3000, (2, 6000), generator=generator)
    for radius, p in ((1, 0.2), (1, 0.7), (2, 0.5)):
        operator = DropBlock(p, rescale="none", radius=radius)
        x = torch.ones(3000, 1)
        fractions = torch.stack(
            [1 - operator.start_pass(seed)(x, edge_index).mean() for seed in range(200)]
        )
        error = (fractions.mean() - p).abs() / (fractions.var() / 200).sqrt()
        assert float(error) < 5


@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, coins: Any, share: Any) -> None:
    edges = [tuple(pair) for pair in case.edge_index.T.tolist()]
    rate = rate_of_centres(DropBlock(0.4), case.edge_index, 7)

    def mask(layer: int, x: Tensor) -> Tensor:
        coin = coins("drop-block", rate, 7, layer if share == "layer" else 0)
        return x * kept_reference(edges, coin, 1, 7)[:, None] / 0.6

    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense(case.x, lambda layer: adjacency, mask)
    torch.testing.assert_close(case.run(DropBlock(0.4, share), 7), expected)


def test_every_form_of_a_graph_has_the_same_blocks() -> None:
    matrix = torch.zeros(6, 6)
    matrix[1, 0] = matrix[2, 1] = matrix[5, 4] = 2.0
    edge_index = tensor([(0, 1), (1, 2), (4, 5)])
    x = torch.linspace(1, 2, 18).view(6, 3)
    expected = DropBlock().start_pass(1)(x, edge_index)
    for sparse in (to_csr(matrix), matrix.to_sparse_coo(), matrix.to_sparse_csc()):
        assert torch.equal(DropBlock().start_pass(1)(x, sparse), expected)
    order = torch.tensor([2, 0, 1])
    assert torch.equal(DropBlock().start_pass(1)(x, edge_index[:, order]), expected)


def test_the_blocks_follow_the_graph() -> None:
    """The prepared balls are of this graph, also when its tensor was written to."""
    operator, x = DropBlock(0.5), torch.ones(4, 1)
    edge_index = tensor([(0, 1), (2, 3)])
    before = rate_of_centres(operator, edge_index, 4)
    edge_index[:, 1] = torch.tensor([1, 2])
    after = rate_of_centres(operator, edge_index, 4)
    assert after == rate_of_centres(DropBlock(0.5), edge_index.clone(), 4) != before
    fresh = DropBlock(0.5).start_pass(0)(x, edge_index.clone())
    assert torch.equal(operator.start_pass(0)(x, edge_index), fresh)
    operator.p = 0.9  # nor are they of another rate
    assert rate_of_centres(operator, edge_index, 4) > after


def test_radius_0_drops_single_nodes(coins: Any) -> None:
    operator = DropBlock(0.3, radius=0).start_pass(2)
    coin = coins("drop-block", 0.3, 2)
    out = operator(torch.ones(9, 1, dtype=torch.float64), tensor([(0, 1)]))
    assert torch.equal(out[:, 0] != 0, torch.tensor([coin(node) for node in range(9)]))


def test_degenerate_graphs() -> None:
    empty = tensor([])
    assert DropBlock()(torch.ones(0, 3), empty).shape == (0, 3)
    assert rate_of_centres(DropBlock(0.3), empty, 5) == pytest.approx(0.3)
    assert not DropBlock(1.0)(torch.ones(4, 3), tensor([(0, 1)])).any()
    x = torch.ones(4, 2, 3)
    assert DropBlock()(x, tensor([(0, 1)])).shape == x.shape
    assert DropBlock(0.0)(x, empty) is x
    assert DropBlock().eval()(x) is x


@pytest.mark.parametrize("p", [0.23, 0.236, 0.25, 0.999, 1e-12])
@pytest.mark.parametrize("edge_index", [torch.empty(2, 0).long(), torch.tensor([[0], [1]])])
def test_balls_of_single_nodes_have_the_rate_itself(p: float, edge_index: Tensor) -> None:
    """Where nothing is to be found, rounding must not lose it."""
    operator = DropBlock(p=p, radius=0)
    assert float(operator.mean_factors(edge_index, 2).mean()) == pytest.approx(1)
    operator.start_pass(0)(torch.ones(2, 3), edge_index)


def test_other_values_are_refused() -> None:
    x, edge_index = torch.ones(3, 2), tensor([(0, 1)])
    with pytest.raises(ParameterError, match="needs the edge_index of the features, got none"):
        DropBlock()(x)
    with pytest.raises(ParameterError, match="nodes from 0 to 2, got 7 to 7"):
        DropBlock()(x, tensor([(0, 7)]))
    with pytest.raises(ParameterError, match="floating point features"):
        DropBlock()(x.long(), edge_index)
    for radius in (-1, 1.5, True):
        with pytest.raises(ParameterError, match="radius must be a whole number of hops"):
            DropBlock(radius=radius)
    with pytest.raises(AttachError, match="edge_index"):
        attach(MLP(4, 4, out_channels=2), "drop-block")
    layer = SimpleConv()
    with attach(layer, "drop-block"), pytest.raises(AttachError, match="bipartite"):
        layer((x, x[:2]), edge_index)


def test_copies_agree() -> None:
    operator, edge_index = DropBlock().start_pass(3), tensor([(0, 1), (1, 2)])
    x = torch.ones(5, 2)
    out = operator(x, edge_index)
    assert torch.equal(copy.deepcopy(operator).start_pass(3)(x, edge_index), out)
