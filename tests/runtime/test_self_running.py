"""A bundle runs itself where only Python, numpy and the backend are: on 3.11 and on 3.8."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest

# Refuses every module but the standard library, the bundle, numpy and onnxruntime.
ONLY = """
import sys
class Only:
    allowed = {"numpy", "onnxruntime", "edgec", "sitecustomize", "__main__"}
    allowed |= set(sys.stdlib_module_names)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError("not on the device: " + name, name=name)
sys.meta_path.insert(0, Only())
"""


@pytest.fixture
def device(tmp_path: Path) -> dict[str, str]:
    """The environment of a bare device; the working folder is empty."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(ONLY)
    (tmp_path / "cwd").mkdir()
    return {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "model.edgec")


def python(
    device: dict[str, str], *words: str | Path, interpreter: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    cwd = Path(device["PYTHONPATH"].partition(os.pathsep)[0]).parent / "cwd"
    line = [interpreter, *map(str, words)]
    return subprocess.run(line, env=device, cwd=cwd, capture_output=True, text=True, timeout=300)


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_device_really_is_bare(device: dict[str, str]) -> None:
    for name in ("onnx", "onnx_ir", "click", "jsonschema"):
        done = python(device, "-c", f"import {name}")
        assert f"not on the device: {name}" in done.stderr
    good(python(device, "-c", "import numpy, onnxruntime"))


def test_run(device: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    feeds = bundles.feeds(5, 3, 4)
    np.savez(tmp_path / "in.npz", **feeds)
    out = tmp_path / "out.npz"
    told = good(python(device, bundle, "run", "--inputs", tmp_path / "in.npz", "--outputs", out))
    assert "score: float32[3, 5] min " in told
    with np.load(out, allow_pickle=False) as found:
        for name, array in bundles.expected(feeds).items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.npz"]


@pytest.mark.parametrize("form", ["zip", "relative", "folder", "inside", "isolated", "module"])
def test_every_way_to_start_it(device: dict[str, str], tmp_path: Path, form: str) -> None:
    path = bundles.write(tmp_path / "cwd" / "b", folder=form in ("folder", "inside"))
    words: dict[str, list[Any]] = {
        "zip": [path, "verify"],
        "relative": ["b", "verify"],
        "folder": ["b", "verify"],
        "inside": ["b/__main__.py", "verify"],
        "isolated": ["-I", "b", "verify"],
        "module": ["-m", "edgec.runtime", "verify", path],
    }
    if form == "module":
        device = {**device, "PYTHONPATH": device["PYTHONPATH"] + os.pathsep + str(path)}
    assert "score: max abs error" in good(python(device, *words[form]))


def test_it_never_changes_itself(device: dict[str, str], tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "folder", folder=True)
    zipped = bundles.write(tmp_path / "b.edgec")

    def state() -> dict[str, str]:
        files = [f for f in path.rglob("*") if f.is_file() and f.parent.name != "__pycache__"]
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in [*files, zipped]}

    before = state()
    for _ in range(2):
        for one in (path, zipped):
            good(python(device, one, "verify"))
            good(python(device, one, "bench", "--rounds", "1", "--calls", "1"))
    assert state() == before


def test_bench_against_the_original(device: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    original = tmp_path / "m.onnx"
    original.write_bytes(bundles.two_tower_models()["one"].SerializeToString())
    words = ["bench", "--against", original, "--rounds", "2", "--calls", "2", "--threads", "1"]
    done = python(device, bundle, *words, "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [case["label"] for case in found["cases"]] == ["bundle", "m.onnx"]
    assert found["ratio"]["median"] > 0
    assert "bundle takes" in done.stderr


def test_finish_and_info(device: dict[str, str], bundle: Path) -> None:
    told = good(python(device, bundle, "finish"))
    assert "nothing has to be built on this device for onnxruntime" in told
    assert told.count(": ok\n") == 2
    told = good(python(device, bundle, "info"))
    assert "m.onnx for host" in told
    assert "input tokens: int64[n=1..4, t=1..16]" in told
    assert "engine fusion: onnxruntime on cpu" in told


def test_json_file(device: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    good(python(device, bundle, "verify", "--json", tmp_path / "v.json"))
    found = json.loads((tmp_path / "v.json").read_text())
    assert found["passed"] is True
    assert {output["name"] for output in found["outputs"]} == {"score", "image_vector"}


def failed(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "\n  hint: " in done.stderr
    return done.stderr


def test_errors(device: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    missing = python(device, bundle, "run", "--inputs", tmp_path / "no.npz")
    assert "no.npz: cannot be read: No such file" in failed(missing, 3)
    (tmp_path / "junk.npz").write_text("junk")
    junk = python(device, bundle, "run", "--inputs", tmp_path / "junk.npz")
    assert ": no readable .npz file" in failed(junk, 3)
    np.savez(tmp_path / "half.npz", image=bundles.feeds()["image"])
    half = python(device, bundle, "run", "--inputs", tmp_path / "half.npz")
    assert "error: missing input tokens" in failed(half, 3)
    out = tmp_path / "nowhere" / "out.npz"
    unwritable = python(device, bundle, "run", "--golden", "--outputs", out)
    assert "cannot write" in failed(unwritable, 3)
    early = python(device, bundle, "bench", "--json", tmp_path / "nowhere" / "page.json")
    assert "cannot write" in failed(early, 3)
    assert "ms" not in early.stdout  # nothing was measured for nothing
    folder = python(device, bundle, "bench", "--json", tmp_path)
    assert "Is a directory" in failed(folder, 3)
    against = python(device, bundle, "bench", "--against", tmp_path / "no.onnx")
    assert "no.onnx does not exist" in failed(against, 3)
    assert python(device, bundle).returncode == 2
    assert python(device, bundle, "run").returncode == 2


def test_a_changed_bundle_says_so(device: dict[str, str], bundle: Path) -> None:
    data = bundle.read_bytes()
    at = data.index(b"image_vector", data.index(b"engines/fusion.onnx"))
    bundle.write_bytes(data[:at] + b"I" + data[at + 1 :])
    told = failed(python(device, bundle, "verify"), 3)
    assert "engines/fusion.onnx cannot be read: Bad CRC-32" in told


def test_a_device_that_computes_something_else(device: dict[str, str], tmp_path: Path) -> None:
    described, files = bundles.parts(2)
    golden = bundles.expected(bundles.feeds())
    golden["score"] = golden["score"] * 1.1
    files["golden/outputs.npz"] = bundles.pack.npz_bytes(golden)
    path = bundles.pack.write_bundle(described, files, tmp_path / "x.edgec", force=False)
    done = python(device, path, "verify", "--json", tmp_path / "v.json")
    assert "self-test of output 'score'" in failed(done, 7)
    assert json.loads((tmp_path / "v.json").read_text())["passed"] is False


def test_without_the_backend(device: dict[str, str], bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site/sitecustomize.py"
    site.write_text(ONLY.replace('"onnxruntime", ', "").replace("not on the device: ", ""))
    told = failed(python(device, bundle, "verify"), 5)
    assert "this bundle runs on onnxruntime, which is not installed" in told
    assert "hint: pip install onnxruntime" in told
    good(python(device, bundle, "info"))


@pytest.mark.py38
@pytest.mark.parametrize("folder", [False, True])
def test_python_3_8(tmp_path: Path, python38: str, folder: bool) -> None:
    path = bundles.write(tmp_path / "b", folder=folder)
    np.savez(tmp_path / "in.npz", **bundles.feeds(5))

    def run(*words: Any) -> str:
        env = {"PATH": "/usr/bin:/bin"}
        line = [python38, str(path), *map(str, words)]
        done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    version = subprocess.run([python38, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("Python 3.8.")
    for verb in ("info", "verify", "finish"):
        run(verb)
    run("run", "--inputs", tmp_path / "in.npz", "--outputs", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as found:
        wanted = bundles.expected(bundles.feeds(5))
        np.testing.assert_allclose(found["score"], wanted["score"], atol=1e-5)
    assert "p50 ms" in run("bench", "--rounds", "2", "--calls", "2", "--threads", "1")


@pytest.mark.py38
def test_python_3_8_finishes_a_device_bundle(tmp_path: Path, python38: str) -> None:
    path = bundles.write_for_device(tmp_path / "model.edgec")
    env = {"PATH": "/usr/bin:/bin"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        line = [python38, str(path), *words]
        return subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)

    assert run("verify").returncode == 5
    done = run("finish")
    assert done.returncode == 0, done.stderr
    assert "tensorrt is not installed; next: INT8 on ONNX Runtime" in done.stdout
    assert "finished before" in run("finish").stdout
    assert run("verify").returncode == 0


@pytest.mark.py38
def test_python_3_8_imports_every_module(python38: str) -> None:
    import edgec.runtime

    folder = Path(edgec.runtime.__path__[0])
    names = [f"edgec.runtime.{path.stem}" for path in sorted(folder.glob("*.py"))]
    assert len(names) > 12
    source = (folder / "openvino_session.py").read_text(encoding="utf-8")
    names.remove("edgec.runtime.openvino_session")  # its backend is not in this environment
    plain = ", ".join(name for name in names if "__" not in name)
    line = [python38, "-c", f"import {plain}; compile({source!r}, 'session', 'exec')"]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder.parents[1])}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
