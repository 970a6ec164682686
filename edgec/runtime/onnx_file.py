"""What a model file is, and where ONNX keeps external data, read from the bytes without onnx.

onnxruntime 1.19 (the newest for Python 3.8) opens external data anywhere on the device, and
resolves it against the working folder for a model in memory; so the runtime looks first.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
A model in onnxruntime's own format (`.ort`, a flatbuffer) holds all its weights in itself.
"""

import mmap
from pathlib import Path
from typing import Iterator, List, Set, Tuple, Union

from edgec.errors import InputError

# message -> field number -> message; all other fields are skipped.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_Buffer = Union[bytes, mmap.mmap]
_ORT = b"ORTM"  # the flatbuffer's identifier, behind the offset of its root


def is_ort(model: Union[bytes, Path]) -> bool:
    """Whether the content is in onnxruntime's own format, by the rule that onnxruntime has."""
    if isinstance(model, bytes):
        return model[4:8] == _ORT
    with open(str(model), "rb") as stream:
        return stream.read(8)[4:8] == _ORT


def external_files(model: Union[bytes, Path], label: str) -> Set[str]:
    """The locations (as written) of all external tensors of `model`. InputError: no ONNX model."""
    if isinstance(model, bytes):
        return _locations(model, label)
    with open(str(model), "rb") as stream:
        if not stream.read(1):
            raise _damaged(label)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return _locations(mapped, label)


def _locations(data: _Buffer, label: str) -> Set[str]:
    if data[4:8] == _ORT:
        message = label + " is in onnxruntime's own format, not ONNX"
        raise InputError(message, hint="Use the ONNX model that it was made from.")
    found: Set[str] = set()
    pending: List[Tuple[str, int, int]] = [("model", 0, len(data))]
    try:
        while pending:
            message, begin, end = pending.pop()
            children = _FIELDS[message]
            for field, low, high in _blocks(data, begin, end):
                child = children.get(field)
                if child == "entry":
                    found.update(_entry_locations(data, low, high))
                elif child:
                    pending.append((child, low, high))
    except (IndexError, ValueError) as error:
        raise _damaged(label) from error
    return found


def _entry_locations(data: _Buffer, begin: int, end: int) -> List[str]:
    fields = [(field, data[low:high]) for field, low, high in _blocks(data, begin, end)]
    if (1, b"location") not in fields:
        return []
    return [value.decode("utf-8") for field, value in fields if field == 2] or [""]


def _blocks(data: _Buffer, position: int, end: int) -> Iterator[Tuple[int, int, int]]:
    """Field number, first and last position of each length-delimited field."""
    while position < end:
        key, position = _varint(data, position)
        wire = key & 7
        if wire == 2:
            size, position = _varint(data, position)
            yield key >> 3, position, position + size
            position += size
        elif wire == 0:
            _, position = _varint(data, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError("wire type {}".format(wire))
    if position != end:
        raise ValueError("a field ends behind its message")


def _varint(data: _Buffer, position: int) -> Tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise ValueError("varint too long")


def _damaged(label: str) -> InputError:
    return InputError(label + " is no ONNX model, or is cut off", hint="Write the file again.")
