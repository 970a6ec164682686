"""OpenVINO engines as files, and bundles that run them: damaged, cached, by themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import small

from edgec import pack
from edgec.errors import InputError
from edgec.runtime import load
from edgec.runtime.bundle import Bundle
from edgec.runtime.openers import opener

pytest.importorskip("openvino")

from irs import TEXT, close, feeds, written

from edgec.backends.openvino.ir import convert
from edgec.runtime.openvino_session import open_artifact


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("engine"))


# Files


def test_bytes_are_refused() -> None:
    with pytest.raises(InputError, match="an OpenVINO engine needs its files"):
        open_artifact(b"<net/>", {})


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


def keeping_weights(where: str, path: Path) -> bytes:
    """Write an ONNX model whose weight lies at `where`; the bytes of the weight."""
    made = ir.to_proto(small.model(TEXT, w=small.normal(0, 32, 48), v=small.normal(1, 48, 24)))
    tensor = made.graph.initializer[0]
    held = bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, where)
    tensor.ClearField("raw_data")
    path.write_bytes(made.SerializeToString())
    return held


@pytest.mark.parametrize("name", ["engine.onnx", "engine.xml"])
@pytest.mark.parametrize("where", ["../secret.bin", "/tmp/secret.bin", "a/../../secret.bin", ""])
def test_weights_outside_the_folder(where: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    held = keeping_weights(where, tmp_path / "a" / name)
    (tmp_path / "secret.bin").write_bytes(held)
    message = re.escape(f"{name} keeps weights outside its folder: {where!r}")
    with pytest.raises(InputError, match=message):
        open_artifact(tmp_path / "a" / name, {})


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_links_out_of_the_folder(backend: str, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    held = keeping_weights("weights.bin", folder / "engine.onnx")
    (tmp_path / "secret.bin").write_bytes(held)
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InputError, match=r"outside its folder: 'weights\.bin'"):
        opener(backend)(folder / "engine.onnx", {})
    (folder / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"needs the data file 'weights\.bin', which is missing"):
        opener(backend)(folder / "engine.onnx", {})
    (folder / "real.bin").write_bytes(held)
    (folder / "weights.bin").symlink_to(folder / "real.bin")
    assert set(opener(backend)(folder / "engine.onnx", {}).run(feeds())) == {"y", "last"}


def test_the_weights_of_an_ir_may_not_be_a_link_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = written(tmp_path / "a")
    path.with_suffix(".bin").rename(tmp_path / "secret.bin")
    path.with_suffix(".bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(InputError, match=r"outside its folder: 'engine\.bin'"):
        open_artifact(path, {})


def test_models_of_other_frameworks_are_not_opened(tmp_path: Path) -> None:
    keeping_weights("weights.bin", tmp_path / "engine.pb")
    with pytest.raises(InputError, match=r"engine\.pb: OpenVINO's engines are \.xml or \.onnx"):
        open_artifact(tmp_path / "engine.pb", {})


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("engine.xml", Path.unlink),
        ("engine.bin", Path.unlink),
        ("engine.xml", lambda path: path.write_bytes(b"")),
        ("engine.bin", lambda path: path.write_bytes(b"")),
        ("engine.xml", _cut),
        ("engine.bin", _cut),
        ("engine.xml", _noise),
        ("engine.xml", lambda path: path.write_text("<net></net>")),
        ("engine.xml", lambda path: path.write_text('<?xml version="1.0"?><nonsense/>')),
        (
            "engine.xml",
            lambda path: path.write_text(path.read_text().replace('"MatMul"', '"Nonsense"')),
        ),
        (
            "engine.xml",
            lambda path: path.write_text(path.read_text().replace('offset="', 'offset="99999999')),
        ),
    ],
    ids=[
        *("no xml", "no bin", "empty xml", "empty bin", "half an xml", "half a bin", "noise"),
        *("no layers", "another document", "an unknown op", "weights beyond the file"),
    ],
)
def test_damaged_files(name: str, harm: Callable[[Path], object], tmp_path: Path) -> None:
    path = written(tmp_path)
    harm(tmp_path / name)
    with pytest.raises(InputError) as caught:
        open_artifact(path, {}).run(feeds())
    assert "engine" in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 3


def test_compiled_engines_are_kept_where_the_environment_says(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    close(open_artifact(engine, {}).run(feeds()), feeds())
    blobs = sorted((tmp_path / "cache" / "openvino").glob("*.blob"))
    assert len(blobs) == 1
    times = [blob.stat().st_mtime_ns for blob in blobs]
    close(open_artifact(engine, {}).run(feeds(1)), feeds(1))
    assert [blob.stat().st_mtime_ns for blob in blobs] == times
    close(open_artifact(engine, {}).run(feeds(t=5)), feeds(t=5))
    assert len(list((tmp_path / "cache" / "openvino").glob("*.blob"))) == 2


def test_without_the_environment_nothing_is_written(engine: Path, tmp_path: Path) -> None:
    before = sorted(engine.parent.iterdir())
    open_artifact(engine, {}).run(feeds())
    assert sorted(engine.parent.iterdir()) == before


# A bundle


def bundle(path: Path, count: int) -> Path:
    """The two-tower model as one engine on OpenVINO, or as two, the second of them there."""
    described, files = bundles.parts(count)
    engine = described["engines"][-1]
    folder = path.parent / "work"
    folder.mkdir()
    onnx = folder / "engine.onnx"
    onnx.write_bytes(files.pop(engine["artifact"]))
    convert(onnx, onnx.with_suffix(".xml"), False)
    for end in (".xml", ".bin"):
        files[f"engines/it{end}"] = onnx.with_suffix(end).read_bytes()
    engine.update(backend="openvino", artifact="engines/it.xml", data_files=["engines/it.bin"])
    engine["settings"] = {"precision": "float32"}
    return pack.write_bundle(described, files, path, force=False)


def test_engines_of_two_backends_in_one_bundle(tmp_path: Path) -> None:
    path = bundle(tmp_path / "m.edgec", 2)
    with load(path, threads=1) as model:
        for seed, n, t in ((1, 2, 6), (2, 1, 3), (3, 4, 16)):
            given = bundles.feeds(seed, n, t)
            found = model.run(given)
            for name, array in bundles.expected(given).items():
                np.testing.assert_allclose(found[name], array, atol=1e-5)
        assert model.self_test().passed


def test_each_backend_of_a_bundle_takes_settings_of_its_own(tmp_path: Path) -> None:
    path = bundle(tmp_path / "m.edgec", 2)
    own = {"onnxruntime": {"spinning": "never"}, "openvino": {"specialise": 0}}
    with load(path, settings={"threads": 1, **own}) as model:
        session, other = (step.session for step in model._steps)
        options = session._session.get_session_options()
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert options.intra_op_num_threads == 1
        assert other._most == 0
        assert other._properties["INFERENCE_NUM_THREADS"] == 1
    # what is under a backend's name goes before what is for all
    with load(path, settings={"threads": 1, "openvino": {"threads": 2}}) as model:
        assert model._steps[1].session._properties["INFERENCE_NUM_THREADS"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"spinning": "never"}, "openvino engine: not allowed: unknown setting 'spinning'"),
        ({"openvino": {"spinning": "never"}}, "openvino engine: .* unknown setting 'spinning'"),
        ({"openvimo": {"hint": "latency"}}, "unknown setting 'openvimo'"),
        ({"openvino": "latency"}, "the settings of backend openvino are no mapping: 'latency'"),
    ],
)
def test_settings_that_no_backend_of_the_bundle_takes(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        load(bundle(tmp_path / "m.edgec", 2), settings=settings)


def test_settings_for_a_built_in_backend_that_the_bundle_does_not_use(tmp_path: Path) -> None:
    path = bundle(tmp_path / "m.edgec", 1)
    with load(path, settings={"onnxruntime": {"spinning": "never"}}) as model:
        assert model.self_test().passed


def test_a_bundle_is_checked_before_openvino_sees_it(tmp_path: Path) -> None:
    path = bundle(tmp_path / "m.edgec", 1)

    def spoil(described: dict[str, Any], files: dict[str, bytes]) -> None:
        files["engines/it.bin"] = bytes(len(files["engines/it.bin"]))

    with (
        pytest.raises(InputError, match=r"engines/it\.bin"),
        Bundle(bundles.edit(path, spoil)) as opened,
    ):
        opened.path("engines/it.bin")


DEVICE = """
import sys
class Only:
    allowed = {"numpy", "openvino", "openvino_telemetry", "edgec", "sitecustomize", "__main__"}
    allowed |= set(sys.stdlib_module_names)
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError("not on the device: " + name, name=name)
sys.meta_path.insert(0, Only())
"""


def test_a_bundle_runs_itself_with_numpy_and_openvino(tmp_path: Path) -> None:
    path = bundle(tmp_path / "m.edgec", 1)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEVICE)
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}

    def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, *map(str, words)]
        return subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True)

    for name in ("onnxruntime", "onnx", "click"):
        assert f"not on the device: {name}" in python("-c", f"import {name}").stderr
    done = python(path, "run", "--golden")
    assert done.returncode == 0, done.stderr
    assert "score: float32[2, 5]" in done.stdout
    given = bundles.feeds(5, 3, 4)
    np.savez(tmp_path / "in.npz", **given)
    done = python(path, "run", "--inputs", "in.npz", "--outputs", "out.npz")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        for name, array in bundles.expected(given).items():
            np.testing.assert_allclose(found[name], array, atol=1e-5)
    for words in (("verify",), ("info",), ("bench", "--rounds", "1", "--calls", "1")):
        done = python(path, *words)
        assert done.returncode == 0, done.stderr


def test_a_device_without_openvino_is_told_what_to_install(tmp_path: Path) -> None:
    path = bundle(tmp_path / "m.edgec", 1)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEVICE.replace('"openvino", ', ""))
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    line = [sys.executable, str(path), "run", "--golden"]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 5
    assert "this bundle runs on openvino, which is not installed" in done.stderr
    assert "pip install openvino" in done.stderr
    assert "Traceback" not in done.stderr
