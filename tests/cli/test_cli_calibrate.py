"""`edgec calibrate`, and `edgec build --statistics`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import graphs
import numpy as np
import pytest
import small

from edgec import statistics_file
from edgec.backends.tensorrt.calibration_cache import parse
from edgec.cli.common import size
from edgec.graphs import save
from edgec.runtime import npz

MODEL = graphs.path("mlp")
COMMON = ("--target", "generic", "--backend", "onnxruntime")


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`edgec …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "edgec", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def calibrate(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run(*("calibrate", MODEL, *COMMON, "--data", "data", "-o", "mlp.npz", *more), cwd=folder)


def figures(folder: Path, *more: str) -> dict[str, Any]:
    done = calibrate(folder, "--json", "-", *more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    graphs.write_samples("mlp", tmp_path / "data", 6)
    return tmp_path


def test_a_file_is_made_extended_and_left_alone(work: Path) -> None:
    first = figures(work, "--samples", "3")
    assert {**first, "seconds": 0, "cpu_seconds": 0, "peak_bytes": 0, "values": 0} == {
        "statistics": "mlp.npz",
        "samples": 2,
        "values": 0,
        "runs": 2,
        "native": True,
        "counter": "native code",
        "seconds": 0,
        "cpu_seconds": 0,
        "peak_bytes": 0,
        "warnings": [],
    }
    assert first["values"] > 0
    assert first["seconds"] > 0
    assert first["cpu_seconds"] > 0
    assert first["peak_bytes"] > 10e6
    more = figures(work, "--all", "--no-native")
    assert (more["samples"], more["runs"], more["native"]) == (6, 4, False)
    assert more["counter"] == "numpy (no native code is wanted)"
    before = (work / "mlp.npz").read_bytes()
    again = figures(work)
    assert (again["samples"], again["runs"], again["counter"]) == (6, 0, "nothing to count")
    assert (work / "mlp.npz").read_bytes() == before
    assert len(statistics_file.samples(work / "mlp.npz")) == 6
    assert sorted(path.name for path in work.iterdir()) == ["data", "mlp.npz"]


def test_what_it_says(work: Path) -> None:
    done = calibrate(work)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("target generic: stack onnxruntime, the default; ")
    assert "values on 4 samples, 4 runs now; counted by native code; peak memory" in done.stdout


def test_a_cache_says_what_it_has_no_scale_of(tmp_path: Path) -> None:
    made = small.model(
        """g (float[n, 64] x) => (float[n, 64] y, float[n, 64] p, float[n, 64] q)
        {
            a = MatMul (x, w)
            zero = Mul (a, none)
            y = MatMul (zero, w)
            tiny = Mul (a, little)
            p = MatMul (tiny, w)
            root = Sqrt (below)
            q = Add (a, root)
        }""",
        w=small.normal(0, 64, 64),
        none=np.float32(0),
        little=np.float32(1e-41),
        below=np.full((1, 64), -1, np.float32),
    )
    save(made, tmp_path / "odd.onnx")
    (tmp_path / "data").mkdir()
    for number in range(4):
        npz.write(tmp_path / "data" / f"{number}.npz", {"x": small.normal(number, 1, 64)})
    done = run(
        *("calibrate", "odd.onnx", *COMMON, "--data", "data", "-o", "odd.npz"),
        *("--tensorrt-cache", "odd.cache", "--tensorrt", "8.6.2", "--json", "odd.json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    scales = parse((tmp_path / "odd.cache").read_text())[1]
    assert set(scales) == {"a", "x", "p", "tiny", "y", "zero"}
    assert {name for name, scale in scales.items() if scale == 1} == {"p", "tiny", "y", "zero"}
    warnings = [
        "no sample gave a number for 'q': nothing is known of the range",
        "zero or too near to it for a scale, which is 1 instead: 'p', 'tiny', 'y' and 1 more",
        "NaN, which is left out of the range: 'q'",
        "no line in odd.cache, so that TensorRT takes float: 'q'",
    ]
    assert json.loads((tmp_path / "odd.json").read_text())["warnings"] == warnings
    assert [f"warning: {one}" for one in warnings] == done.stdout.splitlines()[1:5]


def test_a_build_uses_it(work: Path) -> None:
    calibrate(work)
    before = (work / "mlp.npz").read_bytes()
    build = ("build", MODEL, *COMMON, "--no-measure", "--data", "data")
    for name, more in (("with", ["--statistics", "mlp.npz"]), ("without", [])):
        done = run(*build, "-o", f"{name}.edgec", *more, cwd=work)
        assert done.returncode == 0, done.stderr
    assert (work / "with.edgec").read_bytes() == (work / "without.edgec").read_bytes()
    assert (work / "mlp.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--max-ram", "5M"], 4, "--max-ram 5 MB does not suffice: "),
        (["-o", "no/mlp.npz"], 3, "no: no such folder"),
        (["-o", "data"], 3, "data: not a file"),
        (["-o", str(MODEL)], 3, "mlp.onnx"),
        (["--data", "nowhere"], 3, "nowhere: no such folder"),
        (["--backend", "tensorrt"], 4, "not on tensorrt"),
        (["--max-ram", "lots"], 2, "'lots' is no size; write 800M or 2G"),
        (["--samples", "1"], 2, "Invalid value for '--samples'"),
    ],
)
def test_errors(more: list[str], code: int, words: str, work: Path) -> None:
    model = MODEL.read_bytes()
    done = calibrate(work, *more)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert ("hint: " in done.stderr) == (code != 2)
    assert done.stdout == ""
    assert [path.name for path in work.iterdir()] == ["data"]
    assert MODEL.read_bytes() == model


def test_without_data(work: Path) -> None:
    done = run("calibrate", MODEL, *COMMON, "-o", "mlp.npz", cwd=work)
    assert done.returncode == 3
    assert "nothing to calibrate on\n  hint: give --data" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [("800M", 800_000_000), ("2g", 2_000_000_000), ("1.5GB", 1_500_000_000), ("64", 64), ("0", 0)],
)
def test_sizes(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "M", "5KM", "-1", "nan", "inf", "1e30", "0.5", "1 T"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no size"):
        size(text)
