"""The loops behind `gnndrop.kernels.cpu`, compiled by numba.

The hash is that of `gnndrop.masks`, bit for bit. Every loop handles rows `start` to `stop` of its
output. Places are unsigned: numba would look for negative ones at every access.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# numba infers the types at the first call; annotations would be ignored.

import functools

import numba
import numpy as np

from gnndrop.masks import COLUMN_MIX_1, COLUMN_MIX_2, COLUMN_STEP, GOLDEN, MIX_1, MIX_2


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

_U15, _U16, _U27, _U30, _U31, _U32 = (np.uint64(bits) for bits in (15, 16, 27, 30, 31, 32))
_1, _2, _3, _4 = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
_S15, _S16 = np.uint32(15), np.uint32(16)
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
_STEP, _COLUMN_1, _COLUMN_2 = (
    np.uint32(constant) for constant in (COLUMN_STEP, COLUMN_MIX_1, COLUMN_MIX_2)
)


@_inline
def _row_key(key, row):
    z = np.uint64(row) ^ (key + _GOLDEN)
    z = (z ^ (z >> _U30)) * _MIX_1
    z = (z ^ (z >> _U27)) * _MIX_2
    return z ^ (z >> _U31)


@_inline
def _coin(low, high, column):
    h = np.uint32(low + np.uint32(np.uint32(column) * _STEP))
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _S16)) * _COLUMN_1)
    h = np.uint32(h ^ high)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _S15)) * _COLUMN_2)
    return np.uint32(h ^ np.uint32(h >> _S15))


@_jit
def multiply(x, rows, key, threshold, by_row, by_column, scale, out, start, stop):
    zero = x.dtype.type(0)
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        if by_row:
            row_key = _row_key(key, rows[r] if len(rows) else r)
        low, high = np.uint32(row_key), np.uint32(row_key >> _U32)
        if by_column:
            for c in range(x.shape[1]):
                kept = _coin(low, high, c) >= threshold
                out[r, c] = x[r, c] * scale if kept else zero
        elif high >= threshold:
            for c in range(x.shape[1]):
                out[r, c] = x[r, c] * scale
        else:
            out[r, :] = zero


@_jit
def multiply_csr(
    pointer, columns, values, key, threshold, by_row, by_column, scale, out, start, stop
):
    zero = values.dtype.type(0)
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        if by_row:
            row_key = _row_key(key, r)
        low, high = np.uint32(row_key), np.uint32(row_key >> _U32)
        first, last = pointer[r], pointer[r + 1]
        row_columns, row_values, row_out = columns[first:last], values[first:last], out[first:last]
        if by_column:
            for k in range(len(row_values)):
                kept = _coin(low, high, row_columns[k]) >= threshold
                row_out[k] = row_values[k] * scale if kept else zero
        else:
            for k in range(len(row_values)):
                row_out[k] = row_values[k] * scale if high >= threshold else zero


@_jit
def aggregate(pointer, other, order, x, weight, out, start, stop):
    """Sum rows with one factor per edge.

    Four edges at a time: a row of the output is written once for four of the input.
    """
    zero, one = x.dtype.type(0), x.dtype.type(1)
    width, weighted, ordered = np.uint64(x.shape[1]), len(weight) > 0, len(order) > 0
    f0, f1, f2, f3 = one, one, one, one
    for r in range(np.uint64(start), np.uint64(stop)):
        for c in range(width):
            out[r, c] = zero
        k, end = np.uint64(pointer[r]), np.uint64(pointer[r + _1])
        while k + _4 <= end:
            j0, j1 = np.uint64(other[k]), np.uint64(other[k + _1])
            j2, j3 = np.uint64(other[k + _2]), np.uint64(other[k + _3])
            if weighted and ordered:
                f0, f1 = weight[np.uint64(order[k])], weight[np.uint64(order[k + _1])]
                f2, f3 = weight[np.uint64(order[k + _2])], weight[np.uint64(order[k + _3])]
            elif weighted:
                f0, f1, f2, f3 = weight[k], weight[k + _1], weight[k + _2], weight[k + _3]
            for c in range(width):
                total = (out[r, c] + f0 * x[j0, c]) + f1 * x[j1, c]
                out[r, c] = (total + f2 * x[j2, c]) + f3 * x[j3, c]
            k += _4
        while k < end:
            j0 = np.uint64(other[k])
            if weighted:
                f0 = weight[np.uint64(order[k]) if ordered else k]
            for c in range(width):
                out[r, c] += f0 * x[j0, c]
            k += _1


@_jit
def aggregate_kept(
    pointer, other, order, x, weight, coordinates, key, threshold, scale, out, start, stop
):
    """Sum the rows of kept edges, with one factor per edge.

    The kept edges of a row are listed first, without a branch, then added four at a time: the
    processor mispredicts no coin.
    """
    zero = x.dtype.type(0)
    width, weighted, ordered = np.uint64(x.shape[1]), len(weight) > 0, len(order) > 0
    longest = 0
    for r in range(start, stop):
        longest = max(longest, pointer[r + 1] - pointer[r])
    sources, factors = np.empty(longest + 4, np.uint64), np.empty(longest + 4, x.dtype)
    for r in range(np.uint64(start), np.uint64(stop)):
        kept = np.uint64(0)
        for k in range(np.uint64(pointer[r]), np.uint64(pointer[r + _1])):
            edge = np.uint64(order[k]) if ordered else k
            sources[kept] = np.uint64(other[k])
            factors[kept] = weight[edge] * scale if weighted else scale
            kept += np.uint64(np.uint32(_row_key(key, coordinates[edge]) >> _U32) >= threshold)
        for c in range(width):
            out[r, c] = zero
        k = np.uint64(0)
        while k + _4 <= kept:
            j0, j1, j2, j3 = sources[k], sources[k + _1], sources[k + _2], sources[k + _3]
            f0, f1, f2, f3 = factors[k], factors[k + _1], factors[k + _2], factors[k + _3]
            for c in range(width):
                total = (out[r, c] + f0 * x[j0, c]) + f1 * x[j1, c]
                out[r, c] = (total + f2 * x[j2, c]) + f3 * x[j3, c]
            k += _4
        while k < kept:
            j0, f0 = sources[k], factors[k]
            for c in range(width):
                out[r, c] += f0 * x[j0, c]
            k += _1


@_jit
def aggregate_columns(
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
    out,
    start,
    stop,
):
    """Sum rows with a factor per edge and head, or a mask by edge and column."""
    zero = x.dtype.type(0)
    weighted, masked, ordered = len(weight) > 0, len(coordinates) > 0, len(order) > 0
    heads = max(weight.shape[1], 1)
    width = x.shape[1] // heads
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        out[r, :] = zero
        for k in range(pointer[r], pointer[r + 1]):
            j, edge = other[k], order[k] if ordered else k
            if masked and by_row:
                row_key = _row_key(key, coordinates[edge])
            low, high = np.uint32(row_key), np.uint32(row_key >> _U32)
            if masked and not by_column and high < threshold:
                continue
            for head in range(heads):
                factor = weight[edge, head] * scale if weighted else scale
                first = head * width
                source, sink = x[j, first : first + width], out[r, first : first + width]
                if masked and by_column:
                    for c in range(width):
                        kept = _coin(low, high, first + c) >= threshold
                        sink[c] += factor * (source[c] if kept else zero)
                else:
                    for c in range(width):
                        sink[c] += factor * source[c]


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
    out,
    start,
    stop,
):
    zero = x.dtype.type(0)
    masked, ordered = len(coordinates) > 0, len(order) > 0
    width = x.shape[1] // heads
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        for k in range(pointer[r], pointer[r + 1]):
            j, edge = other[k], order[k] if ordered else k
            if masked and by_row:
                row_key = _row_key(key, coordinates[edge])
            low, high = np.uint32(row_key), np.uint32(row_key >> _U32)
            for head in range(heads):
                first = head * width
                source, sink = x[j, first : first + width], y[r, first : first + width]
                total = zero
                if masked and by_column:
                    for c in range(width):
                        kept = _coin(low, high, first + c) >= threshold
                        total += source[c] * sink[c] if kept else zero
                elif not masked or high >= threshold:
                    for c in range(width):
                        total += source[c] * sink[c]
                out[edge, head] = total * scale
