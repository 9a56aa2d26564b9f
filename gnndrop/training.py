"""`fit`: the one training loop, by the protocol of every comparison."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data

from gnndrop.config import TrainConfig
from gnndrop.errors import DivergedError, ParameterError
from gnndrop.inputs import NORMALIZES, prepare_inputs
from gnndrop.metrics import METRICS
from gnndrop.operators import Operator
from gnndrop.optimizer import Adam
from gnndrop.propagation import accelerate
from gnndrop.registry import did_you_mean


@dataclass(frozen=True)
class FitResult:
    """What training reached: the metric with the weights of the best validation epoch.

    Args:
        train: metric on the training nodes, in evaluation mode.
        validation: metric on the validation nodes.
        test: metric on the test nodes, evaluated once.
        best_epoch: number of the best epoch, counted from 1.
        epochs: number of epochs run.
        seconds: wall time.
    """

    train: float
    validation: float
    test: float
    best_epoch: int
    epochs: int
    seconds: float


def fit(
    model: nn.Module,
    data: Data,
    config: TrainConfig | None = None,
    *,
    split: Sequence[Tensor] | None = None,
    metric: str = "accuracy",
) -> FitResult:
    """Train a node classifier on the full graph and leave it with its best validation weights.

    Adam on the mean cross entropy of the training nodes, plus one over their number times the
    `regularization()` of every module that has one; its `regularized_weights`, if it names any, and
    parameters of operators are not decayed. After every step validation is measured in
    evaluation mode; the best epoch has the highest validation metric, ties go to the lower
    validation loss, or by `config.selection` the lowest loss. Bag-of-words features (non-negative,
    mostly zeros) have their rows scaled to sum one, and are trained sparse where that pays and the
    model says `takes_sparse`; the attribute `normalize_features` of the model then says so to
    `mc_predict`. The model's training flag is left as it was. Masks of dropout follow torch's
    global generator, which training advances: `torch.manual_seed` before building the model
    reproduces a run.

    Args:
        model: returns logits from `model(x, edge_index)`, or `model(x, edge_index, edge_weight)`
            where the data has edge weights.
        data: a PyG `Data` with `x`, `edge_index`, `y`, and 1-D masks unless `split` is given.
        config: epochs, patience, learning rate and so on; default `TrainConfig()`.
        split: three boolean masks of shape (N,): training, validation, test.
        metric: `accuracy` (default) or `roc_auc`.

    Returns:
        The scores of the best epoch.

    Raises:
        ParameterError: if a mask is missing, empty, of another shape or marks an unlabelled node,
            if the labels are no int64 of shape (N,), or the metric is unknown.
        DivergedError: if the loss of training or of validation is not finite.

    Example:
        >>> from gnndrop.datasets import load
        >>> from gnndrop.models import GCN
        >>> data = load("karate").data
        >>> model = GCN(data.num_features, 16, out_channels=int(data.y.max()) + 1)
        >>> fit(model, data, TrainConfig(epochs=5)).epochs
        5
    """
    started = time.perf_counter()
    config = config or TrainConfig()
    if metric not in METRICS:
        raise ParameterError(f"unknown metric {metric!r}, {did_you_mean(metric, list(METRICS))}")
    score = METRICS[metric]
    train, validation, test = _check_split(data, split)
    inputs = prepare_inputs(model, data, config.normalize_features)
    setattr(model, NORMALIZES, config.normalize_features)
    y_train, y_validation = data.y[train], data.y[validation]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    regularizers: list[Any] = [
        module for module in model.modules() if hasattr(module, "regularization")
    ]
    optimizer = Adam(_groups(model, config.weight_decay), config.learning_rate)
    was_training, set_training = model.training, training_switch(model)
    best, best_epoch = (-math.inf, -math.inf), 0
    weights: dict[str, Tensor] = {}  # every epoch is better than none
    by_loss = config.selection == "loss"
    try:
        with accelerate(model):
            for epoch in range(1, config.epochs + 1):
                set_training(True)
                for parameter in parameters:
                    parameter.grad = None
                loss = _finite_loss(model(*inputs).index_select(0, train), y_train, epoch)
                for regularizer in regularizers:
                    loss = loss + regularizer.regularization() / len(train)
                loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
                optimizer.step()
                set_training(False)
                logits = _predict(model, inputs).index_select(0, validation)
                reached = _reached(logits, y_validation, score, by_loss, best, epoch)
                if reached > best:
                    best, best_epoch, weights = reached, epoch, _copy(model)
                elif config.patience and epoch - best_epoch >= config.patience:
                    break
            model.load_state_dict(weights)
            set_training(False)
            logits = _predict(model, inputs)
    finally:
        model.train(was_training)
    return FitResult(
        train=score(logits[train], y_train),
        validation=best[int(by_loss)],
        test=score(logits[test], data.y[test]),
        best_epoch=best_epoch,
        epochs=epoch,
        seconds=time.perf_counter() - started,
    )


def _check_split(data: Data, split: Sequence[Tensor] | None) -> list[Tensor]:
    """Return the three masks as node numbers, which index faster."""
    names = ("train_mask", "val_mask", "test_mask")
    masks = [data.get(name) for name in names] if split is None else list(split)
    if len(masks) != len(names):
        raise ParameterError(f"split must be three masks, {', '.join(names)}, got {len(masks)}")
    y = data.y
    if y is None or y.dtype != torch.int64 or tuple(y.shape) != (data.num_nodes,):
        raise ParameterError(
            f"the labels y must be int64 of shape ({data.num_nodes},), got "
            + ("none" if y is None else f"{y.dtype} of shape {tuple(y.shape)}")
        )
    chosen = []
    for name, mask in zip(names, masks, strict=True):
        if mask is None:
            raise ParameterError(f"the data must have a {name}, got none; pass split=")
        if mask.dtype != torch.bool or tuple(mask.shape) != (data.num_nodes,):
            raise ParameterError(
                f"{name} must be boolean of shape ({data.num_nodes},), "
                f"got {mask.dtype} of shape {tuple(mask.shape)}; pass one split by split="
            )
        if not mask.any() or bool((y[mask] < 0).any()):
            raise ParameterError(
                f"{name} must mark labelled nodes, "
                f"got {int(mask.sum())} nodes of which {int((y[mask] < 0).sum())} have none"
            )
        chosen.append(mask.nonzero()[:, 0])
    return chosen


def _finite_loss(logits: Tensor, y: Tensor, epoch: int) -> Tensor:
    loss = F.cross_entropy(logits, y)
    if not math.isfinite(loss.item()):
        raise DivergedError(
            f"the loss must stay finite, got {loss.item()} in epoch {epoch}: "
            "lower the learning rate or the rate of dropout"
        )
    return loss


def _reached(
    logits: Tensor,
    y: Tensor,
    score: Callable[[Tensor, Tensor], float],
    by_loss: bool,
    best: tuple[float, float],
    epoch: int,
) -> tuple[float, float]:
    """Return the metric and minus the loss, what decides first.

    A loss that would not matter is nan: most epochs neither improve the metric nor equal the best.
    """
    loss = None
    if by_loss or not math.isfinite(float(logits.sum())):
        loss = float(_finite_loss(logits, y, epoch))
    metric = score(logits, y)
    if loss is None:
        loss = float(_finite_loss(logits, y, epoch)) if metric >= best[0] else math.nan
    return (-loss, metric) if by_loss else (metric, -loss)


def training_switch(model: nn.Module) -> Callable[[bool], object]:
    """Return `model.train`, or what does the same without a walk through all modules.

    Two walks an epoch cost a small model a twentieth of its time. Modules with a `train` of their
    own, which freeze a batch normalization or the like, are asked.

    Args:
        model: any model, whose modules are not exchanged while the switch is in use.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        >>> training_switch(model)(False)
        >>> [module.training for module in model.modules()]
        [False, False, False]
    """
    if not all(map(_has_plain_flag, model.modules())):
        return model.train
    states = [vars(module) for module in model.modules()]

    def switch(is_training: bool) -> None:
        for state in states:
            state["training"] = is_training

    return switch


def _has_plain_flag(module: nn.Module) -> bool:
    """Whether `train` and `eval` are torch's own: some freeze a batch normalization by theirs."""
    own = nn.Module.train, nn.Module.eval
    used = (getattr(method, "__func__", None) for method in (module.train, module.eval))
    return tuple(used) == own and type(module).__setattr__ is nn.Module.__setattr__


@torch.no_grad()
def _predict(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    logits: Tensor = model(*inputs)
    return logits


def _groups(model: nn.Module, weight_decay: float) -> list[tuple[list[Tensor], float]]:
    """Decay all parameters but those of operators, and what regularizers decay themselves.

    A learnt rate would be pulled to 1/2.
    """
    spared: list[Any] = []
    for module in model.modules():
        spared.extend(module.parameters() if isinstance(module, Operator) else ())
        spared.extend(getattr(module, "regularized_weights", ()))
    spared_ids = set(map(id, spared))
    groups: tuple[list[Tensor], list[Tensor]] = [], []
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in spared_ids].append(parameter)
    return [(groups[False], weight_decay), (groups[True], 0.0)]


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
