"""The files of the capability table: read, checked against the published schema, and merged.

A row is `targets/<device>/target.toml`, or a folder of anybody's with such a file. What several
devices share lies in `targets/families/<name>.toml`; a row names what it extends. Tables are merged
key by key, lists and grids are replaced. Each file is checked by itself, so that an error names the
file and the key, and what is allowed there.
"""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.data import folder
from edgec.errors import InputError
from edgec.runtime.schema import first_error

FILE = "target.toml"
FAMILIES = "families"
SCHEMA = Path(__file__).with_name("target.schema.json")
WHOLE = {"grid", "unsupported"}  # tables that belong together: replaced, never merged


def names() -> list[str]:
    """The targets that come with edgec."""
    return sorted(path.parent.name for path in folder("targets").glob(f"*/{FILE}"))


def families() -> list[str]:
    """What rows may share."""
    return sorted(path.stem for path in (folder("targets") / FAMILIES).glob("*.toml"))


def place(name: str) -> Path:
    """The folder of a target: one that is given, else the one that comes with edgec."""
    given = Path(name)
    if (given / FILE).is_file() and not (name in names() and given.name == name):
        return given
    ours = folder("targets") / name
    return ours if name in names() else given


def read(path: Path) -> dict[str, Any]:
    """The row in the folder `path`, merged over all that it extends. Raises InputError."""
    return _read(path / FILE, (), (path / FILE).resolve())


def likened(where: Path, name: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """A runtime's row, merged over the one that it is like."""
    seen: list[str] = []
    row: dict[str, Any] = {"like": name}
    while "like" in row:
        base = str(row.pop("like"))
        if base in seen:
            raise wrong(where, f"runtimes.{name}", f"is like itself ({' -> '.join(seen)})")
        if base not in rows:
            what = f"runtimes.{seen[-1]}.like" if seen else "runtimes"
            raise wrong(where, what, f"there is no runtime {base!r}", f"it has {_list(rows)}")
        seen.append(base)
        row = merge(rows[base], row)
    return row


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` upon `base`, key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict) and key not in WHOLE
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def wrong(path: Path, where: str, problem: str, hint: str = "") -> InputError:
    """What is wrong with a key of a file."""
    hint = hint or f"compare it with the rows that come with edgec, and with {SCHEMA.name}"
    return InputError(f"{path}: {where}: {problem}", hint=hint)


@functools.cache
def schema() -> dict[str, Any]:
    """The published schema of one file."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return found


def _read(path: Path, above: tuple[Path, ...], real: Path) -> dict[str, Any]:
    """A file merged over its bases. `above`: what extends it; `real`: where `path` leads."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}", hint="correct the file") from error
    table = dict(_parsed(path, text))
    bases = table.pop("extends", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        file = _base(path, base, real)
        found = file.resolve()
        if found in (*above, real):
            raise wrong(path, "extends", f"{base!r} extends this file in turn")
        merged = merge(merged, _read(file, (*above, real), found))
    return merge(merged, table)


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: {error}", hint="correct the file") from error
    problem = first_error(table, schema())
    if problem is not None:
        raise InputError(f"{path}: {problem}", hint=f"the schema is {SCHEMA}")
    return table


def _base(path: Path, name: str, real: Path) -> Path:
    for file in (
        folder("targets") / FAMILIES / f"{name}.toml",
        folder("targets") / name / FILE,
    ):
        if "/" not in name and file.is_file() and file.resolve() != real:
            return file
    raise wrong(
        path,
        "extends",
        f"there is no family or target {name!r}",
        f"the families are {_list(families())}; the targets {_list(names())}",
    )


def _list(found: Any) -> str:
    return ", ".join(sorted(map(str, found))) or "none"
