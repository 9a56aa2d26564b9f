"""What a graph of one's own must be, checked in words that tell what to do."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import to_undirected

from gnndrop.datasets.splits import Split
from gnndrop.errors import ParameterError

# The identity is as dense as any x: 100 MB for so many nodes.
IDENTITY_NODES = 5000
PARTS = Split._fields


def check_edges(edges: object, nodes: int) -> Tensor:
    """Return `edge_index` as int64 `[2, edges]`.

    Raises:
        ParameterError: if it is no integer array of that shape, or names a node that is not there.

    Example:
        >>> check_edges([[0, 1], [1, 2]], nodes=2)
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: edges must join nodes 0..1, got node 2 in edge 1 ...
    """
    edge_index = plain_tensor("edge_index", edges)
    if edge_index.numel() == 0:
        return torch.empty(2, 0, dtype=torch.int64)
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        hint = "; transpose it" if edge_index.dim() == 2 and edge_index.size(1) == 2 else ""
        raise ParameterError(
            f"edge_index must have the shape [2, edges], got {list(edge_index.shape)}{hint}"
        )
    if edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool:
        raise ParameterError(f"edge_index must hold integers, got {edge_index.dtype}")
    edge_index = edge_index.long().contiguous()
    wrong = ((edge_index < 0) | (edge_index >= nodes)).any(0).nonzero()
    if len(wrong):
        edge = int(wrong[0])
        ends = edge_index[:, edge].tolist()
        node = next(end for end in ends if not 0 <= end < nodes)
        # As many as there are, but counted from 1.
        hint = ", subtract 1" if edge_index.min() == 1 and edge_index.max() == nodes else ""
        raise ParameterError(
            f"edges must join nodes 0..{nodes - 1}, got node {node} in edge {edge} "
            f"(nodes are counted from 0{hint})"
        )
    return edge_index


def symmetrize(edge_index: Tensor, weight: Tensor | None, nodes: int) -> tuple[Tensor, Tensor]:
    """Join edges both ways, once each; the weight of a pair is the mean of what is given."""
    ones = torch.ones(edge_index.size(1)) if weight is None else weight
    both: tuple[Tensor, Tensor] = to_undirected(edge_index, ones, num_nodes=nodes, reduce="mean")
    return both


def check_weight(weight: object, edges: int) -> Tensor | None:
    """Return edge weights as float32 `[edges]`, None where there are none.

    Raises:
        ParameterError: if there is not one finite number per edge.
    """
    if weight is None:
        return None
    tensor = _numbers("edge_weight", weight)
    if tuple(tensor.shape) != (edges,) or not tensor.isfinite().all():
        raise ParameterError(
            f"edge_weight must be one finite number per edge, shape [{edges}], "
            f"got {list(tensor.shape)}{'' if tensor.isfinite().all() else ' with NaN or infinity'}"
        )
    return tensor


def check_features(features: object, nodes: int) -> tuple[Tensor, str]:
    """Return `x` as float32 `[nodes, features]` and a note; without features, the identity.

    Raises:
        ParameterError: if the shape is another, a value is not finite, or there are no features and
            too many nodes for the identity.
    """
    x = torch.empty(nodes, 0) if features is None else _numbers("x", features)
    if x.dim() != 2 or len(x) != nodes:
        raise ParameterError(
            f"x must have a row of features for each of the {nodes} labels, shape "
            f"[{nodes}, features], got {list(x.shape)}"
        )
    if x.size(1) == 0:
        if nodes > IDENTITY_NODES:
            raise ParameterError(
                f"a graph of {nodes} nodes must have features, got none (up to {IDENTITY_NODES} "
                "each node stands for itself); add some, such as its degree"
            )
        return torch.eye(nodes), "no features: each node is its own (one-hot identity)"
    wrong = (~x.isfinite()).nonzero()
    if len(wrong):
        node, column = wrong[0].tolist()
        raise ParameterError(
            f"x must be finite in float32, got {float(x[node, column])} at node {node}, "
            f"feature {column}; replace such values or leave the feature out"
        )
    return x, ""


def check_splits(splits: Sequence[Sequence[object]], y: Tensor) -> list[Split]:
    """Return splits as boolean masks `[nodes]`.

    Raises:
        ParameterError: if a split is not three masks of that shape, two of them share a node, one
            is empty or marks a node without a label.

    Example:
        >>> split = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
        >>> check_splits([split], torch.tensor([0, 1, 0]))
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: the parts of a split must not overlap, got node 1 in ...
    """
    if not splits:
        raise ParameterError("splits must hold at least one split, got none; leave it out")
    return [_check_split(split, index, y) for index, split in enumerate(splits)]


def _check_split(split: Sequence[object], index: int, y: Tensor) -> Split:
    if len(split) != len(PARTS):
        raise ParameterError(f"a split must be three masks, {', '.join(PARTS)}, got {len(split)}")
    masks = [
        _mask(f"the {part} mask of split {index}", mask, len(y))
        for part, mask in zip(PARTS, split, strict=True)
    ]
    for part, mask in zip(PARTS, masks, strict=True):
        bare = (mask & (y < 0)).nonzero()
        if len(bare) or not mask.any():
            raise ParameterError(
                f"the {part} mask of split {index} must mark labelled nodes, got "
                + (f"node {int(bare[0])}, which has no label" if len(bare) else "none")
            )
    shared = (torch.stack(masks).sum(0) > 1).nonzero()
    if len(shared):
        node = int(shared[0])
        parts = [part for part, mask in zip(PARTS, masks, strict=True) if mask[node]]
        raise ParameterError(
            f"the parts of a split must not overlap, got node {node} in {' and '.join(parts)} "
            f"of split {index} ({len(shared)} such nodes)"
        )
    return Split(*masks)


def _mask(name: str, mask: object, nodes: int) -> Tensor:
    tensor = plain_tensor(name, mask)
    if tuple(tensor.shape) != (nodes,) or not ((tensor == 0) | (tensor == 1)).all():
        raise ParameterError(
            f"{name} must be boolean, shape [{nodes}], got {tensor.dtype} {list(tensor.shape)}"
        )
    return tensor.bool()


def _numbers(name: str, value: object) -> Tensor:
    tensor = plain_tensor(name, value)
    if tensor.is_complex():
        raise ParameterError(f"{name} must hold real numbers, got {tensor.dtype}")
    return tensor.float()


def plain_tensor(name: str, value: object) -> Tensor:
    """Return a plain dense tensor on the CPU, apart from what the user holds.

    Raises:
        ParameterError: if the value is no array of numbers.
    """
    try:
        if isinstance(value, Tensor):
            if value.is_quantized or value.is_meta:
                raise TypeError("no plain numbers")
            dense = value.clone() if value.layout == torch.strided else value.to_dense()
            return dense.detach().as_subclass(Tensor).cpu()
        return torch.tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:  # objects, ragged lists, odd layouts
        raise ParameterError(
            f"{name} must be an array of numbers, got {type(value).__name__}: "
            f"{str(error).splitlines()[0]}"
        ) from error
