"""The protocol of training: against a loop of its own, and on models that follow a script."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_geometric.nn as pyg
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch_geometric.data import Data

from gnndrop.attach import attach
from gnndrop.config import TrainConfig
from gnndrop.errors import DivergedError, ParameterError
from gnndrop.inputs import prepare_features, prepare_inputs
from gnndrop.masks import draw_seed
from gnndrop.models import GCN, MLP, SAGE
from gnndrop.training import FitResult, fit

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

NODES, CHANNELS, CLASSES = 60, 20, 3


@pytest.fixture(autouse=True)
def seeded() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def data() -> Data:
    """A small graph whose labels both features and edges tell something of."""
    y = torch.arange(NODES) % CLASSES
    x = torch.randn(NODES, CHANNELS, dtype=torch.float64) + F.one_hot(y, CHANNELS)
    edge_index = torch.randint(0, NODES, (2, 300))
    edge_index = edge_index[:, (y[edge_index[0]] == y[edge_index[1]]) | (torch.rand(300) < 0.3)]
    third = torch.arange(NODES) // (NODES // 3)
    masks = {"train_mask": third == 0, "val_mask": third == 1, "test_mask": third == 2}
    return Data(x=x, edge_index=edge_index, y=y, **masks)


@pytest.fixture
def words(data: Data) -> Data:
    """The same with bag-of-words features, one of the nodes without any word."""
    data.x = (torch.rand(NODES, CHANNELS) < 0.1).double()
    data.x[0] = 0
    return data


def gcn(**options: object) -> nn.Module:
    return GCN(CHANNELS, 8, CLASSES, **options).double()


def scores(result: FitResult) -> tuple[float, float, float, int, int]:
    return result.train, result.validation, result.test, result.best_epoch, result.epochs


def accuracy(model: nn.Module, data: Data, mask: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        hits = (model(data.x, data.edge_index).argmax(1) == data.y)[mask]
    return int(hits.sum()) / len(hits)


# --- against a loop of its own ------------------------------------------------------------------


def plain_loop(model: nn.Module, data: Data, config: TrainConfig) -> tuple[object, ...]:
    """The protocol once more, with PyG's own message passing."""
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    history = []
    for _ in range(config.epochs):
        model.train()
        loss = F.cross_entropy(
            model(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask]
        )
        model.zero_grad()
        loss.backward()
        optimizer.step()
        model.eval()
        logits = model(data.x, data.edge_index).detach()
        y = data.y[data.val_mask]
        order = (
            accuracy(model, data, data.val_mask),
            -float(F.cross_entropy(logits[data.val_mask], y)),
        )
        history.append((order, {name: v.clone() for name, v in model.state_dict().items()}))
    best = max(range(len(history)), key=lambda epoch: history[epoch][0])
    model.load_state_dict(history[best][1])
    masks = data.train_mask, data.val_mask, data.test_mask
    return *(accuracy(model, data, mask) for mask in masks), best + 1, config.epochs


@pytest.mark.parametrize(
    "make",
    [
        lambda: gcn(),
        lambda: gcn(norm="layer", residual=True, num_layers=3),
        lambda: SAGE(CHANNELS, 8, CLASSES, norm="layer").double(),
        lambda: pyg.GAT(CHANNELS, 8, 2, CLASSES, heads=2).double(),
    ],
)
def test_fit_is_the_protocol(make, data: Data) -> None:
    config = TrainConfig(epochs=30, patience=0, learning_rate=0.02, weight_decay=1e-3)
    torch.manual_seed(1)
    plain = make()
    expected = plain_loop(plain, data, config)
    torch.manual_seed(1)
    model = make()
    result = fit(model, data, config)
    assert scores(result) == expected
    assert 1 < result.best_epoch < 30  # else the choice was none
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-8, atol=1e-8)


def test_scores_are_those_of_the_model_that_is_left(data: Data) -> None:
    """Also with noise in training: all of them are measured in evaluation mode."""
    model = pyg.GCN(CHANNELS, 8, 2, CLASSES, dropout=0.8, norm="batch").double()
    result = fit(model, data, TrainConfig(epochs=40))
    masks = data.train_mask, data.val_mask, data.test_mask
    found = tuple(accuracy(model, data, mask) for mask in masks)
    assert found == (result.train, result.validation, result.test)
    assert result.train > 0.5
    assert 0 < result.seconds < 60


def test_a_split_wins_over_the_masks_of_the_data(data: Data) -> None:
    split = [data.test_mask, data.train_mask, data.val_mask]
    results = []
    for arguments in ({"split": split}, {"split": torch.stack(split)}):
        torch.manual_seed(1)
        results.append(scores(fit(gcn(), data, TrainConfig(epochs=9), **arguments)))
    data.train_mask, data.val_mask, data.test_mask = split
    torch.manual_seed(1)
    results.append(scores(fit(gcn(), data, TrainConfig(epochs=9))))
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("spec", ["dropout:p=0.5", "drop-edge:p=0.5", "drop-message:p=0.5"])
def test_runs_are_reproducible_to_the_bit(spec: str, data: Data) -> None:
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = gcn()
        attach(model, spec)
        result = fit(model, data, TrainConfig(epochs=15))
        runs.append((scores(result), model.state_dict()))
    (first, weights), (second, again), (_, other) = runs
    assert first == second
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)


def test_training_draws_one_seed_per_step_and_nothing_else(data: Data) -> None:
    plain, dropping = gcn(), gcn()
    attach(dropping, "dropout")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    others = random.getstate(), str(np.random.get_state())  # noqa: NPY002  # what must not move
    fit(plain, data, TrainConfig(epochs=4))
    assert torch.equal(torch.get_rng_state(), before)
    fit(dropping, data, TrainConfig(epochs=4))
    after = torch.get_rng_state()
    torch.manual_seed(3)
    for _ in range(4):
        draw_seed()
    assert torch.equal(torch.get_rng_state(), after)
    assert (random.getstate(), str(np.random.get_state())) == others  # noqa: NPY002  # as above


def test_roc_auc(data: Data) -> None:
    data.y = data.y % 2
    model = GCN(CHANNELS, 8, 2).double()
    result = fit(model, data, TrainConfig(epochs=30), metric="roc_auc")
    with torch.no_grad():
        logits = model.eval()(data.x, data.edge_index)
    found = [
        roc_auc_score(data.y[mask].numpy(), (logits[mask][:, 1] - logits[mask][:, 0]).numpy())
        for mask in (data.train_mask, data.val_mask, data.test_mask)
    ]
    assert found == pytest.approx([result.train, result.validation, result.test])
    assert result.train > 0.7


def test_nothing_of_the_data_is_changed(words: Data) -> None:
    words.edge_weight = torch.rand(words.num_edges, dtype=torch.float64)
    before = {key: value.clone() for key, value in words.to_dict().items()}
    versions = {key: value._version for key, value in words.to_dict().items()}
    fit(gcn(), words, TrainConfig(epochs=2))
    assert set(words.to_dict()) == set(before)
    for key, value in words.to_dict().items():
        assert torch.equal(value, before[key])
        assert value._version == versions[key]


def test_the_only_trace_in_the_model_is_how_its_features_were_scaled(data: Data) -> None:
    model = gcn()
    before = [set(module.__dict__) for module in model.modules()]
    before[0].add("normalize_features")
    for normalizes in (True, False):
        fit(model, data, TrainConfig(epochs=2, normalize_features=normalizes))
        assert [set(module.__dict__) for module in model.modules()] == before
        assert model.normalize_features is normalizes


def test_frozen_parameters_stay(data: Data) -> None:
    model = gcn()
    frozen = model.layers[0].lin.weight.requires_grad_(False)
    before, learned = frozen.clone(), model.layers[1].lin.weight.clone()
    fit(model, data, TrainConfig(epochs=5))
    assert torch.equal(frozen, before)
    assert not torch.equal(model.layers[1].lin.weight, learned)


# --- by a script --------------------------------------------------------------------------------


class Scripted(nn.Module):
    """Hits as many validation and test nodes in each epoch as a script says.

    A script's entry is (validation hits, confidence, test hits), of 20 nodes each; the epoch is
    part of the state, so restoring the weights of an epoch restores its entry.
    """

    def __init__(self, script: list[tuple[int, float, int]], y: Tensor) -> None:
        super().__init__()
        self.script, self.y = script, y
        self.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.calls: list[tuple[bool, bool, int]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled(), len(inputs)))
        if self.training:
            self.epoch += 1
            return self.weight.expand(NODES, CLASSES) * 1
        validation, confidence, test = self.script[int(self.epoch) - 1]
        hit = torch.zeros(NODES, dtype=torch.bool)
        hit[20 : 20 + validation] = True
        hit[40 : 40 + test] = True
        answers = torch.where(hit, self.y, (self.y + 1) % CLASSES)
        return confidence * F.one_hot(answers, CLASSES).double()


def follow(
    data: Data, script: list[tuple[int, float, int]], model: Scripted | None = None, **config: int
) -> FitResult:
    config = {"epochs": len(script), "patience": 0} | config
    return fit(model or Scripted(script, data.y), data, TrainConfig(**config))


def test_the_test_score_is_that_of_the_best_validation_epoch(data: Data) -> None:
    script = [(5, 1.0, 20), (15, 1.0, 3), (10, 1.0, 19), (14, 1.0, 18)]
    result = follow(data, script)
    assert scores(result)[1:] == (15 / 20, 3 / 20, 2, 4)


def test_ties_go_to_the_lower_loss(data: Data) -> None:
    """With 15 of 20 right, confidence 1 costs less than 0.1 and than 5."""
    script = [(15, 0.1, 1), (15, 1.0, 2), (15, 5.0, 3), (15, 1.0, 4), (14, 2.0, 5)]
    assert scores(follow(data, script))[1:4] == (15 / 20, 2 / 20, 2)


def test_a_first_epoch_without_a_hit_counts(data: Data) -> None:
    result = follow(data, [(0, 50.0, 7), (0, 60.0, 8)])
    assert (result.validation, result.test, result.best_epoch) == (0, 7 / 20, 1)


@pytest.mark.parametrize(
    ("patience", "epochs", "best"),
    [(1, 2, 1), (2, 3, 1), (3, 7, 4), (4, 8, 4), (5, 9, 9), (0, 9, 9)],
)
def test_patience(data: Data, patience: int, epochs: int, best: int) -> None:
    hits = [10, 5, 5, 11, 6, 6, 6, 6, 12]
    result = follow(data, [(hit, 1.0, hit) for hit in hits], patience=patience)
    assert (result.epochs, result.best_epoch) == (epochs, best)
    assert result.test == hits[best - 1] / 20


def test_steps_train_and_scores_evaluate(data: Data) -> None:
    model = Scripted([(1, 1.0, 1)] * 3, data.y)
    follow(data, model.script, model)
    assert model.calls == [(True, True, 2), (False, False, 2)] * 3 + [(False, False, 2)]


class Frozen(nn.Dropout):
    """Stays in evaluation, as frozen batch normalizations do."""

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)


def freeze(module: nn.Module) -> nn.Module:
    """The same by a method of the one object."""
    module.train = lambda mode=True: nn.Module.train(module, False)
    return module


class Doubting(nn.Module):
    """Notes the flags of its parts at every call."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.lin = nn.Linear(CHANNELS, CLASSES).double()
        self.flags: list[list[bool]] = []

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        self.flags.append([part.training for part in (self, *self.parts)])
        return self.lin(x)


@pytest.mark.parametrize(
    ("part", "is_trained"),
    [(nn.Dropout(), True), (Frozen(), False), (freeze(nn.Dropout()), False)],
    ids=["plain", "its own train", "train set on it"],
)
def test_flags_follow_what_modules_make_of_train(data: Data, part, is_trained: bool) -> None:
    model = Doubting(part)
    fit(model, data, TrainConfig(epochs=2))
    assert model.flags == [[True, is_trained], [False, False]] * 2 + [[False, False]]


def test_a_compiled_model_is_switched_inside(data: Data) -> None:
    model = Doubting(nn.Dropout())
    fit(torch.compile(model, backend="eager"), data, TrainConfig(epochs=1))
    assert model.flags == [[True, True], [False, False], [False, False]]


def test_weights_of_edges_are_passed_on(data: Data) -> None:
    data.edge_weight = torch.rand(data.num_edges)
    model = Scripted([(1, 1.0, 1)], data.y)
    follow(data, model.script, model)
    assert {number for _, _, number in model.calls} == {3}
    assert torch.equal(prepare_inputs(model, data)[2], data.edge_weight)


@pytest.mark.parametrize("training", [True, False])
def test_the_training_flag_is_left_as_it_was(data: Data, training: bool) -> None:
    model = Scripted([(1, 1.0, 1), (1, math.nan, 1)], data.y).train(training)
    follow(data, model.script, model, epochs=1)
    assert model.training == training
    with pytest.raises(DivergedError):
        follow(data, model.script, model, epochs=1)  # its next epoch
    assert model.training == training


# --- divergence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_training_loss_that_is_not_finite_is_an_error(data: Data, bad: float) -> None:
    model = gcn()
    data.x[0, 0] = bad
    with pytest.raises(DivergedError, match=r"must stay finite, got (nan|inf) in epoch 1:"):
        fit(model, data)
    assert "propagate" not in model.layers[0].__dict__


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
@pytest.mark.parametrize("epochs", [1, 20])
def test_steps_that_are_too_long_are_an_error(data: Data, metric: str, epochs: int) -> None:
    """Also in the last epoch, whose weights no training loss is computed with."""
    data.y = data.y % 2
    config = TrainConfig(epochs=epochs, learning_rate=1e200)
    with pytest.raises(DivergedError, match="lower the learning rate"):
        fit(GCN(CHANNELS, 8, 2).double(), data, config, metric=metric)


def test_a_validation_loss_that_is_not_finite_is_an_error(data: Data) -> None:
    with pytest.raises(DivergedError, match="got nan in epoch 2"):
        follow(data, [(1, 1.0, 1), (19, math.nan, 1), (2, 1.0, 1)])


# --- inputs -------------------------------------------------------------------------------------


def test_rows_of_bags_of_words_are_normalized(words: Data) -> None:
    x = prepare_inputs(nn.Identity(), words)[0]
    counts = words.x.sum(1)
    assert torch.equal(x.sum(1) > 0, counts > 0)
    torch.testing.assert_close(x, words.x / counts.clamp(min=1)[:, None])
    assert prepare_inputs(nn.Identity(), words, normalize=False)[0] is words.x


def test_rows_of_weighted_words_are_normalized_too(words: Data) -> None:
    words.x = words.x * torch.rand(CHANNELS)
    x = prepare_inputs(nn.Identity(), words)[0]
    sums = x.sum(1)[words.x.sum(1) > 0]
    torch.testing.assert_close(sums, torch.ones_like(sums))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(NODES, CHANNELS),
        lambda: torch.rand(NODES, CHANNELS),  # positive, but dense
        lambda: -(torch.rand(NODES, CHANNELS) < 0.1).float(),
        lambda: (torch.rand(NODES, CHANNELS) < 0.1) * torch.randn(NODES, CHANNELS),
    ],
)
def test_other_features_are_left_alone(make, data: Data) -> None:
    data.x = make()
    assert prepare_inputs(nn.Identity(), data)[0] is data.x


def test_sparse_features_go_to_models_that_take_them(words: Data, data: Data) -> None:
    for model, layout in (
        (gcn(), torch.sparse_csr),
        (MLP(CHANNELS, 8, CLASSES), torch.sparse_csr),
        (SAGE(CHANNELS, 8, CLASSES), torch.strided),
        (pyg.GCN(CHANNELS, 8, 2, CLASSES), torch.strided),
    ):
        x = prepare_inputs(model, words)[0]
        assert x.layout == layout
        assert torch.equal(x.to_dense(), prepare_inputs(nn.Identity(), words)[0])
    words.x = (torch.rand(NODES, CHANNELS) < 0.4).double()
    assert prepare_inputs(gcn(), words)[0].layout == torch.strided  # it would not pay


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("odd", [-0.0, -1.0, float("nan")])
def test_sparse_features_hold_what_is_not_zero(
    dtype: torch.dtype, is_transposed: bool, odd: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 41, generator=generator)
    x = (x * (x < 0.1)).to(dtype)
    x[3], x[5, 7] = 0, odd
    x = x.T.contiguous().T if is_transposed else x
    found = prepare_features(gcn(), x, normalize=True)
    is_bag = odd == 0
    plain = x / x.sum(1).clamp(min=torch.finfo(dtype).tiny)[:, None] if is_bag else x
    rows, columns = (plain != 0).nonzero(as_tuple=True)
    assert found.col_indices().dtype == found.crow_indices().dtype == torch.int32
    assert found.col_indices().tolist() == columns.tolist()
    assert found.crow_indices().diff().tolist() == rows.bincount(minlength=60).tolist()
    torch.testing.assert_close(found.values(), plain[rows, columns], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("spec", ["none", "dropout:p=0.5", "drop-node:p=0.3"])
@pytest.mark.parametrize("kind", [GCN, MLP])
def test_sparse_training_is_dense_training(kind, spec: str, words: Data, monkeypatch) -> None:
    """With the same masks: stored zeros need no coin."""
    results = []
    for sparse in (True, False):
        monkeypatch.setattr(kind, "takes_sparse", sparse)
        torch.manual_seed(1)
        model = kind(CHANNELS, 8, CLASSES).double()
        attach(model, spec)
        results.append((scores(fit(model, words, TrainConfig(epochs=20))), model.state_dict()))
    (first, weights), (second, others) = results
    assert first == second
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=1e-8, atol=1e-8)


# --- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train_mask", "val_mask", "test_mask"])
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "must have a {name}"),
        (torch.zeros(NODES, dtype=torch.bool), "{name} must mark labelled nodes, got 0 nodes"),
        (torch.ones(NODES, 10, dtype=torch.bool), "{name} must be boolean of shape .* split="),
        (torch.ones(NODES - 1, dtype=torch.bool), "{name} must be boolean of shape"),
        (torch.arange(5), "{name} must be boolean of shape"),
        (torch.ones(NODES), "{name} must be boolean of shape"),
    ],
)
def test_wrong_masks_are_refused(data: Data, name: str, mask, message: str) -> None:
    data[name] = mask
    with pytest.raises(ParameterError, match=message.format(name=name)):
        fit(gcn(), data)


@pytest.mark.parametrize("node", [0, 20, 40])
def test_marked_nodes_without_a_label_are_refused(data: Data, node: int) -> None:
    data.y[node] = -1
    with pytest.raises(ParameterError, match="got 20 nodes of which 1 have none"):
        fit(gcn(), data)


def test_nodes_without_a_label_may_stand_in_the_graph(data: Data) -> None:
    data.train_mask[0] = False
    data.y[0] = -1
    assert fit(gcn(), data, TrainConfig(epochs=2)).epochs == 2


@pytest.mark.parametrize(
    "y", [None, torch.zeros(NODES), torch.zeros(NODES, 1, dtype=torch.int64), torch.zeros(3).long()]
)
def test_wrong_labels_are_refused(data: Data, y: Tensor | None) -> None:
    data.y = y
    with pytest.raises(ParameterError, match=rf"labels y must be int64 of shape \({NODES},\)"):
        fit(gcn(), data)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_split_has_three_masks(data: Data, number: int) -> None:
    with pytest.raises(ParameterError, match=f"split must be three masks.* got {number}"):
        fit(gcn(), data, split=[data.train_mask] * number)


def test_an_unknown_metric_suggests_the_nearest(data: Data) -> None:
    with pytest.raises(ParameterError, match="'roc-auc', did you mean 'roc_auc'"):
        fit(gcn(), data, metric="roc-auc")


def test_roc_auc_refuses_three_classes(data: Data) -> None:
    with pytest.raises(ParameterError, match="two outputs"):
        fit(gcn(), data, metric="roc_auc")


@pytest.mark.parametrize(("x", "got"), [(None, "none"), (torch.ones(30, 8).int(), "torch.int32")])
def test_features_must_be_floating(data: Data, x: Tensor | None, got: str) -> None:
    data.x, data.num_nodes = x, len(data.y)
    with pytest.raises(ParameterError, match=f"the features x must be floating, got {got}"):
        fit(MLP(8, 4, 2), data, TrainConfig(epochs=1))


def test_nothing_is_trained_on_wrong_input(data: Data) -> None:
    model = gcn().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data.test_mask = None
    with pytest.raises(ParameterError):
        fit(model, data)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_selection_by_loss_keeps_the_epoch_of_the_lowest_loss(data: Data) -> None:
    """The weights that are left reach a validation loss that no other choice is below."""

    def loss_of(selection: str) -> tuple[float, int]:
        torch.manual_seed(0)
        model = gcn()
        result = fit(model, data, TrainConfig(epochs=60, patience=0, selection=selection))
        model.eval()
        with torch.no_grad():
            logits = model(*prepare_inputs(model, data))[data.val_mask]
        assert result.validation == pytest.approx(
            float((logits.argmax(1) == data.y[data.val_mask]).double().mean())
        )
        return float(F.cross_entropy(logits, data.y[data.val_mask])), result.best_epoch

    by_metric, by_loss = loss_of("metric"), loss_of("loss")
    assert by_loss[0] <= by_metric[0]
    assert by_loss[1] != by_metric[1]


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(ParameterError, match="selection must be 'metric' or 'loss', got 'best'"):
        TrainConfig(selection="best")
