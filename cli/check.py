"""`gnndrop check`: the contract of the operators, for the authors of plug-ins."""

from typing import Annotated

import typer

from gnndrop.cli._options import Debug

BROKEN = 3


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
    from gnndrop.testing import check_operator

    broken = False
    for spec in operators or OPERATORS:
        OPERATORS.make(spec)  # wrong use is told before anything is checked
    for spec in operators or OPERATORS:
        try:
            check_operator(spec)
            _render.write(f"{spec}: passed\n")
        except AssertionError as error:
            broken = True
            _render.write(f"{spec}: failed, {error}\n")
    if broken:
        raise typer.Exit(BROKEN)
