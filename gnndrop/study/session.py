"""A session: a run folder, graphs and workers, for studies that train more than one `compare`."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.datasets import Dataset, load
from gnndrop.errors import ParameterError
from gnndrop.models import MODELS
from gnndrop.operators import OPERATORS
from gnndrop.registry import parse_spec
from gnndrop.study.graphs import fingerprint, summarize, write_graph
from gnndrop.study.plan import RUNS, Trial, plan
from gnndrop.study.protocol import check_device, check_models
from gnndrop.study.provenance import environment
from gnndrop.study.report import SCHEMA, Comparison, GraphSummary, summarize_results
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
    study: Mapping[str, object],
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
        study: what must be equal to resume, fit for JSON.
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
        ParameterError: if a spec cannot be read, the device cannot be used, `jobs` is below 1, or
            `out` belongs to another study.
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
    here = environment()
    identity = {
        "schema": SCHEMA,
        "gnndrop": here["gnndrop"],
        "study": study,
        "data": {name: fingerprint(one) for name, one in zip(names, loaded, strict=True)},
    }
    folder = Path(out) if out is not None else default_folder(identity)
    store = open_store(folder, identity, {"environment": here, "command": command})
    with tempfile.TemporaryDirectory(prefix="gnndrop-", ignore_cleanup_errors=True) as shared:
        files = {name: Path(shared) / f"{place}.pt" for place, name in enumerate(names)}
        for name, dataset in zip(names, loaded, strict=True):
            write_graph(dataset, files[name])
        yield Session(
            graphs={name: summarize(one) for name, one in zip(names, loaded, strict=True)},
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
