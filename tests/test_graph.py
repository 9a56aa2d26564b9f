"""The structure derived from edges, against brute force, and the memory that is never stale."""

import copy
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric import EdgeIndex

from gnndrop.errors import ParameterError
from gnndrop.graph import (
    Compressed,
    Graph,
    Memo,
    csr_pattern,
    endpoints,
    entries,
    is_sparse_adjacency,
    plain,
    select_edges,
    to_csr,
)
from gnndrop.masks import HALF, column_words

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

Edges = list[tuple[int, int]]
NODES = 5  # few, so that loops, duplicates and isolated nodes are common
edges_of_graphs = st.lists(
    st.tuples(st.integers(0, NODES - 1), st.integers(0, NODES - 1)), max_size=16
)


def edge_index_of(edges: Edges) -> Tensor:
    return torch.tensor(edges, dtype=torch.int64).view(-1, 2).t().contiguous()


def graph_of(edges: Edges) -> Graph:
    return Graph(edge_index_of(edges), NODES)


def occurrences_of(edges: Edges) -> list[int]:
    return [edges[:position].count(edge) for position, edge in enumerate(edges)]


# --- the graph ----------------------------------------------------------------------------------


@given(edges_of_graphs)
def test_occurrence_counts_equal_edges_before(edges: Edges) -> None:
    expected = occurrences_of(edges)
    occurrence = graph_of(edges).occurrence
    if occurrence is None:
        assert not any(expected)
    else:
        assert occurrence.tolist() == expected


@given(edges_of_graphs, st.integers(0, 3), st.integers(0, 3))
def test_occurrence_between_two_sets_of_nodes(edges: Edges, sources: int, targets: int) -> None:
    """Whichever side is the larger one, no two edges are taken for equal."""
    graph = Graph(edge_index_of(edges), NODES + 5 * sources, NODES + 5 * targets)
    moved = [(u + 5 * sources, v + 5 * targets) for u, v in edges]
    found = Graph(edge_index_of(moved), graph.num_sources, graph.num_targets).occurrence
    expected = occurrences_of(edges)
    assert any(expected) if found is not None else not any(expected)
    assert found is None or found.tolist() == expected


def test_no_two_edges_are_taken_for_equal_where_targets_are_many() -> None:
    assert Graph(torch.tensor([[1, 0], [0, 2]]), 2, 5).occurrence is None
    assert Graph(torch.tensor([[2, 0], [0, 1]]), 5, 2).occurrence is None


@given(edges_of_graphs)
def test_coordinates_are_equal_exactly_for_equal_edges(edges: Edges) -> None:
    """Coordinates are names: equal where (source, target, occurrence) are, different elsewhere."""
    graph = graph_of(edges)
    numbered = [(*edge, count) for edge, count in zip(edges, occurrences_of(edges), strict=True)]
    unordered = [(min(u, v), max(u, v), count) for u, v, count in numbered]
    for names, coordinates in (
        (numbered, graph.directed_coordinates.tolist()),
        (unordered, graph.undirected_coordinates.tolist()),
    ):
        pairs = set(zip(names, coordinates, strict=True))
        assert len(pairs) == len(set(names)) == len(set(coordinates))
    assert torch.equal(graph.coordinates(True), graph.undirected_coordinates)
    assert torch.equal(graph.coordinates(False), graph.directed_coordinates)


@given(edges_of_graphs, st.randoms(use_true_random=False))
def test_coordinates_do_not_depend_on_positions(edges: Edges, random) -> None:
    def named(edges: Edges, symmetric: bool) -> Counter[tuple[tuple[int, int], int]]:
        coordinates = graph_of(edges).coordinates(symmetric).tolist()
        return Counter(zip(edges, coordinates, strict=True))

    shuffled = random.sample(edges, len(edges))
    for symmetric in (False, True):
        assert named(edges, symmetric) == named(shuffled, symmetric)


@given(edges_of_graphs)
def test_both_directions_share_undirected_coordinates(edges: Edges) -> None:
    reverse = [(v, u) for u, v in edges]
    assert torch.equal(
        graph_of(edges).undirected_coordinates, graph_of(reverse).undirected_coordinates
    )
    if any(u != v for u, v in edges):
        assert not torch.equal(
            graph_of(edges).directed_coordinates, graph_of(reverse).directed_coordinates
        )


def test_coordinates_do_not_depend_on_the_number_of_nodes() -> None:
    edge_index = torch.tensor([[0, 1, 1, 3], [1, 0, 0, 2]])
    small, large = Graph(edge_index), Graph(edge_index, 10**6, 10**7)
    for symmetric in (False, True):
        assert torch.equal(small.coordinates(symmetric), large.coordinates(symmetric))


def test_coordinates_of_large_graphs_do_not_collide() -> None:
    """All pairs of small numbers and some of large ones have coordinates of their own."""
    small = torch.cartesian_prod(torch.arange(700), torch.arange(700)).t()
    large = torch.cartesian_prod(torch.arange(99), torch.arange(99)).t() + 2**31 - 100
    for edge_index in (small, large, torch.cat([small, small], 1)):
        coordinates = Graph(edge_index).directed_coordinates
        assert len(coordinates.unique()) == edge_index.size(1)


@given(edges_of_graphs)
def test_undirected_means_as_many_edges_in_both_directions(edges: Edges) -> None:
    assert graph_of(edges).is_undirected == (Counter(edges) == Counter((v, u) for u, v in edges))
    both = edges + [(v, u) for u, v in edges]
    assert graph_of(both).is_undirected
    assert not graph_of([*both, (0, 1)]).is_undirected


@given(edges_of_graphs)
def test_self_loops(edges: Edges) -> None:
    assert graph_of(edges).is_loop.tolist() == [u == v for u, v in edges]


@given(edges_of_graphs)
def test_compressed_forms_list_the_edges_of_every_row_in_order(edges: Edges) -> None:
    graph = graph_of(edges)
    by_target = [
        [(e, u) for e, (u, v) in enumerate(edges) if v == node] for node in range(graph.num_targets)
    ]
    by_source = [
        [(e, v) for e, (u, v) in enumerate(edges) if u == node] for node in range(graph.num_sources)
    ]
    assert listed(graph.by_target) == by_target
    assert listed(graph.by_source) == by_source


def listed(rows: Compressed) -> list[list[tuple[int, int]]]:
    places = rows.arrange(torch.arange(len(rows.other)))
    pairs = list(zip(places.tolist(), rows.other.tolist(), strict=True))
    bounds = rows.pointer.tolist()
    return [pairs[a:b] for a, b in pairwise(bounds)]


def test_bipartite_graphs_have_two_sizes() -> None:
    graph = Graph(torch.tensor([[0, 4, 4], [1, 0, 1]]), 6, 2)
    assert listed(graph.by_target) == [[(1, 4)], [(0, 0), (2, 4)]]
    assert listed(graph.by_source) == [[(0, 1)], [], [], [], [(1, 0), (2, 1)], []]
    assert not graph.is_undirected


def test_the_number_of_nodes_is_read_off_the_edges_if_not_given() -> None:
    assert Graph(torch.tensor([[0, 7], [2, 3]])).num_sources == 8
    assert Graph(torch.tensor([[0, 2], [7, 3]])).num_targets == 8
    assert Graph(torch.tensor([[0], [1]]), 5).num_targets == 5


@pytest.mark.parametrize("nodes", [None, 0, 3])
def test_graphs_without_edges(nodes: int | None) -> None:
    graph = Graph(torch.empty(2, 0, dtype=torch.int64), nodes)
    assert graph.num_sources == graph.num_targets == (nodes or 0)
    assert graph.is_undirected
    assert graph.occurrence is None
    assert graph.coordinates(True).shape == graph.coordinates(False).shape == (0,)
    assert graph.by_target.pointer.tolist() == [0] * ((nodes or 0) + 1)


@pytest.mark.parametrize(
    "edge_index",
    [
        torch.tensor([[0.0], [1.0]]),
        torch.tensor([[0], [1]], dtype=torch.int32),
        torch.tensor([[True], [False]]),
        torch.tensor([0, 1]),
        torch.tensor([[0, 1, 2]]),
        torch.zeros(3, 2, dtype=torch.int64),
        torch.zeros(2, 1, 1, dtype=torch.int64),
    ],
)
def test_what_is_no_edge_index_is_refused(edge_index: Tensor) -> None:
    with pytest.raises(ParameterError, match=r"int64 of shape \(2, E\), got"):
        Graph(edge_index, 3)


@pytest.mark.parametrize("bad", [[[3], [0]], [[0], [3]], [[-1], [0]], [[0], [-1]], [[-1], [-1]]])
@pytest.mark.parametrize("sizes", [(3,), (3, 3), (4, 2)])
def test_nodes_out_of_range_are_refused(bad: list[list[int]], sizes: tuple[int, ...]) -> None:
    fits = 0 <= bad[0][0] < sizes[0] and 0 <= bad[1][0] < sizes[-1]
    if not fits:
        with pytest.raises(ParameterError, match="must hold nodes from 0 to"):
            Graph(torch.tensor(bad), *sizes)
        with pytest.raises(ParameterError, match="must hold nodes from 0 to"):
            Graph(torch.cat([torch.tensor(bad), torch.zeros(2, 1, dtype=torch.int64)], 1), *sizes)


def test_negative_nodes_are_refused_also_where_no_size_is_given() -> None:
    with pytest.raises(ParameterError, match="must hold nodes from 0"):
        Graph(torch.tensor([[-1], [0]]))


def test_edge_index_subclasses_are_unwrapped() -> None:
    plain_index = torch.tensor([[0, 1, 1], [1, 0, 1]])
    edge_index = EdgeIndex(plain_index, sparse_size=(2, 2))
    graph = Graph(edge_index, 2)
    assert type(plain(edge_index)) is type(graph.edge_index) is type(graph.source) is Tensor
    assert plain(plain_index) is plain_index
    assert torch.equal(graph.directed_coordinates, Graph(plain_index, 2).directed_coordinates)
    assert graph.is_undirected


def test_a_csr_pattern_is_the_graph_of_its_entries() -> None:
    matrix = (torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    sparse = matrix.to_sparse_csr()
    pattern = csr_pattern(sparse.crow_indices(), sparse.col_indices(), 4)
    rows, columns = matrix.nonzero(as_tuple=True)
    assert torch.equal(pattern.edge_index, torch.stack([columns, rows]))
    assert (pattern.num_sources, pattern.num_targets) == (4, 6)


# --- the memory ---------------------------------------------------------------------------------


class Counting:
    """A function that counts its calls and returns a copy of its tensors' sum."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *arguments: object) -> list[object]:
        self.calls += 1
        return [item.tolist() if isinstance(item, Tensor) else item for item in arguments]


@pytest.fixture
def function() -> Counting:
    return Counting()


@pytest.fixture
def memo(function: Counting) -> Memo[list[object]]:
    return Memo(function, capacity=2)


@pytest.fixture
def edge_index() -> Tensor:
    return torch.tensor([[0, 1], [1, 0]])


WRITES = {
    "entry": lambda t: t.__setitem__((0, 0), 1),
    "zero_": Tensor.zero_,
    "out=": lambda t: torch.add(t, 1, out=t),
    "through a view": lambda t: t[0].add_(1),
    "through a slice": lambda t: t[:, 1:].fill_(0),
    "through detach": lambda t: t.detach().add_(1),
    "copy_": lambda t: t.copy_(torch.ones_like(t)),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_noticed(memo, function, edge_index, write) -> None:
    before = memo(edge_index, 3)
    assert memo(edge_index, 3) is before
    WRITES[write](edge_index)
    assert memo(edge_index, 3)[0] == edge_index.tolist() != before[0]
    assert function.calls == 2


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_noticed_by_who_asks_with_an_equal_tensor(memo, edge_index, write) -> None:
    """The remembered tensor is compared by its present entries: they are not those of then."""
    memo(edge_index, 3)
    WRITES[write](edge_index)
    assert memo(edge_index.clone(), 3)[0] == edge_index.tolist()


def test_a_view_remembers_nothing_that_its_base_has_lost(memo) -> None:
    base = torch.tensor([[0, 1, 2], [1, 0, 2]])
    assert memo(base[:, :2], 3)[0] == [[0, 1], [1, 0]]
    base[0, 0] = 2
    assert memo(base[:, :2], 3)[0] == [[2, 1], [1, 0]]


def test_an_edge_index_that_was_written_to_is_noticed(memo, edge_index) -> None:
    wrapped = EdgeIndex(edge_index, sparse_size=(3, 3))
    before = memo(wrapped, 3)
    assert memo(wrapped, 3) is before
    edge_index[0, 0] = 2
    assert memo(wrapped, 3)[0] == [[2, 1], [1, 0]]
    wrapped.as_tensor()[0, 0] = 1
    assert memo(wrapped, 3)[0] == [[1, 1], [1, 0]]


def test_equal_tensors_are_recognised(memo, function, edge_index) -> None:
    before = memo(edge_index, 2, None, "sum")
    assert memo(edge_index.clone(), 2, None, "sum") is before
    assert function.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        (torch.tensor([[0, 1], [1, 1]]), 2, True),
        (torch.tensor([[0, 1], [1, 0]]), 3, True),
        (torch.tensor([[0, 1], [1, 0]]), 2, False),
        (torch.tensor([[0, 1], [1, 0]]), 2, 1),
        (torch.tensor([[0, 1], [1, 0]]), 2.0, True),
        (torch.tensor([[0, 1], [1, 0]]), 2),
        (torch.tensor([[0, 1], [1, 0]]), torch.tensor(2), True),
        (torch.tensor([[0, 1], [1, 0]]), None, True),
        (torch.tensor([[0.0, 1.0], [1.0, 0.0]]), 2, True),
        (torch.tensor([[0, 1], [1, 0]], dtype=torch.int32), 2, True),
        (torch.tensor([[0, 1, 0], [1, 0, 0]]), 2, True),
        (torch.tensor([0, 1, 1, 0]), 2, True),
    ],
)
def test_other_arguments_have_other_results(memo, function, edge_index, other) -> None:
    memo(edge_index, 2, True)
    memo(*other)
    assert function.calls == 2
    memo(*other)
    memo(edge_index, 2, True)
    assert function.calls == 2


def test_the_least_recently_used_is_forgotten(memo, function) -> None:
    first, second, third = (torch.full((2, 1), k) for k in range(3))
    memo(first)
    memo(second)
    memo(first)
    memo(third)  # forgets the second
    assert function.calls == 3
    memo(first)
    memo(third)
    assert function.calls == 3
    memo(second)
    assert function.calls == 4


def test_tensors_of_inference_mode_are_not_remembered(memo, function) -> None:
    with torch.inference_mode():
        edge_index = torch.tensor([[0], [1]])
        memo(edge_index)
        edge_index.zero_()
        assert memo(edge_index)[0] == [[0], [0]]
    assert function.calls == 2


def test_what_is_nearly_the_same_is_another_question(edge_index) -> None:
    """The same memory read as another type or shape, fewer arguments, True for 1."""
    memo = Memo(lambda *arguments: arguments, capacity=9)
    floats = edge_index.view(torch.float64)
    questions = [
        (edge_index, 1),
        (edge_index,),
        (edge_index, True),
        (edge_index, 1.0),
        (edge_index, None),
        (floats, 1),
        (edge_index.view(4), 1),
        (edge_index.t(), 1),
    ]
    for _ in range(3):
        for question in questions:
            assert list(map(type, memo(*question))) == list(map(type, question))
            assert len(memo(*question)) == len(question)
            assert memo(*question)[0].dtype == question[0].dtype
            assert memo(*question)[0].shape == question[0].shape
            assert memo(*question)[0].equal(question[0])


def test_another_tensor_of_the_same_memory_is_known_without_a_look(memo, function) -> None:
    matrix = to_csr(torch.eye(3))
    before = memo(matrix.crow_indices(), 3)
    assert memo(matrix.crow_indices(), 3) is before
    matrix.crow_indices()[1] = 0
    assert memo(matrix.crow_indices(), 3)[0] == [0, 0, 2, 3]
    assert function.calls == 2


def test_results_of_inference_mode_serve_in_training() -> None:
    memo = Memo(lambda tensor: tensor + 1)
    weight = torch.ones(3)
    with torch.inference_mode():
        remembered = memo(weight)
    parameter = torch.ones(3, requires_grad=True)
    (memo(weight) * parameter).sum().backward()
    assert memo(weight) is remembered
    assert parameter.grad.tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, copy.copy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_copies_start_empty(clone, edge_index) -> None:
    memo = Memo(Graph, capacity=3)
    known = memo(edge_index, 2)
    other = clone(memo)
    assert (other.function, other.capacity) == (Graph, 3)
    assert other(edge_index, 2) is not known
    assert memo(edge_index, 2) is known


def test_an_error_is_not_remembered(memo) -> None:
    graphs = Memo(Graph)
    edge_index = torch.tensor([[0], [5]])
    for _ in range(2):
        with pytest.raises(ParameterError):
            graphs(edge_index, 3)
    assert graphs(edge_index, 6).num_sources == 6


@given(edges_of_graphs, st.sampled_from([1, 2, 3, 16]))
def test_cuts_share_the_edges_out(edges: Edges, parts: int) -> None:
    """Every row belongs to one part, and no part has more than its share and a row."""
    graph = graph_of(edges)
    rows = graph.by_target
    cuts = rows.cut(parts)
    assert cuts[0] == 0
    assert cuts[-1] == graph.num_targets
    assert len(cuts) == parts + 1
    work = rows.pointer[torch.from_numpy(cuts)].diff()
    longest = int(rows.pointer.diff().max()) if graph.num_targets else 0
    assert bool((work >= 0).all())
    assert int(work.sum()) == len(edges)
    assert int(work.max()) <= len(edges) // parts + 1 + longest
    assert rows.cut(parts) is cuts


def test_threads_may_share_a_memory() -> None:
    memo = Memo(lambda tensor: tensor.sum().item(), capacity=2)
    tensors = [torch.full((2, 2), k) for k in range(6)]

    def ask(number: int) -> bool:
        return all(memo(tensors[(number * k) % 6]) == 4 * ((number * k) % 6) for k in range(300))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, [1, 2, 3, 5]))


# --- adjacencies --------------------------------------------------------------------------------


def adjacency_of(layout: str, edge_index: Tensor, values: Tensor, nodes: int) -> Tensor:
    """Return the same edges in some form; sparse ones have targets as rows."""
    shape = nodes, nodes
    coo = torch.sparse_coo_tensor(edge_index.flip(0), values, shape)
    match layout:
        case "edge_index":
            return edge_index
        case "EdgeIndex":
            return EdgeIndex(edge_index, sparse_size=shape)
        case "uncoalesced":
            return coo
        case "coo":
            return coo.coalesce()
        case "csr":
            return coo.to_sparse_csr()
        case _:
            return coo.to_sparse_csc()


LAYOUTS = ["edge_index", "EdgeIndex", "uncoalesced", "coo", "csr", "csc"]
SPARSE = LAYOUTS[2:]


def to_entries(adjacency: Tensor, values: Tensor) -> list[tuple[int, int, float]]:
    ends = endpoints(adjacency)
    carried = entries(adjacency) if is_sparse_adjacency(adjacency) else values
    return sorted(zip(*ends.tolist(), carried.tolist(), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
@given(edges_of_graphs, st.randoms(use_true_random=False))
def test_every_form_has_the_same_edges_and_coordinates(layout, edges, random) -> None:
    edges = sorted(set(edges))
    edge_index, values = edge_index_of(edges), torch.arange(1.0, len(edges) + 1)
    adjacency = adjacency_of(layout, edge_index, values, NODES)
    expected = sorted((u, v, float(k)) for k, (u, v) in enumerate(edges, 1))
    assert is_sparse_adjacency(adjacency) == (layout in SPARSE)
    assert to_entries(adjacency, values) == expected
    found = Graph(endpoints(adjacency), NODES)
    for symmetric in (False, True):
        ends = zip(*found.edge_index.tolist(), strict=True)
        by_ends = dict(zip(ends, found.coordinates(symmetric).tolist(), strict=True))
        wanted = Graph(edge_index, NODES).coordinates(symmetric).tolist()
        assert [by_ends[edge] for edge in edges] == wanted
    kept = torch.tensor([random.random() < 0.5 for _ in edges], dtype=torch.bool)
    chosen = select_edges(adjacency, kept)
    assert chosen.layout == adjacency.layout
    remaining = list(zip(*endpoints(adjacency)[:, kept].tolist(), strict=True))
    assert list(zip(*endpoints(chosen).tolist(), strict=True)) == remaining
    if layout in SPARSE:
        assert chosen.shape == adjacency.shape
        assert torch.equal(entries(chosen), entries(adjacency)[kept])
        if chosen.layout == torch.sparse_coo:
            assert chosen.is_coalesced() == adjacency.is_coalesced()
        doubled = select_edges(adjacency, kept, entries(adjacency) * 2)
        assert torch.equal(doubled.to_dense(), chosen.to_dense() * 2)


def test_duplicate_entries_of_a_coo_matrix_are_edges_of_their_own() -> None:
    edge_index = torch.tensor([[0, 0, 1], [1, 1, 0]])
    adjacency = adjacency_of("uncoalesced", edge_index, torch.tensor([1.0, 2.0, 3.0]), 2)
    assert torch.equal(endpoints(adjacency), edge_index)
    chosen = select_edges(adjacency, torch.tensor([False, True, True]))
    assert chosen.to_dense().tolist() == [[0, 3], [2, 0]]


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
def test_learnable_entries_keep_their_derivative(layout: str) -> None:
    edge_index = torch.tensor([[0, 1, 2], [1, 0, 2]])
    values = torch.ones(3, requires_grad=True)
    adjacency = adjacency_of(layout, edge_index, values, 3)
    entries(select_edges(adjacency, torch.tensor([True, False, True]))).sum().backward()
    assert sorted(values.grad.tolist()) == [0, 1, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_selecting_changes_nothing_of_the_original(layout: str) -> None:
    edge_index, values = torch.tensor([[0, 1], [1, 0]]), torch.tensor([1.0, 2.0])
    adjacency = adjacency_of(layout, edge_index, values, 2)
    before = to_entries(adjacency, values)
    chosen = select_edges(adjacency, torch.tensor([True, True]))
    (entries(chosen) if layout in SPARSE else chosen).zero_()
    assert to_entries(adjacency, values) == before


@pytest.mark.parametrize("what", [None, "edges", [[0], [1]]])
def test_what_is_no_adjacency_is_refused(what: object) -> None:
    with pytest.raises(ParameterError, match="must be an edge_index or a torch sparse matrix"):
        endpoints(what)


def test_block_sparse_matrices_are_refused() -> None:
    with pytest.raises(ParameterError, match="must be COO, CSR or CSC"):
        endpoints(torch.eye(4).to_sparse_bsr((2, 2)))


def test_words_of_the_columns_of_a_matrix() -> None:
    """Also of the last words, whose first bit is set."""
    pattern = csr_pattern(torch.tensor([0, 2, 2, 5]), torch.tensor([0, 3, 1, 2, 3]), 4)
    expected = column_words(torch.tensor([0, 3, 1, 2, 3]))
    assert int(expected.max()) >= 2**31
    assert (pattern.source_words.long() & HALF).equal(expected)
