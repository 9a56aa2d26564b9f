"""Theory against measurement of normalized adjacencies whose edges are dropped.

Operators are measured where users have them: attached to PyG's own layers, whose weights are the
identity, so that the output for one-hot features is the adjacency itself. Copies of one graph, side
by side in one forward pass, are independent samples.
"""

from collections.abc import Callable, Iterator

import networkx as nx
import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, SimpleConv
from torch_geometric.utils import from_networkx

from gnndrop.attach import attach
from gnndrop.graph import Graph
from gnndrop.masks import Mask, keep, stream_key
from gnndrop.operators import EdgeOperator, Operator
from gnndrop.theory.adjacency import (
    Normalization,
    expected_power,
    hop_distance,
    neighbours,
    normalized,
    row_drop_agg,
    row_drop_edge,
    row_remove_node,
    sensitivity,
    symmetric_drop_edge,
)
from gnndrop.theory.measurement import Measurement

RATES = (0.1, 0.3, 0.5, 0.8)
COPIES = 4000
NODES, EDGES, DEPTH = 7, 8, 3  # twice as many coins as edges at most: all masks are summed over


def random_graphs() -> dict[str, Graph]:
    """Return an undirected random graph, and a directed one.

    Example:
        >>> [graph.is_undirected for graph in random_graphs().values()]
        [True, False]
    """
    graphs = {
        "undirected": nx.gnm_random_graph(NODES, EDGES, seed=1),
        "directed": nx.gnm_random_graph(NODES, EDGES + 4, seed=1, directed=True),
    }
    return {
        name: Graph(from_networkx(graph).edge_index, NODES, NODES) for name, graph in graphs.items()
    }


def measure_definitions() -> Iterator[Measurement]:
    """Measure the expectations under drop-agg and remove-node, from their definitions.

    Yields:
        One measurement for each quantity and rate.

    Example:
        >>> all(measurement.passed for measurement in measure_definitions())
        True
    """
    graph = random_graphs()["directed"]
    for name, theory in (("drop-agg", row_drop_agg), ("remove-node", row_remove_node)):
        for p in RATES:
            kept = _node_coins(f"theory of {name}", p)
            edges = neighbours(graph) * kept[:, :, None]  # a node's in-edges share its fate
            if name == "remove-node":
                edges = edges * kept[:, None, :]
            samples = normalized(edges + torch.eye(NODES, dtype=torch.float64), "row")
            yield Measurement.of_samples(f"E[A] by rows, {name}", p, theory(graph, p), samples)


def _node_coins(name: str, p: float) -> Tensor:
    """Return a coin for every node of every copy, 1 where kept: shape (copies, nodes)."""
    mask = Mask(stream_key(0, name), p, by_column=False)
    rows = torch.arange(COPIES * NODES)
    return keep(mask, rows, rows).double().view(COPIES, NODES)


def measure_adjacency(operator: Operator) -> Iterator[Measurement]:
    r"""Measure what an operator on edges makes of normalized adjacencies, where theory knows it.

    That is for `drop-edge` $E[\hat A]$ by rows and symmetric, the power of the expectation for
    fresh masks, the expectation of the power for a shared one, and the sensitivity to nodes L hops
    away; for `drop-agg` and `remove-node` $E[\hat A]$ by rows.

    Args:
        operator: its rate and `share` are varied, its other options kept.

    Yields:
        One measurement for each quantity, graph and rate; none for other operators, or where the
        weights of kept edges are rescaled.

    Example:
        >>> from gnndrop.operators import Dropout
        >>> list(measure_adjacency(Dropout()))
        []
    """
    if not isinstance(operator, EdgeOperator) or operator.rescale != "renormalize":
        return
    if operator.name == "drop-edge" and operator.is_product:
        for graph in random_graphs().values():
            for p in RATES:
                yield from _drop_edge(operator, graph, p)
                yield from _depth(operator, graph, p)
    elif operator.name in _BY_ROWS:
        graph = random_graphs()["undirected"]
        for p in RATES:
            samples = _samples(_with(operator, p, "layer"), graph, "row")
            theory = _BY_ROWS[operator.name](graph, p)
            yield Measurement.of_samples("E[A] by rows", p, theory, samples)


_BY_ROWS: dict[str, Callable[[Graph, float], Tensor]] = {
    "drop-agg": row_drop_agg,
    "remove-node": row_remove_node,
}


def _drop_edge(operator: EdgeOperator, graph: Graph, p: float) -> Iterator[Measurement]:
    fresh = _with(operator, p, "layer")
    yield Measurement.of_samples(
        "E[A] by rows", p, row_drop_edge(graph, p), _samples(fresh, graph, "row")
    )
    if not operator.symmetric or graph.is_undirected:
        theory = symmetric_drop_edge(graph, p, operator.symmetric)
        samples = _samples(fresh, graph, "symmetric")
        yield Measurement.of_samples("E[A] symmetric", p, theory, samples)


def _depth(operator: EdgeOperator, graph: Graph, p: float) -> Iterator[Measurement]:
    expected, distance = row_drop_edge(graph, p), hop_distance(graph)
    samples = _samples(_with(operator, p, "layer"), graph, "row", DEPTH)
    power = torch.linalg.matrix_power(expected, DEPTH)
    yield Measurement.of_samples(f"E[A]^{DEPTH}, fresh masks", p, power, samples)
    yield Measurement.of_samples(
        f"sensitivity {DEPTH} hops away",
        p,
        sensitivity(expected, distance, DEPTH),
        samples[:, distance == DEPTH],
    )
    yield Measurement.of_samples(
        f"E[A^{DEPTH}], a shared mask",
        p,
        expected_power(graph, p, DEPTH, symmetric=operator.symmetric),
        _samples(_with(operator, p, "forward"), graph, "row", DEPTH),
    )


def _with(operator: Operator, p: float, share: str) -> Operator:
    return type(operator)(**{**operator.options, "p": p, "share": share})


def _samples(
    operator: Operator, graph: Graph, normalization: Normalization, depth: int = 1
) -> Tensor:
    """Return the product of the layers' adjacencies in every copy: (copies, nodes, nodes)."""
    offsets = torch.arange(COPIES).repeat_interleave(graph.edge_index.size(1)) * NODES
    edge_index = graph.edge_index.repeat(1, COPIES) + offsets
    model = nn.ModuleList(_layer(normalization) for _ in range(depth))
    x = torch.eye(NODES).repeat(COPIES, 1)
    with torch.no_grad(), attach(model, operator) as handle:
        handle.operator.start_pass(0)
        for layer in model:
            x = layer(x, edge_index)
        handle.operator.end_pass()
    return x.view(COPIES, NODES, NODES)


def _layer(normalization: Normalization) -> nn.Module:
    """Return a PyG layer that multiplies by the normalized adjacency with self-loops."""
    if normalization == "row":
        rows: nn.Module = SimpleConv(aggr="mean", combine_root="self_loop")
        return rows
    with torch.random.fork_rng(devices=()):  # its own weights are drawn, for nothing
        layer: nn.Module = GCNConv(NODES, NODES, bias=False)
    layer.get_parameter("lin.weight").data = torch.eye(NODES)
    return layer
