"""The verdicts on Monte-Carlo dropout in sentences: which method is better at which task."""

from collections.abc import Iterator, Mapping, Sequence

from gnndrop.study.statistics import MINIMUM_PAIRS, Decision
from gnndrop.study.uncertainty_report import (
    METHODS,
    MONTE_CARLO,
    TASKS,
    Group,
    Key,
    Task,
    UncertaintyCell,
    UncertaintyStudy,
    UncertaintyVerdict,
)
from gnndrop.study.words import points, signed_points

SCORES = {
    "max-probability": "highest probability",
    "entropy": "entropy",
    "energy": "energy",
    "expected-entropy": "expected entropy",
    "mutual-information": "mutual information",
    "variance": "variance",
}
CLAIMS: dict[Decision, str] = {
    "better": "better than",
    "worse": "worse than",
    "equivalent": "equivalent to",
    "undecided": "undecided against",
}


def number(value: float, task: Task, signed: bool = False) -> str:
    """Write a score or a difference in its task's unit.

    Example:
        >>> number(0.2514, TASKS["ece"]), number(0.0404, TASKS["ece"], signed=True)
        ('25.1', '+4.0')
        >>> number(0.6049, TASKS["nll"]), number(0.0049, TASKS["nll"], signed=True)
        ('0.605', '+0.005')
    """
    if task.unit == "points":
        return signed_points(value) if signed else points(value)
    text = f"{value + 0.0:.3f}".replace("-0.000", "0.000")
    return f"+{text}" if signed and not text.startswith("-") and text != "0.000" else text


def sentences(study: UncertaintyStudy, place: tuple[str, str, str]) -> list[str]:
    """Return one sentence for each task, on a dataset, model and operator.

    Args:
        study: the outcome.
        place: dataset, model and operator.

    Returns:
        What MC dropout is better, worse than or equivalent to, by how much, with the interval, and
        the methods of the best mean; an AUROC below .5 is called inverted.

    Example:
        >>> empty = UncertaintyStudy((), (), (), (), (), {}, (), protocol={}, environment={})
        >>> sentences(empty, ("cora", "gcn", "dropout"))
        []
    """
    cells = study.at(place)
    contests: dict[tuple[str, str], list[UncertaintyVerdict]] = {}
    for one in study.verdicts_at(place):
        contests.setdefault((one.task, one.score), []).append(one)
    found = []
    told: set[str] = set()
    for (task, score), verdicts in contests.items():
        best = "" if task in told else f" {_best(task, cells)}"
        found.append(_sentence(task, score, verdicts, cells) + best.rstrip())
        told.add(task)
    return found + list(_inverted(cells))


def _sentence(
    task: str,
    score: str,
    verdicts: Sequence[UncertaintyVerdict],
    cells: Mapping[Key, UncertaintyCell],
) -> str:
    ours = cells.get((MONTE_CARLO, score, task))
    mean = "" if ours is None or ours.mean is None else f" ({number(ours.mean, TASKS[task])})"
    by = f" by its {SCORES[score]}" if score else ""
    claims = []
    for decision, words in CLAIMS.items():
        against = [_against(one) for one in verdicts if one.verdict == decision]
        if against:
            claims.append(f"{words} {', '.join(against)}")
    scope = ", on this split" if all(one.test == "paired-t" for one in verdicts) else ""
    few = min(one.pairs + one.missing for one in verdicts)
    pairs = f"; {few} of the {MINIMUM_PAIRS} pairs it takes" if few < MINIMUM_PAIRS else ""
    return f"For {TASKS[task].purpose} MC dropout{by}{mean} is {'; '.join(claims)}{scope}{pairs}."


def _against(verdict: UncertaintyVerdict) -> str:
    """Name the other side, and by how much they differ."""
    name = _named(verdict.baseline, verdict.baseline_score)
    if verdict.missing:
        return f"{name} ({verdict.missing} of {verdict.missing + verdict.pairs} pairs are missing)"
    if verdict.difference is None:
        return name
    task, difference = TASKS[verdict.task], verdict.difference
    decided = verdict.verdict in ("better", "worse")
    sign = -1 if decided and difference < 0 else 1
    amount = number(sign * difference, task, signed=not decided)
    unit = f" {task.unit}" if task.unit else ""
    ends = sorted(sign * end for end in verdict.interval or ())
    interval = f" [{', '.join(number(end, task) for end in ends)}]" if ends else ""
    if decided:
        return f"{name} by {amount}{unit}{interval}"
    return f"{name} ({amount}{unit}{interval})"


def _named(method: str, score: str) -> str:
    """Name a method and, where it is not the method itself, what it ranks nodes by."""
    return METHODS[method] + (f"'s {SCORES[score]}" if score not in ("", method) else "")


def _best(task: str, cells: Mapping[Key, UncertaintyCell]) -> str:
    """Name the methods of the best mean; which score each ranks by is part of its name."""
    known = [one for one in cells.values() if one.task == task and one.mean is not None]
    if not known:
        return ""
    sign = 1 if TASKS[task].higher else -1
    # Equal to what is printed is equal.
    means = [round(sign * (one.mean or 0.0), 3) for one in known]
    first = [one for one, mean in zip(known, means, strict=True) if mean == max(means)]
    names = [_named(one.method, one.score) for one in first]
    mean = number(first[0].mean or 0.0, TASKS[task])
    return f"Best mean: {mean}, {', '.join(names)}."


def _inverted(cells: Mapping[Key, UncertaintyCell]) -> Iterator[str]:
    """Yield a sentence for every score by which errors look surer than what is right."""
    for (method, score, task), cell in cells.items():
        if task != "auroc" or cell.mean is None or cell.mean >= 0.5:
            continue
        sure = cell.interval is not None and cell.interval[1] < 0.5
        doubt = "" if sure else ", though within the error of chance"
        interval = "" if cell.interval is None else f" [{', '.join(map(points, cell.interval))}]"
        yield (
            f"The AUROC of {_named(method, score)} is inverted here: {points(cell.mean)}{interval} "
            f"is below 50{doubt}; the errors are what it is sure of."
        )


def strata_sentences(groups: Sequence[Group]) -> list[str]:
    """Return where MC dropout is the least calibrated, for each way to group nodes.

    Groups of too few nodes take no part.

    Args:
        groups: the strata of one dataset, model and operator.

    Example:
        >>> strata_sentences([])
        []
    """
    found = []
    for by in dict.fromkeys(one.by for one in groups):
        ranked = [
            (one.ece, one)
            for one in groups
            if one.by == by and one.method == MONTE_CARLO and one.ranked and one.ece is not None
        ]
        if len(ranked) > 1:
            error, worst = max(ranked, key=lambda pair: pair[0])
            found.append(
                f"By {by} MC dropout is the farthest from calibrated at {worst.group} "
                f"({worst.nodes:.0f} nodes): ECE {points(error)}, accuracy "
                f"{points(worst.accuracy or 0.0)}, confidence {points(worst.confidence or 0.0)}."
            )
    return found
