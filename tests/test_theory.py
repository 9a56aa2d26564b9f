"""The exact moments agree with a sum over all masks of a tiny graph."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.operators import EdgeOperator, NoDrop, Operator, make_operator
from gnndrop.theory import (
    coins,
    expected_output,
    expected_two_layers,
    moments,
    output_covariance,
    product_variance,
)

# A duplicate, a self-loop, an edge in one direction alone, an isolated node.
DIRECTED = torch.tensor([[0, 0, 1, 2, 1], [1, 1, 0, 2, 2]])
UNDIRECTED = torch.tensor([[0, 1, 1, 2, 2], [1, 0, 2, 1, 2]])
GRAPHS = {"directed": DIRECTED, "undirected": UNDIRECTED}
WEIGHT = torch.tensor([0.5, -1.0, 2.0, 0.7, 1.3], dtype=torch.float64)
X = torch.tensor([[1.0, -0.5], [0.3, 2.0], [-1.5, 0.8], [4.0, 4.0]], dtype=torch.float64)

SPECS = [
    f"{name}{options}"
    for name, more in {
        "dropout": [],
        "drop-node": [],
        "drop-feature": [],
        "drop-message": [],
        "drop-edge": [",symmetric=true", ",symmetric=false", ",protect_self_loops=false"],
    }.items()
    for options in [
        ":p=0.3",
        ":p=0.5,share=forward",
        ":p=0.7,rescale=none",
        *[f":p=0.3{option}" for option in more],
        *[f":p=0.6,rescale=inverse{option}" for option in more],
    ]
]


def coin_of(operator: Operator, edge_index: Tensor, edge: int, channel: int) -> object:
    """Say which coin decides a term, from the meaning of the operators alone; None: protected."""
    source, target = edge_index[:, edge].tolist()
    pairs = [tuple(pair) for pair in edge_index.T.tolist()]
    # The n-th of equal edges is the counterpart of the n-th of their reversals.
    occurrence = pairs[:edge].count((source, target))
    match operator.name:
        case "dropout":
            return source, channel
        case "drop-node":
            return source
        case "drop-feature":
            return channel
        case "drop-message":
            return source, target, occurrence, channel
    assert isinstance(operator, EdgeOperator)
    if operator.protect_self_loops and source == target:
        return None
    symmetric = operator.symmetric
    if symmetric is None:
        symmetric = sorted(pairs) == sorted((b, a) for a, b in pairs)
    ends = (min(source, target), max(source, target)) if symmetric else (source, target)
    return *ends, occurrence


def adjacencies(operator: Operator, edge_index: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Yield every possible masked adjacency, (N, N, C), with its probability."""
    places = [
        (edge, channel, coin_of(operator, edge_index, edge, channel))
        for edge in range(edge_index.size(1))
        for channel in range(2)
    ]
    names = sorted({str(coin) for _, _, coin in places if coin is not None})
    assert len(names) <= 12
    p = operator.p
    scale = 1 / (1 - p) if operator.rescale == "inverse" else 1.0
    for kept in product((False, True), repeat=len(names)):
        probability = p ** kept.count(False) * (1 - p) ** kept.count(True)
        fate = dict(zip(names, kept, strict=True))
        adjacency = torch.zeros(4, 4, 2, dtype=torch.float64)
        for edge, channel, coin in places:
            factor = 1.0 if coin is None else scale * fate[str(coin)]
            source, target = edge_index[:, edge]
            adjacency[target, source, channel] += factor * WEIGHT[edge]
        yield probability, adjacency


def propagate(adjacency: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("ijc,jc->ic", adjacency, x)


@pytest.fixture(params=[(spec, graph) for spec in SPECS for graph in GRAPHS], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Operator, Tensor]:
    spec, graph = request.param
    return make_operator(spec), GRAPHS[graph]


def test_moments_of_one_layer(case: tuple[Operator, Tensor]) -> None:
    operator, edge_index = case
    masks = list(adjacencies(operator, edge_index))
    probability = torch.tensor([one for one, _ in masks], dtype=torch.float64)
    outputs = torch.stack([propagate(adjacency, X).flatten() for _, adjacency in masks])
    assert torch.isclose(probability.sum(), torch.ones((), dtype=torch.float64))

    mean = probability @ outputs
    layer = operator, Graph(edge_index, 4), WEIGHT, X
    torch.testing.assert_close(expected_output(*layer).flatten(), mean)

    centred = outputs - mean
    products = centred[:, :, None] * centred[:, None, :]
    covariance = torch.einsum("m,mab->ab", probability, products)
    torch.testing.assert_close(output_covariance(*layer), covariance)

    squares = torch.einsum("m,mab->ab", probability, products**2)
    torch.testing.assert_close(product_variance(*layer), squares - covariance**2)


def test_expectation_of_two_layers(case: tuple[Operator, Tensor]) -> None:
    operator, edge_index = case
    masks = list(adjacencies(operator, edge_index))
    if operator.share == "forward":
        expected = sum(p * propagate(both, propagate(both, X)) for p, both in masks)
    else:
        mean = sum(p * one for p, one in masks)
        expected = propagate(mean, propagate(mean, X))
    found = expected_two_layers(operator, Graph(edge_index, 4), WEIGHT, X)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["dropout", "drop-feature", "drop-message", "drop-edge"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_shared_mask_is_told_from_fresh_ones(name: str, graph: str) -> None:
    """The two expectations differ, so that comparing with one excludes the other."""
    layer = Graph(GRAPHS[graph], 4), WEIGHT, X
    option = ",protect_self_loops=false" if name == "drop-edge" else ""
    fresh, shared = (
        expected_two_layers(make_operator(f"{name}:share={share}{option}"), *layer)
        for share in ("layer", "forward")
    )
    assert not torch.allclose(fresh, shared)


def test_the_table_of_covariances() -> None:
    """Cross-channel terms exactly where channel is no axis, cross-node ones where edge is none."""
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    star = Graph(torch.tensor([[0, 0], [1, 2]]), 3)  # one source, two targets
    for name, cross_channel, cross_node in [
        ("dropout", False, True),
        ("drop-node", True, True),
        ("drop-edge:rescale=inverse", True, False),
        ("drop-message", False, False),
    ]:
        operator = make_operator(name)
        ones = torch.ones(2, dtype=torch.float64)
        table = output_covariance(operator, star, ones, x).view(3, 2, 3, 2)
        # p/(1-p) is 1, so that each entry is the product of the two terms that share a coin.
        assert table[1, 0, 1, 0] == 1
        assert table[1, 0, 1, 1] == (2 if cross_channel else 0)
        assert table[1, 0, 2, 0] == (1 if cross_node else 0)
        assert table[1, 0, 2, 1] == (2 if cross_channel and cross_node else 0)


@pytest.mark.parametrize("rescale", ["inverse", "none"])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certain_masks_have_no_variance(p: float, rescale: str) -> None:
    operator = make_operator(f"dropout:p={p},rescale={rescale}")
    layer = operator, Graph(DIRECTED, 4), WEIGHT, X
    adjacency = torch.zeros(4, 4, dtype=torch.float64)
    adjacency.index_put_((DIRECTED[1], DIRECTED[0]), WEIGHT, accumulate=True)
    torch.testing.assert_close(expected_output(*layer), (1 - p) * adjacency @ X)
    assert moments(operator) == (1 - p, 0)
    assert torch.equal(output_covariance(*layer), torch.zeros(8, 8, dtype=torch.float64))
    assert torch.equal(product_variance(*layer), torch.zeros(8, 8, dtype=torch.float64))


def test_other_axes_are_refused() -> None:
    with pytest.raises(ParameterError, match="axes must be among node, edge and channel"):
        coins(NoDrop(), Graph(DIRECTED, 4), 2)
