"""A calibration recipe: how to read a kind of data, how much of it, and how ranges follow.

A recipe without readers takes `.npz` files that hold the graph's own inputs. With readers it turns
pictures, texts and sounds into them; `binding` fits the readers to a graph.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.calibrators import methods
from edgec.data import folder
from edgec.errors import InputError
from edgec.runtime import read_audio, read_image, read_text
from edgec.runtime.reading import choice, number, table
from edgec.runtime.recipe import NAME
from edgec.runtime.schema import first_error
from edgec.types import Method

DEFAULT = "tensors"
KEYS = ("summary", "method", "files")
DEEPEST = 8
AUTO = "auto"
_WORD = {"type": "string", "minLength": 1, "maxLength": 1024}
_PADDING = choice(AUTO, "none", "max")

# What a reader's table may say, by kind: the options of the bound reader as they are, except for
# what follows from the graph.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "image": {
        **read_image.OPTIONS,
        "input": _WORD,
        "layout": choice(AUTO, *read_image.LAYOUTS),
        "color": choice(AUTO, *read_image.CHANNELS),
    },
    "text": {
        "tokenizer": _WORD,
        "special": {"type": "boolean"},
        **dict.fromkeys(read_text.ROLES, _WORD),
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": read_text.MOST_TOKENS},
        "padding": _PADDING,
        "pad_id": {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1},
    },
    "audio": {
        **{k: v for k, v in read_audio.OPTIONS.items() if k != "length"},
        **read_audio.FRAMES,
        **read_audio.MEL,
        "input": _WORD,
        "layout": choice(AUTO, *read_audio.LAYOUTS),
        "max_seconds": number(exclusiveMinimum=0),
        "padding": _PADDING,
    },
    "numbers": {"input": _WORD, "value": number()},
}


@dataclass(frozen=True)
class Recipe:
    """`readers`: by name, what the file says of each; `files`: how many samples are read at most.

    `tokenizer` in a reader is a path if the file was found beside the recipe, else its name.
    """

    name: str
    summary: str
    methods: tuple[Method, ...]
    files: int
    readers: Mapping[str, Mapping[str, Any]]


def names() -> list[str]:
    """The recipes that come with edgec."""
    return sorted(path.stem for path in folder("calibration").glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file. Raises InputError naming file and key."""
    path = _find(name, Path())
    try:
        page = _load(path, ())
        missing = [key for key in KEYS if key not in page]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing")
        error = first_error(dict(page["readers"]), {"$defs": {}, "propertyNames": NAME}, "readers")
        for reader, options in page["readers"].items():
            error = error or _reader_error(f"readers.{reader}", options)
        if error:
            raise ValueError(error)
        return Recipe(
            name=path.stem,
            summary=str(page["summary"]),
            methods=methods(str(page["method"])),
            files=_files(page["files"]),
            readers=page["readers"],
        )
    except ValueError as error:
        raise InputError(f"{path}: {error}", hint="compare it with the recipes of edgec") from error


def _find(name: str, beside: Path) -> Path:
    path = beside / name
    if path.suffix != ".toml":
        path = folder("calibration") / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"unknown recipe {name!r}",
            hint=f"choose one of {', '.join(names())}, or give a .toml file",
        )
    return path


def _load(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """A file on top of those that it extends. Raises ValueError."""
    if path.resolve() in above or len(above) >= DEEPEST:
        raise ValueError(f"it extends {path.name}, which extends it")
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(str(error) if not above else f"{path}: {error}") from error
    bases = own.pop("extends", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError("extends must be a recipe, or a list of recipes")
    if unknown := sorted(set(own) - {*KEYS, "readers"}):
        known = ", ".join((*KEYS, "extends", "readers"))
        raise ValueError(f"unknown key {unknown[0]!r}; the keys are {known}")
    readers = own.pop("readers", {})
    if not isinstance(readers, dict) or not all(isinstance(r, dict) for r in readers.values()):
        raise ValueError("readers must be tables: [readers.NAME]")
    page: dict[str, Any] = {"readers": {}}
    for base in bases:
        inherited = _load(_find(base, path.parent), (*above, path.resolve()))
        page = {**page, **inherited, "readers": page["readers"] | inherited["readers"]}
    for name, options in readers.items():
        file = path.parent / str(options.get("tokenizer", ""))
        found = {"tokenizer": str(file.resolve())} if file.is_file() else {}
        page["readers"][name] = {**page["readers"].get(name, {}), **options, **found}
    return {**page, **own}


def _reader_error(where: str, options: Mapping[str, Any]) -> str | None:
    kind = options.get("kind")
    if not isinstance(kind, str) or kind not in OPTIONS:
        return f"{where}.kind must be one of {', '.join(OPTIONS)}"
    properties = {**OPTIONS[kind], "kind": {"const": kind}, "column": _WORD}
    schema = table(properties, optional=[key for key in properties if key != "kind"])
    unknown = sorted(set(options) - set(properties))
    if unknown:
        return f"{where}.{unknown[0]}: unknown; {kind} has {', '.join(sorted(properties))}"
    return first_error(dict(options), {**schema, "$defs": {}}, where)


def _files(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise ValueError("files must be a number from 2")
    return value
