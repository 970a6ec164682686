"""Bundles that do what a test wants."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "farm_chaos"), str(ROOT / "tests" / "runtime")]

import bundles  # noqa: E402

from edgec import pack  # noqa: E402

Acting = Callable[..., Path]
MAIN = """import json, os, sys, time
def answer(**found):
    with open(sys.argv[sys.argv.index("--json") + 1], "w") as stream:
        json.dump(found, stream)
"""


def good(path: Path, target: str = "generic") -> Path:
    """A small bundle for a target."""
    described, files = bundles.parts(1)
    described["target"]["name"] = target
    return pack.write_bundle(described, files, path, force=True)


def acting(path: Path, code: str) -> Path:
    """A sound bundle whose own program is `code`."""

    def change(described: dict[str, object], files: bundles.Files) -> None:
        files["__main__.py"] = (MAIN + code).encode()
        bundles.list_files(described, files)

    return bundles.edit(good(path), change)
