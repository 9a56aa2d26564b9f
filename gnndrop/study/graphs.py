"""How graphs reach the workers: the driver loads each once, the workers map the same file."""

import functools
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import joblib
import torch
from torch import Tensor
from torch_geometric.data import Data

from gnndrop.datasets import Dataset
from gnndrop.errors import ParameterError
from gnndrop.study.report import GraphSummary

Masks = tuple[Tensor, Tensor, Tensor]


class TrialGraph(NamedTuple):
    """What a trial needs of a dataset.

    Args:
        data: the graph.
        splits: boolean masks of training, validation and test nodes, for every split.
        classes: number of classes.
        metric: the dataset's metric.
    """

    data: Data
    splits: list[Masks]
    classes: int
    metric: str


def summarize(dataset: Dataset) -> GraphSummary:
    """Return what a report says of a dataset.

    Raises:
        ParameterError: if it has no split, or a split has no node to train, validate or test on.
    """
    sizes = [[int(mask.sum()) for mask in split] for split in dataset.splits]
    if not sizes or not all(map(all, sizes)):
        raise ParameterError(
            "a dataset must have a split, and each must hold nodes to train, validate and test on, "
            f"got {sizes} on {dataset.name}"
        )
    return GraphSummary(
        name=dataset.name,
        nodes=dataset.data.num_nodes,
        edges=dataset.data.num_edges,
        homophily=asdict(dataset.homophily),
        homophilous=dataset.homophily.is_homophilous,
        metric=dataset.metric,
        splits=len(sizes),
        test_train_ratio=sum(test / train for train, _, test in sizes) / len(sizes),
        note=dataset.note,
    )


def fingerprint(dataset: Dataset) -> str:
    """Return a digest of a dataset's content, the same in every process.

    A run resumes on the data it began with, or not at all.
    """
    arrays = {
        name: value.cpu().numpy() if isinstance(value, Tensor) else value
        for name, value in _plain(dataset).items()
    }
    splits = [[mask.cpu().numpy() for mask in split] for split in dataset.splits]
    return str(joblib.hash((sorted(arrays.items()), splits, dataset.metric)))


def write_graph(dataset: Dataset, path: Path) -> None:
    """Write a dataset for `read_graph`."""
    payload = {
        "data": _plain(dataset),
        "splits": [tuple(mask.cpu() for mask in split) for split in dataset.splits],
        "classes": dataset.num_classes,
        "metric": dataset.metric,
    }
    torch.save(payload, path)


@functools.lru_cache(maxsize=1)  # trials come dataset by dataset
def read_graph(path: Path, device: str) -> TrialGraph:
    """Read what `write_graph` wrote; on one machine all processes share its memory.

    Args:
        path: the file.
        device: where the tensors shall be.
    """
    on_cpu = torch.device(device).type == "cpu"
    graph = torch.load(path, map_location=device, mmap=on_cpu, weights_only=True)
    return TrialGraph(Data(**graph["data"]), graph["splits"], graph["classes"], graph["metric"])


def _plain(dataset: Dataset) -> dict[str, object]:
    """Return the graph's dense tensors, numbers and texts, without masks: splits hold those.

    Raises:
        ParameterError: if `x`, `edge_index` or `y` is no dense tensor.
    """
    values: dict[str, object] = {
        name: value.cpu() if isinstance(value, Tensor) else value
        for name, value in dataset.data.to_dict().items()
        if not name.endswith("_mask")
        and (
            isinstance(value, int | float | str)
            or (isinstance(value, Tensor) and value.layout == torch.strided)
        )
    }
    for name in ("x", "edge_index", "y"):
        if not isinstance(values.get(name), Tensor):
            raise ParameterError(
                f"a dataset must hold a dense tensor {name}, got none on {dataset.name}"
            )
    return values
