"""The contract catches mistakes, each by the clause that it breaks."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gnndrop import testing
from gnndrop.graph import Graph
from gnndrop.masks import Mask
from gnndrop.operators import (
    AlphaDropout,
    DropBlock,
    DropEdge,
    DropFeature,
    DropMessage,
    DropNode,
    Dropout,
    Operator,
)
from gnndrop.testing import ContractError, check_operator


@pytest.fixture(autouse=True)
def fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake shows early."""
    monkeypatch.setattr(testing, "SAMPLES", 300)


BROKEN: dict[str, tuple[type[Operator], set[str]]] = {}


def breaks(*clauses: str) -> Callable[[type[Operator]], type[Operator]]:
    """Collect a broken operator, and the clauses that must say so."""

    def collect(operator: type[Operator]) -> type[Operator]:
        # Plug-in authors' classes lie in modules, where pickle finds them.
        globals()[operator.__name__] = operator
        operator.__qualname__ = operator.__name__
        BROKEN[operator.__name__] = operator, set(clauses)
        return operator

    return collect


IDENTITY = "evaluation and p = 0 are the identity to the bit"
SEEDS = "seeds decide, copies agree"
RATE = "the rate is p"
ZEROS = "zeros at p = 1"
INPUTS = "the inputs are not modified"
DEGENERATE = "degenerate graphs"
TRACES = "attaching and removing leaves no trace"
TRAINING = "torch's seed decides in training"
FORMS = "every form of a graph has the same masks"
GRADIENTS = "gradients are zero exactly where dropped"
SPARSE = "sparse features are masked like dense ones"
EDGES = "kept edges are edges, with their own weights"
LOOPS = "self-loops stay where they are protected"
SYMMETRY = "both directions of an edge share their coin where symmetric"
SHARE = "masks are fresh or shared as declared"
EXPECTATION = "expectation"
COVARIANCE = "covariance by the axes"
DECLARED = "covariance as declared"
TWO_LAYERS = "expectation of two layers"
REFUSALS = "rates outside of [0, 1] are refused"
SPEC = "its spec builds it again"


def changed(mask: Mask, **fields: Any) -> Mask:
    return Mask(**{**vars(mask), **fields})


# 1. Active at evaluation, inactive in training.


@breaks(IDENTITY, TRACES)
class ActiveInEvaluation(Dropout):
    @property
    def is_active(self) -> bool:
        return self.p > 0


@breaks(SEEDS, RATE, ZEROS, TRAINING, COVARIANCE)
class NeverActive(DropNode):
    def forward(self, x: Tensor) -> Tensor:
        return x

    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        return x


# 2. The wrong scale.


@breaks(EXPECTATION, COVARIANCE)
class ScaledByOneOverP(Dropout):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), scale=1 / self.p)


@breaks(EXPECTATION, COVARIANCE)
class ForgetsScaling(DropMessage):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), scale=1.0)


@breaks(EXPECTATION, COVARIANCE, EDGES)
class ForgetsScalingEdges(DropEdge):
    def __init__(self, p: float = 0.5, rescale: str = "inverse") -> None:
        super().__init__(p, "layer", rescale)
        self.share, self.symmetric, self.protect_self_loops = "layer", None, True

    @property
    def options(self) -> dict[str, Any]:
        return {"p": self.p, "rescale": self.rescale}

    def edge_scale(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        return torch.ones_like(super().edge_scale(graph, mask, bipartite))


@breaks(RATE, EXPECTATION)
class KeepsAtRateP(Dropout):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), p=1 - self.p)


@breaks(ZEROS, DEGENERATE)
class NanAtOne(Dropout):
    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        ones = changed(mask, scale=1.0)
        return super().mask_features(x, ones, node_dim) / torch.tensor(1 - self.p)


@breaks(DEGENERATE)
class NanMessagesAtOne(DropMessage):
    def mask_messages(
        self, messages: Tensor, coordinates: Tensor, mask: Mask, edge_dim: int = 0
    ) -> Tensor:
        ones = changed(mask, scale=1.0)
        masked = super().mask_messages(messages, coordinates, ones, edge_dim)
        return masked / torch.tensor(1 - self.p)


# 3. and 4. Stale masks, changed inputs.


@breaks(INPUTS, TRACES)
class InPlace(Dropout):
    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        return x.copy_(super().mask_features(x, mask, node_dim))


@breaks(INPUTS)
class InPlaceWeights(DropEdge):
    def forward(
        self, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        if self.is_active and edge_weight is not None:
            edge_weight.detach().mul_(2).div_(2)
        return super().forward(edge_index, edge_weight)


@breaks(SEEDS, TRAINING, EXPECTATION)
class SameMaskForAllSeeds(DropNode):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), key=42)


@breaks(SHARE, TWO_LAYERS)
class FreshThoughShared(DropFeature):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.count = 0
        self.share = "forward"

    def start_pass(self, seed: int | None = None) -> "FreshThoughShared":
        self.count = 0
        return super().start_pass(seed)

    def next_mask(self, layer: int = 0) -> Mask:
        mask = super().next_mask(layer)
        self.count += 1
        return changed(mask, key=mask.key ^ self.count)


@breaks(SHARE, TWO_LAYERS)
class SharedThoughFresh(DropFeature):
    def next_mask(self, layer: int = 0) -> Mask:
        self._pass.calls.clear()
        return super().next_mask(0)


# 5. Self-loops.


@breaks(LOOPS, EXPECTATION)
class DropsProtectedLoops(DropEdge):
    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        return super().kept_edges(graph, mask, bipartite=True)


@breaks(LOOPS, EDGES)
class RescalesProtectedLoops(DropEdge):
    def __init__(self, p: float = 0.5, share: str = "layer", rescale: str = "inverse") -> None:
        super().__init__(p, share, rescale)  # type: ignore[arg-type]  # a literal

    @property
    def options(self) -> dict[str, Any]:
        names = ("p", "share", "rescale")
        return {name: getattr(self, name) for name in names} | {"protect_self_loops": True}

    def edge_scale(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        return super().edge_scale(graph, mask, bipartite=True)


# 6. Symmetry.


@breaks(SYMMETRY, COVARIANCE)
class AsymmetricCoins(DropEdge):
    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        other = copy.copy(self)
        other.symmetric = False
        return DropEdge.kept_edges(other, graph, mask, bipartite)


# 8. The axes.


@breaks(COVARIANCE)
class OneCoinPerRow(Dropout):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), by_column=False)


@breaks(COVARIANCE)
class OneCoinPerEntry(DropNode):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), by_column=True)


@breaks(COVARIANCE)
class OneCoinPerEntryOfChannels(DropFeature):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), by_row=True)


@breaks(COVARIANCE)
class OneCoinPerMessage(DropMessage):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), by_column=False)


@breaks(DECLARED)
class OneCoinPerRowOfAlpha(AlphaDropout):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), by_column=False)


@breaks(DECLARED)
class BlocksOfEntries(DropBlock):
    def next_mask(self, layer: int = 0) -> Mask:
        return changed(super().next_mask(layer), by_column=True)


# 9. Misaligned edge data.


@breaks(EDGES)
class MisalignedWeights(DropEdge):
    def forward(
        self, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        kept, weight = super().forward(edge_index, edge_weight)
        if self.is_active and weight is not None:
            weight = weight.roll(1, 0)
        return kept, weight


@breaks(EDGES)
class ForgetsWeights(DropEdge):
    def forward(
        self, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        kept, weight = super().forward(edge_index, edge_weight)
        if self.is_active and weight is not None:
            weight = torch.ones_like(weight)
        return kept, weight


@breaks(EDGES, FORMS)
class EdgesByPosition(DropEdge):
    def kept_edges(self, graph: Graph, mask: Mask, bipartite: bool = False) -> Tensor:
        kept = torch.empty(graph.edge_index.size(1), dtype=torch.bool)
        order = torch.argsort(super().kept_edges(graph, mask, bipartite).int(), stable=True)
        generator = torch.Generator().manual_seed(mask.key >> 1)
        kept[order.sort().values] = torch.rand(len(kept), generator=generator) >= self.p
        return kept | graph.is_loop


@breaks(FORMS)
class MessagesByPosition(DropMessage):
    def mask_messages(
        self, messages: Tensor, coordinates: Tensor, mask: Mask, edge_dim: int = 0
    ) -> Tensor:
        positions = torch.arange(len(coordinates))
        return super().mask_messages(messages, positions, mask, edge_dim)


@breaks(SPARSE)
class SparseBecomesDense(Dropout):
    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        return super().mask_features(
            x.to_dense() if x.layout == torch.sparse_csr else x, mask, node_dim
        )


@breaks(GRADIENTS)
class StraightThrough(Dropout):
    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        masked = super().mask_features(x, mask, node_dim)
        return masked if x.layout != torch.strided else x + (masked - x).detach()


# 10. Random generators.


@breaks(IDENTITY)
class DrawsAtZero(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        torch.rand(1)
        return super().forward(x)


@breaks(SEEDS)
class DrawsDespiteASeed(Dropout):
    def next_mask(self, layer: int = 0) -> Mask:
        torch.rand(1)
        return super().next_mask(layer)


@breaks(TRAINING)
class IgnoresTorchsSeed(Dropout):
    passes = 0

    def start_pass(self, seed: int | None = None) -> "IgnoresTorchsSeed":
        type(self).passes += 1
        return super().start_pass(type(self).passes if seed is None else seed)


# Options.


@breaks(REFUSALS)
class TakesAnyRate(Dropout):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(min(max(p, 0.0), 1.0) if p == p else 0.0)


@breaks(SPEC)
class ForgetsItsOptions(Dropout):
    @property
    def spec(self) -> str:
        return "dropout:p=0.25"


@breaks(RATE, EXPECTATION)
class Raises(Dropout):
    def forward(self, x: Tensor) -> Tensor:
        if self.is_active:
            raise IndexError("a stranger's mistake")
        return x

    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        return self.forward(x)


@pytest.mark.parametrize("name", BROKEN)
def test_mistakes_are_caught(name: str, generators_untouched: None) -> None:
    operator, clauses = BROKEN[name]
    with pytest.raises(ContractError) as caught:
        check_operator(operator())
    message = str(caught.value)
    assert message.startswith(f"{operator.name} breaks the contract: ")
    missed = {clause for clause in clauses if f"{clause}: " not in message}
    assert not missed, message


def test_an_honest_subclass_passes() -> None:
    """What is broken above is not the subclassing."""
    for base in (Dropout, DropEdge, DropMessage):
        name = f"Honest{base.__name__}"
        honest = type(name, (base,), {"name": f"honest-{base.name}", "__module__": __name__})
        globals()[name] = honest
        assert {check.passed for check in check_operator(honest())} == {True}


def test_the_operator_itself_stays_as_it_was() -> None:
    operator = DropEdge(p=0.3).eval().start_pass(3)
    check_operator(operator)
    assert operator.in_pass
    assert not operator.training


def test_unknown_names() -> None:
    with pytest.raises(KeyError, match="did you mean 'drop-edge'"):
        check_operator("drop-egde")
