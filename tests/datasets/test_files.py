"""Only verified bytes are parsed, whatever a mirror, a cache or a server holds."""

import dataclasses
import errno
import functools
import hashlib
import http.server
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from gnndrop.datasets import DATASETS, _files, load
from gnndrop.datasets._files import RawFile, collect
from gnndrop.errors import DataError

CORA = DATASETS.make("cora").files
CONTENT = {"toy/raw/one.txt": b"the first file", "toy/raw/two.txt": b"the second"}


@pytest.fixture(autouse=True)
def no_mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let each test start from an empty cache, and from a mirror only where it gives one."""
    monkeypatch.delenv("GNNDROP_DATA", raising=False)
    monkeypatch.setenv("GNNDROP_CACHE", str(tmp_path / "cache"))


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine and notes what it was asked for."""

    asked: list[str]
    halves = False  # whether files are sent by half only, and then nothing until `released`
    half_sent: threading.Event
    released: threading.Event


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(self.command)

    def do_GET(self) -> None:
        if not self.server.halves:
            super().do_GET()
            return
        content = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.server.half_sent.set()
        self.server.released.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "upstream").mkdir()
    handler = functools.partial(Handler, directory=str(tmp_path / "upstream"))
    with Server(("127.0.0.1", 0), handler) as server:
        server.asked = []
        server.half_sent, server.released = threading.Event(), threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def toy(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Make two small files known to the manifest, published on the local server."""
    address = f"http://127.0.0.1:{server.server_port}"
    files = {
        path: RawFile(path, len(data), hashlib.sha256(data).hexdigest(), f"{address}/{path}")
        for path, data in CONTENT.items()
    }
    monkeypatch.setattr(_files, "manifest", lambda: files)
    write(tmp_path / "upstream")
    return server


def write(place: Path, **changed: bytes) -> None:
    for path, data in CONTENT.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(changed.get(Path(path).stem, data))


def contents(place: Path) -> dict[str, bytes]:
    return {path: (place / path).read_bytes() for path in CONTENT}


def listing(place: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(place)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in [place, *place.rglob("*")]
    }


def forget_sums(summed: bool) -> None:
    """Make the files' sums and sizes unknown, where a test asks for that."""
    files = _files.manifest()
    assert isinstance(files, dict)
    for path, file in files.items():
        if not summed:
            files[path] = dataclasses.replace(file, size=None, sha256=None)


# Where files come from


def test_a_mirror_comes_first_and_needs_no_network(toy: Server, tmp_path: Path) -> None:
    write(tmp_path / "mirror")
    before = listing(tmp_path / "mirror")
    collect(list(CONTENT), tmp_path / "mirror", tmp_path / "private")
    assert contents(tmp_path / "private") == CONTENT
    assert listing(tmp_path / "mirror") == before
    assert not toy.asked
    assert not (tmp_path / "cache").exists()


def test_what_a_mirror_lacks_is_downloaded_into_the_cache_once(
    toy: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mirror").mkdir()
    collect(list(CONTENT), tmp_path / "mirror", tmp_path / "first")
    assert contents(tmp_path / "first") == contents(tmp_path / "cache") == CONTENT
    assert not list((tmp_path / "mirror").iterdir())
    assert toy.asked == ["HEAD", "GET", "GET"]
    collect(list(CONTENT), None, tmp_path / "second")
    assert contents(tmp_path / "second") == CONTENT
    assert toy.asked == ["HEAD", "GET", "GET"]
    assert capsys.readouterr().out == "", "progress belongs to stderr"


def test_gnndrop_data_is_a_mirror(
    toy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "mirror")
    monkeypatch.setenv("GNNDROP_DATA", str(tmp_path / "mirror"))
    collect(list(CONTENT), None, tmp_path / "private")
    assert contents(tmp_path / "private") == CONTENT
    assert not toy.asked


def test_a_damaged_cache_is_mended(toy: Server, tmp_path: Path) -> None:
    write(tmp_path / "cache", two=b"the sec")
    collect(list(CONTENT), None, tmp_path / "private")
    assert contents(tmp_path / "private") == contents(tmp_path / "cache") == CONTENT
    assert toy.asked == ["HEAD", "GET"]


@pytest.mark.parametrize("summed", [True, False])
def test_half_a_download_is_not_kept(summed: bool, toy: Server, tmp_path: Path) -> None:
    forget_sums(summed)
    toy.halves = True
    toy.released.set()  # the connection ends after the half
    with pytest.raises(DataError, match="failed"):
        collect(list(CONTENT), None, tmp_path / "private")
    assert not list((tmp_path / "cache/toy/raw").iterdir())
    toy.halves = False
    collect(list(CONTENT), None, tmp_path / "private")
    assert contents(tmp_path / "private") == CONTENT


@pytest.mark.parametrize("summed", [True, False])
def test_a_killed_download_is_taken_up_by_the_next(
    summed: bool, toy: Server, tmp_path: Path
) -> None:
    forget_sums(summed)
    toy.halves = True
    code = (
        "from pathlib import Path; from gnndrop.datasets import _files; import sys\n"
        f"RawFile = _files.RawFile; files = {dict(_files.manifest())!r}\n"
        "_files.manifest = lambda: files\n"
        "_files.collect(list(files), None, Path(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "first")], stderr=subprocess.DEVNULL
    )
    assert toy.half_sent.wait(60)
    process.kill()
    process.wait()
    toy.halves = False
    collect(list(CONTENT), None, tmp_path / "second")
    assert contents(tmp_path / "second") == contents(tmp_path / "cache") == CONTENT


def test_what_a_stopped_fetch_had_is_not_fetched_again(toy: Server, tmp_path: Path) -> None:
    (tmp_path / "upstream/toy/raw/two.txt").unlink()
    with pytest.raises(DataError, match="404"):
        collect(list(CONTENT), None, tmp_path / "first")
    write(tmp_path / "upstream")
    toy.asked.clear()
    collect(list(CONTENT), None, tmp_path / "second")
    assert toy.asked == ["HEAD", "GET"]


def test_what_was_checked_is_a_copy(toy: Server, tmp_path: Path) -> None:
    write(tmp_path / "mirror")
    collect(list(CONTENT), tmp_path / "mirror", tmp_path / "private")
    write(tmp_path / "mirror", one=b"swapped after the check", two=b"")
    assert contents(tmp_path / "private") == CONTENT


# What is refused


@pytest.mark.parametrize("damaged", [b"", b"the first", b"the first filf", b"the first file."])
def test_a_corrupt_mirror_is_an_error_and_no_reason_to_download(
    damaged: bytes, toy: Server, tmp_path: Path
) -> None:
    write(tmp_path / "mirror", one=damaged)
    with pytest.raises(DataError, match=r"one\.txt must have 14 bytes with SHA-256") as caught:
        collect(list(CONTENT), tmp_path / "mirror", tmp_path / "private")
    assert f"got {len(damaged)} bytes" in str(caught.value)
    assert not toy.asked
    assert not (tmp_path / "private/toy/raw/one.txt").exists(), "a refused copy was left"


def test_swapped_files_are_refused(toy: Server, tmp_path: Path) -> None:
    write(tmp_path / "mirror", one=CONTENT["toy/raw/two.txt"], two=CONTENT["toy/raw/one.txt"])
    with pytest.raises(DataError, match=r"one\.txt must have"):
        collect(list(CONTENT), tmp_path / "mirror", tmp_path / "private")


def test_a_folder_in_a_files_place_is_refused(toy: Server, tmp_path: Path) -> None:
    (tmp_path / "mirror/toy/raw/one.txt").mkdir(parents=True)
    with pytest.raises(DataError, match="could not be copied"):
        collect(list(CONTENT), tmp_path / "mirror", tmp_path / "private")


def test_a_wrong_download_is_not_kept(toy: Server, tmp_path: Path) -> None:
    write(tmp_path / "upstream", two=b"an error page")
    with pytest.raises(DataError, match=r"two\.txt must be in .* failed \(ValueError"):
        collect(list(CONTENT), None, tmp_path / "private")
    assert [path.name for path in (tmp_path / "cache/toy/raw").iterdir()] == ["one.txt"]


def test_a_page_that_is_gone_is_a_data_error(toy: Server, tmp_path: Path) -> None:
    (tmp_path / "upstream/toy/raw/one.txt").unlink()
    with pytest.raises(DataError, match="404"):
        collect(list(CONTENT), None, tmp_path / "private")


def test_a_cache_that_cannot_be_written_is_a_data_error(toy: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file in the folder's place")
    with pytest.raises(DataError, match="failed"):
        collect(list(CONTENT), None, tmp_path / "private")


def test_a_full_disk_is_told(toy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_files.pooch, "retrieve", full)
        with pytest.raises(DataError, match=r"cache.*No space left .* room on the disk"):
            collect(list(CONTENT), None, tmp_path / "private")
    collect(list(CONTENT), None, tmp_path / "private")
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(DataError, match=r"one\.txt could not be copied .* has room \(TMPDIR"):
        collect(list(CONTENT), None, tmp_path / "private")


def test_an_unanswered_request_is_given_up(
    toy: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(requests, "head", lambda *_, **__: never.wait())
    monkeypatch.setattr(_files, "TIMEOUT", 0.05)
    with pytest.raises(DataError, match=r"TimeoutError: no answer within 0\.05 seconds"):
        collect(list(CONTENT), None, tmp_path / "private")
    never.set()


def test_connections_are_given_ten_seconds() -> None:
    assert _files.TIMEOUT == 10


# The same through `load`


@pytest.mark.parametrize("by", ["root", "environment"])
@pytest.mark.parametrize("place", ["nowhere", "a-file"])
def test_a_data_folder_that_does_not_exist_is_an_error_at_once(
    by: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").touch()
    if by == "environment":
        monkeypatch.setenv("GNNDROP_DATA", str(tmp_path / place))
    monkeypatch.setattr(_files, "_download", lambda *_: pytest.fail("tried to download"))
    root = tmp_path / place if by == "root" else None
    with pytest.raises(DataError, match=f"^cora: .*must be an existing folder, got {tmp_path}"):
        load("cora", root)


def test_a_wrong_root_is_an_error_for_offline_graphs_too(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="existing folder"):
        load("karate", tmp_path / "nowhere")


def test_a_stale_environment_does_not_close_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNNDROP_DATA", str(tmp_path / "nowhere"))
    assert load("karate").data.num_nodes == 34


@pytest.mark.parametrize("spec", ["cora", "cora:split=geom-gcn", "texas", "chameleon-filtered"])
def test_without_network_the_error_says_all_that_helps(spec: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(spec, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{spec}: ")
    for path in DATASETS.make(spec).files:
        assert Path(path).name in message
        assert str(tmp_path / Path(path).parent) in message
        assert str(tmp_path / "cache" / Path(path).parent) in message
        assert _files.manifest()[path].url.rpartition("/")[0] in message
    assert "csbm-homophilous" in message
    assert "\n" not in message


class Hostile:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


def test_a_hostile_pickle_is_never_opened(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hostile = pickle.dumps(Hostile(mark))
    pickle.loads(hostile)
    assert mark.exists(), "the trap itself must work"
    mark.unlink()
    (tmp_path / "mirror/Planetoid/Cora/raw").mkdir(parents=True)
    for path in CORA:
        (tmp_path / "mirror" / path).write_bytes(hostile)
    with pytest.raises(DataError, match=r"ind\.cora\.x must have 22119 bytes"):
        load("cora", tmp_path / "mirror")
    assert not mark.exists()


@pytest.fixture
def cora_mirror(root_with: Callable[[str], Path], tmp_path: Path) -> Path:
    """Copy Cora's real files to a mirror that a test may damage."""
    mirror = tmp_path / "mirror"
    for path in CORA:
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root_with("cora") / path, mirror / path)
    return mirror


@pytest.mark.parametrize("victim", [path.rpartition(".")[2] for path in CORA])
def test_each_real_file_is_checked(victim: str, cora_mirror: Path, tmp_path: Path) -> None:
    path = next(path for path in CORA if path.endswith(f".{victim}"))
    mark = tmp_path / "mark"
    (cora_mirror / path).write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(DataError, match=f"{Path(path).name} must have"):
        load("cora", cora_mirror)
    assert not mark.exists()


def test_a_missing_real_file_is_named(cora_mirror: Path) -> None:
    (cora_mirror / CORA[3]).unlink()
    with pytest.raises(DataError, match=r"^cora: ind\.cora\.y must be in"):
        load("cora", cora_mirror)


def test_a_mirror_is_never_written_to(cora_mirror: Path) -> None:
    before = listing(cora_mirror)
    cora_mirror.chmod(0o500)
    load("cora", cora_mirror)
    cora_mirror.chmod(0o700)
    assert listing(cora_mirror) == before
