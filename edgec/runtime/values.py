"""What a model takes and gives, and whether an array fits."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edgec.errors import InputError

Dim = Union[int, str]


class Value(NamedTuple):
    """An input or output: numpy's dtype name; sizes, or names of sizes that vary.

    `bounds` holds for each dimension the smallest and largest size, or None.
    """

    name: str
    dtype: str
    shape: Tuple[Dim, ...]
    bounds: Tuple[Optional[Tuple[int, int]], ...] = ()

    def __str__(self) -> str:
        sizes = []
        for index, size in enumerate(self.shape):
            pair = self.bounds[index] if self.bounds else None
            free = pair is not None and isinstance(size, str)
            sizes.append("{}={}..{}".format(size, *pair) if free and pair else str(size))
        return "{}: {}[{}]".format(self.name, self.dtype, ", ".join(sizes))


def values(entries: Sequence[Mapping[str, Any]]) -> Tuple[Value, ...]:
    """The values of a manifest's `inputs` or `outputs`."""
    found = []
    for entry in entries:
        bounds = tuple(tuple(pair) if pair else None for pair in entry.get("range") or ())
        found.append(Value(entry["name"], entry["dtype"], tuple(entry["shape"]), bounds))
    return tuple(found)


def fit(feeds: Mapping[str, Any], inputs: Sequence[Value]) -> Dict[str, Any]:
    """The feeds, C-contiguous, once they are known to fit `inputs`.

    Raises InputError naming the input: missing, unknown, no array, other dtype or rank, a size
    that is fixed, out of its range, or different from another one of the same name.
    """
    names = [value.name for value in inputs]
    takes = "The model takes " + "; ".join(str(value) for value in inputs)
    unknown = sorted(str(name) for name in feeds if name not in names)
    if unknown:
        raise InputError("unknown input " + ", ".join(unknown), hint=takes)
    missing = [name for name in names if name not in feeds]
    if missing:
        raise InputError("missing input " + ", ".join(missing), hint=takes)
    sizes: Dict[str, Tuple[int, str]] = {}
    return {value.name: _fit_one(feeds[value.name], value, sizes, takes) for value in inputs}


def _fit_one(array: Any, value: Value, sizes: Dict[str, Tuple[int, str]], takes: str) -> Any:
    label = "input {!r}: ".format(value.name)
    if not isinstance(array, np.ndarray):
        raise InputError(label + "expected a numpy array, got " + type(array).__name__, hint=takes)
    if array.dtype != np.dtype(value.dtype):
        message = label + "expected dtype {}, got {}".format(value.dtype, array.dtype)
        raise InputError(message, hint="Convert it: array.astype({!r})".format(value.dtype))
    if array.ndim != len(value.shape):
        message = label + "expected {} dimensions, got shape {}".format(
            len(value.shape), array.shape
        )
        raise InputError(message, hint=takes)
    for axis, (wanted, size) in enumerate(zip(value.shape, array.shape)):
        problem = _size_problem(wanted, size, value, axis, sizes)
        if problem:
            message = "{}shape {}, dimension {}: {}".format(label, array.shape, axis, problem)
            raise InputError(message, hint=takes)
    return np.ascontiguousarray(array) if array.ndim else array


def _size_problem(
    wanted: Dim, size: int, value: Value, axis: int, sizes: Dict[str, Tuple[int, str]]
) -> Optional[str]:
    if isinstance(wanted, int):
        return None if size == wanted else "expected {}".format(wanted)
    bounds = value.bounds[axis] if value.bounds else None
    if bounds is not None and not bounds[0] <= size <= bounds[1]:
        return "expected {} from {} to {}".format(wanted, *bounds)
    first, where = sizes.setdefault(wanted, (size, value.name))
    if size != first:
        return "{} is {} here and {} in input {!r}".format(wanted, size, first, where)
    return None


def describe(arrays: Mapping[str, Any]) -> List[str]:
    """One line for each array: name, dtype, shape, smallest, largest and first values."""
    lines = []
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        line = "{}: {}{}".format(name, array.dtype, list(array.shape))
        if array.size:
            head = ", ".join("{:.6g}".format(item) for item in array.reshape(-1)[:4].tolist())
            more = ", ..." if array.size > 4 else ""
            line += " min {:.6g} max {:.6g} [{}{}]".format(array.min(), array.max(), head, more)
        lines.append(line)
    return lines
