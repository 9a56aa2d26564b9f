"""One trial: seed, build, attach, train; the same in every process and with any number of jobs."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from gnndrop.attach import attach
from gnndrop.registry import Registry
from gnndrop.study.graphs import read_graph
from gnndrop.study.plan import Trial
from gnndrop.study.store import Result
from gnndrop.training import fit


def train_trial(
    trial: Trial,
    files: Mapping[str, Path],
    operators: Registry[Any],
    models: Registry[Any],
) -> Result:
    """Train one model with one operator on one split.

    Args:
        trial: what to train.
        files: the file of every graph, as `write_graph` wrote it.
        operators: the driver's registry: it also knows what a user's script has registered.
        models: the driver's registry of models.

    Returns:
        The result, with the status `ok`.

    Raises:
        AttachError: if the model has no place for the operator.
        DivergedError: if the loss is not finite.
    """
    graph = read_graph(files[trial.dataset], trial.device)
    with alone(trial.random_state, trial.device):
        model = models.make(
            trial.model, in_channels=graph.data.num_features, out_channels=graph.classes
        )
        with attach(model.to(trial.device), operators.make(trial.spec)):
            fitted = fit(
                model,
                graph.data,
                trial.train,
                split=graph.splits[trial.split],
                metric=graph.metric,
            )
    return Result(
        trial,
        "ok",
        validation=fitted.validation,
        test=fitted.test,
        train=fitted.train,
        best_epoch=fitted.best_epoch,
        epochs=fitted.epochs,
        seconds=fitted.seconds,
    )


@contextmanager
def alone(random_state: int, device: str) -> Iterator[None]:
    """Seed torch's generators and use one thread; both are restored.

    One thread in this process, too: sums are then the same with any number of jobs. What dropout
    before a batch normalization costs, a study shows: to warn of it at every trial would drown it.
    """
    threads = torch.get_num_threads()
    kind = torch.device(device).type
    with (
        torch.random.fork_rng([] if kind == "cpu" else [device], device_type=kind),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", ".* acts before a batch normalization")
        # `torch.manual_seed` would also seed devices that nobody forked.
        seed = torch.default_generator.manual_seed if kind == "cpu" else torch.manual_seed
        seed(random_state)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
