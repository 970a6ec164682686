"""Native or reference: compiled, compared on the model's own values, and timed side by side.

Each native kernel that can be had is opened in a process of its own and fed with what its nodes
get on samples. One that cannot be compiled, crashes, differs from its reference by more than its
tolerance, or is not faster on the machine that it is built for, is refused; the reason is kept.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.errors import EdgecError, ToolchainError
from edgec.graphs import constant, extract, save
from edgec.isolate import call
from edgec.kernels import Kernel, Kernels
from edgec.kernels.marks import op
from edgec.kernels.native import library
from edgec.kernels.plugins import cubin, declared, gpu
from edgec.kernels.reference import TYPES, write_out
from edgec.prove import distance
from edgec.reference import Reference
from edgec.runtime import bench, npz
from edgec.runtime.openers import opener
from edgec.samples import Input, stream
from edgec.types import Feeds, Graph, KernelChoice, Target

MOST_NODES = 6  # of an op that are compared; those with the most numbers
MOST_SAMPLES = 2
LIBRARY = "kernels.so"  # of all native kernels of a runtime
GAIN = 1.05  # times as fast as the reference, from which a native kernel is worth it
ROUNDS, CALLS = 7, 5


@dataclass(frozen=True)
class Means:
    """What choosing needs. `measure`: whether this machine is the target and may be timed."""

    samples: Sequence[Path]
    inputs: Sequence[Input]
    threads: int
    folder: Path
    measure: bool
    say: Callable[[str], None]


@dataclass(frozen=True)
class Node:
    """One node of an op as two models, and its inputs, a file of feeds a sample."""

    name: str
    reference: Path
    native: Path
    feeds: tuple[Path, ...]


def choose(
    graph: Graph, target: Target, kernels: Kernels, choices: Sequence[KernelChoice], means: Means
) -> tuple[KernelChoice, ...]:
    """The choices with those that are native so far settled, and their libraries compiled."""
    present = {op(node) for node in graph.model.graph}
    values: list[Feeds] | None = None
    found = []
    for one in choices:
        if not one.native:
            found.append(one)
            continue
        if one.op not in present:
            found.append(refused(one, "its nodes stand in a subgraph, or nothing reads them"))
            continue
        kernel = kernels[one.op]
        if one.backend == "tensorrt":
            found.append(_plugin(one, kernel, target, means))
            continue
        means.say(f"comparing the native {kernel.name} for {one.runtime} with its reference")
        try:
            values = _values(graph, means, present) if values is None else values
            found.append(_settle(one, kernel, graph, target, values, means))
        except EdgecError as error:
            found.append(refused(one, error.message))
    return _linked(found, target, kernels, means)


def _plugin(one: KernelChoice, kernel: Kernel, target: Target, means: Means) -> KernelChoice:
    """A plugin's kernel, compiled; nothing here can run it."""
    try:
        files = cubin(kernel, target, _objects(means))
    except ToolchainError as error:
        return refused(one, error.message)
    reason = (
        f"compiled for {gpu(target)}, not verified on hardware: finish builds with it, compares it "
        "with the golden data, and falls back to the reference"
    )
    return replace(one, reason=reason, files=files, plugin=declared(kernel, files))


def _linked(
    choices: Sequence[KernelChoice], target: Target, kernels: Kernels, means: Means
) -> tuple[KernelChoice, ...]:
    """The native ones of each runtime in one library."""
    built: dict[str, tuple[Path, ...]] = {}
    linked = [one for one in choices if one.files and one.backend == "onnxruntime"]
    for name in {one.runtime for one in linked}:
        ops = sorted({one.op for one in linked if one.runtime == name})
        path = library([kernels[key] for key in ops], target, _objects(means), LIBRARY)
        built[name] = (path,)
    return tuple(
        replace(one, files=built[one.runtime]) if one in linked else one for one in choices
    )


def _objects(means: Means) -> Path:
    """Where kernels are compiled, each once."""
    folder = means.folder / "kernels"
    folder.mkdir(exist_ok=True)
    return folder


def refused(one: KernelChoice, reason: str, measured: str = "") -> KernelChoice:
    """The same choice, fallen on the reference."""
    return replace(one, native=False, reason=reason, measured=measured, files=())


def _settle(
    one: KernelChoice,
    kernel: Kernel,
    graph: Graph,
    target: Target,
    values: Sequence[Feeds],
    means: Means,
) -> KernelChoice:
    nodes = [node for node in graph.model.graph if op(node) == one.op]
    for node in nodes:
        kinds = zip(node.inputs, kernel.inputs.items(), strict=True)
        for value, (name, kind) in kinds:
            if value is not None and value.dtype not in (None, TYPES[kind]):
                return refused(one, f"{node.name}: its {name} is no {kind}")
    folder = Path(tempfile.mkdtemp(prefix="kernel-", dir=means.folder))
    built = library([kernel], target, _objects(means), f"{kernel.domain}.{kernel.name}.so")
    built = Path(shutil.copyfile(built, folder / built.name))
    some = sorted(nodes, key=lambda node: -_numbers(node, values))[:MOST_NODES]
    pairs = [_pair(graph, node, values, folder, index) for index, node in enumerate(some)]
    errors: list[float] = call(_compare, pairs, built.name, means.threads)
    worst = max(range(len(pairs)), key=lambda index: errors[index])
    if not errors[worst] <= kernel.tolerance:
        apart = f"{errors[worst]:.1g} of its largest number"
        if math.isinf(errors[worst]):
            apart = "NaN, infinities or another shape"
        why = f"at {pairs[worst].name} it differs from its reference by {apart}"
        return refused(one, f"{why}, where {kernel.tolerance:g} is allowed")
    agrees = f"agrees with its reference within {kernel.tolerance:g} at {len(pairs)} nodes"
    if not means.measure:
        return replace(one, reason=f"{agrees}; its speed is unmeasured", files=(built,))
    gain = _gain(pairs[0], built.name, means.threads)
    told = f"{gain.median:.2f}x of the reference's speed ({gain.low:.2f} to {gain.high:.2f})"
    measured = f"{pairs[0].name}: {told}"
    if gain.median < GAIN:
        return refused(one, "it is not faster than its reference on this machine", measured)
    reason = f"{agrees}, and is faster on this machine"
    return replace(one, reason=reason, measured=measured, files=(built,))


def _values(graph: Graph, means: Means, ops: Collection[str]) -> list[Feeds]:
    """What the nodes of ops read on some samples."""
    model = graph.model.clone()
    given = {str(value.name) for value in (*model.graph.inputs, *model.graph.outputs)}
    names = dict.fromkeys(
        str(value.name)
        for node in model.graph
        if op(node) and op(node) in ops
        for value in node.inputs
        if value is not None and constant(value) is None
    )
    made = {str(v.name): v for node in model.graph for v in node.outputs}
    model.graph.outputs.extend(made[name] for name in names if name not in given)
    path = means.folder / "kernel_inputs.onnx"
    save(model, path)
    found: list[Feeds] = call(
        _observe, path, list(means.samples)[:MOST_SAMPLES], list(means.inputs), list(names)
    )
    return found


def _observe(
    path: Path, samples: Sequence[Path], inputs: Sequence[Input], names: Sequence[str]
) -> list[Feeds]:
    """In a subprocess: named values, a sample each."""
    session = Reference(path, 1)
    return [session.run(feeds, names) for feeds in stream(samples, inputs)]


def _numbers(node: ir.Node, values: Sequence[Feeds]) -> int:
    return sum(v.size for name in _reads(node) for v in [values[0][name]])


def _reads(node: ir.Node) -> list[str]:
    """The computed values that a node reads."""
    found = [str(v.name) for v in node.inputs if v is not None and constant(v) is None]
    return list(dict.fromkeys(found))


def _pair(graph: Graph, node: ir.Node, values: Sequence[Feeds], folder: Path, index: int) -> Node:
    names = _reads(node)
    outputs = [str(value.name) for value in node.outputs if value.name]
    alone = extract(graph.model, names, outputs)
    for value in alone.graph.outputs:
        value.shape = None
    reference, native = (folder / f"{index}.{what}.onnx" for what in ("reference", "native"))
    save(alone, reference)
    write_out(alone, {op(node)})
    save(alone, native)
    feeds = []
    for place, found in enumerate(values):
        path = folder / f"{index}.{place}.npz"
        npz.write(path, {name: found[name] for name in names})
        feeds.append(path)
    return Node(str(node.name), reference, native, tuple(feeds))


def _compare(pairs: Sequence[Node], built: str, threads: int) -> list[float]:
    """In a subprocess: how far each native node is from its reference, over its feeds."""
    found = []
    for pair in pairs:
        feeds = [npz.read(path, path.name) for path in pair.feeds]
        reference = Reference(pair.reference, threads)
        settings = {"threads": threads, "kernels": [built]}
        native = opener("onnxruntime")(pair.native, settings)
        expected = [reference.run(one) for one in feeds]
        found.append(distance(expected, [_arrays(native.run(one)) for one in feeds]))
    return found


def _arrays(made: Feeds) -> Feeds:
    return {name: np.asarray(array) for name, array in made.items()}


def _gain(pair: Node, built: str, threads: int) -> bench.Ratio:
    """How many times as fast the native node is, in alternating rounds."""
    cases = [
        bench.Case("reference", pair.reference, threads),
        bench.Case("native", pair.native, threads, {"kernels": [built]}),
    ]
    feeds = npz.read(pair.feeds[0], pair.feeds[0].name)
    plain, native = bench.measure(cases, feeds, rounds=ROUNDS, calls_per_round=CALLS)
    return bench.ratio(plain, native)
