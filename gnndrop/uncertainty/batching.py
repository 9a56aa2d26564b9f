"""Several samples in one forward pass: copies of the graph side by side, in one disconnected graph.

Blocks have the masks of their samples (`gnndrop.masks.spread`), so that nothing but rounding tells
them from passes of their own. Whether a model keeps the blocks apart is not guessed but tried.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

# Nodes, edges and stored features of all copies together, measured: beyond, what a step writes is
# no longer in the cache when the next one reads it, which costs more than the calls that it saves.
MOST_NODES = 1 << 14
MOST_EDGES = 1 << 16
MOST_FEATURES = 1 << 19
# How far the outputs of a block may lie from those of a pass of its own, relative to the distance
# of two samples, beside the rounding of the outputs themselves: sums of float32 in another order.
ROUNDING = 1e-4


def copies_that_pay(inputs: Sequence[Any], samples: int) -> int:
    """Return how many samples to compute at once; 1 where the inputs do not say what they are.

    A divisor of the number of samples, if a good one is among the numbers that pay.

    Example:
        >>> graph = torch.ones(1000, 4), torch.zeros(2, 5000, dtype=torch.int64)
        >>> copies_that_pay(graph, 1000), copies_that_pay(graph, 997)
        (10, 13)
    """
    if not _is_graph(inputs):
        return 1
    x, edges = inputs[0], int(inputs[1].size(1))
    features: int = x.numel() if x.layout == torch.strided else x.values().numel()
    sizes = (MOST_NODES, len(x)), (MOST_EDGES, edges), (MOST_FEATURES, features)
    most: int = max(min(most // max(size, 1) for most, size in sizes), 1)
    return next((copies for copies in range(most, most // 2, -1) if samples % copies == 0), most)


def replicate(inputs: Sequence[Any], copies: int) -> tuple[Any, ...] | None:
    """Return the inputs of so many copies side by side; None where it is not known how.

    Args:
        inputs: node features (dense or CSR), `edge_index`, then any of edge weights or attributes
            (floating, a row for each edge), features of nodes, and the graph of each node (int64).
        copies: the number of copies.

    Example:
        >>> graph = torch.eye(2), torch.tensor([[0], [1]])
        >>> replicate(graph, 2)[1].tolist()
        [[0, 2], [1, 3]]
    """
    if not _is_graph(inputs):
        return None
    x, edge_index, *rest = inputs
    nodes, edges = len(x), edge_index.size(1)
    steps = torch.arange(copies, device=edge_index.device)
    replicated: list[Tensor | None] = [_stack(x, copies), _shift(edge_index, steps * nodes)]
    for value in rest:
        if value is None:
            replicated.append(None)
        elif not isinstance(value, Tensor) or value.layout != torch.strided or not value.dim():
            return None
        elif value.is_floating_point() and len(value) in (nodes, edges):
            replicated.append(_stack(value, copies))
        elif value.dtype == torch.int64 and value.shape == (nodes,):
            replicated.append(_shift(value, steps * (int(value.max()) + 1 if nodes else 0)))
        else:
            return None
    return tuple(replicated)


def agree(block: Any, alone: Any, other: Any) -> bool:
    """Whether a block's outputs are those of a pass of its own, to rounding.

    Args:
        block: the outputs of a block.
        alone: those of the same sample, computed alone.
        other: those of another sample: what is small beside their distance is rounding.

    Example:
        >>> agree(torch.tensor([9.0, 9.2]), torch.tensor([9.0, 9.1]), torch.tensor([9.0, 9.0]))
        False
    """
    if not (isinstance(block, Tensor) and block.shape == alone.shape and block.numel()):
        return False
    spread = (alone - other).abs().max()
    rounding = 32 * torch.finfo(alone.dtype).eps * alone.abs().max()
    return bool((block - alone).abs().max() <= ROUNDING * spread + rounding)


def _is_graph(inputs: Sequence[Any]) -> bool:
    if len(inputs) < 2 or not all(isinstance(value, Tensor) for value in inputs[:2]):
        return False
    x, edge_index = inputs[:2]
    return (
        x.layout in (torch.strided, torch.sparse_csr)
        and x.dim() == 2
        and x.is_floating_point()
        and not isinstance(edge_index, EdgeIndex)
        and edge_index.layout == torch.strided
        and edge_index.dtype == torch.int64
        and edge_index.dim() == 2
        and edge_index.size(0) == 2
    )


def _shift(values: Tensor, steps: Tensor) -> Tensor:
    """Repeat the last axis, adding one step to each copy."""
    return (values[..., None, :] + steps[:, None]).flatten(-2)


def _stack(values: Tensor, copies: int) -> Tensor:
    """Repeat the first axis."""
    if values.layout == torch.strided:
        return values.repeat(copies, *[1] * (values.dim() - 1))
    pointer, columns = values.crow_indices(), values.col_indices()
    steps = torch.arange(copies, device=pointer.device, dtype=pointer.dtype) * len(columns)
    pointers = torch.cat([_shift(pointer[:-1], steps), steps[-1:] + len(columns)])
    return torch.sparse_csr_tensor(
        pointers,
        columns.repeat(copies),
        values.values().repeat(copies),
        (len(values) * copies, values.size(1)),
        check_invariants=False,
    )
