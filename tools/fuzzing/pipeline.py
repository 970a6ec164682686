"""All that edgec does with a graph before a backend sees it, in a process that has nothing to lose.

`examine` forks; the child takes the model from `load` to a plan, and a share of them to written
engines, under limits of time and memory, and hears of every file that Python opens.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import sysconfig
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from edgec.assign import assign
from edgec.canonicalise import canonicalise
from edgec.errors import EdgecError
from edgec.graphs import save
from edgec.inputs import inputs
from edgec.join import join
from edgec.kernels import find
from edgec.load import load
from edgec.lower import lower
from edgec.partition import partition
from edgec.quantize import quantize
from edgec.target import load_target
from edgec.tune import plain
from edgec.types import Policy, Statistics

SECONDS = 10  # of CPU
PATIENCE = 10  # seconds of sleep
POLL = 0.5
MEMORY = 4 << 30  # bytes beyond what the process has
TARGETS = ("generic", "x86-vnni", "aarch64-dotprod", "intel-core-ultra")
ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = tuple(
    os.path.realpath(path)
    for path in {*sysconfig.get_paths().values(), sys.prefix, sys.base_prefix, str(ROOT / "edgec")}
    | {str(ROOT / "targets"), str(ROOT / "kernels")}
)
FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


def warm() -> None:
    """Import and read what every mutant needs, before the first fork."""
    for name in TARGETS:
        load_target(name)
    find()


def examine(path: Path, number: int, write: bool) -> dict[str, Any]:
    """What becomes of a model: its stage, and `finding` where something is wrong with edgec."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(path, number, write, writer)
    os.close(writer)
    told, stopped = _listen(reader, child)
    if stopped:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(reader)
    lines = [json.loads(line) for line in told.decode().splitlines() if line.endswith("}")]
    result: dict[str, Any] = {"stage": "start", "finding": ""}
    for line in lines:
        if result["finding"]:  # the first is what led to the rest
            line = {key: line[key] for key in line if key not in ("finding", "error")}
        result.update(line)
    result["seconds"] = round(usage.ru_utime + usage.ru_stime, 3)
    result["megabytes"] = usage.ru_maxrss // 1024
    if stopped or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU):
        result.update(finding="hang", error=f"in {result['stage']}")
    elif os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        result.update(finding="crash", error=f"{name} in {result['stage']}")
    elif not lines or "end" not in result:
        result.update(finding="crash", error=f"exit {os.WEXITSTATUS(status)}, no answer")
    return result


def _listen(reader: int, child: int) -> tuple[bytes, bool]:
    """What the child tells, and whether it stands still: no CPU in PATIENCE seconds of sleep.

    On a busy machine a child that works may take minutes for its seconds of CPU.
    """
    told, idle, used = b"", 0.0, -1
    while idle < PATIENCE:
        if select.select([reader], [], [], POLL)[0]:
            block = os.read(reader, 65536)
            if not block:
                return told, False
            told += block
            continue
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        now = int(fields[11]) + int(fields[12])
        works = now != used or fields[0] == "R"
        idle, used = 0.0 if works else idle + POLL, now
    return told, True


def _child(path: Path, number: int, write: bool, writer: int) -> None:
    """Never returns: the fork ends here."""

    def tell(**facts: Any) -> None:
        os.write(writer, json.dumps(facts).encode() + b"\n")

    over: list[bool] = []  # what follows reads sources for the trace

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if over:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            name = os.path.realpath(os.fsdecode(arguments[0]))
            own = ("/proc/self/", f"/proc/{os.getpid()}/", "/proc/cpuinfo", os.devnull)
            inside = (*LIBRARIES, *homes, *own)
            if not name.startswith(inside):
                tell(finding="outside", error=f"opened {name}")
        elif event in FORBIDDEN:
            tell(finding="outside", error=f"{event} {arguments!r}"[:200])

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    homes = (os.path.realpath(path.parent), os.path.realpath(path.parent.parent / "out"))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    sys.addaudithook(hear)
    facts: dict[str, Any] = {}
    try:
        _run(path, number, write, tell)
    except EdgecError as error:
        over.append(True)
        facts = {"refused": type(error).__name__, "error": error.message[:300]}
        if not error.hint or len(error.message) > 3000 or not error.message.isprintable():
            facts["finding"] = "unreadable error"
    except BaseException as error:
        over.append(True)
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if "/edgec/" in f.filename] or frames
        facts = {
            "finding": "traceback",
            "where": f"{type(error).__name__} {Path(own[-1].filename).name}:{own[-1].lineno}",
            "error": f"{type(error).__name__}: {error}"[:300],
            "trace": [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames][-12:],
        }
    tell(**facts, end=True)
    os._exit(0)


def _run(path: Path, number: int, write: bool, tell: Any) -> None:
    tell(stage="load")
    loaded = load(path)
    tell(stage="canonicalise", loaded=True)
    graph = canonicalise(loaded, {})
    failed = [f"{one.rule}: {one.failure}"[:200] for one in graph.rewrites if one.failure]
    tell(stage="partition", switched_off=failed)
    parts = partition(graph)
    tell(stage="plan")
    target = load_target(TARGETS[number % len(TARGETS)])
    plan = assign(graph, parts, Policy(), target, data=number % 3 == 0 and not write)
    inputs(graph)
    if not write:
        tell(stage="planned")
        return
    tell(stage="join")
    for index, engine in enumerate(join(graph, plan, target)):
        tell(stage="quantize")
        recovery = {name: plain(one) for name, one in plan.recovery.items()}
        model = quantize(engine.source, plan.decisions, Statistics(), recovery, engine.runtime)
        tell(stage="lower")
        engine = replace(engine, model=lower(model, engine.runtime))
        tell(stage="write")
        file = path.parent.parent / "out" / f"{index}.onnx"
        save(engine.model, file)
        tell(stage="read")
        onnx.load(file, load_external_data=False)
    tell(stage="written")
