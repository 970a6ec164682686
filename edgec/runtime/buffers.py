"""Arrays of the caller's that results are written into, instead of new ones.

Native code writes there without asking, so whatever could damage memory or the inputs is refused.
"""

from typing import Any, Dict, List, Mapping, NoReturn, Tuple

import numpy as np

from edgec.errors import InputError


def check(out: Mapping[str, Any], feeds: Mapping[str, Any]) -> None:
    """Whether each array of `out`, by output name, may be written to by an engine.

    Raises InputError naming the output: no array, not C-contiguous, not writable, not aligned or
    not in this machine's byte order, or memory that a feed or another array of `out` may share.
    """
    taken: List[Tuple[str, Any]] = [
        ("input {!r}".format(name), array)
        for name, array in feeds.items()
        if isinstance(array, np.ndarray)
    ]
    for name, array in out.items():
        label = "output {!r}".format(name)
        if not isinstance(array, np.ndarray):
            _refuse(label, "expected a numpy array, got " + type(array).__name__)
        flags = array.flags
        if not (flags.c_contiguous and flags.writeable and flags.aligned):
            _refuse(label, "the array must be C-contiguous, writable and aligned")
        if not array.dtype.isnative or array.dtype.hasobject:
            _refuse(label, "dtype {} cannot be written to".format(array.dtype.str))
        for other, held in taken:
            if np.may_share_memory(array, held):
                _refuse(label, "it may share memory with " + other)
        taken.append((label, array))


def fill(out: Mapping[str, Any], made: Dict[str, Any]) -> None:
    """Copy into `out` what an engine could not write there itself, and put it into `made`.

    Raises InputError where dtype or shape differ.
    """
    for name, array in out.items():
        got = made[name]
        if got is array:
            continue
        if got.dtype != array.dtype or got.shape != array.shape:
            misfit(name, array, "{}{}".format(got.dtype, list(got.shape)))
        np.copyto(array, got)
        made[name] = array


def misfit(name: str, array: Any, made: str) -> NoReturn:
    """Raise the error of an array that the output does not fit into."""
    text = "the array is {}{}, the engine makes {}".format(array.dtype, list(array.shape), made)
    _refuse("output {!r}".format(name), text)


def _refuse(label: str, why: str) -> NoReturn:
    hint = "Give an array like the one that run returns: numpy.empty_like(result)."
    raise InputError("{}: {}".format(label, why), hint=hint)
