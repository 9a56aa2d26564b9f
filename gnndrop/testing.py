"""The contract of operators, shipped for the authors of new ones: `check_operator`.

Which clauses apply, and what is to be expected, is read from the operator's declaration. All
statistics use explicit seeds and bounds of `SIGMAS` standard errors: a check passes always or
never.
"""

import copy
import functools
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnndrop.attach import attach
from gnndrop.errors import GnndropError, ParameterError
from gnndrop.graph import Graph, to_csr
from gnndrop.operators import (
    OPERATORS,
    CompositeOperator,
    EdgeOperator,
    FeatureOperator,
    MessageOperator,
    Operator,
    make_operator,
)
from gnndrop.operators._base import COLUMN_AXES, ROW_AXES
from gnndrop.theory import (
    expected_output,
    expected_two_layers,
    moments,
    output_covariance,
    product_variance,
)
from gnndrop.theory.linear import edge_weights, linear_layer
from gnndrop.theory.measurement import SIGMAS, Measurement

RATES = (0.1, 0.3, 0.5, 0.9)
SAMPLES = 1000
ROUNDING = 1e-5  # the outputs are float32


class ContractError(GnndropError, AssertionError):
    """An operator that breaks the contract; `checks` holds the outcome of every clause."""

    checks: "tuple[Check, ...]" = ()


@dataclass(frozen=True)
class Check:
    """The outcome of one clause.

    Args:
        clause: what must hold.
        detail: what was measured, or how it failed.
        passed: whether it held.
        measurements: theory against measurement, where the clause is about that.
    """

    clause: str
    detail: str
    passed: bool
    measurements: tuple[Measurement, ...] = ()


def check_operator(operator: Operator | str) -> tuple[Check, ...]:
    """Hold an operator against the contract of its declaration.

    Args:
        operator: an operator, whose options are kept while its rate is varied, or a spec string.

    Returns:
        One `Check` per clause.

    Raises:
        ContractError: if a clause fails; it names all that do.
        UnknownNameError: if no operator has the name in the spec string.

    Example:
        >>> {check.passed for check in check_operator("none")}
        {True}
    """
    operator = copy.deepcopy(make_operator(operator)).train()
    operator.end_pass()
    checks: list[Check] = []
    if isinstance(operator, CompositeOperator):  # it keeps the contract where its parts do
        for part in operator.operators:
            checks += check_operator(part)
        return tuple(checks)
    with torch.random.fork_rng(devices=()):  # attached, an operator draws from torch's generator
        for clause, check in _clauses(operator):
            try:
                checks.append(_judge(clause, check(operator)))
            except (AssertionError, GnndropError) as error:
                checks.append(Check(clause, str(error), passed=False))
            except Exception as error:  # a stranger's operator may raise anything
                checks.append(Check(clause, f"{type(error).__name__}: {error}", passed=False))
    failures = [f"{check.clause}: {check.detail}" for check in checks if not check.passed]
    if failures:
        broken = ContractError(f"{operator.name} breaks the contract: {'; '.join(failures)}")
        broken.checks = tuple(checks)
        raise broken
    return tuple(checks)


Outcome = str | tuple[Measurement, ...] | None
Clause = Callable[[Operator], Outcome]


def _judge(clause: str, outcome: Outcome) -> Check:
    """Return the check of a clause that raised nothing: its measurements decide."""
    if not isinstance(outcome, tuple):
        return Check(clause, outcome or "", passed=True)
    off = [one for one in outcome if not one.passed]
    if off:
        worst = max(off, key=lambda one: one.deviation)
        errors = SIGMAS * worst.deviation
        detail = f"{worst.quantity} {errors:.1f} standard errors off at p = {worst.p}"
    else:
        errors = SIGMAS * max((one.deviation for one in outcome), default=0.0)
        detail = f"within {errors:.1f} standard errors"
    return Check(clause, detail, not off, outcome)


def _clauses(operator: Operator) -> Iterator[tuple[str, Clause]]:
    yield "its spec builds it again", _check_spec
    yield "evaluation and p = 0 are the identity to the bit", _check_identity
    stands_alone = operator.rescale != "exact"  # a layer's normalization is part of that
    if stands_alone:
        yield "seeds decide, copies agree", _check_seeds
    if operator.site == "none":
        return
    yield "rates outside of [0, 1] are refused", _check_refusals
    has_own_rates = isinstance(operator, EdgeOperator) and not operator.is_product
    if operator.distribution != "bernoulli":
        yield "the factors have the declared moments", _check_factors
    elif not has_own_rates:
        yield "the rate is p", _check_rate
    if stands_alone:
        yield "zeros at p = 1", _check_zeros
        yield "the inputs are not modified", _check_inputs
    yield "degenerate graphs", _check_degenerate
    yield "attaching and removing leaves no trace", _check_attach
    yield "torch's seed decides in training", _check_training
    yield "every form of a graph has the same masks", _check_forms
    # Shares that sum to one again are no multiples of what they were.
    is_renormalized = operator.site == "attention" and operator.rescale == "renormalize"
    if isinstance(operator, FeatureOperator | MessageOperator) and not is_renormalized:
        yield "gradients are zero exactly where dropped", _check_gradients
    if isinstance(operator, FeatureOperator):
        yield "sparse features are masked like dense ones", _check_sparse
    if isinstance(operator, EdgeOperator) and stands_alone:
        yield "kept edges are edges, with their own weights", _check_subset
        yield "self-loops stay where they are protected", _check_loops
        yield "both directions of an edge share their coin where symmetric", _check_symmetry
    if stands_alone:
        yield "masks are fresh or shared as declared", _check_share
    measured = functools.cache(_measure)  # one sample for three clauses
    clauses = [("expectation", _expectation), ("expectation of two layers", _two_layers)]
    if operator.is_product:
        clauses.insert(1, ("covariance by the axes", _covariance))
    elif hasattr(operator, "feature_covariance"):
        clauses.insert(1, ("covariance as declared", _declared_covariance))
    for clause, compare in clauses:
        yield clause, functools.partial(_compare, measured, compare)


def _with(operator: Operator, **options: object) -> Operator:
    """Build the same operator with some other options, in training."""
    return type(operator)(**{**operator.options, **options})


def _graph() -> tuple[Tensor, Tensor, Tensor]:
    """Six nodes, one of them isolated; a self-loop, a duplicate, both directions of some edges."""
    edge_index = torch.tensor(
        [[0, 1, 0, 2, 1, 2, 3, 3, 4, 1, 1], [1, 0, 2, 0, 2, 1, 1, 4, 4, 3, 2]]
    )
    weight = 0.5 + torch.arange(11) / 10
    x = torch.sin(torch.arange(18.0)).view(6, 3) + 0.5
    return edge_index, weight, x


def _undirected() -> tuple[Tensor, Tensor, Tensor]:
    """The same nodes, every edge in both directions."""
    edge_index, _, x = _graph()
    edge_index = torch.unique(torch.cat([edge_index, edge_index.flip(0)], 1), dim=1)
    return edge_index, 0.5 + torch.arange(edge_index.size(1)) / 10, x


def _values(operator: Operator, rows: int = 40, columns: int = 5) -> tuple[Tensor, ...]:
    """Return arguments for a stand-alone call of the operator."""
    if isinstance(operator, EdgeOperator):
        steps = torch.arange(rows)
        return torch.stack([steps, (steps * 7 + 1) % rows]), 1 + steps.float()
    return _arguments(operator, torch.ones(rows, columns))


def _arguments(operator: Operator, x: Tensor) -> tuple[Tensor, ...]:
    """Return arguments for given values; where a graph is needed, it joins them two by two.

    Shares of attention are of loops, each all that its node has to give; beside a layer's output
    stands an input of zeros.
    """
    if getattr(operator, "needs_input", False):
        return x, torch.zeros_like(x)
    if not getattr(operator, "needs_graph", False):
        return (x,)
    if operator.site == "attention":
        return x, torch.arange(x.size(0)).repeat(2, 1)
    return x, torch.arange(x.size(0) // 2 * 2).view(-1, 2).T


def _call(operator: Operator, values: tuple[Tensor, ...], seed: int) -> tuple[Tensor | None, ...]:
    operator.start_pass(seed)
    try:
        out = operator(*values)
    finally:
        operator.end_pass()
    return out if isinstance(out, tuple) else (out,)


def _equal(one: tuple[Tensor | None, ...], other: tuple[Tensor | None, ...]) -> bool:
    return all(
        a is b or (a is not None and b is not None and a.shape == b.shape and bool((a == b).all()))
        for a, b in zip(one, other, strict=True)
    )


def _check_spec(operator: Operator) -> str:
    build: Any = type(operator)
    assert build().options is not None, "it cannot be built without arguments"
    if operator.name in OPERATORS:
        again = OPERATORS.make(operator.spec)
        assert again.options == operator.options, f"{operator.spec} gave {again.options}"
    return operator.spec


def _check_refusals(operator: Operator) -> None:
    for p in (-0.1, 1.5, math.nan, math.inf):
        message = ""
        try:
            _with(operator, p=p)
        except ParameterError as error:
            message = str(error)
        assert "[0, 1]" in message, f"p = {p} gave {message or 'no error'}"


def _check_identity(operator: Operator) -> None:
    values = _values(operator)
    state = torch.get_rng_state()
    cases = [copy.deepcopy(operator).eval()]
    if "p" in operator.options:
        cases.append(_with(operator, p=0.0))
    for case in cases:
        out = case(*values)
        out = out if isinstance(out, tuple) else (out,)
        clean = values if isinstance(case, EdgeOperator) else values[:1]
        if _scales_in_evaluation(case):
            clean = (values[0] * (1 - case.p),)
        assert _equal(out, clean), "the values changed"
    assert torch.equal(torch.get_rng_state(), state), "the global generator was touched"


def _scales_in_evaluation(operator: Operator) -> bool:
    return operator.rescale == "eval" and not operator.training


def _check_seeds(operator: Operator) -> None:
    values = _values(operator)
    copies = [copy.deepcopy(operator)]
    kind = type(operator)
    if getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind:
        # A class that was made inside of a function cannot be pickled, which is no fault of it.
        copies.append(pickle.loads(pickle.dumps(operator)))
    for copied in copies:
        assert _equal(_call(copied, values, 1), _call(operator, values, 1)), "a copy disagrees"
    if "p" in operator.options:
        operator, state = _with(operator, p=0.5), torch.get_rng_state()
        different = [_call(operator, values, seed) for seed in range(8)]
        assert not all(_equal(out, different[0]) for out in different), "seeds make no difference"
        assert torch.equal(torch.get_rng_state(), state), "an explicit seed touched the generator"


def _check_rate(operator: Operator) -> str:
    worst = 0.0
    for p in RATES:
        case = _with(operator, p=p)
        by_row = ROW_AXES & set(operator.axes)
        by_column = COLUMN_AXES & set(operator.axes)
        rows = 20_000 if by_row else 2
        columns = 20_000 if by_column and not by_row else 3
        values = _values(case, rows, columns)
        kept = total = 0
        for seed in range(3 if by_row or by_column else 4_000):
            if isinstance(case, EdgeOperator):
                kept += len(_call(case, values, seed)[0][0])  # type: ignore[index]  # edges
                total += rows
            else:
                out = _call(case, values, seed)[0]
                assert out is not None
                # One entry of every coin.
                out = out if by_column else out[:, :1]
                out = out if by_row else out[:1]
                out = out[::2] if len(values) > 1 else out
                dropped = getattr(case, "dropped_value", 0.0)
                kept, total = kept + int((out != dropped).sum()), total + out.numel()
        error = abs(kept / total - (1 - p)) / math.sqrt(p * (1 - p) / total)
        worst = max(worst, error)
        assert error < SIGMAS, (
            f"kept {kept / total:.4f} at p = {p}, {error:.1f} standard errors off"
        )
    return f"within {worst:.1f} standard errors"


def _check_factors(operator: Operator) -> str:
    worst = 0.0
    for p in RATES:
        case = _with(operator, p=p)
        factors = _call(case, _values(case, 20_000, 3), 0)[0]
        assert factors is not None
        factors = factors.detach().double()
        mean, variance, fourth = case.factor_cumulants
        number = factors.numel()
        square = ((factors - mean) ** 2).mean()
        of_mean = (factors.mean() - mean).abs() / math.sqrt(variance / number)
        of_square = (square - variance).abs() / math.sqrt((fourth + 2 * variance**2) / number)
        error = float(max(of_mean, of_square))
        worst = max(worst, error)
        assert error < SIGMAS, (
            f"mean {factors.mean():.4f} and variance {square:.4f} at p = {p}, "
            f"{error:.1f} standard errors off"
        )
    return f"within {worst:.1f} standard errors"


def _check_zeros(operator: Operator) -> None:
    case = _with(operator, p=1.0)
    values = _values(case)
    out = _call(case, values, 0)
    assert out[0] is not None
    if isinstance(case, EdgeOperator):
        never = not bool(case.mean_factors(values[0], int(values[0].max()) + 1).any())
        assert out[0].size(1) == 0 or not never, "edges were kept"
    else:
        assert bool((out[0] == 0).all()), "entries were kept"


def _check_inputs(operator: Operator) -> None:
    values = _values(operator)
    before = [(value.clone(), value._version) for value in values]
    _call(operator, values, 0)
    for value, (clone, version) in zip(values, before, strict=True):
        assert torch.equal(value, clone), "an input was written to"
        assert value._version == version, "an input was written to"


def _check_degenerate(operator: Operator) -> None:
    empty = torch.empty(2, 0, dtype=torch.int64)
    loops = torch.arange(4).repeat(2, 1)
    doubled = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]])
    for p in (0.5,) if operator.rescale == "exact" else (0.5, 1.0):
        case = _with(operator, p=p)
        for edge_index in (empty, loops, doubled):
            weight = torch.ones(edge_index.size(1))
            for num_nodes in (4, 6):  # all nodes touched, some isolated at the end
                out = _layer_output(case, torch.ones(num_nodes, 2), edge_index, weight)
                assert out.shape == (num_nodes, 2), f"shape {tuple(out.shape)}"
                assert bool(torch.isfinite(out).all()), f"not finite at p = {p}"
        out = _layer_output(case, torch.ones(0, 2), empty, torch.ones(0))
        assert out.shape == (0, 2), f"shape {tuple(out.shape)} without nodes"


def _layer_output(
    operator: Operator, x: Tensor, edges: Tensor, weight: Tensor | None, seed: int = 3
) -> Tensor:
    layer = linear_layer(operator, x.size(1))
    with attach(layer, copy.deepcopy(operator)) as handle:
        handle.operator.start_pass(seed)
        out: Tensor = layer(x, edges, weight)
    return out


def _check_attach(operator: Operator) -> None:
    edge_index, weight, x = _graph()
    layer = linear_layer(operator, x.size(1))
    before = in_evaluation = layer(x, edge_index, weight)
    if operator.rescale == "eval":
        in_evaluation = layer(0.5 * x, edge_index, weight)
    names = set(layer.__dict__), set(layer.state_dict())
    try:
        with attach(layer, _with(operator, p=0.0)):
            state = torch.get_rng_state()
            assert torch.equal(layer(x, edge_index, weight), before), "p = 0 is not clean"
            assert torch.equal(torch.get_rng_state(), state), "p = 0 touched the generator"
        values = [(value, value.clone(), value._version) for value in (edge_index, weight, x)]
        with attach(layer, _with(operator, p=0.5)):
            layer(x, edge_index, weight)
            for value, clone, version in values:
                assert torch.equal(value, clone), "an input of the layer was written to"
                assert value._version == version, "an input of the layer was written to"
            grown = set(layer.state_dict()) - names[1]
            assert len(grown) == len(operator.state_dict()), "the state of the model grew"
            layer.eval()
            out = layer(x, edge_index, weight)
            assert torch.equal(out, in_evaluation), "evaluation is not clean"
            raise KeyError("a user's mistake")
    except KeyError:
        layer.train()
    assert torch.equal(layer(x, edge_index, weight), before), "the output changed"
    assert (set(layer.__dict__), set(layer.state_dict())) == names, "attributes were left behind"


def _check_training(operator: Operator) -> None:
    edge_index, weight, x = _graph()
    layer = linear_layer(operator, x.size(1))
    with attach(layer, _with(operator, p=0.5)):
        runs = []
        for _ in range(2):
            torch.manual_seed(0)
            runs.append(torch.stack([layer(x, edge_index, weight) for _ in range(8)]))
    assert torch.equal(*runs), "the same seed gave other masks"
    assert bool((runs[0] != runs[0][0]).any()), "every forward pass has the same masks"


def _check_forms(operator: Operator) -> None:
    operator = _with(operator, p=0.5)
    edge_index, weight, x = _undirected()
    order = torch.randperm(edge_index.size(1), generator=torch.Generator().manual_seed(0))
    matrix = torch.zeros(6, 6)
    matrix[edge_index[1], edge_index[0]] = weight
    for seed in range(3):
        out = _layer_output(operator, x, edge_index, weight, seed)
        moved = _layer_output(operator, x, edge_index[:, order], weight[order], seed)
        assert torch.allclose(out, moved), "the mask depends on positions of edges"
        sparse = _layer_output(operator, x, to_csr(matrix), None, seed)
        assert torch.allclose(out, sparse), "the sparse form has another mask"


def _check_gradients(operator: Operator) -> None:
    x = (1 + torch.rand(30, 4, generator=torch.Generator().manual_seed(0))).requires_grad_()
    out = _call(operator, _arguments(operator, x), 2)[0]
    assert out is not None
    out.sum().backward()  # type: ignore[no-untyped-call]  # untyped in torch
    assert x.grad is not None
    dropped = out == getattr(operator, "dropped_value", 0.0)
    assert torch.equal(x.grad == 0, dropped), "a gradient disagrees with its mask"
    if getattr(operator, "keeps_zeros", True):
        assert torch.allclose(x.grad * x, out), "the gradient is not that of the kept entries"


def _check_sparse(operator: Operator) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 20, generator=generator) * (torch.rand(50, 20, generator=generator) < 0.1)
    sparse = to_csr(x)
    out = _call(operator, (sparse, *_arguments(operator, x)[1:]), 4)[0]
    dense = _call(operator, _arguments(operator, x), 4)[0]
    assert out is not None
    assert dense is not None
    keeps_zeros = getattr(operator, "keeps_zeros", True)
    expected = torch.sparse_csr if keeps_zeros else torch.strided
    assert out.layout == expected, f"the layout became {out.layout}"
    if keeps_zeros:
        assert torch.equal(out.col_indices(), sparse.col_indices()), "the pattern changed"
    same = torch.equal if operator.distribution == "bernoulli" else torch.allclose
    assert same(out.to_dense(), dense), "the sparse mask is another one"


def _check_subset(operator: Operator) -> None:
    operator = _with(operator, p=0.5)
    assert isinstance(operator, EdgeOperator)
    edge_index, _, _ = _graph()
    # Weights that tell the edges apart, also when doubled.
    weight = (1 + torch.arange(edge_index.size(1)) / 100).requires_grad_()
    protected = (edge_index[0] == edge_index[1]) & operator.protect_self_loops
    scale = torch.where(protected | (operator.rescale != "inverse"), 1.0, 2.0)
    for seed in range(5):
        kept, kept_weight = _call(operator, (edge_index, weight), seed)
        assert kept is not None
        assert kept_weight is not None
        place = torch.isin(weight * scale, kept_weight)
        assert torch.equal((weight * scale)[place], kept_weight), "the weights are others"
        assert torch.equal(edge_index[:, place], kept), "edges and weights are not aligned"
        (gradient,) = torch.autograd.grad(kept_weight.sum(), weight)
        assert torch.equal(gradient, place * scale), "a gradient disagrees with its mask"
        if operator.rescale != "inverse":
            _, attributes = _call(operator, (edge_index, weight[:, None].repeat(1, 2)), seed)
            assert attributes is not None
            assert torch.equal(attributes[:, 0], kept_weight), "attributes are not aligned"
        values = weight.detach()
        sparse = torch.sparse_coo_tensor(edge_index.flip(0), values, (6, 6), check_invariants=False)
        from_sparse = _call(operator, (sparse,), seed)[0]
        assert from_sparse is not None
        assert torch.equal(from_sparse._indices().flip(0), kept), "the sparse form is another"
        assert torch.equal(from_sparse._values(), kept_weight), "its weights are others"
        order = torch.argsort(_pairs(edge_index), stable=True)  # duplicates keep their order
        moved, _ = _call(operator, (edge_index[:, order], weight[order]), seed)
        assert moved is not None
        assert torch.equal(_pairs(moved), _pairs(kept).sort().values), "the mask is by position"


def _check_loops(operator: Operator) -> None:
    assert isinstance(operator, EdgeOperator)
    loops, weight = torch.arange(20).repeat(2, 1), 1 + torch.arange(20.0)
    for p in (0.5, 1.0):
        kept, kept_weight = _call(_with(operator, p=p), (loops, weight), 0)
        assert kept is not None
        if operator.protect_self_loops:
            assert torch.equal(kept, loops), f"{20 - kept.size(1)} of 20 were dropped at p = {p}"
            assert _equal((kept_weight,), (weight,)), "a protected one was rescaled"
        else:
            assert kept.size(1) < 20, f"none of 20 was dropped at p = {p}"


def _pairs(edge_index: Tensor) -> Tensor:
    return edge_index[0] * 100 + edge_index[1]


def _check_symmetry(operator: Operator) -> None:
    operator = _with(operator, p=0.5)
    assert isinstance(operator, EdgeOperator)
    edge_index, _, _ = _undirected()
    symmetric = operator.is_symmetric(Graph(edge_index))
    differs = False
    for seed in range(20):
        kept = _call(operator, (edge_index,), seed)[0]
        assert kept is not None
        differs |= not torch.equal(_pairs(kept).sort().values, _pairs(kept.flip(0)).sort().values)
    assert differs != symmetric, f"symmetric={symmetric} but directions differ: {differs}"


@dataclass(frozen=True)
class _Measured:
    """The outputs of two linear layers in a row under an operator, (samples, N, C) each."""

    operator: Operator
    graph: Graph
    weight: Tensor
    x: Tensor
    one_layer: Tensor
    two_layers: Tensor


def _measure(operator: Operator) -> list[_Measured]:
    """Sample over all rates and graphs."""
    measured = []
    for p in RATES:
        case = _with(operator, p=p)
        for edge_index, weight, x in (_graph(), _undirected()):
            outputs = _outputs(case, edge_index, weight, x)
            graph = Graph(edge_index, len(x))
            weight = edge_weights(case, graph, weight.double())
            measured.append(_Measured(case, graph, weight, x.double(), *outputs))
    return measured


def _outputs(operator: Operator, edge_index: Tensor, weight: Tensor, x: Tensor) -> list[Tensor]:
    model = torch.nn.ModuleList(linear_layer(operator, x.size(1)) for _ in range(2))
    outputs = []
    with attach(model, copy.deepcopy(operator)) as handle:
        for seed in range(SAMPLES):
            handle.operator.start_pass(seed)
            first = model[0](x, edge_index, weight)
            second = model[1](first, edge_index, weight)
            outputs.append((first.detach(), second.detach()))
            handle.operator.end_pass()
    return [torch.stack(layer).double() for layer in zip(*outputs, strict=True)]


def _compare(
    measure: Callable[[Operator], list[_Measured]],
    compare: Callable[[_Measured], Iterator[Measurement]],
    operator: Operator,
) -> tuple[Measurement, ...]:
    """Compare theory and measurement over rates and graphs."""
    return tuple(one for case in measure(operator) for one in compare(case))


def _standard_error(variance: Tensor) -> Tensor:
    return (variance.clamp(min=1e-12) / SAMPLES).sqrt()


def _expectation(case: _Measured) -> Iterator[Measurement]:
    if case.operator.is_unbiased and case.operator.is_product:
        factor = moments(case.operator)[0]
        assert math.isclose(factor, 1), f"declared unbiased, but the mean factor is {factor}"
    layer = case.operator, case.graph, case.weight, case.x
    mean = case.one_layer.mean(0)
    if case.operator.is_product:
        expected = expected_output(*layer)
        error = _standard_error(output_covariance(*layer).diagonal().view_as(expected))
    elif case.operator.p > 0.5:  # too few samples are left to tell their standard error
        return
    else:
        expected = _by_declared_means(case, case.x)
        error = _standard_error(case.one_layer.var(0))
    yield Measurement.of("mean", case.operator.p, expected, mean, error, ROUNDING)


def _by_declared_means(case: _Measured, x: Tensor) -> Tensor:
    """Return the expectation of the layer's output from the means that the operator says."""
    operator: Any = case.operator
    graph = case.graph
    assert hasattr(operator, "mean_factors"), "an operator that is no product declares its means"
    if isinstance(operator, EdgeOperator):
        factors = operator.mean_factors(graph.edge_index, graph.num_sources, case.x)
    else:
        factors = operator.mean_factors(graph.edge_index, graph.num_sources)
        factors = factors[graph.target if operator.site == "attention" else graph.source]
    messages = (case.weight * factors)[:, None] * x[graph.source]
    clean = getattr(operator, "input_factor", 0.0) * x
    return clean.index_add_(0, graph.target, messages)


def _covariance(case: _Measured) -> Iterator[Measurement]:
    layer = case.operator, case.graph, case.weight, case.x
    centred = (case.one_layer - expected_output(*layer)).flatten(1)
    measured = centred.T @ centred / len(centred)
    expected, error = output_covariance(*layer), _standard_error(product_variance(*layer))
    for quantity, entries in _kinds_of_pairs(*case.x.shape).items():
        values = expected[entries], measured[entries], error[entries]
        yield Measurement.of(quantity, case.operator.p, *values, ROUNDING)


def _declared_covariance(case: _Measured) -> Iterator[Measurement]:
    """Compare with what an operator on features that is no product says of the masked ones."""
    if case.operator.p > 0.5:  # too few samples are left to tell their standard error
        return
    operator: Any = case.operator
    nodes, channels = case.x.shape
    adjacency = case.x.new_zeros(nodes, nodes)
    ends = case.graph.target, case.graph.source
    adjacency.index_put_(ends, case.weight, accumulate=True)
    layer = torch.kron(adjacency, torch.eye(channels, dtype=adjacency.dtype))
    expected = layer @ operator.feature_covariance(case.x, case.graph.edge_index) @ layer.T
    centred = (case.one_layer - _by_declared_means(case, case.x)).flatten(1)
    products = centred[:, :, None] * centred[:, None]
    measured, error = products.mean(0), _standard_error(products.var(0))
    for quantity, entries in _kinds_of_pairs(nodes, channels).items():
        values = expected[entries], measured[entries], error[entries]
        yield Measurement.of(quantity, case.operator.p, *values, ROUNDING)


def _kinds_of_pairs(nodes: int, channels: int) -> dict[str, Tensor]:
    """Return, by name, which entries of the outputs' covariance tell the same thing."""
    outputs = torch.arange(nodes * channels)
    node, channel = outputs // channels, outputs % channels
    same_node, same_channel = node[:, None] == node, channel[:, None] == channel
    return {
        "variance": same_node & same_channel,
        "covariance of channels": same_node & ~same_channel,
        "covariance of nodes": ~same_node & same_channel,
        "covariance of both": ~same_node & ~same_channel,
    }


def _two_layers(case: _Measured) -> Iterator[Measurement]:
    if case.operator.p > 0.5:  # so few paths survive two layers that they tell no standard error
        return
    operator, layer = case.operator, (case.graph, case.weight)
    if operator.options.get("input_only"):
        first = expected_output(operator, *layer, case.x)
        expected = expected_output(_with(operator, p=0.0), *layer, first)
    elif operator.is_product:
        expected = expected_two_layers(operator, *layer, case.x)
    elif operator.share == "layer":
        expected = _by_declared_means(case, _by_declared_means(case, case.x))
    else:  # what two layers share, such an operator does not declare
        return
    error = _standard_error(case.two_layers.var(0))
    mean = case.two_layers.mean(0)
    yield Measurement.of("mean of two layers", case.operator.p, expected, mean, error, ROUNDING)


def _check_share(operator: Operator) -> None:
    operator = _with(operator, p=0.5)
    values = _values(operator)
    operator.start_pass(0)
    outs = [operator(*values) for _ in range(8)]
    operator.end_pass()
    outs = [out if isinstance(out, tuple) else (out,) for out in outs]
    is_shared = all(_equal(out, outs[0]) for out in outs)
    declared = operator.share == "forward"
    assert is_shared == declared, f"share={operator.share}, but calls have equal masks: {is_shared}"
