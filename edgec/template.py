"""A process that has imported what edgec's subprocesses need, and forks them off.

Importing takes a second, and a build needs a dozen subprocesses. The template imports what the
first request for a module needs, once; it runs nothing else and holds one thread, so that forking
it is safe; no module of edgec loads a backend when it is imported. Where it cannot be had, a
subprocess starts as a new interpreter.
"""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
from importlib import import_module
from pathlib import Path

OWN = "edgec."


class Forked:
    """A process that the template has forked, with as much of Popen as `isolate` needs."""

    def __init__(self, template: Template, pid: int) -> None:
        self.pid, self.returncode = pid, None
        self._template = template

    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative for a signal. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not self._template.answers(timeout):
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            line = self._template.line()
            self.returncode = int(line) if line else -9  # the template is gone, and it with it
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None


class Template:
    """The process itself. `search_path`: its PYTHONPATH."""

    def __init__(self, search_path: str) -> None:
        self.search_path = search_path
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "edgec.isolate", "--template", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search_path},
            start_new_session=True,
            bufsize=0,
        )
        self.usable = self.line() == "ready"

    @property
    def alive(self) -> bool:
        """Whether it can still fork."""
        return self.usable and self.process.poll() is None

    def fork(self, module: str, request: Path, answer: Path, log: Path) -> Forked | None:
        """A process for a request of `isolate`; None where there is none to be had."""
        if not self.alive or self.process.stdin is None:
            return None
        page = {
            "module": module,
            "request": str(request),
            "answer": str(answer),
            "log": str(log),
            "folder": os.getcwd(),
            "environment": {**os.environ, "PYTHONPATH": self.search_path},
        }
        try:
            self.process.stdin.write(json.dumps(page).encode() + b"\n")
        except OSError:
            return None
        line = self.line()
        return Forked(self, int(line)) if line else None

    def answers(self, timeout: float | None) -> bool:
        """Whether a line can be read within so many seconds."""
        stream = self.process.stdout
        return stream is None or bool(select.select([stream], [], [], timeout)[0])

    def line(self) -> str:
        """The next line; empty where the process is gone."""
        if self.process.stdout is None:
            return ""
        return self.process.stdout.readline().decode().strip()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


def serve() -> None:
    """Fork off one process after the other, as the lines of stdin ask for; in the template."""
    answers = os.dup(1)
    os.dup2(2, 1)
    os.write(answers, b"ready\n")
    for line in sys.stdin.buffer:
        page = json.loads(line)
        _preload(page["module"])
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _become(page)
        os.write(answers, f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _preload(name: str) -> None:
    """Import a module of edgec, which every later process then has."""
    if name.startswith(OWN) and name not in sys.modules:
        try:
            import_module(name)
        except ImportError:  # an extra is missing: whoever needs it will say so
            return
        gc.freeze()


def _become(page: dict[str, str | dict[str, str]]) -> None:
    """Answer a request, in the forked process; never returns."""
    from edgec.isolate import answer_request, end_with

    code = 1
    try:
        os.setsid()
        end_with(os.getppid())
        log = os.open(str(page["log"]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, log), (2, log)):
            os.dup2(source, target)
        os.chdir(str(page["folder"]))
        os.environ.clear()
        os.environ.update(page["environment"])  # type: ignore[arg-type]
        answer_request(str(page["request"]), str(page["answer"]))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
