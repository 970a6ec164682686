"""Bundles by content: out comes what was put in, or nothing; within a limit, and after breaks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgec.errors import InputError, ToolchainError
from edgec.farm import store as module
from edgec.farm.cache import TRIES, Cache
from edgec.farm.store import Shelf, Store, blob
from edgec.farm.types import Blob


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 1000)
    monkeypatch.setattr("edgec.farm.cache.BLOCK", 1000)
    monkeypatch.setattr("edgec.farm.cache.PAUSE", 0.01)


def file(path: Path, size: int = 3500) -> tuple[Path, Blob]:
    path.write_bytes(os.urandom(size))
    return path, blob(path)


class Web(BaseHTTPRequestHandler):
    """Ranges of the files of a folder; each answer may break off."""

    def __init__(self, folder: Path, breaks: list[int], asked: list[str], *rest: object) -> None:
        self.folder, self.breaks, self.asked = folder, breaks, asked
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.folder / self.path.strip("/")
        if not path.exists():
            return self.send_error(404)
        data = path.read_bytes()
        wanted = self.headers.get("Range", "")
        self.asked.append(wanted)
        low, _, high = wanted.removeprefix("bytes=").partition("-")
        part = data[int(low) : int(high) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {low}-{high}/{len(data)}")
        self.end_headers()
        if self.breaks and len(self.asked) in self.breaks:
            self.wfile.write(part[: len(part) // 2])
            self.close_connection = True
            return None
        self.wfile.write(part)
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[int], list[str]]]:
    """A server of `tmp_path`/web; at which requests it breaks off; what was asked."""
    (tmp_path / "web").mkdir()
    breaks: list[int] = []
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, tmp_path / "web", breaks, asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", breaks, asked
    server.shutdown()


def test_a_folder_is_a_store(tmp_path: Path) -> None:
    path, what = file(tmp_path / "a.edgec")
    store = Store(str(tmp_path / "store"))
    assert not store.has(what)
    store.put(path, what)
    assert store.has(what)
    assert [one.name for one in (tmp_path / "store").iterdir()] == [what.sha256]
    cache = Cache(tmp_path / "cache", 10**6)
    got = cache.fetch(what, cache.folder(what, None) / "model.edgec", store)
    assert got.read_bytes() == path.read_bytes()


def test_a_broken_transfer_goes_on_where_it_was(
    tmp_path: Path, web: tuple[str, list[int], list[str]]
) -> None:
    url, breaks, asked = web
    path, what = file(tmp_path / "a.edgec")
    (tmp_path / "web" / what.sha256).write_bytes(path.read_bytes())
    breaks.append(3)
    cache = Cache(tmp_path / "cache", 10**6)
    got = cache.fetch(what, cache.folder(what, None) / "model.edgec", Store(url))
    assert got.read_bytes() == path.read_bytes()
    assert asked == [f"bytes={n}-{min(n + 999, 3499)}" for n in (0, 1000, 2000, 2000, 3000)]


def test_a_transfer_that_always_breaks_is_given_up_and_kept(
    tmp_path: Path, web: tuple[str, list[int], list[str]]
) -> None:
    url, breaks, asked = web
    path, what = file(tmp_path / "a.edgec")
    (tmp_path / "web" / what.sha256).write_bytes(path.read_bytes())
    breaks.extend(range(2, 100))
    cache = Cache(tmp_path / "cache", 10**6)
    place = cache.folder(what, None) / "model.edgec"
    with pytest.raises(OSError):  # noqa: PT011 - whatever the library calls it
        cache.fetch(what, place, Store(url))
    assert len(asked) == 1 + TRIES
    breaks.clear()
    assert cache.fetch(what, place, Store(url)).read_bytes() == path.read_bytes()
    assert asked[1 + TRIES] == "bytes=1000-1999"


@pytest.mark.parametrize("change", [b"x", b"", b"longer" * 1000], ids=["other", "empty", "longer"])
def test_what_the_store_holds_is_not_believed(tmp_path: Path, change: bytes) -> None:
    path, what = file(tmp_path / "a.edgec")
    store = Store(str(tmp_path / "store"))
    store.put(path, what)
    (tmp_path / "store" / what.sha256).write_bytes(change)
    cache = Cache(tmp_path / "cache", 10**6)
    with pytest.raises(InputError, match=r"a\.edgec was changed on its way or in the store"):
        cache.fetch(what, cache.folder(what, None) / "model.edgec", store)
    assert list((tmp_path / "cache" / what.sha256).glob("model*")) == []


def test_what_the_device_has_is_not_believed_either(tmp_path: Path) -> None:
    path, what = file(tmp_path / "a.edgec")
    store = Store(str(tmp_path / "store"))
    store.put(path, what)
    cache = Cache(tmp_path / "cache", 10**6)
    place = cache.folder(what, None) / "model.edgec"
    cache.fetch(what, place, store)
    place.chmod(0o644)
    place.write_bytes(b"changed")
    assert cache.fetch(what, place, store).read_bytes() == path.read_bytes()


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    cache = Cache(tmp_path / "cache", 10_000)
    made = [file(tmp_path / name) for name in "abc"]
    for number, (path, what) in enumerate(made):
        store.put(path, what)
        if number < 2:
            cache.fetch(what, cache.folder(what, None) / "model.edgec", store)
            os.utime(tmp_path / "cache" / what.sha256, (number, number))
    cache.folder(made[0][1], None)  # used again
    cache.fetch(made[2][1], cache.folder(made[2][1], None) / "model.edgec", store)
    kept = {one.name for one in (tmp_path / "cache").iterdir()}
    assert kept == {made[0][1].sha256, made[2][1].sha256}


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    path, what = file(tmp_path / "a.edgec")
    store = Store(str(tmp_path / "store"))
    store.put(path, what)
    cache = Cache(tmp_path / "cache", 3000)
    with pytest.raises(ToolchainError, match="more than this device keeps"):
        cache.fetch(what, cache.folder(what, None) / "model.edgec", store)


def test_a_store_that_cannot_be_written_says_what_to_do(
    tmp_path: Path, web: tuple[str, list[int], list[str]]
) -> None:
    path, what = file(tmp_path / "a.edgec")
    assert not Store(web[0]).has(what)
    with pytest.raises(InputError, match="cannot be put into the store") as found:
        Store(web[0]).put(path, what)
    assert what.sha256 in found.value.hint


def test_a_store_of_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="nonsense"):
        Store("nonsense://somewhere")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


def through(shelf: Shelf) -> Store:
    """The store `farm:`, without the line between."""
    calls = {"blob_size": shelf.size, "blob_read": shelf.read, "blob_write": shelf.write}
    return Store("farm:", lambda what, **arguments: calls[what](**arguments))


def test_the_schedulers_own_store(tmp_path: Path, shelf: Shelf) -> None:
    path, what = file(tmp_path / "a.edgec")
    store = through(shelf)
    assert not store.has(what)
    store.put(path, what)
    assert store.has(what)
    cache = Cache(tmp_path / "cache", 10**6)
    got = cache.fetch(what, cache.folder(what, None) / "model.edgec", store)
    assert got.read_bytes() == path.read_bytes()


def test_an_upload_goes_on_where_it_was(tmp_path: Path, shelf: Shelf) -> None:
    path, what = file(tmp_path / "a.edgec")
    data = path.read_bytes()
    assert shelf.write(what.sha256, 0, data[:1000], len(data)) == 1000
    assert shelf.write(what.sha256, 0, data[:1000], len(data)) == 1000, "the block came twice"
    assert shelf.size(what.sha256) == {"size": None, "partial": 1000}
    through(shelf).put(path, what)
    assert shelf.size(what.sha256)["size"] == len(data)


def test_an_upload_of_something_else_is_refused(tmp_path: Path, shelf: Shelf) -> None:
    _, what = file(tmp_path / "a.edgec")
    with pytest.raises(InputError, match="what arrived is not"):
        shelf.write(what.sha256, 0, b"something", 9)
    assert shelf.size(what.sha256) == {"size": None, "partial": 0}


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63 + "/"])
def test_only_hashes_are_names(shelf: Shelf, name: str) -> None:
    with pytest.raises(InputError, match="no sha256"):
        shelf.read(name, 0, None)
    with pytest.raises(InputError, match="no sha256"):
        shelf.write(name, 0, b"x", 1)
