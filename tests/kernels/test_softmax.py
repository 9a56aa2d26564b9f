"""The attention of GAT against a softmax in dense matrices."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.kernels import attention, cpu, reference
from gnndrop.masks import Mask, keep, stream_key

SIZE = 6
edge_lists = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=15)
axes = st.sampled_from([(True, True), (True, False), (False, True), (False, False)])


def graph_of(edges: list[tuple[int, int]]) -> Graph:
    return Graph(torch.tensor(edges, dtype=torch.int64).view(-1, 2).T, SIZE, SIZE)


def scores(heads: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    source, target = 3 * torch.randn(2, SIZE, heads, generator=generator, dtype=torch.float64)
    return source.to(dtype).requires_grad_(), target.to(dtype).requires_grad_()


@given(
    edges=edge_lists,
    p=st.sampled_from([None, 0.0, 0.5, 1.0]),
    axes=axes,
    protect=st.booleans(),
    symmetric=st.booleans(),
    heads=st.integers(1, 3),
    seed=st.integers(0, 2**63 - 1),
)
def test_it_is_a_softmax_over_the_kept_edges(
    edges, p, axes, protect, symmetric, heads, seed
) -> None:
    graph, (source, target) = graph_of(edges), scores(heads, seed)
    mask = None if p is None else Mask(seed, p, *axes)
    alpha = attention(graph, source, target, 0.1, mask, symmetric, protect)
    expected = torch.zeros_like(alpha)
    for node in range(SIZE):
        for head in range(heads):
            mine = []
            for edge, (start, end) in enumerate(graph.edge_index.T.tolist()):
                place = graph.coordinates(symmetric)[edge]
                is_kept = mask is None or bool(keep(mask, place, torch.tensor(head)))
                if end == node and (is_kept or (protect and start == end)):
                    mine.append(edge)
            raw = [source[graph.source[edge], head] + target[node, head] for edge in mine]
            if raw:
                shares = F.leaky_relu(torch.stack(raw), 0.1).softmax(0)
                expected = expected.index_put(
                    (torch.tensor(mine), torch.tensor(head)), shares.to(expected.dtype)
                )
    torch.testing.assert_close(alpha, expected)
    if edges:
        weight = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(1)).double()
        ours = torch.autograd.grad(alpha, (source, target), weight, retain_graph=True)
        theirs = (
            torch.autograd.grad(
                expected, (source, target), weight, allow_unused=True, materialize_grads=True
            )
            if expected.requires_grad
            else [torch.zeros_like(source)] * 2
        )
        torch.testing.assert_close(list(ours), list(theirs))


@pytest.mark.parametrize("p", [None, 0.4])
def test_the_derivatives_are_right(p: float | None) -> None:
    graph = graph_of([(0, 1), (2, 1), (3, 1), (1, 1), (4, 5), (5, 4), (0, 1)])
    mask = None if p is None else Mask(stream_key(0, "test"), p)

    def function(source: Tensor, target: Tensor) -> Tensor:
        return attention(graph, source, target, 0.2, mask)

    assert gradcheck(function, scores(2))
    assert gradgradcheck(function, scores(2))


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_what_is_asked_for_is_derived(frozen: int) -> None:
    both = scores(2)
    both[frozen].requires_grad_(False)
    alpha = attention(graph_of([(0, 1), (2, 1)]), *both)
    alpha.square().sum().backward()
    assert both[frozen].grad is None
    assert both[1 - frozen].grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_agree(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    graph = Graph(torch.randint(40, (2, 900), generator=generator), 40, 40)
    source, target = torch.randn(2, 40, 8, generator=generator).to(dtype)
    mask = Mask(stream_key(0, "test"), 0.3)
    arguments = graph.by_target, source, target, 0.2, graph.places(False), mask, True
    ours, theirs = cpu.attention(*arguments), reference.attention(*arguments)
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours == 0, theirs == 0)


def test_large_scores_do_not_overflow() -> None:
    graph, high = graph_of([(0, 1), (2, 1)]), torch.full((SIZE, 1), 3e38)
    assert attention(graph, high, torch.zeros(SIZE, 1)).tolist() == [[0.5], [0.5]]


def test_half_precision_takes_the_reference() -> None:
    graph, zeros = graph_of([(0, 1), (2, 1)]), torch.zeros(SIZE, 2, dtype=torch.bfloat16)
    zeros.requires_grad_()
    alpha = attention(graph, zeros, zeros)
    assert alpha.dtype == torch.bfloat16
    assert bool((alpha == 0.5).all())
    alpha.sum().backward()
    assert zeros.grad is not None


@pytest.mark.parametrize(
    ("source", "target"),
    [((SIZE,), (SIZE,)), ((SIZE + 1, 2), (SIZE, 2)), ((SIZE, 2), (SIZE, 3))],
)
def test_what_does_not_fit_is_refused(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ParameterError, match="the scores must have shapes"):
        attention(graph_of([(0, 1)]), torch.zeros(source), torch.zeros(target))
