"""What a recipe's readers share: bytes of a file, the graph's order of axes, pieces of schema."""

import os
import stat
from importlib import import_module
from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy as np

from edgec.errors import InputError, ToolchainError

Spec = Mapping[str, Any]  # a reader's table in recipe.json
Asset = Callable[[str], bytes]  # what lies in the bundle under a name

HUGE = 1e30
FLOATS = ["float32", "float16", "float64"]
INTEGERS = ["int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"]
DTYPES = FLOATS + INTEGERS + ["bool"]


def number(**bounds: float) -> Dict[str, Any]:
    """The schema of a finite number, for instance `number(minimum=0)`."""
    return dict({"type": "number", "minimum": -HUGE, "maximum": HUGE}, **bounds)


def integer(low: int, high: int) -> Dict[str, Any]:
    """The schema of an integer between two bounds."""
    return {"type": "integer", "minimum": low, "maximum": high}


def choice(*words: str) -> Dict[str, Any]:
    """The schema of one word of several."""
    return {"type": "string", "enum": list(words)}


def several(items: Spec, low: int, high: int) -> Dict[str, Any]:
    """The schema of an array of `low` to `high` items."""
    return {"type": "array", "items": dict(items), "minItems": low, "maxItems": high}


def table(properties: Spec, optional: Sequence[str] = ()) -> Dict[str, Any]:
    """The schema of an object with just these keys, all there but the optional ones."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [key for key in properties if key not in optional],
        "additionalProperties": False,
    }


def reader_table(
    kind: str,
    options: Spec,
    roles: Sequence[str],
    layouts: Sequence[str],
    dtypes: Sequence[str],
    optional: Sequence[str] = (),
) -> Dict[str, Any]:
    """The schema of a bound reader: its options, and for each role the graph input that it feeds.

    `layout` is one letter per dimension; n is the batch, which is one.
    """
    name = {"type": "string", "minLength": 1, "maxLength": 1024}
    feed = table({"name": name, "dtype": choice(*dtypes), "layout": choice(*layouts)})
    inputs = table(dict.fromkeys(roles, feed), optional=roles[1:])
    properties = dict(options, kind={"const": kind}, column=name, inputs=inputs)
    return table(properties, optional)


def require(module: str, package: str, what: str) -> Any:
    """A module of an optional package. Raises ToolchainError that says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        why = "is not installed" if missing else "cannot be imported: {}".format(error)
        message = "{} needs the package {}, which {}".format(what, package, why)
        raise ToolchainError(message, hint="pip install " + package) from error


def content(item: Any, label: str, most: int) -> bytes:
    """The bytes of a file (a path), or bytes as they are.

    Raises InputError: no such file, no regular file, not readable, more than `most` bytes.
    """
    if isinstance(item, (bytes, bytearray, memoryview)):
        data = bytes(item)
    elif isinstance(item, (str, os.PathLike)):
        data = _file(os.fspath(item), label, most)
    else:
        message = "{}: expected a path or bytes, got {}".format(label, type(item).__name__)
        raise InputError(message, hint="Give the file's path.")
    if len(data) > most:
        message = "{}: more than {} MB are not read".format(label, most >> 20)
        raise InputError(message, hint="Give a smaller file.")
    return data


def _file(path: Any, label: str, most: int) -> bytes:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block, a device never end
            raise InputError(label + ": not a file", hint="Give the path of a file.")
        with open(path, "rb") as stream:
            return stream.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        message = "{}: cannot be read: {}".format(label, getattr(error, "strerror", 0) or error)
        raise InputError(message, hint="Check the path and the permissions.") from error


def arrange(array: Any, axes: str, layout: str) -> Any:
    """`array` with its `axes`, one letter each, in the order of `layout`, C-contiguous.

    What the layout has beyond the array, such as the batch, has size one.
    """
    kept: List[int] = [axes.index(letter) for letter in layout if letter in axes]
    array = array.transpose(kept)
    for place, letter in enumerate(layout):
        if letter not in axes:
            array = np.expand_dims(array, place)
    return np.ascontiguousarray(array)
