"""Where in a TOML text a key stands: `tomllib` tells it for errors of syntax alone."""

import re

Place = tuple[str | int, ...]

_ARRAY = re.compile(r"\s*\[\[\s*([\w-]+)\s*\]\]")
_TABLE = re.compile(r"\s*\[\s*([\w.-]+)\s*\]\s*(#.*)?$")
_KEY = re.compile(r"\s*([\w-]+)\s*=")


def find_line(text: str, place: Place, value: str = "") -> int:
    r"""Return the number of the line where a place of a TOML document stands, from 1.

    Understood are tables and arrays of tables one below the other, as people write them; what
    stands inside of an inline table or a list has the line of its key.

    Args:
        text: the document, which `tomllib` can read.
        place: keys and indices, as pydantic locates an error.
        value: a string below the place, whose own line is preferred.

    Returns:
        The line of the place, or of the nearest that encloses it.

    Example:
        >>> text = 'title = "T"\n[[part]]\nsize = 1\n[[part]]\nsize = 2\n'
        >>> find_line(text, ("part", 1, "size")), find_line(text, ("part", 1, "colour"))
        (5, 4)
    """
    found = _places(text)
    while place not in found and place:
        place = place[:-1]
    line = found.get(place, 1)
    if not value:
        return line
    lines = text.splitlines()
    return next(
        (number for number in range(line, len(lines) + 1) if f'"{value}"' in lines[number - 1]),
        line,
    )


def _places(text: str) -> dict[Place, int]:
    """Return the line of every key and table."""
    found: dict[Place, int] = {}
    counts: dict[str, int] = {}
    table: Place = ()
    inside = False  # of a string of several lines
    for number, line in enumerate(text.splitlines(), start=1):
        if not inside:
            array, header, key = (form.match(line) for form in (_ARRAY, _TABLE, _KEY))
            if array:
                name = array[1]
                counts[name] = counts.get(name, -1) + 1
                table = (name, counts[name])
            elif header:
                first, *rest = header[1].split(".")
                table = (first, counts[first], *rest) if first in counts else (first, *rest)
            place = (*table, key[1]) if key else table
            found.setdefault(place, number)
        inside ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return found
