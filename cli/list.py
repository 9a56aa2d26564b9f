"""`gnndrop list`: what there is to choose from, read from the registries."""

import inspect
from enum import StrEnum
from typing import Annotated, Any

import typer

from gnndrop.cli._options import Debug, Json
from gnndrop.registry import Registry


class Kind(StrEnum):
    """What can be listed."""

    OPERATORS = "operators"
    DATASETS = "datasets"
    MODELS = "models"


FACTS = {
    Kind.OPERATORS: ("site", "axes", "presets"),
    Kind.DATASETS: (
        *("nodes", "edges", "features", "classes", "homophily", "splits", "metric"),
        *("is_offline", "is_here", "bytes", "files", "note", "licence"),
    ),
    Kind.MODELS: (),
}


def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List operators, datasets or models."""
    from gnndrop.cli import _render  # the imports that --help can do without

    registry = _registry(kind)
    entries = [_entry(kind, name, registry) for name in registry]
    if json:
        _render.write_json({"schema": 1, kind.value: entries})
    elif kind is Kind.DATASETS:
        _render.write_datasets(entries)
    else:
        _render.write_listing(entries)
    for name, reason in registry.broken.items():
        typer.echo(f"The plug-in of {registry.kind} {name!r} is broken: {reason}", err=True)


def _registry(kind: Kind) -> Registry[Any]:
    if kind is Kind.OPERATORS:
        from gnndrop.operators import OPERATORS

        return OPERATORS
    if kind is Kind.DATASETS:
        from gnndrop.datasets import DATASETS

        return DATASETS
    from gnndrop.models import MODELS

    return MODELS


def _entry(kind: Kind, name: str, registry: Registry[Any]) -> dict[str, Any]:
    """Return what is declared of one entry, fit for JSON; what is not declared is null.

    Its summary is the first paragraph of the docstring, its source the one that begins so.
    """
    factory = registry[name]
    paragraphs = [" ".join(text.split()) for text in (inspect.getdoc(factory) or "").split("\n\n")]
    sources = [text.removeprefix("Source: ") for text in paragraphs if text.startswith("Source: ")]
    declared = factory() if kind is Kind.DATASETS else factory
    return {
        "name": name,
        "summary": paragraphs[0],
        "options": {
            option: default
            for option, default in registry.options(name).items()
            if option != "out_channels"  # a model's is decided by the dataset
        },
        "source": sources[0] if sources else getattr(declared, "citation", None),
        **{fact: getattr(declared, fact, None) for fact in FACTS[kind]},
    }
