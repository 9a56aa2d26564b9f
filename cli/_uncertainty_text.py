"""What `gnndrop uncertainty` prints."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

# One look and one way to write for every command.
from gnndrop.cli._render import (
    MARKS,
    TESTS,
    full_model,
    group_graphs,
    homophily,
    list_failures,
    section,
    write_rich,
)
from gnndrop.operators import OPERATORS
from gnndrop.study.report import GraphSummary
from gnndrop.study.uncertainty_report import (
    CONFIDENCE,
    METHODS,
    MONTE_CARLO,
    RANKING,
    TASKS,
    Facts,
    Group,
    Key,
    Task,
    UncertaintyCell,
    UncertaintyStudy,
)
from gnndrop.study.uncertainty_words import SCORES, number, sentences, strata_sentences
from gnndrop.study.words import points

Place = tuple[str, str, str]
NAME_WIDTH = 11  # the longest name of a method
SHORT = {"temperature": "temperature", "ensemble": "ensemble"}
BY = {"distance": "distance to train"}
ABBREVIATED = {"max-probability": "max prob.", "mutual-information": "mutual inf."}
# The rows of a table: a method and what it ranks nodes by.
ROWS = (
    ("softmax", "entropy"),
    ("softmax", "max-probability"),
    ("energy", "energy"),
    ("temperature", "entropy"),
    ("temperature", "max-probability"),
    ("ensemble", "entropy"),
    ("ensemble", "max-probability"),
    (MONTE_CARLO, "entropy"),
    (MONTE_CARLO, "max-probability"),
    (MONTE_CARLO, "mutual-information"),
)
LEGEND = (
    "Means over runs: accuracy, ECE, AURC, E-AURC and the AUROC of finding errors in hundredths, "
    "NLL in nats, Brier summed over classes. Nodes are ranked by the entropy, or by what the row "
    "says. MC dropout, ranking as the row does (for energy by entropy), against the row: ▲ better, "
    "▼ worse, = equivalent, ? undecided."
)
GROUPS = (
    "Groups of test nodes, by MC dropout and, as plain, by softmax; fewer than 30 nodes are in "
    "brackets and not ranked:"
)
MORE = (
    "Every score with its interval and the groups of nodes: name one dataset, model and operator, "
    "or --json."
)


def write_study(study: UncertaintyStudy) -> None:
    """Write the tables, the verdicts, the failures and the protocol of a study to stdout."""
    parts: list[Table | Text | str] = []
    for title, graphs in group_graphs(study.datasets):
        parts.append(title)
        for graph in graphs:
            parts.append(_heading(graph, study.unlabelled[graph.name]))
            parts += _tables(study, graph.name)
    places = study.places()
    details = list(_details(study, places[0])) if len(places) == 1 else ["", MORE]
    write_rich(
        *parts,
        LEGEND,
        *details,
        *(line for place in places for line in _verdicts(study, place, len(places) == 1)),
        *section("Failed trials", list_failures(study.failures)),
        *section("Protocol", _protocol(study)),
    )


def _heading(graph: GraphSummary, unlabelled: int) -> Text:
    left_out = f"\nunlabelled nodes {unlabelled}, left out of every score" if unlabelled else ""
    return Text(
        f"\n{graph.name}: nodes {graph.nodes}, edges {graph.edges}, splits {graph.splits}"
        f"\n{homophily(graph)}{left_out}\n",
        overflow="fold",
    )


def _tables(study: UncertaintyStudy, dataset: str) -> Iterator[Table]:
    """Yield a table of operators and methods by tasks for each model."""
    places = [place for place in study.places() if place[0] == dataset]
    for model in dict.fromkeys(place[1] for place in places):
        table = _table([Text(model, overflow="fold"), *(task.label for task in TASKS.values())])
        for place in places:
            if place[1] == model:
                table.add_row(Text(place[2], "bold"))
                for row in _rows(study, place):
                    table.add_row(*row)
        yield table


def _rows(study: UncertaintyStudy, place: Place) -> Iterator[list[Text]]:
    cells = study.at(place)
    marks = {
        (one.baseline, one.baseline_score, one.task): MARKS[one.verdict]
        for one in study.verdicts_at(place)
        if one.score != "mutual-information"
    }
    status = next(iter(cells.values())).status
    if not any(cell.mean is not None for cell in cells.values()):
        yield [Text(f"  {status}")]
        return
    for method, score in ROWS:
        # A method's probabilities are in the row of its entropy.
        found = [
            (cells.get((method, score, task)), marks.get((method, score, task)))
            if task in RANKING
            else (cells.get((method, "", task)), marks.get((method, "", task)))
            if score == "entropy"
            else (None, None)
            for task in TASKS
        ]
        if any(cell for cell, _ in found):
            yield [
                Text(f"  {_name(method, score)}"),
                *(
                    _mean(cell, task, mark)
                    for (cell, mark), task in zip(found, TASKS.values(), strict=True)
                ),
            ]


def _name(method: str, score: str) -> str:
    name = SHORT.get(method, METHODS[method])
    return name if score in ("entropy", method) else f"  by {ABBREVIATED[score]}"


def _mean(cell: UncertaintyCell | None, task: Task, mark: Text | None = None) -> Text:
    if cell is None or cell.mean is None:
        return Text("")
    return Text.assemble(number(cell.mean, task), " ", mark or " ")


def _details(study: UncertaintyStudy, place: Place) -> Iterator[Table | Text | str]:
    """Yield what there is to say of one operator in one model on one dataset."""
    cells = study.at(place)
    tasks = {name: task for name, task in TASKS.items() if name not in RANKING}
    yield "\nProbabilities, mean ± half the interval:"
    yield _intervals(cells, {"accuracy": tasks.pop("accuracy"), "confidence": CONFIDENCE, **tasks})
    yield "Rankings of nodes by uncertainty, mean ± half the interval:"
    yield _intervals(cells, {name: TASKS[name] for name in RANKING})
    yield GROUPS
    yield _strata(study.strata)
    yield from (f"- {line}" for line in strata_sentences(study.strata))


def _intervals(cells: Mapping[Key, UncertaintyCell], tasks: Mapping[str, Task]) -> Table:
    table = _table(["", *(task.label for task in tasks.values())])
    for method, score in dict.fromkeys((one[0], one[1]) for one in cells if one[2] in tasks):
        name = SHORT.get(method, METHODS[method])
        table.add_row(
            name if score in ("", method) else f"{name}, {SCORES[score]}",
            *(_interval(cells.get((method, score, task)), one) for task, one in tasks.items()),
        )
    return table


def _interval(cell: UncertaintyCell | None, task: Task) -> str:
    if cell is None or cell.mean is None:
        return ""
    if cell.interval is None:
        return number(cell.mean, task)
    return f"{number(cell.mean, task)} ± {number((cell.interval[1] - cell.interval[0]) / 2, task)}"


def _strata(groups: Sequence[Group]) -> Table:
    heads = ("acc", "conf", "ECE", "AUROC")
    table = _table(["", "nodes", *heads, *(f"plain {head}" for head in heads[2:])])
    by_key = {(one.method, one.by, one.group): one for one in groups}
    for by in dict.fromkeys(one.by for one in groups):
        table.add_row(Text(BY.get(by, by), "bold", no_wrap=True))
        for one in groups:
            if one.by == by and one.method == MONTE_CARLO:
                plain = by_key["softmax", by, one.group]
                values = (one.accuracy, one.confidence, one.ece, one.auroc, plain.ece, plain.auroc)
                size = f"{one.nodes:.0f}" if one.nodes >= 1 else "<1"  # a mean over runs
                table.add_row(
                    f"  {one.group}",
                    size if one.ranked else f"({size})",
                    *("" if value is None else points(value) for value in values),
                )
    return table


def _table(heads: Sequence[Text | str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="")
    for column, head in enumerate(heads):
        if column:
            table.add_column(head, justify="right")  # too wide a line breaks: no digit is lost
        else:
            table.add_column(head, overflow="fold", min_width=NAME_WIDTH)
    return table


def _verdicts(study: UncertaintyStudy, place: Place, alone: bool) -> list[str]:
    dataset, model, operator = place
    (facts,) = [one for one in study.facts if (one.dataset, one.model, one.operator) == place]
    title = f"MC dropout with {OPERATORS.make(operator).spec} in {model} on {dataset}"
    lines = [*sentences(study, place), *_notes(study, facts)]
    return section("Verdict" if alone else f"Verdict: {title}", lines)


def _notes(study: UncertaintyStudy, facts: Facts) -> Iterator[str]:
    """Yield what drew at random, the temperature, and what referral does."""
    if facts.sites:
        yield f"Random sites: {'; '.join(facts.sites)}."
    if facts.best_epoch is not None:
        yield (
            f"The weights kept are those of epoch {facts.best_epoch:.0f} on average, the best on "
            "validation; how sure a model is depends on it."
        )
    if facts.temperature is not None:
        direction = "too sure" if facts.temperature > 1 else "not sure enough"
        yield (
            f"The fitted temperature is {facts.temperature:.2f}: "
            f"on validation nodes the softmax is {direction}."
        )
    for method, (kept, errors) in facts.referral.items():
        of_them = "" if errors is None else f", of which {points(errors)} % are wrong"
        yield (
            f"Referral at a wished risk of {points(study.protocol['risk'])} %: {METHODS[method]}'s "
            f"highest probability keeps {points(kept)} % of the test nodes{of_them}."
        )


def _protocol(study: UncertaintyStudy) -> list[str]:
    """Return how scores and verdicts were reached."""
    asked = study.protocol
    train = asked["train"]
    operators = ", ".join(OPERATORS.make(spec).spec for spec in asked["operators"])
    rows = ", bag-of-words rows sum to one" if train["normalize_features"] else ""
    stop = f" (patience {train['patience']})" if train["patience"] else ""
    lines = [
        f"{asked['seeds']} seeds, seed k on split k mod n; {operators}; {asked['samples']} samples",
        f"{'; '.join(map(full_model, asked['models']))}; on {asked['device']}",
        f"Adam, learning rate {train['learning_rate']:g}, weight decay {train['weight_decay']:g}, "
        f"at most {train['epochs']} epochs{stop}, weights of the best validation "
        f"{train['selection']}{rows}"
        if asked["checkpoint"] is None
        else f"weights of a checkpoint, SHA-256 {asked['checkpoint']}{rows}",
        f"ECE: {asked['bins']} bins of equal {asked['binning']}, (low, high], the highest "
        "probability; AUROC: an error is positive; entropies in nats; temperature fitted on "
        "validation nodes",
    ]
    if asked["members"] > 1:
        lines.append(
            f"ensemble of {asked['members']}: the model of the seed and {asked['members'] - 1} of "
            "its own on the same split, dropout off; no model is shared between seeds"
        )
    used = dict.fromkeys(TESTS[verdict.test] for verdict in study.verdicts)
    if used:
        lines.append(
            f"paired t test, {' or '.join(used)}; Holm over all {len(study.verdicts)} at "
            f"{asked['alpha']:g}; equivalence margin {asked['margin']:g} in each task's unit"
        )
    return lines + [f"{graph.name}: {graph.note}" for graph in study.datasets if graph.note]
