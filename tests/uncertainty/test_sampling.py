"""`mc_predict`: what is switched, what is restored, which masks a sample has."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.utils import dropout_edge, dropout_node

from gnndrop.attach import attach
from gnndrop.errors import ParameterError
from gnndrop.models import GAT, GCN, MLP
from gnndrop.operators import OPERATORS, DropEdge, Dropout
from gnndrop.training import fit
from gnndrop.uncertainty import mc_predict
from gnndrop.uncertainty.batching import copies_that_pay, replicate
from gnndrop.uncertainty.sampling import Sampler
from gnndrop.uncertainty.tasks import TASKS

NODES, CHANNELS, CLASSES = 30, 6, 3
generator = torch.Generator().manual_seed(0)
X = torch.rand(NODES, CHANNELS, generator=generator)
EDGES = torch.randint(NODES, (2, 90), generator=generator)
EDGES = torch.cat([EDGES, EDGES.flip(0)], 1)


class UserModel(nn.Module):
    """Functional dropout, guarded by the flag as PyG's functions have it."""

    def __init__(self, drop: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.first, self.last = pyg.GCNConv(CHANNELS, 8), pyg.GCNConv(8, CLASSES)
        self.drop = drop

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(x, edge_index).relu()
        x, edge_index = self.drop(self, x, edge_index)
        return self.last(x, edge_index)


def user_edge(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return x, dropout_edge(edge_index, 0.4, training=model.training)[0]


def user_node(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return x, dropout_node(edge_index, 0.3, NODES, training=model.training)[0]


def user_functional(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return F.dropout(x, 0.5, training=model.training), edge_index


def user_alpha(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return F.alpha_dropout(x, 0.5, training=model.training), edge_index


def user_inplace(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
    return F.dropout(x, 0.5, training=model.training, inplace=True), edge_index


class WithAttention(nn.Module):
    """torch's own multi-head attention, which draws in C++ beneath every flag."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, dropout=0.4)
        self.last = nn.Linear(CHANNELS, CLASSES)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.last(self.attention(x, x, x)[0])


class PlainMLP(nn.Module):
    """Some of whose dropouts are at a rate of zero, others not."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = pyg.MLP([CHANNELS, 8, CLASSES], dropout=0.5, norm=None)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.mlp(x)


def attached(spec: str, kind: type[nn.Module] = GCN, **options: Any) -> nn.Module:
    model = kind(CHANNELS, 8, CLASSES, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of batch normalization, where it is asked for
        attach(model, spec)
    return model


STOCHASTIC: dict[str, Callable[[], nn.Module]] = {
    "nn.Dropout": lambda: pyg.GCN(CHANNELS, 8, 2, CLASSES, dropout=0.5),
    "attention alone": lambda: pyg.GATConv(CHANNELS, CLASSES, dropout=0.5),
    "GATv2": lambda: pyg.GATv2Conv(CHANNELS, CLASSES, dropout=0.5),
    "transformer": lambda: pyg.TransformerConv(CHANNELS, CLASSES, dropout=0.5),
    "features and attention": lambda: pyg.GAT(CHANNELS, 8, 2, CLASSES, dropout=0.5, heads=2),
    "SAGE": lambda: pyg.GraphSAGE(CHANNELS, 8, 2, CLASSES, dropout=0.5),
    "GIN, which shares a module": lambda: pyg.GIN(CHANNELS, 8, 3, CLASSES, dropout=0.5),
    "PyG's MLP": PlainMLP,
    "APPNP's guard": lambda: pyg.APPNP(3, 0.1, dropout=0.5),
    "batch norm": lambda: pyg.GCN(CHANNELS, 8, 3, CLASSES, dropout=0.5, norm="BatchNorm"),
    "graph norm": lambda: pyg.GCN(CHANNELS, 8, 3, CLASSES, dropout=0.5, norm="GraphNorm"),
    "layer norm": lambda: pyg.GCN(CHANNELS, 8, 3, CLASSES, dropout=0.5, norm="LayerNorm"),
    "pair norm": lambda: pyg.GCN(CHANNELS, 8, 3, CLASSES, dropout=0.5, norm="PairNorm"),
    "F.dropout": lambda: UserModel(user_functional),
    "F.dropout in place": lambda: UserModel(user_inplace),
    "alpha dropout": lambda: UserModel(user_alpha),
    "dropout_edge": lambda: UserModel(user_edge),
    "dropout_node": lambda: UserModel(user_node),
    "multi-head attention": WithAttention,
    "operator attached": lambda: attached("drop-message"),
    "combination": lambda: attached("dropout+drop-edge:p=0.3"),
    "by layer": lambda: attached("dropout:p=0.2/0.6"),
    "shared by layers": lambda: attached("locked-dropout"),
    "operators in a GAT": lambda: attached("dropout+drop-attention", GAT, heads=2),
    "in an MLP": lambda: attached("dropout", MLP),
    "with batch norm": lambda: attached("dropout", GCN, norm="batch", num_layers=3),
    "paths": lambda: attached("drop-path", GCN, residual=True, num_layers=3),
}
every_model = pytest.mark.parametrize("name", STOCHASTIC)


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = STOCHASTIC[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-0.1, 0.1)
    return model.eval()


@every_model
def test_every_site_is_random_and_reproducible(name: str) -> None:
    model = build(name)
    prediction = mc_predict(model, X, EDGES, samples=12, seed=3, keep_samples=True)
    assert (prediction.std > 0).any()
    assert any(site.status == "stochastic" for site in prediction.sites)
    again = mc_predict(model, X, EDGES, samples=12, seed=3, keep_samples=True)
    other = mc_predict(model, X, EDGES, samples=12, seed=4)
    assert prediction.samples is not None
    assert again.samples is not None
    assert torch.equal(prediction.samples, again.samples)
    assert not torch.allclose(prediction.mean, other.mean)
    distinct = len(prediction.samples.flatten(1).unique(dim=0))
    assert distinct > 1 if name == "paths" else distinct == 12  # of a path there is one coin


@every_model
def test_samples_do_not_depend_on_chunks(name: str) -> None:
    model = build(name)
    alone = mc_predict(model, X, EDGES, samples=11, chunk_size=1, keep_samples=True)
    for chunk_size in (2, 5, 11):
        chunked = mc_predict(model, X, EDGES, samples=11, chunk_size=chunk_size, keep_samples=True)
        assert alone.samples is not None
        assert chunked.samples is not None
        torch.testing.assert_close(chunked.samples, alone.samples, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(chunked.std, alone.std, rtol=1e-3, atol=1e-6)


@every_model
def test_a_model_is_left_as_it_was(name: str) -> None:
    model = build(name)
    next(iter(model.children()), model).train()  # flags of no pattern
    flags = [module.training for module in model.modules()]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = {id(module): set(module.__dict__) for module in model.modules()}
    x, generator_state = X.clone(), torch.get_rng_state()
    mc_predict(model, X, EDGES, samples=3)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert {id(module): set(module.__dict__) for module in model.modules()} == attributes
    assert torch.equal(torch.get_rng_state(), generator_state)
    assert torch.equal(X, x)


def test_a_model_is_left_as_it_was_after_an_exception() -> None:
    model = build("batch norm")
    model.norms[0].train()
    flags = [module.training for module in model.modules()]
    hook = model.convs[1].register_forward_hook(fail)
    generator_state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        mc_predict(model, X, EDGES, samples=3)
    hook.remove()
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), generator_state)
    assert not any("forward" in module.__dict__ for module in model.modules())


def fail(*_: object) -> None:
    raise KeyboardInterrupt


def test_batch_norm_is_that_of_evaluation() -> None:
    model = build("batch norm")
    with torch.no_grad():
        for p in (0.0, 1e-9):  # nn.Dropout at 1e-9 fires and drops nothing
            model.dropout.p = p
            expected = model(X, EDGES)
        with Sampler(model, (X, EDGES), seed=0) as sampler:
            torch.testing.assert_close(sampler.draw([0])[0], expected)


class OwnStatistics(nn.Module):
    """A normalization that nobody knows, whose buffer moves in training."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(CHANNELS, CLASSES)
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.zeros(CHANNELS))
        self.norm.forward = self.normalize  # type: ignore[method-assign]  # its own, by name

    def normalize(self, x: Tensor) -> Tensor:
        mean = self.norm.mean
        if self.norm.training:
            mean.copy_(0.9 * mean + 0.1 * x.mean(0))
        return x - mean

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.last(F.dropout(self.norm(x), training=self.training))


def test_buffers_of_unknown_modules_do_not_move() -> None:
    model = OwnStatistics().eval()
    prediction = mc_predict(model, X, EDGES, samples=4, chunk_size=1, keep_samples=True)
    assert not model.norm.mean.any()
    assert prediction.std.any()


@pytest.mark.parametrize(
    "model",
    [
        lambda: pyg.GCN(CHANNELS, 8, 2, CLASSES),
        lambda: pyg.GAT(CHANNELS, 8, 2, CLASSES, dropout=0.0),
        lambda: attached("dropout:p=0"),
        lambda: attached("none"),
        lambda: nn.Sequential(nn.Linear(CHANNELS, CLASSES)),
    ],
)
def test_a_model_without_random_sites_is_refused(model: Callable[[], nn.Module]) -> None:
    inputs = (X,) if isinstance(model(), nn.Sequential) else (X, EDGES)
    with pytest.raises(ParameterError, match="must have a random site, got none: looked for"):
        mc_predict(model(), *inputs)


def test_equal_samples_are_refused() -> None:
    class Unheard(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return x[:, :3] + 0 * F.dropout(x, training=True)[:, :3]

    with pytest.raises(ParameterError, match="samples must differ"):
        mc_predict(Unheard(), X, EDGES, samples=3)


def test_the_audit_tells_what_fires_and_what_does_not() -> None:
    class Guarded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused, self.zero = nn.Dropout(0.4), nn.Dropout(0.3), nn.Dropout(0.0)
            self.last = nn.Linear(CHANNELS, CLASSES)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.last(self.zero(self.used(self.used(x))))

    sites = {site.name: site for site in mc_predict(Guarded(), X, EDGES, samples=2).sites}
    assert (sites["used"].status, sites["used"].calls, sites["used"].p) == ("stochastic", 2, 0.4)
    assert sites["unused"].status == "silent"
    assert sites["zero"].status == "p=0"


def test_operators_are_told_apart_with_the_same_masks() -> None:
    model = attached("dropout+drop-edge:p=0.3")
    both = mc_predict(model, X, EDGES, samples=40, operators=["dropout", "drop-edge"])
    everything = mc_predict(model, X, EDGES, samples=40)
    features = mc_predict(model, X, EDGES, samples=40, operators="dropout")
    edges = mc_predict(model, X, EDGES, samples=40, operators="drop-edge:p=0.3")
    assert torch.equal(both.mean, everything.mean)
    assert {site.status for site in features.sites} == {"stochastic", "off"}
    assert float(features.std.mean()) < float(both.std.mean())
    assert float(edges.std.mean()) < float(both.std.mean())
    alone = GCN(CHANNELS, 8, CLASSES)
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "gnndrop" not in k})
    attach(alone, "drop-edge:p=0.3")
    assert edges.std.mean() == pytest.approx(
        float(mc_predict(alone, X, EDGES, samples=40).std.mean()), rel=0.4
    )


def test_functions_and_modules_can_be_chosen() -> None:
    def drop(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        x = F.dropout(x, 0.5, training=model.training)
        return x, dropout_edge(edge_index, 0.4, training=model.training)[0]

    model = UserModel(drop).eval()
    functional = mc_predict(model, X, EDGES, samples=10, operators="F.dropout", keep_samples=True)
    drawn = mc_predict(model, X, EDGES, samples=10, operators="torch.rand")
    everything = mc_predict(model, X, EDGES, samples=10, operators="model", keep_samples=True)
    assert {site.operator: site.status for site in functional.sites} == {
        "F.dropout": "stochastic",
        "torch.rand": "off",
    }
    assert {site.operator: site.status for site in drawn.sites}["F.dropout"] == "off"
    assert functional.samples is not None
    assert everything.samples is not None
    assert not torch.allclose(functional.samples, everything.samples)
    with pytest.raises(ParameterError, match="must name stochastic sites, got 'drop-edge'"):
        mc_predict(model, X, EDGES, operators="drop-edge")


def test_what_draws_in_evaluation_too_cannot_be_left_out() -> None:
    def drop(model: nn.Module, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        return F.dropout(x, training=model.training) + 0.1 * torch.rand(x.shape), edge_index

    with pytest.raises(ParameterError, match="draws in evaluation too"):
        mc_predict(UserModel(drop), X, EDGES, operators="F.dropout")


def test_cached_graphs_are_refused_where_edges_are_random() -> None:
    def cached(drop: Any) -> nn.Module:
        model = UserModel(drop)
        model.last = pyg.GCNConv(8, CLASSES, cached=True)
        return model

    with pytest.raises(ParameterError, match=r"last must be built with cached=False .*torch.rand"):
        mc_predict(cached(user_edge), X, EDGES)
    model = cached(user_functional)
    assert mc_predict(model, X, EDGES, samples=3).std.any()
    assert model.last._cached_edge_index is None


def test_a_cached_graph_of_before_is_given_back() -> None:
    model = UserModel(user_functional)
    model.last = pyg.GCNConv(8, CLASSES, cached=True)
    model.eval()(X, EDGES)
    kept = model.last._cached_edge_index
    mc_predict(model, X, EDGES, samples=3)
    assert model.last._cached_edge_index is kept


@pytest.mark.parametrize("name", ["nn.Dropout", "operator attached", "dropout_edge", "SAGE"])
def test_the_mean_is_that_of_a_users_own_loop(name: str) -> None:
    """Within five standard errors of the difference, for every node and class."""
    model = build(name)
    samples = 400
    ours = mc_predict(model, X, EDGES, samples=samples)
    torch.manual_seed(5)
    model.train()
    with torch.no_grad():
        theirs = torch.stack([model(X, EDGES).softmax(-1) for _ in range(samples)]).double()
    error = (ours.standard_error**2 + theirs.var(0) / samples).sqrt()
    assert ((ours.mean - theirs.mean(0)).abs() <= 5 * error + 1e-6).all()


@pytest.mark.parametrize("name", ["features and attention", "combination", "dropout_edge"])
def test_summaries_follow_a_permutation_of_the_nodes(name: str) -> None:
    """In distribution: within five standard errors, since other nodes have other masks."""
    model = build(name)
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(2))
    place = torch.argsort(order)  # node order[i] is the new node i
    plain = mc_predict(model, X, EDGES, samples=300)
    moved = mc_predict(model, X[order], place[EDGES], samples=300, seed=1)
    error = (plain.standard_error[order] ** 2 + moved.standard_error**2).sqrt()
    assert ((plain.mean[order] - moved.mean).abs() <= 5 * error + 1e-6).all()


def test_the_samples_are_those_of_the_operators_own_passes() -> None:
    model = attached("drop-message:p=0.4").eval()
    prediction = mc_predict(model, X, EDGES, samples=3, seed=9, keep_samples=True)
    with Sampler(model, (X, EDGES), seed=9) as sampler:
        logits = torch.stack(sampler.draw([2, 0, 1]))  # in any order
    assert prediction.samples is not None
    torch.testing.assert_close(logits.softmax(-1)[[1, 2, 0]], prediction.samples)


def test_what_precedes_the_first_draw_is_done_once() -> None:
    model = build("nn.Dropout")
    calls = []
    model.convs[0].lin.register_forward_hook(lambda *_: calls.append(1))
    mc_predict(model, X, EDGES, samples=20, chunk_size=1)
    assert len(calls) == 1


def test_a_linear_map_of_what_is_the_same_is_done_once() -> None:
    model = attached("drop-edge:p=0.3")
    calls = []
    model.layers[0].lin.register_forward_pre_hook(lambda *_: calls.append(1))
    inner = model.layers[0].lin.forward
    counted = []
    model.layers[0].lin.__dict__["forward"] = lambda x: counted.append(1) or inner(x)
    mc_predict(model, X, EDGES, samples=20, chunk_size=1)
    assert len(calls) == 20
    assert len(counted) == 1


def test_outputs_that_are_written_to_are_not_reused() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(CHANNELS, 8), nn.Linear(8, CLASSES)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            h = self.first(x)
            h.mul_(2).add_(1)
            return self.last(F.dropout(h, training=self.training))

    model = InPlace()
    with Sampler(model, (X, EDGES), seed=0) as sampler:
        outputs = [sampler.draw([sample])[0] for sample in range(5)]
    for sample, output in enumerate(outputs):
        with Sampler(model, (X, EDGES), seed=0, grad=True) as sampler:  # remembers nothing
            assert torch.allclose(output, sampler.draw([sample])[0])


BATCHED = ["nn.Dropout", "SAGE", "batch norm", "F.dropout", "operator attached", "combination"]
COUPLED = ["graph norm", "pair norm", "dropout_edge", "multi-head attention"]


@pytest.mark.parametrize("name", [*BATCHED, *COUPLED])
def test_blocks_are_kept_apart_or_not_used(name: str) -> None:
    with Sampler(build(name), (X, EDGES), seed=0, at_once=6) as sampler:
        sampler.draw(range(6))
        assert (sampler._batch is not None) == (name in BATCHED)


def test_weights_and_graphs_are_replicated_too() -> None:
    weight = torch.rand(EDGES.size(1))
    model = attached("drop-edge:p=0.3")
    alone = mc_predict(model, X, EDGES, weight, samples=6, chunk_size=1)
    batched = mc_predict(model, X, EDGES, weight, samples=6, chunk_size=6)
    torch.testing.assert_close(alone.mean, batched.mean, rtol=1e-5, atol=1e-6)
    assert replicate((X, EDGES, "other"), 2) is None


class GraphModel(nn.Module):
    """Predicts one row for each graph of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = pyg.GINConv(nn.Linear(CHANNELS, 8)), nn.Linear(8, CLASSES)
        self.norm = pyg.LayerNorm(8)  # couples the nodes of a graph, by the batch vector

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        x = self.norm(self.conv(x, edge_index), batch)
        return self.last(F.dropout(pyg.global_mean_pool(x, batch), training=self.training))


def test_graph_level_models_take_a_batch_vector() -> None:
    batch = torch.arange(NODES) // 10
    edges = EDGES[:, batch[EDGES[0]] == batch[EDGES[1]]]
    model = GraphModel().eval()
    alone = mc_predict(model, X, edges, batch, samples=8, chunk_size=1)
    batched = mc_predict(model, X, edges, batch, samples=8, chunk_size=4)
    assert alone.mean.shape == (3, CLASSES)
    torch.testing.assert_close(alone.mean, batched.mean, rtol=1e-5, atol=1e-6)


def test_masks_are_shared_by_nodes_on_request() -> None:
    """Equal nodes then vary together: correlation 1 instead of 0."""
    x = torch.ones(NODES, CHANNELS)
    for model in (attached("dropout", MLP), nn.Sequential(nn.Dropout(), nn.Linear(CHANNELS, 3))):
        inputs = (x,) if isinstance(model, nn.Sequential) else (x, EDGES)
        shared = mc_predict(model, *inputs, samples=50, share_masks=True, keep_samples=True)
        apart = mc_predict(model, *inputs, samples=50, keep_samples=True)
        assert shared.samples is not None
        assert apart.samples is not None
        torch.testing.assert_close(shared.samples[:, 0], shared.samples[:, 1])
        assert abs(torch.corrcoef(apart.samples[:, :2, 0].T)[0, 1]) < 0.6
        assert (shared.samples.mean(1).std(0) > 2 * apart.samples.mean(1).std(0)).all()
    batched = mc_predict(attached("dropout"), x, EDGES, samples=6, chunk_size=6, share_masks=True)
    assert batched.std.any()
    with pytest.raises(ParameterError, match="share_masks needs masks of independent factors"):
        mc_predict(attached("drop-block"), x, EDGES, share_masks=True)


def test_derivatives_belong_to_the_same_masks() -> None:
    """The force of a sampled energy against its finite difference, both of sample t."""
    model = build("nn.Dropout").double()
    x = X.double().requires_grad_()

    def energy(values: Tensor) -> Tensor:
        prediction = mc_predict(
            model, values, EDGES, samples=3, task="regression", grad=True, keep_samples=True
        )
        assert prediction.samples is not None
        return prediction.samples[1].sum()

    (force,) = torch.autograd.grad(energy(x), x)
    step = torch.zeros_like(x)
    step[4, 2] = 1e-5
    difference = (energy(x.detach() + step) - energy(x.detach() - step)) / 2e-5
    assert force[4, 2] == pytest.approx(difference.item(), rel=1e-6)


def test_gradients_of_a_classification() -> None:
    x = X.clone().requires_grad_()
    prediction = mc_predict(build("nn.Dropout"), x, EDGES, samples=4, grad=True)
    assert prediction.entropy is not None
    prediction.entropy.sum().backward()
    assert x.grad is not None
    assert x.grad.any()
    plain = mc_predict(build("nn.Dropout"), X, EDGES, samples=4)
    torch.testing.assert_close(prediction.mean.detach(), plain.mean, rtol=1e-5, atol=1e-6)


def test_sampling_stops_when_the_error_is_small_whatever_the_chunks() -> None:
    model = build("nn.Dropout")
    numbers = set()
    for chunk_size in (1, 7, None):
        prediction = mc_predict(
            model, X, EDGES, samples=5000, until=0.01, chunk_size=chunk_size, seed=1
        )
        assert float(prediction.standard_error.max()) <= 0.01
        numbers.add(prediction.num_samples)
    assert len(numbers) == 1
    assert 10 < numbers.pop() < 5000
    assert mc_predict(model, X, EDGES, samples=15, until=1e-9).num_samples == 15


def test_multilabel_entropies_are_those_of_each_label() -> None:
    model = build("nn.Dropout")
    prediction = mc_predict(model, X, EDGES, samples=9, task="multilabel", keep_samples=True)
    assert prediction.samples is not None
    with Sampler(model, (X, EDGES), seed=0) as sampler:
        probs = torch.stack(sampler.draw(range(9))).sigmoid().double()
    torch.testing.assert_close(prediction.samples.double(), probs, rtol=1e-5, atol=1e-6)
    mean = probs.mean(0)
    expected = -(mean * mean.log() + (1 - mean) * (1 - mean).log())
    assert prediction.entropy is not None
    torch.testing.assert_close(prediction.entropy, expected, rtol=1e-5, atol=1e-6)


def test_a_regression_has_both_parts_of_the_variance() -> None:
    class Gaussian(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.log_variance = nn.Linear(CHANNELS, 1), nn.Linear(CHANNELS, 1)

        def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
            x = F.dropout(x, 0.3, training=self.training)
            return self.mean(x), self.log_variance(x).exp()

    model = Gaussian()
    prediction = mc_predict(model, X, EDGES, samples=50, task="regression", chunk_size=7)
    with Sampler(model, (X, EDGES), seed=0) as sampler:
        pairs = sampler.draw(range(50))
    means, noise = (torch.stack(part).double() for part in zip(*pairs, strict=True))
    torch.testing.assert_close(prediction.mean, means.mean(0))
    torch.testing.assert_close(prediction.std, means.std(0))
    assert prediction.variance is not None
    torch.testing.assert_close(prediction.variance, noise.mean(0) + means.var(0))


def test_features_are_prepared_as_fit_prepared_them() -> None:
    from gnndrop.config import TrainConfig
    from gnndrop.datasets import load

    data = load("csbm:nodes=80,classes=2,features=8").data
    data.x = (data.x > 1.2).float()  # bags of words
    model = attached("dropout:p=0.2", GCN)
    model = GCN(8, 8, 2)
    attach(model, "dropout:p=0.2")
    fit(model, data, TrainConfig(epochs=3))
    given = mc_predict(model, data.x, data.edge_index, samples=5)
    as_data = mc_predict(model, data, samples=5)
    scaled = data.x / data.x.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(given.mean, as_data.mean)
    by_hand = mc_predict(model, scaled, data.edge_index, samples=5)
    torch.testing.assert_close(given.mean, by_hand.mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 1}, "samples must be at least 2, got 1"),
        ({"chunk_size": 0}, "chunk_size must be at least 1"),
        ({"until": 0.0}, "until must be above 0"),
        ({"task": "clasification"}, "did you mean 'classification'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        mc_predict(build("nn.Dropout"), X, EDGES, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_are_not_taken_for_logits(dtype: torch.dtype) -> None:
    class Softmax(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return F.dropout(x, training=self.training).softmax(-1).to(dtype)

    with pytest.raises(ParameterError, match="must return logits, got rows that are prob"):
        mc_predict(Softmax(), X, EDGES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    x = X.clone()
    x[3, 2] = value
    with pytest.raises(ParameterError, match="outputs must be finite"):
        mc_predict(build("nn.Dropout"), x, EDGES)


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_output_of_a_later_sample_that_is_not_finite_is_refused(
    task: str, value: float
) -> None:
    samples = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    summary = TASKS[task](keep=False)
    summary.add(list(samples))
    samples[2, 4, 1] = value
    with pytest.raises(ParameterError, match="outputs must be finite"):
        summary.add(list(samples))


class Hidden(nn.Module):
    """Draws where no torch function tells."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(CHANNELS, 8)
        self.recurrent = nn.LSTM(CHANNELS, 8, num_layers=2, dropout=0.5)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "recurrent":
            return self.recurrent(x[None])[0][0]
        return torch.dropout(self.linear(x), 0.5, self.training)


@pytest.mark.parametrize("kind", ["recurrent", "native"])
@pytest.mark.parametrize("p", [0.0, 0.01])
def test_draws_that_no_function_shows_are_not_frozen(kind: str, p: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Hidden(kind), nn.Dropout(p), nn.Linear(8, CLASSES)).eval()
    ours = mc_predict(model, X, samples=200, task="regression")
    assert any("generator" in site.operator for site in ours.sites)
    model.train()
    with torch.no_grad():
        theirs = torch.stack([model(X) for _ in range(200)]).std(0)
    assert float(ours.std.mean() / theirs.mean()) == pytest.approx(1, abs=0.15)


def test_a_flag_that_guards_two_things_is_refused() -> None:
    """The module's own counter moves, so it belongs in evaluation, where edges are not dropped."""

    class Counting(UserModel):
        def __init__(self) -> None:
            super().__init__(user_edge)
            self.register_buffer("steps", torch.zeros(1))
            self.dropout = nn.Dropout(0.5)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            if self.training:
                self.steps += 1
            return super().forward(self.dropout(x), edge_index)

    model = Counting().eval()
    with pytest.raises(ParameterError, match="must be in a module of its own"):
        mc_predict(model, X, EDGES)
    assert not model.steps.any()


def test_cached_features_are_refused() -> None:
    model = pyg.Sequential(
        "x, edge_index",
        [(nn.Dropout(0.5), "x -> x"), (pyg.SGConv(CHANNELS, 3, cached=True), "x, edge_index -> x")],
    )
    with pytest.raises(ParameterError, match="it keeps the features of its first call"):
        mc_predict(model, X, EDGES)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_blocks_that_are_coupled_are_found_beside_a_large_offset(offset: float) -> None:
    class Offset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("pair norm").double()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.inner(x, edge_index) + offset

    model, settings = Offset(), {"task": "regression", "samples": 6, "keep_samples": True}
    alone = mc_predict(model, X.double(), EDGES, chunk_size=1, **settings)
    chunked = mc_predict(model, X.double(), EDGES, chunk_size=6, **settings)
    torch.testing.assert_close(alone.samples, chunked.samples, rtol=0, atol=1e-9)


class Remembering(nn.Module):
    """Keeps a state in a buffer, and returns the one tensor that it writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("memory", torch.zeros(NODES, CHANNELS))
        self.register_buffer("late", None)
        self.out = torch.zeros(NODES, CHANNELS)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.late = torch.ones(1)
        self.memory.mul_(0.9).add_(F.dropout(x, training=True))
        return self.out.copy_(self.memory)


def test_samples_do_not_see_those_before_them() -> None:
    model = Remembering()
    prediction = mc_predict(model, X, EDGES, samples=12, task="regression", keep_samples=True)
    assert prediction.samples is not None
    assert len(prediction.samples.flatten(1).unique(dim=0)) == 12
    assert float(prediction.samples[-1].mean()) == pytest.approx(float(X.mean()), rel=0.3)
    assert model.late is None
    assert not model.memory.any()


def test_buffers_of_another_shape_are_given_back() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(2))

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            self.seen.data = torch.ones(6)
            return F.dropout(x, training=True)

    model = Growing().eval()
    mc_predict(model, X, EDGES, samples=3, task="regression")
    assert model.seen.equal(torch.zeros(2))
    assert not model.training


def test_inputs_are_not_written_to_by_dropout_in_place() -> None:
    x = X.clone()
    model = nn.Sequential(nn.Dropout1d(0.5, inplace=True), nn.Linear(CHANNELS, CLASSES))
    mc_predict(model, x, samples=3)
    assert torch.equal(x, X)


class Discarding(nn.Module):
    """Takes `Data`, and drops in place without a look at what comes back."""

    def __init__(self, kind: type[nn.Module], drops_input: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(CHANNELS, 8), nn.Linear(8, CLASSES)
        self.drop, self.beside = kind(0.9, inplace=True), nn.Dropout(0.1)
        self.drops_input = drops_input

    def forward(self, data: Data) -> Tensor:
        h = data.x.view(-1, CHANNELS) if self.drops_input else self.first(data.x)
        self.drop(h)
        return self.last(self.beside(self.first(h) if self.drops_input else h))


@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout])
@pytest.mark.parametrize("grad", [False, True])
def test_dropout_in_place_acts_where_the_model_looks(kind: type[nn.Module], grad: bool) -> None:
    """What the first layer gives is remembered, and written to: it is to be dropped every time."""
    torch.manual_seed(0)
    model, graph = Discarding(kind), Data(x=X, edge_index=EDGES)
    sampled = mc_predict(model, graph, samples=600, grad=grad, task="regression")
    model.train()
    with torch.no_grad():
        looped = torch.stack([model(graph) for _ in range(600)])
    # Of 600 samples a standard deviation is off by 1/sqrt(1200) = 3 %; of tails as heavy, by more.
    ratio = sampled.std.detach() / looped.std(0)
    assert (ratio - 1).abs().max() < 0.5
    assert ratio.mean() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", [nn.Dropout, nn.AlphaDropout])
def test_dropout_in_place_does_not_write_to_the_users_features(kind: type[nn.Module]) -> None:
    graph = Data(x=X.clone(), edge_index=EDGES)
    mc_predict(Discarding(kind, drops_input=True), graph, samples=3)
    assert torch.equal(graph.x, X)


def test_dropout_in_place_does_not_write_to_parameters() -> None:
    class Embedding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(X.clone())

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.rows[:NODES], training=self.training, inplace=True) + x

    model = Embedding()
    assert mc_predict(model, X, samples=3, task="regression").std.any()
    assert torch.equal(model.rows, X)


def test_models_that_check_their_inputs_are_sampled_one_by_one() -> None:
    class Checking(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            assert len(x) == NODES
            return F.dropout(x, training=self.training)

    assert mc_predict(Checking(), X, EDGES, samples=6).std.any()


def test_compiled_models_are_sampled() -> None:
    model = torch.compile(build("nn.Dropout"), backend="eager")
    assert mc_predict(model, X, EDGES, samples=3).std.any()


def test_graphs_without_edges() -> None:
    empty = torch.empty(2, 0, dtype=torch.int64)
    conv = pyg.TransformerConv(CHANNELS, CLASSES, dropout=0.5)
    layers = [(nn.Dropout(0.5), "x -> x"), (conv, "x, edge_index -> x")]
    model = pyg.Sequential("x, edge_index", layers)
    assert mc_predict(model, X, empty, samples=3).mean.shape == (NODES, CLASSES)


@pytest.mark.parametrize("library", ["random", "numpy"])
def test_draws_of_other_generators_are_refused(library: str) -> None:
    import random

    import numpy as np

    class Foreign(nn.Module):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            draw = random.random() if library == "random" else np.random.rand()  # noqa: NPY002 - on purpose
            return F.dropout(x, training=True) * draw

    with pytest.raises(ParameterError, match="got draws from Python's or numpy's"):
        mc_predict(Foreign(), X, EDGES)


def test_generators_of_the_models_own_are_refused() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return x * torch.rand(x.shape, generator=self.generator)

    with pytest.raises(ParameterError, match="model must draw from torch's own generator"):
        mc_predict(Own(), X, EDGES)


def test_shared_masks_are_not_promised_of_what_draws_outside() -> None:
    with pytest.raises(ParameterError, match="share_masks needs masks of gnndrop's operators"):
        mc_predict(build("alpha dropout"), X, EDGES, share_masks=True)


def test_data_in_the_place_of_inputs() -> None:
    class TakesData(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("nn.Dropout")

        def forward(self, data: Data) -> Tensor:
            return self.inner(data.x, data.edge_index)

    data = Data(x=X, edge_index=EDGES)
    assert mc_predict(TakesData(), data, samples=3).std.any()
    data.batch = torch.zeros(NODES, dtype=torch.int64)
    with pytest.raises(ParameterError, match="pass x, edge_index and batch one by one"):
        mc_predict(build("nn.Dropout"), data)


def test_confident_nodes_have_finite_derivatives() -> None:
    x = (200 * X).requires_grad_()
    prediction = mc_predict(build("nn.Dropout"), x, EDGES, samples=4, grad=True)
    assert prediction.mutual_information is not None
    prediction.mutual_information.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_outputs_that_are_no_logits_are_refused() -> None:
    class Other(nn.Module):
        def __init__(self, function: Callable[[Tensor], Any]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor, edge_index: Tensor) -> Any:
            return self.function(F.dropout(x, training=self.training))

    with pytest.raises(ParameterError, match="one floating point tensor, got tuple"):
        mc_predict(Other(lambda x: (x, x)), X, EDGES)
    with pytest.raises(ParameterError, match="C >= 2 classes"):
        mc_predict(Other(lambda x: x[:, :1]), X, EDGES)
    with pytest.raises(ParameterError, match="must be a variance"):
        mc_predict(Other(lambda x: (x, x - 9)), X, EDGES, task="regression")


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "none"])
def test_every_operator_can_be_sampled(name: str) -> None:
    kind = GAT if OPERATORS[name].site == "attention" else GCN
    options = {"heads": 2} if kind is GAT else {"num_layers": 4, "residual": True}
    model = attached(f"{name}:p=0.4", kind, **options)
    alone = mc_predict(model, X, EDGES, samples=6, chunk_size=1, keep_samples=True)
    chunked = mc_predict(model, X, EDGES, samples=6, chunk_size=3, keep_samples=True)
    assert alone.std.any()
    assert alone.samples is not None
    assert chunked.samples is not None
    torch.testing.assert_close(alone.samples, chunked.samples, rtol=1e-4, atol=1e-5)


def test_operators_as_layers_have_masks_of_their_own() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.edges = Dropout(), Dropout(), DropEdge(p=0.3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            kept, _ = self.edges(edge_index)
            shown = (self.one(torch.ones_like(x)) - self.two(torch.ones_like(x))).abs()
            return shown + kept.size(1)

    prediction = mc_predict(Layers(), X, EDGES, samples=5, task="regression", keep_samples=True)
    assert prediction.samples is not None
    assert (prediction.samples % 1).eq(0).all()
    assert len(prediction.samples.flatten(1).median(1).values.unique()) > 1  # numbers of edges
    assert all((sample != sample[0, 0]).any() for sample in prediction.samples)


@settings(max_examples=25, deadline=None)
@given(
    nodes=st.integers(1, 12),
    ends=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
    samples=st.integers(2, 9),
    chunk_size=st.integers(1, 9),
    spec=st.sampled_from(
        ["dropout", "drop-edge:p=0.3", "drop-message", "drop-node", "drop-feature"]
    ),
)
def test_any_graph_and_chunks(
    nodes: int, ends: list[tuple[int, int]], samples: int, chunk_size: int, spec: str
) -> None:
    """Isolated nodes, self-loops, duplicates, directed and empty graphs."""
    edge_index = torch.tensor(ends, dtype=torch.int64).reshape(-1, 2).t() % nodes
    x = torch.rand(nodes, CHANNELS, generator=torch.Generator().manual_seed(nodes))
    torch.manual_seed(0)
    model = attached(spec).eval()
    with Sampler(model, (x, edge_index), seed=1) as sampler:
        alone = [sampler.draw([sample])[0] for sample in range(samples)]
    with Sampler(model, (x, edge_index), seed=1) as sampler:
        chunks: list[Tensor] = []
        while len(chunks) < samples:
            chunks += sampler.draw(range(len(chunks), min(len(chunks) + chunk_size, samples)))
    torch.testing.assert_close(torch.stack(chunks), torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_the_number_of_copies_depends_on_the_size() -> None:
    assert copies_that_pay((X, EDGES), 1000) > 100
    assert 1000 % copies_that_pay((X, EDGES), 1000) == 0
    assert copies_that_pay((torch.ones(10_000, 2), EDGES), 100) == 1
    assert copies_that_pay((torch.ones(100, 6000), EDGES), 100) == 1
    assert copies_that_pay((X,), 100) == 1
