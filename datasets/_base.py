"""What a dataset is, how one is declared, and `load`."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch_geometric.data import Data

from gnndrop.datasets._files import collect
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
            returns the graph (`x`, `edge_index`, `y`) and its splits.
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

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ParameterError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")

    @property
    def is_offline(self) -> bool:
        """Whether the graph needs neither files nor a network."""
        return not self.files


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
        """The four measures of homophily, computed at first use."""
        return homophily(self.data.edge_index, self.data.y)

    @property
    def num_classes(self) -> int:
        """Number of classes: one more than the largest label."""
        return int(self.data.y.max()) + 1

    def with_split(self, index: int) -> Data:
        """Return the graph with the masks of split `index` modulo the number of splits.

        Tensors are shared with `data`, which stays as it is.

        Example:
            >>> dataset = load("karate")
            >>> bool((dataset.with_split(13).test_mask == dataset.splits[3].test).all())
            True
        """
        return _masked(self.data, self.splits[index % len(self.splits)])


def load(name: str, root: str | Path | None = None) -> Dataset:
    """Load a graph by its name or spec: `cora`, `cora:split=geom-gcn`, `csbm:homophily=0.2,seed=1`.

    Raw files are looked for in `root`, then in the cache, then downloaded into the cache; their
    SHA-256 is checked before anything parses them. `root` is never written to.

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

    Example:
        >>> load("csbm:nodes=200,classes=2,homophily=0.9").data.x.shape
        torch.Size([200, 256])
    """
    declaration = DATASETS.make(name)
    with tempfile.TemporaryDirectory(prefix="gnndrop-") as folder:
        try:
            collect(declaration.files, root, Path(folder))
        except DataError as error:
            offline = [other for other in DATASETS if DATASETS.make(other).is_offline]
            raise DataError(
                f"{name}: {error} (graphs that need no files: {', '.join(offline)})"
            ) from error
        graph, splits = declaration.build(Path(folder))
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
