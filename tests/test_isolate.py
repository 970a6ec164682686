"""What happens in a subprocess comes back as a value or an error, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgec import isolate
from edgec.errors import (
    EdgecError,
    EmitError,
    GoalMissed,
    InputError,
    ToolchainError,
    UnsupportedError,
)
from edgec.isolate import OverLimit, call

# Called in the subprocess, by name.


def double(array: np.ndarray) -> dict[str, np.ndarray]:
    return {"twice": 2 * array}


def shout() -> str:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return "said"


def abort() -> None:
    print("about to abort", flush=True)
    os.abort()


def segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    os._exit(9)


def hang(note: str) -> None:
    Path(note).write_text(str(os.getpid()))
    time.sleep(60)


def hang_with_a_child(note: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(note).write_text(str(child.pid))
    time.sleep(60)


def eat() -> None:
    hoard = []
    while True:
        hoard.append(np.ones(1 << 22))
        time.sleep(0.01)


def spike() -> None:
    np.ones(1 << 26).sum()  # 512 MB, for less than a moment
    time.sleep(1)


def own_peak() -> int:
    return isolate.peak(os.getpid())


def call_another(note: str) -> None:
    call(hang, note)


def fail() -> None:
    print("a native log line", flush=True)
    raise ValueError("wrong number")


def unpicklable() -> object:
    return lambda: None


def quit_python() -> None:
    sys.exit(3)


ERRORS: dict[str, EdgecError] = {
    "input": InputError("bad sample", hint="look at it"),
    "unsupported": UnsupportedError("no kernel", hint="other target", decisions=[1, 2]),
    "toolchain": ToolchainError("no compiler", hint="install it"),
    "emit": EmitError("refused", hint="float", log="line 1\nline 2"),
    "goal": GoalMissed("p50", 3.0, 2.0, hint="smaller model"),
}


def raise_known(name: str) -> None:
    raise ERRORS[name]


@pytest.fixture(autouse=True)
def functions_of_this_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The subprocess looks where edgec lies, and on the user's own path."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def nobody_is_left() -> object:
    before = _children()
    yield
    assert _children() == before


def _children() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                found.add(int(entry.name))
    return found - {one.process.pid for one in isolate._templates.values()}


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_value_comes_back() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = call(double, array)
    np.testing.assert_array_equal(found["twice"], 2 * array)


def test_what_it_prints_is_not_ours(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(shout) == "said"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_our_errors_come_back_as_they_are(name: str) -> None:
    error = ERRORS[name]
    with pytest.raises(type(error)) as caught:
        call(raise_known, name)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)
    assert caught.value.exit_code == error.exit_code


def test_another_exception() -> None:
    with pytest.raises(EmitError, match="fail: ValueError: wrong number") as caught:
        call(fail)
    assert "a native log line" in caught.value.log
    assert "Traceback" in caught.value.log
    assert "policy" in caught.value.hint


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (abort, r"crashed \(SIGABRT\)"),
        (segfault, r"crashed \(SIGSEGV\)"),
        (leave, "ended with exit code 9 and no answer"),
    ],
)
def test_a_crash(function: object, how: str) -> None:
    with pytest.raises(EmitError, match=f"the backend's process {how}") as caught:
        call(function)  # type: ignore[arg-type]
    assert caught.value.exit_code == 6
    if function is abort:
        assert "about to abort" in caught.value.log


@pytest.mark.parametrize("function", [unpicklable, quit_python])
def test_no_answer_is_an_error(function: object) -> None:
    with pytest.raises(EmitError):
        call(function)  # type: ignore[arg-type]


def test_the_time_limit(tmp_path: Path) -> None:
    note, start = tmp_path / "pid", time.monotonic()
    with pytest.raises(EmitError, match="hang: the backend's process did not end within 3 s"):
        call(hang, str(note), seconds=3)
    assert time.monotonic() - start < 10
    assert not _alive(int(note.read_text()))


def test_the_time_limit_ends_grandchildren_too(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    with pytest.raises(EmitError, match="did not end within"):
        call(hang_with_a_child, str(note), seconds=3)
    end = time.monotonic() + 5
    while _alive(int(note.read_text())) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(int(note.read_text()))


def test_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(isolate, "MEMORY_SHARE", 400e6 / whole)
    with pytest.raises(EmitError, match=r"eat: .* used \d+ MB of memory, the limit is 400"):
        call(eat, seconds=60)


def test_a_peak_between_two_looks_counts() -> None:
    with pytest.raises(OverLimit, match="of memory, the limit is 400"):
        call(spike, seconds=60, memory=400_000_000)


def test_the_peak_is_the_process_s_own() -> None:
    """Not what its parent had when it started it, as ru_maxrss is."""
    hoard = np.ones(1 << 26)
    own = call(own_peak, fresh=True)
    assert 10e6 < own < hoard.nbytes < isolate.peak(os.getpid())


def test_a_killed_parent_takes_the_child_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"import test_isolate; test_isolate.call_another({str(note)!r})"
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: note.is_file() and note.read_text() != "")
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not _alive(int(note.read_text())))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_interrupt_ends_the_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def interrupted(*_: object) -> str:
        end = time.monotonic() + 30
        while not note.is_file() or not note.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(isolate, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(hang, str(note))
    assert not _alive(int(note.read_text()))


@pytest.mark.parametrize("path", ["", ".", "{here}"])
def test_nothing_is_imported_from_the_current_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("numpy", "pickle", "edgec", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('taken from the current folder')")
    monkeypatch.chdir(tmp_path)
    tests = str(Path(__file__).parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, path]) if "{" not in path else tests)
    assert call(shout) == "said"
