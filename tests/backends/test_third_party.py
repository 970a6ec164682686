"""A backend of another package, installed by pip, passes the suite that the built-in ones pass."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import graphs
import numpy as np
import pytest
import small
from suite import Suite

import edgec
from edgec.backends import GROUP, backend
from edgec.errors import InputError
from edgec.runtime.openers import opener
from edgec.target import load_target

PACKAGE = Path(__file__).parents[1] / "third_party"
NAME = "numpy-example"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package and its metadata, as pip leaves them."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--disable-pip-version-check"),
            *("--target", str(folder), str(PACKAGE)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", autouse=True)
def on_the_path(installed: Path) -> Iterator[None]:
    """What makes it known: being there. Nothing is registered."""
    with pytest.raises(InputError, match=NAME):
        backend(NAME)
    sys.path.insert(0, str(installed))
    importlib.invalidate_caches()
    board = importlib.import_module("edgec_numpy").BOARD
    TestNumpy.target = str(board)
    small.target.cache_clear()
    yield
    sys.path.remove(str(installed))


class TestNumpy(Suite):
    name = NAME
    suffix = ".onnx"


def test_it_is_found_by_its_entry_points(installed: Path) -> None:
    (point,) = [one for one in entry_points(group=GROUP) if one.name == NAME]
    assert point.dist is not None
    assert point.dist.name == "edgec-numpy"
    assert Path(importlib.import_module("edgec_numpy").__file__).is_relative_to(installed)  # type: ignore[arg-type]
    assert type(backend(NAME)).__module__ == "edgec_numpy.backend"
    assert opener(NAME).__module__ == "edgec_numpy.session"


def test_its_row_says_what_it_lacks() -> None:
    target = load_target(TestNumpy.target)
    assert (target.name, target.stack) == ("numpy-board", "numpy")
    assert TestNumpy().lacks("lstm")
    assert TestNumpy().lacks("convtranspose")
    assert TestNumpy().lacks("if_capture")
    assert not TestNumpy().lacks("clip_torchscript")


def test_a_bundle_for_it_is_built_verified_and_run(installed: Path, tmp_path: Path) -> None:
    root = str(Path(edgec.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), root])}
    graphs.write_samples("clip_torchscript", tmp_path / "data", 6)

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "edgec", *arguments],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run(
        *("build", str(graphs.path("clip_torchscript")), "--target", TestNumpy.target),
        *("--data", "data", "--no-measure", "-o", "mine.edgec", "--json", "report.json"),
    )
    report = json.loads((tmp_path / "report.json").read_text())
    (artifact,) = report["engines"]
    assert artifact["backend"] == NAME
    assert artifact["planned"] == artifact["optimised"]
    assert artifact["planned"]["int8"] > 10
    run("verify", "mine.edgec")
    sample = sorted((tmp_path / "data").iterdir())[0]
    run("run", "mine.edgec", "--inputs", str(sample), "--outputs", "out.npz")
    with np.load(tmp_path / "out.npz") as found, np.load(sample) as feeds:
        exact = small.run(small.fixture("clip_torchscript").model, dict(feeds))
        assert set(found.files) == set(exact)
        for name, array in exact.items():
            assert small.sqnr(array, found[name]) > 10, name
