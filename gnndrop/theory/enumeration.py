"""All masks of a few coins, with their probabilities: expectations without sampling."""

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.masks import check_rate

MAX_COINS = 16


def masks(coins: int, p: float) -> tuple[Tensor, Tensor]:
    """Return every outcome of independent coins.

    Args:
        coins: their number n, at most 16.
        p: the rate at which a coin drops, in [0, 1].

    Returns:
        The outcomes, 1 where kept and 0 where dropped, float64 of shape (2^n, n), and their
        probabilities, shape (2^n,).

    Raises:
        ParameterError: if there are more coins, or `p` is no rate.

    Example:
        >>> outcomes, probabilities = masks(2, 0.25)
        >>> outcomes.tolist(), probabilities.tolist()
        ([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], [0.0625, 0.1875, 0.1875, 0.5625])
    """
    if not 0 <= coins <= MAX_COINS:
        raise ParameterError(
            f"all masks can be listed of 0 to {MAX_COINS} coins, got {coins}; take a smaller case"
        )
    p = check_rate(p)
    bits = torch.arange(2**coins)[:, None] >> torch.arange(coins - 1, -1, -1)
    outcomes = (bits & 1).double()
    return outcomes, (outcomes * (1 - p) + (1 - outcomes) * p).prod(1)
