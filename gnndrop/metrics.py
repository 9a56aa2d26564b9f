"""The metrics of node classification, as pure functions of logits and labels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from gnndrop.errors import ParameterError


def accuracy(logits: Tensor, y: Tensor) -> float:
    """Return the share of nodes whose highest logit is their label's.

    Args:
        logits: shape (N, C).
        y: int64 of shape (N,).

    Returns:
        A number in [0, 1]; nan where N = 0.

    Example:
        >>> accuracy(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        0.5
    """
    return int((logits.argmax(1) == y).sum()) / len(y) if len(y) else math.nan


def roc_auc(logits: Tensor, y: Tensor) -> float:
    """Return the area under the ROC curve of a binary classification.

    The probability that a node of class 1 has a higher score (logit 1 minus logit 0) than one of
    class 0; ties count half.

    Args:
        logits: shape (N, 2).
        y: int64 of shape (N,), in {0, 1}, both present.

    Raises:
        ParameterError: if there are not two classes, 0 and 1, or one of them is missing.

    Example:
        >>> roc_auc(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 0]))
        1.0
    """
    from sklearn.metrics import roc_auc_score  # only where the metric asks for it

    labels = torch.unique(y).tolist()
    if logits.size(1) != 2 or labels != [0, 1]:
        raise ParameterError(
            "ROC AUC needs two outputs and the labels 0 and 1, both present, "
            f"got {logits.size(1)} outputs and labels {labels}"
        )
    scores = (logits[:, 1] - logits[:, 0]).detach().cpu().double().numpy()
    return float(roc_auc_score(y.cpu().numpy(), scores))


METRICS: dict[str, Callable[[Tensor, Tensor], float]] = {"accuracy": accuracy, "roc_auc": roc_auc}
