"""First and second moments of what weights are multiplied by, reduced inside the graph, streaming.

    S = sum of [x; 1] [x; 1]^T   over the rows x of a product's input, a Conv's patches (per group)

So S holds the second moments, the sums and, in its corner, the number of vectors.

A Conv whose kernel has a single 1 per output unfolds the patches, so that only H leaves the session
and memory does not depend on the number of samples. Layers are done in groups whose H fit a limit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from edgec.graphs import add_initialiser, attribute, save, weight
from edgec.isolate import call
from edgec.reference import Reference
from edgec.samples import Input, stream
from edgec.types import Graph

Moments = Mapping[str, np.ndarray]  # S, float64 [G, K + 1, K + 1], by the name of the node
SHRINKAGE = 0.03  # of moments of few vectors
BYTES = 64 << 20  # of the moments that are gathered in one pass over the samples


@dataclass(frozen=True)
class Unfolding:
    """How a value `x` becomes the vectors that a weight is multiplied by: [groups, size] each.

    `turned`: x is [size, rows] instead of [..., size]. `kernel`: of a Conv, else empty, and what
    follows is as in ONNX.
    """

    x: str
    groups: int
    size: int
    turned: bool = False
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    auto_pad: str = "NOTSET"

    @property
    def bytes(self) -> int:
        """Of the moments in float64."""
        return 8 * self.groups * (self.size + 1) ** 2

    @property
    def plain(self) -> bool:
        """Whether the patches of a Conv are its pixels."""
        return {*self.kernel, *self.strides} == {1} and not any(self.pads)


def second_moments(
    graph: Graph,
    nodes: Sequence[str],
    files: Sequence[Path],
    inputs: Sequence[Input],
    threads: int,
    most: int = BYTES,
) -> Iterator[tuple[str, np.ndarray]]:
    """S, float64 [G, K + 1, K + 1], of `nodes` that are Conv, Gemm or MatMul with constant weights.

    K: the rows of the weight of a product (G = 1), or of a Conv with G groups C / G times the taps
    of its kernel, in the order of its weight. `most`: bytes of moments at once; a larger one goes
    alone. Nodes that read the same vectors get the same array. What overflows is not finite.
    """
    wanted, readers = set(nodes), dict[Unfolding, list[str]]()
    for node in graph.model.graph:
        found = unfolding(node) if node.name in wanted else None
        if found is not None:
            readers.setdefault(found, []).append(str(node.name))
    for group in _groups(list(readers), most) if files else []:
        with tempfile.TemporaryDirectory(prefix="edgec-moments-") as folder:
            path = Path(folder) / "moments.onnx"
            save(_reduced(graph.model, group), path)
            gathered = call(_gather, path, list(files), list(inputs), group, threads)
        for found, moment in zip(group, gathered, strict=True):
            for name in readers[found]:
                yield name, moment


def mean(sums: np.ndarray) -> np.ndarray:
    """E[x], float64 [G, K], of S [G, K + 1, K + 1]."""
    return np.asarray(sums[:, -1, :-1] / sums[:, -1, -1:])


def divided(sums: np.ndarray, by: np.ndarray | None) -> np.ndarray:
    """S of x / `by` [G, K], of S [G, K + 1, K + 1] of x."""
    if by is None:
        return sums
    by = np.concatenate([by, np.ones((len(by), 1))], axis=1)
    return np.asarray(sums / (by[:, :, None] * by[:, None, :]))


def shrunk(sums: np.ndarray, *, centred: bool) -> np.ndarray:
    """E[x x^T], float64 [G, K, K], of S [G, K + 1, K + 1]; `centred`: of x - E[x] instead.

    Of n vectors, SHRINKAGE * K / n of the mean diagonal is added to the diagonal: a few vectors say
    little of most directions.
    """
    count, size = sums[:, -1, -1, None, None], sums.shape[-1] - 1
    found = np.asarray(sums[:, :-1, :-1] / count)
    if centred:
        own = mean(sums)
        found -= own[:, :, None] * own[:, None, :]
    places = np.arange(size)
    diagonal = np.trace(found, axis1=1, axis2=2)[:, None] / size
    found[:, places, places] += SHRINKAGE * size / count[:, 0] * diagonal
    return found


class Stored(Mapping[str, np.ndarray]):
    """Moments on disk, mapped into memory when asked for: those of a large model do not fit.

    Weights that were rounded by them are kept beside them, for every process of a build.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: a new folder, which has to outlive this."""
        folder.mkdir()
        self.rounded = folder / "rounded"
        self.rounded.mkdir()
        self._folder, self._paths = folder, dict[str, Path]()

    def add(self, found: Iterable[tuple[str, np.ndarray]]) -> None:
        """Keep what `second_moments` yields."""
        last, path = None, self._folder
        for name, moment in found:
            if moment is not last:
                last, path = moment, self._folder / f"{len(self._paths):06}.npy"
                np.save(path, moment)
            self._paths[name] = path

    def __getitem__(self, name: str) -> np.ndarray:
        return np.load(self._paths[name], mmap_mode="r")  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def unfolding(node: ir.Node) -> Unfolding | None:
    """What a node's weight is multiplied by; None where this module does not know."""
    value, x = weight(node), node.inputs[0] if node.inputs else None
    shape = value.shape.numpy() if value is not None and value.shape is not None else ()
    if x is None or len(shape) < 2:
        return None
    name = str(x.name)
    if node.op_type == "MatMul" and len(shape) == 2:
        return Unfolding(name, 1, shape[0])
    if node.op_type == "Gemm":
        size = shape[1] if attribute(node, "transB", 0) else shape[0]
        return Unfolding(name, 1, size, turned=bool(attribute(node, "transA", 0)))
    if node.op_type != "Conv":
        return None
    kernel = shape[2:]
    ones = (1,) * len(kernel)
    padding = node.attributes.get("auto_pad")
    auto = "NOTSET" if padding is None else padding.as_string()
    return Unfolding(
        name,
        attribute(node, "group", 1),
        int(np.prod(shape[1:])),
        kernel=kernel,
        strides=_integers(node, "strides", ones),
        pads=_integers(node, "pads", 2 * (0,) * len(kernel)) if auto == "NOTSET" else (),
        dilations=_integers(node, "dilations", ones),
        auto_pad=auto,
    )


def _integers(node: ir.Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    found = node.attributes.get(name)
    return default if found is None else tuple(found.as_ints())


def _groups(found: Sequence[Unfolding], most: int) -> Iterator[list[Unfolding]]:
    group: list[Unfolding] = []
    for one in found:
        if group and sum(other.bytes for other in group) + one.bytes > most:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _reduced(source: ir.Model, group: Sequence[Unfolding]) -> ir.Model:
    """A model whose outputs are, for every unfolding, the sums of x x^T and x, and how many."""
    model = source.clone()
    values = ir.convenience.create_value_mapping(model.graph, include_subgraphs=False)
    model.graph.outputs.clear()
    for index, found in enumerate(group):
        outputs = _Chain(model, values[found.x], _names(index)[0]).reduce(found)
        for value, name in zip(outputs, _names(index), strict=True):
            value.name = name
        model.graph.outputs.extend(outputs)
    common.RemoveUnusedNodesPass()(model)
    return model


def _names(index: int) -> tuple[str, str, str]:
    name = f"edgec_moment_{index}"
    return name, f"{name}_sum", f"{name}_size"


class _Chain:
    """Appends one node after another to a graph; `value` is what the last one made."""

    def __init__(self, model: ir.Model, value: ir.Value, name: str) -> None:
        self._model, self._name, self._count = model, name, 0
        self.value = value

    def reduce(self, found: Unfolding) -> tuple[ir.Value, ir.Value, ir.Value]:
        """The sums of x x^T and of x over one sample, and how many numbers its vectors are."""
        self._add("Cast", to=int(ir.DataType.FLOAT))
        if found.kernel:
            if not found.plain:
                self._unfold(found)
            self._reshape(0, found.groups, found.size, -1)
            self._add("Transpose", perm=[1, 2, 0, 3])
        elif not found.turned:
            self._reshape(-1, found.size)
            self._add("Transpose", perm=[1, 0])
        vectors = self._reshape(found.groups, found.size, -1)
        turned = self._add("Transpose", perm=[0, 2, 1])
        second = self._add("MatMul", vectors, turned)
        second.dtype = ir.DataType.FLOAT
        first = self._add("ReduceSum", vectors, self._constant(np.array([2])), keepdims=0)
        first.dtype = ir.DataType.FLOAT
        size = self._add("Size", vectors)
        size.dtype = ir.DataType.INT64
        return second, first, size

    def _unfold(self, found: Unfolding) -> None:
        """A Conv that copies: one output per channel and tap."""
        taps = int(np.prod(found.kernel))
        channels = found.groups * found.size // taps
        one_hot = np.tile(np.eye(taps, dtype=np.float32), (channels, 1))
        kernel = one_hot.reshape(channels * taps, 1, *found.kernel)
        attributes: dict[str, int | str | list[int]] = {
            "group": channels,
            "strides": list(found.strides),
            "dilations": list(found.dilations),
            "auto_pad": found.auto_pad,
        }
        if found.auto_pad == "NOTSET":
            attributes["pads"] = list(found.pads)
        self._add("Conv", self.value, self._constant(kernel), **attributes)

    def _reshape(self, *sizes: int) -> ir.Value:
        """0 keeps a dimension, -1 takes what is left."""
        return self._add("Reshape", self.value, self._constant(np.array(sizes, np.int64)))

    def _add(
        self, op_type: str, *inputs: ir.Value, **attributes: int | str | list[int]
    ) -> ir.Value:
        node = ir.node(op_type, inputs or (self.value,), attributes, name=self._free())
        node.outputs[0].name = node.name
        self._model.graph.append(node)
        self.value = node.outputs[0]
        return self.value

    def _constant(self, array: np.ndarray) -> ir.Value:
        return add_initialiser(self._model, self._free(), array)

    def _free(self) -> str:
        self._count += 1
        return f"{self._name}_{self._count}"


def _gather(
    path: Path,
    files: Sequence[Path],
    inputs: Sequence[Input],
    found: Sequence[Unfolding],
    threads: int,
) -> list[np.ndarray]:
    """One pass over the samples."""
    reference = Reference(path, threads)
    names = [_names(index) for index in range(len(found))]
    sums = [np.zeros((one.groups, one.size + 1, one.size + 1)) for one in found]
    for feeds in stream(files, inputs):
        made = reference.run(feeds, [name for own in names for name in own])
        for total, own, one in zip(sums, names, found, strict=True):
            second, first, size = (made[name] for name in own)
            total[:, :-1, :-1] += second
            total[:, -1, :-1] += first
            total[:, -1, -1] += int(size) / (one.groups * one.size)
    for total in sums:
        total[:, :-1, -1] = total[:, -1, :-1]
    return sums
