"""Masked products with their derivatives: one dispatch for every backend.

The compiled CPU kernels serve float32 and float64 on the CPU, the torch reference everything else.
Bernoulli masks are bit-equal on all of them. A backward pass recomputes its mask; every derivative
is made of the same products, so derivatives of any order are right.
"""

from gnndrop.kernels.aggregation import aggregate
from gnndrop.kernels.convolution import convolve
from gnndrop.kernels.kept import Kept, aggregate_kept
from gnndrop.kernels.multiplication import masked_multiply, masked_multiply_sparse
from gnndrop.kernels.rectification import rectify
from gnndrop.kernels.softmax import attention

__all__ = [
    "Kept",
    "aggregate",
    "aggregate_kept",
    "attention",
    "convolve",
    "masked_multiply",
    "masked_multiply_sparse",
    "rectify",
]
