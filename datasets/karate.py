"""Zachary's karate club (1977): 34 members, joined by friendship; the club split in two."""

from functools import partial
from typing import Literal

import networkx as nx
import torch
from torch_geometric.data import Data
from torch_geometric.datasets import KarateClub
from torch_geometric.utils import to_undirected

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.splits import Split, check_seed, random_splits

Labels = Literal["club", "communities"]


@DATASETS.register("karate")
def karate(labels: Labels = "club", seed: int = 0) -> Declaration:
    """Zachary's karate club: 34 members and their friendships, no features but the identity.

    Args:
        labels: `club`, the side each member took (2 classes), or `communities`, the 4 classes found
            by modularity that Kipf and Welling (2017) used.
        seed: of the random splits, at least 0.

    Raises:
        ParameterError: if the seed is out of its range.
    """
    check_seed(seed)
    return Declaration(
        build=partial(_build, labels, seed),
        nodes=34,
        edges=156,
        features=34,
        classes=2 if labels == "club" else 4,
        splits=10,
        citation="Zachary 1977, An Information Flow Model for Conflict and Fission in Small Groups",
        licence="BSD-3-Clause (networkx)",
        note="features are one-hot identities; ten random splits 48/32/20, stratified by class",
        homophily=0.859 if labels == "club" else 0.756,
    )


def _build(labels: Labels, seed: int, _: object) -> tuple[Data, list[Split]]:
    graph = nx.karate_club_graph()
    edges = torch.tensor(list(graph.edges))
    if labels == "club":
        y = torch.tensor([int(graph.nodes[node]["club"] == "Officer") for node in graph])
    else:
        y = KarateClub()[0].y
    data = Data(x=torch.eye(34), edge_index=to_undirected(edges.t().contiguous()), y=y)
    return data, random_splits(y, seed=seed)
