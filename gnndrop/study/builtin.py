"""The suites that gnndrop brings along, and how a name or a path becomes a suite."""

from importlib.resources import files
from pathlib import Path

from gnndrop.errors import UnknownNameError
from gnndrop.registry import did_you_mean
from gnndrop.study.suite import Suite, read_suite


def builtin_suites() -> dict[str, str]:
    """Return the TOML text of every built-in suite by its name, in the order of their names.

    Example:
        >>> "quick" in builtin_suites()
        True
    """
    texts = {
        item.name.removesuffix(".toml"): item.read_text(encoding="utf-8")
        for item in files("gnndrop.suites").iterdir()
        if item.name.endswith(".toml")
    }
    return dict(sorted(texts.items()))


def load_suite(name: str | Path) -> Suite:
    """Return a suite by its built-in name, or by the path of its file.

    What ends in `.toml` or holds a separator is a path.

    Args:
        name: the name or the path.

    Raises:
        UnknownNameError: if there is no built-in suite of that name.
        ParameterError: if the file cannot be read, or is no suite; the message names the line.

    Example:
        >>> load_suite("quick").settings.comparison[0].seeds >= 6
        True
    """
    if isinstance(name, Path) or name.endswith(".toml") or "/" in name or "\\" in name:
        return read_suite(name)
    texts = builtin_suites()
    if name not in texts:
        raise UnknownNameError(
            "a suite must be a built-in name or the path of a .toml file, "
            f"got {name!r}, {did_you_mean(name, list(texts))}"
        )
    return Suite(name, texts[name], name)
