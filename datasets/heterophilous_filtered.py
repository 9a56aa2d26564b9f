"""Wikipedia graphs without the duplicate nodes that leaked test labels (Platonov et al. 2023)."""

from functools import partial

from gnndrop.datasets._base import DATASETS, Declaration
from gnndrop.datasets.heterophilous import CITATION, LICENCE, read_archive


@DATASETS.register("chameleon-filtered")
def chameleon_filtered() -> Declaration:
    """Chameleon: Wikipedia pages and their links, no duplicates; undirected, heterophilous."""
    return _filtered("chameleon", nodes=890, edges=17708, features=2325, homophily=0.236)


@DATASETS.register("squirrel-filtered")
def squirrel_filtered() -> Declaration:
    """Squirrel: Wikipedia pages and their links, no duplicates; undirected, heterophilous."""
    return _filtered("squirrel", nodes=2223, edges=93996, features=2089, homophily=0.207)


def _filtered(name: str, *, nodes: int, edges: int, features: int, homophily: float) -> Declaration:
    file = f"heterophilous_filtered/{name}_filtered.npz"
    return Declaration(
        build=partial(read_archive, file),
        nodes=nodes,
        edges=edges,
        features=features,
        classes=5,
        splits=10,
        citation=CITATION,
        licence=LICENCE,
        files=(file,),
        note="duplicate nodes removed, links symmetrized; ten published splits",
        homophily=homophily,
    )
