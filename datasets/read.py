"""Files with a graph of one's own: `read_graph`. Nothing of them is unpickled."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.parsers import expat

import networkx as nx
import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from gnndrop.datasets._base import Dataset
from gnndrop.datasets._csv import read_edges, read_nodes
from gnndrop.datasets._table import LABEL_COL
from gnndrop.datasets.own import edges_of, from_arrays, from_data, from_table, table_of
from gnndrop.errors import DataError, GnndropError, ParameterError

# What each format makes use of, beside the path.
OPTIONS = {
    ".pt": (),
    ".npz": ("directed",),
    ".graphml": ("label_col", "split_col"),
    ".gml": ("label_col", "split_col"),
    ".csv": ("nodes", "label_col", "split_col", "directed"),
}
NPZ_MASKS = ("train_masks", "val_masks", "test_masks")


def read_graph(
    path: str | Path,
    *,
    nodes: str | Path | None = None,
    label_col: str | None = None,
    split_col: str | None = None,
    directed: bool = False,
) -> Dataset:
    """Read a graph of one's own; the format is told by the end of the file's name.

    - `.pt`: a PyG `Data`, as `torch.save(data, path)` writes it; `from_data` says what is used.
    - `.npz`: arrays `edges` `[edges, 2]`, `node_labels`, and where there are any `node_features`,
      `train_masks`, `val_masks`, `test_masks` `[splits, nodes]`: the layout of Platonov et al.
      (2023, "A Critical Look at the Evaluation of GNNs under Heterophily").
    - `.graphml`, `.gml`: as networkx reads them; `from_networkx` says what is used. In GML, `label`
      is the name of a node, so the classes are in another attribute.
    - `.csv`: a line per edge, in columns `source` and `target` (else the first two), with `nodes`,
      a second CSV file: a line per node, its id in column `id` (else the first), its label, and
      columns of numbers, the features.

    Args:
        path: the file; it is also the dataset's name.
        nodes: the table of nodes that a CSV file of edges needs.
        label_col: column or attribute of the nodes with the labels; by default `label`.
        split_col: column or attribute of the nodes with `train`, `val` or `test`; without one, and
            without masks, there are ten random splits.
        directed: keep the edges of CSV or npz one-way, where by default they are joined both ways.

    Returns:
        The dataset; what was done to the data is in its `note`.

    Raises:
        ParameterError: if the format is unknown, an option has no use for it, or a column does not
            exist.
        DataError: if a file does not exist, is damaged, would run code, or holds no sound graph.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "club.graphml"
        ...     nx.write_graphml(nx.karate_club_graph(), path)
        ...     dataset = read_graph(path, label_col="club")
        >>> dataset.data.num_nodes, dataset.data.num_edges
        (34, 156)
    """
    file = Path(path)
    kind = file.suffix.lower()
    given = {"nodes": nodes, "label_col": label_col, "split_col": split_col, "directed": directed}
    _check_options(file, kind, [name for name, value in given.items() if value])
    table_file = Path(nodes) if nodes else file
    for one in (file, table_file):
        if not _is_file(one):
            raise DataError(f"the graph's file must exist, got {one}")
    label = label_col or LABEL_COL
    name = str(path)
    if kind == ".pt":
        data = _read(file, "a PyG Data that torch.save wrote, without code", _load_data)
        with _told(file, DataError):
            return from_data(data, name=name)
    if kind == ".npz":
        arrays = _read(file, "arrays that numpy.savez wrote, without pickles", _load_arrays)
        with _told(file, DataError):
            return _from_npz(arrays, directed, name)
    if kind == ".csv":
        return _from_csv(file, table_file, label, split_col, directed, name)
    graph = _read(file, f"a graph that networkx reads as {kind[1:]}", _load_networkx)
    return _from_networkx(graph, file, label, split_col, name)


def _check_options(file: Path, kind: str, given: list[str]) -> None:
    if kind not in OPTIONS:
        raise ParameterError(
            f"a graph's file must end in one of {', '.join(OPTIONS)}, got {file.name!r}"
        )
    for name in given:
        if name not in OPTIONS[kind]:
            raise ParameterError(
                f"{kind} files have no use for {name} (--{name.replace('_', '-')}), "
                f"got it for {file}; leave it out"
            )
    if kind == ".csv" and "nodes" not in given:
        raise ParameterError(
            f"a CSV file of edges needs nodes (--nodes), a CSV file with a line per node and its "
            f"label, got none for {file}"
        )


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):  # no right to look, a name that cannot be
        return path.is_file()
    return False


@contextmanager
def _told(file: Path, kind: type[GnndropError]) -> Iterator[None]:
    """Name the file in an error: wrong use stays one, wrong content is an error of the data."""
    try:
        yield
    except ParameterError as error:
        raise kind(f"{file}: {error}") from error


def _read(file: Path, wanted: str, load: Callable[[Path], Any]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parsers, about what is refused or noted anyway
            return load(file)
    except Exception as error:  # a parser may raise anything on a damaged file
        # The first sentence of a parser: those that follow tell how to unpickle the file after all.
        reason = str(error).partition("\n")[0].partition(". ")[0][:200]
        raise DataError(
            f"{file} must be {wanted}, got what cannot be read ({type(error).__name__}: {reason})"
        ) from error


def _load_data(file: Path) -> Data:
    allowed = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]
    with torch.serialization.safe_globals(allowed):
        content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, Data | dict):
        raise TypeError(
            f"a {type(content).__name__}; save one graph, as torch.save(dataset[0], path)"
        )
    # A new Data: what a file says of the insides of one is not believed.
    return Data.from_dict(content if isinstance(content, dict) else content.to_dict())


def _load_arrays(file: Path) -> dict[str, np.ndarray]:
    # Opened here, since numpy leaves a damaged file open.
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _from_npz(arrays: dict[str, np.ndarray], directed: bool, name: str) -> Dataset:
    for key in ("edges", "node_labels"):
        if key not in arrays:
            raise ParameterError(f"an array {key} is needed, got {', '.join(arrays) or 'none'}")
    masks = [arrays[key] for key in NPZ_MASKS if key in arrays]
    if len(masks) not in (0, len(NPZ_MASKS)):
        raise ParameterError(f"all of {', '.join(NPZ_MASKS)} are needed, or none of them")
    edges = arrays["edges"]
    if edges.ndim != 2 or edges.shape[1] != 2:
        raise ParameterError(f"edges must have the shape [edges, 2], got {list(edges.shape)}")
    if len({mask.shape for mask in masks}) > 1:
        raise ParameterError(f"masks must have one shape, got {[list(m.shape) for m in masks]}")
    return from_arrays(
        arrays.get("node_features"),
        edges.T,
        arrays["node_labels"],
        splits=list(zip(*map(np.atleast_2d, masks), strict=True)) or None,
        undirected=not directed,
        name=name,
    )


def _from_csv(
    file: Path, nodes: Path, label_col: str, split_col: str | None, directed: bool, name: str
) -> Dataset:
    with _told(nodes, ParameterError):
        table = read_nodes(nodes, label_col, split_col)
    edge_index, note = read_edges(file, table, nodes)
    with _told(nodes, DataError):
        return from_table(table, edge_index, undirected=not directed, name=name, note=note)


def _from_networkx(
    graph: nx.Graph, file: Path, label_col: str, split_col: str | None, name: str
) -> Dataset:
    with _told(file, ParameterError):
        table = table_of(graph, label_col, split_col)
    if label_col != LABEL_COL:  # which is a node's name in GML and for Gephi, hence no feature
        others = {key: values for key, values in table.columns.items() if key != LABEL_COL}
        table = replace(table, columns=others)
    with _told(file, DataError):
        return from_table(table, edges_of(graph), undirected=not graph.is_directed(), name=name)


def _load_networkx(file: Path) -> nx.Graph:
    if file.suffix.lower() == ".gml":
        return nx.read_gml(file, label="id")  # ids are unique, labels need not be
    _refuse_entities(file)
    return nx.read_graphml(file)


def _refuse_entities(file: Path) -> None:
    """Refuse XML that defines entities of its own: a few lines of them can stand for gigabytes."""

    def refuse(name: str, *_: object) -> None:
        raise ValueError(f"it defines the XML entity {name!r}, which graphs do not need")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse
    with file.open("rb") as stream:
        parser.ParseFile(stream)
