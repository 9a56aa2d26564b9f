"""A report of a run: read it, write it in one of four formats, replace the file atomically."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gnndrop.errors import ParameterError
from gnndrop.study.files import replace_text
from gnndrop.study.html import render_html
from gnndrop.study.reading import Study, read_study
from gnndrop.study.tables import render_csv, render_latex, render_markdown

FORMATS: Mapping[str, Callable[[Study], str]] = {
    "html": render_html,
    "md": render_markdown,
    "latex": render_latex,
    "csv": render_csv,
}


def render_report(folder: Path, format: str = "html", root: Path | None = None) -> str:
    """Return the report of a run folder.

    Args:
        folder: the run folder of `gnndrop compare --out` or of `gnndrop bench --out`.
        format: `html`, `md`, `latex` or `csv`.
        root: read-only mirror of raw data files, see `read_study`.

    Raises:
        ParameterError: if the format is unknown, or the folder holds no run to report.
        DataError: if a dataset must be read and cannot be.

    Example:
        >>> render_report(Path("run"), "pdf")
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: the format must be one of html, md, latex, csv, got 'pdf'
    """
    if format not in FORMATS:
        raise ParameterError(f"the format must be one of {', '.join(FORMATS)}, got {format!r}")
    return FORMATS[format](read_study(folder, root))


def write_report(folder: Path, path: Path, format: str = "html", root: Path | None = None) -> None:
    """Write the report of a run folder; the file is replaced atomically.

    Args:
        folder: see `render_report`, as the format and the root.
        path: the file to write.
        format: what it is written in.
        root: read-only mirror of raw data files.

    Raises:
        ParameterError: if the file cannot be written, or for what `render_report` raises.
        DataError: for what `render_report` raises.

    Example:
        >>> write_report(Path("run"), Path("run.pdf"), "pdf")
        Traceback (most recent call last):
        gnndrop.errors.ParameterError: the format must be one of html, md, latex, csv, got 'pdf'
    """
    text = render_report(folder, format, root)
    try:
        replace_text(path, text)
    except OSError as error:
        raise ParameterError(
            f"the report must be writable, got {error.strerror!r} at {path}; give another --out"
        ) from error
