"""Declared once: the registry from which listings, specs, tests and suites are derived.

A registry maps names to factories (classes or functions). A *spec string*
`name:key=value,key=value` stands for a call of the factory; its values are
read by the type annotations of the factory's parameters.
"""

import difflib
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from gnndrop.errors import ParameterError, UnknownNameError

Factory = TypeVar("Factory", bound=Callable[..., Any])
Composer = TypeVar("Composer", bound=Callable[[list[Any]], Any])


def did_you_mean(name: str, choices: list[str]) -> str:
    """Return the end of an error message: the nearest choice if one is near, else all of them.

    Example:
        >>> did_you_mean("drop-egde", ["dropout", "drop-edge"])
        "did you mean 'drop-edge'?"
    """
    near = difflib.get_close_matches(name, choices, n=1)
    return f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(choices)}"


def split_spec(spec: str) -> list[str]:
    """Split a spec of several entries, `one:key=value+other`, into theirs.

    Example:
        >>> split_spec("dropout:p=0.5+drop-edge"), split_spec("concrete-dropout:p=5e+0")
        (['dropout:p=0.5', 'drop-edge'], ['concrete-dropout:p=5e+0'])
    """
    return re.split(r"\+(?!\d)", spec)  # the plus of an exponent stands before a digit


def parse_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split a spec string into its name and its options, all still text.

    Raises:
        ParameterError: if an option is not of the form `key=value` or is given twice.

    Example:
        >>> parse_spec("drop-edge:p=0.3,symmetric=false")
        ('drop-edge', {'p': '0.3', 'symmetric': 'false'})
    """
    name, _, tail = spec.strip().partition(":")
    options: dict[str, str] = {}
    for part in tail.split(",") if tail else []:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals and value):
            raise ParameterError(f"a spec must read name:key=value,key=value, got {spec!r}")
        if key in options:
            raise ParameterError(f"each option must be given once, got {key!r} twice in {spec!r}")
        options[key] = value
    return name, options


def format_spec(name: str, options: Mapping[str, object]) -> str:
    """Write a name and its options as a spec string, the inverse of `parse_spec`.

    Example:
        >>> format_spec("drop-edge", {"p": 0.3, "symmetric": False})
        'drop-edge:p=0.3,symmetric=false'
    """
    texts = [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in options.items()
    ]
    return f"{name}:{','.join(texts)}" if texts else name


class Registry(Mapping[str, Factory], Generic[Factory]):
    """Names and their factories, sorted by the order of declaration.

    Built-in entries come from importing `module` at the first look-up; third parties add theirs
    with `register` or through the entry-point group `group`. A plug-in that fails to import is
    kept in `broken` (name to reason) and disturbs nobody else.

    Args:
        kind: what an entry is, for messages ("operator").
        module: the module whose import registers the built-in entries.
        group: the entry-point group of third parties.
    """

    def __init__(self, kind: str, module: str, group: str) -> None:
        self.kind = kind
        self.module = module
        self.group = group
        self.broken: dict[str, str] = {}
        self._entries: dict[str, Factory] = {}
        self._loaded = False
        self._composers: dict[str, Callable[[list[Any]], Any]] = {}

    def register(self, name: str) -> Callable[[Factory], Factory]:
        """Return a decorator that declares a factory under `name`.

        Raises:
            ParameterError: if the name is taken or holds a character that specs use.
        """

        def declare(factory: Factory) -> Factory:
            if name in self._entries:
                raise ParameterError(f"{self.kind} names must be unique, got {name!r} twice")
            if not name or set(name) & set(":=,+ "):
                raise ParameterError(f"{self.kind} names must not hold ':=,+ ', got {name!r}")
            self._entries[name] = factory
            return factory

        return declare

    def composes(self, sign: str) -> Callable[[Composer], Composer]:
        """Return a decorator that declares what a list of entries makes, by their sign in a spec.

        The sign `+` stands between entries, `/` between several values of p of one of them.
        """

        def declare(composer: Composer) -> Composer:
            self._composers[sign] = composer
            return composer

        return declare

    def make(self, spec: str, **arguments: object) -> Any:
        """Build the entry that a spec string describes; `arguments` are passed on beside it.

        Where it describes several, `one+other` or `one:p=0.1/0.2`, they are composed.

        Raises:
            UnknownNameError: if the name is unknown; the nearest one is suggested.
            ParameterError: if an option is unknown or cannot be read as its annotated type.
        """
        self._load()
        specs = split_spec(spec) if "+" in self._composers else [spec]
        if len(specs) > 1:
            return self._composers["+"]([self.make(one, **arguments) for one in specs])
        name, options = parse_spec(spec)
        rates = options.get("p", "").split("/") if "/" in self._composers else []
        if len(rates) > 1:
            specs = [format_spec(name, {**options, "p": rate}) for rate in rates]
            return self._composers["/"]([self.make(one, **arguments) for one in specs])
        factory = self[name]
        return factory(**_read_options(factory, spec, options, set(arguments)), **arguments)

    def options(self, name: str) -> dict[str, object]:
        """Return the options of an entry and their defaults, as a spec string may set them."""
        return {
            parameter.name: parameter.default
            for parameter in inspect.signature(self[name]).parameters.values()
            if parameter.default is not inspect.Parameter.empty
        }

    def __getitem__(self, name: str) -> Factory:
        entries = self._load()
        if name not in entries:
            hint = did_you_mean(name, list(entries))
            reason = f" (its plug-in is broken: {self.broken[name]})" if name in self.broken else ""
            raise UnknownNameError(f"unknown {self.kind} {name!r}{reason}, {hint}")
        return entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._load())

    def __len__(self) -> int:
        return len(self._load())

    def _load(self) -> dict[str, Factory]:
        if not self._loaded:
            importlib.import_module(self.module)  # where it fails, the next look-up tries again
            self._loaded = True  # before the plug-ins, which may look names up
            for entry_point in importlib.metadata.entry_points(group=self.group):
                try:
                    factory = entry_point.load()
                    if self._entries.get(entry_point.name) is not factory:
                        self.register(entry_point.name)(factory)
                except Exception as error:  # a stranger's import may raise anything
                    self.broken[entry_point.name] = f"{type(error).__name__}: {error}"
        return self._entries


def _read_options(
    factory: Callable[..., Any], spec: str, options: dict[str, str], taken: set[str]
) -> dict[str, object]:
    from pydantic import TypeAdapter, ValidationError  # a tenth of a second, only for specs

    parameters = inspect.signature(factory).parameters
    function = factory.__init__ if inspect.isclass(factory) else factory
    hints = {name: hint for name, hint in get_type_hints(function).items() if name not in taken}
    values: dict[str, object] = {}
    for key, text in options.items():
        if key not in parameters or key not in hints:
            known = [name for name in parameters if name in hints]
            hint = did_you_mean(key, known) if known else "it takes none"
            raise ParameterError(f"unknown option {key!r} in {spec!r}, {hint}")
        try:
            values[key] = TypeAdapter(hints[key]).validate_strings(text)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ParameterError(f"{key} in {spec!r} cannot be read: {reason}") from error
    return values
