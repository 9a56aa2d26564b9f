"""`gnndrop check`: theory against measurement, and the contract of the operators."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gnndrop.cli._exit import SOME_FAILED
from gnndrop.cli._options import Debug, Json

if TYPE_CHECKING:
    from gnndrop.testing import Check
    from gnndrop.theory.measurement import Measurement

THEORY = "theory"  # the subject of what holds for no operator in particular


def check(
    operators: Annotated[
        list[str] | None,
        typer.Argument(metavar="SPEC", help="As drop-edge:p=0.3.", show_default="all"),
    ] = None,
    theory: Annotated[
        bool,
        typer.Option(
            "--theory", help="The general theory, and of operators only the ones that are named."
        ),
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the measurements: .png, .svg, .pdf.", show_default=False),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that operators keep the contract, and measure what theory says.

    Of each operator: rates, expectations, covariances, gradients and edge cases, against what its
    declaration implies; of drop-edge the expected normalized adjacencies, too. Without operators
    also the general theory, as the L2 penalty that dropout is. The table shows every quantity where
    it is the farthest off, with the error that measuring may make.
    """
    from gnndrop.cli import _plot, _plot_file, _render  # the imports that --help can do without
    from gnndrop.operators import OPERATORS
    from gnndrop.theory.measured import measure_theory

    specs = operators or ([] if theory else list(OPERATORS))
    for spec in specs:
        OPERATORS.make(spec)  # wrong use is told before anything is checked
    if plot is not None:
        _plot_file.check_place(plot)
    found = [_check(spec) for spec in specs]
    measured = [(spec, one) for spec, _, ones in found for one in ones]
    if theory or not operators:
        measured += [(THEORY, one) for one in measure_theory()]
    if json:
        _render.write_json(_document([(spec, clauses) for spec, clauses, _ in found], measured))
    else:
        _render.write_checks([_sentence(*one) for one in found], list(_farthest_off(measured)))
    if plot is not None:
        _plot.draw(plot, measured)  # last: whatever happens to the file, the result is told
    clauses_kept = all(clause.passed for _, clauses, _ in found for clause in clauses)
    if not (clauses_kept and all(one.passed for _, one in measured)):
        raise typer.Exit(SOME_FAILED)


def _check(spec: str) -> "tuple[str, tuple[Check, ...], list[Measurement]]":
    """Return the outcome of the clauses of an operator's contract, and what was measured."""
    from gnndrop.operators import make_operator
    from gnndrop.testing import ContractError, check_operator
    from gnndrop.theory.measured_graphs import measure_adjacency

    try:
        clauses = check_operator(spec)
    except ContractError as error:
        clauses = error.checks
    measured = [one for clause in clauses for one in clause.measurements]
    if all(clause.passed for clause in clauses):  # of a broken operator anything may be wrong
        measured += measure_adjacency(make_operator(spec))
    return spec, clauses, measured


def _sentence(spec: str, clauses: "tuple[Check, ...]", measured: "list[Measurement]") -> str:
    failed = [f"{clause.clause}: {clause.detail}" for clause in clauses if not clause.passed]
    off = dict.fromkeys(one.quantity for one in measured if not one.passed)
    if not failed:  # else the clause says what is off
        failed = [f"{quantity} is not what theory says" for quantity in off]
    return (
        f"{spec}: failed, {'; '.join(failed)}"
        if failed
        else f"{spec}: passed, {len(clauses)} clauses"
    )


def _farthest_off(measured: "Iterable[tuple[str, Measurement]]") -> Iterator[dict[str, Any]]:
    """Yield each quantity of each subject where it is the farthest off."""
    worst: dict[tuple[str, str], Measurement] = {}
    for subject, one in measured:
        before = worst.setdefault((subject, one.quantity), one)
        if one.deviation > before.deviation:
            worst[subject, one.quantity] = one
    for (subject, _), one in worst.items():
        yield {"subject": subject, **one.to_dict()}


def _document(
    found: "list[tuple[str, tuple[Check, ...]]]", measured: "list[tuple[str, Measurement]]"
) -> dict[str, Any]:
    return {
        "schema": 1,
        "operators": [
            {
                "operator": spec,
                "passed": all(clause.passed for clause in clauses),
                "clauses": [
                    {key: asdict(clause)[key] for key in ("clause", "detail", "passed")}
                    for clause in clauses
                ],
            }
            for spec, clauses in found
        ],
        "measurements": [{"subject": subject, **one.to_dict()} for subject, one in measured],
    }
