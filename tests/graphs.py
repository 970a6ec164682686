"""The committed fixture models, and random inputs that they would meet in life.

Pictures and spectrograms are smooth, token ids lie within the vocabulary, masks have lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

FIXTURES = Path(__file__).resolve().parent / "fixtures"
HOSTILE = FIXTURES / "hostile"
VOCABULARY = 96

# What a symbolic dimension is when the caller does not say.
DIMS: Mapping[str, int] = {
    "batch": 2,
    "images": 2,
    "texts": 3,
    "sequence": 12,
    "frames": 48,
    "steps": 9,
    "past": 5,
    "height": 32,
    "width": 32,
}
Array = np.ndarray


@dataclass(frozen=True)
class Input:
    """A graph input; symbolic dimensions are str."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str, ...]


def names() -> list[str]:
    """Every fixture that is a good model, by its file name without `.onnx`."""
    return sorted(path.stem for path in FIXTURES.glob("*.onnx"))


def exported() -> list[str]:
    """The models of public libraries, by their names below the folder of fixtures."""
    return sorted(f"library/{path.stem}" for path in (FIXTURES / "library").glob("*.onnx"))


def path(name: str) -> Path:
    """The file of a fixture."""
    return FIXTURES / f"{name}.onnx"


def inputs(name: str) -> list[Input]:
    """The inputs of a fixture that are not initialisers."""
    graph = onnx.load(path(name), load_external_data=False).graph
    constant = {tensor.name for tensor in graph.initializer}
    return [_input(value) for value in graph.input if value.name not in constant]


def _input(value: onnx.ValueInfoProto) -> Input:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return Input(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type), shape)


def load_feeds(name: str, seed: int = 0, **dims: int) -> dict[str, Array]:
    """Random inputs for a fixture; `dims` fixes symbolic dimensions, as in `batch=4`."""
    return feeds(inputs(name), seed, **dims)


def feeds(wanted: Iterable[Input], seed: int = 0, **dims: int) -> dict[str, Array]:
    """Random arrays for inputs, by what their names say that they hold."""
    sizes = {**DIMS, **dims}
    made: dict[str, Array] = {}
    for place, one in enumerate(wanted):
        shape = tuple(_size(dim, axis, sizes) for axis, dim in enumerate(one.shape))
        rng = np.random.default_rng([seed, place])
        if one.name.endswith(("ids", "mask")):
            array = _tokens(one.name, shape, seed)
        elif one.name == "image" and len(shape) == 3:
            array = _smooth(rng, (1, *shape))[0]
        elif one.name in ("h0", "c0"):
            array = rng.normal(0, 0.1, shape)
        elif len(shape) >= 4:
            array = _smooth(rng, shape)
        else:
            array = rng.normal(0, 1, shape)
        made[one.name] = array.astype(one.dtype)
    return made


def _size(dim: int | str, axis: int, sizes: Mapping[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    if dim.startswith("unk_"):  # tf2onnx has no names for them; its pictures are NHWC
        return sizes[("batch", "height", "width")[axis]]
    return sizes[dim]


def write_samples(name: str, folder: Path, count: int, **dims: int) -> Path:
    """Write `count` files of one sample each (batch 1), keyed by input names; return `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    one = {"batch": 1, "images": 1, "texts": 1, **dims}
    wanted = inputs(name)
    for number in range(count):
        arrays = feeds(wanted, 1000 + number, **one)
        np.savez(folder / f"sample_{number:04}.npz", **arrays)  # type: ignore[arg-type]
    return folder


def _tokens(name: str, shape: tuple[int, ...], seed: int) -> Array:
    """Ids between 2 and the vocabulary's end, the largest id last, then padding; or its mask."""
    rng = np.random.default_rng([seed, 99])
    batch, length = shape
    ends = rng.integers(min(3, length), length + 1, batch)[:, None]
    at = np.arange(length)[None]
    if name == "mask":
        return (at < ends).astype(np.int64)
    ids = rng.integers(2, VOCABULARY - 1, shape)
    ids = np.where(at == ends - 1, VOCABULARY - 1, ids)
    return np.where(at < ends, ids, 0)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Pictures as they come normalised: waves over the larger axes in some colours, a little
    noise, brightness and contrast that differ, and no value beyond 2.5.
    """
    space = [axis for axis in range(1, len(shape)) if shape[axis] > 4]
    colours = tuple(size if axis not in space else 1 for axis, size in enumerate(shape))
    total = np.zeros(shape)
    for _ in range(4):
        phase = rng.uniform(0, 2 * np.pi, (shape[0], *[1] * (len(shape) - 1)))
        for axis in space:
            ramp = np.linspace(0, 2 * np.pi, shape[axis])
            ramp = np.expand_dims(ramp, [other for other in range(len(shape)) if other != axis])
            phase = phase + ramp * rng.uniform(-4, 4, (shape[0], *[1] * (len(shape) - 1)))
        total = total + rng.uniform(-1, 1, colours) * np.sin(phase)
    total = total / total.std(axis=tuple(range(1, len(shape))), keepdims=True)
    total = total * rng.uniform(0.5, 1.0, (shape[0], *[1] * (len(shape) - 1)))
    total = total + rng.uniform(-0.8, 0.8, colours) + rng.normal(0, 0.05, shape)
    return np.clip(total, -2.5, 2.5)
