"""The loops behind `gnndrop.kernels.cpu`, compiled by numba.

The hash is that of `gnndrop.masks`, bit for bit. Every loop handles rows `start` to `stop` of its
output. Places are unsigned: numba would look for negative ones at every access.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# numba infers the types at the first call; annotations would be ignored.

import functools

import numba
import numpy as np

from gnndrop.masks import COLUMN_MIXES, COLUMN_STEP, GOLDEN, MIX_1, MIX_2


def _compiler(*fastmath):
    njit = functools.partial(numba.njit, nogil=True, boundscheck=False, fastmath=set(fastmath))

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

_U27, _U30, _U31, _U32 = (np.uint64(bits) for bits in (27, 30, 31, 32))
_1, _2, _3, _4 = (np.uint64(number) for number in (1, 2, 3, 4))
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
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


@_jit
def multiply(x, rows, key, threshold, by_row, by_column, scale, words, out, start, stop):
    zero, width = x.dtype.type(0), np.uint64(x.shape[1])
    row_key = _row_key(key, 0)
    for r in range(np.uint64(start), np.uint64(stop)):
        if by_row:
            row_key = _row_key(key, rows[r] if len(rows) else np.int64(r))
        low, odd = _halves(row_key)
        if by_column:
            for c in range(width):
                out[r, c] = x[r, c] * scale if _coin(low, odd, words[c]) >= threshold else zero
        elif np.uint32(row_key >> _U32) >= threshold:
            for c in range(width):
                out[r, c] = x[r, c] * scale
        else:
            for c in range(width):
                out[r, c] = zero


@_jit
def multiply_csr(
    pointer, columns, values, key, threshold, by_row, by_column, scale, out, start, stop
):
    zero = values.dtype.type(0)
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        if by_row:
            row_key = _row_key(key, r)
        low, odd = _halves(row_key)
        own = np.uint32(row_key >> _U32)
        first, last = pointer[r], pointer[r + 1]
        row_columns, row_values, row_out = columns[first:last], values[first:last], out[first:last]
        for k in range(len(row_values)):
            coin = _coin(low, odd, _word(row_columns[k])) if by_column else own
            row_out[k] = row_values[k] * scale if coin >= threshold else zero


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
    one = weight.dtype.type(1)
    longest = 0
    for r in range(start, stop):
        longest = max(longest, pointer[r + 1] - pointer[r])
    coins = np.empty(longest, np.uint8)
    for r in range(np.uint64(start), np.uint64(stop)):
        first = np.uint64(pointer[r])
        degree = np.uint64(pointer[r + _1]) - first
        for i in range(degree):
            coins[i] = (_row_key(key, coordinates[first + i]) >> _U32) >= threshold
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
    """Sum rows with one factor per edge and a mask by channel, or by edge and channel."""
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


@_jit
def aggregate_heads(
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
    """Sum rows with one factor per edge and head, and any mask."""
    zero = x.dtype.type(0)
    masked, ordered = len(coordinates) > 0, len(order) > 0
    heads = np.uint64(weight.shape[1])
    width = np.uint64(x.shape[1]) // heads
    row_key = _row_key(key, 0)
    for r in range(np.uint64(start), np.uint64(stop)):
        for c in range(width * heads):
            out[r, c] = zero
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            j, edge = np.uint64(other[k]), np.uint64(order[k]) if ordered else k
            if masked and by_row:
                row_key = _row_key(key, coordinates[k])
            low, odd = _halves(row_key)
            if masked and not by_column and np.uint32(row_key >> _U32) < threshold:
                continue
            for head in range(heads):
                factor, first = weight[edge, head] * scale, head * width
                if masked and by_column:
                    for c in range(first, first + width):
                        kept = _coin(low, odd, words[c]) >= threshold
                        out[r, c] += factor * (x[j, c] if kept else zero)
                else:
                    for c in range(first, first + width):
                        out[r, c] += factor * x[j, c]


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
