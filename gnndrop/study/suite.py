"""A suite: a study written down as a TOML file, read and checked; torch-free.

    title, description, budget, notes
    [[comparison]]    name and the settings of `CompareConfig`, with a table `train`
    [[uncertainty]]   name and the settings of `UncertaintyConfig`, with a table `train`
    [[published]]     a published number and the cell of a comparison that repeats it

Every message about a suite names its file and the line.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import ErrorDetails

from gnndrop.config import CompareConfig, TrainConfig
from gnndrop.errors import ParameterError
from gnndrop.registry import did_you_mean
from gnndrop.study.lines import Place, find_line
from gnndrop.study.uncertainty_plan import UncertaintyConfig

NAME = r"^[a-z0-9][a-z0-9-]*$"  # of a folder on every system


# A list, which is all that TOML has, is as good as a tuple; what it holds is not converted.
_Texts = Annotated[tuple[str, ...], Strict(False)]
_Numbers = Annotated[tuple[float, ...], Strict(False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)  # `true` is no number


# Declared once, by `TrainConfig`; a table of it may set every field and no other.
_TRAIN_FIELDS: dict[str, Any] = {
    field.name: (field.type, field.default) for field in fields(TrainConfig)
}
_Train: Any = create_model("Train", __base__=_Table, **_TRAIN_FIELDS)


class ComparisonSettings(_Table):
    """One `[[comparison]]`: the settings of `gnndrop.compare`.

    Args:
        name: names its folder; small letters, digits and hyphens.
        datasets: specs of graphs.
        models: specs of models.
        operators: specs of operators; `none`, the baseline, is put first where it is missing.
        note: what a reader must know of it.
        against: the comparison from which this one differs in one factor; the gains of operators in
            the two are then compared (`gnndrop.study.factors`).
        undirected: give every directed edge its reverse.
        seeds: number of seeds.
        splits: `default` or `all`.
        rates: rates to choose from on validation.
        margin: half-width of the equivalence region, in units of the metric.
        alpha: level of the tests and of the intervals.
        train: the fields of `TrainConfig`.
    """

    name: str = Field(pattern=NAME)
    datasets: _Texts
    models: _Texts
    operators: _Texts
    note: str = ""
    against: str = ""
    undirected: bool = False
    seeds: int = CompareConfig.seeds
    splits: str = CompareConfig.splits
    rates: _Numbers = ()
    margin: float = CompareConfig.margin
    alpha: float = CompareConfig.alpha
    train: _Train = _Train()

    @model_validator(mode="after")
    def _is_a_comparison(self) -> Self:
        self.config()
        return self

    def config(self) -> CompareConfig:
        """Return the settings as `compare` understands them.

        Raises:
            ParameterError: if a value is out of its range.
        """
        names = {field.name for field in fields(CompareConfig)} - {"train", "device"}
        return CompareConfig(
            **self.model_dump(include=names), train=TrainConfig(**self.train.model_dump())
        )


class UncertaintySettings(_Table):
    """One `[[uncertainty]]`: the settings of `gnndrop.study.uncertainty.assess_uncertainty`.

    Args:
        name: names its folder; small letters, digits and hyphens.
        datasets: specs of graphs.
        models: specs of models.
        operators: specs of what is random; not `none`.
        note: what a reader must know of it.
        seeds: number of seeds.
        samples: Monte-Carlo samples of each model.
        members: models of a deep ensemble; 1 leaves it out.
        risk: share of errors wished for among the predictions that nobody looks at.
        margin: half-width of the equivalence region, in the unit of each task.
        alpha: level of the tests and of the intervals.
        train: the fields of `TrainConfig`.
    """

    name: str = Field(pattern=NAME)
    datasets: _Texts
    models: _Texts
    operators: _Texts
    note: str = ""
    seeds: int = UncertaintyConfig.seeds
    samples: int = UncertaintyConfig.samples
    members: int = UncertaintyConfig.members
    risk: float = UncertaintyConfig.risk
    margin: float = UncertaintyConfig.margin
    alpha: float = UncertaintyConfig.alpha
    train: _Train = _Train()

    @model_validator(mode="after")
    def _is_an_assessment(self) -> Self:
        self.config()
        return self

    def config(self) -> UncertaintyConfig:
        """Return the settings as `assess_uncertainty` understands them.

        Raises:
            ParameterError: if a value is out of its range.
        """
        names = set(type(self).model_fields) - {"name", "note", "train"}
        return UncertaintyConfig(
            **self.model_dump(include=names), train=TrainConfig(**self.train.model_dump())
        )


class PublishedRow(_Table):
    """One `[[published]]`: a number from the literature, and the cell that repeats it.

    Args:
        comparison: name of the comparison.
        dataset: spec of the graph.
        model: spec of the model.
        operator: spec of the operator.
        value: the published mean.
        spread: its published standard deviation over runs, if one is given.
        runs: the number of those runs, if it is known.
        unit: `points` (percent, default) or `fraction`, of value, spread and margin.
        margin: the difference within which the two agree.
        source: where the number stands: a URL, and the title of the table.
        differs: how our setting differs from theirs.
    """

    comparison: str
    dataset: str
    model: str
    operator: str
    value: float
    spread: float | None = Field(default=None, ge=0)
    runs: int | None = Field(default=None, ge=2)
    unit: Literal["points", "fraction"] = "points"
    margin: float = Field(gt=0)
    source: str = Field(min_length=1)
    differs: str = ""

    @property
    def scale(self) -> float:
        """What turns the row's unit into that of a metric."""
        return 0.01 if self.unit == "points" else 1.0


class SuiteSettings(_Table):
    """A whole suite.

    Args:
        title: what it is, in a few words.
        description: what it asks.
        budget: how long it takes, and where.
        notes: sources, choices, and what was left out.
        comparison: the comparisons.
        uncertainty: the assessments of uncertainty; there is a comparison or an assessment.
        published: published numbers to stand beside ours.
    """

    title: str
    description: str
    budget: str
    notes: _Texts = ()
    comparison: Annotated[tuple[ComparisonSettings, ...], Strict(False)] = ()
    uncertainty: Annotated[tuple[UncertaintySettings, ...], Strict(False)] = ()
    published: Annotated[tuple[PublishedRow, ...], Strict(False)] = ()

    @model_validator(mode="after")
    def _runs_something(self) -> Self:
        if not self.parts:
            raise ParameterError(
                "a suite must hold a table [[comparison]] or [[uncertainty]], got neither; add one"
            )
        return self

    @property
    def parts(self) -> tuple[ComparisonSettings | UncertaintySettings, ...]:
        """All that is run, in its order."""
        return (*self.comparison, *self.uncertainty)


# The tables and what may stand in them, for suggestions.
_TABLES: Mapping[tuple[str, ...], type[BaseModel]] = {
    (): SuiteSettings,
    ("comparison",): ComparisonSettings,
    ("comparison", "train"): _Train,
    ("uncertainty",): UncertaintySettings,
    ("uncertainty", "train"): _Train,
    ("published",): PublishedRow,
}


@dataclass(frozen=True)
class Suite:
    r"""A suite that has been read.

    Args:
        name: what it was asked by: a built-in name, or the stem of its file.
        text: the TOML text.
        source: what messages call it: the built-in name or the path.

    Raises:
        ParameterError: if the text is no TOML, holds an unknown key, lacks one, or has a value out
            of its range; the message names the line.

    Example:
        >>> head = 'title = "T"\ndescription = "D"\nbudget = "1 minute"\n'
        >>> body = '[[comparison]]\nname = "one"\ndatasets = ["karate"]\nmodels = ["gcn"]\n'
        >>> suite = Suite("mine", head + body + 'operators = ["dropout"]\n', "mine.toml")
        >>> suite.settings.comparison[0].config().operators
        ('none', 'dropout')
        >>> Suite("mine", head + body + 'operator = ["dropout"]\n', "mine.toml")
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: mine.toml, line 8: unknown key 'operator', did you mean ...
    """

    name: str
    text: str
    source: str

    def __post_init__(self) -> None:
        _ = self.settings  # whatever is wrong shall be found now

    @cached_property
    def settings(self) -> SuiteSettings:
        """What the text says."""
        try:
            document = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise ParameterError(f"{self.source} must be TOML, got: {error}") from error
        try:
            settings = SuiteSettings.model_validate(document)
        except ValidationError as error:
            # An unknown key first: it is why another one is missing.
            details = sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
            place, message = _explain(details[0])
            raise self.error(place, message) from error
        self._check_names(settings)
        return settings

    def error(self, place: Place, message: str, value: str = "") -> ParameterError:
        """Return an error that names the line of a place, or of a value below it."""
        return ParameterError(
            f"{self.source}, line {find_line(self.text, place, value)}: {message}"
        )

    def _check_names(self, settings: SuiteSettings) -> None:
        """Check names: each names a folder of its own, and what refers to them comes later."""
        known: dict[str, ComparisonSettings] = {}
        for number, one in enumerate(settings.comparison):
            if one.name in known:
                message = f"the names of comparisons must differ, got {one.name!r} twice"
                raise self.error(("comparison", number, "name"), message)
            if one.against and one.against not in known:
                hint = did_you_mean(one.against, list(known)) if known else "there is none"
                message = f"against must name a comparison above, got {one.against!r}, {hint}"
                raise self.error(("comparison", number, "against"), message)
            known[one.name] = one
        taken = set(known)
        for number, assessment in enumerate(settings.uncertainty):
            if assessment.name in taken:
                message = (
                    "the names of comparisons and assessments must differ, "
                    f"got {assessment.name!r} twice"
                )
                raise self.error(("uncertainty", number, "name"), message)
            taken.add(assessment.name)
        for number, row in enumerate(settings.published):
            if row.comparison not in known:
                hint = did_you_mean(row.comparison, list(known)) if known else "there is none"
                message = f"unknown comparison {row.comparison!r}, {hint}"
                raise self.error(("published", number, "comparison"), message)
            config = known[row.comparison].config()
            for key in ("dataset", "model", "operator"):
                value, choices = getattr(row, key), getattr(config, f"{key}s")
                if value not in choices:
                    hint = did_you_mean(value, list(choices))
                    message = f"the comparison {row.comparison} has no {key} {value!r}, {hint}"
                    raise self.error(("published", number, key), message)


def read_suite(path: str | Path) -> Suite:
    """Read a suite from a file.

    Args:
        path: a TOML file.

    Raises:
        ParameterError: if the file cannot be read, or for what `Suite` raises.

    Example:
        >>> read_suite("nowhere.toml")
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: a suite must be a text file, got nowhere.toml: ...
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(f"a suite must be a text file, got {path}: {error}") from error
    return Suite(path.stem, text, str(path))


def _explain(detail: ErrorDetails) -> tuple[Place, str]:
    """Return where pydantic found something wrong, and what must hold."""
    place, message = detail["loc"], detail["msg"]
    table = tuple(part for part in place[:-1] if isinstance(part, str))
    if detail["type"] == "extra_forbidden":
        hint = did_you_mean(str(place[-1]), list(_TABLES[table].model_fields))
        return place, f"unknown key {place[-1]!r}, {hint}"
    if detail["type"] == "missing":
        return place, f"the key {place[-1]!r} is missing"
    if detail["type"] == "value_error":
        # From a config, whose messages begin with the field's name.
        message = message.removeprefix("Value error, ")
        key = message.split()[0]
        inner = ("train",) if key in _TABLES["comparison", "train"].model_fields else ()
        return (*place, *inner, key), message
    if len(place) == 1 and place in _TABLES:  # one table, where there may be several
        got = f"[{place[0]}]" if isinstance(detail["input"], dict) else repr(detail["input"])
        return place, (
            f"tables of this kind must begin with [[{place[0]}]], got {got}; write two brackets"
        )
    key = next(part for part in reversed(place) if isinstance(part, str))
    return place, f"{key}: {message[0].lower()}{message[1:]}, got {detail['input']!r}"
