"""Calibration and verification data: `.npz` files, or what a recipe makes into such files.

The arrays of a file carry the names of the graph's inputs. Everything is checked before anything
is used: names, dtypes, shapes, finite values. Files are split into calibration and verification
by their order (every third verifies), so that the two never mix and a second build splits alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgec import sources
from edgec.binding import Bound
from edgec.errors import InputError, InternalError
from edgec.graphs import is_constant
from edgec.inputs import Input as Input
from edgec.inputs import inputs as inputs
from edgec.rows import digest as digest_of
from edgec.rows import spread
from edgec.runtime import npz
from edgec.runtime.recipe import KINDS
from edgec.types import Feeds, Graph

VERIFY_EVERY = 3
SYNTHETIC = 4
DEFAULT_TOKENS = 32
DEFAULT_IMAGE = 224
NO_RECIPE = Bound()


@dataclass(frozen=True)
class Seen:
    """What was seen of a file when it was checked: see `rows.digest`; shapes by input name."""

    digest: str
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, feeds: Feeds) -> Seen:
        """Of the arrays of a file."""
        return cls(digest_of(feeds), {name: array.shape for name, array in feeds.items()})


@dataclass(frozen=True)
class Samples:
    """Files to calibrate on and files to verify on; `origin` says where they come from.

    `recipe` made them of raw data, if it has readers, and goes into the bundle. `seen`: by file,
    so that a large sample is not read and hashed over and over.
    """

    calibration: tuple[Path, ...]
    verification: tuple[Path, ...]
    fingerprint: str
    origin: str
    recipe: Bound = NO_RECIPE
    seen: Mapping[Path, Seen] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, in order of name."""
        return tuple(sorted((*self.calibration, *self.verification)))


def open_samples(
    source: Path,
    needs: Sequence[Input],
    most: int,
    recipe: Bound = NO_RECIPE,
    into: Path | None = None,
) -> Samples:
    """Check, and where the recipe has readers prepare, at most `most` samples.

    `source`: a folder of `.npz` files, or what `sources.rows` takes; `into`: an empty folder for
    prepared samples. Raises InputError with file, line or column, and input name.
    """
    if recipe.readers:
        if into is None:
            raise InternalError("a recipe needs a folder for its samples")
        found = sources.rows(source, recipe.readers)
        if found:
            return _prepared(spread(found, most), len(found), needs, recipe, into)
        if not any(source.glob("*.npz")):
            takes = "; ".join(
                f"{name}: {' '.join(KINDS[spec['kind']].suffixes) or 'numbers'}"
                for name, spec in recipe.readers.items()
            )
            raise InputError(
                f"{source}: holds nothing that recipe {recipe.page['name']} reads",
                hint=f"it reads {takes}; or give .npz files",
            )
    return _arrays(source, needs, most, recipe)


def _prepared(
    rows: Sequence[sources.Row], all_rows: int, needs: Sequence[Input], recipe: Bound, into: Path
) -> Samples:
    """Run the recipe's readers, once, so that every later stage reads plain arrays.

    A prepared file has the name of what it was made from, in a numbered folder: messages of later
    stages, and labels by file name, go by that name.
    """
    if len(rows) < 2:
        raise _too_few(rows[0].where)
    readers, seen = recipe.open(), dict[Path, Seen]()
    for index, row in enumerate(rows):
        feeds = readers.prepare(row.items, row.labels)
        check_all(row.where, feeds, needs)
        path = into / f"{index:06}" / row.name
        path.parent.mkdir(parents=True)
        npz.write(path, feeds)
        seen[path] = Seen.of(feeds)
    order = {group: i for i, group in enumerate(dict.fromkeys(row.group for row in rows))}
    alike = len(order) == 1
    ordinals = [i if alike else order[row.group] for i, row in enumerate(rows)]
    return _split(seen, ordinals, _origin(len(rows), all_rows, "samples"), recipe)


def _arrays(folder: Path, needs: Sequence[Input], most: int, recipe: Bound) -> Samples:
    found = arrays(folder, needs)
    files = spread(found, most)
    if len(files) < 2:
        raise _too_few(str(folder))
    seen = {path: Seen.of(read(path, needs)) for path in files}
    return _split(seen, range(len(files)), _origin(len(files), len(found), "files"), recipe)


def _origin(taken: int, found: int, what: str) -> str:
    return f"{taken} of {found} {what}" if taken < found else f"{taken} {what}"


def arrays(folder: Path, needs: Sequence[Input]) -> list[Path]:
    """The `.npz` files of a folder, in order. Raises InputError where there are none."""
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder",
            hint="give a folder of .npz files, or other data with --recipe",
        )
    files = sorted(path for path in folder.iterdir() if path.suffix == ".npz")
    if not files:
        raise InputError(
            f"{folder}: holds no .npz files",
            hint="write samples with numpy.savez(file, **{input name: array, …}); inputs: "
            + ", ".join(f"{need.name} {need.dtype} {_text(need.shape)}" for need in needs)
            + "; or give pictures, texts or sounds with --recipe",
        )
    return files


def _too_few(where: str) -> InputError:
    return InputError(
        f"{where}: one sample cannot both calibrate and verify",
        hint="give at least two files; 32 to 128 are usual",
    )


def _split(
    seen: Mapping[Path, Seen], ordinals: Sequence[int], origin: str, recipe: Bound
) -> Samples:
    """Every third of the ordinals verifies; files of one ordinal stay together."""
    files = list(seen)
    digest = hashlib.sha256(recipe.fingerprint.encode())
    for path, one in seen.items():
        digest.update(f"{path.name}\0{one.digest}\0".encode())
    verifies = [ordinal % VERIFY_EVERY == 1 for ordinal in ordinals]
    return Samples(
        calibration=tuple(path for path, yes in zip(files, verifies, strict=True) if not yes),
        verification=tuple(path for path, yes in zip(files, verifies, strict=True) if yes),
        fingerprint=digest.hexdigest(),
        origin=origin,
        recipe=recipe,
        seen=seen,
    )


def read(path: Path, needs: Sequence[Input]) -> Feeds:
    """One sample file as feeds, checked against the graph's inputs."""
    arrays = npz.read(path, str(path))
    check_all(str(path), arrays, needs)
    return arrays


def stream(files: Sequence[Path], needs: Sequence[Input]) -> Iterator[Feeds]:
    """The samples of some files, one at a time."""
    for path in files:
        yield read(path, needs)


def synthetic(
    graph: Graph, folder: Path, count: int = SYNTHETIC, recipe: Bound = NO_RECIPE
) -> Samples:
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
    return Samples((), tuple(files), "synthetic", "synthetic inputs", recipe)


def check_all(where: str, arrays: Feeds, needs: Sequence[Input]) -> None:
    """One sample's arrays against the graph's inputs. Raises InputError, beginning with `where`."""
    for need in needs:
        if need.name not in arrays:
            raise InputError(
                f"{where}: input {need.name!r} is missing",
                hint=f"the file holds {', '.join(sorted(arrays)) or 'nothing'}",
            )
    extra = sorted(set(arrays) - {need.name for need in needs})
    if extra:
        raise InputError(
            f"{where}: {extra[0]!r} is not an input of the model",
            hint="the inputs are " + ", ".join(need.name for need in needs),
        )
    sizes: dict[str, int] = {}
    for need in needs:
        _check(f"{where}: input {need.name!r}", need, arrays[need.name], sizes)


def _check(where: str, need: Input, array: np.ndarray, sizes: dict[str, int]) -> None:
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
