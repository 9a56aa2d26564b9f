"""Raw files: found in a mirror, in the cache or downloaded; trusted by their SHA-256 alone.

The few whose published sum is not known are marked so in the manifest; they are only ever read by
parsers that run no code.
"""

import csv
import functools
import hashlib
import importlib.resources
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from gnndrop.errors import DataError

TIMEOUT = 10.0  # seconds without an answer before a connection is given up


@dataclass(frozen=True)
class RawFile:
    """A file as its upstream repository published it.

    Args:
        path: its place below a mirror, the cache and our private folder alike.
        size: in bytes; `None` where it is not known.
        sha256: in hexadecimal digits; `None` where it is not known.
        url: where it is downloaded from, at a pinned commit.
    """

    path: str
    size: int | None
    sha256: str | None
    url: str


@dataclass(frozen=True)
class Found:
    """A raw file that was found and copied.

    Args:
        file: which one.
        source: where it was found, in the mirror or the cache.
        sha256: of the copy, in hexadecimal digits.
    """

    file: RawFile
    source: Path
    sha256: str


class _WrongSumError(DataError):
    """A file that is not the published one."""


@functools.cache
def manifest() -> Mapping[str, RawFile]:
    """Return every known raw file by its path.

    Example:
        >>> manifest()["Planetoid/Cora/raw/ind.cora.x"].size
        22119
    """
    table = importlib.resources.files("gnndrop.datasets") / "manifest.tsv"
    rows = csv.DictReader(table.read_text(encoding="utf-8").splitlines(), delimiter="\t")
    return {
        row["file"]: RawFile(
            row["file"],
            int(row["bytes"]) if row["bytes"] else None,
            row["sha256"] or None,
            "https://raw.githubusercontent.com/"
            f"{row['upstream_repo']}/{row['upstream_commit']}/{row['upstream_path']}",
        )
        for row in rows
    }


def cache_folder() -> Path:
    """Return the folder for what we download and parse: `GNNDROP_CACHE`, else the user's."""
    return Path(os.environ.get("GNNDROP_CACHE") or pooch.os_cache("gnndrop")).expanduser()


def are_here(paths: Sequence[str]) -> bool:
    """Return whether all these files lie in `GNNDROP_DATA` or in the cache, unverified.

    Args:
        paths: the files, by their path in the manifest.
    """
    mirror = os.environ.get("GNNDROP_DATA")
    places = [Path(mirror).expanduser()] if mirror else []
    places.append(cache_folder())
    return all(any((place / path).is_file() for place in places) for path in paths)


def size_of(paths: Sequence[str]) -> int | None:
    """Return the bytes of all these files together; `None` where one's size is not known.

    Args:
        paths: the files, by their path in the manifest.
    """
    total = 0
    for path in paths:
        size = manifest()[path].size
        if size is None:
            return None
        total += size
    return total


def collect(paths: Sequence[str], root: str | Path | None, folder: Path) -> list[Found]:
    """Put verified copies of raw files below `folder`, which must be private to this process.

    A file is taken from the mirror, else from the cache, else downloaded into the cache. What is
    checked is the copy, so the bytes that are parsed later are the bytes that were checked.

    Args:
        paths: the files wanted, by their path in the manifest.
        root: the mirror; `None` stands for the environment variable `GNNDROP_DATA`, if set.
        folder: where to put them.

    Returns:
        What was found, in the order of `paths`.

    Raises:
        DataError: if the mirror does not exist, one of its files is not the published one, or a
            file is nowhere to be had.
    """
    mirror, cache = _mirror(root, needed=bool(paths)), cache_folder()
    files = [manifest()[path] for path in paths]
    found = {file: _copy(file, mirror, folder) if mirror else None for file in files}
    for file in files:
        # The cache is ours: what was damaged there is downloaded anew.
        with suppress(_WrongSumError):
            found[file] = found[file] or _copy(file, cache, folder)
    missing = [file for file in files if found[file] is None]
    if missing:
        _download(missing, cache, mirror)
        found |= {file: _copy(file, cache, folder) for file in missing}
    return [one for one in found.values() if one is not None]


def _mirror(root: str | Path | None, needed: bool) -> Path | None:
    source = "root" if root is not None else "GNNDROP_DATA"
    place = root if root is not None else (needed and os.environ.get("GNNDROP_DATA")) or None
    if place is None:
        return None
    mirror = Path(place).expanduser().absolute()
    if not mirror.is_dir():
        raise DataError(f"the data folder ({source}) must be an existing folder, got {mirror}")
    return mirror


def _copy(file: RawFile, place: Path, folder: Path) -> Found | None:
    source, target = place / file.path, folder / file.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, shutil.SpecialFileError) as error:
        raise DataError(
            f"{source} could not be copied to {target.parent}: {error}; see that the one can be "
            "read and the other has room (TMPDIR says where it is)"
        ) from error
    with target.open("rb") as copy:
        digest = hashlib.file_digest(copy, "sha256").hexdigest()
    if file.sha256 and digest != file.sha256:
        size = target.stat().st_size
        target.unlink()
        raise _WrongSumError(
            f"{source} must have {file.size} bytes with SHA-256 {file.sha256}, got {size} bytes "
            f"with {digest}, so it was not opened; restore it from {file.url}"
        )
    return Found(file, source, digest)


def _download(files: Sequence[RawFile], cache: Path, mirror: Path | None) -> None:
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)
    try:
        _reach(files[0].url)
        for file in files:
            target = cache / file.path
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}" if file.sha256 else None,
                path=target.parent,
                fname=target.name,
                downloader=downloader,
            )
    except (OSError, ValueError) as error:  # no network, no such page, not writable; a wrong sum
        folders, names = zip(*(file.path.rsplit("/", 1) for file in files), strict=True)
        places = [str(place / folder) for place in (mirror, cache) if place for folder in folders]
        sources = [file.url.rpartition("/")[0] for file in files]
        raise DataError(
            f"{', '.join(names)} must be in {_either(places)}, but are missing, and the download "
            f"from {_either(sources)} failed ({type(error).__name__}: {error}); put them there, or "
            "see to the network and to room on the disk"
        ) from error


def _either(words: list[str]) -> str:
    return " or ".join(dict.fromkeys(words))


def _reach(url: str) -> None:
    """Fail within `TIMEOUT` seconds where there is no network.

    The timeout of a connection counts anew for each of a host's addresses and leaves out the
    look-up of its name, so the first request is made in a thread that can be left behind.
    """
    failures: list[Exception] = []

    def ask() -> None:
        try:
            requests.head(url, timeout=TIMEOUT)
        except requests.RequestException as error:
            failures.append(error)

    request = threading.Thread(target=ask, daemon=True)
    request.start()
    request.join(TIMEOUT)
    if request.is_alive():
        raise TimeoutError(f"no answer within {TIMEOUT:g} seconds")
    if failures:
        # The message of requests is long, and stays in the chain of causes.
        raise ConnectionError(f"no connection to {urlsplit(url).netloc}") from failures[0]
