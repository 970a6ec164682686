"""Where bundles wait for devices: files named by their sha256, in whatever fsspec reaches.

`farm:` is the scheduler itself, over the connection that is there already; a path, `http://`,
`s3://` or `ssh://` is read by each device directly. A name is a hash, so nothing is ever replaced,
and whoever reads can tell whether the content is what was sent.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from edgec.errors import EdgecError, InputError, ToolchainError
from edgec.farm.types import Blob

THROUGH = "farm:"  # the store that the scheduler keeps
BLOCK = 4 << 20
PARTIAL = ".partial"
Call = Callable[..., Any]  # a call to the scheduler that waits for the answer


def blob(path: Path) -> Blob:
    """A local file by its content. InputError: there is none."""
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        return Blob(found, path.stat().st_size, path.name)
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}", hint="give a file; a bundle as its .edgec file"
        ) from error


class Store:
    """Files by content, behind a URL. `call`: for `farm:`, see `Call`."""

    def __init__(self, url: str, call: Call | None = None) -> None:
        self.url = url
        if url == THROUGH:
            if call is None:
                raise InputError(f"{url} is the scheduler's own", hint="give a path or a URL")
            self._fs, self._root = SchedulerFiles(call), ""
            return
        try:
            self._fs, root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ToolchainError(
                f"the store {url} cannot be reached: {error}",
                hint="pip install fsspec[http], fsspec[s3] or fsspec[ssh], whichever it needs",
            ) from error
        self._root = root.rstrip("/") + "/"

    def has(self, what: Blob) -> bool:
        """Whether a file of this name and size is there."""
        try:
            with self._line():
                return bool(self._fs.info(self._place(what))["size"] == what.size)
        except OSError:  # not there, or not to be reached: who brings it will be told
            return False

    def put(self, path: Path, what: Blob) -> None:
        """Bring a file. InputError: nobody may write there."""
        place = self._place(what)
        try:
            with self._line():
                if self.url == THROUGH:
                    self._fs.put_file(str(path), place)
                    return
                partial = f"{place}.{uuid4().hex}{PARTIAL}"
                self._fs.makedirs(self._root, exist_ok=True)
                self._fs.put_file(str(path), partial)
                self._fs.mv(partial, place)
        except OSError as error:
            raise InputError(
                f"{what.name} cannot be put into the store {self.url}: {error}",
                hint=f"put it there yourself, as {what.sha256}",
            ) from error

    def read(self, what: Blob, start: int, end: int) -> bytes:
        """Some bytes of a file. OSError: broken line, or no such file."""
        with self._line():
            found: bytes = self._fs.cat_file(self._place(what), start=start, end=end)
            return found

    @contextlib.contextmanager
    def _line(self) -> Iterator[None]:
        """Each protocol's library has errors of its own; all of them mean a broken line."""
        try:
            yield
        except (OSError, EdgecError):
            raise
        except Exception as error:
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _place(self, what: Blob) -> str:
        return self._root + what.sha256


class SchedulerFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The scheduler's store as a file system of fsspec; see `Shelf` for the other end."""

    protocol = "farm"
    cachable = False

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Size of a file that is complete."""
        size = self._call("blob_size", sha256=path)["size"]
        if size is None:
            raise FileNotFoundError(path)
        return {"name": path, "size": size, "type": "file"}

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """Bytes of a file."""
        found: bytes = self._call("blob_read", sha256=path, start=start or 0, end=end)
        return found

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        """Send a file, from where an earlier try ended."""
        size = Path(lpath).stat().st_size
        place = self._call("blob_size", sha256=rpath)["partial"]
        with open(lpath, "rb") as stream:
            while True:
                stream.seek(place)
                data = stream.read(BLOCK)
                place = self._call("blob_write", sha256=rpath, start=place, data=data, size=size)
                if place >= size:
                    return


class Shelf:
    """A folder of files by content; the scheduler's side of `farm:`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def size(self, sha256: str) -> dict[str, int | None]:
        """Bytes of the complete file, or None; and bytes of what came so far."""
        path = self._path(sha256)
        partial = path.with_name(path.name + PARTIAL)
        return {
            "size": path.stat().st_size if path.exists() else None,
            "partial": partial.stat().st_size if partial.exists() else 0,
        }

    def read(self, sha256: str, start: int, end: int | None) -> bytes:
        """At most a block from a place on."""
        path = self._path(sha256)
        if not path.exists():
            raise InputError(f"the store has no {sha256}", hint="submit the bundle again")
        most = start + BLOCK if end is None else min(end, start + BLOCK)
        with path.open("rb") as stream:
            stream.seek(start)
            return stream.read(max(most - start, 0))

    def write(self, sha256: str, start: int, data: bytes, size: int) -> int:
        """Add a block; the place from which more is wanted. The last one is the moment of truth.

        InputError: the content is not what the name says; it is thrown away.
        """
        path = self._path(sha256)
        if path.exists():
            return size
        partial = path.with_name(path.name + PARTIAL)
        with partial.open("ab") as stream:
            place = stream.tell()
            if start != place:  # somebody else sends the same file, or a block came twice
                return place
            stream.write(data)
            place += len(data)
        if place < size:
            return place
        if blob(partial).sha256 != sha256:
            partial.unlink()
            raise InputError(
                f"what arrived is not {sha256}", hint="the file changed meanwhile: submit it again"
            )
        partial.replace(path)
        return place

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise InputError(f"{sha256[:80]!r} is no sha256", hint="files are named by content")
        return self._folder / sha256
