"""What masks and kernels need to know of an `edge_index`, prepared once and never stale."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.masks import GOLDEN, HALF, WORD, Mask, column_words, mix, spread

Value = TypeVar("Value")
CSR_REMARK = "Sparse (CSR tensor support|invariant checks)"


@dataclass(eq=False)
class Compressed:
    """Edges grouped by one end: those of row i stand at `pointer[i]:ends[i]`.

    Args:
        pointer: shape (rows + 1,); like all of it int32 where that is wide enough, since kernels
            wait for memory, else int64.
        other: shape (E,), the other end of every edge.
        order: shape (E,), the position of every edge in `edge_index`; None where the edges stand
            there in this order already.
        stops: shape (rows,), where the edges of every row end; None where the next row begins.
    """

    pointer: Tensor
    other: Tensor
    order: Tensor | None
    stops: Tensor | None = None
    _last: list[tuple[Tensor, int, Tensor]] = field(default_factory=list, repr=False)
    _cuts: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @cached_property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.pointer.size(0) - 1

    @property
    def ends(self) -> Tensor:
        """Shape (rows,): where the edges of every row end."""
        return self.pointer[1:] if self.stops is None else self.stops

    @cached_property
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Pointer, others and order as arrays, for the CPU; an empty order for None."""
        order = torch.empty(0, dtype=torch.int64) if self.order is None else self.order
        return self.pointer.numpy(), self.other.numpy(), order.numpy()

    def arrange(self, values: Tensor) -> Tensor:
        """Return values of shape (E, ...), given in the order of `edge_index`, in this one."""
        # A third of the time that brackets take.
        return values if self.order is None else values.index_select(0, self.order)

    def cut(self, parts: int) -> NDArray[np.int64]:
        """Return the rows where parts of as many edges begin, and the number of rows, remembered.

        Args:
            parts: how many parts, of which some may be empty.
        """
        if parts not in self._cuts:
            places = np.arange(parts + 1) * self.other.size(0) // parts
            cuts = np.searchsorted(self.arrays[0], places).clip(max=self.num_rows)
            cuts[0], cuts[-1] = 0, self.num_rows
            self._cuts[parts] = cuts
        return self._cuts[parts]

    def matrix(self, weight: Tensor, num_others: int) -> Tensor:
        """Return a torch CSR matrix of these rows.

        Those of the last two weights that are constants are remembered: two, since training and
        its evaluation take turns.

        Args:
            weight: shape (E,), the entries in the order of `edge_index`.
            num_others: the number of columns.
        """
        for place, (known, version, matrix) in enumerate(self._last):
            if _is_alias(known, weight) and version == weight._version:
                self._last = [self._last[place], *self._last[:place], *self._last[place + 1 :]]
                return matrix
        is_constant = not (weight.requires_grad or weight.is_inference())  # of those no version
        weight = weight.detach()
        matrix = torch.sparse_csr_tensor(
            self.pointer,
            self.other,
            self.arrange(weight),
            (self.num_rows, num_others),
            check_invariants=False,
        )
        if is_constant:
            self._last = [(weight, weight._version, matrix), *self._last[:1]]
        return matrix


class Graph:
    """The derived structure of one `edge_index`, each part computed at its first use.

    Args:
        edge_index: int64, shape (2, E): sources above targets.
        num_sources: number of source nodes; by default just above the highest index.
        num_targets: number of target nodes; by default `num_sources`.

    Raises:
        ParameterError: if `edge_index` is not int64 of shape (2, E), or an index is out of range.

    Example:
        >>> graph = Graph(torch.tensor([[0, 1, 1], [1, 0, 1]]))
        >>> graph.is_undirected, graph.is_loop.tolist()
        (True, [False, False, True])
    """

    def __init__(
        self, edge_index: Tensor, num_sources: int | None = None, num_targets: int | None = None
    ) -> None:
        if edge_index.dtype != torch.int64 or edge_index.dim() != 2 or edge_index.size(0) != 2:
            raise ParameterError(
                "edge_index must be int64 of shape (2, E), "
                f"got {edge_index.dtype} of shape {tuple(edge_index.shape)}"
            )
        self.edge_index = plain(edge_index)
        highest = self.edge_index.amax(1).tolist() if edge_index.size(1) else [-1, -1]
        self.num_sources = max(highest) + 1 if num_sources is None else num_sources
        self.num_targets = self.num_sources if num_targets is None else num_targets
        self._places: dict[tuple[bool, bool, int], Tensor] = {}
        self._blocks: dict[tuple[bool, int], Tensor] = {}
        bounds = self.num_sources, self.num_targets
        for end, bound, top in zip(self.edge_index, bounds, highest, strict=True):
            if end.numel() and (top >= bound or int(end.min()) < 0):
                raise ParameterError(
                    f"edge_index must hold nodes from 0 to {bound - 1}, "
                    f"got {int(end.min())} to {top}"
                )

    @property
    def source(self) -> Tensor:
        """Sources of the edges, int64 of shape (E,)."""
        return self.edge_index[0]

    @property
    def target(self) -> Tensor:
        """Targets of the edges, int64 of shape (E,)."""
        return self.edge_index[1]

    @cached_property
    def is_loop(self) -> Tensor:
        """Boolean of shape (E,): whether an edge joins a node to itself."""
        return self.source == self.target

    @cached_property
    def is_undirected(self) -> bool:
        """Whether every edge stands there in both directions, equally often."""
        forward, _ = torch.sort(self._pair(self.source, self.target))
        backward, _ = torch.sort(self._pair(self.target, self.source))
        return torch.equal(forward, backward)

    @cached_property
    def occurrence(self) -> Tensor | None:
        """How many equal edges stand before each one, int64 of shape (E,); None if all differ."""
        pairs = self._pair(self.source, self.target)
        if bool((pairs[1:] > pairs[:-1]).all()):  # sorted and free of duplicates: the usual case
            return None
        ordered, order = torch.sort(pairs, stable=True)
        repeated = torch.zeros_like(ordered, dtype=torch.bool)
        repeated[1:] = ordered[1:] == ordered[:-1]
        if not bool(repeated.any()):
            return None
        place = torch.arange(len(ordered), device=ordered.device)
        first_of_run = torch.where(repeated, 0, place).cummax(0).values
        return torch.empty_like(place).scatter_(0, order, place - first_of_run)

    @cached_property
    def directed_coordinates(self) -> Tensor:
        """Coordinates of the edges, int64 of shape (E,): a mixture of (source, target, occurrence).

        They do not depend on an edge's position, so every form of one graph has the same masks.
        """
        return self._coordinates(self.source, self.target)

    @cached_property
    def undirected_coordinates(self) -> Tensor:
        """The same for unordered endpoints: both directions of an edge share one coordinate."""
        return self._coordinates(
            torch.minimum(self.source, self.target), torch.maximum(self.source, self.target)
        )

    def coordinates(self, symmetric: bool) -> Tensor:
        """Return the undirected coordinates if `symmetric`, else the directed ones."""
        return self.undirected_coordinates if symmetric else self.directed_coordinates

    @cached_property
    def by_target(self) -> Compressed:
        """Edges grouped by target: the rows of the aggregation."""
        return _compress(self.target, self.source, self.num_targets, self.num_sources)

    @cached_property
    def by_source(self) -> Compressed:
        """Edges grouped by source: the rows of its transpose."""
        return _compress(self.source, self.target, self.num_sources, self.num_targets)

    @cached_property
    def source_words(self) -> Tensor:
        """The hash's words of the sources in the order of `by_target`, as bits of int32.

        Those of the columns of a CSR matrix, entry by entry: half of what its coins cost.
        """
        words = column_words(torch.arange(self.num_sources, device=self.edge_index.device))
        bits = torch.where(words > HALF >> 1, words - (HALF + 1), words).int()
        return bits.index_select(0, self.by_target.other)

    def rows(self, transposed: bool = False) -> Compressed:
        """Return the edges grouped by target, or by source where `transposed`."""
        return self.by_source if transposed else self.by_target

    def places(self, symmetric: bool, transposed: bool = False, copies: int = 1) -> Tensor:
        """Return the coordinates of the edges in the order of `rows(transposed)`, remembered.

        Args:
            symmetric: whether both directions of an edge share a coordinate.
            transposed: in the order of the sources.
            copies: as how many copies of one graph, side by side, this one is seen: edges of
                different copies then have the coordinates that they have in the one graph.
        """
        which = symmetric, transposed, copies
        if which not in self._places:
            coordinates = self.coordinates(symmetric)
            if copies > 1:
                ends = self.source % (self.num_sources // copies)
                others = self.target % (self.num_targets // copies)
                if symmetric:
                    ends, others = torch.minimum(ends, others), torch.maximum(ends, others)
                coordinates = self._coordinates(ends, others)
            self._places[which] = self.rows(transposed).arrange(coordinates)
        return self._places[which]

    def coins(self, mask: Mask, symmetric: bool, transposed: bool = False) -> tuple[Tensor, Mask]:
        """Return the coordinates of the edges, as `places` does, and the mask to ask there.

        Args:
            mask: of one sample, or of several, for which this graph holds a copy each.
            symmetric: whether both directions of an edge share their coins.
            transposed: in the order of the sources.
        """
        if not mask.keys:
            return self.places(symmetric, transposed), mask
        copies = len(mask.keys)
        places = self.places(symmetric, transposed, copies)
        if (transposed, copies) not in self._blocks:
            block = self.target // max(self.num_targets // copies, 1)
            self._blocks[transposed, copies] = self.rows(transposed).arrange(block)
        return spread(mask, places, self._blocks[transposed, copies])

    def _pair(self, first: Tensor, second: Tensor) -> Tensor:
        return first * max(self.num_sources, self.num_targets, 1) + second

    def _coordinates(self, first: Tensor, second: Tensor) -> Tensor:
        coordinates = mix((first << 32) ^ second)
        if self.occurrence is not None:
            coordinates = coordinates + self.occurrence * (GOLDEN - WORD - 1)
        return coordinates


def _compress(rows: Tensor, others: Tensor, num_rows: int, num_others: int) -> Compressed:
    fits = max(len(rows), num_others) < 2**31
    narrow = torch.int32 if fits else torch.int64
    pointer = _pointer(rows, num_rows).to(narrow)
    descents = int((rows[1:] < rows[:-1]).sum())
    if not descents:
        return Compressed(pointer, others.to(narrow), None)
    if rows.device.type == "cpu" and num_rows <= 1 << 16:  # numpy sorts 16 bits by radix
        order = torch.from_numpy(np.argsort(rows.numpy().astype(np.uint16), kind="stable"))
    elif rows.device.type == "cpu" and 3 * descents < len(rows):  # runs, which numpy merges
        order = torch.from_numpy(np.argsort(rows.numpy(), kind="stable"))
    else:
        order = torch.argsort(rows, stable=True)
    return Compressed(pointer, others[order].to(narrow), order)


def _pointer(rows: Tensor, num_rows: int) -> Tensor:
    counts = torch.bincount(rows, minlength=num_rows)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def csr_pattern(pointer: Tensor, columns: Tensor, num_columns: int) -> Graph:
    """Return the pattern of a CSR matrix as a graph from its columns to its rows.

    Example:
        >>> csr_pattern(torch.tensor([0, 1, 1]), torch.tensor([2]), 3).edge_index.tolist()
        [[2], [0]]
    """
    rows = torch.repeat_interleave(pointer.diff())
    return Graph(torch.stack([columns, rows]).long(), num_columns, len(pointer) - 1)


def plain(edge_index: Tensor) -> Tensor:
    """Return the tensor inside of PyG's EdgeIndex, which is a wrapper; any other one as it is.

    The wrapper carries structure of its own along, and no version of its entries.

    Example:
        >>> plain(torch.tensor([[0], [1]])).shape
        torch.Size([2, 1])
    """
    unwrap: Callable[[], Tensor] | None = getattr(edge_index, "as_tensor", None)
    return edge_index if unwrap is None else unwrap()


class _Slot(NamedTuple, Generic[Value]):
    arguments: tuple[object, ...]
    tensors: list[Tensor]
    versions: list[int]
    value: Value


class Memo(Generic[Value]):
    """Remembers what a function made of its last few arguments.

    A tensor is recognised by identity and version, else by comparing its entries; results of a
    tensor that was written to since are forgotten. Writes through `.data`, or through an array that
    shares the memory, move no version and are not noticed. Copies and pickles start empty.

    Args:
        function: what to call for arguments that are not remembered.
        capacity: how many results to keep.

    Example:
        >>> memo = Memo(Graph)
        >>> edge_index = torch.tensor([[0, 1], [1, 0]])
        >>> memo(edge_index, 2) is memo(edge_index.clone(), 2)
        True
        >>> before = memo(edge_index, 2)
        >>> _ = edge_index.zero_()
        >>> memo(edge_index, 2) is before
        False
    """

    def __init__(self, function: Callable[..., Value], capacity: int = 4) -> None:
        self.function = function
        self.capacity = capacity
        self._slots: list[_Slot[Value]] = []

    def __call__(self, *arguments: object) -> Value:
        """Return `function(*arguments)`, remembered or new."""
        # Changed as a whole, never in place: another thread may be reading.
        slots = self._slots
        if slots and _is_identical(slots[0], arguments):
            return slots[0].value
        tensors = [plain(argument) for argument in arguments if isinstance(argument, Tensor)]
        if any(tensor.is_inference() for tensor in tensors):  # they do not say when written to
            return self.function(*arguments)
        slots = [slot for slot in slots if _versions(slot.tensors) == slot.versions]
        found = next((slot for slot in slots if _is_equal(slot.arguments, arguments)), None)
        if found is None:
            with torch.inference_mode(False):  # what is remembered may serve in training later
                value = self.function(*arguments)
        else:
            value = found.value
        latest = _Slot(arguments, tensors, _versions(tensors), value)  # known by identity next time
        others = [slot for slot in slots if slot is not found]
        self._slots = [latest, *others][: self.capacity]
        return value

    def __reduce__(self) -> tuple[object, ...]:
        return Memo, (self.function, self.capacity)


def _versions(tensors: list[Tensor]) -> list[int]:
    return [tensor._version for tensor in tensors]


def _is_identical(slot: _Slot[Any], arguments: tuple[object, ...]) -> bool:
    """Whether these are the very arguments, unchanged: what is asked at every call of a layer."""
    return (
        len(slot.arguments) == len(arguments)
        and all(map(_is, slot.arguments, arguments))
        and _versions(slot.tensors) == slot.versions
    )


def _is(known: object, argument: object) -> bool:
    """Whether this is the same object, number, or memory: nothing that takes a look at entries."""
    if type(known) is Tensor and type(argument) is Tensor:
        return known is argument or _is_alias(known, argument)
    return known is argument or (type(known) is type(argument) is int and known == argument)


def _is_equal(known: tuple[object, ...], arguments: tuple[object, ...]) -> bool:
    return len(known) == len(arguments) and all(map(_same, known, arguments))


def _same(known: object, argument: object) -> bool:
    if known is argument:
        return True
    if type(known) is not type(argument):
        return False
    if not (isinstance(known, Tensor) and isinstance(argument, Tensor)):
        return known == argument
    known, argument = plain(known), plain(argument)  # a wrapper has no memory of its own
    return (
        known.shape == argument.shape
        and known.device == argument.device
        and known.dtype == argument.dtype
        and (_is_alias(known, argument) or torch.equal(known, argument))
    )


def _is_alias(known: Tensor, argument: Tensor) -> bool:
    """Whether two tensors are the same memory, as the results of two calls of `crow_indices()`."""
    return (
        known.data_ptr() == argument.data_ptr()
        and known.shape == argument.shape
        and known.stride() == argument.stride()
        and known.dtype == argument.dtype
        and known.device == argument.device
    )


def is_sparse_adjacency(adjacency: object) -> bool:
    """Whether this is a torch sparse matrix in place of an `edge_index`.

    Example:
        >>> is_sparse_adjacency(to_csr(torch.eye(2)))
        True
    """
    return isinstance(adjacency, Tensor) and adjacency.layout != torch.strided


def endpoints(adjacency: Tensor) -> Tensor:
    """Return the edges of an adjacency as int64 of shape (2, E), in the order of its entries.

    Args:
        adjacency: an `edge_index`, or a torch sparse matrix (COO, CSR or CSC) whose rows are the
            targets and whose columns are the sources, PyG's `adj_t`.

    Raises:
        ParameterError: if it is neither.

    Example:
        >>> endpoints(to_csr(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))).tolist()
        [[1], [0]]
    """
    if not isinstance(adjacency, Tensor):
        raise ParameterError(
            "edges must be an edge_index or a torch sparse matrix, "
            f"got {type(adjacency).__name__}; convert it with to_torch_sparse_csr_tensor()"
        )
    match adjacency.layout:
        case torch.strided:
            ends = plain(adjacency)
        case torch.sparse_coo:
            ends = adjacency._indices().flip(0)
        case torch.sparse_csr:
            targets = torch.repeat_interleave(adjacency.crow_indices().diff())
            ends = torch.stack([adjacency.col_indices(), targets])
        case torch.sparse_csc:
            sources = torch.repeat_interleave(adjacency.ccol_indices().diff())
            ends = torch.stack([sources, adjacency.row_indices()])
        case layout:
            raise ParameterError(f"edges must be COO, CSR or CSC where sparse, got {layout}")
    return ends.long() if ends.dtype == torch.int32 else ends  # scipy's indices are int32


def entries(adjacency: Tensor) -> Tensor:
    """Return the stored values of a torch sparse matrix, shape (E, ...).

    Example:
        >>> entries(to_csr(torch.eye(2))).tolist()
        [1.0, 1.0]
    """
    if adjacency.layout == torch.sparse_coo and not adjacency.is_coalesced():
        return adjacency._values()  # without a derivative, which torch gives coalesced ones alone
    return adjacency.values()


def select_edges(adjacency: Tensor, kept: Tensor, values: Tensor | None = None) -> Tensor:
    """Keep some edges of an adjacency, in their order and layout.

    Args:
        adjacency: as in `endpoints`.
        kept: boolean of shape (E,).
        values: new values for all E entries of a sparse matrix; by default its own.

    Example:
        >>> adjacency = to_csr(torch.eye(2))
        >>> select_edges(adjacency, torch.tensor([True, False])).to_dense().tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    if adjacency.layout == torch.strided:
        return plain(adjacency)[:, kept]
    chosen = (entries(adjacency) if values is None else values)[kept]
    size = adjacency.shape
    if adjacency.layout == torch.sparse_coo:
        indices, coalesced = adjacency._indices()[:, kept], adjacency.is_coalesced()
        return torch.sparse_coo_tensor(
            indices, chosen, size, is_coalesced=coalesced, check_invariants=False
        )
    sources, targets = endpoints(adjacency)[:, kept]
    if adjacency.layout == torch.sparse_csr:
        pointer = _pointer(targets, size[0])
        return torch.sparse_csr_tensor(pointer, sources, chosen, size, check_invariants=False)
    pointer = _pointer(sources, size[1])
    return torch.sparse_csc_tensor(pointer, targets, chosen, size, check_invariants=False)


def to_csr(x: Tensor) -> Tensor:
    """Return a matrix in CSR layout, without torch's remark that the layout is in beta.

    Example:
        >>> to_csr(torch.eye(2)).layout
        torch.sparse_csr
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", CSR_REMARK)
        return x.to_sparse_csr()


def csr_matrix(pointer: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the CSR matrix of these parts, without that remark either.

    Example:
        >>> csr_matrix(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 2)).to_dense()
        tensor([[1., 0.]])
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", CSR_REMARK)
        return torch.sparse_csr_tensor(pointer, columns, values, shape, check_invariants=False)
