"""Bundles, and a farm for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import farmed
import pytest
from farms import Farm


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return farmed.good(tmp_path_factory.mktemp("bundle") / "model.edgec")


@pytest.fixture
def acting(tmp_path: Path) -> farmed.Acting:
    return lambda code, name="acting": farmed.acting(tmp_path / f"{name}.edgec", code)


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """Two devices of two kinds."""
    with Farm({"pi": "raspberry-pi-5", "rock": "rk3588"}, options=("--attempts", "2")) as found:
        found.all_up()
        yield found
