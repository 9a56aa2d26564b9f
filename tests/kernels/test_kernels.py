"""The compiled kernels against the torch reference and against dense brute force."""

import itertools
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, csr_pattern, to_csr
from gnndrop.kernels import (
    Kept,
    _threads,
    aggregate,
    aggregate_kept,
    attention,
    cpu,
    masked_multiply,
    masked_multiply_sparse,
    reference,
)
from gnndrop.masks import Mask, coin_bits, inverse_scale, keep, row_key, stream_key

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

AXES = list(itertools.product([True, False], repeat=2))
FLOATS = [torch.float32, torch.float64]
HALVES = [torch.float16, torch.bfloat16]


def mask_of(p: float = 0.4, by_row: bool = True, by_column: bool = True, seed: int = 0) -> Mask:
    return Mask(stream_key(seed, "test"), p, by_row, by_column, inverse_scale(p))


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def random_graph(sources: int, targets: int, edges: int, seed: int = 0) -> Graph:
    """Return a bipartite graph with duplicates and, where the sides are equal, loops."""
    generator = torch.Generator().manual_seed(seed)
    ends = [
        torch.randint(0, max(side, 1), (edges,), generator=generator) for side in (sources, targets)
    ]
    return Graph(torch.stack(ends), sources, targets)


def dense_aggregate(
    graph: Graph, x: Tensor, weight: Tensor | None, mask: Mask | None, symmetric: bool = False
) -> Tensor:
    """Add one message after the other, in float64."""
    out = torch.zeros(graph.num_targets, x.size(1), dtype=torch.float64)
    coordinates = graph.coordinates(symmetric)
    for edge, (source, target) in enumerate(graph.edge_index.t().tolist()):
        message = x[source].double()
        if weight is not None:
            per_head = weight[edge].double().reshape(-1)
            message = message * per_head.repeat_interleave(x.size(1) // len(per_head))
        if mask is not None:
            kept = keep(mask, coordinates[edge], torch.arange(x.size(1)))
            message = torch.where(kept, message * mask.scale, 0.0)
        out[target] += message
    return out


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Equal up to the rounding of sums of a few dozen numbers near one."""
    assert actual.dtype == dtype
    slack = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(actual.double(), expected.double(), rtol=slack, atol=slack)


# --- elementwise products: equal to the bit -----------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("by_row", "by_column"), AXES)
@pytest.mark.parametrize("p", [0.0, 2.0**-32, 0.3, 1 - 2.0**-32, 1.0])
def test_multiply_equals_the_reference_to_the_bit(dtype, by_row, by_column, p) -> None:
    x = random(37, 53, dtype=dtype)
    mask = mask_of(p, by_row, by_column)
    rows = torch.randint(-(2**63), 2**63 - 1, (37,), generator=torch.Generator().manual_seed(1))
    for places in (None, rows, torch.arange(37) * 3):
        expected = reference.multiply(x, places, mask)
        assert torch.equal(cpu.multiply(x, places, mask), expected)
        assert torch.equal(masked_multiply(x, mask, places), expected)
    if p == 0.3:
        kept = keep(mask, torch.arange(37)[:, None], torch.arange(53))
        assert torch.equal(masked_multiply(x, mask), torch.where(kept, x * mask.scale, 0))


@given(
    st.integers(0, 2**64 - 1),
    st.floats(0, 1),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    st.integers(0, 5),
    st.sampled_from(AXES),
    st.sampled_from(FLOATS),
)
def test_multiply_equals_the_reference_everywhere(key, p, rows, columns, axes, dtype) -> None:
    mask = Mask(key, p, *axes, scale=inverse_scale(p))
    places = torch.tensor(rows, dtype=torch.int64)
    x = random(len(rows), columns, dtype=dtype)
    assert torch.equal(cpu.multiply(x, places, mask), reference.multiply(x, places, mask))


@pytest.mark.parametrize(("by_row", "by_column"), AXES)
def test_a_coin_at_the_threshold_is_kept(by_row: bool, by_column: bool) -> None:
    """In every kernel: the one coin of this matrix is the threshold, then just below it."""
    key, zero = stream_key(0, "edge"), torch.zeros(1, dtype=torch.int64)
    coin = int(coin_bits(row_key(key, zero), zero if by_column else None))
    graph, one = Graph(torch.zeros(2, 1, dtype=torch.int64)), torch.ones(1, 1)
    graph.__dict__["directed_coordinates"] = zero
    for threshold, expected in ((coin, 1), (coin + 1, 0)):
        mask = Mask(key, threshold / 2**32, by_row, by_column)
        assert masked_multiply(one, mask).item() == expected
        assert masked_multiply_sparse(one.to_sparse_csr(), mask).values().item() == expected
        for weight in (None, one):
            assert aggregate(graph, one, weight, mask).item() == expected
        two_heads = aggregate(graph, torch.ones(1, 2), torch.ones(1, 2), mask)
        assert two_heads[0, 0].item() == expected
        products = cpu.edge_products(graph.by_target, one, one, 1, zero, mask)
        assert products.item() == expected


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("by_row", "by_column"), AXES)
def test_half_precision_has_the_same_coins(dtype, by_row, by_column) -> None:
    mask = mask_of(0.5, by_row, by_column)
    x = random(30, 20, dtype=dtype).abs() + 1
    expected = masked_multiply(x.float(), mask)
    assert torch.equal(masked_multiply(x, mask), expected.to(dtype))


@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES])
@pytest.mark.parametrize(("by_row", "by_column"), AXES)
@pytest.mark.parametrize("p", [0.0, 0.6, 1.0])
def test_sparse_equals_dense_to_the_bit(dtype, by_row, by_column, p) -> None:
    x = random(40, 30, dtype=dtype).relu()
    x[3], x[:, 5] = 0, 0
    mask = mask_of(p, by_row, by_column)
    masked = masked_multiply_sparse(x.to_sparse_csr(), mask)
    assert masked.layout == torch.sparse_csr
    assert torch.equal(masked.crow_indices(), x.to_sparse_csr().crow_indices())
    assert torch.equal(masked.to_dense(), masked_multiply(x, mask))


def test_sparse_matrices_may_have_narrow_indices() -> None:
    x = random(6, 5).relu().to_sparse_csr()
    narrow = torch.sparse_csr_tensor(
        x.crow_indices().int(), x.col_indices().int(), x.values(), x.shape
    )
    masked = masked_multiply_sparse(narrow, mask_of())
    assert torch.equal(masked.values(), masked_multiply_sparse(x, mask_of()).values())


@pytest.mark.parametrize(("by_row", "by_column"), AXES)
def test_any_memory_format_will_do(by_row, by_column) -> None:
    mask = mask_of(0.5, by_row, by_column)
    wide = random(20, 30)
    views = (
        wide.t(),
        wide[::2, ::3],
        wide[:, :1].expand(20, 30),
        wide[:1].expand(20, 30),
        wide.flip(0),
    )
    for view in views:
        assert torch.equal(masked_multiply(view, mask), masked_multiply(view.clone(), mask))
    rows = torch.arange(40)[::2]
    assert torch.equal(masked_multiply(wide, mask, rows), masked_multiply(wide, mask, rows.clone()))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_empty_matrices(shape, p) -> None:
    x = torch.zeros(shape, requires_grad=True)
    masked = masked_multiply(x, mask_of(p))
    assert masked.shape == shape
    masked.sum().backward()
    assert x.grad.shape == shape
    assert masked_multiply_sparse(torch.zeros(shape).to_sparse_csr(), mask_of(p)).shape == shape


@pytest.mark.parametrize("p", [0.5, 1.0, 1 - 2.0**-32])
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES])
def test_what_is_dropped_is_zero_whatever_it_was(p, dtype) -> None:
    """Neither infinity nor NaN survive, forwards or backwards."""
    mask = mask_of(p)
    kept = keep(mask, torch.arange(10)[:, None], torch.arange(10))
    for strange in (math.inf, -math.inf, math.nan):
        x = torch.full((10, 10), strange, dtype=dtype, requires_grad=True)
        masked = masked_multiply(x, mask)
        assert torch.equal(masked == 0, ~kept)
        masked.backward(torch.full_like(x, strange))
        assert torch.equal(x.grad == 0, ~kept)
        sparse = masked_multiply_sparse(x.detach().to_sparse_csr(), mask)
        assert torch.equal(sparse.to_dense() == 0, ~kept)


@pytest.mark.usefixtures("generators_untouched")
def test_inputs_and_generators_are_left_alone() -> None:
    x, weight, graph = random(5, 6), random(8, 2), random_graph(5, 5, 8)
    before = [x.clone(), weight.clone(), graph.edge_index.clone()]
    masked_multiply(x, mask_of())
    aggregate(graph, x, weight, mask_of())
    assert all(map(torch.equal, before, [x, weight, graph.edge_index]))


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((4,), None),
        ((4, 3, 2), None),
        ((4, 3), torch.arange(3)),
        ((4, 3), torch.arange(5)),
        ((4, 3), torch.arange(4.0)),
        ((4, 3), torch.arange(4)[:, None]),
    ],
)
def test_multiply_refuses_other_shapes(shape, rows) -> None:
    with pytest.raises(ParameterError, match="x must be a matrix, and rows int64"):
        masked_multiply(torch.ones(shape), mask_of(), rows)


# --- aggregation: equal up to rounding ----------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("heads", [None, 1, 2, 3, 4])
@pytest.mark.parametrize(("by_row", "by_column"), [*AXES, (None, None)])
def test_aggregate_equals_the_reference(dtype, heads, by_row, by_column) -> None:
    graph = random_graph(9, 7, 40)
    x, y = random(9, 12, dtype=dtype), random(7, 12, dtype=dtype, seed=1)
    weight = None if heads is None else random(40, heads, dtype=dtype, seed=2)
    mask = None if by_row is None else mask_of(0.4, by_row, by_column)
    places = None if mask is None else graph.places(symmetric=False)
    arguments = graph.by_target, x, weight, places, mask
    brute_force = dense_aggregate(graph, x, weight, mask)
    assert_close(cpu.aggregate(*arguments), brute_force, dtype)
    assert_close(reference.aggregate(*arguments), brute_force, dtype)
    products = graph.by_target, x, y, heads or 1, places, mask
    assert_close(cpu.edge_products(*products), reference.edge_products(*products), dtype)


@given(st.data())
def test_aggregate_equals_brute_force(data: st.DataObject) -> None:
    draw = data.draw
    sources, targets = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    ends = st.tuples(st.integers(0, sources - 1), st.integers(0, targets - 1))
    edges = draw(st.lists(ends, max_size=12))
    graph = Graph(torch.tensor(edges, dtype=torch.int64).view(-1, 2).t(), sources, targets)
    heads, per_head = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    x = random(sources, max(heads, 1) * per_head, seed=draw(st.integers(0, 9)))
    weight = random(len(edges), heads, seed=1) if heads else None
    if heads == 1 and draw(st.booleans()):
        weight = weight[:, 0]
    mask = None
    if draw(st.booleans()):
        p = draw(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]))
        mask = mask_of(p, *draw(st.sampled_from(AXES)), seed=draw(st.integers(0, 99)))
    symmetric = draw(st.booleans())
    expected = dense_aggregate(graph, x, weight, mask, symmetric)
    assert_close(aggregate(graph, x, weight, mask, symmetric), expected, torch.float64)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("heads", [None, 2])
def test_half_precision_aggregates(dtype, heads) -> None:
    graph = random_graph(6, 6, 20)
    x = random(6, 4, dtype=dtype).requires_grad_()
    weight = None if heads is None else random(20, heads, dtype=dtype).requires_grad_()
    out = aggregate(graph, x, weight, mask_of())
    assert_close(out.detach(), dense_aggregate(graph, x.detach(), weight, mask_of()), dtype)
    out.sum().backward()
    assert x.grad.dtype == dtype


def test_symmetric_aggregation_shares_the_coins_of_both_directions() -> None:
    pairs = torch.combinations(torch.arange(12)).t()
    graph = Graph(torch.cat([pairs, pairs.flip(0)], 1), 12)
    adjacency = aggregate(graph, torch.eye(12), None, mask_of(0.5, True, False), symmetric=True)
    assert torch.equal(adjacency, adjacency.t())
    assert 0 < int((adjacency != 0).sum()) < 12 * 11
    directed = aggregate(graph, torch.eye(12), None, mask_of(0.5, True, False))
    assert not torch.equal(directed, directed.t())


@pytest.mark.parametrize("heads", [None, 1, 2])
def test_aggregation_over_nothing(heads) -> None:
    for sources, targets, edges in ((0, 0, 0), (3, 2, 0), (3, 0, 0)):
        graph = random_graph(sources, targets, edges)
        x = torch.zeros(sources, 4, requires_grad=True)
        weight = None if heads is None else torch.zeros(0, heads, requires_grad=True)
        for mask in (None, mask_of(), mask_of(1.0)):
            out = aggregate(graph, x, weight, mask)
            assert torch.equal(out, torch.zeros(targets, 4))
            out.sum().backward()
    graph = random_graph(3, 3, 5)
    assert aggregate(graph, torch.zeros(3, 0), None, mask_of()).shape == (3, 0)


@pytest.mark.parametrize("heads", [None, 1, 3])
@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("dtype", [*FLOATS, *HALVES])
def test_dropped_messages_of_infinity_are_zero(heads, by_column, dtype) -> None:
    """At p = 1, and at any p where all the messages of an entry are dropped."""
    graph = random_graph(6, 6, 12)
    x = torch.full((6, 3), math.inf, dtype=dtype, requires_grad=True)
    weight = None if heads is None else torch.ones(12, heads, dtype=dtype, requires_grad=True)
    for p in (1.0, 0.8):
        mask = mask_of(p, True, by_column)
        out = aggregate(graph, x, weight, mask)
        finite = dense_aggregate(graph, torch.ones(6, 3), None, mask)
        assert torch.equal(out == 0, finite == 0)
        assert bool((finite == 0).any())
        assert not bool(out.isnan().any())
        x.grad = None
        out.backward(torch.full_like(out, math.inf))
        assert not bool(x.grad.isnan().any())
        if weight is not None and p == 1:
            assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_aggregation_takes_any_memory_format() -> None:
    graph, mask = random_graph(8, 8, 30), mask_of()
    x, weight = random(8, 8), random(4, 30)
    views = x.t(), x[:, :1].expand(8, 8), x[:1].expand(8, 8), x.flip(0)
    for view in views:
        for factors in (weight.t(), weight[:1].t().expand(30, 4), weight[0]):
            expected = aggregate(graph, view.clone(), factors.clone(), mask)
            assert torch.equal(aggregate(graph, view, factors, mask), expected)


@pytest.mark.parametrize(
    ("x", "weight", "message"),
    [
        ((4, 6), None, "x must be a matrix of 5 rows"),
        ((6, 6), None, "x must be a matrix of 5 rows"),
        ((5,), None, "x must be a matrix of 5 rows"),
        ((5, 6, 1), None, "x must be a matrix of 5 rows"),
        ((5, 6), (7,), r"weight must have shape \(8,\)"),
        ((5, 6), (9, 1), r"weight must have shape \(8,\)"),
        ((5, 6), (8, 4), r"weight must have shape \(8,\)"),
        ((5, 6), (8, 0), r"weight must have shape \(8,\)"),
        ((5, 6), (8, 1, 1), r"weight must have shape \(8,\)"),
        ((5, 6), (), r"weight must have shape \(8,\)"),
    ],
)
def test_aggregate_never_reads_out_of_bounds(x, weight, message) -> None:
    with pytest.raises(ParameterError, match=message):
        aggregate(
            random_graph(5, 5, 8), torch.ones(x), None if weight is None else torch.ones(weight)
        )


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_csr_pattern_aggregates_as_a_matrix_product(dtype) -> None:
    matrix = random(9, 7, dtype=dtype).relu()
    matrix[2], matrix[:, 3] = 0, 0
    sparse = matrix.to_sparse_csr()
    pattern = csr_pattern(sparse.crow_indices(), sparse.col_indices(), 7)
    for dense in (random(7, 5, dtype=dtype, seed=1), random(5, 7, dtype=dtype, seed=1).t()):
        product = aggregate(pattern, dense, sparse.values())
        assert_close(product, matrix.double() @ dense.double(), dtype)
    with pytest.raises(ParameterError):
        aggregate(pattern, random(6, 5, dtype=dtype), sparse.values())


# --- derivatives --------------------------------------------------------------------------------


def check_derivatives(function, *inputs: Tensor) -> None:
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs)


@pytest.mark.parametrize(("by_row", "by_column"), AXES)
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_derivatives_of_masked_multiply(by_row, by_column, p) -> None:
    mask = mask_of(p, by_row, by_column, seed=1)
    check_derivatives(lambda x: masked_multiply(x, mask), random(3, 4).requires_grad_())
    rows = torch.tensor([5, 5, 9])
    check_derivatives(lambda x: masked_multiply(x, mask, rows), random(3, 4).requires_grad_())


@pytest.mark.parametrize(("by_row", "by_column"), AXES)
def test_derivatives_of_masked_multiply_sparse(by_row, by_column) -> None:
    mask = mask_of(0.5, by_row, by_column, seed=1)
    pattern = random(4, 5).relu().to_sparse_csr()

    def function(values: Tensor) -> Tensor:
        x = torch.sparse_csr_tensor(pattern.crow_indices(), pattern.col_indices(), values, (4, 5))
        return masked_multiply_sparse(x, mask).values()

    # Once: torch's own step from values to a CSR matrix has no second derivative.
    assert gradcheck(function, pattern.values().clone().requires_grad_())


@pytest.mark.parametrize("heads", [None, 1, 2, 3])
@pytest.mark.parametrize(("by_row", "by_column"), [*AXES, (None, None)])
def test_derivatives_of_aggregate(heads, by_row, by_column) -> None:
    graph = random_graph(4, 3, 7)
    mask = None if by_row is None else mask_of(0.4, by_row, by_column, seed=1)
    x = random(4, 6).requires_grad_()
    if heads is None:
        check_derivatives(lambda x: aggregate(graph, x, None, mask), x)
    else:
        weight = random(7, heads, seed=1).requires_grad_()
        check_derivatives(lambda x, weight: aggregate(graph, x, weight, mask), x, weight)


def test_derivatives_of_symmetric_aggregation() -> None:
    graph = Graph(torch.tensor([[0, 1, 1, 2, 2, 2], [1, 0, 2, 1, 2, 2]]), 3)
    x, weight = random(3, 2).requires_grad_(), random(6, seed=1).requires_grad_()
    mask = mask_of(0.5, True, True)
    check_derivatives(lambda x, weight: aggregate(graph, x, weight, mask, True), x, weight)


def test_derivatives_of_a_csr_pattern() -> None:
    sparse = random(5, 4).relu().to_sparse_csr()
    pattern = csr_pattern(sparse.crow_indices(), sparse.col_indices(), 4)
    values = sparse.values().clone().requires_grad_()
    check_derivatives(
        lambda values, dense: aggregate(pattern, dense, values),
        values,
        random(4, 3, seed=1).requires_grad_(),
    )


@pytest.mark.parametrize("dtype", FLOATS)
def test_derivatives_equal_those_of_the_reference(dtype, monkeypatch) -> None:
    """Also of gradients that are views: `sum` hands an expanded number back."""
    graph, mask = random_graph(8, 8, 30), mask_of()

    def derivatives() -> list[Tensor]:
        x = random(8, 6, dtype=dtype).requires_grad_()
        weight = random(30, 2, dtype=dtype, seed=1).requires_grad_()
        masked = masked_multiply(aggregate(graph, x, weight, mask), mask)
        masked.sum().backward()
        return [x.grad, weight.grad]

    ours = derivatives()
    for file in ("aggregation", "multiplication"):
        monkeypatch.setattr(f"gnndrop.kernels.{file}.backend", lambda x: reference)
    for actual, expected in zip(ours, derivatives(), strict=True):
        assert_close(actual, expected, dtype)


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_only_what_is_asked_for_is_derived(frozen) -> None:
    graph = random_graph(4, 4, 6)
    x, weight = random(4, 2), random(6)
    learned = weight if frozen == "x" else x
    learned.requires_grad_()
    aggregate(graph, x, weight, mask_of()).sum().backward()
    assert learned.grad is not None
    assert (x if frozen == "x" else weight).grad is None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_our_own_plain_product_is_the_library_s(threads, dtype, monkeypatch) -> None:
    """Where torch is built without MKL, products go to ours: both give what the reference gives."""
    graph = Graph(torch.tensor([[0, 3, 3, 1, 4, 0, 0, 2, 3], [1, 1, 1, 1, 1, 2, 4, 4, 1]]), 6)
    x, weight = random(6, 5, dtype=dtype), random(9, 1, dtype=dtype)
    before = torch.get_num_threads()
    monkeypatch.setattr(_threads, "TEAM_GRAIN", 1)
    torch.set_num_threads(threads)
    try:
        for side in (graph.by_target, graph.by_source):
            for factors in (None, weight):
                expected = reference.aggregate(side, x, factors, None, None)
                for has_mkl in (False, True):
                    monkeypatch.setattr(cpu, "HAS_MKL", has_mkl)
                    out = cpu.aggregate(side, x, factors, None, None)
                    torch.testing.assert_close(out, expected)
    finally:
        torch.set_num_threads(before)


# --- threads and processes ----------------------------------------------------------------------


@pytest.fixture(params=["team", "pool"])
def sharing(request, monkeypatch) -> Iterator[list[int]]:
    """Make every call worth sharing, by OpenMP or by plain threads; collect the numbers of parts.

    Restores the number of threads.
    """
    shared = []
    share = getattr(_threads, "on_team" if request.param == "team" else "_share_with_pool")

    def spy(kernel, *arguments):
        if request.param == "pool":
            shared.append(len(arguments[-1]) - 1)
            return share(kernel, *arguments)

        def call(bounds, arguments):
            shared.append(len(bounds) - 1)
            share(kernel)(bounds, arguments)

        return call

    monkeypatch.setattr(_threads, "TEAM_GRAIN", 1)
    monkeypatch.setattr(_threads, "GRAIN", 1)
    monkeypatch.setattr(cpu, "ATTENTION_GRAIN", 0)
    if request.param == "pool":
        monkeypatch.setattr(_threads, "_team_size", lambda process: 0)
    elif _threads._team_size(os.getpid()) < 2:
        pytest.skip("numba has no team of OpenMP here")
    monkeypatch.setattr(_threads, share.__name__, spy)
    before = torch.get_num_threads()
    yield shared
    torch.set_num_threads(before)


def all_kernels(seed: int = 0) -> list[Tensor]:
    """Results and derivatives of every kernel, on rows of very uneven work."""
    sources = torch.randint(0, 50, (400,), generator=torch.Generator().manual_seed(seed))
    targets = (sources * sources) % 50
    targets[:200] = 7  # half of all the edges at one node
    graph = Graph(torch.stack([sources, targets]), 50)
    x = random(50, 6, dtype=torch.float32, seed=seed).requires_grad_()
    results = [masked_multiply(x, mask_of(seed=seed))]
    results.append(masked_multiply_sparse(x.detach().relu().to_sparse_csr(), mask_of()).values())
    for heads, by_column in itertools.product((1, 2), (True, False)):
        weight = random(400, heads, dtype=torch.float32, seed=seed).requires_grad_()
        out = aggregate(graph, x, weight, mask_of(0.5, True, by_column, seed))
        results += [out, *torch.autograd.grad(out.square().sum(), (x, weight))]
    kept = Kept(graph, mask_of(0.5, True, False, seed), weight=weight[:, 0])
    out = aggregate_kept(kept, x)
    results += [kept.inverse_degree(is_root=True), out, *torch.autograd.grad(out.square().sum(), x)]
    alpha = attention(graph, x, x, mask=mask_of(0.5, seed=seed))
    results += [alpha, *torch.autograd.grad(alpha.square().sum(), x)]
    return [result.detach() for result in results]


def test_bits_do_not_depend_on_the_number_of_threads(sharing) -> None:
    results = []
    for threads in (1, 2, 3, 4, 64):
        torch.set_num_threads(threads)
        results.append(all_kernels())
        assert bool(sharing) == (threads > 1), "nothing was shared, so nothing was tested"
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.usefixtures("sharing")
def test_several_threads_may_call_at_once() -> None:
    torch.set_num_threads(2)
    expected = [all_kernels(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(all_kernels, [*range(8)] * 3))
    for actual, wanted in zip(found, expected * 3, strict=True):
        assert all(map(torch.equal, actual, wanted))


@pytest.mark.parametrize(("by_row", "by_column"), AXES)
@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("module", [cpu, reference])
def test_blocks_have_the_masks_of_their_keys(module, rows, by_row, by_column, sharing) -> None:
    """Also where a thread begins within a block."""
    keys = [stream_key(seed, "test") for seed in range(5)]
    mask = replace(mask_of(0.5, by_row, by_column), key=keys[0], keys=tuple(keys))
    x = random(len(keys) * rows, 4, dtype=torch.float32)
    pairs = zip(x.split(max(rows, 1)), keys, strict=bool(rows))
    blocks = [(one, replace(mask, key=key, keys=())) for one, key in pairs]
    csr = to_csr(x)
    pattern = csr.crow_indices(), csr.col_indices()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        expected = torch.cat([x[:0], *(module.multiply(one, None, own) for one, own in blocks)])
        assert module.multiply(x, None, mask).equal(expected)
        assert module.multiply_in_place(x.clone(), mask).equal(expected)
        sparse = module.multiply_csr(*pattern, csr.values(), mask)
        kept = torch.sparse_csr_tensor(*pattern, sparse, x.shape, check_invariants=False)
        assert kept.to_dense().equal(expected)


def test_part_of_a_team_may_work(monkeypatch) -> None:
    """Fewer threads than numba has: for this call alone."""
    threads = _threads._team_size(os.getpid())
    if threads < 2:
        pytest.skip("numba has no team of OpenMP here")
    x = random(5, 4)
    expected = masked_multiply(x, mask_of())
    monkeypatch.setattr(_threads, "TEAM_GRAIN", 4)
    monkeypatch.setattr(_threads, "_team_size", lambda process: threads + 1)
    before = torch.get_num_threads()
    seen = []
    team = _threads.on_team
    monkeypatch.setattr(
        _threads, "on_team", lambda kernel: seen.append(numba.get_num_threads()) or team(kernel)
    )
    torch.set_num_threads(2)
    try:
        assert masked_multiply(x, mask_of()).equal(expected)
    finally:
        torch.set_num_threads(before)
    assert seen == [2]
    assert numba.get_num_threads() == threads


def test_starting_numba_s_threads_leaves_torch_s_alone() -> None:
    """What starts them sets how many threads OpenMP takes, for the thread that it runs in."""
    code = """
import os, torch
torch.set_num_threads(1)
from gnndrop.kernels import _threads
before = torch.__config__.parallel_info()
_threads._team_size(os.getpid())
print(before == torch.__config__.parallel_info())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "True", run.stderr


@pytest.mark.parametrize("layer", ["workqueue", "tbb"])
def test_other_layers_of_numba_are_not_used(layer) -> None:
    """One does not survive two calling threads, the other may not be there."""
    code = """
import os, torch
torch.set_num_threads(2)
from gnndrop.kernels import masked_multiply, _threads
from gnndrop.masks import Mask
assert masked_multiply(torch.ones(1 << 15, 4), Mask(key=0, p=0.0)).sum() == 1 << 17
print(_threads._team_size(os.getpid()))
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_THREADING_LAYER": layer},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "0", run.stderr


def test_the_loop_of_a_kernel_is_cached_beside_it() -> None:
    """By its own file, so that a change there is noticed, and under a line of its own."""
    from gnndrop.kernels import _compiled, _summaries

    for kernel in (_compiled.multiply, _compiled.multiply_csr, _summaries._add_samples):
        loop, own = _compiled.on_team(kernel).py_func.__code__, kernel.py_func.__code__
        assert (loop.co_filename, loop.co_firstlineno) == (own.co_filename, own.co_firstlineno)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize(("method", "team"), [("fork", False), ("spawn", True)])
def test_a_child_may_import_us_first(method, team, tmp_path) -> None:
    """A forked one has the parent's team of OpenMP, dead; a spawned one its own."""
    script = tmp_path / "parent.py"
    script.write_text("""
import multiprocessing, sys
import numpy, torch

def child(number):
    import os
    from gnndrop.kernels import _threads, masked_multiply
    from gnndrop.masks import Mask
    torch.set_num_threads(2)
    x = torch.from_numpy(numpy.ones((1 << 15, 4), numpy.float32))
    total = masked_multiply(x, Mask(key=0, p=0.0)).numpy().sum()
    return float(total) == 1 << 17, _threads._team_size(os.getpid()) > 1

if __name__ == "__main__":
    torch.set_num_threads(2)
    torch.ones(1 << 20).add_(1)  # starts OpenMP's threads
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(*pool.map(child, [0])[0])
""")
    command = [sys.executable, "-W", "ignore", str(script), method]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    has_team = team and _threads._team_size(os.getpid()) > 1
    assert run.stdout.split() == ["True", str(has_team)], run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_computes_too(sharing) -> None:
    """DataLoader's workers are forked: the parent's helping threads do not exist in them."""
    torch.set_num_threads(2)
    expected = b"".join(result.numpy().tobytes() for result in all_kernels())
    assert sharing
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = b"".join(result.numpy().tobytes() for result in all_kernels())
            os.write(sender, b"equal" if found == expected else b"different")
        finally:
            os._exit(0)
    os.close(sender)
    try:
        ready, _, _ = select.select([receiver], [], [], 30)
        assert ready, "the child hangs"
        assert os.read(receiver, 99) == b"equal"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(receiver)
    assert b"".join(result.numpy().tobytes() for result in all_kernels()) == expected


def test_kernels_need_no_place_for_a_cache() -> None:
    """Of numba's places only the one for zipped packages is left, which does not fit."""
    code = """
import torch
from gnndrop.kernels import masked_multiply
from gnndrop.masks import Mask
print(masked_multiply(torch.ones(2, 2), Mask(key=0, p=1 - 2.0**-32)).tolist())
"""
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "[[0.0, 0.0], [0.0, 0.0]]", run.stderr


def test_columns_beyond_32_bits_are_refused() -> None:
    """Their coins would be those of others."""
    wide = torch.sparse_csr_tensor(
        torch.tensor([0, 1]), torch.tensor([2**33]), torch.ones(1), (1, 2**34)
    )
    with pytest.raises(ParameterError, match=r"numbered in 32 bits to have coins, got 17179869184"):
        masked_multiply_sparse(wide, mask_of())
    with pytest.raises(ParameterError, match=r"numbered in 32 bits to have coins, got 4294967296"):
        masked_multiply(torch.ones(1, 1).expand(1, 2**32), mask_of())
    kept = masked_multiply_sparse(wide, mask_of(0.0, by_column=False))
    assert kept.values().tolist() == [1.0]


def test_rows_beyond_32_bits_have_coins_of_their_own() -> None:
    rows = torch.arange(1000)
    near, far = (
        masked_multiply(torch.ones(1000, 1), mask_of(0.5), rows + offset) for offset in (0, 2**32)
    )
    assert 0.4 < float((near == far).float().mean()) < 0.6
