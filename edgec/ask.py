"""Ask the real toolchain: each distinct node of a model is opened alone, in a subprocess.

A table says what was known when it was written; the backend that is installed says what it does.
Only what runs on a CPU can be asked here; of a GPU or an NPU the answer is that it was not asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx_ir as ir

from edgec.backends import missing
from edgec.errors import EdgecError, EmitError
from edgec.graphs import save
from edgec.isolate import call
from edgec.lower import lower
from edgec.minimal import distinct, minimal
from edgec.types import Runtime

SECONDS = 600.0  # for all nodes of a model
ALONE = 60.0  # for one
ASKED = {"onnxruntime": "onnxruntime", "openvino": "openvino"}  # backends by their package


@dataclass(frozen=True)
class Answer:
    """What a runtime said to a node: a reason where it refused, else an empty text."""

    nodes: tuple[str, ...]
    reason: str
    evidence: str


def answers(model: ir.Model, nodes: Iterable[ir.Node], runtime: Runtime) -> list[Answer]:
    """What the backend of `runtime` says to the nodes, by distinct signature.

    Raises EdgecError for nothing: a node that cannot be told alone is not asked.
    """
    if runtime.backend not in ASKED or runtime.device != "cpu" or missing(runtime.backend):
        return []
    evidence = asked_of(runtime)
    with tempfile.TemporaryDirectory(prefix="edgec-probe-") as folder:
        asked: list[tuple[Path, list[ir.Node]]] = []
        found: list[Answer] = []
        for index, same in enumerate(distinct(nodes).values()):
            names = tuple(str(node.name) for node in same)
            path = Path(folder) / f"{index}.onnx"
            try:
                alone = minimal(model, same[0])
            except (EdgecError, ValueError):  # not by itself; the whole will say
                continue
            try:
                save(lower(alone, runtime), path)
            except EdgecError as error:
                found.append(Answer(names, error.message, f"the opset that {runtime.name} takes"))
                continue
            asked.append((path, same))
        replies = _ask(runtime.backend, [path for path, _ in asked])
        for (_, same), reply in zip(asked, replies, strict=True):
            found.append(Answer(tuple(str(node.name) for node in same), reply, evidence))
    return found


def not_asked(runtime: Runtime) -> str:
    """Why a runtime is not asked, or an empty text where it is."""
    if runtime.backend not in ASKED:
        return f"{runtime.name} cannot be asked here: its table alone speaks"
    if runtime.device != "cpu":
        return (
            f"{runtime.name} was not asked, for want of a {runtime.device}: its table alone speaks"
        )
    if lacking := missing(runtime.backend):
        return f"{runtime.name} was not asked: {lacking} brings it"
    return ""


def asked_of(runtime: Runtime) -> str:
    """Who was asked, as evidence."""
    return f"{runtime.backend} {version(ASKED[runtime.backend])} was asked for every distinct node"


def _ask(backend: str, paths: Sequence[Path]) -> list[str]:
    try:
        replies: list[str] = call(open_each, backend, list(paths), seconds=SECONDS)
        return replies
    except EmitError:
        return [_ask_one(backend, path) for path in paths]


def _ask_one(backend: str, path: Path) -> str:
    try:
        replies: list[str] = call(open_each, backend, [path], seconds=ALONE)
        return replies[0]
    except EmitError as error:
        return error.message.rpartition(": ")[2]


def open_each(backend: str, paths: Sequence[Path]) -> list[str]:
    """In the subprocess: the first line of what the backend says to each file; empty: it opens."""
    from edgec.runtime.openers import opener

    door = opener(backend)
    settings: dict[str, object] = {"device": "cpu", "threads": 1, "neighbours": 0}
    if backend == "openvino":
        settings["specialise"] = 0  # compiled at once, not at the first run
    replies = []
    for path in paths:
        try:
            door(path, settings).close()
            replies.append("")
        except Exception as error:  # the backend's own types
            replies.append(_said(error))
    return replies


def _said(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    idle = ("Exception from", "Check '", "While", "FrontEnd API failed", "Model wasn't fully")
    telling = [line for line in lines if not line.startswith(idle) and not line.endswith(":")]
    return ((telling or lines or [type(error).__name__])[0])[:300]
