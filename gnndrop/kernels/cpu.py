"""The kernels for the CPU: the mask is hashed inside the loop and never stored.

Every kernel handles a range of rows and releases the interpreter, so that threads share the work
(`gnndrop.kernels._threads`); a row belongs to one thread, hence results do not depend on their
number.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnndrop.graph import Compressed, to_csr
from gnndrop.kernels import _compiled, reference
from gnndrop.kernels._threads import count_parts, share
from gnndrop.masks import HALF, Mask, column_words, gaussian_deviation

NONE = np.empty(0, dtype=np.int64)
# What attention computes less of is one part: to compile the loops of its four kernels takes three
# seconds, more than a small graph gains from them in thousands of epochs.
ATTENTION_GRAIN = 1 << 20
HAS_MKL = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]  # in torch
to_csr(torch.ones(1, 1))  # has torch's remark that CSR is in beta said here, unheard


def multiply(
    x: Tensor, rows: Tensor | None, mask: Mask, shift: float = 0.0, dropped: float = 0.0
) -> Tensor:
    """See `gnndrop.kernels.reference.multiply`."""
    if mask.drops_all:
        return torch.full_like(x, dropped, memory_format=torch.contiguous_format)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    array = out.numpy()
    real = array.dtype.type
    values = real(shift), real(dropped), _words(x.size(1)), array
    arguments = (_array(x), _array(rows), *_blocks_of_coins(mask, x.dtype), *values)
    share(_compiled.multiply, arguments, _even(x.size(0), x.numel()))
    return out


def multiply_in_place(x: Tensor, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_in_place`."""
    if mask.drops_all:
        return x.zero_()
    arguments = (x.numpy(), *_blocks_of_coins(mask, x.dtype), _words(x.size(1)))
    share(_compiled.multiply_in_place, arguments, _even(x.size(0), x.numel()))
    return x


def multiply_csr(
    pointer: Tensor,
    columns: Tensor,
    values: Tensor,
    mask: Mask,
    words: Tensor | None = None,
) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_csr`."""
    if mask.drops_all:
        return torch.zeros_like(values, memory_format=torch.contiguous_format)
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    known = _no_words(0) if words is None else words.numpy().view(np.uint32)
    matrix = _array(pointer), _array(columns), known, _array(values)
    arguments = (*matrix, *_blocks_of_coins(mask, values.dtype), out.numpy())
    share(_compiled.multiply_csr, arguments, _even(pointer.size(0) - 1, 4 * values.size(0)))
    return out


def list_kept(
    rows: Compressed,
    places: Tensor | None,
    mask: Mask,
    protect_self_loops: bool,
    weight: Tensor | None,
    dtype: torch.dtype,
    chosen: Tensor | None = None,
) -> tuple[Compressed, Tensor | None]:
    """See `gnndrop.kernels.reference.list_kept`."""
    has_factors = weight is not None or mask.scale != 1
    factors = torch.empty(rows.other.size(0) if has_factors else 0, dtype=dtype)
    other, ends = torch.empty_like(rows.other), torch.empty_like(rows.ends)
    scale = factors.numpy().dtype.type(mask.scale)
    chosen = torch.empty(0, dtype=torch.bool) if chosen is None else chosen
    coins = (_array(chosen), np.uint64(mask.key), np.uint64(mask.threshold))
    listing = (other.numpy(), _vector(weight, factors), factors.numpy(), ends.numpy())
    arguments = (*rows.arrays, _array(places), *coins, protect_self_loops, scale, *listing)
    share(_compiled.list_kept, arguments, _balanced(rows, 4))
    return Compressed(rows.pointer, other, None, ends), factors if has_factors else None


def inverse_degrees(
    rows: Compressed, weight: Tensor | None, is_root: bool, dtype: torch.dtype
) -> Tensor:
    """See `gnndrop.kernels.reference.inverse_degrees`."""
    out = torch.empty(rows.num_rows, dtype=dtype)
    arguments = (
        rows.arrays[0],
        _array(rows.ends),
        _vector(weight, out),
        is_root,
        out.numpy(),
    )
    share(_compiled.inverse_degrees, arguments, _cut(rows.num_rows, 1))
    return out


def aggregate(
    rows: Compressed,
    x: Tensor,
    weight: Tensor | None,
    places: Tensor | None,
    mask: Mask | None,
    left: Tensor | None = None,
    right: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """See `gnndrop.kernels.reference.aggregate`."""
    has_heads = weight is not None and weight.size(1) > 1
    if mask is not None and places is not None and not (mask.by_column or has_heads):
        places = places if mask.by_row else torch.zeros_like(places)
        factor = None if weight is None else weight[:, 0]
        rows, kept = list_kept(rows, places, mask, False, factor, x.dtype)
        weight, mask = None if kept is None else kept[:, None], None
    if mask is not None and mask.drops_all:
        zeros = x.new_zeros(rows.num_rows, x.size(1))
        return zeros if bias is None else zeros.add_(bias)
    is_plain = not has_heads and mask is None and left is None and right is None
    if is_plain and rows.stops is None and HAS_MKL:
        return _library_product(rows, x, weight, bias)
    out = x.new_empty(rows.num_rows, x.size(1))
    if mask is None and not has_heads:
        pointer, *others = rows.arrays
        factors = (_vector(weight, x), _vector(left, x), _vector(right, x))
        kernel: Callable[..., None] = _compiled.aggregate
        arguments: tuple[object, ...] = pointer, _array(rows.ends), *others, _array(x), *factors
    else:
        kernel = _compiled.aggregate_masked if has_heads else _compiled.aggregate_messages
        weights = _array(weight) if has_heads else _vector(weight, x)
        coins = _edge_coins(places, mask, x.size(1), x.dtype)
        arguments = *rows.arrays, _array(x), weights, *coins
    share(kernel, (*arguments, out.numpy()), _balanced(rows, x.size(1)))
    return out if bias is None else out.add_(bias)


def rectify(x: Tensor) -> Tensor:
    """See `gnndrop.kernels.reference.rectify`; x is contiguous."""
    is_kept = torch.empty(x.shape, dtype=torch.bool)
    arguments = _array(x).reshape(-1), is_kept.numpy().reshape(-1)
    share(_compiled.rectify, arguments, _even(x.numel(), x.numel()))
    return is_kept


def select(x: Tensor, is_kept: Tensor) -> Tensor:
    """See `gnndrop.kernels.reference.select`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    arguments = (_array(values).reshape(-1) for values in (x, is_kept, out))
    share(_compiled.select, tuple(arguments), _even(x.numel(), x.numel()))
    return out


def edge_products(
    rows: Compressed,
    x: Tensor,
    y: Tensor,
    heads: int,
    places: Tensor | None,
    mask: Mask | None,
) -> Tensor:
    """See `gnndrop.kernels.reference.edge_products`."""
    if mask is not None and mask.drops_all:
        return x.new_zeros(rows.other.size(0), heads)
    out = x.new_empty(rows.other.size(0), heads)
    coins = _edge_coins(places, mask, x.size(1), x.dtype)
    arguments = (*rows.arrays, _array(x), _array(y), heads, *coins, out.numpy())
    share(_compiled.edge_products, arguments, _balanced(rows, x.size(1)))
    return out


def multiply_gaussian(x: Tensor, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_gaussian`."""
    if mask.drops_all:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    arguments = (_array(x), *_stream(mask), _deviation(mask, x), _words(x.size(1)), out.numpy())
    share(_compiled.multiply_gaussian, arguments, _even(x.size(0), 2 * x.numel()))
    return out


def multiply_gaussian_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_gaussian_csr`."""
    if mask.drops_all:
        return torch.zeros_like(values, memory_format=torch.contiguous_format)
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    matrix = _array(pointer), _array(columns), _array(values)
    arguments = (*matrix, *_stream(mask), _deviation(mask, values), out.numpy())
    share(
        _compiled.multiply_gaussian_csr, arguments, _even(pointer.size(0) - 1, 4 * values.size(0))
    )
    return out


def uniforms(like: Tensor, mask: Mask, rows: Tensor | None = None) -> Tensor:
    """See `gnndrop.kernels.reference.uniforms`."""
    out = torch.empty_like(like, memory_format=torch.contiguous_format)
    arguments = (_array(rows), *_stream(mask), _words(out.size(1)), out.numpy())
    share(_compiled.uniforms, arguments, _even(out.size(0), out.numel()))
    return out


def uniforms_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.uniforms_csr`."""
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    arguments = (_array(pointer), _array(columns), *_stream(mask), out.numpy())
    share(_compiled.uniforms_csr, arguments, _even(pointer.size(0) - 1, 4 * values.size(0)))
    return out


def multiply_relaxed(
    x: Tensor, numbers: Tensor, logit: Tensor, temperature: float, is_scaled: bool
) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_relaxed`; compiled for float32."""
    if x.dtype != torch.float32:
        return reference.multiply_relaxed(x, numbers, logit, temperature, is_scaled)
    scale, *relaxation = _relaxation(logit, temperature, is_scaled)
    arguments = (_array(x).reshape(-1), *relaxation, scale, numbers.numpy().reshape(-1))
    share(_compiled.multiply_relaxed, arguments, _blocks(x.numel()))
    return numbers


def relaxed_derivatives(
    x: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    logit: Tensor,
    temperature: float,
    is_scaled: bool,
) -> tuple[Tensor, Tensor]:
    """See `gnndrop.kernels.reference.relaxed_derivatives`; compiled for float32."""
    if x.dtype != torch.float32:
        relaxation = logit, temperature, is_scaled
        return reference.relaxed_derivatives(x, gradient, numbers, *relaxation)
    scale, *factors = _relaxation(logit, temperature, is_scaled)
    sums = torch.empty(-(-x.numel() // _compiled.RELAXED_BLOCK))
    values = _array(x).reshape(-1), _array(gradient).reshape(-1)
    fall = min(float(scale) / temperature, float(np.finfo(np.float32).max))
    slopes = scale, scale - np.float32(1), np.float32(fall)
    arguments = (*values, *factors, *slopes, numbers.numpy().reshape(-1), sums.numpy())
    share(_compiled.relaxed_derivatives, arguments, _blocks(x.numel()))
    return numbers, sums.sum(dtype=torch.float64).to(logit.dtype)


def _relaxation(logit: Tensor, temperature: float, is_scaled: bool) -> tuple[Any, ...]:
    """Return 1/(1-p), if asked for; the logit in units of log 2; 1/t; p/(1-p); 1/t if whole."""
    scale = float(reference.inverse_keep(logit)) if is_scaled else 1.0
    units, power = float(logit) / math.log(2), 1 / temperature
    whole = round(power) if power < 31.5 and math.isclose(power, round(power)) else 0
    return *map(np.float32, (scale, units, power, float(logit.exp()))), np.int32(whole)


def _blocks(entries: int) -> NDArray[np.int64]:
    return _even(-(-entries // _compiled.RELAXED_BLOCK), 4 * entries)


def attention(
    rows: Compressed,
    source: Tensor,
    target: Tensor,
    slope: float,
    places: Tensor | None,
    mask: Mask | None,
    protect_self_loops: bool,
) -> Tensor:
    """See `gnndrop.kernels.reference.attention`."""
    heads = source.size(1)
    out = source.new_empty(rows.other.size(0), heads)
    coins, key, _, by_row, by_column, _, words = _edge_coins(places, mask, heads, source.dtype)
    threshold = np.uint64(mask.threshold if mask else 0)  # wide enough for the rate one
    graph = rows.arrays
    scores = (_array(source), _array(target), out.numpy().dtype.type(slope))
    masked = (coins, key, threshold, by_row, by_column, protect_self_loops, words)
    bounds = _balanced(rows, 4 * heads, ATTENTION_GRAIN)
    share(_compiled.attention_scores, (*graph, *scores, *masked, out.numpy()), bounds)
    out.exp2_()  # vectorised; exp_ hangs in forked processes, where MKL computes it
    share(_compiled.normalize_rows, (graph[0], graph[2], out.numpy()), bounds)
    return out


def attention_derivative(
    by_target: Compressed,
    by_source: Compressed,
    source: Tensor,
    target: Tensor,
    slope: float,
    alpha: Tensor,
    gradient: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the derivatives by the scores of the sources and of the targets."""
    edges, targets, sources = (torch.empty_like(like) for like in (alpha, target, source))
    scores = (_array(source), _array(target), edges.numpy().dtype.type(slope))
    values = (_array(alpha), _array(gradient), edges.numpy(), targets.numpy())
    arguments = (*by_target.arrays, *scores, *values)
    bounds = _balanced(by_target, 4 * source.size(1), ATTENTION_GRAIN)
    share(_compiled.attention_derivative, arguments, bounds)
    pointer, _, order = by_source.arrays
    sums = (pointer, order, edges.numpy(), sources.numpy())
    share(_compiled.sum_edges, sums, _balanced(by_source, source.size(1), ATTENTION_GRAIN))
    return sources, targets


def _library_product(
    rows: Compressed, x: Tensor, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    """Multiply by torch's CSR product, which is the faster one at all sizes."""
    factor = _ones(rows.other.size(0), x.dtype) if weight is None else weight[:, 0]
    matrix, out = rows.matrix(factor, x.size(0)), x.new_empty(rows.num_rows, x.size(1))
    if bias is None:
        return out.addmm_(matrix, x, beta=0)
    return out.copy_(bias).addmm_(matrix, x)


@functools.lru_cache(maxsize=8)
def _ones(length: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(length, dtype=dtype)


def _array(tensor: Tensor | None) -> NDArray[Any]:
    """View a tensor as an array; None is the empty array of positions."""
    if tensor is None:
        return NONE
    return (tensor.detach() if tensor.requires_grad else tensor).contiguous().numpy()


def _vector(values: Tensor | None, like: Tensor) -> NDArray[Any]:
    """View one value per edge or node as an array; None is an empty one."""
    return _array(like.new_empty(0) if values is None else values.reshape(-1))


@functools.lru_cache(maxsize=64)
def _words(num_columns: int) -> NDArray[np.uint32]:
    """Return the words of the first columns."""
    return column_words(torch.arange(num_columns)).numpy().astype(np.uint32)


def _coins(mask: Mask | None, dtype: torch.dtype) -> tuple[object, ...]:
    real = np.float32 if dtype == torch.float32 else np.float64
    if mask is None:
        return np.uint64(0), np.uint32(0), False, False, real(1)
    threshold = np.uint32(mask.threshold & HALF)  # who drops everything does not come here
    return np.uint64(mask.key), threshold, mask.by_row, mask.by_column, real(mask.scale)


def _blocks_of_coins(mask: Mask, dtype: torch.dtype) -> tuple[object, ...]:
    """Return what `_coins` does, with the keys of all blocks of rows."""
    _, *rest = _coins(mask, dtype)
    return np.array(mask.keys or (mask.key,), np.uint64), *rest


def _stream(mask: Mask) -> tuple[np.uint64, bool, bool]:
    return np.uint64(mask.key), mask.by_row, mask.by_column


def _deviation(mask: Mask, like: Tensor) -> object:
    return np.dtype(str(like.dtype).removeprefix("torch.")).type(gaussian_deviation(mask.p))


def _edge_coins(
    places: Tensor | None, mask: Mask | None, num_columns: int, dtype: torch.dtype
) -> tuple[object, ...]:
    """Return what decides the coins of edges; the words are zero where only edges have coins."""
    has_columns = mask is not None and mask.by_column
    words = _words(num_columns) if has_columns else _no_words(num_columns)
    return _array(places if mask else None), *_coins(mask, dtype), words


@functools.lru_cache(maxsize=64)
def _no_words(num_columns: int) -> NDArray[np.uint32]:
    return np.zeros(num_columns, dtype=np.uint32)


def _even(num_rows: int, work: int) -> NDArray[np.int64]:
    """Cut rows of equal length."""
    return _cut(num_rows, count_parts(work))


@functools.lru_cache(maxsize=64)
def _cut(num_rows: int, parts: int) -> NDArray[np.int64]:
    return np.arange(parts + 1) * num_rows // parts


def _balanced(rows: Compressed, width: int, least: int = 0) -> NDArray[np.int64]:
    """Cut rows so that every part has as many edges."""
    return rows.cut(count_parts(rows.other.size(0) * width, least))
