"""The kernels in plain torch: the definition that the compiled ones must repeat.

They run on any device and dtype; the mask is materialised here, never in the compiled form.
"""

import torch
from torch import Tensor

from gnndrop.graph import Compressed
from gnndrop.masks import (
    Mask,
    fractions,
    gaussian_deviation,
    keep,
    mask_bits,
    normals,
    spread_rows,
)

LARGEST_LOGIT = 80.0  # of a rate so near to 1 that float32 still holds 1/(1-p)


def multiply(
    x: Tensor, rows: Tensor | None, mask: Mask, shift: float = 0.0, dropped: float = 0.0
) -> Tensor:
    """Mask a matrix: `x` of shape (R, C), row coordinates of shape (R,) or None for 0..R-1.

    A kept entry is scaled and shifted, a dropped one replaced.
    """
    if mask.keys:
        rows, mask = spread_rows(mask, x.size(0), x.device)
    if rows is None:
        rows = torch.arange(x.size(0), device=x.device)
    columns = torch.arange(x.size(1), device=x.device)
    kept = keep(mask, rows[:, None], columns)
    return torch.where(kept, x * mask.scale + shift, dropped)


def multiply_in_place(x: Tensor, mask: Mask) -> Tensor:
    """Mask a contiguous matrix in its own memory: see `multiply`."""
    return x.copy_(multiply(x, None, mask))


def multiply_csr(
    pointer: Tensor,
    columns: Tensor,
    values: Tensor,
    mask: Mask,
    words: Tensor | None = None,
) -> Tensor:
    """Mask the stored entries of a CSR matrix of R rows.

    Args:
        pointer: shape (R + 1,).
        columns: shape (n,).
        values: shape (n,).
        mask: the mask.
        words: the hash's words of `columns`, where they are known: `Graph.source_words`.
    """
    places = torch.repeat_interleave(pointer.diff()).long()
    if mask.keys:
        rows, mask = spread_rows(mask, len(pointer) - 1, values.device)
        places = rows[places]
    kept = keep(mask, places, columns.long())
    return torch.where(kept, values * mask.scale, values.new_zeros(()))


def list_kept(
    rows: Compressed,
    places: Tensor | None,
    mask: Mask,
    protect_self_loops: bool,
    weight: Tensor | None,
    dtype: torch.dtype,
    chosen: Tensor | None = None,
) -> tuple[Compressed, Tensor | None]:
    """List the edges that a mask by edge keeps, with their factors.

    Args:
        rows: the grouping, R rows over E edges.
        places: int64 of shape (E,), the edges' coordinates, in the order of the rows; needed where
            `chosen` is not given.
        mask: by edge.
        protect_self_loops: keep, and do not scale, the edges from a node to itself.
        weight: shape (E,), a factor per edge, or None for ones.
        dtype: of the factors.
        chosen: boolean of shape (E,), which edges to keep, in the place of the mask's coins.

    Returns:
        The same rows with the kept edges alone, in the order of their own, and the factors in that
        order; None where they are all one.
    """
    targets = torch.repeat_interleave(rows.pointer.diff())
    if chosen is not None:
        kept = rows.arrange(chosen)
    else:
        assert places is not None, "edges without coordinates have no coins"
        kept = keep(mask, places, places)
    scale = torch.full_like(targets, mask.scale, dtype=dtype)
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


def inverse_degrees(
    rows: Compressed, weight: Tensor | None, is_root: bool, dtype: torch.dtype
) -> Tensor:
    """Return $d^{-1}$, or $d^{-1/2}$ where `is_root`, of every row's degree; 0 where that is 0.

    Args:
        rows: the grouping, R rows over E edges.
        weight: shape (E,), factors in the order of the rows, whose sums are the degrees; None for
            ones.
        is_root: which of the two.
        dtype: of the result.

    Returns:
        Shape (R,).
    """
    counts = rows.ends - rows.pointer[:-1]
    degree = counts.to(dtype)
    if weight is not None:
        targets = torch.repeat_interleave(counts)
        degree = torch.zeros_like(degree).index_add_(0, targets, weight)
    return degree.pow(-0.5 if is_root else -1.0).masked_fill(degree <= 0, 0)


def aggregate(
    rows: Compressed,
    x: Tensor,
    weight: Tensor | None,
    places: Tensor | None,
    mask: Mask | None,
    left: Tensor | None = None,
    right: Tensor | None = None,
    bias: Tensor | None = None,
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
        bias: shape (H * C,), added to every sum; None for nothing.

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
    sums = sums if left is None else sums * left[:, None]
    return sums if bias is None else sums + bias


def rectify(x: Tensor) -> Tensor:
    """Set what is below zero to zero, in place; return which entries were not, NaN among them."""
    is_kept = ~(x <= 0)
    x.relu_()
    return is_kept


def select(x: Tensor, is_kept: Tensor) -> Tensor:
    """Return the entries that are kept, and zeros in the place of the others."""
    return torch.where(is_kept, x, 0)


def attention(
    rows: Compressed,
    source: Tensor,
    target: Tensor,
    slope: float,
    places: Tensor | None,
    mask: Mask | None,
    protect_self_loops: bool,
) -> Tensor:
    """Softmax of leaky scores over the kept edges of every row and head.

    Args:
        rows: the grouping, R rows over E edges.
        source: shape (N, H), the scores at the other end.
        target: shape (R, H), the scores at the row's.
        slope: the factor of negative sums.
        places: as in `aggregate`.
        mask: by any of edge and head, or None; a dropped edge has no share, and a row that loses
            all of its edges has none to give.
        protect_self_loops: keep the edges from a node to itself.

    Returns:
        Shape (E, H), in the order of the edges.
    """
    ends = torch.repeat_interleave(rows.pointer.diff())
    scores = torch.nn.functional.leaky_relu(source[rows.other] + target[ends], slope)
    if mask is not None and places is not None:
        heads = torch.arange(source.size(1), device=source.device)
        kept = keep(mask, places[:, None], heads).expand_as(scores)
        if protect_self_loops:
            kept = kept | (rows.other == ends)[:, None]
        scores = scores.masked_fill(~kept, -torch.inf)
    index = ends[:, None].expand_as(scores)
    largest = target.new_full(target.shape, -torch.inf).scatter_reduce(0, index, scores, "amax")
    largest = largest.detach().masked_fill(largest == -torch.inf, 0)
    shares = (scores - largest[ends]).exp()
    totals = torch.zeros_like(target).index_add(0, ends, shares)
    shares = shares / totals.masked_fill(totals == 0, 1)[ends]
    if rows.order is None:
        return shares
    return torch.empty_like(shares).index_copy(0, rows.order, shares)


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


def multiply_gaussian(x: Tensor, mask: Mask) -> Tensor:
    """Multiply a matrix of shape (R, C) by factors from N(1, p/(1-p)) in the place of coins."""
    rows, columns = _coordinates(x)
    return _gaussian(x, mask_bits(mask, rows, columns), mask)


def multiply_gaussian_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Multiply the stored entries of a CSR matrix likewise."""
    rows = torch.repeat_interleave(pointer.diff())
    return _gaussian(values, mask_bits(mask, rows.long(), columns.long()), mask)


def uniforms(like: Tensor, mask: Mask, rows: Tensor | None = None) -> Tensor:
    """Return the uniform number of every entry of a matrix: its shape, dtype and device."""
    counted, columns = _coordinates(like)
    numbers = fractions(mask_bits(mask, counted if rows is None else rows[:, None], columns))
    return numbers.to(like.dtype).expand(like.shape)


def uniforms_csr(pointer: Tensor, columns: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Return those of the stored entries of a CSR matrix, of the shape and dtype of `values`."""
    rows = torch.repeat_interleave(pointer.diff())
    numbers = fractions(mask_bits(mask, rows.long(), columns.long()))
    return numbers.to(values.dtype).expand(values.shape)


def relax(numbers: Tensor, logit: Tensor, temperature: float, is_scaled: bool) -> Tensor:
    r"""Return relaxed coins $z = \sigma((\mathrm{logit}\, u - \mathrm{logit}\, p) / t)$.

    Differentiable by the logit, to any order.

    Args:
        numbers: u, uniform in (0, 1).
        logit: that of p, broadcast against `numbers`.
        temperature: t.
        is_scaled: divide by 1-p.
    """
    relaxed = ((numbers.logit() - logit) / temperature).sigmoid()
    return relaxed * inverse_keep(logit) if is_scaled else relaxed


def inverse_keep(logit: Tensor) -> Tensor:
    """Return 1/(1-p) of p's logit: finite, also where p is 1 to all digits."""
    return 1 + logit.clamp(max=LARGEST_LOGIT).exp()


def multiply_relaxed(
    x: Tensor, numbers: Tensor, logit: Tensor, temperature: float, is_scaled: bool
) -> Tensor:
    """Multiply by relaxed coins; the numbers, of the shape of `x`, may be overwritten."""
    return x * relax(numbers, logit, temperature, is_scaled)


def relaxed_derivatives(
    x: Tensor,
    gradient: Tensor,
    numbers: Tensor,
    logit: Tensor,
    temperature: float,
    is_scaled: bool,
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of `multiply_relaxed` by `x` and by the logit, a scalar."""
    relaxed = relax(numbers, logit, temperature, False)
    scale = inverse_keep(logit) if is_scaled else torch.ones_like(logit)
    by_logit = gradient * x * relaxed * (scale - 1 - scale / temperature * (1 - relaxed))
    return gradient * (relaxed * scale), by_logit.sum()


def _coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.arange(x.size(0), device=x.device)
    return rows[:, None], torch.arange(x.size(1), device=x.device)


def _gaussian(values: Tensor, bits: Tensor, mask: Mask) -> Tensor:
    if mask.drops_all:
        return torch.zeros_like(values)
    factor = 1 + gaussian_deviation(mask.p) * normals(bits).to(values.dtype)
    return values * factor
