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
from gnndrop.masks import Mask, column_words

DTYPES = (torch.float32, torch.float64)
# Entries below which a second thread costs more than it saves.
GRAIN = 1 << 20
PARTS_PER_THREAD = 8
# Entries from which our own plain product is the faster one.
LARGE = 1 << 23
NONE = np.empty(0, dtype=np.int64)
HAS_MKL = bool(torch.backends.mkl.is_available())  # type: ignore[no-untyped-call]  # in torch
to_csr(torch.ones(1, 1))  # has torch's remark that CSR is in beta said here, unheard


def multiply(x: Tensor, rows: Tensor | None, mask: Mask) -> Tensor:
    """See `gnndrop.kernels.reference.multiply`."""
    if mask.drops_all:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    arguments = (_array(x), _array(rows), *_coins(mask, x.dtype), _words(x.size(1)), out.numpy())
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


def list_kept(
    rows: Compressed,
    places: Tensor,
    mask: Mask,
    protect_self_loops: bool,
    weight: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Compressed, Tensor | None]:
    """See `gnndrop.kernels.reference.list_kept`."""
    has_factors = weight is not None or mask.scale != 1
    factors = torch.empty(len(rows.other) if has_factors else 0, dtype=dtype)
    other, ends = torch.empty_like(rows.other), torch.empty_like(rows.ends)
    scale = factors.numpy().dtype.type(mask.scale)
    coins = (np.uint64(mask.key), np.uint64(mask.threshold), protect_self_loops, scale)
    listing = (other.numpy(), _vector(weight, factors), factors.numpy(), ends.numpy())
    arguments = (*_arrays(rows), _array(places), *coins, *listing)
    _share(_compiled.list_kept, arguments, _balanced(rows, 8))
    return Compressed(rows.pointer, other, None, ends), factors if has_factors else None


def aggregate(
    rows: Compressed,
    x: Tensor,
    weight: Tensor | None,
    places: Tensor | None,
    mask: Mask | None,
    left: Tensor | None = None,
    right: Tensor | None = None,
) -> Tensor:
    """See `gnndrop.kernels.reference.aggregate`."""
    has_heads = weight is not None and weight.size(1) > 1
    if mask is not None and places is not None and not (mask.by_column or has_heads):
        places = places if mask.by_row else torch.zeros_like(places)
        factor = None if weight is None else weight[:, 0]
        rows, kept = list_kept(rows, places, mask, False, factor, x.dtype)
        weight, mask = None if kept is None else kept[:, None], None
    if mask is not None and mask.drops_all:
        return x.new_zeros(len(rows.pointer) - 1, x.size(1))
    is_plain = not has_heads and all(one is None for one in (mask, left, right, rows.stops))
    if is_plain and len(rows.other) * x.size(1) < LARGE and HAS_MKL:
        return _library_product(rows, x, weight)
    out = x.new_empty(len(rows.pointer) - 1, x.size(1))
    if mask is None and not has_heads:
        pointer, *others = _arrays(rows)
        factors = (_vector(weight, x), _vector(left, x), _vector(right, x))
        kernel: Callable[..., None] = _compiled.aggregate
        arguments: tuple[object, ...] = pointer, _array(rows.ends), *others, _array(x), *factors
    else:
        coins = _edge_coins(places, mask, x)
        kernel = _compiled.aggregate_heads if has_heads else _compiled.aggregate_messages
        factor = _array(weight) if has_heads else _vector(weight, x)
        arguments = *_arrays(rows), _array(x), factor, *coins
    _share(kernel, (*arguments, out.numpy()), _balanced(rows, x.size(1)))
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
        return x.new_zeros(len(rows.other), heads)
    out = x.new_empty(len(rows.other), heads)
    coins = _edge_coins(places, mask, x)
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
    """View a tensor as an array; None is the empty array of positions."""
    if tensor is None:
        return NONE
    return tensor.detach().contiguous().numpy()


def _vector(values: Tensor | None, like: Tensor) -> NDArray[Any]:
    """View one value per edge or node as an array; None is an empty one."""
    return _array(like.new_empty(0) if values is None else values.reshape(-1))


def _arrays(rows: Compressed) -> tuple[NDArray[Any], ...]:
    """View a grouping as arrays; an empty order stands for that of the edges."""
    return _array(rows.pointer), _array(rows.other), _array(rows.order)


@functools.lru_cache(maxsize=64)
def _words(num_columns: int) -> NDArray[np.uint32]:
    """Return the words of the first columns."""
    return column_words(torch.arange(num_columns)).numpy().astype(np.uint32)


def _coins(mask: Mask | None, dtype: torch.dtype) -> tuple[object, ...]:
    real = np.float32 if dtype == torch.float32 else np.float64
    if mask is None:
        return np.uint64(0), np.uint32(0), False, False, real(1)
    threshold = np.uint32(mask.threshold)
    return np.uint64(mask.key), threshold, mask.by_row, mask.by_column, real(mask.scale)


def _edge_coins(places: Tensor | None, mask: Mask | None, x: Tensor) -> tuple[object, ...]:
    return _array(places if mask else None), *_coins(mask, x.dtype), _words(x.size(1))


def _parts(work: int) -> int:
    """Return into how many parts to cut the work: one, or several for every thread."""
    threads = min(torch.get_num_threads(), work // GRAIN)
    return threads * PARTS_PER_THREAD if threads > 1 else 1


def _even(num_rows: int, work: int) -> list[int]:
    """Cut rows of equal length."""
    parts = _parts(work)
    return [num_rows * part // parts for part in range(parts + 1)]


def _balanced(rows: Compressed, width: int) -> list[int]:
    """Cut rows so that every part has as many edges."""
    num_edges, num_rows = len(rows.other), len(rows.pointer) - 1
    parts = _parts(num_edges * width)
    wanted = [num_edges * part // parts for part in range(1, parts)]
    cuts = np.searchsorted(_array(rows.pointer), wanted).clip(max=num_rows)
    return [0, *cuts.tolist(), num_rows]


def _share(kernel: Callable[..., None], arguments: tuple[object, ...], bounds: list[int]) -> None:
    """Run a kernel over all parts; whichever thread is free takes the next one.

    Torch's threads keep spinning for a while after each of its operations: a core may be half ours.
    """
    parts = pairwise(bounds)

    def work() -> None:
        for part in parts:
            kernel(*arguments, *part)

    helpers = min(torch.get_num_threads(), len(bounds) - 1) - 1
    pending = [_pool(os.getpid(), helpers).submit(work) for _ in range(helpers)]
    work()
    for future in pending:
        future.result()


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Keep the helping threads of a process; a forked child makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gnndrop")
