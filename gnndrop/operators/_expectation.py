r"""The expectation of the entries of a normalized adjacency whose edges have independent coins.

A kept entry is $1/\sqrt{k_i k_j}$ under GCN's symmetric normalization and $1/k_i$ under a mean,
with the numbers k of kept edges, self-loops included. Given that an edge is kept, k is one and the
self-loops of the row and a binomial number of the other edges: its expectation is a finite sum.
Under the symmetric one both ends of an undirected edge count it, and the rest of them are
independent: the expectation is a product.
"""

from typing import Literal

import torch
from scipy.stats import binom
from torch import Tensor

Normalization = Literal["symmetric", "mean"]


def kept_entries(edge_index: Tensor, kept: Tensor, normalization: Normalization) -> Tensor:
    """Return the normalized entries of the kept edges, float64 of shape (E,): zero where dropped.

    Example:
        >>> pair = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])
        >>> kept_entries(pair, torch.tensor([True, True, True, True]), "mean").tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    source, target = edge_index
    size = int(edge_index.max()) + 1 if edge_index.numel() else 0
    factors = kept.double()
    number = factors.new_zeros(size).index_add_(0, target, factors).clamp_(min=1)
    if normalization == "mean":
        return factors / number.index_select(0, target)
    root = number.rsqrt_()
    return factors * root.index_select(0, target) * root.index_select(0, source)


def expected_entries(
    edge_index: Tensor, is_fixed: Tensor, p: float, normalization: Normalization
) -> Tensor:
    """Return the expectation of `kept_entries`, float64 of shape (E,).

    Args:
        edge_index: int64 of shape (2, E); for `symmetric` of a simple undirected graph that has all
            its self-loops.
        is_fixed: boolean of shape (E,), the edges that have no coin: self-loops.
        p: the rate at which the others are dropped, below 1.
        normalization: `symmetric`, or `mean`.

    Example:
        >>> pair = torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])
        >>> expected_entries(pair, pair[0] == pair[1], 0.5, "mean").round(decimals=9).tolist()
        [0.25, 0.25, 0.75, 0.75]
    """
    source, target = edge_index
    size = int(edge_index.max()) + 1 if edge_index.numel() else 0
    fixed = torch.bincount(target[is_fixed], minlength=size)
    tossed = torch.bincount(target[~is_fixed], minlength=size)
    own = _inverse_power(fixed, tossed, p, 1.0)
    if normalization == "mean":
        others = (1 - p) * _inverse_power(fixed + 1, tossed - 1, p, 1.0)
        return torch.where(is_fixed, own[target], others[target])
    root = _inverse_power(fixed + 1, tossed - 1, p, 0.5)
    return torch.where(is_fixed, own[target], (1 - p) * root[target] * root[source])


def _inverse_power(certain: Tensor, trials: Tensor, p: float, power: float) -> Tensor:
    """Return E[(c + Bin(n, 1-p))^-power] for every c and n; 1 where none of them is an edge."""
    pairs, place = torch.unique(torch.stack([certain, trials]), dim=1, return_inverse=True)
    values = []
    for c, n in pairs.T.tolist():
        number = torch.arange(max(n, 0) + 1, dtype=torch.float64)
        probability = torch.from_numpy(binom.pmf(number.numpy(), max(n, 0), 1 - p))
        values.append(float((probability * (c + number).clamp(min=1) ** -power).sum()))
    return torch.tensor(values, dtype=torch.float64, device=certain.device)[place]
