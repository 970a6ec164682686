"""Arrays in `.npz` files: read without pickle and without surprise, written byte for byte alike.

`numpy.load` allocates what a header promises and inflates what a zip promises; `read` believes
neither. `.npy` format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import errno
import io
import os
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple, Union

import numpy as np

from edgec.errors import InputError

STAMP = (1980, 1, 1, 0, 0, 0)
MODE = 0o100644 << 16
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # a compression that zipfile does not know
    OverflowError,
    RuntimeError,
    ValueError,
)
_HINT = "Write it with numpy.savez and plain numeric arrays."


def read(source: Union[bytes, Path], label: str) -> Dict[str, Any]:
    """The arrays of an `.npz` file by name (dtype bool, integer or float, C order).

    Bytes come from a bundle and must be stored; a user's own file (a path) may be compressed.
    Raises InputError with `label`: no zip, truncated, object arrays (pickle), other dtypes.
    """
    handle: Union[str, io.BytesIO] = (
        io.BytesIO(source) if isinstance(source, bytes) else str(source)
    )
    trusted = not isinstance(source, bytes)
    found: Dict[str, Any] = {}
    try:
        with zipfile.ZipFile(handle) as archive:
            members = archive.infolist()
            if not trusted:
                _refuse_compressed(members, len(source), label)  # type: ignore[arg-type]
            for member in members:
                name = member.filename
                name = name[:-4] if name.endswith(".npy") else name
                if name in found:
                    raise InputError("{}: {!r} stands there twice".format(label, name), hint=_HINT)
                found[name] = _array(archive.read(member), label + ": " + name)
    # zipfile raises NotImplementedError for a compression that it does not know, RuntimeError for
    # an encrypted member, ValueError for places before the file's begin and names that are no text
    except _DAMAGED as error:
        message = "{}: no readable .npz file: {}".format(label, error)
        raise InputError(message, hint="It may be truncated. " + _HINT) from error
    except OSError as error:
        message = "{}: cannot be read: {}".format(label, error.strerror or error)
        raise InputError(message, hint="Check the path and the permissions.") from error
    return found


def _refuse_compressed(members: "List[zipfile.ZipInfo]", size: int, label: str) -> None:
    stored = all(
        member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        for member in members
    )
    if not stored or sum(member.file_size for member in members) > size:
        raise InputError(label + ": compressed arrays are not allowed here", hint=_HINT)


def _array(data: bytes, label: str) -> Any:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # a hostile header can raise anything that a parser raises
        raise InputError(label + ": the array's header is damaged", hint=_HINT) from error
    if dtype.hasobject:
        message = label + ": a pickled (object) array is refused: unpickling runs code"
        raise InputError(message, hint=_HINT)
    if dtype.kind not in "biuf" or dtype.names or dtype.subdtype:
        raise InputError("{}: dtype {} is not supported".format(label, dtype), hint=_HINT)
    rest = len(data) - stream.tell()
    if any(size < 0 for size in shape) or _product(shape) * dtype.itemsize != rest:
        message = "{}: shape {} does not fit {} bytes of data".format(label, shape, rest)
        raise InputError(message, hint="It may be truncated. " + _HINT)
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    array = flat.reshape(shape, order="F" if fortran else "C")
    return np.array(array, dtype=dtype.newbyteorder("="), order="C")


def _product(shape: Tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def dump(arrays: Mapping[str, Any]) -> bytes:
    """An `.npz` file as bytes: the same for the same arrays, on every day and machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(name + ".npy", STAMP)
            member.external_attr, member.create_system = MODE, 3
            content = io.BytesIO()
            array = np.asarray(arrays[name], order="C")
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            archive.writestr(member, content.getvalue())
    return buffer.getvalue()


def write(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an `.npz` file under a temporary name beside `path`, then rename it."""
    write_bytes(path, dump(arrays))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name beside `path`, then rename it.

    Raises InputError where that is not possible.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=str(path.parent), prefix="." + path.name + ".")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o644)
            os.replace(temporary, str(path))
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, error) from error


def check_writable(path: Path) -> None:
    """Raises InputError where `write_bytes` would, but for a disk that is full by then."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.NamedTemporaryFile(dir=str(path.parent), prefix="." + path.name + "."):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    message = "cannot write {}: {}".format(path, error.strerror or error)
    return InputError(message, hint="Choose a folder that exists, is writable and has room.")
