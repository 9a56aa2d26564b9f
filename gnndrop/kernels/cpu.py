"""The kernels for the CPU: the mask is hashed inside the loop and never stored.

Every kernel handles a range of rows and releases the interpreter, so that plain threads share the
work; a row belongs to one thread, hence results do not depend on their number. numba's own
threading is not used: its OpenMP layer does not survive a fork (DataLoader workers), its workqueue
layer not two calling threads.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, cast

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnndrop.graph import Compressed
from gnndrop.masks import COLUMN_MIX_1, COLUMN_MIX_2, COLUMN_STEP, GOLDEN, MIX_1, MIX_2, Mask

DTYPES = (torch.float32, torch.float64)
GRAIN = 1 << 17  # entries below which a second thread costs more than it saves

_jit = numba.njit(nogil=True, cache=True, boundscheck=False)
# Sums may be reassociated into vector lanes: another rounding, the same one every time.
_jit_sums = numba.njit(nogil=True, cache=True, boundscheck=False, fastmath={"reassoc", "nsz"})
_inline = numba.njit(inline="always")

_U15, _U16, _U27, _U30, _U31, _U32 = (np.uint64(bits) for bits in (15, 16, 27, 30, 31, 32))
_S15, _S16 = np.uint32(15), np.uint32(16)
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
_STEP, _COLUMN_1, _COLUMN_2 = (
    np.uint32(constant) for constant in (COLUMN_STEP, COLUMN_MIX_1, COLUMN_MIX_2)
)


@_inline
def _row_key(key, row):  # type: ignore[no-untyped-def]  # compiled by numba
    z = np.uint64(row) ^ (key + _GOLDEN)
    z = (z ^ (z >> _U30)) * _MIX_1
    z = (z ^ (z >> _U27)) * _MIX_2
    return z ^ (z >> _U31)


@_inline
def _coin(low, high, column):  # type: ignore[no-untyped-def]  # compiled by numba
    h = np.uint32(low + np.uint32(np.uint32(column) * _STEP))
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _S16)) * _COLUMN_1)
    h = np.uint32(h ^ high)
    h = np.uint32(np.uint32(h ^ np.uint32(h >> _S15)) * _COLUMN_2)
    return np.uint32(h ^ np.uint32(h >> _S15))


@_jit
def _multiply(x, rows, key, threshold, by_row, by_column, scale, out, start, stop):  # type: ignore[no-untyped-def]  # compiled by numba
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
def _multiply_csr(
    pointer, columns, values, key, threshold, by_row, by_column, scale, out, start, stop
):  # type: ignore[no-untyped-def]  # compiled by numba
    zero = values.dtype.type(0)
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        if by_row:
            row_key = _row_key(key, r)
        low, high = np.uint32(row_key), np.uint32(row_key >> _U32)
        for k in range(pointer[r], pointer[r + 1]):
            bits = _coin(low, high, columns[k]) if by_column else high
            out[k] = values[k] * scale if bits >= threshold else zero


@_jit
def _aggregate(
    pointer,
    index,
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
):  # type: ignore[no-untyped-def]  # compiled by numba
    zero = x.dtype.type(0)
    weighted, masked = weight.shape[1] > 0, len(coordinates) > 0
    heads = max(weight.shape[1], 1)
    width = x.shape[1] // heads
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        out[r, :] = zero
        for k in range(pointer[r], pointer[r + 1]):
            j = index[k]
            if masked and by_row:
                row_key = _row_key(key, coordinates[order[k]])
            low, high = np.uint32(row_key), np.uint32(row_key >> _U32)
            if masked and not by_column and high < threshold:
                continue
            for head in range(heads):
                factor = weight[order[k], head] * scale if weighted else scale
                if factor == zero:  # an edge that was dropped by its weight costs nothing
                    continue
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
def _edge_products(
    pointer,
    index,
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
):  # type: ignore[no-untyped-def]  # compiled by numba
    zero = x.dtype.type(0)
    masked = len(coordinates) > 0
    width = x.shape[1] // heads
    row_key = _row_key(key, 0)
    for r in range(start, stop):
        for k in range(pointer[r], pointer[r + 1]):
            j = index[k]
            if masked and by_row:
                row_key = _row_key(key, coordinates[order[k]])
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
                out[order[k], head] = total * scale


def multiply(x: Tensor, rows: Tensor | None, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply`."""
    if mask.drops_all:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    arguments = (_array(x), _array(rows), *_coins(mask, x.dtype), out.numpy())
    _share(_multiply, arguments, _even(x.size(0), x.numel()))
    return out


def multiply_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_csr`."""
    if mask.drops_all:
        return torch.zeros_like(values, memory_format=torch.contiguous_format)
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    matrix = _array(pointer), _array(columns), _array(values)
    arguments = (*matrix, *_coins(mask, values.dtype), out.numpy())
    _share(_multiply_csr, arguments, _even(len(pointer) - 1, 4 * len(values)))
    return out


def aggregate(
    rows: Compressed,
    x: Tensor,
    weight: Tensor | None,
    coordinates: Tensor | None,
    mask: Mask | None,
) -> Tensor:
    """See `gnndrop.kernels.reference.aggregate`."""
    num_rows = len(rows.pointer) - 1
    if mask is not None and mask.drops_all:
        return x.new_zeros(num_rows, x.size(1))
    out = x.new_empty(num_rows, x.size(1))
    weights = _array(x.new_empty(0, 0) if weight is None else weight)
    coins = (_array(coordinates if mask else None), *_coins(mask, x.dtype))
    arguments = (*_arrays(rows), _array(x), weights, *coins, out.numpy())
    _share(_aggregate, arguments, _balanced(rows, x.size(1)))
    return out


def edge_products(
    rows: Compressed,
    x: Tensor,
    y: Tensor,
    heads: int,
    coordinates: Tensor | None,
    mask: Mask | None,
) -> Tensor:
    """See `gnndrop.kernels.reference.edge_products`."""
    if mask is not None and mask.drops_all:
        return x.new_zeros(len(rows.index), heads)
    out = x.new_empty(len(rows.index), heads)
    coins = (_array(coordinates if mask else None), *_coins(mask, x.dtype))
    arguments = (*_arrays(rows), _array(x), _array(y), heads, *coins, out.numpy())
    _share(_edge_products, arguments, _balanced(rows, x.size(1)))
    return out


def _array(tensor: Tensor | None) -> NDArray[Any]:
    """View a tensor as an array; None is the empty array of coordinates."""
    if tensor is None:
        return np.empty(0, dtype=np.int64)
    return cast("NDArray[Any]", tensor.detach().contiguous().numpy())


def _arrays(rows: Compressed) -> tuple[NDArray[Any], ...]:
    return tuple(_array(part) for part in rows)


def _coins(mask: Mask | None, dtype: torch.dtype) -> tuple[object, ...]:
    real = np.float32 if dtype == torch.float32 else np.float64
    if mask is None:
        return np.uint64(0), np.uint32(0), False, False, real(1)
    threshold = np.uint32(mask.threshold)
    return np.uint64(mask.key), threshold, mask.by_row, mask.by_column, real(mask.scale)


def _parts(work: int) -> int:
    return max(1, min(torch.get_num_threads(), work // GRAIN))


def _even(num_rows: int, work: int) -> list[int]:
    """Split rows of equal length among the threads that the work is worth."""
    parts = _parts(work)
    return [num_rows * part // parts for part in range(parts + 1)]


def _balanced(rows: Compressed, width: int) -> list[int]:
    """Split rows so that every thread has as many edges."""
    num_edges, num_rows = len(rows.index), len(rows.pointer) - 1
    parts = _parts(num_edges * width)
    if parts == 1:
        return [0, num_rows]
    wanted = torch.tensor([num_edges * part // parts for part in range(1, parts)])
    return [0, *torch.searchsorted(rows.pointer, wanted).clamp_(max=num_rows).tolist(), num_rows]


def _share(kernel: Callable[..., None], arguments: tuple[object, ...], bounds: list[int]) -> None:
    ranges = list(pairwise(bounds))
    pending = [
        _pool(os.getpid(), len(ranges) - 1).submit(kernel, *arguments, start, stop)
        for start, stop in ranges[1:]
    ]
    kernel(*arguments, *ranges[0])
    for future in pending:
        future.result()


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Keep the helping threads of a process; a forked child makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gnndrop")
