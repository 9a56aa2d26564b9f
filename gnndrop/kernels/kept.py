"""The graph that an edge mask leaves: listed row by row, never built anew nor sorted."""

from functools import cached_property
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Compressed, Graph
from gnndrop.kernels._dispatch import backend, call
from gnndrop.masks import Mask


class Kept:
    """The kept edges of a graph under a mask by edge.

    Nothing is differentiable by the weights: they are taken as constants.

    Args:
        graph: the graph.
        mask: by edge; kept edges have their weight times its scale.
        symmetric: whether both directions of an edge share their coins.
        protect_self_loops: keep, and do not scale, the edges from a node to itself.
        weight: shape (E,), a factor per edge; by default ones.
        dtype: of the factors and of what is aggregated; by default that of `weight`, or torch's.
        chosen: boolean of shape (E,), which edges to keep, in the place of the mask's coins;
            `symmetric` then says that it is the same for both directions of an edge.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> kept = Kept(graph, Mask(key=0, p=1.0), protect_self_loops=True)
        >>> kept.inverse_degree(is_root=False).tolist()
        [0.0, 1.0]
    """

    def __init__(
        self,
        graph: Graph,
        mask: Mask,
        symmetric: bool = False,
        protect_self_loops: bool = False,
        weight: Tensor | None = None,
        dtype: torch.dtype | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        self.chosen = chosen
        self.graph, self.mask, self.symmetric = graph, mask, symmetric
        self.protect_self_loops = protect_self_loops
        if dtype is None:
            dtype = torch.get_default_dtype() if weight is None else weight.dtype
        self.dtype = dtype
        self.weight = None if weight is None else weight.detach().to(dtype)

    def rows(self, transposed: bool = False) -> tuple[Compressed, Tensor | None]:
        """Return the kept edges by target or, transposed, by source; and their factors, if any."""
        is_own_transpose = self.symmetric and self.weight is None and self.graph.is_undirected
        return self._by_source if transposed and not is_own_transpose else self._by_target

    @cached_property
    def _by_target(self) -> tuple[Compressed, Tensor | None]:
        return self._list(transposed=False)

    @cached_property
    def _by_source(self) -> tuple[Compressed, Tensor | None]:
        return self._list(transposed=True)

    def _list(self, transposed: bool) -> tuple[Compressed, Tensor | None]:
        graph = self.graph
        places, mask = None, self.mask
        if self.chosen is None:
            places, mask = graph.coins(mask, self.symmetric, transposed)
        listed: tuple[Compressed, Tensor | None] = self._kernels.list_kept(
            graph.rows(transposed),
            places,
            mask,
            self.protect_self_loops,
            self.weight,
            self.dtype,
            self.chosen,
        )
        return listed

    @property
    def _kernels(self) -> ModuleType:
        return backend(self.graph.edge_index.new_empty(0, dtype=self.dtype))

    def inverse_degree(self, is_root: bool) -> Tensor:
        """Return $d^{-1/2}$ of every target's degree where `is_root`, else one over its count.

        The factors of GCN's normalization and of a mean: shape (num_targets,), 0 for a target
        without edges.
        """
        rows, factors = self.rows()
        weight = factors if is_root else None
        scale: Tensor = self._kernels.inverse_degrees(rows, weight, is_root, self.dtype)
        return scale


def aggregate_kept(
    kept: Kept, x: Tensor, left: Tensor | None = None, right: Tensor | None = None
) -> Tensor:
    r"""Sum the rows of kept edges: $y_{ic} = l_i \sum_{e: j \to i} m_e w_e r_j x_{jc}$.

    Args:
        kept: the kept edges, with their weights $w$.
        x: shape (num_sources, C), of the weights' dtype.
        left: shape (num_targets,), by default ones.
        right: shape (num_sources,), by default ones.

    Returns:
        Shape (num_targets, C), differentiable by `x` to any order; `left` and `right`, which
        follow from the degrees, are constants.

    Raises:
        ParameterError: if `x` has another shape or dtype.

    Example:
        >>> kept = Kept(Graph(torch.tensor([[0, 1], [1, 0]])), Mask(key=0, p=0.0))
        >>> aggregate_kept(kept, torch.tensor([[1.0], [2.0]])).tolist()
        [[2.0], [1.0]]
    """
    if x.dim() != 2 or len(x) != kept.graph.num_sources or x.dtype != kept.dtype:
        raise ParameterError(
            f"x must be a {kept.dtype} matrix of {kept.graph.num_sources} rows, "
            f"got {x.dtype} of shape {tuple(x.shape)}"
        )
    return call(_AggregateKept, x, kept, left, right, False)


class _AggregateKept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kept: Kept, left: Tensor | None, right: Tensor | None, transposed: bool
    ) -> Tensor:
        ctx.arguments = kept, left, right, transposed
        rows, factors = kept.rows(transposed)
        weight = None if factors is None else factors[:, None]
        result: Tensor = backend(x).aggregate(rows, x, weight, None, None, left, right)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept, left, right, transposed = ctx.arguments
        gradient = call(_AggregateKept, gradients[0], kept, right, left, not transposed)
        return gradient, None, None, None, None
