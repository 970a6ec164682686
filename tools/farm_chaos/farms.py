"""A farm on one machine: a scheduler and devices as processes, to be killed, frozen and restarted.

The Python that devices give their jobs is a wrapper with a lock of its own: it tells of two jobs
that are alive at once on one device, whatever edgec believes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import site
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import edgec

NOBODY = 65534
ROOT = Path(edgec.__file__).parents[1]
EMULATE = ROOT / "tools" / "emulate"
WRAPPER = """#!/bin/sh
# {name}: begin TIME PID, and OVERLAP where another job of this device is alive
case "$1" in *.edgec)
    exec 9>>"{place}/held"
    flock --nonblock 9 || echo "OVERLAP $$" >>"{place}/told"
    echo "begin $(date +%s.%N) $$" >>"{place}/told"
esac
PYTHONPATH='{path}' exec {python} "$@"
"""


class Farm:
    """`devices`: the target of each, by name. `options`: of `farm up`, where FOLDER is
    this farm's. `unprivileged`: devices run
    as the user of their jobs, which may then end them."""

    def __init__(
        self,
        devices: Mapping[str, str],
        *,
        options: tuple[str, ...] = (),
        certs: Path | None = None,
        unprivileged: bool = False,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgec-farm-"))
        self.folder.chmod(0o755)  # jobs run as another user
        self.devices, self.certs = dict(devices), certs
        self._options = [word.replace("FOLDER", str(self.folder)) for word in options]
        self._unprivileged = unprivileged
        self.port = free_port()
        self.url = f"{'tls' if certs else 'tcp'}://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._emulated: dict[str, str] = {}
        self._python = {name: self._wrapper(name) for name in devices}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            for path in self.folder.glob("*.log"):
                print(f"--- {path.name}\n{self.log(path.stem)[-2000:]}", file=sys.stderr)
        for name in list(self.processes):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def emulate(self, name: str, core: str) -> None:
        """Let a device, and the jobs of it, run on an emulated ARM core."""
        self._emulated[name] = core
        self._python[name].write_text(f'#!/bin/sh\nexec "{EMULATE}" {core} "$@"\n')

    def up(self) -> None:
        """Start the scheduler, and wait until it listens."""
        line = ["up", "--no-device", "--port", str(self.port), "--folder", str(self.folder / "up")]
        self._start("scheduler", [*line, *self._certified("scheduler"), *self._options])
        until(lambda: _listens(self.port), "the scheduler listens")

    def up_with_device(self, name: str) -> None:
        """Start the scheduler with this machine as its device, as people do."""
        line = ["up", "--port", str(self.port), "--folder", str(self.folder / "up")]
        self._start("scheduler", [*line, "--python", str(self._python[name])])
        until(lambda: _listens(self.port), "the scheduler listens")

    def agents(self) -> list[str]:
        """The command lines of all processes that this farm's folder occurs in."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                line = path.read_bytes().decode("utf-8", "replace")
                found += [line] if str(self.folder) in line else []
        return found

    def join(self, name: str) -> None:
        """Start a device."""
        line = ["join", self.url, "--name", name, "--target", self.devices[name]]
        line += ["--folder", str(self.folder / name), "--lock", str(self.folder / f"{name}.lock")]
        line += ["--python", str(self._python[name])]
        self._start(name, [*line, *self._certified(name)])

    def all_up(self) -> None:
        """Start all of it, and wait until every device is there."""
        self.up()
        for name in self.devices:
            self.join(name)
        until(lambda: set(self.devices) <= self.here(), "every device has joined", 600)

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """End a process as a power cut would."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)
        process.wait(30)

    def freeze(self, name: str) -> None:
        """Stop a process where it is."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    def query(self, text: str, *values: Any) -> list[sqlite3.Row]:
        """Ask the ledger's file, whether or not there is a scheduler."""
        with contextlib.closing(sqlite3.connect(self.folder / "up/ledger.sqlite")) as db:
            db.row_factory = sqlite3.Row
            return db.execute(text, values).fetchall()

    def here(self) -> set[str]:
        """The devices that the ledger has as connected."""
        with contextlib.suppress(sqlite3.OperationalError):
            return {row["name"] for row in self.query("SELECT name FROM devices WHERE gone = ''")}
        return set()

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """The accepted result of each job that has one."""
        rows = self.query("SELECT job, body FROM results")
        return {row["job"]: json.loads(row["body"]) for row in rows}

    def told(self, word: str) -> list[str]:
        """What the wrappers told, of all devices."""
        lines = []
        for name in self.devices:
            path = self.folder / "oracle" / name / "told"
            lines += path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(word)]

    def log(self, name: str) -> str:
        """What a process said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _certified(self, name: str) -> list[str]:
        return ["--certs", str(self.certs / name)] if self.certs else []

    def _start(self, name: str, words: list[str]) -> None:
        line = [sys.executable]
        environment = {**os.environ, "XDG_STATE_HOME": str(self.folder / "state")}
        if name in self._emulated:
            line = [str(EMULATE), self._emulated[name]]
            environment["EMULATED_PATH"] = str(ROOT)
        if self._unprivileged and name in self.devices and os.geteuid() == 0:
            python, packages = job_python()
            line = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", python]
            environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), packages])
            (self.folder / name).mkdir(exist_ok=True)
            os.chown(self.folder / name, NOBODY, NOBODY)
            lock = self.folder / f"{name}.lock"
            lock.touch()
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*line, "-m", "edgec", "farm", *words],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wrapper(self, name: str) -> Path:
        place = self.folder / "oracle" / name
        place.mkdir(parents=True)
        place.chmod(0o777)
        path = self.folder / f"python-{name}"
        python, packages = job_python()
        text = WRAPPER.format(name=name, place=place, python=python, path=packages)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path


def job_python() -> tuple[str, str]:
    """A Python with this environment's packages that an unprivileged user may run: the interpreter,
    and PYTHONPATH."""
    packages = os.pathsep.join(site.getsitepackages())
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    drop = ["setpriv", f"--reuid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    for python in (sys.executable, system):
        line = [*drop, "/bin/sh", "-c", 'exec "$0" -c "import numpy, onnxruntime"', python]
        environment = {"PYTHONPATH": packages, "PATH": os.defpath}
        with contextlib.suppress(OSError):
            done = subprocess.run(line, env=environment, cwd="/", capture_output=True)
            if done.returncode == 0:
                return python, packages
    raise RuntimeError(f"neither {sys.executable} nor {system} runs as an unprivileged user")


def until(true: Callable[[], Any], what: str, seconds: float = 180.0) -> Any:
    """Wait for something to become true. TimeoutError: it does not."""
    for _ in waiting(seconds):
        if found := true():
            return found
    raise TimeoutError(f"after {seconds:g} s it is not so: {what}")


def waiting(seconds: float, each: float = 0.05) -> Iterator[float]:
    """The seconds that have passed, now and again."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        yield passed
        time.sleep(each)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
