"""The loops behind `gnndrop.kernels.cpu`, compiled by numba.

The hash is that of `gnndrop.masks`, bit for bit. Every loop handles rows `start` to `stop` of its
output. Places are unsigned: numba would look for negative ones at every access.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# mypy: disable-error-code="untyped-decorator, assignment, name-defined"
# numba infers the types at the first call; annotations would be ignored.

import functools
from types import FunctionType

import numba
import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

from gnndrop.masks import (
    CHORD_SHIFT,
    COLUMN_MIXES,
    COLUMN_STEP,
    FIRST_CHORD,
    GOLDEN,
    MIX_1,
    MIX_2,
    normal_chords,
)

RELAXED_BLOCK = 4096  # entries whose derivatives by the rate are summed in float32


def _compiler(*fastmath, **options):
    # Divisions that may raise are not vectorised.
    options |= {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    njit = functools.partial(numba.njit, **options, fastmath=set(fastmath))

    def compile_function(function):
        try:
            return njit(cache=True)(function)
        except RuntimeError:  # no place on disk for it: a read-only package, and no home either
            return njit()(function)

    return compile_function


_jit = _compiler("contract")
# Sums may be reassociated into vector lanes: another rounding, the same one every time.
_jit_sums = _compiler("contract", "reassoc", "nsz")
_inline = numba.njit(inline="always")


def _share_parts(bounds, arguments):
    for part in numba.prange(len(bounds) - 1):
        kernel(*arguments, bounds[part], bounds[part + 1])  # noqa: F821  # that of on_team


@functools.cache
def on_team(kernel):
    """Compile a kernel's loop over all parts, which numba's threads share.

    It stands where its kernel does: by file, line and name numba's cache on disk tells functions
    apart, and by the file's date old ones from new ones.
    """
    place = kernel.py_func.__code__
    code = _share_parts.__code__.replace(
        co_filename=place.co_filename, co_firstlineno=place.co_firstlineno
    )
    own_globals = {"numba": numba, "kernel": kernel, "__name__": kernel.__module__}
    loop = FunctionType(code, own_globals, kernel.__name__)
    loop.__qualname__ = f"{_share_parts.__name__}.{kernel.__name__}"
    return _compiler(parallel=True)(loop)


_U27, _U30, _U31, _U32 = (np.uint64(bits) for bits in (27, 30, 31, 32))
_1, _2, _3, _4 = (np.uint64(number) for number in (1, 2, 3, 4))
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
_BLOCK = np.uint64(2048)  # entries whose keys stay in the first cache
_ODD, _S14, _STEP = np.uint32(1), np.uint32(14), np.uint32(COLUMN_STEP)
(_SHIFT_1, _WORD_1), (_SHIFT_2, _WORD_2), (_SHIFT_3, _WORD_3) = (
    (np.uint32(bits), np.uint32(multiplier)) for bits, multiplier in COLUMN_MIXES
)


@_inline
def _row_key(key, row):
    z = np.uint64(row) ^ (key + _GOLDEN)
    z = (z ^ (z >> _U30)) * _MIX_1
    z = (z ^ (z >> _U27)) * _MIX_2
    return z ^ (z >> _U31)


@_inline
def _word(column):
    h = np.uint32(np.uint32(column + 1) * _STEP)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _SHIFT_1)) * _WORD_1)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _SHIFT_2)) * _WORD_2)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _SHIFT_3)) * _WORD_3)
    return np.uint32(h ^ np.uint32(h >> _S14))


@_inline
def _coin(low, odd, word):
    return np.uint32(np.uint32(low ^ word) * odd)


@_inline
def _halves(row_key):
    """Return the two halves of a row's key as `_coin` takes them."""
    return np.uint32(row_key), np.uint32(row_key >> _U32) | _ODD


@_inline
def _first_row(keys, num_rows, r):
    """Return the block of a row, its number within the block, and how many rows a block has."""
    size = max(num_rows // len(keys), 1)
    return r // size, r % size, size


@_inline
def _next_row(block, row, size):
    row += 1
    return (block, row) if row < size else (block + 1, 0)


@_jit
def multiply(
    x,
    rows,
    keys,
    threshold,
    by_row,
    by_column,
    scale,
    shift,
    dropped,
    words,
    out,
    start,
    stop,
):
    zero, width = x.dtype.type(0), np.uint64(x.shape[1])
    is_product = shift == zero and dropped == zero
    block, row, size = _first_row(keys, len(x), start)
    for r in range(np.uint64(start), np.uint64(stop)):
        row_key = _row_key(keys[block], (rows[r] if len(rows) else row) if by_row else 0)
        block, row = _next_row(block, row, size)
        low, odd = _halves(row_key)
        if by_column and is_product:  # a quarter faster by itself
            for c in range(width):
                out[r, c] = x[r, c] * scale if _coin(low, odd, words[c]) >= threshold else zero
        elif by_column:
            for c in range(width):
                kept = _coin(low, odd, words[c]) >= threshold
                out[r, c] = x[r, c] * scale + shift if kept else dropped
        elif np.uint32(row_key >> _U32) >= threshold:
            for c in range(width):
                out[r, c] = x[r, c] * scale + shift
        else:
            for c in range(width):
                out[r, c] = dropped


@_jit
def multiply_in_place(x, keys, threshold, by_row, by_column, scale, words, start, stop):
    """What `multiply` does, in half the time where the result would not be in the caches."""
    zero, width = x.dtype.type(0), np.uint64(x.shape[1])
    block, row, size = _first_row(keys, len(x), start)
    for r in range(np.uint64(start), np.uint64(stop)):
        row_key = _row_key(keys[block], row if by_row else 0)
        block, row = _next_row(block, row, size)
        low, odd = _halves(row_key)
        if by_column:
            for c in range(width):
                x[r, c] = x[r, c] * scale if _coin(low, odd, words[c]) >= threshold else zero
        else:
            is_kept = np.uint32(row_key >> _U32) >= threshold
            for c in range(width):
                x[r, c] = x[r, c] * scale if is_kept else zero


@_jit
def multiply_csr(
    pointer,
    columns,
    words,
    values,
    keys,
    threshold,
    by_row,
    by_column,
    scale,
    out,
    start,
    stop,
):
    """Mask the entries of rows, several short rows at a time: long loops are vectorised well."""
    is_known = by_column and len(words) > 0
    zero = values.dtype.type(0)
    longest = 0
    for r in range(start, stop):
        longest = max(longest, pointer[r + 1] - pointer[r])
    lows, odds = np.empty(longest + _BLOCK, np.uint32), np.empty(longest + _BLOCK, np.uint32)
    done, pending = np.uint64(pointer[start]), np.uint64(0)
    block, row, size = _first_row(keys, len(pointer) - 1, start)
    for r in range(np.uint64(start), np.uint64(stop)):
        row_key = _row_key(keys[block], row if by_row else 0)
        block, row = _next_row(block, row, size)
        low, odd = _halves(row_key)
        if not by_column:  # the row's own coin, as the entries' common one
            low, odd = np.uint32(row_key >> _U32), _ODD
        degree = np.uint64(pointer[r + _1]) - np.uint64(pointer[r])
        for i in range(degree):
            lows[pending + i], odds[pending + i] = low, odd
        pending += degree
        if pending >= _BLOCK or r + _1 == np.uint64(stop):
            if is_known:
                for i in range(pending):
                    kept = _coin(lows[i], odds[i], words[done + i]) >= threshold
                    out[done + i] = values[done + i] * scale if kept else zero
            else:
                for i in range(pending):
                    word = _word(columns[done + i]) if by_column else np.uint32(0)
                    kept = _coin(lows[i], odds[i], word) >= threshold
                    out[done + i] = values[done + i] * scale if kept else zero
            done, pending = done + pending, np.uint64(0)


@_jit
def aggregate(pointer, ends, other, order, x, weight, left, right, out, start, stop):
    """Sum rows with one factor per edge, and one for each of its ends.

    Four edges at a time: a row of the output is written once for four of the input.
    """
    zero, one = x.dtype.type(0), x.dtype.type(1)
    width, weighted, ordered = np.uint64(x.shape[1]), len(weight) > 0, len(order) > 0
    by_left, by_right = len(left) > 0, len(right) > 0
    for r in range(np.uint64(start), np.uint64(stop)):
        for c in range(width):
            out[r, c] = zero
        k, end = np.uint64(pointer[r]), np.uint64(ends[r])
        factor = left[r] if by_left else one
        f0, f1, f2, f3 = factor, factor, factor, factor
        while k + _4 <= end:
            j0, j1 = np.uint64(other[k]), np.uint64(other[k + _1])
            j2, j3 = np.uint64(other[k + _2]), np.uint64(other[k + _3])
            if weighted and ordered:
                f0 = factor * weight[np.uint64(order[k])]
                f1 = factor * weight[np.uint64(order[k + _1])]
                f2 = factor * weight[np.uint64(order[k + _2])]
                f3 = factor * weight[np.uint64(order[k + _3])]
            elif weighted:
                f0, f1 = factor * weight[k], factor * weight[k + _1]
                f2, f3 = factor * weight[k + _2], factor * weight[k + _3]
            if by_right and weighted:
                f0, f1, f2, f3 = f0 * right[j0], f1 * right[j1], f2 * right[j2], f3 * right[j3]
            elif by_right:
                f0, f1 = factor * right[j0], factor * right[j1]
                f2, f3 = factor * right[j2], factor * right[j3]
            for c in range(width):
                total = (out[r, c] + f0 * x[j0, c]) + f1 * x[j1, c]
                out[r, c] = (total + f2 * x[j2, c]) + f3 * x[j3, c]
            k += _4
        while k < end:
            j0 = np.uint64(other[k])
            f0 = factor
            if weighted:
                f0 *= weight[np.uint64(order[k]) if ordered else k]
            if by_right:
                f0 *= right[j0]
            for c in range(width):
                out[r, c] += f0 * x[j0, c]
            k += _1


@_jit
def list_kept(
    pointer,
    other,
    order,
    coordinates,
    chosen,
    key,
    threshold,
    protect,
    scale,
    kept_other,
    weight,
    kept_weight,
    ends,
    start,
    stop,
):
    """List the kept edges of every row from its pointer on, up to its end, with their factors.

    A row's coins are all flipped before it is listed: the first loop is vectorised, and neither
    has a branch that the processor could mispredict.
    """
    weighted, ordered, factored = len(weight) > 0, len(order) > 0, len(kept_weight) > 0
    one, tossed = weight.dtype.type(1), len(chosen) == 0
    longest = 0
    for r in range(start, stop):
        longest = max(longest, pointer[r + 1] - pointer[r])
    coins = np.empty(longest, np.uint8)
    for r in range(np.uint64(start), np.uint64(stop)):
        first = np.uint64(pointer[r])
        degree = np.uint64(pointer[r + _1]) - first
        if tossed:
            for i in range(degree):
                coins[i] = (_row_key(key, coordinates[first + i]) >> _U32) >= threshold
        else:
            for i in range(degree):
                coins[i] = chosen[np.uint64(order[first + i]) if ordered else first + i]
        place = first
        for i in range(degree):
            node = other[first + i]
            is_protected = protect and np.uint64(node) == r
            kept_other[place] = node
            if factored:
                edge = np.uint64(order[first + i]) if ordered else first + i
                factor = one if is_protected else scale
                kept_weight[place] = factor * weight[edge] if weighted else factor
            place += np.uint64(coins[i]) | np.uint64(is_protected)
        ends[r] = place


@_jit
def inverse_degrees(pointer, ends, weight, is_root, out, start, stop):
    """Return one over the sums of the factors of rows, or over their roots; zero for a sum of zero.

    A kernel of its own, since torch's operations leave its threads spinning in the way of ours.
    """
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for r in range(start, stop):
        degree = out.dtype.type(ends[r] - pointer[r])
        if len(weight) > 0:
            degree = zero
            for k in range(pointer[r], ends[r]):
                degree += weight[k]
        if is_root:
            degree = np.sqrt(degree)
        out[r] = one / degree if degree > zero else zero


@_jit
def aggregate_messages(
    pointer,
    other,
    order,
    x,
    weight,
    coordinates,
    key,
    threshold,
    by_row,
    by_column,
    scale,
    words,
    out,
    start,
    stop,
):
    """Sum rows with one factor per edge and a mask by channel, or by edge and channel.

    What `aggregate_masked` does with one head, a sixth faster without a loop over heads.
    """
    zero = x.dtype.type(0)
    width, weighted, ordered = np.uint64(x.shape[1]), len(weight) > 0, len(order) > 0
    f0, f1, f2, f3 = scale, scale, scale, scale
    l0, o0 = _halves(_row_key(key, 0))
    l1, o1, l2, o2, l3, o3 = l0, o0, l0, o0, l0, o0
    for r in range(np.uint64(start), np.uint64(stop)):
        for c in range(width):
            out[r, c] = zero
        k, end = np.uint64(pointer[r]), np.uint64(pointer[r + _1])
        while k + _4 <= end:
            j0, j1 = np.uint64(other[k]), np.uint64(other[k + _1])
            j2, j3 = np.uint64(other[k + _2]), np.uint64(other[k + _3])
            if weighted and ordered:
                f0 = weight[np.uint64(order[k])] * scale
                f1 = weight[np.uint64(order[k + _1])] * scale
                f2 = weight[np.uint64(order[k + _2])] * scale
                f3 = weight[np.uint64(order[k + _3])] * scale
            elif weighted:
                f0, f1 = weight[k] * scale, weight[k + _1] * scale
                f2, f3 = weight[k + _2] * scale, weight[k + _3] * scale
            if by_row:
                l0, o0 = _halves(_row_key(key, coordinates[k]))
                l1, o1 = _halves(_row_key(key, coordinates[k + _1]))
                l2, o2 = _halves(_row_key(key, coordinates[k + _2]))
                l3, o3 = _halves(_row_key(key, coordinates[k + _3]))
            for c in range(width):
                x0 = x[j0, c] if _coin(l0, o0, words[c]) >= threshold else zero
                x1 = x[j1, c] if _coin(l1, o1, words[c]) >= threshold else zero
                x2 = x[j2, c] if _coin(l2, o2, words[c]) >= threshold else zero
                x3 = x[j3, c] if _coin(l3, o3, words[c]) >= threshold else zero
                out[r, c] = (((out[r, c] + f0 * x0) + f1 * x1) + f2 * x2) + f3 * x3
            k += _4
        while k < end:
            j0 = np.uint64(other[k])
            if weighted:
                f0 = weight[np.uint64(order[k]) if ordered else k] * scale
            if by_row:
                l0, o0 = _halves(_row_key(key, coordinates[k]))
            for c in range(width):
                out[r, c] += f0 * (x[j0, c] if _coin(l0, o0, words[c]) >= threshold else zero)
            k += _1


@_inline
def _edge_halves(key, coordinate, by_column):
    """Return what `_coin` makes the coin of an edge's channels: its own one without such an axis.

    The words of the channels must be zero then.
    """
    row_key = _row_key(key, coordinate)
    low, odd = _halves(row_key)
    return (low, odd) if by_column else (np.uint32(row_key >> _U32), _ODD)


@_jit
def aggregate_masked(
    pointer,
    other,
    order,
    x,
    weight,
    coordinates,
    key,
    threshold,
    by_row,
    by_column,
    scale,
    words,
    out,
    start,
    stop,
):
    """Sum rows with one factor per edge and head, and a mask by edge and channel, if any."""
    zero = x.dtype.type(0)
    weighted, masked, ordered = len(weight) > 0, len(coordinates) > 0, len(order) > 0
    heads = np.uint64(weight.shape[1])
    width = np.uint64(x.shape[1]) // heads
    f0, f1, f2, f3 = scale, scale, scale, scale
    l0, o0 = _edge_halves(key, 0, by_column)
    l1, o1, l2, o2, l3, o3 = l0, o0, l0, o0, l0, o0
    for r in range(np.uint64(start), np.uint64(stop)):
        for c in range(width * heads):
            out[r, c] = zero
        k, end = np.uint64(pointer[r]), np.uint64(pointer[r + _1])
        while k + _4 <= end:
            j0, j1 = np.uint64(other[k]), np.uint64(other[k + _1])
            j2, j3 = np.uint64(other[k + _2]), np.uint64(other[k + _3])
            e0, e1, e2, e3 = k, k + _1, k + _2, k + _3
            if ordered:
                e0, e1 = np.uint64(order[e0]), np.uint64(order[e1])
                e2, e3 = np.uint64(order[e2]), np.uint64(order[e3])
            if masked and by_row:
                l0, o0 = _edge_halves(key, coordinates[k], by_column)
                l1, o1 = _edge_halves(key, coordinates[k + _1], by_column)
                l2, o2 = _edge_halves(key, coordinates[k + _2], by_column)
                l3, o3 = _edge_halves(key, coordinates[k + _3], by_column)
            for head in range(heads):
                first = head * width
                if weighted:
                    f0, f1 = weight[e0, head] * scale, weight[e1, head] * scale
                    f2, f3 = weight[e2, head] * scale, weight[e3, head] * scale
                if masked:
                    for c in range(first, first + width):
                        x0 = x[j0, c] if _coin(l0, o0, words[c]) >= threshold else zero
                        x1 = x[j1, c] if _coin(l1, o1, words[c]) >= threshold else zero
                        x2 = x[j2, c] if _coin(l2, o2, words[c]) >= threshold else zero
                        x3 = x[j3, c] if _coin(l3, o3, words[c]) >= threshold else zero
                        out[r, c] = (((out[r, c] + f0 * x0) + f1 * x1) + f2 * x2) + f3 * x3
                else:
                    for c in range(first, first + width):
                        total = (out[r, c] + f0 * x[j0, c]) + f1 * x[j1, c]
                        out[r, c] = (total + f2 * x[j2, c]) + f3 * x[j3, c]
            k += _4
        while k < end:
            j0, e0 = np.uint64(other[k]), np.uint64(order[k]) if ordered else k
            if masked and by_row:
                l0, o0 = _edge_halves(key, coordinates[k], by_column)
            for head in range(heads):
                first = head * width
                if weighted:
                    f0 = weight[e0, head] * scale
                if masked:
                    for c in range(first, first + width):
                        out[r, c] += f0 * (
                            x[j0, c] if _coin(l0, o0, words[c]) >= threshold else zero
                        )
                else:
                    for c in range(first, first + width):
                        out[r, c] += f0 * x[j0, c]
            k += _1


@_jit
def rectify(x, is_kept, start, stop):
    zero = x.dtype.type(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        kept = not x[i] <= zero  # so that NaN stays
        is_kept[i] = kept
        x[i] = x[i] if kept else zero


@_jit
def select(x, is_kept, out, start, stop):
    zero = x.dtype.type(0)
    for i in range(np.uint64(start), np.uint64(stop)):
        out[i] = x[i] if is_kept[i] else zero


@_jit_sums
def edge_products(
    pointer,
    other,
    order,
    x,
    y,
    heads,
    coordinates,
    key,
    threshold,
    by_row,
    by_column,
    scale,
    words,
    out,
    start,
    stop,
):
    zero = x.dtype.type(0)
    masked, ordered = len(coordinates) > 0, len(order) > 0
    width = np.uint64(x.shape[1]) // np.uint64(heads)
    row_key = _row_key(key, 0)
    for r in range(np.uint64(start), np.uint64(stop)):
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            j, edge = np.uint64(other[k]), np.uint64(order[k]) if ordered else k
            if masked and by_row:
                row_key = _row_key(key, coordinates[k])
            low, odd = _halves(row_key)
            is_kept = not masked or np.uint32(row_key >> _U32) >= threshold
            for head in range(np.uint64(heads)):
                first, total = head * width, zero
                if masked and by_column:
                    for c in range(first, first + width):
                        kept = _coin(low, odd, words[c]) >= threshold
                        total += x[j, c] * y[r, c] if kept else zero
                elif is_kept:
                    for c in range(first, first + width):
                        total += x[j, c] * y[r, c]
                out[edge, head] = total * scale


@_jit
def attention_scores(
    pointer,
    other,
    order,
    source,
    target,
    slope,
    coordinates,
    key,
    threshold,
    by_row,
    by_column,
    protect,
    words,
    out,
    start,
    stop,
):
    """Score every edge and head, less the highest of its row; minus infinity where dropped.

    In units of log 2: the caller raises 2 to their power.
    """
    zero, lowest = source.dtype.type(0), source.dtype.type(-np.inf)
    unit = source.dtype.type(1 / np.log(2))
    masked, ordered = len(coordinates) > 0, len(order) > 0
    heads = np.uint64(source.shape[1])
    low, odd = _edge_halves(key, 0, by_column)
    largest = np.empty(source.shape[1], source.dtype)
    for r in range(np.uint64(start), np.uint64(stop)):
        for h in range(heads):
            largest[h] = lowest
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            j, edge = np.uint64(other[k]), np.uint64(order[k]) if ordered else k
            if masked and by_row:
                low, odd = _edge_halves(key, coordinates[k], by_column)
            is_free = not masked or (protect and j == r)
            for h in range(heads):
                score = source[j, h] + target[r, h]
                score = score if score > zero else slope * score
                kept = is_free or np.uint64(_coin(low, odd, words[h])) >= threshold
                score = score if kept else lowest
                out[edge, h] = score
                largest[h] = max(largest[h], score)
        for h in range(heads):  # a row that lost all of its edges has no highest one
            largest[h] = largest[h] if largest[h] > lowest else zero
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            edge = np.uint64(order[k]) if ordered else k
            for h in range(heads):
                out[edge, h] = (out[edge, h] - largest[h]) * unit


@_jit
def normalize_rows(pointer, order, values, start, stop):
    """Divide the values of the edges of every row by their sum; a row of zeros stays."""
    zero, one, ordered = values.dtype.type(0), values.dtype.type(1), len(order) > 0
    heads = np.uint64(values.shape[1])
    total = np.empty(values.shape[1], values.dtype)
    for r in range(np.uint64(start), np.uint64(stop)):
        for h in range(heads):
            total[h] = zero
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            edge = np.uint64(order[k]) if ordered else k
            for h in range(heads):
                total[h] += values[edge, h]
        for h in range(heads):
            total[h] = one / total[h] if total[h] > zero else zero
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            edge = np.uint64(order[k]) if ordered else k
            for h in range(heads):
                values[edge, h] *= total[h]


@_jit
def attention_derivative(
    pointer, other, order, source, target, slope, alpha, gradient, edges, targets, start, stop
):
    """Return the derivatives by the scores of edges and, summed over them, by those of targets."""
    zero, one = source.dtype.type(0), source.dtype.type(1)
    ordered = len(order) > 0
    heads = np.uint64(source.shape[1])
    mean = np.empty(source.shape[1], source.dtype)
    for r in range(np.uint64(start), np.uint64(stop)):
        for h in range(heads):
            mean[h] = targets[r, h] = zero
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            edge = np.uint64(order[k]) if ordered else k
            for h in range(heads):
                mean[h] += alpha[edge, h] * gradient[edge, h]
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            j, edge = np.uint64(other[k]), np.uint64(order[k]) if ordered else k
            for h in range(heads):
                rise = one if source[j, h] + target[r, h] > zero else slope
                edges[edge, h] = rise * alpha[edge, h] * (gradient[edge, h] - mean[h])
                targets[r, h] += edges[edge, h]


@_jit
def sum_edges(pointer, order, values, out, start, stop):
    """Sum the values of the edges of every row."""
    zero, ordered = values.dtype.type(0), len(order) > 0
    heads = np.uint64(values.shape[1])
    for r in range(np.uint64(start), np.uint64(stop)):
        for h in range(heads):
            out[r, h] = zero
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            edge = np.uint64(order[k]) if ordered else k
            for h in range(heads):
                out[r, h] += values[edge, h]


# Frozen into the machine code: of constants it is known that no output overlaps them, without
# which the loops below could not be vectorised.
_OFFSETS, _SLOPES = (values.numpy() for values in normal_chords())
_TAIL, _SHIFT, _FIRST = np.uint32((1 << 31) - 1), np.uint32(CHORD_SHIFT), np.int32(FIRST_CHORD)
_U9, _HALF, _UNIT = np.uint32(9), np.float32(0.5), np.float32(2.0**-23)


@_inline
def _normal(bits):
    tail = np.float32(np.float32(np.int32(bits & _TAIL)) + _HALF)
    place = np.uint32(np.float32(tail).view(np.int32) - _FIRST) >> _SHIFT
    size = _OFFSETS[place] + _SLOPES[place] * tail
    return size if bits > _TAIL else -size


@_inline
def _uniform(bits):
    return (np.float32(np.int32(bits >> _U9)) + _HALF) * _UNIT


@_jit
def multiply_gaussian(x, key, by_row, by_column, deviation, words, out, start, stop):
    one, width = x.dtype.type(1), np.uint64(x.shape[1])
    row_key = _row_key(key, 0)
    for r in range(np.uint64(start), np.uint64(stop)):
        if by_row:
            row_key = _row_key(key, np.int64(r))
        low, odd = _halves(row_key)
        if by_column:
            for c in range(width):
                out[r, c] = x[r, c] * (one + deviation * _normal(_coin(low, odd, words[c])))
        else:
            factor = one + deviation * _normal(np.uint32(row_key >> _U32))
            for c in range(width):
                out[r, c] = x[r, c] * factor


@_jit
def multiply_gaussian_csr(
    pointer, columns, values, key, by_row, by_column, deviation, out, start, stop
):
    one = values.dtype.type(1)
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        if by_row:
            row_key = _row_key(key, r)
        low, odd = _halves(row_key)
        own = np.uint32(row_key >> _U32)
        for k in range(pointer[r], pointer[r + 1]):
            bits = _coin(low, odd, _word(columns[k])) if by_column else own
            out[k] = values[k] * (one + deviation * _normal(bits))


@_jit
def uniforms(rows, key, by_row, by_column, words, out, start, stop):
    row_key, width = _row_key(key, 0), np.uint64(out.shape[1])
    for r in range(np.uint64(start), np.uint64(stop)):
        if by_row:
            row_key = _row_key(key, rows[r] if len(rows) else np.int64(r))
        low, odd = _halves(row_key)
        own = np.uint32(row_key >> _U32)
        for c in range(width):
            out[r, c] = _uniform(_coin(low, odd, words[c]) if by_column else own)


@_jit
def uniforms_csr(pointer, columns, key, by_row, by_column, out, start, stop):
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        if by_row:
            row_key = _row_key(key, r)
        low, odd = _halves(row_key)
        own = np.uint32(row_key >> _U32)
        for k in range(pointer[r], pointer[r + 1]):
            out[k] = _uniform(_coin(low, odd, _word(columns[k])) if by_column else own)


def _coefficients(function, degree, low, high):
    """Return those of the polynomial that meets a function at Chebyshev's points."""
    fitted = Chebyshev.interpolate(function, degree, domain=[low, high])
    return tuple(np.float32(one) for one in fitted.convert(kind=Polynomial).coef)


# log2(1 + f) / f for f within a third of 0, and 2^g for g within a half: to 4e-8 and 3e-9.
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9 = _coefficients(
    lambda f: np.log2(1 + f) / f, 9, -1 / 3, 1 / 3
)
_E0, _E1, _E2, _E3, _E4, _E5, _E6 = _coefficients(np.exp2, 6, -0.5, 0.5)
_F0, _F1, _LARGEST, _NEAREST = (np.float32(number) for number in (0, 1, 126, 126.5))
_I1, _I23 = np.int32(1), np.int32(23)
_TWO_THIRDS = np.float32(2 / 3).view(np.int32)


@_inline
def _relaxed(number, logit, power):
    """Return 1 / (1 + 2^((logit - log2(odds)) power)) of a uniform number in (0, 1).

    The odds are 2^e (1 + f), by shifting bits; without branches, so that it is vectorised.
    """
    odds = np.float32(number / (_F1 - number)).view(np.int32)
    e = np.int32(np.int32(odds - _TWO_THIRDS) >> _I23)
    f = np.int32(odds - np.int32(e << _I23)).view(np.float32) - _F1
    log = (((_L9 * f + _L8) * f + _L7) * f + _L6) * f + _L5
    log = np.float32(e) + f * (((((log * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0)
    wanted = (logit - log) * power
    exponent = wanted if wanted < _LARGEST else _LARGEST
    exponent = exponent if exponent > -_LARGEST else -_LARGEST
    whole = np.int32(exponent + _NEAREST)  # positive, so that it is rounded down
    g = exponent - (np.float32(whole) - _LARGEST)
    power_of_g = (((((_E6 * g + _E5) * g + _E4) * g + _E3) * g + _E2) * g + _E1) * g + _E0
    two = np.int32(np.int32(whole + _I1) << _I23).view(np.float32)
    return _F1 / (_F1 + power_of_g * two) if wanted < _LARGEST else _F0


@_inline
def _relaxed_whole(number, odds, power):
    """Return 1 / (1 + (odds (1 - u) / u)^power) for a whole power below 32, by squaring.

    What `_relaxed` is at temperatures like 0.1, in half the time.
    """
    base = odds * ((_F1 - number) / number)
    raised = base if power & 1 else _F1
    base *= base
    raised = raised * base if power & 2 else raised
    base *= base
    raised = raised * base if power & 4 else raised
    base *= base
    raised = raised * base if power & 8 else raised
    base *= base
    raised = raised * base if power & 16 else raised
    return _F1 / (_F1 + raised)


@_jit
def _relax(values, logit, power, odds, whole):
    """Turn uniform numbers into relaxed coins."""
    if whole:
        for i in range(np.uint64(len(values))):
            values[i] = _relaxed_whole(values[i], odds, whole)
    else:
        for i in range(np.uint64(len(values))):
            values[i] = _relaxed(values[i], logit, power)


@_jit
def multiply_relaxed(x, logit, power, odds, whole, scale, out, start, stop):
    """Multiply the entries of blocks by relaxed coins of the numbers that `out` holds."""
    for block in range(start, stop):
        first, last = block * RELAXED_BLOCK, min((block + 1) * RELAXED_BLOCK, len(x))
        _relax(out[first:last], logit, power, odds, whole)
        for i in range(np.uint64(first), np.uint64(last)):
            out[i] = x[i] * (scale * out[i])


@_jit_sums
def relaxed_derivatives(
    x, gradient, logit, power, odds, whole, scale, rise, fall, out, sums, start, stop
):
    """Multiply the gradient likewise, and sum g x z (rise - fall (1 - z)) over every block."""
    for block in range(start, stop):
        first, last = block * RELAXED_BLOCK, min((block + 1) * RELAXED_BLOCK, len(x))
        _relax(out[first:last], logit, power, odds, whole)
        total = _F0
        for i in range(np.uint64(first), np.uint64(last)):
            z = out[i]
            product = gradient[i] * z
            out[i] = product * scale
            total += product * x[i] * (rise - fall * (_F1 - z))
        sums[block] = total
