"""Structure-aware edge dropout: a fixed number, by similarity, nested over layers."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, to_csr
from gnndrop.operators import DropEdgePlus, make_operator
from gnndrop.operators._selection import make_pool, selection_means

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

WORD, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15
EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14)


def tensor(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).T


def features(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64)


def random_graph() -> Tensor:
    pairs = torch.randint(0, 40, (2, 150), generator=torch.Generator().manual_seed(3))
    pairs = pairs[:, pairs[0] < pairs[1]]
    return torch.unique(torch.cat([pairs, pairs.flip(0)], 1), dim=1)


def finalize(z: int) -> int:
    """Apply splitmix64's finalizer."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def kept_by_clocks(
    coin: Any, edges: list[tuple[int, int]], x: Tensor, p: float, symmetric: bool
) -> list[bool]:
    """Sort exponential clocks, whose rates are the similarities, in plain numbers."""
    clocks: dict[int, float] = {}
    names = []
    for place, (a, b) in enumerate(edges):
        first, second = sorted((a, b)) if symmetric else (a, b)
        name = (finalize((first << 32) ^ second) + edges[:place].count((a, b)) * GOLDEN) & WORD
        names.append(name)
        uniform = ((finalize(name ^ ((coin.key + GOLDEN) & WORD)) >> 11) + 0.5) / 2**53
        if a != b:
            clocks[name] = -math.log(uniform) / (max(float(x[a] @ x[b]), 0.0) + 1e-10)
    stay = sorted(clocks, key=clocks.__getitem__)[: round(len(clocks) * (1 - p))]
    return [a == b or name in stay for (a, b), name in zip(edges, names, strict=True)]


@settings(deadline=None, max_examples=60)
@given(
    edges=EDGES,
    undirect=st.booleans(),
    symmetric=st.sampled_from([None, True, False]),
    p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**64),
)
def test_stand_alone(
    coins: Any,
    edges: list[tuple[int, int]],
    undirect: bool,
    symmetric: bool | None,
    p: float,
    seed: int,
) -> None:
    """On any graph: empty, directed, with self-loops, duplicates and isolated nodes."""
    if undirect:
        edges = edges + [(b, a) for a, b in edges if a != b]
    edge_index, weight, x = tensor(edges), torch.arange(1.0, len(edges) + 1), features()
    out, out_weight = DropEdgePlus(p, symmetric=symmetric).start_pass(seed)(edge_index, weight, x)
    if symmetric is None:
        symmetric = sorted(edges) == sorted((b, a) for a, b in edges)
    stay = kept_by_clocks(coins("drop-edge-plus", p, seed), edges, x, p, symmetric)
    assert torch.equal(out, edge_index[:, torch.tensor(stay, dtype=torch.bool)])
    assert torch.equal(out_weight, weight[torch.tensor(stay, dtype=torch.bool)])
    sparse, _ = DropEdgePlus(p, symmetric=symmetric).start_pass(seed)(edge_index, x=to_csr(x))
    assert torch.equal(sparse, out)


def counts(model: Any, x: Tensor, edge_index: Tensor) -> list[set[tuple[int, int]]]:
    """Return the edges that every layer of an attached model sees."""
    seen: list[set[tuple[int, int]]] = []
    hooks = [
        layer.register_propagate_forward_pre_hook(
            lambda layer, inputs: seen.append(set(map(tuple, inputs[0].T.tolist())))
        )
        for layer in model.modules()
        if isinstance(layer, pyg.MessagePassing)
    ]
    model(x, edge_index)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("growth", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_layers_are_nested_and_grow(depth: int, growth: float) -> None:
    """Layer l of L keeps b + l (1-b) a / (L-1) of the edges, among them those of the one before."""
    edge_index, x = random_graph(), features(40)
    number = edge_index.size(1) // 2
    model = pyg.GraphSAGE(3, 3, depth).double()
    with attach(model, DropEdgePlus(0.7, growth=growth)):
        seen = counts(model, x, edge_index)
        again = counts(model, x, edge_index)
    assert len(seen) == depth
    for layer, edges in enumerate(seen):
        share = 0.3 + (layer * 0.7 * growth / (depth - 1) if depth > 1 else 0.0)
        assert len(edges) == 2 * round(number * share)
        assert edges <= seen[min(layer + 1, depth - 1)]
        assert edges == {(b, a) for a, b in edges}
    assert seen[0] != again[0]  # a fresh draw for every pass


def test_the_features_are_those_of_the_first_layer_and_of_this_pass() -> None:
    edge_index, x = random_graph(), features(40)
    model = pyg.GraphSAGE(3, 3, 3).double()
    with attach(model, DropEdgePlus(0.5, growth=0.0)) as handle:
        seen = []
        for given_x in (x, -x.flip(0), x):
            handle.operator.start_pass(4)
            seen.append(counts(model, given_x, edge_index))
        handle.operator.end_pass()
    assert all(edges == layers[0] for layers in seen for edges in layers)
    assert seen[0] == seen[2] != seen[1]
    alone, _ = DropEdgePlus(0.5).start_pass(4)(edge_index, x=x)
    assert seen[0][0] == set(map(tuple, alone.T.tolist()))


@pytest.mark.parametrize(
    "spec",
    ["dropout:p=0.5+drop-edge-plus", "drop-edge-plus+dropout:p=0.5", "drop-node+drop-edge-plus"],
)
def test_in_a_combination_the_features_are_the_clean_ones(spec: str) -> None:
    edge_index, x = random_graph(), features(40)
    model = pyg.GraphSAGE(3, 3, 2).double()
    for seed in range(3):
        with attach(model, spec) as handle:
            assert handle.operator.name == re.sub(":[^+]*", "", spec)
            handle.operator.start_pass(seed)
            first = counts(model, x, edge_index)[0]
            handle.operator.end_pass()
        alone, _ = DropEdgePlus().start_pass(seed)(edge_index, x=x)
        assert first == set(map(tuple, alone.T.tolist()))


def test_similar_ends_stay() -> None:
    """Of as many edges as are kept, those of similarity zero come last."""
    x = torch.eye(2).repeat(20, 1)  # even nodes are alike, and odd ones
    steps = torch.tensor([1, 2, 2]).repeat(10)
    edge_index = torch.stack([torch.arange(30), torch.arange(30) + steps])
    kept, _ = DropEdgePlus(0.4).start_pass(0)(edge_index, x=x)
    alike = (edge_index[0] - edge_index[1]) % 2 == 0
    assert int(alike.sum()) == 20
    assert kept.size(1) == 18
    assert bool(((kept[0] - kept[1]) % 2 == 0).all())


def test_without_features_all_edges_are_alike() -> None:
    edge_index = random_graph()
    means = DropEdgePlus(0.3).mean_factors(edge_index, 40)
    number = edge_index.size(1) // 2
    assert torch.allclose(means, torch.full_like(means, round(0.7 * number) / number))


def test_exact_rates_are_those_of_drawing_one_by_one() -> None:
    edge_index = torch.tensor([[0, 1, 2, 3, 4], [1, 2, 3, 4, 4]])
    weight = torch.tensor([0.1, 1.0, 2.0, 4.0], dtype=torch.float64)
    pool = make_pool(edge_index, False, True)
    expected = [0.0] * 4
    for order in itertools.permutations(range(4), 2):
        left, probability = float(weight.sum()), 1.0
        for one in order:
            probability *= float(weight[one]) / left
            left -= float(weight[one])
        for one in order:
            expected[one] += probability
    means = selection_means(pool, 0.5, weight)
    assert means[4] == 1
    found = {int(place): float(mean) for place, mean in zip(pool.place[:4], means[:4], strict=True)}
    for place in range(4):
        assert abs(found[place] - expected[place]) < 1e-12
    many = make_pool(torch.arange(40).view(2, 20), False, True)
    with pytest.raises(ParameterError, match="need 12 edges at most, got 20"):
        selection_means(many, 0.5, torch.ones(20, dtype=torch.float64))


def test_the_fraction_of_none_of_all_edges() -> None:
    edge_index = random_graph()
    assert DropEdgePlus(1.0).start_pass(0)(edge_index)[0].size(1) == 0
    tiny = DropEdgePlus(0.9).start_pass(0)(torch.tensor([[0, 1], [1, 2]]))[0]
    assert tiny.size(1) == 0  # a fifth of an edge is none
    assert Graph(edge_index).is_undirected


def test_options() -> None:
    operator = make_operator("drop-edge-plus:p=0.3,growth=0.5")
    assert operator.options == {"p": 0.3, "growth": 0.5, "symmetric": None}
    assert operator.share == "forward"
    with pytest.raises(ParameterError, match=r"growth must be a fraction in \[0, 1\], got 2"):
        DropEdgePlus(growth=2.0)
    with pytest.raises(ParameterError, match="unknown option 'share'"):
        make_operator("drop-edge-plus:share=layer")
