"""The sums over samples of `gnndrop.uncertainty`, compiled by numba: one pass, without copies.

Loaded by who computes alone, as all that needs numba.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, assignment"
# numba infers the types at the first call; annotations would be ignored.

import numpy as np
from torch import Tensor

from gnndrop.kernels._compiled import _jit
from gnndrop.kernels._threads import share
from gnndrop.kernels.cpu import _array, _even

_BLOCK = np.uint64(512)  # columns whose sums stay in the first cache from row to row


@_jit
def _add_samples(values, factors, first, sums, squares, products, start, stop):
    for block in range(np.uint64(start), np.uint64(stop), _BLOCK):
        end = min(block + _BLOCK, np.uint64(stop))
        for r in range(np.uint64(len(values))):
            for c in range(block, end):
                deviation = np.float64(values[r, c]) - first[c]
                sums[c] += deviation
                squares[c] += deviation * deviation
            if len(factors):
                for c in range(block, end):
                    products[c] += np.float64(values[r, c]) * np.float64(factors[r, c])


def add_samples(
    values: Tensor,
    factors: Tensor | None,
    first: Tensor,
    sums: Tensor,
    squares: Tensor,
    products: Tensor,
) -> None:
    """Add samples along the first axis to sums, in place: see `gnndrop.uncertainty.moments`.

    Args:
        values: float32 or float64 of shape (S, ...), on the CPU and without derivatives.
        factors: likewise, or None.
        first: float64 of shape (...), contiguous; the values differ from it by deviations.
        sums: likewise, of the deviations.
        squares: likewise, of their squares.
        products: likewise, of values and factors.

    Example:
        >>> import torch
        >>> sums, squares, products = torch.zeros(3, 1, dtype=torch.float64)
        >>> values = torch.tensor([[3.0], [5.0]])
        >>> add_samples(values, values, torch.ones_like(sums), sums, squares, products)
        >>> sums.item(), squares.item(), products.item()
        (6.0, 20.0, 34.0)
    """
    size = first.numel()
    others = values[:0] if factors is None else factors
    samples = (_array(part).reshape(len(part), size) for part in (values, others))
    outputs = (array.numpy().reshape(-1) for array in (first, sums, squares, products))
    share(_add_samples, (*samples, *outputs), _even(size, values.numel()))
