"""The kernels in plain torch: the definition that the compiled ones must repeat.

They run on any device and dtype; the mask is materialised here, never in the compiled form.
"""

import torch
from torch import Tensor

from gnndrop.graph import Compressed
from gnndrop.masks import Mask, keep


def multiply(x: Tensor, rows: Tensor | None, mask: Mask) -> Tensor:
    """Mask a matrix: `x` of shape (R, C), row coordinates of shape (R,) or None for 0..R-1."""
    if rows is None:
        rows = torch.arange(x.size(0), device=x.device)
    columns = torch.arange(x.size(1), device=x.device)
    kept = keep(mask, rows[:, None], columns)
    return torch.where(kept, x * mask.scale, x.new_zeros(()))


def multiply_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Mask the stored entries of a CSR matrix of R rows: pointer (R + 1,), the others (n,)."""
    rows = torch.repeat_interleave(pointer.diff())
    kept = keep(mask, rows.long(), columns.long())
    return torch.where(kept, values * mask.scale, values.new_zeros(()))


def list_kept(
    rows: Compressed,
    places: Tensor,
    mask: Mask,
    protect_self_loops: bool,
    weight: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Compressed, Tensor | None]:
    """List the edges that a mask by edge keeps, with their factors.

    Args:
        rows: the grouping, R rows over E edges.
        places: int64 of shape (E,), the edges' coordinates, in the order of the rows.
        mask: by edge.
        protect_self_loops: keep, and do not scale, the edges from a node to itself.
        weight: shape (E,), a factor per edge, or None for ones.
        dtype: of the factors.

    Returns:
        The same rows with the kept edges alone, in the order of their own, and the factors in that
        order; None where they are all one.
    """
    targets = torch.repeat_interleave(rows.pointer.diff())
    kept = keep(mask, places, places)
    scale = torch.full_like(places, mask.scale, dtype=dtype)
    if protect_self_loops:
        is_loop = rows.other == targets
        kept, scale = kept | is_loop, torch.where(is_loop, 1, scale)
    counts = torch.bincount(targets[kept], minlength=len(rows.pointer) - 1)
    pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(rows.pointer.dtype)
    listed = Compressed(pointer, rows.other[kept], None)
    if weight is None and mask.scale == 1:
        return listed, None
    factors = scale if weight is None else scale * rows.arrange(weight)
    return listed, factors[kept]


def aggregate(
    rows: Compressed,
    x: Tensor,
    weight: Tensor | None,
    places: Tensor | None,
    mask: Mask | None,
    left: Tensor | None = None,
    right: Tensor | None = None,
) -> Tensor:
    """Sum weighted, masked rows of `x` into every row of a compressed graph.

    Args:
        rows: the grouping, R rows over E edges.
        x: shape (N, H * C), the vectors at the other end.
        weight: shape (E, H), one factor per edge and head, or None for ones.
        places: int64 of shape (E,), the edges' coordinates in the order of the rows; needed where
            `mask` is given.
        mask: by any of edge and column, or None.
        left: shape (R,), a factor of every sum; only without a mask and with one head.
        right: shape (N,), a factor of every row of `x`; likewise.

    Returns:
        Shape (R, H * C).
    """
    if right is not None:
        x = x * right[:, None]
    messages = x[rows.other]
    if weight is not None:
        heads = weight.size(1)
        factors = rows.arrange(weight).unsqueeze(2)
        messages = (messages.view(len(messages), heads, -1) * factors).view_as(messages)
    if mask is not None and places is not None:
        messages = multiply(messages, places, mask)
    targets = torch.repeat_interleave(rows.pointer.diff())
    sums = x.new_zeros(len(rows.pointer) - 1, x.size(1)).index_add_(0, targets, messages)
    return sums if left is None else sums * left[:, None]


def edge_products(
    rows: Compressed,
    x: Tensor,
    y: Tensor,
    heads: int,
    places: Tensor | None,
    mask: Mask | None,
) -> Tensor:
    """Sum over the channels of a head the masked product of the vectors at an edge's ends.

    The derivative of `aggregate` by its weights: `x` at the other end, `y` of shape (R, H * C) at
    the row's. Returns shape (E, H), in the order of the edges.
    """
    targets = torch.repeat_interleave(rows.pointer.diff())
    products = x[rows.other] * y[targets]
    if mask is not None and places is not None:
        products = multiply(products, places, mask)
    summed = products.view(len(products), heads, -1).sum(2)
    if rows.order is None:
        return summed
    return torch.empty_like(summed).index_copy_(0, rows.order.long(), summed)
