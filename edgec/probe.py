"""`edgec targets probe`: what this machine is, and what its toolchains really do.

The toolchains are asked op by op in processes of their own: where one crashes, the questions are
halved until the op that did it stands alone. What differs from a row of the table is told, and can
be written as a row with the evidence, for `--target FOLDER`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec import isolate
from edgec.errors import EmitError
from edgec.machine import PACKAGES, Machine, installed, machine
from edgec.probe_ask import Answer, ask, saturates
from edgec.probe_ops import FLOAT, questions
from edgec.types import Pace, Runtime, Scheme, Support, Target

SECONDS = 600.0


@dataclass(frozen=True)
class Asked:
    """The answers of a runtime's toolchain; `why`: the reason for there being none."""

    runtime: Runtime
    version: str
    answers: tuple[Answer, ...] = ()
    saturates: bool | None = None
    why: str = ""

    def denied(self) -> dict[str, list[Answer]]:
        """By op, the forms that the table states and the toolchain does not have."""
        found: dict[str, list[Answer]] = {}
        for one in self.answers:
            if not one.fine and not (one.form == FLOAT and self._known_missing(one.op)):
                found.setdefault(one.op, []).append(one)
        return found

    def gained(self) -> list[Answer]:
        """Ops that the table says are missing, and that ran in float."""
        return [a for a in self.answers if a.fine and a.form == FLOAT and self._known_missing(a.op)]

    def grid_differs(self) -> bool:
        """Whether weights of 7 bits are planned where 8 are safe, or the other way round."""
        grid = self.runtime.grid
        return self.saturates is not None and self.saturates != grid.reduce_range

    def _known_missing(self, op: str) -> bool:
        rule = self.runtime.ops.get(op)
        no = rule is not None and rule.support is Support.NO
        return no or op in self.runtime.unsupported


@dataclass(frozen=True)
class Probe:
    """A machine, the row that it was compared with, and what its toolchains said."""

    machine: Machine
    target: Target
    asked: tuple[Asked, ...] = field(default=())

    def lines(self) -> Iterator[str]:
        """What people should know."""
        machine = self.machine
        where = f" ({machine.board})" if machine.board else ""
        yield f"{machine.cpu or machine.arch}{where}: {machine.arch}, {machine.memory_gb:g} GB"
        yield f"  {' '.join(machine.flags) or 'no flags that matter'}; {machine.system}"
        packages = ", ".join(f"{name} {found}" for name, found in machine.packages.items())
        yield f"  Python {machine.python}; {packages or 'no toolchain'}"
        fits = "this machine's row" if self.target.here else "not this machine's row"
        yield f"compared with {self.target.name} ({self.target.stack}), {fits}"
        for one in self.asked:
            yield from _told(one)


def probe(target: Target, say: Callable[[str], None]) -> Probe:
    """Look at this machine and ask the toolchains of a target's runtimes."""
    found = machine()
    return Probe(found, target, tuple(_asked(one, say) for one in target.runtimes))


def questioned(
    backend: str, asked: Sequence[tuple[str, str]], kind: str, seconds: float = SECONDS
) -> list[Answer]:
    """Answers from processes of their own; a crash is the answer of the op that causes it."""
    if not asked:
        return []
    try:
        answers: list[Answer] = isolate.call(ask, backend, tuple(asked), kind, seconds=seconds)
        return answers
    except EmitError as error:
        if len(asked) == 1:
            op, form = asked[0]
            return [Answer(op, form, False, error.message)]
    middle = len(asked) // 2
    return [
        *questioned(backend, asked[:middle], kind, seconds),
        *questioned(backend, asked[middle:], kind, seconds),
    ]


def as_json(found: Probe) -> dict[str, Any]:
    """All of it, for `--json` and for the evidence beside a row."""
    return {
        "machine": {**vars(found.machine), "flags": list(found.machine.flags)},
        "compared_with": {"target": found.target.name, "stack": found.target.stack},
        "runtimes": [
            {
                "name": one.runtime.name,
                "backend": one.runtime.backend,
                "device": one.runtime.device,
                "version": one.version,
                "not_asked": one.why,
                "saturates": one.saturates,
                "answers": [vars(answer) for answer in one.answers],
            }
            for one in found.asked
        ],
    }


def write(found: Probe, folder: Path, *, force: bool) -> None:
    """Write a row with what was found into a folder; see `edgec.probe_row`."""
    from edgec.probe_row import write_row

    write_row(found, folder, as_json(found), force=force)


def _asked(runtime: Runtime, say: Callable[[str], None]) -> Asked:
    found = installed(runtime.backend)
    if runtime.backend not in PACKAGES:
        return Asked(runtime, found, why=f"edgec has no questions for {runtime.backend}")
    if not found:
        return Asked(runtime, found, why=f"{runtime.backend} is not installed here")
    if runtime.device != "cpu" and runtime.backend != "tensorrt":
        return Asked(
            runtime, found, why=f"only the CPU is asked, and it is for the {runtime.device}"
        )
    forms = [
        (op, str(scheme))
        for op, rule in runtime.ops.items()
        for scheme in sorted(rule.schemes)
        if scheme is not Scheme.INT8_DYNAMIC or not runtime.compressed_dynamic
    ]
    asked = questions(forms, runtime.max_opset)
    say(f"asking {runtime.backend} {found}: {len(asked)} questions")
    answers = questioned(runtime.backend, asked, runtime.grid.activations)
    return Asked(runtime, found, tuple(answers), _saturation(runtime))


def _saturation(runtime: Runtime) -> bool | None:
    """Whether U8S8 products overflow; None where it was not to be found out, or is not used."""
    if runtime.backend == "tensorrt" or runtime.grid.activations != "uint8":
        return None
    try:
        return bool(isolate.call(saturates, runtime.backend, seconds=SECONDS))
    except EmitError:
        return None


def _told(one: Asked) -> Iterator[str]:
    name, grid = one.runtime.name, one.runtime.grid
    if one.why:
        yield f"{name}: not asked: {one.why}"
        return
    fine = sum(answer.fine for answer in one.answers)
    yield f"{name} {one.version}: {fine} of {len(one.answers)} questions answered with yes"
    for answers in one.denied().values():
        for answer in answers:
            yield f"  differs: {answer.op} has no {answer.form}: {answer.evidence}"
    for answer in one.gained():
        yield f"  differs: {answer.op} runs after all: {answer.evidence}"
    if one.saturates is not None:
        bits = "saturate: weights need 7 bits" if one.saturates else "are exact: 8 bits are safe"
        mark = "differs" if one.grid_differs() else "as the table says"
        yield f"  {mark}: products of {grid.activations} and {grid.weights} {bits}"
    slow = [str(d.name) for d in one.runtime.dtypes.values() if d.speed is Pace.SLOW]
    if slow:
        yield f"  by the table, {', '.join(slow)} is slow here: speed was not measured"
