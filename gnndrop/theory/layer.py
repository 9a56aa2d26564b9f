r"""Exact moments of a linear layer under an operator, from the operator's declaration.

A linear layer with fixed weights computes $y_{ic} = \sum_{e:j \to i} w_e m(e, c) x_{jc}$. An
operator whose mask is made of independent coins on its axes is determined by *which terms share a
coin*: all moments follow. This file gives each term its coin and sums; `gnndrop.testing` compares
with what the operator does.
"""

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.operators import EdgeOperator, Operator
from gnndrop.operators._base import COLUMN_AXES

# What can be an axis of the layers of `gnndrop.theory.linear`.
AXES = {"node", "edge", "layer", "in", "block"} | COLUMN_AXES
ALWAYS = -1  # the coin of a protected term, which is never dropped nor rescaled


def coins(operator: Operator, graph: Graph, channels: int) -> Tensor:
    """Number the coins of all terms of the layer's sum: equal numbers, equal fate.

    Args:
        operator: an operator of independent coins on node, edge and channel axes.
        graph: the graph of E edges.
        channels: the number C of channels.

    Returns:
        int64 of shape (E, C); -1 where a term is protected.

    Raises:
        ParameterError: if the operator's axes are others.

    Example:
        >>> from gnndrop.operators import DropNode
        >>> coins(DropNode(), Graph(torch.tensor([[0, 0, 1], [1, 2, 2]])), 2).tolist()
        [[0, 0], [0, 0], [2, 2]]
    """
    if not operator.axes or not AXES.issuperset(operator.axes):
        raise ParameterError(
            "the axes must be among node, edge and channel, or stand for one of them, "
            f"got {operator.axes} of {operator.name}"
        )
    rows = torch.zeros_like(graph.source)
    if "node" in operator.axes:  # a branch has its own node's coin, a message that of its source
        rows = graph.target if operator.site == "paths" else graph.source
    elif "edge" in operator.axes:
        symmetric = isinstance(operator, EdgeOperator) and operator.is_symmetric(graph)
        rows = torch.unique(graph.coordinates(symmetric), return_inverse=True)[1]
    has_columns = not COLUMN_AXES.isdisjoint(operator.axes)
    columns = torch.arange(channels) if has_columns else torch.zeros(channels).long()
    if "block" in operator.axes:
        columns = torch.arange(channels) * operator.options["blocks"] // channels
    numbers = rows[:, None] * channels + columns
    if isinstance(operator, EdgeOperator) and operator.protect_self_loops:
        numbers[graph.is_loop] = ALWAYS
    return numbers


def moments(operator: Operator) -> tuple[float, float]:
    """Return mean and variance of the factor that an unprotected term is multiplied by.

    Example:
        >>> from gnndrop.operators import Dropout
        >>> moments(Dropout(p=0.5))
        (1.0, 1.0)
    """
    mean, variance, _ = operator.factor_cumulants
    return mean, variance


def _terms(operator: Operator, graph: Graph, weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the clean terms by coin: shape (coins, N, C), and the protected ones, (N, C)."""
    numbers = coins(operator, graph, x.size(1))
    known, place = torch.unique(numbers, return_inverse=True)
    terms = weight[:, None] * x[graph.source]
    by_coin = x.new_zeros(len(known), graph.num_targets, x.size(1))
    columns = torch.arange(x.size(1)).expand_as(place)
    rows = graph.target[:, None].expand_as(place)
    by_coin.index_put_((place, rows, columns), terms, accumulate=True)
    tossed = known != ALWAYS
    return by_coin[tossed], by_coin[~tossed].sum(0)


def expected_output(operator: Operator, graph: Graph, weight: Tensor, x: Tensor) -> Tensor:
    """Return the exact expectation of the layer's output.

    Args:
        operator: see `coins`.
        graph: the graph.
        weight: shape (E,).
        x: shape (N, C).

    Returns:
        Shape (N, C).

    Example:
        >>> from gnndrop.operators import Dropout
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> expected_output(Dropout(), graph, torch.ones(2), torch.tensor([[1.0], [2.0]])).tolist()
        [[0.0], [3.0]]
    """
    tossed, protected = _terms(operator, graph, weight, x)
    return moments(operator)[0] * tossed.sum(0) + protected


def output_covariance(operator: Operator, graph: Graph, weight: Tensor, x: Tensor) -> Tensor:
    r"""Return the exact covariance of the layer's outputs: $\sigma^2 \sum_g v_g v_g^\top$.

    $v_g$ sums the clean terms that share coin g. Channels are correlated exactly when channel is no
    axis, nodes exactly when edge is none; a symmetric coin correlates the two ends of an edge.

    Args:
        operator: see `coins`.
        graph: the graph.
        weight: shape (E,).
        x: shape (N, C).

    Returns:
        Shape (N * C, N * C).

    Example:
        >>> from gnndrop.operators import Dropout
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> output_covariance(Dropout(), graph, torch.ones(2), x).tolist()
        [[0.0, 0.0], [0.0, 5.0]]
    """
    tossed = _terms(operator, graph, weight, x)[0].flatten(1)
    return moments(operator)[1] * tossed.T @ tossed


def product_variance(operator: Operator, graph: Graph, weight: Tensor, x: Tensor) -> Tensor:
    r"""Return the exact variance of the product of two centred outputs.

    $\kappa_4 \sum_g v_{ga}^2 v_{gb}^2 + C_{aa} C_{bb} + C_{ab}^2$ with the fourth cumulant
    $\kappa_4$ of a factor and the covariance C: the error of a measured covariance.

    Args:
        operator: see `coins`.
        graph: the graph.
        weight: shape (E,).
        x: shape (N, C).

    Returns:
        Shape (N * C, N * C).

    Example:
        >>> from gnndrop.operators import Dropout
        >>> loop = Graph(torch.tensor([[0], [0]]))
        >>> product_variance(Dropout(), loop, torch.ones(1), torch.ones(1, 1)).tolist()
        [[0.0]]
    """
    covariance = output_covariance(operator, graph, weight, x)
    squares = _terms(operator, graph, weight, x)[0].flatten(1) ** 2
    _, _, fourth_cumulant = operator.factor_cumulants
    diagonal = covariance.diagonal()
    return fourth_cumulant * squares.T @ squares + torch.outer(diagonal, diagonal) + covariance**2


def expected_two_layers(operator: Operator, graph: Graph, weight: Tensor, x: Tensor) -> Tensor:
    """Return the exact expectation of two such layers in a row, with their masks as declared.

    Fresh masks give E[A] E[A] x, a mask shared by the layers E[A A] x: two terms of one coin are
    then dropped together.

    Args:
        operator: see `coins`; its `share` decides.
        graph: the graph.
        weight: shape (E,).
        x: shape (N, C).

    Returns:
        Shape (N, C).

    Example:
        >>> from gnndrop.operators import DropEdge
        >>> loop = Graph(torch.tensor([[0], [0]]))
        >>> shared = DropEdge(p=0.5, share="forward", protect_self_loops=False)
        >>> expected_two_layers(shared, loop, torch.ones(1), torch.ones(1, 1)).tolist()
        [[0.5]]
    """
    first = expected_output(operator, graph, weight, x)
    expected = expected_output(operator, graph, weight, first)
    if operator.share == "forward":
        numbers = coins(operator, graph, x.size(1))
        second, one = torch.where(graph.source[:, None] == graph.target)
        together = (numbers[second] == numbers[one]) & (numbers[one] != ALWAYS)
        paths = (weight[second] * weight[one])[:, None] * x[graph.source[one]] * together
        excess = torch.zeros_like(x).index_add_(0, graph.target[second], paths)
        expected = expected + moments(operator)[1] * excess
    return expected
