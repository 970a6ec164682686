"""Custom ops in a build: which kernels there can be, the source with its nodes, what is settled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgec.graphs import save
from edgec.kernels import find
from edgec.kernels.choose import Means, choose
from edgec.kernels.marks import op
from edgec.kernels.native import offers, with_natives
from edgec.kernels.reference import write_out
from edgec.load import load
from edgec.rules import functions
from edgec.types import Graph, KernelChoice, Target

Choices = Sequence[KernelChoice]


def offered(folder: Path | None, target: Target, *, native: bool) -> Choices:
    """What there can be for the ops that are shipped and those of a user's folder."""
    return offers(find(folder), target, native=native)


def read(model: Path, folder: Path | None, choices: Choices) -> Graph:
    """The source model; the custom ops that a runtime has a kernel for stay nodes of it.

    Rewrites make nodes where a kernel can be measured: TensorRT fuses by itself.
    """
    stay: dict[str, bool] = {}
    for one in choices:
        if one.native:
            stay[one.op] = stay.get(one.op, False) or one.backend != "tensorrt"
    return load(model, find(folder), stay)


def in_use(graph: Graph, target: Target, choices: Choices) -> tuple[Choices, Target]:
    """The choices of ops that the model has, and the target with their kernels."""
    used = graph.custom_ops | {op(node) for node in graph.model.graph}
    own = tuple(one for one in choices if one.op in used)
    return own, with_natives(target, own)


def runnable(model: Path, folder: Path | None, graph: Graph, place: Path) -> Path:
    """A file that ONNX Runtime runs: the source, or a copy with its custom ops written out."""
    if not graph.custom_ops:
        return model
    source = read(model, folder, ()).model
    functions.apply(source)
    write_out(source)
    return save(source, place / f"{model.stem}.written_out.onnx")[0]


def settle(
    graph: Graph, target: Target, folder: Path | None, before: Choices, means: Means
) -> tuple[Choices, bool]:
    """The choices as checks leave them; whether the graph can stay, no op having lost its last."""
    choices = choose(graph, target, find(folder), before, means)
    for one in choices:
        how = "native" if one.native else "reference"
        means.say(f"{one.op} on {one.runtime}: {how}: {one.reason}")
    natives = [{one.op for one in some if one.native} for some in (before, choices)]
    return choices, natives[0] == natives[1]
