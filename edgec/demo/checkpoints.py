"""Read weights out of the two file formats of the towers, without running anything in them.

A PyTorch checkpoint is a pickle, and a pickle is a program: `read_torch` knows the four names
that a plain state dict needs and refuses every other one.
Sources: the module `torch.serialization` (its legacy format, used before PyTorch 1.6) and the
"Format" section of the safetensors README.
"""

import json
import math
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import InputError

Tensors = dict[str, npt.NDArray[Any]]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
}
_SAFETENSORS: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
_HEADER_LIMIT = 16 * 1024 * 1024
_HINT = "the file is not one that the demonstration uses; delete the cache folder and try again"


@dataclass(frozen=True)
class _Storage:
    """A block of numbers that follows the pickle, known by its key."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _View:
    """A tensor: a strided view into a storage. Offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(
    storage: _Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    requires_grad: bool,
    hooks: object,
) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
    """An unpickler that can build a state dict and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise InputError(f"the checkpoint asks for {module}.{name}: refused", hint=_HINT)

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(), int(count), None):
                return _Storage(key, dtype, count)
        raise InputError("the checkpoint holds a reference of an unknown kind", hint=_HINT)


def read_torch(file: IO[bytes]) -> Tensors:
    """Read a state dict in PyTorch's legacy format: name -> array (float32 or int64).

    Raises InputError for anything that is not a plain state dict.
    """
    try:
        if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
            raise InputError("not a PyTorch checkpoint in the legacy format", hint=_HINT)
        _Unpickler(file).load()
        state = _Unpickler(file).load()
        storages = _storages(state)
        data = {key: _block(file, storages[key]) for key in _Unpickler(file).load()}
        return {name: _array(view, data) for name, view in state.items()}
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the checkpoint cannot be read: {error}", hint=_HINT) from error


def _storages(state: Mapping[str, _View]) -> dict[str, _Storage]:
    for name, view in state.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise InputError("the checkpoint is not a plain state dict", hint=_HINT)
    return {view.storage.key: view.storage for view in state.values()}


def _block(file: IO[bytes], storage: _Storage) -> npt.NDArray[Any]:
    (count,) = struct.unpack("<q", file.read(8))
    size = storage.count * storage.dtype.itemsize
    raw = file.read(size)
    if count != storage.count or len(raw) != size:
        raise InputError("the checkpoint is truncated", hint=_HINT)
    return np.frombuffer(raw, storage.dtype)


def _array(view: _View, data: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    block = data[view.storage.key]
    last = view.offset + sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
    if min((view.offset, *view.shape, *view.strides)) < 0 or last >= block.size:
        raise InputError("a tensor of the checkpoint leaves its storage", hint=_HINT)
    steps = tuple(stride * block.itemsize for stride in view.strides)
    return np.lib.stride_tricks.as_strided(block[view.offset :], view.shape, steps, writeable=False)


def read_safetensors(file: IO[bytes]) -> Tensors:
    """Read a safetensors file: name -> array (float32 or int64). Raises InputError."""
    try:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _HEADER_LIMIT:
            raise InputError("the safetensors header is too long", hint=_HINT)
        header = json.loads(file.read(size))
        body = file.read()
        header.pop("__metadata__", None)
        return {name: _slice(body, name, entry) for name, entry in header.items()}
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the safetensors file cannot be read: {error}", hint=_HINT) from error


def _slice(body: bytes, name: str, entry: Mapping[str, Any]) -> npt.NDArray[Any]:
    dtype: np.dtype[Any] = _SAFETENSORS[entry["dtype"]]
    shape = tuple(int(n) for n in entry["shape"])
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= len(body) or end - start != math.prod(shape) * dtype.itemsize:
        raise InputError(f"tensor {name} does not fit into the safetensors file", hint=_HINT)
    return np.frombuffer(body, dtype, math.prod(shape), start).reshape(shape)
