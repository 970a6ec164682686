"""Padding that the mask excludes is not computed: captions run at a few sizes near their length.

`serve` cuts the inputs of a sequence behind the last column that any row's mask keeps, pads them
to the next size of the manifest's `buckets`, runs, and gives outputs that keep the dimension their
length back. What the engines see follows from the columns in use alone, so a result does not
depend on how much padding was fed. The sizes are few because some backends compile kernels, or
whole engines, for each shape; what is longer than the largest runs at its own length.
"""

from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgec.errors import InputError
from edgec.runtime.values import Value


class Axis(NamedTuple):
    """Where an input or output has the dimension; `pad` fills the columns that are not in use."""

    name: str
    axis: int
    pad: int = 0


class Buckets(NamedTuple):
    """One dimension that varies, and the sizes at which it runs, ascending; none: at any size.

    `mask` is an input [rows, columns] of ones and zeros, and one of `inputs`. `low` and `high` are
    the sizes that the graph takes; `high` 0: any.
    """

    dimension: str
    mask: str
    inputs: Tuple[Axis, ...]
    outputs: Tuple[Axis, ...] = ()
    sizes: Tuple[int, ...] = ()
    low: int = 1
    high: int = 0

    def size(self, length: int) -> int:
        """How many columns run where `length` are in use."""
        return next((size for size in self.sizes if size >= length), max(length, self.low))

    def __str__(self) -> str:
        text = "{} is cut to what {} keeps".format(self.dimension, self.mask)
        if self.sizes:
            text += ", in sizes " + ", ".join(map(str, self.sizes))
        return text


Run = Callable[[Dict[str, Any]], Dict[str, Any]]


def serve(run: Run, feeds: Mapping[str, Any], buckets: Optional[Buckets]) -> Dict[str, Any]:
    """What `run` makes of the fitted feeds, in the length that was fed; None: of the feeds.

    An output that keeps the dimension holds zeros behind the last column in use. Raises InputError
    as `fit` does, and where such an output has another size than what ran.
    """
    if buckets is None:
        return run(dict(feeds))
    fed, length, size = _sizes(feeds, buckets)
    outputs = run(_fitted(feeds, buckets, length, size))
    for one in buckets.outputs:
        array = outputs[one.name]
        if array.ndim <= one.axis or array.shape[one.axis] != size:
            message = "output {!r} has shape {}, without {} = {} in dimension {}".format(
                one.name, list(array.shape), buckets.dimension, size, one.axis
            )
            raise InputError(message, hint="Build the bundle again.")
        outputs[one.name] = resize(array, one, length, fed)
    return outputs


def fit(feeds: Mapping[str, Any], buckets: Buckets) -> Dict[str, Any]:
    """The feeds as the engines take them: the columns in use, then padding up to the next size.

    An array that needs no change is handed on as it is; none is written to. Raises InputError
    where inputs differ in length, or more columns are in use than the graph takes.
    """
    _, length, size = _sizes(feeds, buckets)
    return _fitted(feeds, buckets, length, size)


def used(feeds: Mapping[str, Any], buckets: Buckets) -> int:
    """How many columns are in use: up to the last that the mask keeps in any row, at least one."""
    columns = np.flatnonzero(feeds[buckets.mask].any(axis=0))
    return int(columns[-1]) + 1 if columns.size else 1


def resize(array: Any, one: Axis, keep: int, size: int) -> Any:
    """`size` columns: the first `keep` are the array's, the others padding.

    The array itself where that changes nothing, else a new one.
    """
    before = array.shape[one.axis]
    if before == keep == size:
        return array
    shape = list(array.shape)
    shape[one.axis] = size
    made = np.full(shape, one.pad, array.dtype)
    place = (slice(None),) * one.axis + (slice(min(keep, before, size)),)
    made[place] = array[place]
    return made


def mute(
    outputs: Mapping[str, Any], feeds: Mapping[str, Any], buckets: Optional[Buckets]
) -> Dict[str, Any]:
    """The outputs of a model that saw the feeds as they are, with the zeros that `serve` gives."""
    found = dict(outputs)
    if buckets is not None:
        length = used(feeds, buckets)
        for one in buckets.outputs:
            array = found[one.name]
            found[one.name] = resize(array, one, length, array.shape[one.axis])
    return found


def _sizes(feeds: Mapping[str, Any], buckets: Buckets) -> Tuple[int, int, int]:
    """Columns that were fed, that are in use, and that run."""
    fed = feeds[buckets.mask].shape[1]
    for one in buckets.inputs:
        found = feeds[one.name].shape[one.axis]
        if found != fed:
            message = "{} is {} in input {!r} and {} in input {!r}".format(
                buckets.dimension, found, one.name, fed, buckets.mask
            )
            raise InputError(message, hint="Pad both to the same length.")
    length = used(feeds, buckets)
    size = buckets.size(length)
    if buckets.high and size > buckets.high:
        message = "input {!r}: {} = {} is in use, the model takes up to {}".format(
            buckets.mask, buckets.dimension, length, buckets.high
        )
        raise InputError(message, hint="Feed less, or build again with a wider --shape.")
    return fed, length, size


def _fitted(feeds: Mapping[str, Any], buckets: Buckets, length: int, size: int) -> Dict[str, Any]:
    fitted = dict(feeds)
    for one in buckets.inputs:
        fitted[one.name] = resize(feeds[one.name], one, length, size)
    return fitted


def parse(manifest: Mapping[str, Any]) -> Optional[Buckets]:
    """The buckets of a checked manifest, if it has any."""
    entry = manifest.get("buckets")
    if entry is None:
        return None
    ranges = {value["name"]: value.get("range") for value in manifest["inputs"]}
    known = [ranges[row["name"]][row["axis"]] for row in entry["inputs"] if ranges[row["name"]]]
    pairs = [pair for pair in known if pair is not None]
    return Buckets(
        dimension=entry["dimension"],
        mask=entry["mask"],
        inputs=tuple(Axis(row["name"], row["axis"], row["pad"]) for row in entry["inputs"]),
        outputs=tuple(Axis(row["name"], row["axis"]) for row in entry["outputs"]),
        sizes=tuple(entry["sizes"]),
        low=max([1] + [low for low, _ in pairs]),
        high=min([high for _, high in pairs] or [0]),
    )


def as_json(buckets: Buckets) -> Dict[str, Any]:
    """Buckets as a manifest holds them; `low` and `high` follow from the ranges of its inputs."""
    return {
        "dimension": buckets.dimension,
        "mask": buckets.mask,
        "inputs": [{"name": o.name, "axis": o.axis, "pad": o.pad} for o in buckets.inputs],
        "outputs": [{"name": o.name, "axis": o.axis} for o in buckets.outputs],
        "sizes": list(buckets.sizes),
    }


def takes(inputs: Sequence[Value], buckets: Optional[Buckets]) -> Tuple[Value, ...]:
    """The inputs as a caller may feed them: `fit` brings the dimension within its bounds."""
    if buckets is None:
        return tuple(inputs)
    axes = {one.name: one.axis for one in buckets.inputs}
    freed = []
    for value in inputs:
        bounds = list(value.bounds)
        if value.name in axes and bounds:
            bounds[axes[value.name]] = None
        freed.append(value._replace(bounds=tuple(bounds)))
    return tuple(freed)
