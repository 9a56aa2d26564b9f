"""Reading a graph through PyG's own dataset class."""

import contextlib
import io
import warnings
from collections.abc import Callable
from typing import Any

from torch_geometric.data import Data

from gnndrop.datasets.splits import Split


def read_pyg(make: Callable[[], Any]) -> tuple[Data, list[Split]]:
    """Construct a PyG dataset in silence and return its graph and its published splits.

    PyG stores one split as masks `[nodes]` and several as `[nodes, splits]`; one test mask may
    serve several splits.

    Args:
        make: constructs the dataset, in a folder that is ours.
    """
    # PyG reports its processing on stderr unasked, and unpickling these old files warns about
    # names that numpy and scipy have moved since.
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = make()[0]
    masks = [
        mask.reshape(data.num_nodes, -1).bool().t()
        for mask in (data.train_mask, data.val_mask, data.test_mask)
    ]
    count = max(map(len, masks))
    each = (mask.expand(count, -1).contiguous() for mask in masks)
    return data, [Split(*three) for three in zip(*each, strict=True)]
