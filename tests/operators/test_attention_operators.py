"""Attention dropout and key dropout: a coin for every edge and head, on both sides of a softmax."""

import copy
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.attach import attach
from gnndrop.errors import AttachError, ParameterError
from gnndrop.graph import to_csr
from gnndrop.models import GCN
from gnndrop.operators.drop_attention import DropAttention
from gnndrop.operators.drop_key import DropKey
from gnndrop.propagation import accelerate

H, C, F = 3, 4, 5
LAYERS = {
    "gat": pyg.GATConv,
    "gatv2": pyg.GATv2Conv,
    "transformer": pyg.TransformerConv,
}
GRAPHS = {
    "undirected": [[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]],
    "directed": [[0, 1, 2, 5], [1, 2, 3, 3]],
    "loops": [[0, 1, 1, 2], [0, 1, 0, 2]],
    "duplicates": [[0, 0, 0, 1, 1], [1, 1, 1, 0, 0]],
    "empty": [[], []],
}


class Unfused(pyg.GATConv):
    """Another type, which the kernels do not know: PyG's own path."""


def clean_attention(layer: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        _, (edges, alpha) = layer(x, edge_index, return_attention_weights=True)
    return edges, alpha


def kept(edges: Tensor, coin: Any) -> Tensor:
    """Return which shares stay, by the integer reference."""
    coins = [
        [coin.edge(edges, edge, False, head) for head in range(H)] for edge in range(edges.size(1))
    ]
    return torch.tensor(coins, dtype=torch.float64).view(-1, H)


def reference(name: str, alpha: Tensor, edges: Tensor, coins: Tensor, p: float) -> Tensor:
    """Mask shares target by target: divided by 1-p, or by what is left of their sum."""
    masked = alpha * coins
    if name == "drop-attention":
        return masked / (1 - p)
    for target in range(7):
        of_target = edges[1] == target
        total = masked[of_target].sum(0)
        masked[of_target] /= torch.where(total == 0, 1.0, total)
    return masked


def value_of(layer: Any, x: Tensor) -> Tensor:
    linear = {"lin": "lin", "lin_l": "lin_l", "lin_value": "lin_value"}
    found = next(getattr(layer, name) for name in linear if getattr(layer, name, None) is not None)
    result: Tensor = found(x).view(-1, H, C)
    return result


@pytest.mark.parametrize("name", ["drop-attention", "drop-key"])
@pytest.mark.parametrize("kind", [*LAYERS, "unfused"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_against_a_dense_reference(case: Any, coins: Any, name: str, kind: str, graph: str) -> None:
    """Loops that GAT adds are dropped like any edge; node 6 has no other, and may lose it."""
    torch.manual_seed(1)
    layer = {**LAYERS, "unfused": Unfused}[kind](F, C, heads=H, bias=False).double()
    edge_index = torch.tensor(GRAPHS[graph], dtype=torch.int64).view(2, -1)
    edges, alpha = clean_attention(layer, case.x, edge_index)
    for seed, p in ((0, 0.3), (1, 0.8)):
        shares = reference(name, alpha, edges, kept(edges, coins(name, p, seed)), p)
        messages = shares[:, :, None] * value_of(layer, case.x)[edges[0]]
        expected = torch.zeros(7, H, C, dtype=torch.float64).index_add_(0, edges[1], messages)
        expected = expected.flatten(1)
        if kind == "transformer":
            expected = expected + layer.lin_skip(case.x)
        with attach(layer, f"{name}:p={p}") as handle:
            handle.operator.start_pass(seed)
            out = layer(case.x, edge_index)
        torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("name", ["drop-attention", "drop-key"])
def test_the_fused_path_has_the_derivatives_of_the_other(case: Any, name: str) -> None:
    fused = pyg.GATConv(F, C, heads=H).double()
    plain = Unfused(F, C, heads=H).double()
    plain.load_state_dict(fused.state_dict())
    gradients = []
    for layer in (fused, plain):
        with attach(layer, f"{name}:p=0.4") as handle:
            handle.operator.start_pass(4)
            x = case.x.clone().requires_grad_()
            out = layer(x, case.edge_index)
            gradients.append(torch.autograd.grad(out.sin().sum(), [x, *layer.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["drop-attention", "drop-key"])
def test_no_message_is_formed_on_the_fused_path(
    case: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **named: object) -> None:
        raise AssertionError("a message was formed")

    layer = pyg.GATConv(F, C, heads=H).double()
    monkeypatch.setattr(pyg.GATConv, "message", fail)
    with attach(layer, name):
        layer(case.x, case.edge_index)
    with pytest.raises(AssertionError, match="a message was formed"):
        layer(case.x, case.edge_index)


@pytest.mark.parametrize("name", ["drop-attention", "drop-key"])
def test_every_layer_and_call_has_its_coins_at_its_own_rate(case: Any, name: str) -> None:
    """The mask of the first layer is not that of the second, nor that of the next pass."""
    layer = pyg.GATConv(F, 1, heads=H, bias=False).double()
    nn.init.zeros_(layer.att_src)
    nn.init.zeros_(layer.att_dst)
    seen = []
    with attach(layer, f"{name}:p=0.5") as handle:
        for seed in (0, 0, 1):
            handle.operator.start_pass(seed)
            seen += [layer(case.x, case.edge_index) for _ in range(2)]
            handle.operator.end_pass()
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[4])


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_the_rate_is_apart_from_the_layers_own(case: Any, p: float) -> None:
    """Both act: a share is kept by both coins, and scaled by both."""
    layer = pyg.GATConv(F, C, heads=H, dropout=0.5, bias=False).double()
    edges, alpha = clean_attention(layer.eval(), case.x, case.edge_index)
    layer.train()
    with attach(layer, f"drop-attention:p={p}"), torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        factors = torch.stack(
            [
                layer(case.x, case.edge_index, return_attention_weights=True)[1][1] / alpha
                for _ in range(300)
            ]
        )
    both = torch.tensor([0.0, 2 / (1 - p)], dtype=torch.float64)
    assert torch.isclose(factors[..., None], both).any(-1).all()
    rate, number = 0.5 * (1 - p), factors.numel()
    error = (rate * (1 - rate) / number) ** 0.5
    assert abs(float((factors > 0).double().mean()) - rate) < 5 * error
    assert edges.size(1) == 15 - 1 + 7  # the loops are new ones, and are dropped as well


def test_shares_sum_to_one_again_or_to_none(case: Any) -> None:
    layer = pyg.GATConv(F, C, heads=H).double()
    with attach(layer, "drop-key:p=0.7") as handle:
        for seed in range(20):
            handle.operator.start_pass(seed)
            _, (edges, alpha) = layer(case.x, case.edge_index, return_attention_weights=True)
            handle.operator.end_pass()
            sums = torch.zeros(7, H, dtype=torch.float64).index_add_(0, edges[1], alpha)
            some = torch.zeros(7, H).index_add_(0, edges[1], (alpha > 0).float()) > 0
            torch.testing.assert_close(sums, some.double())
            assert bool((~some).any()) or seed  # seed 0: some node lost all


def test_a_sparse_adjacency_has_the_same_coins(case: Any) -> None:
    layer = pyg.GATConv(F, C, heads=H, add_self_loops=False).double()
    sparse = to_csr(case.matrix(case.edge_index))
    for name in ("drop-attention", "drop-key"):
        outs = []
        with attach(layer, name) as handle:
            for edges in (case.edge_index, sparse):
                handle.operator.start_pass(2)
                outs.append(layer(case.x, edges))
                handle.operator.end_pass()
        torch.testing.assert_close(*outs)


def test_with_attributes_and_two_kinds_of_nodes(case: Any, coins: Any) -> None:
    """The general path: a bipartite layer whose attention sees attributes of its edges."""
    layer = pyg.GATConv((F, F), C, heads=H, add_self_loops=False, edge_dim=2, bias=False).double()
    attributes = torch.randn(case.edge_index.size(1), 2, dtype=torch.float64)
    arguments = (case.x, case.x[:7]), case.edge_index, attributes
    _, (edges, alpha) = layer(*arguments, return_attention_weights=True)
    with attach(layer, "drop-attention:p=0.4") as handle:
        handle.operator.start_pass(6)
        _, (_, masked) = layer(*arguments, return_attention_weights=True)
    coin = coins("drop-attention", 0.4, 6)
    torch.testing.assert_close(masked, alpha * kept(edges, coin) / 0.6)


def test_evaluation_and_removal_leave_the_layer_to_the_bit(case: Any) -> None:
    for kind in LAYERS.values():
        layer = kind(F, C, heads=H).double()
        before, state = layer(case.x, case.edge_index), set(layer.__dict__)
        for name in ("drop-attention", "drop-key"):
            with attach(layer, name):
                dropped = layer(case.x, case.edge_index)
                layer.eval()
                assert torch.equal(layer(case.x, case.edge_index), before)
                layer.train()
            assert not torch.equal(dropped, before)
            assert torch.equal(layer(case.x, case.edge_index), before)
            assert set(layer.__dict__) == state


def test_stand_alone_key_dropout_renormalizes(coins: Any) -> None:
    edge_index = torch.tensor([[0, 1, 2, 3, 0, 0], [4, 4, 4, 1, 1, 1]])
    alpha = torch.rand(6, H, dtype=torch.float64, requires_grad=True)
    out = DropKey(p=0.5).start_pass(3)(alpha, edge_index)
    coin = kept(edge_index, coins("drop-key", 0.5, 3))
    expected = reference("drop-key", alpha.detach(), edge_index, coin, 0.5)
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out.square().sum(), alpha)
    assert torch.equal(gradient[coin == 0], torch.zeros_like(gradient[coin == 0]))
    assert torch.autograd.gradcheck(
        lambda alpha: DropKey(p=0.5).start_pass(3)(alpha, edge_index), alpha
    )


def test_edge_and_attention_dropout_together(case: Any) -> None:
    """On the kept graph the shares of the softmax are those of a layer that saw it alone."""
    layer = pyg.GATConv(F, C, heads=H).double()
    with attach(layer, "drop-edge:p=0.5+drop-attention:p=0.5") as handle:
        handle.operator.start_pass(1)
        both = layer(case.x, case.edge_index)
        handle.operator.end_pass()
        kept_edges, _ = handle.operator.operators[0].start_pass(1)(case.edge_index)
    with attach(layer, "drop-attention:p=0.5") as handle:
        handle.operator.start_pass(1)
        torch.testing.assert_close(both, layer(case.x, kept_edges))


@pytest.mark.parametrize("kind", LAYERS)
def test_keys_are_dropped_before_attention_in_any_order(case: Any, kind: str) -> None:
    layer = LAYERS[kind](F, C, heads=H).double()
    outs = []
    for spec in ("drop-attention+drop-key", "drop-key+drop-attention"):
        with attach(layer, spec) as handle:
            handle.operator.start_pass(1)
            outs.append(layer(case.x, case.edge_index))
    torch.testing.assert_close(*outs)


def test_other_places_are_refused(case: Any) -> None:
    with pytest.raises(AttachError, match="needs a GATConv, a GATv2Conv or a TransformerConv, got"):
        attach(GCN(4), "drop-attention")
    with pytest.raises(
        AttachError, match=r"without attention dropout of its own, got dropout=0\.5"
    ):
        attach(pyg.GATConv(4, 4, dropout=0.5), "drop-key")
    with pytest.raises(ParameterError, match=r"needs attention of shape .* and none"):
        DropKey()(torch.ones(3, 2))
    with pytest.raises(ParameterError, match=r"got \(3, 2\) and 2 edges"):
        DropKey()(torch.ones(3, 2), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ParameterError, match="floating point attention"):
        DropAttention()(torch.ones(3, 2).long())


def test_an_accelerated_model_is_masked_alike(case: Any) -> None:
    model = pyg.GAT(F, 6, num_layers=2, out_channels=3, heads=2).double()
    outs = []
    for accelerated in (False, True):
        twin = copy.deepcopy(model)
        with attach(twin, "drop-attention") as handle:
            handle.operator.start_pass(5)
            if accelerated:
                with accelerate(twin):
                    outs.append(twin(case.x, case.edge_index))
            else:
                outs.append(twin(case.x, case.edge_index))
    torch.testing.assert_close(*outs)
