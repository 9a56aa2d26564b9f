"""The settings of training and of a comparison, as frozen dataclasses; free of torch."""

import math
from dataclasses import dataclass

from gnndrop.errors import ParameterError


@dataclass(frozen=True)
class TrainConfig:
    """How `gnndrop.fit` trains: the protocol of every comparison.

    Args:
        epochs: upper limit of full-batch steps, at least 1.
        patience: stop after so many epochs without a better validation score; 0 never stops early.
        learning_rate: Adam's step size, above 0.
        weight_decay: Adam's L2 penalty, at least 0.
        normalize_features: scale the rows of non-negative (bag-of-words) features to sum one.
        selection: which epoch's weights are kept: that of the best validation `metric` (ties: the
            lowest loss), or that of the lowest validation `loss`, which asks for calibration too.

    Raises:
        ParameterError: if a value is out of its range.

    Example:
        >>> TrainConfig(epochs=50).learning_rate
        0.01
    """

    epochs: int = 200
    patience: int = 100
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    normalize_features: bool = True
    selection: str = "metric"

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ParameterError(f"epochs must be at least 1, got {self.epochs}")
        if self.patience < 0:
            raise ParameterError(
                f"patience must be at least 0 (0 never stops early), got {self.patience}"
            )
        if not 0 < self.learning_rate < math.inf:
            raise ParameterError(
                f"learning_rate must be finite and above 0, got {self.learning_rate}"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise ParameterError(
                f"weight_decay must be finite and at least 0, got {self.weight_decay}"
            )
        if self.selection not in ("metric", "loss"):
            raise ParameterError(f"selection must be 'metric' or 'loss', got {self.selection!r}")


@dataclass(frozen=True)
class CompareConfig:
    """What `gnndrop.compare` runs, and how its verdicts are reached; every name is a spec string.

    Args:
        operators: operators to compare; `none`, the baseline, is put first where it is missing.
        datasets: graphs to compare them on.
        models: models to compare them in.
        seeds: number of seeds, at least 1; seed k uses split k mod n of a dataset's n splits.
        splits: `default` as above, `all` runs every seed on every split.
        rates: rates to choose from on validation for every operator, each in [0, 1]; `none` gets as
            many restarts. Empty: every operator runs at its own rate.
        margin: half-width of the equivalence region, in units of the metric (0.01: one point).
        alpha: level of the tests and of the intervals (1 - alpha).
        train: the training protocol.
        device: where to train, as torch names it.
    """

    operators: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    seeds: int = 10
    splits: str = "default"
    rates: tuple[float, ...] = ()
    margin: float = 0.01
    alpha: float = 0.05
    train: TrainConfig = TrainConfig()
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("operators", "datasets", "models"):
            asked: tuple[str, ...] = getattr(self, name)
            if not asked or len(set(asked)) != len(asked):
                raise ParameterError(f"{name} must be given, each once, got {list(asked)}")
        if self.operators[0] != "none":
            rest = tuple(name for name in self.operators if name != "none")
            object.__setattr__(self, "operators", ("none", *rest))
        if self.seeds < 1:
            raise ParameterError(f"seeds must be at least 1, got {self.seeds}")
        if self.splits not in ("default", "all"):
            raise ParameterError(f"splits must be 'default' or 'all', got {self.splits!r}")
        if len(set(self.rates)) != len(self.rates):
            raise ParameterError(f"rates must be given each once, got {list(self.rates)}")
        for rate in self.rates:
            if not 0 <= rate <= 1:
                raise ParameterError(f"rates must be in [0, 1], got {rate}")
        if not 0 < self.margin < math.inf:
            raise ParameterError(f"margin must be finite and above 0, got {self.margin}")
        if not 0 < self.alpha < 1:
            raise ParameterError(f"alpha must be in (0, 1), got {self.alpha}")
