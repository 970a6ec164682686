"""`manifest.json`: parsed, checked against the schema and against itself, before anything is used.

Every doubt is an `InputError` that names the place; nothing else escapes from `parse`.
"""

import json
import math
import pkgutil
import re
from collections import Counter
from typing import Any, Dict, Iterator, List, Mapping, NoReturn, Set, Tuple

import numpy as np

from edgec.errors import InputError
from edgec.runtime.schema import first_error

NAME = "manifest.json"
SCHEMA_VERSION = 1
MAX_BYTES = 64 << 20
DAMAGED = "The bundle is damaged or was not written by edgec: build it again or copy it again."


def refuse(message: str, hint: str = DAMAGED) -> NoReturn:
    """Raise the error of a bundle that cannot be trusted."""
    raise InputError(message, hint=hint)


def schema() -> Dict[str, Any]:
    """The published JSON schema of the manifest (draft 2020-12)."""
    document: Dict[str, Any] = json.loads(pkgutil.get_data("edgec", "bundle.schema.json") or b"")
    return document


def parse(data: bytes) -> Dict[str, Any]:
    """The manifest in `data` (UTF-8 JSON).

    Raises InputError: not JSON, duplicate keys, numbers that are not finite, too deep or too long,
    a newer schema, a structure that the schema forbids, engines that do not fit together.
    """
    if len(data) > MAX_BYTES:
        refuse("manifest.json has {} bytes, more than {}".format(len(data), MAX_BYTES))
    try:
        manifest = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_not_finite,
            parse_float=_finite,
            parse_int=_integer,
        )
    except (ValueError, RecursionError) as error:
        refuse("manifest.json is not valid JSON: {}".format(str(error)[:200]))
    if not isinstance(manifest, dict):
        refuse("manifest.json: expected an object")
    check(manifest)
    return manifest


def check(manifest: Dict[str, Any]) -> None:
    """Check the version, the structure, and that files, engines and values fit together."""
    _check_version(manifest)
    error = first_error(manifest, schema())
    if error:
        refuse("manifest.json: " + error)
    for problem in _contradictions(manifest):
        refuse("manifest.json: " + problem)


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key {!r}".format(_repeated([key for key, _ in pairs])[0][:80]))
    return found


def _not_finite(text: str) -> NoReturn:
    raise ValueError(text + " is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text[:80] + " is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 19:
        raise ValueError(text[:20] + "... is too large")
    return int(text)


def _check_version(manifest: Dict[str, Any]) -> None:
    version = manifest.get("schema")
    if not isinstance(version, int) or isinstance(version, bool):
        refuse("manifest.json: schema: expected a version number")
    if version > SCHEMA_VERSION:
        tool = manifest.get("tool")
        written = tool.get("version") if isinstance(tool, dict) else None
        known = isinstance(written, str) and re.match(r"[0-9][0-9A-Za-z.+-]{0,40}\Z", written)
        need = "edgec>={}".format(written) if known else "a newer edgec"
        refuse(
            "this bundle has manifest schema {}, this edgec reads up to {}: it needs {}".format(
                version, SCHEMA_VERSION, need
            ),
            "pip install --upgrade '{}', or let the bundle run itself: "
            "python3 BUNDLE verify".format(need if known else "edgec"),
        )


def _contradictions(manifest: Dict[str, Any]) -> Iterator[str]:
    yield from _file_problems(manifest)
    inputs = [value["name"] for value in manifest["inputs"]]
    outputs = [value["name"] for value in manifest["outputs"]]
    for what, names in (
        ("inputs", inputs),
        ("outputs", outputs),
        ("engines", [engine["name"] for engine in manifest["engines"]]),
        ("parts", [part["name"] for part in manifest["parts"]]),
    ):
        for name in _repeated(names):
            yield "{}: {!r} stands there twice".format(what, name)
    for value in manifest["inputs"]:
        bounds = value.get("range")
        if bounds is not None and len(bounds) != len(value["shape"]):
            yield "input {!r}: range and shape differ in length".format(value["name"])
        if any(pair is not None and pair[0] > pair[1] for pair in bounds or ()):
            yield "input {!r}: a range ends before it begins".format(value["name"])
    known = set(inputs)
    for engine in manifest["engines"]:
        label = "engine {!r}".format(engine["name"])
        for name in engine["inputs"]:
            if name not in known:
                yield "{} reads {!r}, which nothing before it makes".format(label, name)
        for name in engine["outputs"]:
            if name in known:
                yield "{} makes {!r}, which exists already".format(label, name)
            known.add(name)
    for name in outputs:
        if name not in known:
            yield "output {!r} is made by no engine".format(name)
    yield from _bucket_problems(manifest)


def _bucket_problems(manifest: Dict[str, Any]) -> Iterator[str]:
    """What would make trimming change a result, or break the engines."""
    entry = manifest.get("buckets")
    if entry is None:
        return
    inputs = {value["name"]: value for value in manifest["inputs"]}
    outputs = {value["name"]: value for value in manifest["outputs"]}
    misplaced = list(_misplaced(entry["inputs"], inputs, "input"))
    misplaced += _misplaced(entry["outputs"], outputs, "output")
    if entry["mask"] not in [row["name"] for row in entry["inputs"]]:
        misplaced.append("mask {!r} is not among its inputs".format(entry["mask"]))
    if misplaced:  # the questions below take the places for granted
        yield from ("buckets: " + problem for problem in misplaced)
        return
    sizes = entry["sizes"]
    if sizes != sorted(set(sizes)):
        yield "buckets: the sizes do not ascend"
    dimensions = {inputs[row["name"]]["shape"][row["axis"]] for row in entry["inputs"]}
    yield from _unlisted(entry["inputs"], inputs, dimensions, "input")
    yield from _unlisted(entry["outputs"], outputs, dimensions, "output")
    if inputs[entry["mask"]]["shape"][1:] != [entry["dimension"]]:
        yield "buckets: mask {!r} is not [rows, {}]".format(entry["mask"], entry["dimension"])
    for row in entry["inputs"]:
        value = inputs[row["name"]]
        low, high = (value["range"][row["axis"]] if value.get("range") else None) or (1, math.inf)
        for size in sizes:
            if not low <= size <= high:
                yield "buckets: size {} is out of the range of {!r}".format(size, row["name"])
        if not _holds(value["dtype"], row["pad"]) or (row["pad"] and row["name"] == entry["mask"]):
            yield "buckets: input {!r} cannot be padded with {}".format(row["name"], row["pad"])


def _misplaced(
    rows: List[Dict[str, Any]], values: Mapping[str, Dict[str, Any]], what: str
) -> Iterator[str]:
    """Rows that name no value, one twice, or a dimension that is not there or does not vary.

    What the manifest says of an output's shape is only what the model claims; `serve` looks at it.
    """
    for name in _repeated([row["name"] for row in rows]):
        yield "{} {!r} stands there twice".format(what, name)
    for row in rows:
        label = "{} {!r}".format(what, row["name"])
        shape = values[row["name"]]["shape"] if row["name"] in values else None
        if shape is None:
            yield label + " is none of the model's"
        elif what == "output":
            continue
        elif row["axis"] >= len(shape):
            yield "{} has no dimension {}".format(label, row["axis"])
        elif isinstance(shape[row["axis"]], int):
            yield "{} is fixed in dimension {}".format(label, row["axis"])


def _unlisted(
    rows: List[Dict[str, Any]],
    values: Mapping[str, Dict[str, Any]],
    dimensions: Set[str],
    what: str,
) -> Iterator[str]:
    """Values that have the dimension where no row says so: they would no longer fit the others."""
    listed = {(row["name"], row["axis"]) for row in rows}
    for name, value in values.items():
        for axis, dim in enumerate(value["shape"]):
            if dim in dimensions and (name, axis) not in listed:
                text = "buckets: {} {!r} has {} in dimension {}, which is not listed"
                yield text.format(what, name, dim, axis)


def _holds(dtype: str, pad: int) -> bool:
    """Whether an array of this dtype holds the number."""
    if dtype == "bool":
        return pad in (0, 1)
    if dtype.startswith("float"):
        return abs(pad) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return bool(limits.min <= pad <= limits.max)


def _file_problems(manifest: Dict[str, Any]) -> Iterator[str]:
    files = manifest["files"]
    golden = manifest["golden"]
    wanted = [golden[key] for key in ("inputs", "outputs", "float") if key in golden]
    for engine in manifest["engines"]:
        wanted += [engine["artifact"]] + engine["data_files"]
    spares = manifest.get("spares", {})
    for engine in manifest["engines"]:
        for plugin in engine.get("build", {}).get("plugins", ()):
            wanted += [plugin["cubin"], plugin["launch"]]
        for step in engine.get("build", {}).get("steps", ()):
            wanted += [step["cache"]] if "cache" in step else []
            wanted += [] if step["model"] in spares else [step["model"]]
    for name in wanted:
        if name not in files:
            yield "files: {!r} is used but not listed".format(name)
    for name in sorted(set(spares) & set(files)):
        yield "spares: {!r} is in the bundle".format(name)
    if NAME in files:
        yield "files: manifest.json cannot list itself"
    for name in _repeated([name.lower() for name in files]):
        yield "files: {!r} stands there twice, differing at most in case".format(name)
    for name in files:
        parents = name.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if "/".join(parents[:depth]) in files:
                yield "files: {!r} is a file and a folder".format("/".join(parents[:depth]))


def _repeated(names: List[str]) -> List[str]:
    return [name for name, count in Counter(names).items() if count > 1]
