"""What theory says of dropout, one concept per file, and measurements that hold it to that.

    layer         the moments of a linear layer under an operator, from its declaration
    linear        that layer, with a place for every kind of operator
    adjacency     the expectation of a normalized adjacency whose edges are dropped, and its powers
    penalty       dropout of a linear model's inputs is an L2 penalty
    gap           E[g(a)] - g(E[a]): what evaluation without dropout misses of training with it
    ensemble      the geometric mean of all subnetworks
    gradient      the expected gradient through a dropped activation
    measurement   theory and measurement of one quantity, side by side
    measured      the measurements of all this; `gnndrop.testing` has those of `layer`

What dropout does to batch normalization is in `gnndrop.batch_norm`, how to initialize for it in
`gnndrop.init`.
"""

from gnndrop.theory.adjacency import (
    expected_power,
    hop_distance,
    row_drop_agg,
    row_drop_edge,
    row_remove_node,
    sensitivity,
    symmetric_drop_edge,
)
from gnndrop.theory.ensemble import geometric_mean, subnetworks
from gnndrop.theory.gap import output_moments, train_test_gap
from gnndrop.theory.gradient import expected_gradient, relu_gradient_variance
from gnndrop.theory.layer import (
    coins,
    expected_output,
    expected_two_layers,
    moments,
    output_covariance,
    product_variance,
)
from gnndrop.theory.measurement import Measurement
from gnndrop.theory.penalty import dropout_penalty, dropout_weights

__all__ = [
    "Measurement",
    "coins",
    "dropout_penalty",
    "dropout_weights",
    "expected_gradient",
    "expected_output",
    "expected_power",
    "expected_two_layers",
    "geometric_mean",
    "hop_distance",
    "moments",
    "output_covariance",
    "output_moments",
    "product_variance",
    "relu_gradient_variance",
    "row_drop_agg",
    "row_drop_edge",
    "row_remove_node",
    "sensitivity",
    "subnetworks",
    "symmetric_drop_edge",
    "train_test_gap",
]
