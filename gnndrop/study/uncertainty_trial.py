"""One member: train (or load), predict with dropout off and, for member 0, sample with it on."""

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnndrop.attach import attach
from gnndrop.errors import DataError, ParameterError
from gnndrop.inputs import NORMALIZES, prepare_inputs
from gnndrop.propagation import accelerate
from gnndrop.registry import Registry
from gnndrop.study.graphs import read_graph
from gnndrop.study.plan import Trial
from gnndrop.study.store import Result
from gnndrop.study.trial import alone
from gnndrop.study.uncertainty_store import OutputStore
from gnndrop.training import FitResult, fit
from gnndrop.uncertainty.sampling import mc_predict


def sample_trial(
    trial: Trial,
    files: Mapping[str, Path],
    operators: Registry[Any],
    models: Registry[Any],
    store: OutputStore,
    samples: int,
    checkpoint: Path | None = None,
) -> Result:
    """Train one model and keep what it says of every node.

    Kept are the `logits` with dropout off, of shape (N, C); of member 0 also the Monte-Carlo `mean`
    of shape (N, C), and `expected_entropy`, `mutual_information` and `variance` (the sum over
    classes) of shape (N,).

    Args:
        trial: what to train.
        files: the file of every graph, as `write_graph` wrote it.
        operators: the driver's registry.
        models: the driver's registry of models.
        store: where the arrays are kept.
        samples: Monte-Carlo samples.
        checkpoint: weights to take instead of training.

    Returns:
        The result, with the status `ok`; without scores where nothing was trained.

    Raises:
        AttachError: if the model has no place for the operator.
        DivergedError: if the loss is not finite.
        ParameterError: if nothing is random, or the checkpoint does not fit.
        DataError: if the checkpoint cannot be read, or the arrays not written.
    """
    started = time.perf_counter()
    graph = read_graph(files[trial.dataset], trial.device)
    # Without a label there is nothing to train on, nor to be right about.
    split = [mask & (graph.data.y >= 0) for mask in graph.splits[trial.split]]
    with alone(trial.random_state, trial.device):
        model = models.make(
            trial.model, in_channels=graph.data.num_features, out_channels=graph.classes
        ).to(trial.device)
        if checkpoint is not None:
            load_weights(model, checkpoint)
            setattr(model, NORMALIZES, trial.train.normalize_features)
        with attach(model, operators.make(trial.spec)):
            fitted = None
            if checkpoint is None:
                fitted = fit(model, graph.data, trial.train, split=split, metric=graph.metric)
            outputs = {"logits": _evaluate(model, graph.data, trial.train.normalize_features)}
            if trial.restart == 0:
                prediction = mc_predict(
                    model, graph.data, samples=samples, seed=trial.random_state, progress=False
                )
                outputs |= {
                    "mean": prediction.mean,
                    "expected_entropy": cast(Tensor, prediction.expected_entropy),
                    "mutual_information": cast(Tensor, prediction.mutual_information),
                    "variance": prediction.std.square().sum(-1),
                }
    arrays = {name: value.cpu().numpy() for name, value in outputs.items()}
    store.save_outputs(trial, arrays)
    return _result(trial, fitted, time.perf_counter() - started)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load what `torch.save(model.state_dict(), path)` wrote; nothing of it is executed.

    Args:
        model: the model of those weights, without operators.
        path: the file.

    Raises:
        DataError: if the file cannot be read, or holds no state_dict.
        ParameterError: if its weights are not those of the model, or not finite.

    Example:
        >>> load_weights(nn.Linear(2, 2), Path("nowhere.pt"))
        Traceback (most recent call last):
        gnndrop.errors.DataError: a checkpoint must be what torch.save(model.state_dict(), ...
    """
    try:
        with warnings.catch_warnings():  # torch warns of what it then refuses
            warnings.simplefilter("ignore")
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the file may hold anything, and the unpickler may stumble anyhow
        reason = (isinstance(error, OSError) and error.strerror) or "something else"
        raise DataError(
            f"a checkpoint must be what torch.save(model.state_dict(), file) wrote, got {reason} "
            f"at {path}"
        ) from error
    if not isinstance(weights, dict) or not all(
        isinstance(one, Tensor) for one in weights.values()
    ):
        raise DataError(
            "a checkpoint must hold a state_dict, names to tensors, "
            f"got {type(weights).__name__} at {path}; save model.state_dict()"
        )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n\t")[1:]) or str(error)
        raise ParameterError(
            f"the weights in {path} must be those of the model that is named, got: "
            f"{' '.join(reason.split())} give the options that it was built with, as "
            "-m gcn:hidden_channels=16"
        ) from error
    if not all(bool(one.isfinite().all()) for one in weights.values() if one.is_floating_point()):
        raise ParameterError(f"weights must be finite, got NaN or infinity in {path}")


@torch.no_grad()
def _evaluate(model: nn.Module, data: Data, normalize: bool) -> Tensor:
    """Return the logits with dropout off."""
    model.eval()
    with accelerate(model):
        logits: Tensor = model(*prepare_inputs(model, data, normalize))
    return logits


def _result(trial: Trial, fitted: FitResult | None, seconds: float) -> Result:
    if fitted is None:
        return Result(trial, "ok", seconds=seconds)
    return Result(
        trial,
        "ok",
        validation=fitted.validation,
        test=fitted.test,
        train=fitted.train,
        best_epoch=fitted.best_epoch,
        epochs=fitted.epochs,
        seconds=seconds,
    )
