"""Outputs of one file as samples: where the batch is, and which output a metric means."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgec.errors import InputError

Arrays = Mapping[str, np.ndarray]


def count(feeds: Arrays, outputs: Arrays) -> int:
    """How many samples a file holds: the leading size that inputs and outputs share, else one.

    A detector's boxes [boxes, 4] have no batch; a recurrent state [layers, batch, units] has it
    elsewhere. Where outputs agree on a size that some input has, it is that; where inputs agree on
    one that some output has, it is that.
    """
    leading = [{a.shape[0] for a in side.values() if a.ndim} for side in (feeds, outputs)]
    for one, other in (leading[::-1], leading):
        if len(one) == 1 and one <= other:
            return int(next(iter(one)))
    return 1


def split(array: np.ndarray, samples: int, axis: int = 0) -> list[np.ndarray]:
    """One array a sample, without the batch; empty where the array does not hold so many.

    The array of a file with one sample may come without a batch dimension.
    """
    if array.ndim > axis and array.shape[axis] == samples:
        return list(np.moveaxis(array, axis, 0))
    return [array] if samples == 1 else []


def pick(
    outputs: Arrays, samples: int, name: str, fits: Callable[[np.ndarray], bool], what: str
) -> list[np.ndarray]:
    """The output called `name`, or without one the first that `fits`, as one array a sample.

    Raises InputError where there is none; `what` says what was looked for.
    """
    held = ", ".join(f"{one} {a.dtype}{list(a.shape)}" for one, a in outputs.items())
    if name and name not in outputs:
        raise InputError(f"the model has no output {name!r}", hint=f"its outputs are {held}")
    for one in [name] if name else outputs:
        found = split(outputs[one], samples)
        if found and all(fits(array) for array in found):
            return found
    if name:
        raise InputError(
            f"output {name} {outputs[name].dtype}{list(outputs[name].shape)} of a file with "
            f"{samples} samples is not {what}",
            hint="choose another output, or write a module:function",
        )
    raise InputError(
        f"no output looks like {what}; there are {held}",
        hint="name it with output=NAME, or write a module:function",
    )


def is_scores(array: np.ndarray) -> bool:
    """Whether one sample's array is a float for each of several classes (axes of size 1 aside)."""
    return array.dtype.kind == "f" and array.size > 1 and array.squeeze().ndim == 1


def is_single(array: np.ndarray) -> bool:
    """Whether one sample's array is one float."""
    return array.dtype.kind == "f" and array.size == 1


def is_id(array: np.ndarray) -> bool:
    """Whether one sample's array is one whole number."""
    return array.dtype.kind in "iu" and array.size == 1
