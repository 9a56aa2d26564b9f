"""A session: the run folder, graphs and workers of a study."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.datasets import Dataset, load
from gnndrop.errors import ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import parse_spec
from gnndrop.study.graphs import fingerprint, summarize, write_graph
from gnndrop.study.plan import RUNS, Trial, plan
from gnndrop.study.provenance import environment
from gnndrop.study.report import SCHEMA, Comparison, GraphSummary, as_json, summarize_results
from gnndrop.study.run import Execute, OnResult, run
from gnndrop.study.store import Result, Store, default_folder, open_store
from gnndrop.study.trial import train_trial


@dataclass(frozen=True)
class Session:
    """What trains lists of trials; finished ones are kept in the store and never repeated.

    Args:
        graphs: the datasets by their names.
        store: the run folder.
        execute: trains one trial.
        jobs: number of worker processes.
        environment: versions and machine.
    """

    graphs: Mapping[str, GraphSummary]
    store: Store
    execute: Execute
    jobs: int | None
    environment: Mapping[str, str | int | None]

    def run(self, trials: Sequence[Trial], on_result: OnResult | None = None) -> dict[str, Result]:
        """Train what is not finished yet, see `gnndrop.study.run.run`."""
        return run(trials, self.execute, self.store, jobs=self.jobs, on_result=on_result)

    def compare(
        self,
        config: CompareConfig,
        graphs: Sequence[GraphSummary],
        change: Callable[[Trial], Trial] = lambda trial: trial,
        on_result: OnResult | None = None,
    ) -> Comparison:
        """Carry out a comparison in which other trials may stand in for the planned ones.

        Args:
            config: the comparison.
            graphs: its datasets, in the order asked.
            change: returns the trial that is trained in the place of a planned one.
            on_result: called at the start and after each trial.

        Returns:
            The outcome, with the names of the plan.
        """
        planned = plan(config, {graph.name: graph.splits for graph in graphs}, OPERATORS)
        trained = [change(trial) for trial in planned]
        found = self.run(trained, on_result)
        results = {ours.key: found[own.key] for ours, own in zip(planned, trained, strict=True)}
        return summarize_results(config, graphs, planned, results, self.environment)


@contextmanager
def open_session(
    identity: Mapping[str, object],
    operators: Sequence[str],
    datasets: Sequence[str | Dataset],
    models: Sequence[str],
    *,
    jobs: int | None = None,
    device: str = "cpu",
    out: str | Path | None = None,
    root: str | Path | None = None,
    command: str | None = None,
) -> Iterator[Session]:
    """Check what a study names, load its graphs and open its run folder.

    Args:
        identity: what must be equal to resume, fit for JSON.
        operators: specs of the operators.
        datasets: specs, or datasets of your own.
        models: specs of the models.
        jobs: number of worker processes; by default all cores, on other devices than the CPU 1.
        device: where to train, as torch names it.
        out: run folder. By default a folder in the user's cache, removed at a good end.
        root: read-only mirror of raw data files.
        command: the command line, kept in the run folder.

    Raises:
        UnknownNameError: if an operator, dataset or model is unknown.
        ParameterError: if a spec cannot be read, the device cannot be used, `jobs` is below 1, a
            dataset has no split, or `out` belongs to another study.
        DataError: if a dataset is missing, corrupt or cannot be fetched.

    Example:
        >>> graph = "csbm:nodes=60,classes=2,features=4"
        >>> with open_session({"study": "example"}, ["dropout"], [graph], ["mlp"]) as session:
        ...     session.graphs[graph].nodes
        60
    """
    if jobs is not None and jobs < 1:
        raise ParameterError(f"jobs must be at least 1, got {jobs}")
    for operator in operators:
        OPERATORS.make(operator)
    check_device(device)
    for model in models:
        _ = MODELS[parse_spec(model)[0]]  # a wrong name shall not wait for the data
    loaded = [load(item, root) if isinstance(item, str) else item for item in datasets]
    names = [item if isinstance(item, str) else item.name for item in datasets]
    check_models(models, loaded)
    graphs = {name: summarize(one) for name, one in zip(names, loaded, strict=True)}
    here = environment()
    identity = {
        "schema": SCHEMA,
        "gnndrop": here["gnndrop"],
        **identity,
        "data": {name: fingerprint(one) for name, one in zip(names, loaded, strict=True)},
    }
    folder = Path(out) if out is not None else default_folder(identity)
    told = as_json([asdict(graph) for graph in graphs.values()])
    provenance = {"environment": here, "command": command, "graphs": told}
    store = open_store(folder, identity, provenance)
    with tempfile.TemporaryDirectory(prefix="gnndrop-", ignore_cleanup_errors=True) as shared:
        files = {name: Path(shared) / f"{place}.pt" for place, name in enumerate(names)}
        for name, dataset in zip(names, loaded, strict=True):
            write_graph(dataset, files[name])
        yield Session(
            graphs=graphs,
            store=store,
            execute=partial(train_trial, files=files, operators=OPERATORS, models=MODELS),
            jobs=1 if jobs is None and not device.startswith("cpu") else jobs,
            environment=here,
        )
    if out is None:
        store.remove()


def selection_trial(
    graph: GraphSummary,
    model: str,
    operator: str,
    spec: str,
    seed: int,
    train: TrainConfig,
    device: str,
) -> Trial:
    """Return a trial for choosing settings on validation.

    It shares its split with seed k of a comparison, never its random state: what is chosen here is
    judged there on fresh seeds.

    Args:
        graph: the dataset.
        model: spec of the model.
        operator: name of the cell.
        spec: spec that is attached.
        seed: number of the seed, k.
        train: the training protocol.
        device: where to train.

    Example:
        >>> graph = GraphSummary("graph", 9, 9, {}, True, "accuracy", splits=2, test_train_ratio=1)
        >>> trial = selection_trial(graph, "gcn", "dropout", "dropout", 3, TrainConfig(), "cpu")
        >>> trial.split, trial.random_state >= RUNS
        (1, True)
    """
    return Trial(
        dataset=graph.name,
        model=model,
        operator=operator,
        spec=spec,
        seed=seed,
        split=seed % graph.splits,
        restart=1,  # the states from RUNS on: a comparison without rates has restart 0 alone
        rate=None,
        random_state=RUNS + seed,
        train=train,
        device=device,
    )


def at_rates(operator: str, rates: Sequence[float]) -> list[tuple[str, float]]:
    """Return the spec of an operator at every rate, as a comparison would try them.

    Raises:
        UnknownNameError: if it is unknown.
        ParameterError: if it has no option p or sets it itself, or a rate is out of its range.

    Example:
        >>> at_rates("drop-edge:symmetric=true", [0.3])
        [('drop-edge:symmetric=true,p=0.3', 0.3)]
    """
    found: list[tuple[str, float | None]] = []
    if operator != "none":
        config = CompareConfig(("none", operator), ("graph",), ("model",), 1, rates=tuple(rates))
        trials = plan(config, {"graph": 1}, OPERATORS)
        found = [(trial.spec, trial.rate) for trial in trials if trial.operator == operator]
    if not found or any(rate is None for _, rate in found):
        raise ParameterError(
            f"operators must have a rate p to vary, got {operator!r}; none is always added"
        )
    return [(spec, rate) for spec, rate in found if rate is not None]


def check_models(models: Sequence[str], graphs: Iterable[Dataset]) -> None:
    """Build every model once for every shape of data; torch's generator is left alone.

    Example:
        >>> check_models(["gcn:num_layers=3"], [load("karate")])
    """
    shapes = {(dataset.data.num_features, dataset.num_classes) for dataset in graphs}
    with torch.random.fork_rng(devices=[]):
        for model in models:
            for features, classes in sorted(shapes):
                MODELS.make(model, in_channels=features, out_channels=classes)


def check_device(device: str) -> None:
    """Refuse a device that torch cannot use, in one sentence.

    Example:
        >>> check_device("cpu")
    """
    try:
        torch.zeros((), device=device).item()
    except Exception as error:  # each backend raises its own
        raise ParameterError(
            f"device must be one that torch can use here, got {device!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
