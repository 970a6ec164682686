"""The bundles that a device has, within a limit; who was not used for longest goes first.

<folder>/<sha256>/model.edgec      and what belongs beside it; nobody but the agent writes here
<folder>/<sha256>/built/           where `finish` keeps its engines; the jobs' user writes here
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from edgec.errors import InputError, ToolchainError
from edgec.farm.store import BLOCK, PARTIAL, Store, blob
from edgec.farm.types import Blob
from edgec.runtime.built import FOLDER

TRIES = 5  # of a transfer that breaks, before another device has to try
PAUSE = 0.5  # seconds before the second one, and twice as long before each of the next


class Cache:
    """Used by one process at a time."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        folder.mkdir(parents=True, exist_ok=True)

    def folder(self, what: Blob, user: tuple[int, int] | None) -> Path:
        """The folder of a bundle, with a place for what it builds; now the one used last."""
        place = self._folder / what.sha256
        built = place / FOLDER
        built.mkdir(parents=True, exist_ok=True)
        if user is not None:
            os.chown(built, *user)
        os.utime(place)
        return place

    def fetch(self, what: Blob, path: Path, store: Store) -> Path:
        """A file with exactly this content at `path`; what is there already is checked again.

        InputError: the store holds something else. OSError: the line broke, time after time.
        """
        if path.is_file() and blob(path).sha256 == what.sha256:
            return path
        self._make_room(what.size, path.parent)
        partial = path.with_name(path.name + PARTIAL)
        for number in range(TRIES):
            try:
                self._load(what, partial, store)
                break
            except OSError:
                if number == TRIES - 1:
                    raise
                time.sleep(PAUSE * 2**number)
        found = blob(partial)
        if found.sha256 != what.sha256:
            partial.unlink()
            raise InputError(
                f"{what.name} was changed on its way or in the store {store.url}: its sha256 is "
                f"{found.sha256}, not {what.sha256}",
                hint="remove it from the store and submit it again",
            )
        partial.chmod(0o644)
        partial.replace(path)
        return path

    def _load(self, what: Blob, partial: Path, store: Store) -> None:
        with partial.open("ab") as stream:
            if stream.tell() > what.size:
                stream.truncate(0)
            while (place := stream.tell()) < what.size:
                data = store.read(what, place, min(place + BLOCK, what.size))
                if not data:
                    break  # shorter than it should be: its hash will say so
                stream.write(data)
                stream.flush()
            os.fsync(stream.fileno())

    def _make_room(self, size: int, keep: Path) -> None:
        if size > self._limit:
            raise ToolchainError(
                f"a file of {size / 1e6:.0f} MB is more than this device keeps, "
                f"{self._limit / 1e6:.0f} MB",
                hint="start its farm join with a larger --cache",
            )
        others = [place for place in self._folder.iterdir() if place != keep and place.is_dir()]
        others.sort(key=lambda place: place.stat().st_mtime)
        used = sum(map(_size, [*others, keep]))
        for place in others:
            if used + size <= self._limit:
                return
            used -= _size(place)
            shutil.rmtree(place)


def _size(place: Path) -> int:
    return sum(path.lstat().st_size for path in place.rglob("*") if path.is_file())
