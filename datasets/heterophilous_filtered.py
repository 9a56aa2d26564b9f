"""Wikipedia graphs without the duplicate nodes that leaked test labels (Platonov et al. 2023)."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.utils import to_undirected

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.splits import Split


@DATASETS.register("chameleon-filtered")
def chameleon_filtered() -> Declaration:
    """Chameleon: Wikipedia pages and their links, no duplicates; undirected, heterophilous."""
    return _filtered("chameleon", nodes=890, edges=17708, features=2325, classes=5)


def _filtered(name: str, *, nodes: int, edges: int, features: int, classes: int) -> Declaration:
    file = f"heterophilous_filtered/{name}_filtered.npz"
    return Declaration(
        build=partial(_read, file),
        nodes=nodes,
        edges=edges,
        features=features,
        classes=classes,
        splits=10,
        citation="Platonov et al. 2023, A Critical Look at the Evaluation of GNNs under "
        "Heterophily: Are We Really Making Progress?",
        licence="MIT (yandex-research/heterophilous-graphs)",
        files=(file,),
        note="duplicate nodes removed, links symmetrized; ten published splits",
    )


def _read(file: str, folder: Path) -> tuple[Data, list[Split]]:
    # PyG has no class for these files. Each edge is stored once, masks as [splits, nodes].
    with np.load(folder / file, allow_pickle=False) as arrays:
        x, y, edges, *masks = (
            torch.from_numpy(arrays[key])
            for key in (
                "node_features",
                "node_labels",
                "edges",
                "train_masks",
                "val_masks",
                "test_masks",
            )
        )
    edge_index = to_undirected(edges.t().contiguous(), num_nodes=len(y))
    splits = [Split(*three) for three in zip(*(mask.bool() for mask in masks), strict=True)]
    return Data(x=x.float(), edge_index=edge_index, y=y.long()), splits
