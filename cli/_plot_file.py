"""The files of figures; matplotlib, which draws them, is an extra."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gnndrop.errors import ParameterError

FORMATS = (".png", ".svg", ".pdf")


def check_place(path: Path) -> None:
    """Make sure that a figure can be drawn there, before anything is measured.

    Raises:
        ParameterError: if matplotlib is not installed, the format unknown or the folder missing.
    """
    check_installed()
    if path.suffix not in FORMATS:
        raise ParameterError(f"--plot needs a file of {', '.join(FORMATS)}, got {path}")
    if not path.parent.is_dir():
        raise ParameterError(f"--plot needs a folder that exists, got {path.parent}")


def check_installed() -> None:
    """Make sure that there is matplotlib.

    Raises:
        ParameterError: if there is not.
    """
    if find_spec("matplotlib") is None:
        raise ParameterError(
            "--plot needs matplotlib, which is not installed; pip install 'gnndrop[plot]'"
        )


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a figure in the format that its file's name says; the file is replaced atomically.

    Raises:
        ParameterError: if the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(part, format=path.suffix[1:], dpi=dpi)
        part.replace(path)
    except OSError as error:
        raise ParameterError(f"--plot must be writable, got: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
