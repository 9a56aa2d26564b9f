"""Graphs of one's own: arrays, a PyG `Data` or a networkx graph become a checked `Dataset`."""

from collections.abc import Sequence

import networkx as nx
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.utils import is_undirected

from gnndrop.datasets._base import METRICS, Dataset
from gnndrop.datasets._checks import (
    check_edges,
    check_features,
    check_splits,
    check_weight,
    plain_tensor,
    symmetrize,
)
from gnndrop.datasets._labels import Labels, encode_labels
from gnndrop.datasets._table import LABEL_COL, NodeTable
from gnndrop.datasets.splits import Split, random_splits
from gnndrop.datasets.statistics import count_repeated
from gnndrop.errors import ParameterError

MASKS = ("train_mask", "val_mask", "test_mask")


def from_arrays(
    x: object,
    edge_index: object,
    y: object,
    *,
    splits: Sequence[Sequence[object]] | None = None,
    undirected: bool = False,
    edge_weight: object = None,
    name: str = "own",
    metric: str = "accuracy",
    note: str = "",
) -> Dataset:
    """Make a dataset of arrays, tensors or lists; everything is checked, and what is done is noted.

    *Labels* may be any whole numbers or texts: their distinct values in sorted order become
    0..C-1, so gaps are closed. *Features* that are missing become the identity (up to 5000 nodes).
    *Splits* that are missing are ten random ones 48/32/20, stratified by class, from seed 0.
    *Edges* are kept as they are, self-loops and repeated ones included, unless `undirected`.

    Args:
        x: features `[nodes, features]`, or None.
        edge_index: `[2, edges]`, from 0 to nodes - 1; an undirected edge is two columns.
        y: labels `[nodes]`; no label is -1, None, NaN or an empty text.
        splits: for each split three boolean masks `[nodes]`: training, validation, test.
        undirected: add the reverse of every edge, and merge repeated edges.
        edge_weight: `[edges]`, or None.
        name: the dataset's name in results.
        metric: `accuracy`, or `roc_auc` for two classes.
        note: put in front of the dataset's own note.

    Returns:
        The dataset; `compare` takes it beside names. What was done to the data is in its `note`.

    Raises:
        ParameterError: if an array has another shape, an index is out of range, a feature is not
            finite, labels are no classes, parts of a split overlap, are empty or mark a node
            without a label, or the metric does not fit.

    Example:
        >>> edge_index = [[i for i in range(20)], [(i + 1) % 20 for i in range(20)]]
        >>> dataset = from_arrays(None, edge_index, ["left", "right"] * 10, undirected=True)
        >>> dataset.data.num_edges, dataset.num_classes, len(dataset.splits)
        (40, 2, 10)
        >>> dataset.note
        'undirected, every edge joined both ways; classes 0=left, 1=right; no features: ...'
    """
    labels = encode_labels(y)
    nodes = len(labels.y)
    features, feature_note = check_features(x, nodes)
    edges = check_edges(edge_index, nodes)
    weight = check_weight(edge_weight, edges.size(1))
    given = edges.size(1)
    if undirected:
        edges, means = symmetrize(edges, weight, nodes)
        weight = None if weight is None else means
    masks = random_splits(labels.y) if splits is None else check_splits(splits, labels.y)
    if splits is None:
        check_splits(masks, labels.y)  # classes may be too small to be in every part
    _check_metric(metric, labels, masks)
    notes = (
        note,
        _edge_note(edges, nodes, given, undirected),
        labels.note,
        _unlabelled_note(labels),
        feature_note,
        "ten random splits 48/32/20, stratified by class" if splits is None else "",
        _unseen_note(labels, masks),
    )
    data = Data(x=features, edge_index=edges, y=labels.y)
    if weight is not None:
        data.edge_weight = weight
    for key, mask in zip(MASKS, masks[0], strict=True):
        data[key] = mask
    return Dataset(name, data, masks, metric, note="; ".join(filter(None, notes)))


def from_data(data: Data, *, name: str = "own", metric: str = "accuracy") -> Dataset:
    """Make a dataset of a PyG `Data`, which stays as it is.

    Its `edge_index` and `y` are needed; `x`, `edge_weight`, and the masks `train_mask`, `val_mask`
    and `test_mask` (`[nodes]`, or `[nodes, splits]`) are taken where they are. `from_arrays` says
    what is done where they are not.

    Args:
        data: one graph with one type of nodes.
        name: the dataset's name in results.
        metric: `accuracy`, or `roc_auc` for two classes.

    Returns:
        The dataset; what was done to the data is in its `note`.

    Raises:
        ParameterError: if it is no such graph, or for what `from_arrays` raises.

    Example:
        >>> pairs = Data(edge_index=torch.arange(40).reshape(2, 20), y=torch.arange(40) % 2)
        >>> from_data(pairs, name="pairs").data.num_nodes
        40
    """
    if not isinstance(data, Data):
        raise ParameterError(
            f"a graph must be a torch_geometric.data.Data, got {type(data).__name__}"
        )
    keys = sorted(data.keys())  # their own order is not fixed
    if data.get("edge_index") is None or data.get("y") is None:
        raise ParameterError(f"a Data must have edge_index and y, got {', '.join(keys)}")
    used = ("x", "edge_index", "y", "edge_weight", *MASKS)
    ignored = [key for key in keys if key not in used]
    return from_arrays(
        data.get("x"),
        data.edge_index,
        data.y,
        splits=_data_splits(data),
        edge_weight=data.get("edge_weight"),
        name=name,
        metric=metric,
        note=f"not used: {', '.join(ignored)}" if ignored else "",
    )


def from_networkx(
    graph: nx.Graph,
    *,
    label_col: str = LABEL_COL,
    split_col: str | None = None,
    name: str = "own",
    metric: str = "accuracy",
) -> Dataset:
    """Make a dataset of a networkx graph, with what its nodes are told by their attributes.

    The attributes other than label and split whose values are numbers (or lists of numbers, as
    many for each node) are the features. An undirected graph's edges are joined both ways; those
    of a directed graph are kept. Edges' attributes are not used.

    Args:
        graph: any networkx graph; nodes are numbered in its order.
        label_col: the attribute that holds the labels; nodes may lack it.
        split_col: the attribute that holds `train`, `val` or `test`; nodes may lack it.
        name: the dataset's name in results.
        metric: `accuracy`, or `roc_auc` for two classes.

    Returns:
        The dataset; what was done to the data is in its `note`.

    Raises:
        ParameterError: if an attribute does not exist, is a number for some nodes alone, or for
            what `from_arrays` raises.

    Example:
        >>> dataset = from_networkx(nx.karate_club_graph(), label_col="club")
        >>> dataset.data.num_edges, dataset.num_classes
        (156, 2)
    """
    table = table_of(graph, label_col, split_col)
    return from_table(
        table, edges_of(graph), undirected=not graph.is_directed(), name=name, metric=metric
    )


def table_of(graph: nx.Graph, label_col: str, split_col: str | None) -> NodeTable:
    """Return the attributes of a networkx graph's nodes as columns."""
    keys = dict.fromkeys(key for _, values in graph.nodes(data=True) for key in values)
    columns = {str(key): [graph.nodes[node].get(key) for node in graph] for key in keys}
    return NodeTable(list(graph), columns, label_col, split_col)


def edges_of(graph: nx.Graph) -> Tensor:
    """Return a networkx graph's edges, each once, as `[2, edges]` by the order of its nodes."""
    place = {node: index for index, node in enumerate(graph)}
    ends = [(place[source], place[target]) for source, target in graph.edges()]
    return torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).t()


def from_table(
    table: NodeTable,
    edge_index: Tensor,
    *,
    undirected: bool,
    name: str,
    metric: str = "accuracy",
    note: str = "",
) -> Dataset:
    """Make a dataset of a table of nodes and the edges between its rows."""
    x, left_out = table.features()
    return from_arrays(
        x,
        edge_index,
        table.labels,
        splits=table.splits(),
        undirected=undirected,
        name=name,
        metric=metric,
        note="; ".join(filter(None, (note, left_out))),
    )


def _data_splits(data: Data) -> list[tuple[object, ...]] | None:
    masks = [data.get(key) for key in MASKS]
    missing = [key for key, mask in zip(MASKS, masks, strict=True) if mask is None]
    if len(missing) == len(MASKS):
        return None
    if missing:
        raise ParameterError(
            f"a Data must have all of {', '.join(MASKS)} or none, got none of "
            f"{', '.join(missing)}; add them, or remove the others for random splits"
        )
    tensors = [plain_tensor(key, mask) for key, mask in zip(MASKS, masks, strict=True)]
    shapes = [list(tensor.shape) for tensor in tensors]
    if shapes[1:] != shapes[:-1] or len(shapes[0]) not in (1, 2):
        raise ParameterError(f"masks must all be [nodes], or all [nodes, splits], got {shapes}")
    columns = (tensor.reshape(len(tensor), -1).t() for tensor in tensors)
    return list(zip(*columns, strict=True))


def _check_metric(metric: str, labels: Labels, splits: list[Split]) -> None:
    if metric not in METRICS:
        raise ParameterError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if metric != "roc_auc":
        return
    if len(labels.classes) != 2:
        raise ParameterError(f"roc_auc needs two classes, got {len(labels.classes)}")
    for index, split in enumerate(splits):
        for part, mask in zip(Split._fields, split, strict=True):
            if len(torch.unique(labels.y[mask])) < 2:
                raise ParameterError(
                    f"roc_auc needs both classes in every part of a split, got one in the {part} "
                    f"mask of split {index}"
                )


def _edge_note(edge_index: Tensor, nodes: int, given: int, undirected: bool) -> str:
    loops = int((edge_index[0] == edge_index[1]).sum())
    if undirected:
        direction = "undirected, every edge joined both ways"
        repeated = given - (edge_index.size(1) + loops) // 2
    else:
        direction = "undirected" if is_undirected(edge_index) else "directed, kept so"
        repeated = count_repeated(edge_index, nodes)
    facts = [direction]
    if repeated:
        facts.append(f"repeated edges {'merged' if undirected else 'kept'}: {repeated}")
    if loops:
        facts.append(f"self-loops kept: {loops}")
    return "; ".join(facts)


def _unlabelled_note(labels: Labels) -> str:
    bare = int((labels.y < 0).sum())
    return f"{bare} nodes without a label, in no split" if bare else ""


def _unseen_note(labels: Labels, splits: list[Split]) -> str:
    """Say which classes some split trains on no node of: they cannot be learned there."""
    everything = set(range(len(labels.classes)))
    unseen = {
        label for split in splits for label in everything - set(labels.y[split.train].tolist())
    }
    names = ", ".join(str(labels.classes[label]) for label in sorted(unseen))
    return f"a split has no training node of class {names}" if unseen else ""
