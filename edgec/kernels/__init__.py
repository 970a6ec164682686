"""Custom ops: a folder each, with a declaration, a reference, and kernels of their own.

    kernel.toml     what the op takes and gives; checked against `kernel.schema.json`
    reference.txt   the op as an ONNX function: inlined, it runs on every backend
    onnxruntime.cc  and others, named by kernel.toml: native kernels, which are an optimisation

What the op computes is the reference's say: a native kernel that differs from it is refused by the
build (`edgec.kernels.choose`). Shipped ops lie in `kernels/`, a user's where --kernels says.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from edgec import data
from edgec.errors import InputError

FILE = "kernel.toml"
SCHEMA = Path(__file__).parents[1] / "kernel.schema.json"
OPSET = 17  # of references: the oldest that a canonical graph has
LONGEST = 1 << 20  # bytes of a declaration or a reference
NATIVE = ("onnxruntime", "tensorrt")  # backends that take native kernels

Shape = str | tuple[str | int, ...]  # see `kernel.schema.json`


@dataclass(frozen=True)
class Kernel:
    """A custom op. `sources`: by backend, the files of its native kernel by what they are.

    `inputs`, `outputs`, `attributes`: types by name, in order.
    """

    folder: Path
    domain: str
    name: str
    summary: str
    function: onnx.FunctionProto
    tolerance: float
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    attributes: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)
    fuses: bool = False

    @property
    def key(self) -> str:
        """How the op is called: domain::name."""
        return f"{self.domain}::{self.name}"

    @property
    def digest(self) -> str:
        """Of the reference, and so of what the op computes."""
        text = self.function.SerializeToString(deterministic=True)
        return hashlib.sha256(text).hexdigest()[:16]


Kernels = Mapping[str, Kernel]  # by key


def find(folder: Path | None = None) -> dict[str, Kernel]:
    """The shipped ops and those of a user's folder, which go before them.

    `folder`: of one op, or of several. Raises InputError for one that is not sound.
    """
    found = {one.key: one for one in _shipped()}
    own: dict[str, Kernel] = {}
    for one in map(read, _folders(folder) if folder is not None else ()):
        if one.key in own:
            raise InputError(
                f"{one.folder}: {one.key} is also what {own[one.key].folder} declares",
                hint="give one of them another name or domain",
            )
        own[one.key] = one
    return found | own


def _folders(folder: Path) -> list[Path]:
    if (folder / FILE).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{FILE}")) if folder.is_dir() else []
    if not found:
        raise InputError(
            f"--kernels {folder}: neither it nor a folder in it has a {FILE}",
            hint="tools/new-kernel writes such a folder",
        )
    return found


@functools.cache
def _shipped() -> tuple[Kernel, ...]:
    """Their declarations are checked by the tests: jsonschema takes long to be imported."""
    found = sorted(data.folder("kernels").glob(f"*/{FILE}"))
    return tuple(read(path.parent, checked=True) for path in found)


def read(folder: Path, *, checked: bool = False) -> Kernel:
    """The op of a folder. Raises InputError that names what is wrong with it.

    `checked`: its declaration is known to keep to the schema.
    """
    path = folder / FILE
    try:
        page = tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise _wrong(path, f"not TOML: {error}") from error
    if not checked:
        _check(path, page)
    sources = {
        backend: {what: _inside(folder, path, name) for what, name in page[backend].items()}
        for backend in NATIVE
        if backend in page
    }
    kernel = Kernel(
        folder=folder,
        domain=page["domain"],
        name=page["name"],
        summary=page["summary"],
        function=_reference(_inside(folder, path, page["reference"])),
        tolerance=float(page["tolerance"]),
        inputs=page["inputs"],
        outputs=page["outputs"],
        attributes=page.get("attributes", {}),
        shapes={
            name: tuple(shape) if isinstance(shape, list) else shape
            for name, shape in page.get("shapes", {}).items()
        },
        sources=sources,
        fuses=page.get("fuses", False),
    )
    _agree(path, kernel)
    return kernel


def _check(path: Path, page: Mapping[str, Any]) -> None:
    import jsonschema

    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(page)
    problem = jsonschema.exceptions.best_match(errors)
    if problem is not None:
        where = ".".join(str(one) for one in problem.absolute_path) or "the file"
        raise _wrong(path, f"{where}: {problem.message[:300]}")
    if page["domain"] in ("ai.onnx", "ai.onnx.ml", "com.microsoft", "edgec"):
        raise _wrong(path, f"domain: {page['domain']} belongs to others")


def _reference(path: Path) -> onnx.FunctionProto:
    try:
        return onnx.parser.parse_function(_text(path))
    except (onnx.parser.ParseError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise _wrong(path, f"not an ONNX function: {' '.join(lines)[:300]}") from error


def _agree(path: Path, kernel: Kernel) -> None:
    """Whether the reference is what the declaration says, and can be inlined anywhere."""
    function = kernel.function
    given = {one.name: one for one in function.attribute_proto}
    kinds = {"int": onnx.AttributeProto.INT, "float": onnx.AttributeProto.FLOAT}
    for what, declared, found in (
        ("domain", [kernel.domain], [function.domain]),
        ("name", [kernel.name], [function.name]),
        ("inputs", list(kernel.inputs), list(function.input)),
        ("outputs", list(kernel.outputs), list(function.output)),
        ("attributes", sorted(kernel.attributes), sorted([*function.attribute, *given])),
    ):
        if declared != found:
            raise _wrong(
                path, f"{what}: {', '.join(declared)} here, and {', '.join(found)} in the reference"
            )
    for name, kind in kernel.attributes.items():
        if name in given and given[name].type != kinds[kind]:
            raise _wrong(path, f"attributes.{name}: its default in the reference is no {kind}")
    opsets = {one.domain: one.version for one in function.opset_import}
    if opsets != {"": OPSET}:
        raise _wrong(path, f'the reference has to be written at opset_import: ["" : {OPSET}]')
    for name, shape in kernel.shapes.items():
        sizes = [shape] if isinstance(shape, str) else [s for s in shape if isinstance(s, str)]
        unknown = [s for s in sizes if s != "?" and s.partition(".")[0] not in kernel.inputs]
        if name not in kernel.outputs or unknown:
            raise _wrong(path, f"shapes.{name}: it is of no output, or follows no input")
    for node in function.node:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, OPSET, ""):
            raise _wrong(
                path, f"{node.op_type} in the reference is no operator of ONNX at opset {OPSET}"
            )


def _inside(folder: Path, path: Path, name: str) -> Path:
    found = folder / name
    if not found.is_file() or found.resolve().parent != folder.resolve():
        raise _wrong(path, f"{name} is no file of this folder")
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LONGEST:
            raise _wrong(path, f"larger than {LONGEST} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(path, f"cannot be read: {error}") from error


def _wrong(path: Path, problem: str) -> InputError:
    hint = f"compare it with the ops that come with edgec, and with {SCHEMA.name}"
    return InputError(f"{path}: {problem}", hint=hint)
