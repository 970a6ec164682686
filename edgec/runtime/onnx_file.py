"""What a model file is, and where ONNX keeps external data, read from the bytes without onnx.

onnxruntime 1.19 (the newest for Python 3.8) opens external data anywhere on the device, and
resolves it against the working folder for a model in memory; OpenVINO follows links out of the
folder. So the runtime looks first.
Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
A model in onnxruntime's own format (`.ort`, a flatbuffer) holds all its weights in itself.
"""

import mmap
import os
import re
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
_REBUILD = "Build the bundle again with this version of edgec."
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


def check_external(model: Union[bytes, Path], label: str) -> None:
    """Whether all external data are files in the model's folder.

    Raises InputError: no ONNX model, data that are missing, or that lie elsewhere (an absolute
    path, a way up, a link out of the folder; a model that is a link itself may have its data beside
    the file that it stands for).
    """
    for location in sorted(external_files(model, label)):
        safe = location and location[0] not in "/\\" and ":" not in location
        if not safe or ".." in re.split(r"[/\\]", location):
            raise _outside(label, location)
        if isinstance(model, bytes):
            message = "{} needs the data file {!r}, which is not listed".format(
                label, location[:200]
            )
            raise InputError(message, hint=_REBUILD)
        check_beside(model, location, label)


def check_beside(model: Path, location: str, label: str) -> None:
    """Whether a file is there and within the model's folder, links followed. Else InputError."""
    path = model.parent / location
    if not path.is_file():
        message = "{} needs the data file {!r}, which is missing".format(label, location[:200])
        raise InputError(message, hint="Copy the data file into the model's folder.")
    homes = {os.path.realpath(str(model.parent)), os.path.dirname(os.path.realpath(str(model)))}
    found = os.path.realpath(str(path))
    if not any(found.startswith(os.path.join(home, "")) for home in homes):
        raise _outside(label, location)


def _outside(label: str, location: str) -> InputError:
    message = "{} keeps weights outside its folder: {!r}".format(label, location[:200])
    return InputError(message, hint="Do not open models from a source that you do not trust.")


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
