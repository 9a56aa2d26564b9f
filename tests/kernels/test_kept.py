"""The graph that an edge mask leaves, against dense matrices and against the torch reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.kernels import Kept, aggregate, aggregate_kept, cpu, reference
from gnndrop.masks import Mask, inverse_scale, keep, stream_key

SIZE = 6
edge_lists = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=15)


def graph_of(edges: list[tuple[int, int]], both_ways: bool = False) -> Graph:
    edge_index = torch.tensor(edges, dtype=torch.int64).view(-1, 2).T
    if both_ways:
        edge_index = torch.cat([edge_index, edge_index.flip(0)], 1)
    return Graph(edge_index, SIZE, SIZE)


def kept_matrix(
    graph: Graph, mask: Mask, symmetric: bool, protect: bool, weight: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the adjacency of the kept edges, rows the targets, and how many each row keeps."""
    matrix, counts = torch.zeros(SIZE, SIZE, dtype=torch.float64), torch.zeros(SIZE)
    coordinates = graph.coordinates(symmetric)
    for edge, (source, target) in enumerate(graph.edge_index.T.tolist()):
        is_protected = protect and source == target
        if is_protected or bool(keep(mask, coordinates[edge], coordinates[edge])):
            factor = 1.0 if weight is None else float(weight[edge])
            matrix[target, source] += factor * (1 if is_protected else mask.scale)
            counts[target] += 1
    return matrix, counts


@given(
    edges=edge_lists,
    both_ways=st.booleans(),
    p=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    rescaled=st.booleans(),
    symmetric=st.booleans(),
    protect=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 2**63),
)
def test_it_is_the_dense_matrix(
    edges, both_ways, p, rescaled, symmetric, protect, weighted, seed
) -> None:
    graph = graph_of(edges, both_ways)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(graph.source.numel(), generator=generator).double() if weighted else None
    mask = Mask(seed, p, by_column=False, scale=inverse_scale(p) if rescaled and p < 1 else 1.0)
    kept = Kept(graph, mask, symmetric, protect, weight, dtype=torch.float64)
    matrix, counts = kept_matrix(graph, mask, symmetric, protect, weight)
    x, left, right = (torch.randn(SIZE, 3, generator=generator).double() for _ in range(3))
    root, whole = kept.inverse_degree(is_root=True), kept.inverse_degree(is_root=False)
    torch.testing.assert_close(root, matrix.sum(1).pow(-0.5).nan_to_num(posinf=0))
    torch.testing.assert_close(whole, 1 / counts.double().masked_fill(counts == 0, torch.inf))
    torch.testing.assert_close(aggregate_kept(kept, x), matrix @ x)
    scaled = left[:, :1] * (matrix @ (right[:, :1] * x))
    torch.testing.assert_close(aggregate_kept(kept, x, left[:, 0], right[:, 0]), scaled)
    x.requires_grad_()
    out = aggregate_kept(kept, x, left[:, 0], right[:, 0])
    (gradient,) = torch.autograd.grad(out, x, left)
    torch.testing.assert_close(gradient, right[:, :1] * (matrix.T @ (left[:, :1] * left)))


@given(edges=edge_lists, p=st.sampled_from([0.0, 0.4, 1.0]), seed=st.integers(0, 2**63))
def test_listings_equal_the_reference(edges, p, seed) -> None:
    graph, mask = graph_of(edges), Mask(seed, p, by_column=False, scale=2.0)
    for transposed in (False, True):
        rows, places = graph.rows(transposed), graph.places(False, transposed)
        arguments = rows, places, mask, True, None, torch.float32
        ours, our_factors = cpu.list_kept(*arguments)
        theirs, their_factors = reference.list_kept(*arguments)
        assert torch.equal(ours.ends - ours.pointer[:-1], theirs.pointer.diff())
        for row in range(SIZE):
            mine = slice(int(ours.pointer[row]), int(ours.ends[row]))
            other = slice(int(theirs.pointer[row]), int(theirs.ends[row]))
            assert torch.equal(ours.other[mine], theirs.other[other])
            assert torch.equal(our_factors[mine], their_factors[other])
        for is_root in (True, False):
            torch.testing.assert_close(
                cpu.inverse_degrees(ours, our_factors, is_root, torch.float32),
                reference.inverse_degrees(theirs, their_factors, is_root, torch.float32),
            )


def test_the_derivatives_are_right() -> None:
    graph = graph_of([(0, 1), (1, 0), (2, 2), (3, 1), (3, 1), (4, 5)])
    mask = Mask(stream_key(0, "test"), 0.4, by_column=False)
    weight, scale = torch.rand(6, dtype=torch.float64), torch.rand(SIZE, dtype=torch.float64)
    x = torch.randn(SIZE, 2, dtype=torch.float64, requires_grad=True)
    kept = Kept(graph, mask, weight=weight)
    assert gradcheck(lambda x: aggregate_kept(kept, x, scale, scale), x)
    assert gradgradcheck(lambda x: aggregate_kept(kept, x, scale, scale).square(), x)


def test_a_symmetric_graph_is_listed_once() -> None:
    graph = graph_of([(0, 1), (1, 2), (2, 2), (3, 3)], both_ways=True)
    mask = Mask(stream_key(0, "test"), 0.5, by_column=False)
    kept = Kept(graph, mask, symmetric=True)
    assert kept.rows(transposed=True) is kept.rows()
    one_coin_each = Kept(graph, mask, symmetric=False)
    assert one_coin_each.rows(transposed=True) is not one_coin_each.rows()


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_edge_masks_of_aggregate_are_the_same(weighted: bool, p: float) -> None:
    generator = torch.Generator().manual_seed(0)
    graph = Graph(torch.randint(50, (2, 700), generator=generator), 50, 50)
    mask = Mask(stream_key(1, "test"), p, by_column=False, scale=2.0)
    x = torch.randn(50, 9, generator=generator)
    weight = torch.rand(700, generator=generator) if weighted else None
    expected = aggregate_kept(Kept(graph, mask, weight=weight, dtype=x.dtype), x)
    torch.testing.assert_close(aggregate(graph, x, weight, mask), expected)


def test_other_devices_and_types_take_the_reference() -> None:
    graph = graph_of([(0, 1), (1, 1), (2, 1)])
    kept = Kept(graph, Mask(0, 0.0, by_column=False), dtype=torch.float16)
    out = aggregate_kept(kept, torch.ones(SIZE, 1, dtype=torch.float16))
    assert (out.dtype, out[:, 0].tolist()) == (torch.float16, [0, 3, 0, 0, 0, 0])


@pytest.mark.parametrize(
    "x", [torch.ones(SIZE), torch.ones(SIZE + 1, 2), torch.ones(SIZE, 2).double()]
)
def test_what_does_not_fit_is_refused(x: Tensor) -> None:
    kept = Kept(graph_of([(0, 1)]), Mask(0, 0.5, by_column=False))
    with pytest.raises(ParameterError, match=r"x must be a torch.float32 matrix of 6 rows, got"):
        aggregate_kept(kept, x)
