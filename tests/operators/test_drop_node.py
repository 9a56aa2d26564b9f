"""Row dropout: one coin for every node."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gnndrop.errors import ParameterError
from gnndrop.graph import to_csr
from gnndrop.operators.drop_node import DropNode

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta


def reference(x: Tensor, coin: Any, scale: float) -> Tensor:
    """Mask a matrix entry by entry."""
    out = torch.zeros_like(x)
    for row in range(x.size(0)):
        for column in range(x.size(1)):
            if coin(row):
                out[row, column] = x[row, column] * scale
    return out


@settings(deadline=None, max_examples=30)
@given(
    shape=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    p=st.sampled_from([0.1, 0.3, 0.5, 0.9, 1.0]),
    seed=st.integers(-(2**63), 2**64),
    rescale=st.sampled_from(["inverse", "none"]),
)
def test_stand_alone(coins: Any, shape: Any, p: float, seed: int, rescale: str) -> None:
    x = 1 + torch.arange(shape[0] * shape[1], dtype=torch.float64).view(shape)
    x.requires_grad_()
    operator = DropNode(p=p, rescale=rescale).start_pass(seed)
    scale = 1 / (1 - p) if rescale == "inverse" and p < 1 else 1.0
    for call in range(2):
        out = operator(x)
        expected = reference(x, coins("drop-node", p, seed, call=call), scale)
        torch.testing.assert_close(out, expected, rtol=1e-15, atol=0)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        mask = reference(torch.ones_like(x), coins("drop-node", p, seed, call=call), scale)
        torch.testing.assert_close(gradient, mask, rtol=1e-15, atol=0)
        sparse = DropNode(p=p, rescale=rescale).start_pass(seed)
        for _ in range(call):
            sparse(x)
        assert torch.equal(sparse(to_csr(x.detach())).to_dense(), out)


@pytest.mark.parametrize("p", [0.3, 0.8])
@pytest.mark.parametrize("share", ["layer", "forward"])
def test_in_a_gcn(case: Any, coins: Any, p: float, share: str) -> None:
    def mask(layer: int, x: Tensor) -> Tensor:
        number = layer if share == "layer" else 0
        return reference(x, coins("drop-node", p, 7, number), 1 / (1 - p))

    adjacency = case.dense.normalized(case.matrix(case.edge_index))
    expected = case.dense(case.x, lambda layer: adjacency, mask)
    torch.testing.assert_close(case.run(DropNode(p=p, share=share), 7), expected)
    clean = case.dense(case.x, lambda layer: adjacency)
    assert not torch.allclose(expected, clean)


def test_further_axes_are_channels() -> None:
    x = torch.ones(6, 3, 4, requires_grad=True)
    operator = DropNode().start_pass(1)
    flat = DropNode().start_pass(1)
    out = operator(x)
    assert torch.equal(out.flatten(1), flat(x.flatten(1)))
    assert DropNode().start_pass(1)(torch.ones(5)).shape == (5,)


def test_other_values_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"floating point features, got torch\.int64"):
        DropNode()(torch.ones(3, 3).long())
    with pytest.raises(ParameterError, match="floating point features, got list"):
        DropNode()([1.0])
    with pytest.raises(ParameterError, match="takes dense or sparse CSR features, got"):
        DropNode()(torch.eye(3).to_sparse_coo())
    with pytest.raises(ParameterError, match="rescale must be one of inverse, none"):
        DropNode(rescale="renormalize")
    with pytest.raises(ParameterError, match="share must be one of layer, forward"):
        DropNode(share="epoch")
