"""Edges that an operator chooses by itself, in the place of a mask's coins."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from gnndrop.graph import Graph
from gnndrop.kernels import Kept, aggregate_kept, cpu, reference
from gnndrop.masks import Mask

SIZE = 5
edges_with_choice = st.lists(
    st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.booleans()), max_size=12
)


@given(edges=edges_with_choice, protect=st.booleans(), weighted=st.booleans())
def test_they_are_listed_and_summed(
    edges: list[tuple[int, int, bool]], protect: bool, weighted: bool
) -> None:
    edge_index = torch.tensor([edge[:2] for edge in edges], dtype=torch.int64).view(-1, 2).T
    chosen = torch.tensor([edge[2] for edge in edges], dtype=torch.bool)
    graph, mask = Graph(edge_index, SIZE, SIZE), Mask(key=0, p=0.5, by_column=False)
    weight = 1.0 + torch.arange(len(edges), dtype=torch.float64) if weighted else None
    matrix = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    for place, (source, target, stays) in enumerate(edges):
        if stays or (protect and source == target):
            matrix[target, source] += 1.0 if weight is None else float(weight[place])
    kept = Kept(graph, mask, False, protect, weight, torch.float64, chosen)
    x = torch.rand(SIZE, 3, dtype=torch.float64, requires_grad=True)
    out = aggregate_kept(kept, x)
    torch.testing.assert_close(out, matrix @ x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, matrix.sum(0)[:, None].expand(SIZE, 3))
    degree = matrix.sum(1)
    expected = degree.pow(-0.5).masked_fill(degree == 0, 0)
    torch.testing.assert_close(kept.inverse_degree(is_root=True), expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_backends_agree(transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    graph = Graph(torch.randint(0, 30, (2, 300), generator=generator), 30, 30)
    chosen = torch.rand(300, generator=generator) < 0.5
    for weight in (None, torch.rand(300, generator=generator)):
        rows = graph.rows(transposed)
        arguments = (rows, None, Mask(key=0, p=0.5), False, weight, torch.float32, chosen)
        ours, our_factors = cpu.list_kept(*arguments)
        theirs, their_factors = reference.list_kept(*arguments)
        assert (our_factors is None) == (their_factors is None) == (weight is None)
        for row in range(30):
            mine = slice(int(ours.pointer[row]), int(ours.ends[row]))
            its = slice(int(theirs.pointer[row]), int(theirs.ends[row]))
            assert torch.equal(ours.other[mine], theirs.other[its])
            if our_factors is not None and their_factors is not None:
                assert torch.equal(our_factors[mine], their_factors[its])


def test_derivatives() -> None:
    graph = Graph(torch.tensor([[0, 1, 2, 2], [1, 0, 0, 2]]))
    chosen = torch.tensor([True, False, True, True])
    kept = Kept(graph, Mask(key=0, p=0.5), dtype=torch.float64, chosen=chosen)
    x = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: aggregate_kept(kept, x), x)
