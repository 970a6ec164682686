"""A job in a process of its own: another user, a folder of its own, a time limit, its own Python.

util-linux's setpriv drops the user, forbids new privileges (no_new_privs) and lets the kernel end
the job with the agent (PR_SET_PDEATHSIG). The job inherits the device's lock: were it to outlive
the agent, the next agent would wait for it. What a job leaves running is ended with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import InputError, ToolchainError

LOG, RESULT = "log", "result.json"
MOST_RESULT, MOST_LOG = 16 << 20, 4000  # bytes that are read
GRACE = 2.0  # seconds from asking a job to end to ending it
_VERSIONS = """
import importlib.metadata, json, os, platform, sys
def version(names):
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
import numpy
if not os.access(sys.executable, os.X_OK):  # setpriv could, with what was left of root's rights
    sys.exit("{} is out of its reach".format(sys.executable))
found = {name: version(names) for name, names in json.loads(sys.argv[1]).items()}
print(json.dumps({"python": platform.python_version(), "arch": platform.machine(),
    "packages": dict({n: v for n, v in found.items() if v}, numpy=numpy.__version__)}))
"""


@dataclass(frozen=True)
class Ended:
    """How the process of a job ended. `stopped`: by us, and why: "timeout", "cancelled" or ""."""

    code: int
    stopped: str
    log: str
    result: dict[str, Any]


class Sandbox:
    """How jobs run on this device. `user`: a name, or "" for the agent's own.

    ToolchainError: no setpriv, or the user cannot run this Python. InputError: root, or no user.
    """

    def __init__(self, python: str, folder: Path, user: str = "") -> None:
        self._python, self._folder = python, folder
        self.ids = _ids(user)
        if shutil.which("setpriv") is None:
            raise ToolchainError("jobs need setpriv", hint="apt install util-linux, 2.33 or newer")
        folder.mkdir(parents=True, exist_ok=True)

    def versions(self) -> dict[str, Any]:
        """What the jobs' Python is and has, asked as the jobs' user. ToolchainError: it cannot."""
        from edgec.machine import PACKAGES

        place = self.make("probe")
        try:
            line = [*self._before(), self._python, "-c", _VERSIONS, json.dumps(PACKAGES)]
            done = subprocess.run(
                line, cwd=place, env=self._environment(place), capture_output=True, timeout=300
            )
            found: dict[str, Any] = json.loads(done.stdout)
            return found
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            told = getattr(done, "stderr", b"") if "done" in locals() else b""
            why = told.decode("utf-8", "replace").strip().splitlines() or [str(error)]
            who = f"user {self.ids[0]}" if self.ids else "this user"
            raise ToolchainError(
                f"{self._python} with numpy does not run as {who} in {place}: {why[-1][:300]}",
                hint="give --python, --user or --folder so that it may read and run all of it",
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def make(self, name: str) -> Path:
        """A new empty folder that the jobs' user may write to, and nobody else may read."""
        place = self._folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        if self.ids is not None:
            os.chown(place, *self.ids)
        return place

    async def run(
        self,
        bundle: Path,
        words: Sequence[str],
        place: Path,
        *,
        seconds: float,
        cancel: asyncio.Event,
        lock: int,
    ) -> Ended:
        """Run `python bundle words… --json result.json` in `place`, and wait for its end."""
        line = [*self._before(), self._python, str(bundle), *words, "--json", str(place / RESULT)]
        with (place.parent / f"{place.name}.{LOG}").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *line,
                cwd=place,
                env=self._environment(place),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock],
            )
            try:
                stopped = await _wait(process, seconds, cancel)
            finally:
                _kill(process, signal.SIGKILL)
                code = await process.wait()
                await asyncio.to_thread(_sweep)
        path = Path(log.name)
        text = _tail(path)
        path.unlink()
        return Ended(code, stopped, text, _read(place / RESULT))

    def _before(self) -> list[str]:
        drop = []
        if self.ids is not None:
            drop = [f"--reuid={self.ids[0]}", f"--regid={self.ids[1]}", "--clear-groups"]
        return ["setpriv", *drop, "--no-new-privs", "--pdeathsig=KILL"]

    def _environment(self, place: Path) -> dict[str, str]:
        kept = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "LD_LIBRARY_PATH")
        given = {name: os.environ[name] for name in kept if name in os.environ}
        return {**given, "HOME": str(place), "TMPDIR": str(place), "PYTHONDONTWRITEBYTECODE": "1"}


async def _wait(process: asyncio.subprocess.Process, seconds: float, cancel: asyncio.Event) -> str:
    """Until the process has ended, or has to: an empty text, or why."""
    ended = asyncio.ensure_future(process.wait())
    stop = asyncio.ensure_future(cancel.wait())
    try:
        done, _ = await asyncio.wait(
            {ended, stop}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if ended in done:
            return ""
        _kill(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ended), GRACE)
        return "cancelled" if stop in done else "timeout"
    finally:
        stop.cancel()


def adopt() -> None:
    """Be the parent of whatever jobs leave behind (PR_SET_CHILD_SUBREAPER), to find it."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def _sweep() -> None:
    """End what a job has left running: the next one measures alone. The agent has no other
    children."""
    import psutil

    for _ in range(100):  # who is killed may have begun another one just before
        left = psutil.Process().children(recursive=True)
        if not left:
            return
        for one in left:
            with contextlib.suppress(psutil.Error):
                one.kill()
        psutil.wait_procs(left, timeout=1)


def _kill(process: asyncio.subprocess.Process, how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, how)


def _ids(user: str) -> tuple[int, int] | None:
    """User and group that jobs run as; None: those of the agent, which is nobody special."""
    if os.geteuid() != 0:
        if user and user != pwd.getpwuid(os.geteuid()).pw_name:
            raise InputError(f"only root can run jobs as {user}", hint="leave --user out")
        return None
    try:
        found = pwd.getpwnam(user or "nobody")
    except KeyError as error:
        raise InputError(
            f"there is no user {user or 'nobody'!r}",
            hint="adduser --system --group edgec-job, and --user edgec-job",
        ) from error
    if found.pw_uid == 0:
        raise InputError("jobs do not run as root", hint="give --user an unprivileged one")
    return found.pw_uid, found.pw_gid


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - MOST_LOG, 0))
        return stream.read().decode("utf-8", "replace").strip()


def _read(path: Path) -> dict[str, Any]:
    """The result, if it is a plain file with a JSON object of a sane size; the job's user wrote it,
    and may have put a link there."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return {}
    with os.fdopen(handle, "rb") as stream:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MOST_RESULT:
            return {}
        try:
            found = json.loads(stream.read(MOST_RESULT))
        except (ValueError, RecursionError):
            return {}
    return found if isinstance(found, dict) else {}
