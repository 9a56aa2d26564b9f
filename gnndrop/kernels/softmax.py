"""The attention of GAT: a softmax over the edges of every target, with some of them dropped."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import Graph
from gnndrop.kernels import reference
from gnndrop.kernels._dispatch import backend, call
from gnndrop.masks import Mask


def attention(
    graph: Graph,
    source: Tensor,
    target: Tensor,
    slope: float = 0.2,
    mask: Mask | None = None,
    symmetric: bool = False,
    protect_self_loops: bool = False,
) -> Tensor:
    r"""Return the attention of every edge and head.

    $\alpha_{eh} \propto m_{eh} \exp \mathrm{LeakyReLU}(s_{jh} + t_{ih})$ for $e: j \to i$,
    normalized over the edges of i; a target that loses all of them has none.

    Source: Veličković et al., "Graph attention networks" (ICLR 2018).

    Args:
        graph: the graph.
        source: shape (num_sources, H), the scores $s$.
        target: shape (num_targets, H), the scores $t$.
        slope: of the leaky ReLU; default 0.2.
        mask: by any of edge and head; by default nothing is dropped. Its scale plays no part.
        symmetric: whether both directions of an edge share their coins.
        protect_self_loops: keep the edges from a node to itself.

    Returns:
        Shape (E, H), differentiable by both scores to any order.

    Raises:
        ParameterError: if the scores do not have such shapes.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1], [1, 1]]))
        >>> attention(graph, torch.zeros(2, 1), torch.zeros(2, 1)).tolist()
        [[0.5], [0.5]]
    """
    heads = source.size(-1)
    if source.shape != (graph.num_sources, heads) or target.shape != (graph.num_targets, heads):
        raise ParameterError(
            f"the scores must have shapes ({graph.num_sources}, heads) and ({graph.num_targets}, "
            f"heads), got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    softmax = _Softmax(graph, slope, mask, symmetric, protect_self_loops)
    return call(_Attention, source, target, softmax)


class _Softmax(NamedTuple):
    """Everything but the scores."""

    graph: Graph
    slope: float
    mask: Mask | None
    symmetric: bool
    protect_self_loops: bool

    def of(self, kernels: Any, source: Tensor, target: Tensor) -> Tensor:
        places = None if self.mask is None else self.graph.places(self.symmetric)
        rest = self.slope, places, self.mask, self.protect_self_loops
        result: Tensor = kernels.attention(self.graph.by_target, source, target, *rest)
        return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, target: Tensor, softmax: _Softmax) -> Tensor:
        alpha = softmax.of(backend(source), source, target)
        ctx.save_for_backward(source, target, alpha)
        ctx.softmax = softmax
        return alpha

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        source, target, alpha = ctx.saved_tensors
        softmax, kernels = ctx.softmax, backend(source)
        if torch.is_grad_enabled() or kernels is reference:
            return (*_derivatives(softmax, source, target, gradients[0]), None)
        sources, targets = kernels.attention_derivative(
            softmax.graph.by_target,
            softmax.graph.by_source,
            source,
            target,
            softmax.slope,
            alpha,
            gradients[0],
        )
        return sources, targets, None


def _derivatives(
    softmax: _Softmax, source: Tensor, target: Tensor, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    """Differentiate the reference, which can be differentiated again."""
    needed = [scores.requires_grad for scores in (source, target)]
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        alpha = softmax.of(reference, source, target)
    inputs = [scores for scores in (source, target) if scores.requires_grad]
    found = iter(torch.autograd.grad(alpha, inputs, gradient, create_graph=create_graph))
    return tuple(next(found) if is_needed else None for is_needed in needed)
