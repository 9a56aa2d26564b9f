"""What models are called with: features by row sums, sparse where that pays."""

import numpy as np
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from gnndrop.errors import ParameterError
from gnndrop.graph import csr_matrix

# Below this share of stored entries a sparse product is cheaper than a dense one.
SPARSE_DENSITY = 0.2
# The attribute by which `fit` tells what the model was trained on.
NORMALIZES = "normalize_features"


def prepare_inputs(model: nn.Module, data: Data, normalize: bool = True) -> tuple[Tensor, ...]:
    """Return what `fit` calls the model with: features, edges and, where there are any, weights.

    Args:
        model: sparse features are made for models that say `takes_sparse`.
        data: the graph; it is not changed.
        normalize: scale the rows of bag-of-words features to sum one.

    Raises:
        ParameterError: if the data has no floating features.

    Example:
        >>> x = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
        >>> data = Data(x=x, edge_index=torch.empty(2, 0, dtype=torch.int64))
        >>> prepare_inputs(nn.Linear(5, 2), data)[0][0].tolist()
        [0.5, 0.5, 0.0, 0.0, 0.0]
    """
    x = data.x
    if x is None or not x.is_floating_point():
        got = "none" if x is None else x.dtype
        raise ParameterError(
            f"the features x must be floating, got {got}; set data.x, as by data.x.float()"
        )
    x = prepare_features(model, x, normalize)
    weight = data.get("edge_weight")
    return (x, data.edge_index) if weight is None else (x, data.edge_index, weight)


def prepare_features(model: nn.Module, x: Tensor, normalize: bool) -> Tensor:
    """Return dense features as a model takes them: see `prepare_inputs`.

    Example:
        >>> x = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
        >>> prepare_features(nn.Linear(5, 2), x, normalize=False) is x
        True
    """
    places = _nonzero(x)
    density = len(places) / x.numel() if x.numel() else 1.0
    sums = None
    if normalize and density < 0.5 and bool((x.take(places) >= 0).all()):  # bags of words
        sums = x.sum(1).clamp(min=torch.finfo(x.dtype).tiny)
    if getattr(model, "takes_sparse", False) and density < SPARSE_DENSITY:
        return _gather(x, places, sums)
    return x if sums is None else x / sums[:, None]


def _nonzero(x: Tensor) -> Tensor:
    """Return the positions of what is not zero in a matrix laid out row by row."""
    if x.device.type == "cpu" and x.dtype != torch.bfloat16:  # three times as fast as torch's
        return torch.from_numpy(np.flatnonzero(x.detach().numpy() != 0))
    return x.flatten().nonzero()[:, 0]


def _gather(x: Tensor, places: Tensor, divisors: Tensor | None) -> Tensor:
    """Return a CSR matrix with indices of 32 bits, since kernels wait for memory."""
    rows, width = x.shape
    starts = torch.arange(rows + 1, device=x.device) * width
    pointer = torch.searchsorted(places, starts, out_int32=True)
    values = x.take(places)
    if divisors is not None:
        values = values / divisors.repeat_interleave(pointer.diff())
    return csr_matrix(pointer, (places % width).int(), values, x.shape)
