"""A calibration recipe: how to read a kind of data, how much of it, and how ranges follow."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from edgec.data import folder
from edgec.errors import InputError
from edgec.types import Method

DEFAULT = "tensors"
KEYS = {"summary", "reader", "method", "files"}


@dataclass(frozen=True)
class Recipe:
    """`reader`: the form of the files; `files`: how many are read at most."""

    name: str
    summary: str
    reader: str
    method: Method
    files: int


def names() -> list[str]:
    """The recipes that come with edgec."""
    return sorted(path.stem for path in folder("calibration").glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a TOML file. Raises InputError naming file and key."""
    path = Path(name)
    if path.suffix != ".toml":
        path = folder("calibration") / f"{name}.toml"
    if not path.is_file():
        raise InputError(
            f"unknown recipe {name!r}",
            hint=f"choose one of {', '.join(names())}, or give a .toml file",
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        if set(table) != KEYS:
            raise ValueError(f"the keys must be {', '.join(sorted(KEYS))}")
        if table["reader"] != "npz":
            raise ValueError(f"there is no reader {table['reader']!r}, only 'npz'")
        if not isinstance(table["files"], int) or table["files"] < 2:
            raise ValueError("files must be a number from 2")
        return Recipe(
            name=path.stem,
            summary=str(table["summary"]),
            reader=str(table["reader"]),
            method=Method(table["method"]),
            files=table["files"],
        )
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, ValueError) as error:
        raise InputError(f"{path}: {error}", hint="compare it with tensors.toml") from error
