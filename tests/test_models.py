"""The models: shapes, options, sparse features, and that they are stacks of PyG's layers."""

import copy
import pickle

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor, nn

from gnndrop.errors import ParameterError
from gnndrop.models import GAT, GCN, MLP, MODELS, SAGE

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR layout beta

N, F, H, C = 10, 7, 16, 3
SPARSE = ["gcn", "gat", "mlp"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def edges() -> Tensor:
    return torch.randint(0, N - 1, (2, 30))


def features() -> Tensor:
    """Mostly zeros; a node and a channel without any entry."""
    x = torch.randn(N, F, dtype=torch.float64).relu()
    x[2], x[:, 3] = 0, 0
    return x


def make(name: str, **options: object) -> nn.Module:
    return MODELS.make(name, in_channels=F, hidden_channels=H, out_channels=C, **options).double()


def derivatives(model: nn.Module, *inputs: object) -> list[Tensor]:
    model.zero_grad()
    out = model(*inputs)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return [out.detach(), *(parameter.grad for parameter in model.parameters())]


def test_the_registry_knows_them() -> None:
    assert list(MODELS)[:4] == ["gcn", "gat", "sage", "mlp"]
    assert [MODELS[name] for name in ("gcn", "gat", "sage", "mlp")] == [GCN, GAT, SAGE, MLP]
    model = MODELS.make("gcn:num_layers=3,norm=batch,residual=true", in_channels=F, out_channels=C)
    assert (len(model.layers), len(model.norms), len(model.skips)) == (3, 2, 2)
    assert isinstance(model.norms[0], nn.BatchNorm1d)
    assert model.layers[0].out_channels == 64


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_layers", [1, 2, 4])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("residual", [True, False])
def test_every_option_gives_logits_that_learn(name, num_layers, norm, residual) -> None:
    model = make(name, num_layers=num_layers, norm=norm, residual=residual)
    out, *gradients = derivatives(model, features(), edges())
    assert out.shape == (N, C)
    assert not torch.equal(out, out.softmax(1))
    # Every parameter takes part; a bias in front of a batch normalization has a zero derivative.
    assert all(gradient is not None for gradient in gradients)
    assert len(model.layers) == num_layers
    kinds = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
    assert [type(norm) for norm in model.norms] == [kinds[norm]] * (num_layers - 1)
    assert len(model.skips) == (num_layers - 1) * residual


@pytest.mark.parametrize("name", MODELS)
def test_options_change_the_result(name: str) -> None:
    x, graph = features(), edges()

    def result(**options: object) -> Tensor:
        torch.manual_seed(1)
        return make(name, **options)(x, graph)

    results = [result(), result(norm="layer"), result(norm="batch"), result(num_layers=3)]
    torch.manual_seed(1)
    skipping = make(name, residual=True)
    with_skip = skipping(x, graph)
    with torch.no_grad():
        for parameter in skipping.skips.parameters():
            parameter.zero_()
    results += [with_skip]
    for number, one in enumerate(results):
        assert not any(torch.allclose(one, other) for other in results[:number])
    torch.testing.assert_close(skipping(x, graph), without_skips(skipping)(x, graph))


def without_skips(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    model.skips = nn.ModuleList()
    return model


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("options", [{}, {"num_layers": 1}, {"residual": True, "norm": "batch"}])
def test_sparse_features_give_the_same(name: str, options: dict[str, object]) -> None:
    model, x, graph = make(name, **options), features(), edges()
    assert model.takes_sparse
    for one, other in zip(
        derivatives(model, x, graph), derivatives(model, x.to_sparse_csr(), graph), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_sage_takes_no_sparse_features() -> None:
    assert not SAGE.takes_sparse


@pytest.mark.parametrize("weighted", [True, False])
def test_gcn_is_a_stack_of_gcn_layers(weighted: bool) -> None:
    model, x, graph = make("gcn", num_layers=3), features(), edges()
    weight = torch.rand(30, dtype=torch.float64) if weighted else None
    plain = nn.ModuleList([pyg.GCNConv(F, H), pyg.GCNConv(H, H), pyg.GCNConv(H, C)]).double()
    plain.load_state_dict(model.layers.state_dict())
    h = x
    for layer in plain[:-1]:
        h = layer(h, graph, weight).relu()
    assert torch.equal(model(x, graph, weight), plain[-1](h, graph, weight))


def test_gat_is_a_stack_of_gat_layers() -> None:
    model, x, graph = make("gat", heads=4), features(), edges()
    plain = nn.ModuleList([pyg.GATConv(F, H // 4, heads=4), pyg.GATConv(H, C)]).double()
    plain.load_state_dict(model.layers.state_dict())
    assert torch.equal(model(x, graph), plain[1](plain[0](x, graph).relu(), graph))


def test_sage_is_a_stack_of_sage_layers() -> None:
    model, x, graph = make("sage"), features(), edges()
    plain = nn.ModuleList([pyg.SAGEConv(F, H), pyg.SAGEConv(H, C)]).double()
    plain.load_state_dict(model.layers.state_dict())
    assert torch.equal(model(x, graph), plain[1](plain[0](x, graph).relu(), graph))


def test_mlp_is_a_stack_of_linear_layers_with_norms_and_skips() -> None:
    model, x = make("mlp", num_layers=3, norm="layer", residual=True), features()
    h = x
    for layer, norm, skip in zip(model.layers[:-1], model.norms, model.skips, strict=True):
        h = norm(h @ layer.weight.t() + layer.bias).relu() + (h @ skip.weight.t() + skip.bias)
    torch.testing.assert_close(model(x), h @ model.layers[-1].weight.t() + model.layers[-1].bias)


@pytest.mark.parametrize("name", ["gcn", "sage"])
@pytest.mark.parametrize("residual", [True, False])
def test_the_tuned_layout_normalizes_the_sum_and_ends_in_a_linear_map(name, residual) -> None:
    options = {"num_layers": 3, "norm": "batch", "residual": residual, "layout": "tuned"}
    model, x, graph = make(name, **options), features(), edges()
    assert (len(model.layers), len(model.norms), len(model.skips)) == (3, 3, 3 * residual)
    h = x
    for number, layer in enumerate(model.layers):
        skip = model.skips[number](h) if residual else 0.0
        h = model.norms[number](layer(h, graph) + skip).relu()
    torch.testing.assert_close(model(x, graph), h @ model.head.weight.t() + model.head.bias)
    assert model.residual_branches == (list(model.layers) if residual else [])


def test_the_tuned_mlp_lists_its_head_among_the_layers_of_features() -> None:
    model = make("mlp", layout="tuned")
    assert model.feature_layers == [*model.layers, model.head]
    assert make("gat", num_layers=1, layout="tuned")(features(), edges()).shape == (N, C)


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_layout_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="layout must be plain or tuned, got 'fancy'"):
        MODELS[name](F, layout="fancy")


def test_mlp_ignores_the_graph() -> None:
    model, x = make("mlp"), features()
    plain = model(x)
    assert torch.equal(model(x, edges()), plain)
    assert torch.equal(model(x, edges(), torch.rand(30)), plain)
    assert model.feature_layers == list(model.layers)


@pytest.mark.parametrize("name", ["gcn", "gat", "sage"])
def test_the_others_do_not(name: str) -> None:
    model, x = make(name), features()
    assert not torch.allclose(model(x, edges()), model(x, edges()))


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_sparse_adjacencies_are_graphs_too(name: str) -> None:
    model, x = make(name), features()
    graph = edges().unique(dim=1)
    graph = graph[:, graph[0] != graph[1]]  # PyG adds loops to those of a sparse matrix
    ones = torch.ones(graph.size(1), dtype=torch.float64)
    adjacency = torch.sparse_coo_tensor(graph.flip(0), ones, (N, N)).to_sparse_csr()
    torch.testing.assert_close(model(x, adjacency), model(x, graph))


@pytest.mark.parametrize("name", MODELS)
def test_there_is_no_dropout_inside(name: str) -> None:
    model, x, graph = make(name), features(), edges()
    model.train()
    state = torch.get_rng_state()
    assert torch.equal(model(x, graph), model(x, graph))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", MODELS)
def test_models_can_be_copied_and_stored(name: str, tmp_path) -> None:
    model, x, graph = make(name), features(), edges()
    if model.takes_sparse:
        model(x.to_sparse_csr(), graph)  # with something remembered
    expected = model(x, graph)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x, graph), expected)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fresh = make(name)
    assert not torch.equal(fresh(x, graph), expected)
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(fresh(x, graph), expected)


@pytest.mark.parametrize("name", MODELS)
def test_models_are_reproducible_from_the_seed(name: str) -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        weights.append(make(name).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", ["in_channels", "hidden_channels", "out_channels", "num_layers"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused(name: str, size: str, value: int) -> None:
    sizes = {"in_channels": F, "hidden_channels": H, "out_channels": C} | {size: value}
    with pytest.raises(ParameterError, match=size):
        MODELS[name](**sizes)


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_norm_is_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="norm must be one of none, batch, layer, got 'group'"):
        MODELS[name](F, norm="group")


@pytest.mark.parametrize("heads", [0, -1, 3, 32])
def test_heads_must_divide_the_width(heads: int) -> None:
    with pytest.raises(ParameterError, match="heads must divide hidden_channels"):
        GAT(F, H, C, heads=heads)
