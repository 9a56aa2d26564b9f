"""The linear map, the masks, the sum and the bias at once: equal to one after the other."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.multiprocessing.reductions import StorageWeakRef

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph, csr_matrix, csr_pattern, to_csr
from gnndrop.kernels import (
    aggregate,
    convolution,
    convolve,
    masked_multiply,
    masked_multiply_sparse,
    reference,
)
from gnndrop.masks import Mask, inverse_scale, keep, stream_key

F, C = 5, 4
FLOATS = [torch.float32, torch.float64]
AXES = [(True, True), (True, False), (False, True)]


def mask_of(p: float = 0.4, by_row: bool = True, by_column: bool = True, seed: int = 0) -> Mask:
    return Mask(stream_key(seed, "test"), p, by_row, by_column, inverse_scale(p))


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def random_graph(sources: int, targets: int, edges: int) -> Graph:
    """Loops, duplicates and, the last of each side, isolated nodes among them."""
    generator = torch.Generator().manual_seed(0)
    ends = [
        torch.randint(0, max(side - 1, 1), (edges,), generator=generator)
        for side in (sources, targets)
    ]
    return Graph(torch.stack(ends), sources, targets)


GRAPHS = {
    "square": random_graph(9, 9, 30),
    "sorted": Graph(random_graph(9, 9, 30).edge_index.sort(dim=1).values, 9),
    "bipartite": random_graph(9, 5, 20),
    "without edges": random_graph(6, 6, 0),
    "without targets": random_graph(3, 0, 0),
    "empty": random_graph(0, 0, 0),
}


class Inputs:
    """What `convolve` is called with, and what is to be derived by."""

    def __init__(
        self,
        graph: Graph,
        is_sparse: bool = False,
        heads: int | None = 1,
        has_bias: bool = True,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        rows, self.pattern = graph.num_sources, None
        x = random(rows, F, dtype=dtype)
        if is_sparse:
            csr = to_csr(x.relu())
            self.pattern = csr_pattern(csr.crow_indices(), csr.col_indices(), F)
            x = csr.values().clone()
        shape = () if heads is None else (heads,) * (heads > 0)
        factors = random(graph.edge_index.size(1), *shape, dtype=dtype, seed=3)
        self.graph = graph
        self.x = x.requires_grad_()
        self.weight = random(C, F, dtype=dtype, seed=1).requires_grad_()
        self.bias = random(C, dtype=dtype, seed=2).requires_grad_() if has_bias else None
        self.factors = None if heads is None else factors.requires_grad_()

    @property
    def learned(self) -> list[Tensor]:
        given = self.x, self.weight, self.bias, self.factors
        return [one for one in given if one is not None and one.requires_grad]

    def convolve(self, mask: Mask | None = None, feature_mask: Mask | None = None) -> Tensor:
        return convolve(
            self.graph,
            self.x,
            self.weight,
            self.bias,
            factors=self.factors,
            mask=mask,
            pattern=self.pattern,
            feature_mask=feature_mask,
        )

    def compose(self, mask: Mask | None = None, feature_mask: Mask | None = None) -> Tensor:
        """One after the other."""
        if self.pattern is None:
            x = self.x if feature_mask is None else masked_multiply(self.x, feature_mask)
            mapped = x @ self.weight.t()
        else:
            values, rows = self.x, self.pattern.by_target
            if feature_mask is not None:
                shape = self.pattern.num_targets, F
                csr = csr_matrix(rows.pointer, rows.other, values, shape)
                values = masked_multiply_sparse(csr, feature_mask).values()
            mapped = aggregate(self.pattern, self.weight.t(), values)
        out = aggregate(self.graph, mapped, self.factors, mask)
        return out if self.bias is None else out + self.bias

    def derived(self, out: Tensor) -> list[Tensor]:
        """Return a result, and its derivatives by all that is learned."""
        slope = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        return [out.detach(), *torch.autograd.grad((out * slope).sum(), self.learned)]


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Equal up to the rounding of sums of a few dozen numbers near one."""
    for one, other in zip(actual, expected, strict=True):
        assert one.dtype == other.dtype
        slack = 100 * torch.finfo(one.dtype).eps
        torch.testing.assert_close(one, other, rtol=slack, atol=slack)


# --- equal to the composition -------------------------------------------------------------------


@pytest.mark.parametrize("heads", [None, 0, 1, 2])  # 0: factors without an axis of heads
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_at_once_is_one_after_the_other(graph, is_sparse, heads) -> None:
    masks = [None, mask_of(seed=1), mask_of(0.4, True, False, seed=1), mask_of(1.0)]
    feature_masks = [None, *(mask_of(0.4, *axes) for axes in AXES), mask_of(1.0)]
    for number, (mask, feature_mask) in enumerate(itertools.product(masks, feature_masks)):
        inputs = Inputs(GRAPHS[graph], is_sparse, heads, has_bias=number % 2 == 1)
        fast = inputs.derived(inputs.convolve(mask, feature_mask))
        assert_same(fast, inputs.derived(inputs.compose(mask, feature_mask)))


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("dtype", [*FLOATS, torch.bfloat16])
def test_the_type_is_kept(dtype, is_sparse) -> None:
    """The reference is that of the same numbers in float64."""
    inputs = Inputs(GRAPHS["square"], is_sparse, 2, dtype=dtype)
    wide = Inputs(GRAPHS["square"], is_sparse, 2)
    for name in ("x", "weight", "bias", "factors"):
        setattr(wide, name, getattr(inputs, name).detach().double().requires_grad_())
    masks = mask_of(seed=1), mask_of()
    fast, slow = inputs.derived(inputs.convolve(*masks)), wide.derived(wide.compose(*masks))
    slack = 100 * torch.finfo(dtype).eps
    for one, other in zip(fast, slow, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=slack, atol=slack)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_the_reference_gives_the_same(is_sparse, monkeypatch) -> None:
    inputs, masks = Inputs(GRAPHS["square"], is_sparse, 2), (mask_of(seed=1), mask_of())
    ours = inputs.derived(inputs.convolve(*masks))
    asked = []
    for file in ("aggregation", "multiplication", "convolution"):
        backend = f"gnndrop.kernels.{file}.backend"
        monkeypatch.setattr(backend, lambda x, file=file: asked.append(file) or reference)
    assert_same(ours, inputs.derived(inputs.convolve(*masks)))
    assert set(asked) == {"aggregation", "multiplication", "convolution"}


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("axes", AXES)
def test_samples_at_once_are_one_after_the_other(axes, is_sparse) -> None:
    """Blocks of nodes, each with the masks of its own key, in copies of one graph."""
    one, keys = GRAPHS["square"], [stream_key(seed, "sample") for seed in range(3)]
    nodes, edges = one.num_sources, one.edge_index.size(1)
    ends = [one.edge_index + nodes * block for block in range(3)]
    inputs = Inputs(Graph(torch.cat(ends, 1), 3 * nodes), is_sparse)
    masks = [
        replace(mask_of(0.4, *axes), key=keys[0], keys=tuple(keys)) for axes in (AXES[1], axes)
    ]
    together, apart = inputs.derived(inputs.convolve(*masks)), []
    for block, key in enumerate(keys):
        part = Inputs(one, is_sparse)
        part.weight, part.bias = inputs.weight, inputs.bias
        part.factors = inputs.factors[edges * block : edges * (block + 1)]
        part.x = inputs.x[nodes * block : nodes * (block + 1)]
        if is_sparse:
            pointer = inputs.pattern.by_target.pointer[nodes * block : nodes * (block + 1) + 1]
            start, stop = int(pointer[0]), int(pointer[-1])
            columns = inputs.pattern.by_target.other[start:stop]
            part.pattern = csr_pattern(pointer - start, columns, F)
            part.x = inputs.x[start:stop]
        single = [replace(mask, key=key, keys=()) for mask in masks]
        apart.append(part.convolve(*single))
    assert not torch.equal(apart[0], apart[1])
    assert_same(together, inputs.derived(torch.cat(apart)))


@given(st.data())
def test_at_once_is_dense_algebra(data: st.DataObject) -> None:
    """One message after the other, with the coins that the definition of a mask gives."""
    draw = data.draw
    sources, targets = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    ends = st.tuples(st.integers(0, sources - 1), st.integers(0, targets - 1))
    edges = draw(st.lists(ends, max_size=12))
    graph = Graph(torch.tensor(edges, dtype=torch.int64).view(-1, 2).t(), sources, targets)
    heads, per_head, width = (
        draw(st.integers(1, 3)),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 3)),
    )
    x, weight = random(sources, width), random(heads * per_head, width, seed=1)
    factors = random(len(edges), heads, seed=2) if draw(st.booleans()) else None
    bias = random(heads * per_head, seed=3) if draw(st.booleans()) else None
    rates = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])
    masks = [
        mask_of(draw(rates), *draw(st.sampled_from(AXES)), seed=draw(st.integers(0, 99)))
        if draw(st.booleans())
        else None
        for _ in range(2)
    ]
    mask, feature_mask = masks

    masked = x
    if feature_mask is not None:
        kept = keep(feature_mask, torch.arange(sources)[:, None], torch.arange(width))
        masked = torch.where(kept, x * feature_mask.scale, 0.0)
    expected = torch.zeros(targets, heads * per_head, dtype=torch.float64)
    for edge, (source, target) in enumerate(edges):
        message = weight @ masked[source]
        if factors is not None:
            message = message * factors[edge].repeat_interleave(per_head)
        if mask is not None:
            kept = keep(mask, graph.coordinates(False)[edge], torch.arange(len(message)))
            message = torch.where(kept, message * mask.scale, 0.0)
        expected[target] += message
    expected = expected if bias is None else expected + bias

    options = {"factors": factors, "mask": mask, "feature_mask": feature_mask}
    assert_same([convolve(graph, x, weight, bias, **options)], [expected])
    csr = to_csr(x)
    options["pattern"] = csr_pattern(csr.crow_indices(), csr.col_indices(), width)
    assert_same([convolve(graph, csr.values(), weight, bias, **options)], [expected])


def test_any_memory_format_will_do() -> None:
    inputs, masks = Inputs(GRAPHS["square"], heads=2), (mask_of(seed=1), mask_of())
    expected = inputs.convolve(*masks)
    for name in ("x", "weight", "factors"):
        plain = getattr(inputs, name).detach()
        setattr(inputs, name, plain.t().contiguous().t())
        assert not getattr(inputs, name).is_contiguous()
    wide = inputs.bias.detach().repeat_interleave(2)
    inputs.bias = wide[::2]
    assert_same([inputs.convolve(*masks)], [expected.detach()])


@pytest.mark.usefixtures("generators_untouched")
def test_inputs_and_generators_are_left_alone() -> None:
    inputs = Inputs(GRAPHS["square"])
    before = [one.detach().clone() for one in inputs.learned]
    inputs.derived(inputs.convolve(mask_of(seed=1), mask_of()))
    assert all(map(torch.equal, before, inputs.learned))


# --- derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [None, 2])
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("feature_mask", [None, mask_of()])
@pytest.mark.parametrize("mask", [None, mask_of(seed=1)])
def test_derivatives_to_the_second_order(mask, feature_mask, is_sparse, heads) -> None:
    inputs = Inputs(random_graph(4, 3, 7), is_sparse, heads)
    names = [
        name for name in ("x", "weight", "bias", "factors") if getattr(inputs, name) is not None
    ]

    def function(*values: Tensor) -> Tensor:
        for name, value in zip(names, values, strict=True):
            setattr(inputs, name, value)
        return inputs.convolve(mask, feature_mask)

    assert gradcheck(function, inputs.learned)
    assert gradgradcheck(function, inputs.learned)


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize(
    ("learned", "dense", "sparse"),
    [
        ("x", ["Aggregate"], ["Aggregate", "EdgeProducts", "MultiplyCsr"]),  # masked in place
        ("weight", ["Aggregate"], ["Aggregate", "Aggregate"]),
        ("bias", [], []),
        ("factors", ["EdgeProducts"], ["Aggregate", "EdgeProducts"]),
    ],
)
def test_only_what_is_asked_for_is_derived(learned, dense, sparse, is_sparse, monkeypatch) -> None:
    """By the kernels that the derivative calls."""
    inputs, called = Inputs(GRAPHS["square"], is_sparse), []
    expected = inputs.derived(inputs.convolve(None, mask_of()))
    place = [one is getattr(inputs, learned) for one in inputs.learned].index(True) + 1
    for one in inputs.learned:
        one.requires_grad_(one is getattr(inputs, learned))
    out = inputs.convolve(None, mask_of())
    real = convolution.call

    def call(function: type, *arguments: object) -> Tensor:
        called.append(function.__name__)
        return real(function, *arguments)

    monkeypatch.setattr(convolution, "call", call)
    assert_same(inputs.derived(out), [expected[0], expected[place]])
    assert called == (sparse if is_sparse else dense)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_derivative_frees_what_was_saved(is_sparse, monkeypatch) -> None:
    """The result outlives the features, and the masked ones.

    But for values of sparse ones, of which the pattern remembers the last two.
    """
    inputs, saved, mask = Inputs(GRAPHS["square"], is_sparse), [], convolution._mask

    def saving(*arguments: object) -> Tensor:
        masked = mask(*arguments)
        saved.append(StorageWeakRef(masked.untyped_storage()))
        return masked

    if not is_sparse:
        monkeypatch.setattr(convolution, "_mask", saving)
    inputs.x = inputs.x * 1  # nobody else's
    saved.append(StorageWeakRef(inputs.x.untyped_storage()))
    out = inputs.convolve(None, mask_of())
    inputs.x = None
    assert not any(one.expired() for one in saved)
    out.sum().backward()
    assert inputs.weight.grad is not None
    assert all(one.expired() for one in saved)
    with pytest.raises(RuntimeError, match="second time"):
        out.sum().backward()


@pytest.mark.parametrize("name", ["x", "weight", "factors"])
def test_what_was_saved_must_not_be_written_to(name) -> None:
    inputs = Inputs(GRAPHS["square"])
    setattr(inputs, name, getattr(inputs, name) * 1)
    out = inputs.convolve()
    getattr(inputs, name).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


# --- shapes -------------------------------------------------------------------------------------


def shapes() -> Iterator[tuple[tuple[int, ...] | None, ...]]:
    """x, weight, bias and factors that do not fit a graph of 9 sources, 5 targets and 20 edges."""
    fitting = {"x": (9, F), "weight": (C, F), "bias": (C,), "factors": (20, 2)}
    others = {
        "x": [(8, F), (10, F), (5, F), (9, F - 1), (9, F + 1), (9,), (9, F, 1), (9 * F,), ()],
        "weight": [(C, F - 1), (C, F + 1), (F, C), (C - 1, F), (C + 1, F), (F,), (C, F, 1), ()],
        "bias": [(C - 1,), (C + 1,), (1,), (C, 1), (1, C), (0,), ()],
        "factors": [(19,), (21,), (0,), (20, 3), (20, 0), (20, 8), (2, 20), (20, 2, 1), (1, 2), ()],
    }
    for name, wrong in others.items():
        for shape in wrong:
            yield tuple({**fitting, name: shape}.values())
    yield (9, F), (C, F - 1), None, None
    yield (8, F), (C, F), None, None


@pytest.mark.parametrize(("x", "weight", "bias", "factors"), list(shapes()))
def test_other_shapes_are_refused(x, weight, bias, factors) -> None:
    bias, factors = (None if one is None else torch.ones(one) for one in (bias, factors))
    with pytest.raises(ParameterError, match="must"):
        convolve(GRAPHS["bipartite"], torch.ones(x), torch.ones(weight), bias, factors=factors)


@pytest.mark.parametrize("values", [(6,), (8,), (7, 1), (1, 7), (9, F), (0,), ()])
def test_other_values_of_sparse_features_are_refused(values) -> None:
    pattern = random_graph(F, 9, 7)
    weight = torch.ones(C, F)
    assert convolve(GRAPHS["bipartite"], torch.ones(7), weight, pattern=pattern).shape == (5, C)
    with pytest.raises(ParameterError, match="x must have shape"):
        convolve(GRAPHS["bipartite"], torch.ones(values), weight, pattern=pattern)


@pytest.mark.parametrize(("rows", "columns"), [(8, F), (10, F), (9, F - 1), (9, F + 1), (F, 9)])
def test_other_patterns_of_sparse_features_are_refused(rows, columns) -> None:
    pattern = random_graph(columns, rows, 7)
    with pytest.raises(ParameterError, match="x must"):
        convolve(GRAPHS["bipartite"], torch.ones(7), torch.ones(C, F), pattern=pattern)


def test_blocks_of_other_lengths_are_refused() -> None:
    several = replace(mask_of(), keys=(1, 2))
    with pytest.raises(ParameterError, match="2 samples at once"):
        convolve(GRAPHS["bipartite"], torch.ones(9, F), torch.ones(C, F), feature_mask=several)


def test_more_columns_than_coins_are_refused() -> None:
    wide = torch.ones(0, 2**32 + 1)  # of no entries
    with pytest.raises(ParameterError, match="columns must be numbered in 32 bits"):
        convolve(GRAPHS["empty"], wide, wide, feature_mask=mask_of())
