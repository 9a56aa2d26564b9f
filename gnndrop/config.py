"""The settings of training and of a comparison, as frozen dataclasses; free of torch."""

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
    """

    epochs: int = 200
    patience: int = 100
    learning_rate: float = 0.01
    weight_decay: float = 5e-4
    normalize_features: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ParameterError(f"epochs must be at least 1, got {self.epochs}")
        if self.patience < 0:
            raise ParameterError(
                f"patience must be at least 0 (0 never stops early), got {self.patience}"
            )
        if not self.learning_rate > 0:
            raise ParameterError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not self.weight_decay >= 0:
            raise ParameterError(f"weight_decay must be at least 0, got {self.weight_decay}")
