"""Every bundle that cannot be trusted is refused, and the message says why."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import pytest

from edgec.errors import InputError
from edgec.runtime import load
from edgec.runtime.bundle import Bundle
from edgec.runtime.onnx_file import external_files


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "m.edgec")


def refused(path: Path, message: str) -> InputError:
    with pytest.raises(InputError, match=message) as caught:
        Bundle(path)
    assert caught.value.hint
    return caught.value


def test_the_good_one_opens(good: Path) -> None:
    with Bundle(good) as bundle:
        assert bundle.manifest["tool"]["name"] == "edgec"


BAD_NAMES = ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:/evil", "a//b", "./a", "a\n"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_member_that_leaves_the_bundle(good: Path, name: str) -> None:
    # zipfile turns the host's separator into "/"; the others reach the archive as they are.
    bundles.rezip(good, {**bundles.members(good), name: b"evil"})
    refused(good, "unsafe or leaves the bundle")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_listed_file_that_leaves_the_bundle(good: Path, name: str) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        manifest["files"][name] = manifest["files"]["__main__.py"]

    bundles.edit(good, change)
    refused(good, "files: .* is not allowed here .a path that stays inside the bundle")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_artifact_that_leaves_the_bundle(good: Path, name: str) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        manifest["engines"][0]["artifact"] = name

    bundles.edit(good, change)
    refused(good, r"engines\[0\].artifact: .* is not allowed here")


def test_a_symbolic_link_in_the_zip(good: Path) -> None:
    files = bundles.members(good)
    with zipfile.ZipFile(good, "w") as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name)
            link = name == "engines/vision.onnx"
            member.external_attr = (0o120777 if link else 0o100644) << 16
            archive.writestr(member, b"/etc/passwd" if link else data)
    refused(good, "engines/vision.onnx: a symbolic link is not allowed")


def test_a_symbolic_link_in_a_folder(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "folder", folder=True)
    target = path / "engines/vision.onnx"
    target.rename(tmp_path / "elsewhere.onnx")
    target.symlink_to(tmp_path / "elsewhere.onnx")
    refused(path, "engines/vision.onnx: a symbolic link is not allowed")


def test_a_linked_folder_in_a_folder(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "folder", folder=True)
    (path / "engines").rename(tmp_path / "elsewhere")
    (path / "engines").symlink_to(tmp_path / "elsewhere")
    refused(path, "engines: a symbolic link is not allowed")


def test_a_pipe_in_a_folder(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "folder", folder=True)
    os.mkfifo(path / "pipe")
    refused(path, "pipe: neither a file nor a folder")


def test_a_changed_byte(good: Path) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        data = bytearray(files["engines/fusion.onnx"])
        data[len(data) // 2] ^= 1
        files["engines/fusion.onnx"] = bytes(data)

    bundles.edit(good, change)
    refused(good, "engines/fusion.onnx was changed: its sha256 is not the manifest's")


def test_a_changed_runtime(good: Path) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        files["__main__.py"] = files["__main__.py"].replace(b"import os", b"import io")

    bundles.edit(good, change)
    refused(good, "__main__.py was changed")


def test_another_size(good: Path) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        files["engines/fusion.onnx"] += b"\0"

    bundles.edit(good, change)
    refused(good, r"engines/fusion.onnx has \d+ bytes, the manifest says \d+")


@pytest.mark.parametrize("name", ["engines/fusion.onnx", "golden/inputs.npz", "edgec/errors.py"])
def test_a_missing_part(good: Path, name: str) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        del files[name]

    bundles.edit(good, change)
    refused(good, "the bundle lacks '" + name)


def test_an_unlisted_file(good: Path) -> None:
    bundles.rezip(good, {**bundles.members(good), "edgec/extra.py": b"evil"})
    refused(good, "the manifest does not list 'edgec/extra.py'")


def test_an_unlisted_file_in_a_folder(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "folder", folder=True)
    (path / "extra.txt").write_text("x")
    refused(path, "the manifest does not list 'extra.txt'")


def test_a_name_twice(good: Path) -> None:
    files = bundles.members(good)
    with zipfile.ZipFile(good, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("__main__.py", files["__main__.py"])
    refused(good, "'__main__.py' is twice in the zip file")


def test_a_zip_bomb_is_refused_before_it_is_inflated(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.rezip(good, {**bundles.members(good), "bomb": bytes(1 << 26)}, zipfile.ZIP_DEFLATED)
    assert good.stat().st_size < 1 << 20

    def no_reading(*args: object) -> None:
        raise AssertionError("a member was read")

    monkeypatch.setattr(zipfile.ZipFile, "open", no_reading)
    refused(good, "compressed beyond the limits: a zip bomb?")


def test_many_small_bombs_are_one(good: Path) -> None:
    bombs = {f"bomb{index}": bytes(15 << 20) for index in range(5)}
    bundles.rezip(good, {**bundles.members(good), **bombs}, zipfile.ZIP_DEFLATED)
    refused(good, "bomb4: compressed beyond the limits|bomb3: compressed beyond the limits")


def test_another_compression(good: Path) -> None:
    bundles.rezip(good, bundles.members(good), zipfile.ZIP_BZIP2)
    refused(good, "compressed beyond the limits")


def test_overlapping_members(good: Path) -> None:
    """Many central entries that point at the same stored bytes."""
    with zipfile.ZipFile(good, "a") as archive:
        archive.writestr("big", bytes(1 << 16))
        original = archive.getinfo("big")
        for index in range(20):
            copy = zipfile.ZipInfo(f"big{index}")
            for field in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(copy, field, getattr(original, field))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True  # type: ignore[attr-defined]
    refused(good, "claims more bytes than it has")


@pytest.mark.parametrize("keep", [0.999, 0.5, 0.01])
def test_a_truncated_zip(good: Path, keep: float) -> None:
    data = good.read_bytes()
    good.write_bytes(data[: int(len(data) * keep)])
    refused(good, "truncated or damaged")


def test_every_truncation_is_refused(good: Path) -> None:
    data = good.read_bytes()
    for size in [*range(0, len(data), len(data) // 60), len(data) - 1]:
        good.write_bytes(data[:size])
        refused(good, "truncated|is no bundle")


def test_damaged_bytes_anywhere_are_an_input_error_or_harmless(good: Path) -> None:
    data, rng = good.read_bytes(), np.random.default_rng(3)
    refusals = 0
    for position in rng.integers(0, len(data), 150):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        good.write_bytes(damaged)
        try:
            Bundle(good).close()
        except InputError:
            refusals += 1
    assert refusals > 130


def test_a_newer_schema_names_the_version_that_is_needed(good: Path) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        manifest.update(schema=2, tool={"name": "edgec", "version": "3.4.0"}, novelty=[])

    bundles.edit(good, change)
    error = refused(good, "manifest schema 2, this edgec reads up to 1: it needs edgec>=3.4.0")
    assert "pip install --upgrade 'edgec>=3.4.0'" in error.hint


def test_a_newer_schema_cannot_put_words_into_the_hint(good: Path) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        manifest.update(schema=2, tool={"version": "1'; rm -rf ~; '"})

    bundles.edit(good, change)
    error = refused(good, "it needs a newer edgec")
    assert "rm" not in error.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "expected an object"),
        (b"{}", "schema: expected a version number"),
        (b'{"schema": 1}', "top level: missing tool, toolchain"),
        (b'{"schema": 1, "schema": 1}', "duplicate key 'schema'"),
        (b'{"schema": NaN}', "NaN is not a number"),
        (b'{"schema": 1e999}', "too large"),
        (b'{"schema": ' + b"9" * 100_000 + b"}", "too large"),
        (b"[" * 200_000, "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
    ],
)
def test_a_manifest_that_is_none(good: Path, text: bytes, message: str) -> None:
    bundles.rezip(good, {**bundles.members(good), "manifest.json": text})
    refused(good, message)


def test_a_manifest_of_hundreds_of_megabytes(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.runtime.manifest.MAX_BYTES", 100)

    def no_reading(*args: object) -> None:
        raise AssertionError("the manifest was read")

    monkeypatch.setattr(zipfile.ZipFile, "open", no_reading)
    refused(good, r"manifest.json has \d+ bytes, more than 100")


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any], bundles.Files], None]:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        place: Any = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("engines", 1, "inputs", 0, to="ghost"), "'fusion' reads 'ghost', which nothing"),
        (_set("engines", 1, "outputs", 0, to="image"), "'fusion' makes 'image', which exists"),
        (_set("engines", 1, "name", to="vision"), "engines: 'vision' stands there twice"),
        (_set("outputs", 0, "name", to="ghost"), "output 'ghost' is made by no engine"),
        (_set("inputs", 1, "name", to="image"), "inputs: 'image' stands there twice"),
        (_set("inputs", 0, "range", to=[[1, 2]]), "range and shape differ in length"),
        (_set("inputs", 0, "range", 0, to=[3, 2]), "a range ends before it begins"),
        (_set("engines", 0, "artifact", to="no"), "files: 'no' is used but not listed"),
        (_set("engines", 0, "data_files", to=["no"]), "files: 'no' is used but not listed"),
        (_set("golden", "inputs", to="no"), "files: 'no' is used but not listed"),
        (_set("golden", "tolerance", "relative", to=0), "0 is out of range"),
        (_set("surprise", to=1), "surprise: not known in this schema"),
        (_set("inputs", 0, "dtype", to="object"), "inputs.0..dtype: expected one of"),
        (_set("files", "engines", to={"sha256": "0" * 64, "bytes": 1}), "is a file and a folder"),
        (_set("files", "__MAIN__.py", to={"sha256": "0" * 64, "bytes": 1}), "twice, differing"),
        (_set("files", "manifest.json", to={"sha256": "0" * 64, "bytes": 1}), "list itself"),
    ],
)
def test_a_manifest_that_contradicts_itself(good: Path, change: Any, message: str) -> None:
    bundles.edit(good, change)
    refused(good, message)


class Evil:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("pickle-was-run",))


@pytest.mark.parametrize("which", ["inputs", "outputs"])
def test_a_pickled_array(
    good: Path, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        buffer = io.BytesIO()
        array = np.empty(1, object)
        array[0] = Evil()
        np.savez(buffer, image=array)
        files[f"golden/{which}.npz"] = buffer.getvalue()
        bundles.list_files(manifest, files)

    bundles.edit(good, change)
    with (
        load(good) as model,
        pytest.raises(InputError, match=r"pickled .object. array is refused"),
    ):
        model.self_test()
    assert not (tmp_path / "pickle-was-run").exists()


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (_npy("{'descr':'<f4','fortran_order':False,'shape':(10**9,)}"), "header is damaged"),
        (_npy("{'descr':'<f4','fortran_order':False,'shape':(999999999999,)}"), "does not fit"),
        (_npy("{'descr':'<f4','fortran_order':False,'shape':(2,)}", bytes(7)), "does not fit"),
        (_npy("{'descr':'<f4','fortran_order':False,'shape':(-2,-1)}", bytes(8)), "does not fit"),
        (_npy("{'descr':'<U4','fortran_order':False,'shape':(1,)}", bytes(16)), "dtype <U4"),
        (_npy("{'descr':'|V4','fortran_order':False,'shape':(1,)}", bytes(4)), "not supported"),
        (_npy("__import__('os').getcwd()"), "header is damaged"),
        (pickle.dumps(Evil()), "header is damaged"),
        (b"", "header is damaged"),
    ],
)
def test_a_hostile_array(good: Path, member: bytes, message: str) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("image.npy", member)
        files["golden/inputs.npz"] = buffer.getvalue()
        bundles.list_files(manifest, files)

    bundles.edit(good, change)
    with Bundle(good) as bundle, pytest.raises(InputError, match=message):
        bundle.arrays("golden/inputs.npz")


def test_a_compressed_array_in_a_bundle(good: Path) -> None:
    def change(manifest: dict[str, Any], files: bundles.Files) -> None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, image=np.zeros(1 << 20))
        files["golden/inputs.npz"] = buffer.getvalue()
        bundles.list_files(manifest, files)

    bundles.edit(good, change)
    with Bundle(good) as bundle, pytest.raises(InputError, match="compressed arrays"):
        bundle.arrays("golden/inputs.npz")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "red"}, "unknown setting 'colour'"),
        ({"threads": -1}, "threads -1"),
        ({"threads": True}, "threads True"),
        ({"threads": "2"}, "threads '2'"),
        ({"graph_optimization_level": ["all"]}, "graph_optimization_level"),
        ({"spinning": {}}, "spinning"),
        ({"config": []}, "config is an object"),
        ({"disabled_optimizers": "x"}, "disabled_optimizers a list"),
        ({"config": {"session.intra_op.allow_spinning": 0}}, "allow_spinning"),
        ({"config": {"ep.context_file_path": "/etc/x"}}, "ep.context_file_path"),
        (
            {"config": {"session.model_external_initializers_file_folder_path": "/etc"}},
            "model_external_initializers",
        ),
    ],
)
def test_settings_that_are_not_the_manifests_business(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    path = bundles.write(tmp_path / "m.edgec", **settings)
    with pytest.raises(InputError, match="not allowed: .*" + message):
        load(path)


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("where", ["../secret.bin", "/tmp/secret.bin", "a/../../secret.bin", ""])
def test_weights_outside_the_bundle(tmp_path: Path, where: str, folder: bool) -> None:
    """onnxruntime 1.19 would read them."""
    described, files = bundles.parts(2)
    model = bundles.two_tower_models()["fusion"]
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, where)
    tensor.ClearField("raw_data")
    files["engines/fusion.onnx"] = model.SerializeToString()
    path = bundles.pack.write_bundle(described, files, tmp_path / "m", force=False, folder=folder)
    with pytest.raises(
        InputError, match="keeps weights outside its folder: " + re.escape(repr(where))
    ):
        load(path)


def test_weights_that_no_file_holds(tmp_path: Path) -> None:
    described, files = bundles.parts(2)
    model = bundles.two_tower_models()["fusion"]
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "weights.bin")
    model.graph.initializer[0].ClearField("raw_data")
    files["engines/fusion.onnx"] = model.SerializeToString()
    path = bundles.pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)
    with pytest.raises(InputError, match=r"needs the data file 'weights.bin', which is not listed"):
        load(path)


@pytest.mark.parametrize("junk", [b"junk", b"", b"\x08", b"\xff" * 50, bytes(100), b"....ORTM...."])
def test_an_artifact_that_is_no_model(tmp_path: Path, junk: bytes) -> None:
    described, files = bundles.parts(2)
    files["engines/fusion.onnx"] = junk
    path = bundles.pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)
    with pytest.raises(InputError, match=r"no ONNX model|cannot open|own format"):
        load(path)


def test_no_such_file(tmp_path: Path) -> None:
    refused(tmp_path / "no.edgec", "does not exist")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "x.edgec").write_text("hello")
    refused(tmp_path / "x.edgec", "is no bundle")


def test_a_folder_of_another_kind(tmp_path: Path) -> None:
    refused(tmp_path, r"holds no manifest.json")


def test_a_zip_of_another_kind(tmp_path: Path) -> None:
    refused(bundles.rezip(tmp_path / "x.edgec", {"a.txt": b"x"}), r"holds no manifest.json")


def test_the_edit_helper_itself_keeps_a_bundle_good(good: Path) -> None:
    """Otherwise the tests above might see the wrong refusal."""
    bundles.edit(good, lambda manifest, files: bundles.list_files(manifest, files))
    with Bundle(good) as bundle:
        assert json.loads(bundles.members(good)["manifest.json"]) == bundle.manifest


def test_a_model_that_is_cut_off() -> None:
    model = bundles.two_tower_models()["one"].SerializeToString()
    assert external_files(model, "x") == set()
    refusals = 0
    for size in range(0, len(model), 7):
        try:
            external_files(model[:size], "x")
        except InputError as error:
            refusals += "is no ONNX model, or is cut off" in error.message
    assert refusals > len(model) // 7 - 10
