"""Bundles that do what a test wants, and a farm for all tests of a module."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools" / "farm_chaos"), str(ROOT / "tests" / "runtime")]

import bundles  # noqa: E402
from farms import Farm  # noqa: E402

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


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good(tmp_path_factory.mktemp("bundle") / "model.edgec")


@pytest.fixture
def acting(tmp_path: Path) -> Acting:
    """A sound bundle whose own program is `code`."""

    def make(code: str, name: str = "acting") -> Path:
        def change(described: dict[str, Any], files: bundles.Files) -> None:
            files["__main__.py"] = (MAIN + code).encode()
            bundles.list_files(described, files)

        return bundles.edit(good(tmp_path / f"{name}.edgec"), change)

    return make


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """Two devices of two kinds."""
    with Farm({"pi": "raspberry-pi-5", "rock": "rk3588"}, options=("--attempts", "2")) as found:
        found.all_up()
        yield found
