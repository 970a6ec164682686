"""`finish` on this machine, really: falls back to ONNX Runtime, is killed, repeated, lied to.

What needs a GPU is not run; where a device with one is needed, the probe is told so, and everything
behind it is real.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import pytest

from edgec.errors import InputError, ToolchainError, UnsupportedError
from edgec.runtime import built, load, stamp
from edgec.runtime.built import spares_of
from edgec.runtime.bundle import Bundle
from edgec.runtime.finish import Wishes, finish

HERE = stamp.Device("x86_64", "a board", "8.7", "12.6", "10.3.0", "")


def command(path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A bundle that runs itself; it sees what is installed, and not this checkout."""
    return subprocess.run(
        [sys.executable, "-I", str(path), *words],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write_for_device(tmp_path / "model.edgec")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = bundles.write_for_device(tmp_path_factory.mktemp("finished") / "model.edgec")
    assert command(path, "finish").returncode == 0
    return path


@pytest.fixture
def finished(template: Path, tmp_path: Path) -> Path:
    """A bundle that was finished, with what lies beside it."""
    shutil.copytree(template.parent, tmp_path / "copy")
    return tmp_path / "copy" / template.name


def here(path: Path) -> Path:
    """The folder that finish made."""
    (found,) = (path.parent / "built").iterdir()
    return found


def test_before_finish_an_error_says_what_to_do(bundle: Path) -> None:
    done = command(bundle, "run", "--golden")
    assert done.returncode == ToolchainError.exit_code
    assert "engine vision has to be built on this device first" in done.stderr
    assert "python3 BUNDLE finish" in done.stderr


def test_finish_falls_back_to_onnx_runtime(bundle: Path, tmp_path: Path) -> None:
    before = sha(bundle)
    done = command(bundle, "finish", "--json", "out.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for line, label, following in (
        (0, "INT8 on TensorRT", "INT8 on TensorRT by a calibration cache"),
        (1, "INT8 on TensorRT by a calibration cache", "FP16 on TensorRT"),
        (2, "FP16 on TensorRT", "INT8 on ONNX Runtime"),
    ):
        why = "tensorrt is not installed"
        assert lines[line] == f"engine vision: not {label}: {why}; next: {following}"
    assert lines[3] == "engine vision: INT8 on ONNX Runtime"
    assert sha(bundle) == before
    page = json.loads((tmp_path / "out.json").read_text())
    kept = json.loads((here(bundle) / "manifest.json").read_text())
    assert page["engines"]["vision"]["by"] == "ONNX Runtime"
    assert kept["timings"]["calls"] == 20
    assert 0 < kept["timings"]["min_ms"] <= kept["timings"]["p50_ms"] <= kept["timings"]["max_ms"]
    assert kept["device"]["missing"] == "tensorrt is not installed"
    assert len(kept["fallbacks"]) == 3
    assert {row["name"] for row in kept["self_test"]} == {"score", "image_vector"}
    for verb in (["verify"], ["run", "--golden"]):
        assert command(bundle, *verb).returncode == 0
    with load(bundle) as model:
        for name, array in model.run(bundles.feeds(9)).items():
            np.testing.assert_allclose(array, bundles.expected(bundles.feeds(9))[name], atol=1e-5)


def test_a_folder_is_finished_beside_itself(tmp_path: Path) -> None:
    path = bundles.write_for_device(tmp_path / "model", folder=True)
    assert command(path, "finish").returncode == 0
    assert here(path).parent == tmp_path / "built"
    assert command(path, "verify").returncode == 0


def test_once_more_changes_nothing(finished: Path) -> None:
    manifest = here(finished) / "manifest.json"
    first = manifest.read_bytes(), manifest.stat().st_mtime_ns
    done = command(finished, "finish")
    assert done.returncode == 0
    assert f"finished before: {here(finished)}" in done.stdout
    assert (manifest.read_bytes(), manifest.stat().st_mtime_ns) == first
    again = command(finished, "finish", "--again")
    assert "finished before" not in again.stdout
    assert manifest.stat().st_mtime_ns > first[1]


@pytest.mark.parametrize("moment", ["record", "start"])
def test_killed_and_started_again(bundle: Path, moment: str) -> None:
    """SIGKILL while the self-test runs, or as soon as there is a folder."""
    before = sha(bundle)
    line = [sys.executable, "-I", str(bundle), "finish"]
    process = subprocess.Popen(
        line, cwd=bundle.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wanted = "vision.3.json" if moment == "record" else ".lock"
    end = time.monotonic() + 120
    while not any((bundle.parent / "built").glob(f"*/{wanted}")):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (here(bundle) / "manifest.json").exists()
    assert command(bundle, "run", "--golden").returncode == ToolchainError.exit_code
    done = command(bundle, "finish")
    assert done.returncode == 0, done.stderr
    if moment == "record":
        assert "engine vision: INT8 on ONNX Runtime was built before" in done.stdout
    assert command(bundle, "verify").returncode == 0
    assert not list(here(bundle).glob("*~"))
    assert sha(bundle) == before


def test_two_at_once(finished: Path, said: list[str]) -> None:
    import fcntl

    with (here(finished) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = command(finished, "finish", "--again")
    assert done.returncode == InputError.exit_code
    assert "another finish is at work" in done.stderr


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    requires = {"arch": "aarch64", "capabilities": ["8.7"], "version": "10.3.0"}
    return bundles.write_for_device(tmp_path / "model.edgec", requires=requires)


def test_the_wrong_device_is_told_whose_it_is(foreign: Path) -> None:
    for verb in (["finish"], ["run", "--golden"], ["verify"]):
        done = command(foreign, *verb)
        assert done.returncode == UnsupportedError.exit_code
        assert "this bundle is for jetson-orin with jp6.2; this is " in done.stderr
        assert "it is x86_64, not aarch64" in done.stderr
        assert "edgec build MODEL --target NAME" in done.stderr
        assert "finish --onnxruntime" in done.stderr
        assert "deserial" not in done.stderr.lower()
    assert not (foreign.parent / "built").exists()


def test_the_wrong_device_can_run_it_on_onnx_runtime(foreign: Path) -> None:
    done = command(foreign, "finish", "--onnxruntime")
    assert done.returncode == 0, done.stderr
    assert "engine vision: INT8 on ONNX Runtime" in done.stdout
    assert command(foreign, "verify").returncode == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"capability": "8.6"}, "its GPU is sm_86, not sm_87"),
        ({"version": "10.16.2"}, "it has TensorRT 10.16.2, not 10.3.0"),
        ({"version": "8.6.2", "capability": "7.2"}, "sm_72, not sm_87; it has TensorRT 8.6.2"),
    ],
)
def test_another_gpu_or_tensorrt(
    bundle: Path,
    change: dict[str, str],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    monkeypatch.setattr(stamp, "probe", lambda _: HERE._replace(**change))
    with pytest.raises(UnsupportedError, match=text):
        finish(str(bundle), Wishes(), said.append)
    with pytest.raises(UnsupportedError, match=text):
        load(bundle)


def test_a_patch_release_is_the_same_stack(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Its name differs all the same: an engine serves the very version that built it."""
    with Bundle(bundle) as opened:
        requires = opened.manifest["engines"][0]["build"]["requires"]
    other = HERE._replace(version="10.3.1")
    assert stamp.mismatches(requires, other) == []
    assert stamp.name(other) != stamp.name(HERE)


def test_an_update_of_the_device_asks_for_finish(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp, "probe", lambda _: HERE)
    with pytest.raises(ToolchainError, match=r"it was finished for .*-nogpu-notrt, and this is"):
        load(finished)


def test_a_builder_that_cannot_start_is_a_sentence(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The probe says that there is a TensorRT; the builder's process finds none."""
    monkeypatch.setattr(stamp, "probe", lambda _: HERE)
    page = finish(str(bundle), Wishes(), said.append)
    assert page["engines"]["vision"]["by"] == "ONNX Runtime"
    assert any("the builder needs about 1 MB" in line for line in said)
    assert sum("tensorrt is not installed" in line for line in said) == 3


def test_without_a_gpu_nothing_is_built(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(stamp, "probe", lambda _: HERE._replace(capability=""))
    finish(str(bundle), Wishes(), said.append)
    assert "CUDA finds no NVIDIA GPU here" in said[0]


@pytest.mark.parametrize("lost", [False, True])
def test_spares_that_are_lost_or_changed(bundle: Path, said: list[str], lost: bool) -> None:
    spares = spares_of(bundle)
    if lost:
        spares.unlink()
    else:
        data = spares.read_bytes()
        spares.write_bytes(data.replace(b"Conv", b"Cohv"))
    with Bundle(bundle) as opened:
        kind: Any = ToolchainError if lost else InputError
        with pytest.raises(kind, match=r"model\.spares"):
            built.spare(opened, "spares/vision.float16.onnx", bundle.parent / "x.onnx")
    assert not list(bundle.parent.glob("x.onnx*"))


@pytest.mark.parametrize(
    "change",
    [
        {"step": 99},
        {"step": -1},
        {"step": "3"},
        {"file": "../model.edgec"},
        {"file": "/etc/passwd"},
        {"file": "vision.3.json", "sha256": "0" * 64},
        {"file": 7},
    ],
)
def test_a_built_manifest_that_lies_is_refused(finished: Path, change: dict[str, Any]) -> None:
    path = here(finished) / "manifest.json"
    page = json.loads(path.read_text())
    page["engines"]["vision"].update(change)
    path.write_text(json.dumps(page))
    with pytest.raises(InputError, match="is not sound") as caught:
        load(finished)
    assert "finish --again" in caught.value.hint


def test_what_is_not_sound_is_built_again(finished: Path) -> None:
    (here(finished) / "manifest.json").write_text("{}")
    done = command(finished, "finish")
    assert done.returncode == 0
    assert "building again" in done.stdout
    assert command(finished, "verify").returncode == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1}', "[" * 9000])
def test_a_broken_built_manifest_is_refused(finished: Path, text: str) -> None:
    (here(finished) / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="is not sound"):
        load(finished)


def test_of_another_bundle_nothing_is_opened(finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    path = bundles.write_for_device(other / "model.edgec", memory=2 * 10**6)
    shutil.copytree(finished.parent / "built", other / "built")
    with pytest.raises(ToolchainError, match="has to be built on this device first"):
        load(path)


def test_without_any_backend_there_is_no_step(bundle: Path) -> None:
    (bundle.parent / "onnxruntime.py").write_text("raise ImportError('broken', name='onnxruntime')")
    line = [sys.executable, str(bundle), "finish"]
    environment = {"PYTHONPATH": str(bundle.parent), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 6
    assert "no step of its plan can be made here" in done.stderr
    assert "pip install onnxruntime" in done.stderr


def test_info_tells_the_plan(bundle: Path) -> None:
    done = command(bundle, "info")
    wanted = "engine vision is built by finish for any, compute capability 8.7, TensorRT 10.3.0: "
    assert wanted + "INT8 on TensorRT; else " in done.stdout


def _schema(change: Any, problem: str) -> Any:
    return pytest.param(change, problem, id=problem[:30])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        _schema({"module": "os"}, "expected one of tensorrt, tensorrt_rtx"),
        _schema({"steps": []}, "too few"),
        _schema({"dla": 99}, "out of range"),
        _schema({"workspace": [-1]}, "out of range"),
        _schema({"shell": "rm"}, "not known in this schema"),
    ],
)
def test_a_hostile_plan_is_refused(bundle: Path, change: dict[str, Any], problem: str) -> None:
    def attack(described: dict[str, Any], files: bundles.Files) -> None:
        described["engines"][0]["build"].update(change)

    with pytest.raises(InputError, match=problem):
        Bundle(bundles.edit(bundle, attack))


@pytest.mark.parametrize("key", ["model", "cache"])
def test_a_plan_names_files_of_the_bundle_alone(bundle: Path, key: str) -> None:
    def attack(described: dict[str, Any], files: bundles.Files) -> None:
        described["engines"][0]["build"]["steps"][1][key] = "engines/none"

    with pytest.raises(InputError, match="'engines/none' is used but not listed"):
        Bundle(bundles.edit(bundle, attack))


def test_the_probe_of_this_machine() -> None:
    device = stamp.probe("tensorrt")
    assert device.arch == os.uname().machine
    assert bool(device.version) != bool(device.missing)
    assert stamp.name(device).startswith(device.arch)


def test_as_close_to_float_as_the_build_was_is_good_enough() -> None:
    from edgec.runtime.selftest import compare, compare_with_float

    rng = np.random.default_rng(0)
    exact = {"y": rng.normal(size=500).astype(np.float32)}

    def noisy(level: float, seed: int) -> dict[str, Any]:
        noise = np.random.default_rng(seed).normal(size=500).astype(np.float32)
        return {"y": exact["y"] + np.float32(level) * noise}

    golden = noisy(0.1, 1)
    for level, good in ((0.1, True), (0.0, True), (0.2, False), (float("nan"), False)):
        made = noisy(level, 2)
        assert not compare(made, golden, 0.02).passed
        assert compare_with_float(made, golden, exact, 0.02).passed is good, level
    (check,) = compare_with_float(noisy(0.1, 2), golden, exact, 0.02).outputs
    assert (check.against, check.problem) == ("float", "")
    (check,) = compare_with_float(golden, golden, exact, 0.02).outputs
    assert check.against == "golden"
    assert not compare_with_float({"y": golden["y"][:9]}, golden, exact, 0.02).passed
    whole = {"y": np.arange(5)}
    assert not compare_with_float({"y": np.arange(5) + 1}, whole, whole, 0.02).passed
