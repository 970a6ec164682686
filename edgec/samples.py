"""Calibration and verification data: a folder of `.npz` files, one or more samples each.

The arrays of a file carry the names of the graph's inputs. Everything is checked before anything
is used: names, dtypes, shapes, finite values. Files are split into calibration and verification
by their order (every third verifies), so that the two never mix and a second build splits alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec.errors import InputError, UnsupportedError
from edgec.graphs import is_constant
from edgec.runtime import npz
from edgec.types import Feeds, Graph, Range

VERIFY_EVERY = 3
SYNTHETIC = 4
DEFAULT_TOKENS = 32
DEFAULT_IMAGE = 224
NUMERIC = frozenset(
    {
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT16,
        ir.DataType.BOOL,
        *(
            getattr(ir.DataType, f"{sign}INT{bits}")
            for sign in ("", "U")
            for bits in (8, 16, 32, 64)
        ),
    }
)


@dataclass(frozen=True)
class Input:
    """A graph input: dtype as numpy has it, and the dimensions with their bounds, if any."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...] | None
    ranges: tuple[Range, ...]


@dataclass(frozen=True)
class Samples:
    """Files to calibrate on and files to verify on; `origin` says where they come from."""

    calibration: tuple[Path, ...]
    verification: tuple[Path, ...]
    fingerprint: str
    origin: str

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, in order of name."""
        return tuple(sorted((*self.calibration, *self.verification)))


def inputs(graph: Graph) -> tuple[Input, ...]:
    """The inputs that a caller must feed, initialisers excluded."""
    weights = set(graph.model.graph.initializers)
    found = []
    for value in graph.model.graph.inputs:
        if value.name in weights:
            continue
        dtype = _check_type(value, "input")
        shape = None
        if value.shape is not None:
            shape = tuple(d if isinstance(d, int) else str(d.value or "?") for d in value.shape)
        name = str(value.name)
        found.append(Input(name, dtype.numpy(), shape, tuple(graph.shapes.get(name, ()))))
    if not found:
        raise UnsupportedError(
            "the model has no inputs", hint="there is nothing to compile: run it once instead"
        )
    known = {one.name for one in found}
    for value in graph.model.graph.outputs:
        _check_type(value, "output")
        if value.name in known:
            raise UnsupportedError(
                f"output {value.name!r} is an input handed through, or stands there twice",
                hint="remove it from the model's outputs",
            )
        known.add(str(value.name))
    return tuple(found)


def _check_type(value: ir.Value, what: str) -> ir.DataType:
    """The type of an input or output, which must be a numeric tensor that numpy can hold."""
    tensor = value.type is None or isinstance(value.type, ir.TensorType)
    if tensor and value.dtype is None and what == "input":
        raise InputError(f"input {value.name!r} has no type", hint="export the model again")
    if not tensor or (value.dtype is not None and value.dtype not in NUMERIC):
        kind = value.dtype.name.lower() if tensor and value.dtype is not None else "no tensor"
        raise UnsupportedError(
            f"{what} {value.name!r} is {kind}, which a bundle cannot pass",
            hint="cut the model so that its inputs and outputs are float, integer or bool tensors",
        )
    return value.dtype or ir.DataType.FLOAT


def open_samples(folder: Path, needs: Sequence[Input], most: int) -> Samples:
    """Check the first `most` files of a folder. Raises InputError with file and input name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder", hint="give a folder of .npz files")
    files = sorted(path for path in folder.iterdir() if path.suffix == ".npz")[:most]
    if not files:
        raise InputError(
            f"{folder}: holds no .npz files",
            hint="write samples with numpy.savez(file, **{input name: array, …}); inputs: "
            + ", ".join(f"{need.name} {need.dtype} {_text(need.shape)}" for need in needs),
        )
    if len(files) < 2:
        raise InputError(
            f"{folder}: one sample cannot both calibrate and verify",
            hint="give at least two files; 32 to 128 are usual",
        )
    digest = hashlib.sha256()
    for path in files:
        for name, array in sorted(read(path, needs).items()):
            digest.update(f"{path.name}\0{name}\0{array.dtype}\0{array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array).data)
    verify = [path for i, path in enumerate(files) if i % VERIFY_EVERY == 1]
    return Samples(
        calibration=tuple(path for path in files if path not in set(verify)),
        verification=tuple(verify),
        fingerprint=digest.hexdigest(),
        origin=f"{len(files)} files",
    )


def read(path: Path, needs: Sequence[Input]) -> Feeds:
    """One sample file as feeds, checked against the graph's inputs."""
    arrays = npz.read(path, str(path))
    for need in needs:
        if need.name not in arrays:
            raise InputError(
                f"{path}: input {need.name!r} is missing",
                hint=f"the file holds {', '.join(sorted(arrays)) or 'nothing'}",
            )
    extra = sorted(set(arrays) - {need.name for need in needs})
    if extra:
        raise InputError(
            f"{path}: {extra[0]!r} is not an input of the model",
            hint="the inputs are " + ", ".join(need.name for need in needs),
        )
    sizes: dict[str, int] = {}
    for need in needs:
        _check(path, need, arrays[need.name], sizes)
    return arrays


def stream(files: Sequence[Path], needs: Sequence[Input]) -> Iterator[Feeds]:
    """The samples of some files, one at a time."""
    for path in files:
        yield read(path, needs)


def synthetic(graph: Graph, folder: Path, count: int = SYNTHETIC) -> Samples:
    """Seeded made-up samples, for a build without data; they show breakage, not accuracy."""
    model, needs = graph.model, inputs(graph)
    generator = np.random.default_rng(0)
    files = []
    for index in range(count):
        sizes: dict[str, int] = {}
        for need in needs:
            if need.shape is None:
                raise InputError(
                    f"input {need.name!r} has no shape, so that no sample can be made up for it",
                    hint=f"give --data FOLDER, or --shape {need.name}=1x…",
                )
        feeds = {need.name: _invent(model, need, generator, sizes) for need in needs}
        path = folder / f"synthetic_{index}.npz"
        npz.write(path, feeds)
        files.append(path)
    return Samples((), tuple(files), "synthetic", "synthetic inputs")


def _check(path: Path, need: Input, array: np.ndarray, sizes: dict[str, int]) -> None:
    where = f"{path}: input {need.name!r}"
    if array.dtype != need.dtype:
        raise InputError(
            f"{where} is {array.dtype}, the model wants {need.dtype}",
            hint=f"convert it with .astype('{need.dtype}')",
        )
    if need.shape is not None:
        fits = len(need.shape) == array.ndim and all(
            not isinstance(dim, int) or dim == size
            for dim, size in zip(need.shape, array.shape, strict=True)
        )
        if not fits or 0 in array.shape:
            raise InputError(
                f"{where} has shape {_text(array.shape)}, the model wants {_text(need.shape)}",
                hint="a sample has the batch dimension too, usually 1",
            )
        for dim, size in zip(need.shape, array.shape, strict=True):
            if isinstance(dim, str) and dim != "?" and sizes.setdefault(dim, size) != size:
                raise InputError(
                    f"{where} has {dim} = {size}, another input has {sizes[dim]}",
                    hint="dimensions of one name must agree within a file",
                )
    for axis, bounds in enumerate(need.ranges):
        if not bounds.low <= array.shape[axis] <= bounds.high:
            raise InputError(
                f"{where} has {array.shape[axis]} in dimension {axis}, "
                f"--shape allows {bounds.low} to {bounds.high}",
                hint="widen --shape, or leave the file out",
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where} holds NaN or infinity", hint="leave the file out, or repair it")


def _invent(
    model: ir.Model, need: Input, generator: np.random.Generator, sizes: dict[str, int]
) -> np.ndarray:
    shape = []
    for axis, dim in enumerate(need.shape or ()):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        size = need.ranges[axis].high if need.ranges else _usual(need, axis)
        shape.append(size if dim == "?" else sizes.setdefault(dim, size))
    if need.dtype.kind == "f":
        return generator.standard_normal(shape).astype(need.dtype)
    if need.dtype.kind == "b":
        return np.ones(shape, np.bool_)
    return generator.integers(0, _bound(model, need.name), shape).astype(need.dtype)


def _usual(need: Input, axis: int) -> int:
    if axis == 0:
        return 1
    return DEFAULT_IMAGE if need.dtype.kind == "f" and axis >= 2 else DEFAULT_TOKENS


def _bound(model: ir.Model, name: str) -> int:
    """One past the largest index that an integer input may hold; masks stay below two."""
    value = next(v for v in model.graph.inputs if v.name == name)
    if "mask" in name.lower():
        return 2
    for use in value.uses():
        if use.node.op_type == "Gather" and use.idx == 1:
            table = use.node.inputs[0]
            if is_constant(table) and table is not None and table.shape is not None:
                rows = table.shape[0]
                return rows if isinstance(rows, int) else 2
    return 2


def _text(shape: Sequence[int | str] | None) -> str:
    return "unknown" if shape is None else "x".join(map(str, shape))
