"""Files that are replaced whole or not at all."""

import os
from pathlib import Path

from gnndrop.errors import DataError


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically; its folder is made where it is missing.

    Args:
        path: the file.
        text: what it shall hold.

    Raises:
        DataError: if it cannot be written; what was there stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder) / "deep" / "note.txt", "done")
        ...     (Path(folder) / "deep" / "note.txt").read_text()
        'done'
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise DataError(
            f"{path} must be writable, got {error.strerror!r}; make room or choose another folder"
        ) from error


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically, see `replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically in a folder that exists, and leave the system's error as it is.

    Written beside the file, then moved to its place: a reader sees the old one or the new one.

    Raises:
        OSError: if it cannot be written; what was there stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
