"""Masks of features that accelerated layers apply themselves: nothing else is to be seen of it."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.checkpoint import checkpoint

from gnndrop import attach, mc_predict, propagation
from gnndrop.errors import ParameterError
from gnndrop.kernels import masked_multiply
from gnndrop.masks import Mask
from gnndrop.models import GCN
from gnndrop.operators import Dropout
from gnndrop.propagation import MaskedFeatures, accelerate

# torch calls its CSR layout beta; Dynamo itself looks at every tensor's gradient.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse", "ignore:The .grad attribute of a Tensor")

N, F, C = 12, 6, 4
ATTACHED = {
    "dropout": ["dropout"],
    "rare": ["dropout:p=0.1"],
    "everything": ["dropout:p=1"],
    "drop-feature": ["drop-feature"],
    "drop-node": ["drop-node"],
    "locked": ["locked-dropout"],
    "rescaled in evaluation": ["dropout:rescale=eval"],
    "not rescaled": ["dropout:rescale=none"],
    "shared": ["drop-feature:share=forward"],
    "a rate for each layer": ["dropout:p=0.2/0.6"],
    "gaussian": ["gaussian-dropout"],
    "block": ["drop-block"],
    "with edges": ["dropout+drop-edge"],
    "with edges first": ["drop-edge+dropout"],
    "with scaled edges": ["dropout+drop-edge:rescale=inverse"],
    "with messages": ["dropout+drop-message"],
    "with nodes": ["dropout+drop-node"],
    "with weights": ["dropout+drop-connect"],
    "two": ["dropout", "drop-node"],
    "two, of weights": ["dropout", "drop-connect"],
    "two, of edges": ["drop-edge", "dropout"],
}
DEFERRED = [  # in both layers
    *("dropout", "rare", "everything", "drop-feature", "drop-node", "locked", "not rescaled"),
    *("rescaled in evaluation", "shared", "a rate for each layer", "with nodes", "two"),
]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def deferred(monkeypatch) -> list[Mask]:
    """The masks of features that `convolve` was called with."""
    masks: list[Mask] = []
    real = propagation.convolve

    def spy(*arguments: Any, feature_mask: Mask | None = None, **options: Any) -> Tensor:
        masks.extend([] if feature_mask is None else [feature_mask])
        return real(*arguments, feature_mask=feature_mask, **options)

    monkeypatch.setattr(propagation, "convolve", spy)
    return masks


def edges() -> Tensor:
    """Loops and duplicates among them; the last node is isolated."""
    return torch.randint(0, N - 1, (2, 40))


def features(is_sparse: bool = False) -> Tensor:
    x = torch.randn(N, F, dtype=torch.float64)
    return x.relu().to_sparse_csr() if is_sparse else x.requires_grad_()


MODELS: dict[str, Callable[[], nn.Module]] = {
    "ours": lambda: GCN(F, 8, C).double(),
    "pygs": lambda: pyg.GCN(F, 8, 2, C).double(),
}


def layers_of(model: nn.Module) -> list[Any]:
    return [layer for layer in model.modules() if isinstance(layer, pyg.GCNConv)]


@contextmanager
def general(model: nn.Module) -> Iterator[None]:
    """Have messages formed: a hook that does nothing forces it."""
    hooks = [one.register_propagate_forward_hook(lambda *_: None) for one in layers_of(model)]
    yield
    for hook in hooks:
        hook.remove()


WAYS = (general, accelerate)


def run(model: nn.Module, *inputs: Tensor, way: Any = accelerate, seed: int = 3) -> list[Tensor]:
    """Return the output of one seed, and every derivative."""
    learned = [one for one in (*inputs, *model.parameters()) if one.requires_grad]
    torch.manual_seed(seed)
    with way(model):
        out = model(*inputs)
        slope = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        found = torch.autograd.grad((out * slope).sum(), learned, allow_unused=True)
    return [out.detach(), *(one for one in found if one is not None)]


def assert_same(model: nn.Module, *inputs: Tensor) -> None:
    plain, fast = (run(model, *inputs, way=way) for way in WAYS)
    for expected, actual in zip(plain, fast, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


# --- the same as without ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTACHED)
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("is_training", [True, False])
def test_the_same_as_without(is_training, kind, name, deferred) -> None:
    model, inputs = MODELS[kind]().train(is_training), (features(), edges())
    clean = model(*inputs)
    for spec in ATTACHED[name]:
        attach(model, spec)
    is_active = is_training or name == "rescaled in evaluation"
    if is_active:
        assert not torch.allclose(model(*inputs), clean)
    assert_same(model, *inputs)
    assert len(deferred) == (2 if is_active and name in DEFERRED else 0)
    weighted = torch.rand(40, dtype=torch.float64)
    assert_same(model, *inputs, weighted)


@pytest.mark.parametrize("name", ATTACHED)
def test_the_same_of_sparse_features(name, deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(is_sparse=True), edges())
    for spec in ATTACHED[name]:
        attach(model, spec)
    assert_same(model, *inputs)
    assert len(deferred) == (2 if name in DEFERRED else 0)


@pytest.mark.parametrize(
    "options",
    [
        {"bias": False},
        {"improved": True},
        {"add_self_loops": False},
        {"normalize": False},
        {"aggr": "mean"},
        {"flow": "target_to_source"},
        {"node_dim": 0},
        {"decomposed_layers": 2},
    ],
)
def test_the_same_of_other_layers(options) -> None:
    layer = pyg.GCNConv(F, C, **options).double()
    attach(layer, "dropout")
    assert_same(layer, features(), edges())


@pytest.mark.parametrize("layout", ["csr", "coo"])
@pytest.mark.parametrize("spec", ["none", "dropout", "drop-message"])
def test_sparse_features_without_our_linear_map(spec, layout) -> None:
    """PyG's takes some, too: whatever comes of it comes of it here."""
    layer, x, graph = pyg.GCNConv(F, C).double(), torch.randn(N, F).double().relu(), edges()
    x = x.to_sparse_csr() if layout == "csr" else x.to_sparse_coo()
    attach(layer, spec)
    outcomes = []
    for way in WAYS:
        try:
            outcomes.append(run(layer, x, graph, way=way))
        except (RuntimeError, ParameterError) as error:
            outcomes.append(str(error))
    plain, fast = outcomes
    if isinstance(plain, str):
        assert fast == plain
    else:
        for one, other in zip(plain, fast, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_the_same_of_stacks_of_graphs() -> None:
    layer = pyg.GCNConv(F, C).double()
    attach(layer, "dropout")
    x = torch.randn(3, N, F, dtype=torch.float64, requires_grad=True)
    assert_same(layer, x, edges())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(N, F, dtype=torch.int64), "needs floating point features, got torch.int64"),
        (torch.ones(N, F).to_sparse_coo(), "takes dense or sparse CSR features"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_other_features_are_refused_as_without(way, x, message) -> None:
    layer = pyg.GCNConv(F, C)
    attach(layer, "dropout")
    with way(layer), pytest.raises(ParameterError, match=message):
        layer(x, edges())


@pytest.mark.parametrize(
    "model",
    [
        lambda: GCN(F, 8, C, num_layers=3, residual=True, norm="layer"),
        lambda: GCN(F, 8, C, layout="tuned", residual=True),
        lambda: pyg.GCN(F, 8, 3, C, jk="cat", dropout=0.3),
        lambda: pyg.GCN(F, 8, 1, C),
        lambda: pyg.Sequential("x, e", [(pyg.APPNP(3, 0.2), "x, e -> x"), nn.Linear(F, C)]),
    ],
)
def test_the_same_of_other_models(model) -> None:
    model = model().double()
    attach(model, "dropout")
    assert_same(model, features(), edges())


def test_passes_and_calls_are_counted_as_without() -> None:
    """Also where a layer is called twice, within a pass of the user's."""
    layer, x, graph = pyg.GCNConv(F, F).double(), features(), edges()
    operator = attach(layer, "dropout").operator
    outs = []
    for way in WAYS:
        operator.start_pass(5)
        with way(layer):
            outs.append([layer(x, graph) for _ in range(2)])
        operator.end_pass()
    assert not torch.equal(*outs[1])
    for plain, fast in zip(*outs, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)


def test_one_draw_a_pass_as_without() -> None:
    model, inputs = MODELS["ours"](), (features(), edges())
    attach(model, "dropout")
    states = []
    for way in WAYS:
        run(model, *inputs, way=way)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# --- what others see ----------------------------------------------------------------------------


@contextmanager
def watched(model: nn.Module, kind: str) -> Iterator[list[Any]]:
    """Note the first argument of the layers' calls, as a hook of some kind sees it."""
    seen: list[Any] = []

    def note(layer: Any, inputs: Any, *others: Any) -> None:
        if isinstance(layer, pyg.GCNConv):
            with_keywords = others and isinstance(others[0], dict)
            seen.append(inputs[0] if inputs else others[0]["x"] if with_keywords else None)

    one_of_each = {
        "forward pre": lambda one: one.register_forward_pre_hook(note),
        "forward pre with keywords": lambda one: one.register_forward_pre_hook(
            note, with_kwargs=True
        ),
        "forward": lambda one: one.register_forward_hook(note),
        "forward with keywords": lambda one: one.register_forward_hook(note, with_kwargs=True),
        "forward first": lambda one: one.register_forward_hook(note, prepend=True),
        "forward, always": lambda one: one.register_forward_hook(note, always_call=True),
        "full backward": lambda one: one.register_full_backward_hook(note),
        "full backward pre": lambda one: one.register_full_backward_pre_hook(note),
    }
    of_all = {
        "all forward": torch_module.register_module_forward_hook,
        "all full backward": torch_module.register_module_full_backward_hook,
    }
    if kind in of_all:
        handles = [of_all[kind](note)]
    else:
        handles = [one_of_each[kind](layer) for layer in layers_of(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


SEEING_INPUTS = [
    *("forward pre", "forward pre with keywords", "forward", "forward with keywords"),
    *("forward first", "forward, always", "all forward"),
]


@pytest.mark.parametrize("kind", SEEING_INPUTS)
@pytest.mark.parametrize("is_sparse", [False, True])
def test_others_see_masked_features(is_sparse, kind, deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(is_sparse), edges())
    attach(model, "dropout")
    with watched(model, kind) as seen:
        assert_same(model, *inputs)
    assert len(seen) == 4
    assert not deferred
    assert all(type(one) is Tensor for one in seen)
    for plain, fast in zip(seen[:2], seen[2:], strict=True):
        plain, fast = (one.to_dense() if one.is_sparse_csr else one for one in (plain, fast))
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    dense = inputs[0].to_dense() if is_sparse else inputs[0]
    assert bool(((seen[2].to_dense() == 0) & (dense != 0)).any())
    assert_same(model, *inputs)
    assert len(deferred) == 2  # again without


@pytest.mark.parametrize("kind", ["full backward", "full backward pre", "all full backward"])
def test_others_see_derivatives(kind, deferred) -> None:
    """By the masked features, as a full backward hook is given them.

    The models of ours allow none: they write to the results of their layers.
    """
    model, inputs = pyg.GCN(F, 8, 2, C).double(), (features(), edges())
    attach(model, "dropout")
    with watched(model, kind) as seen:
        assert_same(model, *inputs)
    assert len(seen) == 4
    for plain, fast in zip(seen[:2], seen[2:], strict=True):
        assert plain is not None
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    assert not deferred


def test_a_change_by_another_hook_counts(deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(), edges())
    attach(model, "dropout")
    for layer in layers_of(model):
        layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1, *inputs[1:]))
    assert_same(model, *inputs)
    assert not deferred


def test_a_hook_before_ours_sees_what_came_in(deferred) -> None:
    model, inputs, seen = GCN(F, 8, C).double(), (features(), edges()), []
    for layer in layers_of(model):
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    attach(model, "dropout")
    assert_same(model, *inputs)
    assert len(deferred) == 2
    assert seen[0] is seen[2] is inputs[0]


def test_hooks_of_all_modules_fire_for_linear_maps() -> None:
    model, inputs, seen = GCN(F, 8, C).double(), (features(), edges()), []
    attach(model, "dropout")
    maps = [layer.lin for layer in layers_of(model)]
    handle = torch_module.register_module_forward_hook(
        lambda one, inputs, out: seen.append(inputs[0]) if one in maps else None
    )
    try:
        assert_same(model, *inputs)
    finally:
        handle.remove()
    assert len(seen) == 4


@pytest.mark.parametrize(
    "register",
    [
        lambda one, hook: one.register_forward_pre_hook(hook),
        lambda one, hook: one.register_forward_hook(hook),
        lambda one, hook: one.register_full_backward_hook(hook),
    ],
)
def test_hooks_of_the_linear_map_fire(register, deferred) -> None:
    model, inputs, seen = GCN(F, 8, C).double(), (features(), edges()), []
    attach(model, "dropout")
    for layer in layers_of(model):
        register(layer.lin, lambda linear, inputs, *_: seen.append(inputs[0]))
    assert_same(model, *inputs)
    assert len(seen) == 4
    for plain, fast in zip(seen[:2], seen[2:], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    assert not deferred


@pytest.mark.parametrize(
    "linear",
    [
        lambda: nn.Linear(F, C),
        lambda: nn.Linear(F, C, bias=False),
        lambda: pyg.Linear(F, C, bias=True),
        lambda: nn.Sequential(nn.Linear(F, C), nn.ReLU()),
    ],
)
def test_other_linear_maps_are_called(linear, deferred) -> None:
    layer = pyg.GCNConv(F, C)
    layer.lin = linear()
    layer.double()
    attach(layer, "dropout")
    assert_same(layer, features(), edges())
    assert not deferred


class Louder(Dropout):
    """A plug-in with a way of its own to mask features."""

    def mask_features(self, x: Tensor, mask: Mask, node_dim: int = 0) -> Tensor:
        return 3 * masked_multiply(x, mask)


class Softer(Dropout):
    def multiply(self, x: Tensor, mask: Mask) -> Tensor:
        return masked_multiply(x, mask) / 3


@pytest.mark.parametrize("operator", [Louder, Softer])
def test_a_plug_ins_own_way_is_taken(operator, deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(), edges())
    outs = []
    for one in (operator(), Dropout()):
        assert one.has_coins == (type(one) is Dropout)
        with attach(model, one):
            assert_same(model, *inputs)
            outs.append(run(model, *inputs)[0])
    assert len(deferred) == 4
    assert not torch.allclose(*outs)


# --- traces -------------------------------------------------------------------------------------


def state(model: nn.Module) -> list[dict[str, object]]:
    """Everything that modules hold, but for the counters of a pass that has ended."""
    return [
        {
            name: copy.copy(value) if isinstance(value, dict) else value
            for name, value in vars(one).items()
            if name != "_calls"
        }
        for one in model.modules()
    ]


@pytest.mark.parametrize("name", DEFERRED)
def test_an_exception_leaves_nothing(name) -> None:
    """In the kernel, behind the hooks: the masks are drawn, the pass has begun."""
    model, inputs = GCN(F, 8, C).double(), (features(), edges())
    handles = [attach(model, spec) for spec in ATTACHED[name]]
    run(model, *inputs)
    before, expected = state(model), run(model, *inputs)
    wrong = torch.randn(N, F + 1, dtype=torch.float64)
    with accelerate(model), pytest.raises(ParameterError, match="x must have shape"):
        model(wrong, inputs[1])
    assert not any(handle.operator.in_pass for handle in handles)
    assert state(model) == before
    for one, other in zip(run(model, *inputs), expected, strict=True):
        assert torch.equal(one, other)


def test_removal_ends_it(deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(), edges())
    with accelerate(model):
        clean = model(*inputs)
        with attach(model, "dropout"):
            assert not torch.equal(model(*inputs), clean)
        assert torch.equal(model(*inputs), clean)
    assert len(deferred) == 2


# --- the rest of torch, and of us ---------------------------------------------------------------


def test_autocast_gives_the_types_it_gives_without(deferred) -> None:
    model, x, graph = GCN(F, 8, C), torch.randn(N, F), edges()
    attach(model, "dropout")
    outs = []
    for way in WAYS:
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16), way(model):
            outs.append(model(x, graph))
    plain, fast = outs
    assert fast.dtype == plain.dtype
    torch.testing.assert_close(fast, plain, rtol=0.05, atol=0.05)
    assert not deferred


def test_inference_mode(deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(), edges())
    attach(model, "dropout")
    plain = run(model, *inputs, way=general)[0]
    torch.manual_seed(3)
    with torch.inference_mode(), accelerate(model):
        torch.testing.assert_close(model(*inputs), plain, rtol=1e-12, atol=1e-12)
    assert len(deferred) == 2


@pytest.mark.parametrize("kind", MODELS)
def test_a_compiled_model(kind) -> None:
    torch.compiler.reset()
    model, inputs = MODELS[kind](), (features(), edges())
    attach(model, "dropout")
    with accelerate(model):
        compiled = torch.compile(model, backend="eager")
        first, second = (run(compiled, *inputs, way=nullcontext, seed=seed) for seed in (1, 2))
    torch.compiler.reset()
    assert not torch.equal(first[0], second[0])
    for one, other in zip(first, run(model, *inputs, way=general, seed=1), strict=True):
        torch.testing.assert_close(one, other)


class Checkpointed(nn.Module):
    """Recomputes all of a model in the backward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        return checkpoint(self.model, *inputs, use_reentrant=False)


@pytest.mark.parametrize("name", DEFERRED)
def test_a_recomputed_model(name, deferred) -> None:
    model, inputs = GCN(F, 8, C).double(), (features(), edges())
    for spec in ATTACHED[name]:
        attach(model, spec)
    whole = Checkpointed(model)
    plain = run(model, *inputs, way=general)
    for one, other in zip(run(whole, *inputs), plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert len(deferred) == 4


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("name", [name for name in DEFERRED if name != "everything"])
def test_samples_are_the_same(name, is_sparse, deferred) -> None:
    """In chunks of any size, and where layers may not mask the features themselves."""
    model, inputs = GCN(F, 8, C).double(), (features(is_sparse).detach(), edges())
    for spec in ATTACHED[name]:
        attach(model, spec)

    def predict(chunk_size: int | None) -> list[Tensor]:
        options = {"samples": 8, "keep_samples": True, "progress": False}
        found = mc_predict(model, *inputs, chunk_size=chunk_size, **options)
        return [found.mean, found.samples]

    alone, together = predict(1), predict(None)
    assert {bool(mask.keys) for mask in deferred} == {False, True}
    deferred.clear()
    with watched(model, "forward pre"):
        for fast in (alone, together):
            for size in (1, None):
                for one, other in zip(predict(size), fast, strict=True):
                    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert not deferred


def test_a_masked_argument_is_what_it_says() -> None:
    x, mask = features(), Mask(key=3, p=0.5)
    expected = masked_multiply(x, mask)
    assert torch.equal(MaskedFeatures(x, mask).multiply(), expected)
    sparse = MaskedFeatures(x.detach().to_sparse_csr(), mask).multiply()
    assert torch.equal(sparse.to_dense(), expected)
