"""What is chosen, by training and by a comparison, is chosen without the test nodes."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Data

from gnndrop.attach import attach
from gnndrop.config import TrainConfig
from gnndrop.datasets import load
from gnndrop.models import GCN
from gnndrop.training import FitResult, fit

SPECS = ["dropout:p=0.9", "drop-edge:p=0.9", "concrete-dropout"]


def noisy() -> Data:
    """A graph whose labels nothing tells of: validation and test rise and fall on their own."""
    data = load("csbm:nodes=120,classes=2").data
    generator = torch.Generator().manual_seed(0)
    data.y = torch.randint(2, (data.num_nodes,), generator=generator)
    return data


def trained(data: Data, spec: str, selection: str) -> tuple[FitResult, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = GCN(data.num_features, 8, out_channels=2)
    attach(model, spec)
    result = fit(model, data, TrainConfig(epochs=30, selection=selection, learning_rate=0.05))
    return result, model.state_dict()


@pytest.mark.parametrize("selection", ["metric", "loss"])
@pytest.mark.parametrize("spec", SPECS)
def test_the_labels_of_test_nodes_have_no_say(spec: str, selection: str) -> None:
    """Were they the others, the same epoch would be the best one, of the same weights."""
    data, other = noisy(), noisy()
    other.y = torch.where(other.test_mask, 1 - other.y, other.y)
    (first, weights), (second, same) = (trained(one, spec, selection) for one in (data, other))
    assert first.best_epoch < first.epochs  # there was something to choose
    assert second.test == pytest.approx(1 - first.test)
    unlike = replace(second, test=first.test, seconds=first.seconds)
    assert unlike == first
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_training_reports_no_better_a_test_score_than_chance_has() -> None:
    """On labels of fair coins the best of 30 test scores would be far above a half."""
    data, scores = noisy(), []
    for seed in range(12):
        data.y = torch.randint(
            2, (data.num_nodes,), generator=torch.Generator().manual_seed(seed + 1)
        )
        scores.append(trained(data, "dropout:p=0.9", "metric")[0].test)
    count = 12 * int(data.test_mask.sum())
    assert abs(sum(scores) / 12 - 0.5) < 5 * (0.25 / count) ** 0.5
