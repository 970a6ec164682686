"""Numbers as they are: what a graph takes beside pictures, texts and sounds."""

import json
from typing import Any, Dict

import numpy as np

from edgec.errors import InputError
from edgec.runtime.reading import DTYPES, Asset, Spec, number, reader_table, several

LAYOUTS = ["as given"]
SIZE = {"type": ["integer", "null"], "minimum": 1, "maximum": 1 << 30}
OPTIONS = {"shape": several(SIZE, 0, 32), "value": number()}
SCHEMA = reader_table("numbers", OPTIONS, ["numbers"], LAYOUTS, DTYPES, ["value"])
MOST = 1 << 24
_HINT = "Give a number, or a list of numbers; the batch dimension may be left out."


class NumbersReader:
    """Reads a number, nested lists of numbers, their JSON text, or an array; or is a constant."""

    takes = "numbers"
    opens_files = False

    def __init__(self, spec: Spec, asset: Asset) -> None:
        """Raises InputError where a constant has no fixed shape, or does not fit the dtype."""
        self._spec = spec
        self.constant = None
        if "value" in spec:
            if None in spec["shape"]:
                message = "input {!r} is not fixed in shape".format(self._feed["name"])
                raise InputError(message, hint="A constant needs it: fix it with --shape.")
            size = float(np.prod(np.array(spec["shape"], np.float64)))
            if size > MOST:
                raise InputError("{:g} constants are too many".format(size), hint=_HINT)
            self.constant = self._cast(
                np.broadcast_to(_numbers(spec["value"], "value"), spec["shape"]), "value"
            )

    @property
    def _feed(self) -> Spec:
        feed: Spec = self._spec["inputs"]["numbers"]
        return feed

    def read(self, item: Any, label: str) -> Dict[str, Any]:
        """One sample. Raises InputError naming `label`: no numbers, another shape, not held by the
        input's dtype.
        """
        if self.constant is not None:
            return {self._feed["name"]: self.constant.copy()}
        array = self._cast(_numbers(item, label), label)
        wanted = self._spec["shape"]
        if array.ndim == len(wanted) - 1:
            array = array[None]
        fits = array.ndim == len(wanted) and all(
            size is None or size == found for size, found in zip(wanted, array.shape)
        )
        if not fits:
            text = "x".join("?" if size is None else str(size) for size in wanted) or "one number"
            message = "{}: shape {}, the input wants {}".format(label, list(array.shape), text)
            raise InputError(message, hint=_HINT)
        return {self._feed["name"]: np.ascontiguousarray(array) if array.ndim else array}

    def _cast(self, array: Any, label: str) -> Any:
        dtype = np.dtype(self._feed["dtype"])
        with np.errstate(all="ignore"):
            made = array.astype(dtype)
        exact = np.isfinite(made).all() if dtype.kind == "f" else np.array_equal(made, array)
        if not exact:
            message = "{}: numbers that {} does not hold".format(label, dtype)
            raise InputError(message, hint=_HINT)
        return made


def _numbers(item: Any, label: str) -> Any:
    if isinstance(item, str):
        try:
            item = json.loads(item)
        except (ValueError, RecursionError) as error:
            raise InputError(label + ": no numbers in JSON", hint=_HINT) from error
    try:
        array = np.asarray(item)
    except (ValueError, OverflowError, RecursionError) as error:  # a ragged list
        raise InputError("{}: {}".format(label, str(error)[:200]), hint=_HINT) from error
    if array.dtype.kind not in "biuf":
        raise InputError(label + ": not numbers", hint=_HINT)
    return array
