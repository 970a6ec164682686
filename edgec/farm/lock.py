"""Locks in files, which end with who holds them.

`alone`: one job at a time on a device, whoever started it; the job itself holds it too.
`only_one`: one agent for each device, one scheduler for each ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from edgec.errors import InputError

EACH = 0.05  # seconds between two tries


def default_lock() -> Path:
    """The lock of this machine: the same for every agent and every user."""
    run = Path("/run/lock")
    place = run if os.access(run, os.W_OK) else Path(tempfile.gettempdir())
    return place / "edgec-device.lock"


@contextlib.asynccontextmanager
async def alone(path: Path) -> AsyncIterator[int]:
    """Hold the device. The file descriptor is for the job: as long as one of both lives, no other
    begins."""
    handle = _open(path)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(EACH)
        yield handle
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW  # reading is enough for flock
    try:
        return os.open(path, flags)
    except FileNotFoundError:  # O_CREAT on another user's file in /tmp may be forbidden
        return os.open(path, flags | os.O_CREAT, 0o644)


@contextlib.contextmanager
def only_one(path: Path, what: str) -> Iterator[None]:
    """Hold a file's lock. InputError: another process does; it may be frozen."""
    with path.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InputError(
                f"another {what}, process {lock.read().strip()}, uses {path.parent}",
                hint="end it, or give another --folder",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
