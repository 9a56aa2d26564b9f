"""A fixed number of edges, drawn without replacement; each has a clock, and the first ones stay.

The clocks are exponential with the edges' weights as their rates: the first k of them to ring are
distributed as k edges drawn one by one, each with probability proportional to its weight. They
follow from the edges' coordinates, so that the sets for different k are nested.

Source: Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (Inf. Process. Lett.
2006).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.masks import Mask, row_key

MAX_ENUMERATED = 12


class Pool(NamedTuple):
    """The edges to draw from: both directions of an edge are one where symmetric.

    Args:
        first: int64 of shape (m,), one edge for each of what is drawn from.
        place: int64 of shape (E,), which of them every edge is; -1 for those that always stay.
        coordinates: int64 of shape (m,), theirs.
    """

    first: Tensor
    place: Tensor
    coordinates: Tensor


def make_pool(edge_index: Tensor, symmetric: bool, keeps_loops: bool) -> Pool:
    """Return the pool of a graph.

    Example:
        >>> make_pool(torch.tensor([[0, 1, 1], [1, 0, 1]]), True, True).place.tolist()
        [0, 0, -1]
    """
    graph = Graph(edge_index)
    coordinates = graph.coordinates(symmetric)
    places = torch.arange(len(coordinates), device=coordinates.device)
    drawn = places[~graph.is_loop] if keeps_loops else places
    known, inverse = torch.unique(coordinates[drawn], return_inverse=True)
    place = torch.full_like(places, -1).index_copy_(0, drawn, inverse)
    first = known.new_full((len(known),), len(places)).scatter_reduce_(0, inverse, drawn, "amin")
    return Pool(first, place, known)


def kept_count(pool: Pool, p: float) -> int:
    """Return how many of a pool are kept at a rate of dropping: the nearest whole number.

    Example:
        >>> kept_count(make_pool(torch.tensor([[0, 1, 2], [1, 2, 3]]), False, True), 0.4)
        2
    """
    return round(len(pool.first) * (1 - p))


def select(pool: Pool, mask: Mask, weight: Tensor | None = None) -> Tensor:
    """Return which edges stay, boolean of shape (E,): a fixed number of the pool, and the others.

    Args:
        pool: what to draw from.
        mask: its rate and key.
        weight: positive, float64 of shape (m,); by default all alike.

    Example:
        >>> pool = make_pool(torch.tensor([[0, 1, 2, 2], [1, 2, 3, 2]]), False, True)
        >>> [int(select(pool, Mask(key=0, p=p)).sum()) for p in (0.0, 0.4, 1.0)]
        [4, 3, 1]
    """
    count = kept_count(pool, mask.p)
    bits = (row_key(mask.key, pool.coordinates) >> 11) & ((1 << 53) - 1)  # as many as a double has
    clock = -torch.log((bits.double() + 0.5) / (1 << 53))
    if weight is not None:
        clock = clock / weight
    stays = torch.zeros_like(clock, dtype=torch.bool)
    if count:
        stays = clock <= clock.kthvalue(count).values
    return torch.cat([stays, stays.new_ones(1)])[pool.place]


def selection_means(pool: Pool, p: float, weight: Tensor | None = None) -> Tensor:
    """Return how likely every edge stays, float64 of shape (E,).

    With weights, by a sum over all sets of edges, in the order in which they may be drawn.

    Raises:
        ParameterError: if there are weights and more than 12 edges to draw from.

    Example:
        >>> pool = make_pool(torch.tensor([[0, 1], [1, 2]]), False, True)
        >>> selection_means(pool, 0.5).tolist()
        [0.5, 0.5]
    """
    total, count = len(pool.first), kept_count(pool, p)
    means = torch.full((total,), count / max(total, 1), dtype=torch.float64)
    if weight is not None:
        if total > MAX_ENUMERATED:
            raise ParameterError(
                f"the exact rates of weighted edges need {MAX_ENUMERATED} edges at most, "
                f"got {total}; take a smaller graph"
            )
        means = torch.tensor(_enumerated_means(weight.tolist(), count), dtype=torch.float64)
    return torch.cat([means, means.new_ones(1)])[pool.place]


def _enumerated_means(weight: list[float], count: int) -> list[float]:
    """Follow every way to draw `count` of the weights one by one."""
    sets = {frozenset[int](): 1.0}
    for _ in range(count):
        grown: dict[frozenset[int], float] = {}
        for drawn, probability in sets.items():
            left = [one for one in range(len(weight)) if one not in drawn]
            rest = sum(weight[one] for one in left)
            for one in left:
                larger = drawn | {one}
                share = probability * weight[one] / rest
                grown[larger] = grown.get(larger, 0.0) + share
        sets = grown
    return [
        sum(probability for drawn, probability in sets.items() if one in drawn)
        for one in range(len(weight))
    ]
