"""Run trials in parallel: one thread each, every result on disk before the next trial starts."""

import functools
import math
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager, nullcontext

import joblib
from joblib.executor import get_memmapping_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gnndrop.errors import AttachError, GnndropError, ParameterError
from gnndrop.study.plan import Trial
from gnndrop.study.store import Result, Store

# Threads of one trial that compete with those of others cost five times the time.
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)

# Seconds within which further signals are the same one, pressed by somebody in a hurry.
IMPATIENCE = 3.0

# Trains one trial: returns its result, or raises AttachError where the operator has no place.
Execute = Callable[[Trial], Result]
# Called with the number of finished trials, of all trials, and the result that has just come in
# (None in the first call, which tells how many trials were found finished).
OnResult = Callable[[int, int, Result | None], object]


def run(
    trials: Sequence[Trial],
    execute: Execute,
    store: Store,
    *,
    jobs: int | None = None,
    on_result: OnResult | None = None,
) -> dict[str, Result]:
    """Execute the trials that the store does not hold yet.

    A trial that raises, or whose worker process dies, becomes a result with the status `failed`;
    the others go on. When a worker dies, the trials that were in flight are repeated, each alone in
    a process; the one that loses its worker again has failed.

    Args:
        trials: what to run, in this order.
        execute: trains one trial; sent to the workers by cloudpickle.
        store: where the workers write each result before they take the next trial.
        jobs: number of worker processes; 1 runs in this process; None stands for all cores.
        on_result: called at the start and after each trial, in this process.

    Returns:
        The results of all trials by their keys.

    Raises:
        ParameterError: if `jobs` is below 1.
        KeyboardInterrupt: if interrupted; workers are stopped and finished trials are kept. While
            there are workers, signals within three seconds of that one are ignored.
        DataError: if a result cannot be written.
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs must be at least 1, got {jobs}")
    results = store.results(trials)
    left = [trial for trial in trials if trial.key not in results]
    report = on_result or (lambda done, total, result: None)
    report(len(results), len(trials), None)
    workers = jobs or joblib.cpu_count()
    with (
        warnings.catch_warnings(),
        _interrupted_once() if workers > 1 else nullcontext(),
        # Closed at once when interrupted, so that the workers are stopped before anybody goes on.
        closing(_perform_all(left, execute, store, workers)) as finished,
    ):
        # loky replaces a worker that has grown or idled, as it should. Where warnings are errors,
        # its word on that would end the thread that hands the results over, and we would wait on.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
        for result in finished:
            results[result.trial.key] = result
            report(len(results), len(trials), result)
    return results


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Let only the first of several signals interrupt, which begins the stopping of the workers.

    If another one broke into that, some would go on for ever, and this process wait for them.
    """
    is_main = threading.current_thread() is threading.main_thread()  # no signal comes elsewhere
    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if is_main and signal.getsignal(number) is signal.default_int_handler
    ]
    latest = -math.inf

    def interrupt(*_: object) -> None:
        nonlocal latest
        if time.monotonic() - latest > IMPATIENCE:
            latest = time.monotonic()
            raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)


def _perform_all(
    trials: list[Trial], execute: Execute, store: Store, jobs: int
) -> Generator[Result]:
    if jobs == 1:
        yield from (perform(trial, execute, store) for trial in trials)
        return
    workers = min(jobs, len(trials))
    queue = deque(trials)
    while queue:
        lost = []
        for trial, result in _parallel(queue, execute, store, workers):
            if result is None:
                lost.append(trial)
            else:
                yield result
        yield from (_perform_alone(trial, execute, store, workers) for trial in lost)


def _parallel(
    queue: deque[Trial], execute: Execute, store: Store, workers: int
) -> Generator[tuple[Trial, Result | None]]:
    """Take trials from the queue and yield their results as they come.

    When a worker dies, the trials that were in flight are yielded with None, and that is the end.
    """
    # joblib's, not loky's own: the last one is kept, and `joblib.Parallel` takes it for its own.
    executor = get_memmapping_executor(
        workers,
        env=dict.fromkeys(THREADS, "1"),
        # Ctrl-C reaches the whole group: the driver alone answers, and stops its workers.
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    running: dict[Future[Result], Trial] = {}
    try:
        while queue or running:
            # Two for each worker, so that none waits for its next.
            while queue and len(running) < 2 * workers:
                future = executor.submit(_work, os.getpid(), queue[0], execute, store)
                running[future] = queue.popleft()
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield running.pop(future), result
    except TerminatedWorkerError:
        yield from ((trial, None) for trial in running.values())
        running.clear()
    finally:
        if running:  # interrupted
            # loky's thread fails when it is shut down between a submission and its hand-over.
            while not all(future.running() or future.done() for future in running):
                time.sleep(0.001)
            executor.shutdown(kill_workers=True)


def _perform_alone(trial: Trial, execute: Execute, store: Store, workers: int) -> Result:
    """Perform a trial while no other runs; losing its worker now is its own failure."""
    done = store.results([trial])  # it may have finished before its neighbour died
    if done:
        return done[trial.key]
    ((_, result),) = _parallel(deque([trial]), execute, store, workers)
    if result is None:
        result = Result(
            trial,
            "failed",
            error="a trial must end by itself, its process was killed even when it ran alone; "
            "try a smaller model if memory ran out",
        )
        store.save(result)
    return result


def _work(driver: int, trial: Trial, execute: Execute, store: Store) -> Result:
    """Perform a trial in a worker process."""
    _end_with(driver)
    return perform(trial, execute, store)


@functools.cache
def _end_with(driver: int) -> None:
    """Let this process end when its parent does: a killed driver cannot stop its workers.

    Else they would go on beside the run that resumes, and repeat its trials.
    """

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def perform(trial: Trial, execute: Execute, store: Store) -> Result:
    """Execute one trial and write its result, whatever becomes of it.

    Args:
        trial: what to run.
        execute: trains it.
        store: where its result is written.

    Returns:
        The result: `not-applicable` on an AttachError, `failed` on any other exception and on a
        score that is not finite.
    """
    try:
        result = execute(trial)
        if not all(math.isfinite(score) for score in _scores(result)):
            raise ArithmeticError("scores must be finite, got NaN or infinity")
    except AttachError as error:
        result = Result(trial, "not-applicable", error=str(error))
    except Exception as error:  # an operator or a model of a plug-in may raise anything
        result = Result(trial, "failed", error=_sentence(error))
    store.save(result)
    return result


def _scores(result: Result) -> list[float]:
    scores = (result.validation, result.test, result.train)
    return [score for score in scores if score is not None]


def _sentence(error: Exception) -> str:
    """Return the first line of an error; a stranger's with its type."""
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, GnndropError) else f"{type(error).__name__}: {line}"
