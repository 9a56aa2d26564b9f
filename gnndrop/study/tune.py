"""Tuning with equal budgets: every operator and `none` get the same search, then fresh seeds.

Every operator, the baseline included, gets one Optuna study of as many trials over the same space
of training options; operators that have a rate add it. A trial's value is its mean validation score
over the selection seeds; test scores are not looked at. The best of each is trained again on fresh
seeds and judged as in `compare`.

A round asks one trial of every study, and the sampler of trial n is seeded with the seed, the
operator and n: the search does not depend on the number of jobs, nor on where it was interrupted.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.datasets import Dataset
from gnndrop.errors import ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import format_spec, parse_spec, split_spec
from gnndrop.study.plan import Trial, digest
from gnndrop.study.report import Comparison, GraphSummary
from gnndrop.study.run import OnResult
from gnndrop.study.session import Session, open_session, selection_trial
from gnndrop.study.store import Result
from gnndrop.study.words import align

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

JOURNAL = "optuna.journal"
# The search space, also told in the report: [low, high] on a log scale, choices, and a grid.
LEARNING_RATES = (1e-3, 1e-1)
WEIGHT_DECAYS = (1e-5, 1e-2)
SHAPES: Mapping[str, tuple[int, ...]] = {
    "hidden_channels": (16, 32, 64, 128),
    "num_layers": (1, 2, 3, 4),
}
RATES = (0.1, 0.9, 0.1)  # from, to, step
OPERATORS_BY_DEFAULT = ("dropout", "drop-node", "drop-edge", "drop-message")
NOTE = (
    "Each operator has settings of its own, so a pair shares seed and split, not the settings: a "
    "verdict is on an operator and its tuning together, of equal effort."
)


@dataclass(frozen=True)
class Tuned:
    """What the search found for one operator.

    Args:
        operator: spec as it was asked for.
        spec: the same with the rate found.
        model: spec of the model with the width and depth found.
        train: the training protocol with the learning rate and weight decay found.
        validation: mean validation score over the selection seeds.
        trials: trials of the search.
        failed: how many of them have no score, because a training failed.
    """

    operator: str
    spec: str
    model: str
    train: TrainConfig
    validation: float
    trials: int
    failed: int


@dataclass(frozen=True)
class Tuning:
    """The outcome of `tune`.

    Args:
        tuned: what was found for each operator, `none` first; those without any score are missing.
        comparison: the tuned operators on fresh seeds, named as they were asked for.
        trials: trials of every search.
        selection_seeds: trainings of every trial.
        space: the search space, in words.

    Example:
        >>> nothing = Comparison((), (), (), (), protocol={}, environment={})
        >>> Tuning((), nothing, trials=20, selection_seeds=2, space={}).to_dict()["trials"]
        20
    """

    tuned: tuple[Tuned, ...]
    comparison: Comparison
    trials: int
    selection_seeds: int
    space: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON's types: what `compare` gives, and the search."""
        return {
            **self.comparison.to_dict(),
            "trials": self.trials,
            "selection_seeds": self.selection_seeds,
            "space": dict(self.space),
            "note": NOTE,
            "tuned": [asdict(one) for one in self.tuned],
        }

    def __str__(self) -> str:
        tuned = {one.operator: one for one in self.tuned}
        lines = [["operator", "test", "validation", "found", ""]]
        for cell in self.comparison.cells:
            spread = "" if cell.std is None else f" ± {100 * cell.std:.1f}"
            mean = cell.status if cell.mean is None else f"{100 * cell.mean:.1f}{spread}"
            found = tuned.get(cell.operator)
            if found is None:
                lines.append([cell.operator, mean, "", "nothing: no trial has a score", ""])
                continue
            settings = (
                f"lr {found.train.learning_rate:.2g}, weight decay {found.train.weight_decay:.2g}"
            )
            lines.append([found.spec, mean, f"{100 * found.validation:.1f}", settings, found.model])
        space = "; ".join(f"{name} {values}" for name, values in self.space.items())
        return "\n".join(
            [
                align(lines),
                "",
                *self.comparison.sentences(),
                "",
                f"{self.trials} trials for each, {self.selection_seeds} seeds a trial, chosen on "
                f"validation from: {space}.",
                NOTE,
            ]
        )


def tune(
    dataset: str | Dataset,
    model: str = "gcn",
    operators: Sequence[str] = OPERATORS_BY_DEFAULT,
    *,
    trials: int = 20,
    selection_seeds: int = 2,
    seeds: int = 10,
    seed: int = 0,
    margin: float = 0.01,
    alpha: float = 0.05,
    train: TrainConfig = TrainConfig(),  # noqa: B008 - frozen
    jobs: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    root: str | Path | None = None,
    command: str | None = None,
    on_result: OnResult | None = None,
) -> Tuning:
    """Tune every operator and `none` with equal effort, and compare what comes out.

    The search is Optuna's tree-structured Parzen estimator (Bergstra et al. 2011); its first trial
    is the default protocol. Finished trainings and the searches (`optuna.journal`) are kept in the
    run folder: the same call continues after an interruption. The result is the same with any
    number of jobs.

    Args:
        dataset: spec, or a dataset of your own.
        model: spec, without `hidden_channels` and `num_layers`.
        operators: specs, without p; `none` is always tuned, too.
        trials: trials of every search, at least 1.
        selection_seeds: trainings of a trial, at least 1; their mean validation score is its value.
        seeds: fresh seeds on which what was found is judged.
        seed: seed of the searches, at least 0.
        margin: half-width of the equivalence region, in units of the metric (0.01: one point).
        alpha: level of the tests and of the intervals (1 - alpha).
        train: what is not searched of the training protocol: epochs, patience, normalization.
        jobs: number of worker processes; by default all cores.
        device: where to train, as torch names it.
        out: run folder; by default one in the user's cache, removed at a good end.
        root: read-only mirror of raw files, see `gnndrop.datasets.load`.
        command: the command line, kept in the run folder.
        on_result: called as `on_result(done, total, result)`, at the start with None.

    Returns:
        The outcome; failed trials are in it, and do not raise.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if Optuna is not installed, a setting out of its range or set although the
            search sets it, or `out` belongs to another study.
        DataError: if the dataset cannot be had, or a result not written.

    Example:
        >>> found = tune(
        ...     "csbm:nodes=60,classes=2,features=4", "mlp", ["dropout"], trials=1,
        ...     selection_seeds=1, seeds=2, train=TrainConfig(epochs=2), jobs=1,
        ... )
        >>> [one.operator for one in found.tuned]
        ['none', 'dropout']
    """
    if find_spec("optuna") is None:
        raise ParameterError(
            "tuning needs optuna, which is not installed; pip install 'gnndrop[tune]'"
        )
    for name, number, least in (
        ("trials", trials, 1),
        ("selection_seeds", selection_seeds, 1),
        ("seed", seed, 0),
    ):
        if number < least:
            raise ParameterError(f"{name} must be at least {least}, got {number}")
    config = CompareConfig(
        operators=tuple(operators),
        datasets=(dataset if isinstance(dataset, str) else dataset.name,),
        models=(model,),
        seeds=seeds,
        margin=margin,
        alpha=alpha,
        train=train,
        device=device,
    )
    _check_free(model, tuple(SHAPES))
    for operator in config.operators:
        for part in split_spec(operator):
            _check_free(part, ("p",))
    settings = {"trials": trials, "selection_seeds": selection_seeds, "seed": seed}
    with open_session(
        {"study": {"tune": settings, "space": _space_in_words(model), **asdict(config)}},
        config.operators,
        (dataset,),
        config.models,
        jobs=jobs,
        device=device,
        out=out,
        root=root,
        command=command,
    ) as session:
        (graph,) = session.graphs.values()
        per_round = len(config.operators) * selection_seeds
        total = trials * per_round + len(config.operators) * seeds
        progress = _Progress(on_result, total)
        tuned = _search(session, config, graph, trials, selection_seeds, seed, progress)

        def as_tuned(trial: Trial) -> Trial:
            found = tuned.get(trial.operator)
            if found is None:  # nothing was found; training it says why
                return trial
            return replace(trial, spec=found.spec, model=found.model, train=found.train)

        comparison = session.compare(config, [graph], as_tuned, progress.part(trials * per_round))
    return Tuning(
        tuned=tuple(tuned.values()),
        comparison=comparison,
        trials=trials,
        selection_seeds=selection_seeds,
        space=_space_in_words(model),
    )


@dataclass(frozen=True)
class _Progress:
    """Joins the parts of a run into one count."""

    on_result: OnResult | None
    total: int

    def part(self, before: int) -> OnResult:
        """Return what counts a part before which so many trainings are done."""

        def report(done: int, _: int, result: Result | None) -> None:
            # The call with None tells how many were found done: of the whole run, once.
            if self.on_result is not None and (result is not None or before == 0):
                self.on_result(before + done, self.total, result)

        return report


def _search(
    session: Session,
    config: CompareConfig,
    graph: GraphSummary,
    trials: int,
    selection_seeds: int,
    seed: int,
    progress: _Progress,
) -> dict[str, Tuned]:
    """Search for every operator, one trial of each in a round."""
    (model,) = config.models
    spaces = {operator: _space(operator, model) for operator in config.operators}
    with _open_studies(session.store.folder / JOURNAL, spaces) as studies:
        for number in range(trials):
            runs: dict[str, list[Trial]] = {}
            for operator, study in studies.items():
                params = _ask(study, spaces[operator], number, [seed, operator])
                spec, own_model, train = _settings(operator, model, params, config.train)
                runs[operator] = [
                    selection_trial(graph, own_model, operator, spec, k, train, config.device)
                    for k in range(selection_seeds)
                ]
            done = number * len(studies) * selection_seeds
            results = session.run(
                [one for run in runs.values() for one in run], progress.part(done)
            )
            for operator, run in runs.items():
                _tell(studies[operator], number, [results[one.key] for one in run])
        return {
            operator: _tuned(operator, model, study, config.train)
            for operator, study in studies.items()
            if any(one.value is not None for one in study.get_trials(deepcopy=False))
        }


@contextmanager
def _open_studies(
    journal: Path, spaces: "Mapping[str, Mapping[str, BaseDistribution]]"
) -> "Iterator[dict[str, Study]]":
    """Open the study of every operator; Optuna is quiet meanwhile.

    A journal that a kill left in the midst of a line or a trial is dropped: the search repeats
    itself from the trainings, which are kept.
    """
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if journal.exists() and not _is_whole(journal, spaces):
            journal.unlink()
        yield _load_studies(journal, spaces)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _load_studies(
    journal: Path, spaces: "Mapping[str, Mapping[str, BaseDistribution]]"
) -> "dict[str, Study]":
    import optuna
    from optuna.storages.journal import JournalFileBackend

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
    return {
        operator: optuna.create_study(
            study_name=operator, storage=storage, direction="maximize", load_if_exists=True
        )
        for operator in spaces
    }


def _is_whole(journal: Path, spaces: "Mapping[str, Mapping[str, BaseDistribution]]") -> bool:
    """Whether every line can be read and every trial that was asked has all its settings."""
    from optuna.trial import TrialState

    if not journal.read_bytes().endswith(b"\n"):
        return False
    try:
        studies = _load_studies(journal, spaces)
    except (ValueError, KeyError):  # what Optuna raises on lines that are not its own
        return False
    return all(
        set(trial.params) == set(spaces[operator])
        for operator, study in studies.items()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    )


def _ask(
    study: "Study", space: "Mapping[str, BaseDistribution]", number: int, seed: list[object]
) -> dict[str, Any]:
    """Return the settings of trial `number`: those it has, where the search was here before."""
    from optuna.samplers import TPESampler

    there = study.get_trials(deepcopy=False)
    if number < len(there) and there[number].params:
        return there[number].params
    if number == 0 and not there:
        study.enqueue_trial(_default(space))
    study.sampler = TPESampler(seed=int(digest([*seed, number])[:8], 16))
    return study.ask(dict(space)).params


def _tell(study: "Study", number: int, results: Sequence[Result]) -> None:
    """Record the mean validation score of a trial, or that it has none."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False)[number].state.is_finished():
        return
    scores = [result.validation for result in results if result.validation is not None]
    if len(scores) < len(results):
        study.tell(number, state=TrialState.FAIL)
    else:
        study.tell(number, sum(scores) / len(scores))


def _tuned(operator: str, model: str, study: "Study", train: TrainConfig) -> Tuned:
    best = study.best_trial
    there = study.get_trials(deepcopy=False)
    spec, own_model, own_train = _settings(operator, model, best.params, train)
    return Tuned(
        operator=operator,
        spec=spec,
        model=own_model,
        train=own_train,
        validation=float(best.value or 0.0),
        trials=len(there),
        failed=sum(one.value is None for one in there),
    )


def _space(operator: str, model: str) -> "dict[str, BaseDistribution]":
    """Return the search space: the same for all, and the rate where the operator has one."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space: dict[str, BaseDistribution] = {
        "learning_rate": FloatDistribution(*LEARNING_RATES, log=True),
        "weight_decay": FloatDistribution(*WEIGHT_DECAYS, log=True),
        **{name: CategoricalDistribution(SHAPES[name]) for name in _shapes(model)},
    }
    if any(_has_rate(part) for part in split_spec(operator)):
        low, high, step = RATES
        space["p"] = FloatDistribution(low, high, step=step)
    return space


def _space_in_words(model: str) -> dict[str, str]:
    return {
        "learning rate": "{:g} to {:g} (log)".format(*LEARNING_RATES),
        "weight decay": "{:g} to {:g} (log)".format(*WEIGHT_DECAYS),
        **{name.replace("_", " "): ", ".join(map(str, SHAPES[name])) for name in _shapes(model)},
        "p": "{:g} to {:g} in steps of {:g}".format(*RATES),
    }


def _default(space: Mapping[str, object]) -> dict[str, Any]:
    """Return the default protocol, the first trial of every search."""
    default = {
        "learning_rate": TrainConfig.learning_rate,
        "weight_decay": TrainConfig.weight_decay,
        "hidden_channels": 64,
        "num_layers": 2,
        "p": 0.5,
    }
    return {name: default[name] for name in space}


def _settings(
    operator: str, model: str, params: Mapping[str, Any], train: TrainConfig
) -> tuple[str, str, TrainConfig]:
    """Return the specs of operator and model and the training protocol that a trial stands for."""
    parts = []
    for part in split_spec(operator):
        name, options = parse_spec(part)
        rate = (
            {"p": round(params["p"], 6)} if _has_rate(part) else {}
        )  # 0.3, not 0.30000000000000004
        parts.append(format_spec(name, {**options, **rate}))
    name, options = parse_spec(model)
    shape = {key: params[key] for key in _shapes(model)}
    own = replace(train, learning_rate=params["learning_rate"], weight_decay=params["weight_decay"])
    return "+".join(parts), format_spec(name, {**options, **shape}), own


def _has_rate(part: str) -> bool:
    return "p" in OPERATORS.options(parse_spec(part)[0])


def _shapes(model: str) -> list[str]:
    """Return which options of its shape the model has."""
    options = MODELS.options(parse_spec(model)[0])
    return [name for name in SHAPES if name in options]


def _check_free(spec: str, searched: Sequence[str]) -> None:
    for name in searched:
        if name in parse_spec(spec)[1]:
            raise ParameterError(f"the search sets {name} itself, got {spec!r}; leave {name} out")
