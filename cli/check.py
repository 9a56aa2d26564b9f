"""`gnndrop check`: the contract of the operators, for the authors of plug-ins."""

from typing import Annotated

import typer

from gnndrop.cli._options import Debug

SOME_FAILED = 3


def check(
    operators: Annotated[
        list[str] | None,
        typer.Argument(metavar="SPEC", help="As drop-edge:p=0.3.", show_default="all"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Check that operators keep the contract.

    Rates, expectations, covariances, gradients and edge cases; meant for authors of plug-ins.
    """
    from gnndrop.cli import _render  # the imports that --help can do without
    from gnndrop.operators import OPERATORS
    from gnndrop.testing import ContractError, check_operator

    specs = operators or list(OPERATORS)
    for spec in specs:
        OPERATORS.make(spec)  # wrong use is told before anything is checked
    failures = 0
    for spec in specs:
        try:
            _render.write(f"{spec}: passed, {len(check_operator(spec))} clauses\n")
        except ContractError as error:
            failures += 1
            _render.write(f"{spec}: failed, {error}\n")
    if failures:
        raise typer.Exit(SOME_FAILED)
