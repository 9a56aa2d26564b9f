"""What the graphs published by Geom-GCN (Pei et al. 2020) have in common."""

CITATION = "Pei et al. 2020, Geom-GCN: Geometric Graph Convolutional Networks"
LICENCE = "none stated (graphdml-uiuc-jlu/geom-gcn)"
NOTE = (
    "links directed and with self-loops, as published and as PyG gives them; studies that "
    "symmetrize them (to_undirected) report other scores; ten Geom-GCN splits"
)


def split_files(prefix: str) -> list[str]:
    """Return the names of the ten split files of a graph.

    They say 0.6 and 0.2, but hold 48 % of the nodes for training and 32 % for validation.
    """
    return [f"{prefix}_split_0.6_0.2_{index}.npz" for index in range(10)]


def raw_files(folder: str, prefix: str) -> tuple[str, ...]:
    """Return the paths of all the files of a graph, below the folder of its PyG class."""
    names = ["out1_node_feature_label.txt", "out1_graph_edges.txt", *split_files(prefix)]
    return tuple(f"{folder}/{name}" for name in names)
