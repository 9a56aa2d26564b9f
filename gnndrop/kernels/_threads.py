"""The work of a kernel, shared by threads.

numba's threads of OpenMP are torch's, where both find one library of it: they wait for work anyway,
and have in their caches what torch's operations left there. Elsewhere, and in forked processes,
which no team of OpenMP survives, plain threads share the work. A bare `os.fork` before the package
is imported cannot be seen; torch's own operations hang there, too.
"""

import functools
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from gnndrop.kernels._compiled import on_team
from gnndrop.kernels._dispatch import PROCESS

# Entries below which a second thread costs more than it saves.
TEAM_GRAIN = 1 << 14
GRAIN = 1 << 20
PARTS_PER_THREAD = 8  # of plain threads: torch's keep spinning, so a core may be half ours


def count_parts(work: int, least: int = 0) -> int:
    """Return into how many parts to cut the work: one, or as many as serve all threads.

    Args:
        work: the number of entries to compute.
        least: below so many it is one part; default none.
    """
    threads = torch.get_num_threads()
    if threads == 1 or work < max(2 * TEAM_GRAIN, least):
        return 1
    team = _team_size(os.getpid())
    if team:
        return min(threads, team, work // TEAM_GRAIN)
    return max(1, min(threads * PARTS_PER_THREAD, work // GRAIN))


def share(
    kernel: Callable[..., None], arguments: tuple[object, ...], bounds: NDArray[np.int64]
) -> None:
    """Run a kernel over all parts.

    Args:
        kernel: compiled; takes the arguments, and where a part starts and stops.
        arguments: of the kernel.
        bounds: where the parts begin, and the last one ends.
    """
    if len(bounds) == 2:
        kernel(*arguments, *bounds)
    elif _team_size(os.getpid()) == len(bounds) - 1:
        on_team(kernel)(bounds, arguments)
    elif _team_size(os.getpid()):
        _share_with_some(kernel, arguments, bounds)
    else:
        _share_with_pool(kernel, arguments, bounds)


def _share_with_some(
    kernel: Callable[..., None], arguments: tuple[object, ...], bounds: NDArray[np.int64]
) -> None:
    """Ask for fewer of the team's threads, of this calling thread alone, for once."""
    threads = numba.get_num_threads()
    numba.set_num_threads(len(bounds) - 1)
    try:
        on_team(kernel)(bounds, arguments)
    finally:
        numba.set_num_threads(threads)


def _share_with_pool(
    kernel: Callable[..., None], arguments: tuple[object, ...], bounds: NDArray[np.int64]
) -> None:
    """Let whichever thread is free take the next part."""
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
def _team_size(process: int) -> int:
    """Start numba's threads; return how many there are of OpenMP, none in a forked process.

    Another thread starts them: what that sets of OpenMP is its own, and ends with it.
    """
    if process != PROCESS or _is_forked():
        return 0
    try:
        with ThreadPoolExecutor(1) as starter:
            threads = starter.submit(numba.get_num_threads).result()
    except ValueError:  # a layer that is not there, asked for by NUMBA_THREADING_LAYER
        return 0
    layer = numba.threading_layer()  # type: ignore[attr-defined]  # numba publishes no types
    return threads if layer == "omp" else 0


def _is_forked() -> bool:
    """Whether multiprocessing forked this process, perhaps before it imported us."""
    is_child = multiprocessing.parent_process() is not None
    return is_child and "--multiprocessing-fork" not in sys.orig_argv  # so it calls those it spawns


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Keep the helping threads of a process; a forked child makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="gnndrop")
