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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnndrop.graph import Compressed, to_csr
from gnndrop.kernels import _compiled
from gnndrop.masks import Mask

DTYPES = (torch.float32, torch.float64)
# Entries below which a second thread costs more than it saves: torch's own threads keep spinning
# for a while after each of its operations, and stand in the way of ours.
GRAIN = 1 << 20
# Entries from which our own plain product is the faster one.
LARGE = 1 << 23
NO_COORDINATES = np.empty(0, dtype=np.int64)
HAS_MKL = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]  # in torch
to_csr(torch.ones(1, 1))  # has torch's remark that CSR is in beta said here, unheard


def multiply(x: Tensor, rows: Tensor | None, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply`."""
    if mask.drops_all:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    arguments = (_array(x), _array(rows), *_coins(mask, x.dtype), out.numpy())
    _share(_compiled.multiply, arguments, _even(x.size(0), x.numel()))
    return out


def multiply_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply_csr`."""
    if mask.drops_all:
        return torch.zeros_like(values, memory_format=torch.contiguous_format)
    out = torch.empty_like(values, memory_format=torch.contiguous_format)
    matrix = _array(pointer), _array(columns), _array(values)
    arguments = (*matrix, *_coins(mask, values.dtype), out.numpy())
    _share(_compiled.multiply_csr, arguments, _even(len(pointer) - 1, 4 * len(values)))
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
    single = weight is None or weight.size(1) == 1
    if single and mask is None and len(rows.other) * x.size(1) < LARGE and HAS_MKL:
        return _library_product(rows, x, weight)
    out = x.new_empty(num_rows, x.size(1))
    graph = (*_arrays(rows), _array(x))
    bounds = _balanced(rows, x.size(1))
    factors = _array(x.new_empty(0)) if weight is None else _array(weight[:, 0])
    if single and mask is None:
        _share(_compiled.aggregate, (*graph, factors, out.numpy()), bounds)
        return out
    places = _array(coordinates if mask else None)
    key, threshold, by_row, by_column, scale = _coins(mask, x.dtype)
    if single and by_row and not by_column:
        coins: tuple[object, ...] = (places, key, threshold, scale)
        _share(_compiled.aggregate_kept, (*graph, factors, *coins, out.numpy()), bounds)
        return out
    matrix = _array(x.new_empty(0, 0) if weight is None else weight)
    coins = (places, key, threshold, by_row, by_column, scale)
    _share(_compiled.aggregate_columns, (*graph, matrix, *coins, out.numpy()), bounds)
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
        return x.new_zeros(len(rows.other), heads)
    out = x.new_empty(len(rows.other), heads)
    coins = (_array(coordinates if mask else None), *_coins(mask, x.dtype))
    arguments = (*_arrays(rows), _array(x), _array(y), heads, *coins, out.numpy())
    _share(_compiled.edge_products, arguments, _balanced(rows, x.size(1)))
    return out


def _library_product(rows: Compressed, x: Tensor, weight: Tensor | None) -> Tensor:
    """Multiply by torch's CSR product, whose threads cost nothing to start."""
    weights = x.new_ones(len(rows.other)) if weight is None else rows.arrange(weight[:, 0])
    size = (len(rows.pointer) - 1, len(x))
    matrix = torch.sparse_csr_tensor(
        rows.pointer, rows.other, weights, size, check_invariants=False
    )
    return x.new_empty(size[0], x.size(1)).addmm_(matrix, x, beta=0)


def _array(tensor: Tensor | None) -> NDArray[Any]:
    """View a tensor as an array; None is the empty array of coordinates."""
    if tensor is None:
        return NO_COORDINATES
    return tensor.detach().contiguous().numpy()


def _arrays(rows: Compressed) -> tuple[NDArray[Any], ...]:
    """View a grouping as arrays; an empty order stands for that of the edges."""
    order = rows.other[:0] if rows.order is None else rows.order
    return _array(rows.pointer), _array(rows.other), _array(order)


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
    num_edges, num_rows = len(rows.other), len(rows.pointer) - 1
    parts = _parts(num_edges * width)
    if parts == 1:
        return [0, num_rows]
    wanted = torch.tensor([num_edges * part // parts for part in range(1, parts)])
    return [0, *torch.searchsorted(rows.pointer, wanted).clamp_(max=num_rows).tolist(), num_rows]


def _share(kernel: Callable[..., None], arguments: tuple[object, ...], bounds: list[int]) -> None:
    if len(bounds) == 2:
        kernel(*arguments, *bounds)
        return
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
