"""`gnndrop data describe`: what a graph looks like."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gnndrop.cli._options import (
    DataRoot,
    Debug,
    Directed,
    Graph,
    Json,
    LabelCol,
    Nodes,
    SplitCol,
    read_graphs,
)
from gnndrop.errors import ParameterError

SHOWN = 20  # classes that the text spells out


def describe(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="SPEC...", help="Graphs, as cora.", show_default=False),
    ] = None,
    graph: Graph = None,
    nodes: Nodes = None,
    label_col: LabelCol = None,
    split_col: SplitCol = None,
    directed: Directed = False,
    data_root: DataRoot = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Describe graphs: sizes, degrees, labels, homophily.

    A graph is called homophilous where its adjusted homophily is at least 0.3.
    """
    if not names and not graph:
        raise ParameterError("a graph must be named or given by --graph, got none")
    from gnndrop.cli import _render  # the imports that --help can do without
    from gnndrop.datasets import describe as measure
    from gnndrop.datasets import load

    own = read_graphs(graph, nodes, label_col, split_col, directed)
    found = [measure(one) for one in (*(load(name, data_root) for name in names or ()), *own)]
    documents = [one.to_dict() for one in found]
    if json:
        _render.write_json({"schema": 1, "datasets": documents})
        return
    for document in documents:
        _render.write_pairs(_facts(document))


def _facts(of: Mapping[str, Any]) -> dict[str, object]:
    """Return what is shown of a description, by its name."""
    degree, labelled = of["degree"], sum(of["classes"])
    classes = [f"{count} ({100 * count / labelled:.1f}%)" for count in of["classes"][:SHOWN]]
    more = ", ..." if len(of["classes"]) > SHOWN else ""
    kind = "directed" if of["directed"] else "undirected, each edge counted both ways"
    measures = {
        f"  {name.replace('_', ' ')}": "not defined" if value is None else f"{value:.3f}"
        for name, value in of["homophily"].items()
    }
    density = of["feature_density"]
    return {
        "graph": of["name"],
        "nodes": f"{of['nodes']}, of which isolated {of['isolated_nodes']}",
        "edges": f"{of['edges']}, {kind}; self-loops {of['self_loops']}, "
        f"repeated {of['repeated_edges']}",
        "components": of["components"],
        "degree": f"min {degree['min']}, median {degree['median']}, mean {degree['mean']:.2f}, "
        f"max {degree['max']}",
        "features": str(of["features"])
        + ("" if density is None else f", {100 * density:.1f}% of values not zero"),
        "classes": f"{len(of['classes'])}: {', '.join(classes)}{more}; "
        f"nodes without a label {of['unlabelled']}",
        "splits": f"{of['splits']}, metric {of['metric']}",
        "homophily": of["sentence"],
        **measures,
        "note": of["note"] or "none",
    }
