"""What a comparison runs: the list of its trials, each with a key made of its content."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError
from gnndrop.registry import Registry, format_spec, parse_spec, split_spec

# torch's CPU generator reads the low 32 bits of a seed alone: 16 for the run, 16 for the restart.
RUNS = 2**16
RESTARTS = 2**16


@dataclass(frozen=True)
class Trial:
    """One training run; equal fields mean the same run, so their digest is its name on disk.

    Args:
        dataset: name of the graph.
        model: spec of the model.
        operator: spec of the operator as it was asked for; names the cell of the table.
        spec: spec that is attached: `operator`, at `rate` where rates are tried.
        seed: number of the seed within the comparison.
        split: index of the split.
        restart: number of the restart; the best on validation is kept.
        rate: drop rate under trial, None where the operator runs at its own.
        random_state: what torch is seeded with; does not depend on the operator (pairing).
        train: the training protocol.
        device: where to train.
    """

    dataset: str
    model: str
    operator: str
    spec: str
    seed: int
    split: int
    restart: int
    rate: float | None
    random_state: int
    train: TrainConfig
    device: str

    @cached_property
    def key(self) -> str:
        """SHA-256 of the trial's fields as canonical JSON."""
        return digest(asdict(self))


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON (sorted keys, no spaces, no NaN).

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plan(
    config: CompareConfig, split_counts: Mapping[str, int], operators: Registry[Any]
) -> list[Trial]:
    """List the trials of a comparison, dataset by dataset, the baseline of each pair first.

    *Pairing.* Trials that differ in the operator alone share their split, their random state and
    with it their initial weights. Trials that differ in seed, restart or, under `splits="all"`,
    split have different random states, always: the state is a mixed-radix number of the three,
    not a hash.

    *Equal budget.* With `rates`, an operator with an option `p` tries every rate for each seed,
    each as a restart of its own; an operator without one (`none`) gets as many restarts.

    Args:
        config: the comparison.
        split_counts: number of splits of every dataset.
        operators: registry that tells which operators have an option `p`.

    Returns:
        The trials in the order of execution: cells of one dataset and model lie together.

    Raises:
        ParameterError: if an operator sets `p` itself although `rates` are given, or if seeds
            times splits exceed 65536.
        UnknownNameError: if an operator is unknown.

    Example:
        >>> from gnndrop.registry import Registry
        >>> registry = Registry("operator", "gnndrop.errors", "gnndrop.nowhere")
        >>> _ = registry.register("none")(lambda: None)
        >>> config = CompareConfig(("none",), ("graph",), ("gcn",), seeds=3)
        >>> [(trial.seed, trial.split) for trial in plan(config, {"graph": 2}, registry)]
        [(0, 0), (1, 1), (2, 0)]
    """
    tried = {name: attempts(name, config.rates, operators) for name in config.operators}
    return [
        Trial(
            dataset=dataset,
            model=model,
            operator=operator,
            spec=spec,
            seed=seed,
            split=split,
            restart=restart,
            rate=rate,
            random_state=restart * RUNS + run,
            train=config.train,
            device=config.device,
        )
        for dataset in config.datasets
        for model in config.models
        for run, (seed, split) in enumerate(_runs(config, dataset, split_counts[dataset]))
        for operator in config.operators
        for restart, (spec, rate) in enumerate(tried[operator])
    ]


def _runs(config: CompareConfig, dataset: str, splits: int) -> list[tuple[int, int]]:
    """Return the (seed, split) pairs of a dataset in the order of execution."""
    if config.splits == "default":
        runs = [(seed, seed % splits) for seed in range(config.seeds)]
    else:
        runs = [(seed, split) for seed in range(config.seeds) for split in range(splits)]
    if len(runs) > RUNS:
        raise ParameterError(
            f"seeds times splits must be at most {RUNS}, got {len(runs)} on {dataset}"
        )
    return runs


def attempts(
    operator: str, rates: tuple[float, ...], operators: Registry[Any]
) -> list[tuple[str, float | None]]:
    """Return the specs to try for one operator and their rates.

    Args:
        operator: its spec.
        rates: the rates; without any it runs at its own.
        operators: registry that tells whether it has an option `p`.

    Raises:
        ParameterError: if it sets `p` itself although `rates` are given.
        UnknownNameError: if it is unknown, and `rates` are given.

    Example:
        >>> from gnndrop.operators import OPERATORS
        >>> attempts("drop-edge", (0.1, 0.3), OPERATORS)
        [('drop-edge:p=0.1', 0.1), ('drop-edge:p=0.3', 0.3)]
    """
    if not rates:
        return [(operator, None)]
    if len(rates) > RESTARTS:
        raise ParameterError(f"there must be at most {RESTARTS} rates, got {len(rates)}")
    parts = [parse_spec(part) for part in split_spec(operator)]
    takes_rate = ["p" in operators.options(name) for name, _ in parts]
    if not any(takes_rate):
        return [(operator, None)] * len(rates)
    if any("p" in options for _, options in parts):
        raise ParameterError(
            f"an operator must not set p where rates are given, got {operator!r}; leave p out"
        )
    found: list[tuple[str, float | None]] = []
    for rate in rates:
        given: list[dict[str, object]] = [{"p": rate} if takes else {} for takes in takes_rate]
        specs = [
            format_spec(name, {**options, **more})
            for (name, options), more in zip(parts, given, strict=True)
        ]
        found.append(("+".join(specs), rate))
    return found
