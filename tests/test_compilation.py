"""torch.compile breaks its graph at the masks, and computes the same."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import GAT, GCN, GraphSAGE

from gnndrop import DropEdge, DropMessage, Dropout, attach
from gnndrop.masks import draw_seed

# Dynamo itself looks at every tensor's gradient.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def graph() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(20, (2, 60), generator=generator)
    return torch.randn(20, 6, generator=generator), edge_index


def run(model: nn.Module, seed: int) -> list[Tensor]:
    """Return a forward pass and its derivatives."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        out = model(*graph())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [out, *torch.autograd.grad(out.square().sum(), parameters)]


@pytest.mark.parametrize(
    "spec", ["dropout", "drop-edge", "drop-edge:rescale=inverse", "drop-message"]
)
@pytest.mark.parametrize("kind", [GCN, GAT, GraphSAGE])
def test_an_attached_model(kind: type[nn.Module], spec: str) -> None:
    model = kind(6, 8, 2, 3)
    attach(model, spec)
    compiled = torch.compile(model, backend="eager")
    first, second = run(compiled, 1), run(compiled, 2)
    assert not torch.equal(first[0], second[0])
    for compiled_result, result in zip(first, run(model, 1), strict=True):
        torch.testing.assert_close(compiled_result, result)


class Layers(nn.Module):
    """A user's own module with operators as layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.drop_edge, self.drop_message = Dropout(), DropEdge(), DropMessage()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.linear(self.dropout(x)).relu()
        edge_index, _ = self.drop_edge(edge_index)
        messages = self.drop_message(x[edge_index[0]], edge_index)
        return torch.zeros_like(x).index_add(0, edge_index[1], messages)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_operators_as_layers(backend: str) -> None:
    model = Layers()
    compiled = torch.compile(model, backend=backend)
    for seed in (1, 2):
        for ours, plain in zip(run(compiled, seed), run(model, seed), strict=True):
            torch.testing.assert_close(ours, plain)


def test_one_draw_a_pass_as_without_it() -> None:
    model = GCN(6, 8, 2, 3)
    attach(model, "dropout")
    compiled = torch.compile(model, backend="eager")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        compiled(*graph())
        after = draw_seed()
        torch.manual_seed(0)
        draw_seed()
        assert draw_seed() == after
