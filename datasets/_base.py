"""What a dataset is, how one is declared, and `load`."""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Data

from gnndrop.datasets import _cache
from gnndrop.datasets._files import Found, are_here, collect, size_of
from gnndrop.datasets.homophily import Homophily, homophily
from gnndrop.datasets.splits import Split
from gnndrop.errors import DataError, ParameterError
from gnndrop.registry import Registry

METRICS = ("accuracy", "roc_auc")


@dataclass(frozen=True)
class Declaration:
    """What is known of a dataset before it is loaded; listings and tests are derived from it.

    Args:
        build: takes the folder that holds verified copies of `files`, at the same paths, and
            returns the graph (`x`, `edge_index`, `y`) and its splits; none where `draw` makes them.
            A graph with files is kept in the cache: it must depend on the files alone.
        nodes: number of nodes.
        edges: number of columns of `edge_index`; `None` where the draw decides.
        features: number of features.
        classes: number of classes.
        splits: number of splits.
        citation: whom to cite.
        licence: as the source states it; `none stated` where it does not.
        metric: the published metric, `accuracy` or `roc_auc`.
        files: the raw files it needs, by their path in the manifest; none for an offline graph.
        note: what a reader of results must know: direction, how the splits were made.
        draw: draws the splits from the labels, where none are published.
        homophily: edge homophily as published or measured, of `edge_index` as it loads; expected
            where the graph is drawn; `None` where it is not known.
        warning: what is wrong with the data; every `load` warns of it.

    Raises:
        ParameterError: if the metric is neither of the two.

    Example:
        >>> declared = DATASETS.make("cora:split=geom-gcn")
        >>> declared.nodes, declared.splits, declared.is_offline, len(declared.files)
        (2708, 10, False, 18)
    """

    build: Callable[[Path], tuple[Data, list[Split]]]
    nodes: int
    edges: int | None
    features: int
    classes: int
    splits: int
    citation: str
    licence: str
    metric: str = "accuracy"
    files: tuple[str, ...] = ()
    note: str = ""
    draw: Callable[[Tensor], list[Split]] | None = None
    homophily: float | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")

    @property
    def is_offline(self) -> bool:
        """Whether the graph needs neither files nor a network."""
        return not self.files

    @property
    def is_here(self) -> bool:
        """Whether it loads without a network: its files lie in `GNNDROP_DATA` or the cache."""
        return are_here(self.files)

    @property
    def bytes(self) -> int | None:
        """Size of its files, which is what a download takes; `None` where it is not known."""
        return size_of(self.files)


# An entry is a function of a spec's options that returns a declaration; it can be called without
# any, refuses bad values at once, and reads no file: that is left to the declaration's `build`.
DATASETS: Registry[Callable[..., Declaration]] = Registry(
    "dataset", "gnndrop.datasets", "gnndrop.datasets"
)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A graph with its splits, as `load` returns it.

    Args:
        name: the spec it was asked by.
        data: PyG's `Data`: dense `x` `[nodes, features]` (float32), `edge_index` `[2, edges]`, `y`
            `[nodes]` (-1: no label), and `train_mask`, `val_mask`, `test_mask` `[nodes]` (boolean)
            of the first split.
        splits: every split, three boolean masks each.
        metric: the published metric, `accuracy` or `roc_auc`.
        citation: whom to cite.
        licence: as the source states it.
        note: what a reader of results must know.

    Example:
        >>> dataset = load("csbm-homophilous")
        >>> dataset.data.num_nodes, dataset.num_classes, len(dataset.splits), dataset.metric
        (1000, 5, 1, 'accuracy')
        >>> dataset.homophily.is_homophilous
        True
    """

    name: str
    data: Data
    splits: list[Split]
    metric: str
    citation: str = ""
    licence: str = ""
    note: str = ""

    @cached_property
    def homophily(self) -> Homophily:
        """The five measures of homophily, computed at first use."""
        return homophily(self.data.edge_index, self.data.y)

    @property
    def num_classes(self) -> int:
        """Number of classes: one more than the largest label."""
        return int(self.data.y.max()) + 1


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Load a graph by its name or spec: `cora`, `cora:split=geom-gcn`, `csbm:homophily=0.2,seed=1`.

    Raw files are looked for in `root`, then in the cache, then downloaded into the cache; their
    SHA-256 is checked at every load, before anything parses them. `root` is never written to. The
    parsed graph is kept in the cache, by the sums of its raw files, and read from there the next
    time; a cache that is damaged, full or read-only is done without.

    Args:
        name: a spec string; `DATASETS` holds the names.
        root: a read-only mirror of raw files; by default the environment variable `GNNDROP_DATA`,
            if set. The cache is `GNNDROP_CACHE`, else the user's cache folder.

    Raises:
        UnknownNameError: if no dataset has that name.
        ParameterError: if an option is unknown or out of its range.
        DataError: if `root` does not exist, or a file is corrupt, missing or cannot be downloaded
            (a connection gives up after 10 s); it names the files, where they belong and where
            they come from.

    Warns:
        UserWarning: if the field advises against the data; the warning says why.

    Example:
        >>> load("csbm:nodes=200,classes=2,homophily=0.9").data.x.shape
        torch.Size([200, 256])
    """
    declaration = DATASETS.make(name)
    graph, splits = _read(name, declaration, root)
    if declaration.draw:
        splits = declaration.draw(graph.y)
    if declaration.warning:
        warnings.warn(f"{name}: {declaration.warning}", stacklevel=2)
    return Dataset(
        name=name,
        data=_masked(Data(x=graph.x, edge_index=graph.edge_index, y=graph.y), splits[0]),
        splits=splits,
        metric=declaration.metric,
        citation=declaration.citation,
        licence=declaration.licence,
        note=declaration.note,
    )


def _masked(data: Data, split: Split) -> Data:
    masked = Data(**data.to_dict())
    masked.train_mask, masked.val_mask, masked.test_mask = split
    return masked


def _read(name: str, declared: Declaration, root: str | Path | None) -> tuple[Data, list[Split]]:
    """Return a graph and its published splits, from the cache or from the verified raw files."""
    with _private_folder() as folder:
        try:
            found = collect(declared.files, root, folder)
        except DataError as error:
            offline = [other for other in DATASETS if DATASETS.make(other).is_offline]
            raise DataError(
                f"{name}: {error} (graphs that need no files: {', '.join(offline)})"
            ) from error
        if declared.is_offline:
            return declared.build(folder)
        place = _cache.place_of(found)
        kept = _cache.read(place, lambda *graph: not _differences(declared, *graph))
        if kept:
            return kept
        graph, splits = _parse(name, declared, found, folder)
    _cache.write(place, graph, splits)
    return graph, splits


@contextmanager
def _private_folder() -> Iterator[Path]:
    try:
        place = tempfile.TemporaryDirectory(prefix="gnndrop-")
    except OSError as error:
        raise DataError(
            f"there must be room for temporary files, got {error}; make some, or let TMPDIR name a "
            "folder that has it"
        ) from error
    with place as folder:
        yield Path(folder)


def _parse(
    name: str, declared: Declaration, found: Sequence[Found], folder: Path
) -> tuple[Data, list[Split]]:
    unsure = [one for one in found if one.file.sha256 is None]
    try:
        graph, splits = declared.build(folder)
        wrong = _differences(declared, graph, splits)
    except OSError as error:
        raise DataError(
            f"{name}: its files must be parsed in {folder}, got {error}; see that there is room "
            "(TMPDIR says where)"
        ) from error
    except Exception as error:
        if not unsure:
            raise
        wrong = " ".join(
            f"{type(error).__name__}: {error}".split()
        )  # such a file may hold anything
    if wrong and unsure:
        raise DataError(
            f"{name}: {unsure[0].source} must hold the published graph, got {wrong}; delete it, "
            f"and it is fetched from {unsure[0].file.url}"
        )
    if wrong:
        raise DataError(
            f"{name}: the published files must give the declared graph, got {wrong}; install the "
            "versions that constraints.txt names"
        )
    return graph, splits


def _differences(declared: Declaration, graph: Data, splits: list[Split]) -> str:
    """Say where a graph is not what was declared, nor safe to compute with; nothing if it is."""
    published = 0 if declared.draw else declared.splits
    indices = [int(end) for end in graph.edge_index.aminmax()]
    facts = {
        "nodes": (graph.num_nodes, declared.nodes),
        "edges": (tuple(graph.edge_index.shape), (2, declared.edges)),
        "features": (graph.num_features, declared.features),
        "classes": (graph.y.unique().tolist(), list(range(declared.classes))),
        "labels": (len(graph.y), declared.nodes),
        "types": (
            [tensor.dtype for tensor in (graph.x, graph.edge_index, graph.y)],
            [torch.float32, torch.int64, torch.int64],
        ),
        "splits": (len(splits), published),
        "ends of edges within the nodes": (0 <= indices[0] <= indices[1] < declared.nodes, True),
        "masks as long as the labels": (
            {mask.shape for split in splits for mask in split} <= {graph.y.shape},
            True,
        ),
    }
    return ", ".join(
        f"{fact} {got} instead of {wanted}"
        for fact, (got, wanted) in facts.items()
        if got != wanted
    )
