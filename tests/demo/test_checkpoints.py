"""The two file formats: what is read, and above all what is refused."""

import io
import json
import os
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from edgec.demo.checkpoints import read_safetensors, read_torch
from edgec.errors import InputError

PRELUDE = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
VALUES = np.arange(12, dtype=np.float32)


class Tensor:
    """Stands for a tensor in the pickles below: a view into storage "7" of 12 numbers."""

    def __init__(self, offset, shape, strides, count=12):
        self.place = (Storage(count), offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.place


class Storage:
    def __init__(self, count):
        self.count = count


class Pickler(pickle.Pickler):
    def persistent_id(self, item):
        if isinstance(item, Storage):
            return ("storage", sys.modules["torch"].FloatStorage, "7", "cpu", item.count, None)
        return None


@pytest.fixture
def write(monkeypatch):
    """Write a checkpoint as torch < 1.6 did, with a stand-in for the names it refers to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2():
        raise AssertionError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    def write(state, prelude=PRELUDE):
        file = io.BytesIO()
        for item in prelude:
            pickle.dump(item, file, protocol=2)
        Pickler(file, protocol=2).dump(state)
        pickle.dump(["7"], file, protocol=2)
        file.write(struct.pack("<q", VALUES.size) + VALUES.tobytes())
        file.seek(0)
        return file

    return write


def test_reads_views_of_a_storage(write):
    state = OrderedDict(
        plain=Tensor(0, (3, 4), (4, 1)), turned=Tensor(0, (4, 3), (1, 4)), one=Tensor(5, (), ())
    )
    tensors = read_torch(write(state))
    assert list(tensors) == ["plain", "turned", "one"]
    np.testing.assert_array_equal(tensors["plain"], VALUES.reshape(3, 4))
    np.testing.assert_array_equal(tensors["turned"], VALUES.reshape(3, 4).T)
    assert tensors["one"] == 5


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Evaluated:
    def __reduce__(self):
        return eval, ("1 + 1",)


def test_a_pickle_that_runs_code_is_refused(write, tmp_path: Path):
    target = tmp_path / "owned"
    with pytest.raises(InputError, match=r"posix\.mkdir: refused"):
        read_torch(write(OrderedDict(weight=Attack(target))))
    assert not target.exists()


def test_a_builtin_in_the_prelude_is_refused(write):
    with pytest.raises(InputError, match=r"eval: refused"):
        read_torch(write(OrderedDict(), prelude=(Evaluated(),)))


def test_other_names_of_torch_are_refused():
    file = io.BytesIO()
    for item in PRELUDE:
        pickle.dump(item, file, protocol=2)
    file.write(b"\x80\x02ctorch.hub\nload\n.")
    file.seek(0)
    with pytest.raises(InputError, match=r"torch\.hub\.load: refused"):
        read_torch(file)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (Tensor(0, (4, 4), (4, 1)), "leaves its storage"),
        (Tensor(12, (), ()), "leaves its storage"),
        (Tensor(-1, (2,), (1,)), "leaves its storage"),
        (Tensor(11, (2,), (-1,)), "leaves its storage"),
        (Tensor(0, (12,), (1,), count=1 << 40), "truncated"),
        ("text", "not a plain state dict"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused(write, tensor, reason):
    with pytest.raises(InputError, match=reason):
        read_torch(write(OrderedDict(weight=tensor)))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"\x80\x02K\x01."])
def test_another_file_is_refused(content):
    with pytest.raises(InputError):
        read_torch(io.BytesIO(content))


def safetensors(header):
    text = json.dumps(header).encode()
    return io.BytesIO(struct.pack("<Q", len(text)) + text + VALUES.tobytes())


def entry(shape, start, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_reads_safetensors():
    file = safetensors({"__metadata__": {"format": "pt"}, "a": entry([2, 3], 24, 48)})
    tensors = read_safetensors(file)
    np.testing.assert_array_equal(tensors["a"], VALUES[6:].reshape(2, 3))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (safetensors({"a": entry([12], 0, 96)}), "a does not fit"),
        (safetensors({"a": entry([11], 0, 48)}), "a does not fit"),
        (safetensors({"a": entry([1], -4, 0)}), "a does not fit"),
        (safetensors({"a": entry([12], 0, 48, "BF16")}), "cannot be read"),
        (io.BytesIO(struct.pack("<Q", 1 << 60)), "header is too long"),
        (io.BytesIO(b"abc"), "cannot be read"),
    ],
)
def test_a_bad_safetensors_file_is_refused(file, reason):
    with pytest.raises(InputError, match=reason):
        read_safetensors(file)
