"""What a study of uncertainty runs: its settings and its trials; torch-free."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gnndrop.config import TrainConfig
from gnndrop.errors import ParameterError
from gnndrop.study.plan import RUNS, Trial


@dataclass(frozen=True)
class UncertaintyConfig:
    """What `assess_uncertainty` runs, and how its verdicts are reached; names are spec strings.

    Args:
        operators: what is random in training and in Monte-Carlo sampling; not `none`.
        datasets: the graphs.
        models: the models.
        seeds: number of seeds, at least 1; seed k uses split k mod n of a dataset's n splits.
        samples: Monte-Carlo samples of each model, at least 2.
        members: models of a deep ensemble, at least 1; 1 is no ensemble.
        risk: share of errors that is wished for among the predictions that nobody looks at.
        margin: half-width of the region of equivalence, in the unit of each task (0.01).
        alpha: level of the tests and of the intervals (1 - alpha).
        train: the training protocol.
        device: where to train and sample.
        checkpoint: SHA-256 of the weights that are taken instead of training, else None.

    Raises:
        ParameterError: if a value is out of its range, or a checkpoint meets more than one dataset,
            model, seed or member.

    Example:
        >>> UncertaintyConfig(("dropout",), ("cora",), ("gcn",), samples=1)
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: samples must be at least 2, got 1: one has no spread
    """

    operators: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    seeds: int = 10
    samples: int = 100
    members: int = 5
    risk: float = 0.1
    margin: float = 0.01
    alpha: float = 0.05
    train: TrainConfig = TrainConfig()  # noqa: RUF009 - frozen
    device: str = "cpu"
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        for name in ("operators", "datasets", "models"):
            asked: tuple[str, ...] = getattr(self, name)
            if not asked or len(set(asked)) != len(asked):
                raise ParameterError(f"{name} must be given, each once, got {list(asked)}")
        if "none" in self.operators:
            raise ParameterError(
                "operators must all drop something, got 'none', whose samples are all equal; "
                "the deterministic model is compared with in any case"
            )
        if self.samples < 2:
            raise ParameterError(
                f"samples must be at least 2, got {self.samples}: one has no spread"
            )
        for name, most in (("seeds", RUNS), ("members", RUNS)):
            if not 1 <= getattr(self, name) <= most:
                raise ParameterError(f"{name} must be in 1 to {most}, got {getattr(self, name)}")
        if not 0 <= self.risk <= 1:
            raise ParameterError(f"risk must be a share of errors in [0, 1], got {self.risk}")
        if not 0 < self.margin < math.inf:
            raise ParameterError(f"margin must be finite and above 0, got {self.margin}")
        if not 0 < self.alpha < 1:
            raise ParameterError(f"alpha must be in (0, 1), got {self.alpha}")
        counts = (len(self.datasets), len(self.models), self.seeds, self.members)
        if self.checkpoint is not None and counts != (1, 1, 1, 1):
            raise ParameterError(
                "a checkpoint holds one model of one dataset, to be taken with one seed and one "
                f"member, got {counts[0]} datasets, {counts[1]} models, {counts[2]} seeds and "
                f"{counts[3]} members"
            )


def plan_members(config: UncertaintyConfig, split_counts: Mapping[str, int]) -> list[Trial]:
    """List the models to train: for each dataset, model, operator and seed, all members.

    Member 0 is the model of the seed, which is sampled; the others share its split and have initial
    weights of their own. No model serves two seeds: ensembles that share members would look more
    alike than ensembles are, and the paired test would be too sure.

    Args:
        config: the study.
        split_counts: number of splits of every dataset.

    Returns:
        The trials in the order of execution; `restart` is the number of the member. Trials that
        differ in the operator alone share their random state.

    Example:
        >>> config = UncertaintyConfig(("dropout",), ("graph",), ("gcn",), seeds=2, members=2)
        >>> [(one.seed, one.split, one.restart) for one in plan_members(config, {"graph": 2})]
        [(0, 0, 0), (0, 0, 1), (1, 1, 0), (1, 1, 1)]
    """
    return [
        Trial(
            dataset=dataset,
            model=model,
            operator=operator,
            spec=operator,
            seed=seed,
            split=seed % split_counts[dataset],
            restart=member,
            rate=None,
            random_state=member * RUNS + seed,
            train=config.train,
            device=config.device,
        )
        for dataset in config.datasets
        for model in config.models
        for operator in config.operators
        for seed in range(config.seeds)
        for member in range(config.members)
    ]
