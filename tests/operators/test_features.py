"""The feature operators, each with the coordinates that its coin depends on."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import to_csr
from gnndrop.operators import DropFeature, DropNode, Dropout, FeatureOperator

Operator = type[FeatureOperator]
# What an entry's place in the matrix makes of it: the arguments of the coin.
PLACES: dict[Operator, Any] = {
    Dropout: lambda row, column: (row, column),
    DropFeature: lambda row, column: (0, column),
    DropNode: lambda row, column: (row,),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),  # torch calls its CSR layout beta
    pytest.mark.parametrize("kind", PLACES),
]


def reference(kind: Operator, x: Tensor, coin: Any, scale: float) -> Tensor:
    """Mask a matrix entry by entry."""
    out = torch.zeros_like(x)
    for row in range(x.size(0)):
        for column in range(x.size(1)):
            if coin(*PLACES[kind](row, column)):
                out[row, column] = x[row, column] * scale
    return out


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    p=st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0]),
    seed=st.integers(-(2**63), 2**64),
    rescale=st.sampled_from(["inverse", "none"]),
)
def test_stand_alone(
    kind: Operator, coins: Any, shape: Any, p: float, seed: int, rescale: str
) -> None:
    x = 1 + torch.arange(shape[0] * shape[1], dtype=torch.float64).view(shape)
    x.requires_grad_()
    operator = kind(p=p, rescale=rescale).start_pass(seed)
    scale = 1 / (1 - p) if rescale == "inverse" and p < 1 else 1.0
    for call in range(2):
        out = operator(x)
        expected = reference(kind, x, coins(kind.name, p, seed, call=call), scale)
        torch.testing.assert_close(out, expected, rtol=1e-15, atol=0)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        mask = reference(kind, torch.ones_like(x), coins(kind.name, p, seed, call=call), scale)
        torch.testing.assert_close(gradient, mask, rtol=1e-15, atol=0)
        sparse = kind(p=p, rescale=rescale).start_pass(seed)
        for _ in range(call):
            sparse(x)
        assert torch.equal(sparse(to_csr(x.detach())).to_dense(), out)


@pytest.mark.parametrize("p", [0.3, 0.8])
@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(kind: Operator, case: Any, coins: Any, p: float, share: str) -> None:
    def mask(layer: int, x: Tensor) -> Tensor:
        number = layer if share == "layer" else 0
        return reference(kind, x, coins(kind.name, p, 7, number), 1 / (1 - p))

    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense(case.x, lambda layer: adjacency, mask)
    torch.testing.assert_close(case.run(kind(p=p, share=share), 7), expected)
    clean = case.dense(case.x, lambda layer: adjacency)
    assert not torch.allclose(expected, clean)


def test_further_axes_are_channels(kind: Operator) -> None:
    x = torch.ones(6, 3, 4, requires_grad=True)
    operator = kind().start_pass(1)
    flat = kind().start_pass(1)
    out = operator(x)
    assert torch.equal(out.flatten(1), flat(x.flatten(1)))
    assert kind().start_pass(1)(torch.ones(5)).shape == (5,)


def test_other_values_are_refused(kind: Operator) -> None:
    with pytest.raises(ParameterError, match=r"floating point features, got torch\.int64"):
        kind()(torch.ones(3, 3).long())
    with pytest.raises(ParameterError, match="floating point features, got list"):
        kind()([1.0])
    with pytest.raises(ParameterError, match="takes dense or sparse CSR features, got"):
        kind()(torch.eye(3).to_sparse_coo())
    with pytest.raises(ParameterError, match="rescale must be one of inverse, none"):
        kind(rescale="renormalize")
    with pytest.raises(ParameterError, match="share must be one of layer, forward"):
        kind(share="epoch")


def test_sparse_indices_may_be_narrow(kind: Operator) -> None:
    x = to_csr(torch.eye(6, 8))
    indices = x.crow_indices().int(), x.col_indices().int()
    narrow = torch.sparse_csr_tensor(*indices, x.values(), x.shape)
    out = kind().start_pass(3)(narrow)
    assert out.col_indices().dtype == torch.int32
    assert torch.equal(out.to_dense(), kind().start_pass(3)(x).to_dense())
