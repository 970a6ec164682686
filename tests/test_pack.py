"""Bundles are written whole, alike every time, and only over other bundles."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "runtime"))
import bundles

from edgec import pack
from edgec.errors import InputError, InternalError
from edgec.runtime import npz
from edgec.runtime.bundle import Bundle


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_round_trip(tmp_path: Path) -> None:
    described, files = bundles.parts(2)
    path = pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)
    assert path == tmp_path / "m.edgec"
    with Bundle(path) as bundle:
        assert {k: v for k, v in bundle.manifest.items() if k != "files"} == described
        for name, data in files.items():
            assert bundle.read(name) == data
            assert bundle.manifest["files"][name] == {
                "sha256": hashlib.sha256(data).hexdigest(),
                "bytes": len(data),
            }
        assert bundle.packed
    assert os.listdir(tmp_path) == ["m.edgec"]


def test_a_folder_has_the_same_contents(tmp_path: Path) -> None:
    zipped, folder = bundles.write(tmp_path / "z"), bundles.write(tmp_path / "f", folder=True)
    assert contents(folder) == bundles.members(zipped)
    with Bundle(folder) as bundle:
        assert not bundle.packed
    assert sorted(os.listdir(tmp_path)) == ["f", "z"]


def test_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described, files = bundles.parts(2)
    first = pack.write_bundle(described, files, tmp_path / "1.edgec", force=False).read_bytes()
    on_disk = {}
    for name, data in reversed(files.items()):
        on_disk[name] = tmp_path / name.replace("/", "_")
        on_disk[name].write_bytes(data)
        os.utime(on_disk[name], (10**9, 10**9))
        on_disk[name].chmod(0o600)
    shuffled = dict(reversed(described.items()))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    old = os.umask(0o077)
    try:
        pack.write_bundle(shuffled, on_disk, tmp_path / "2.edgec", force=False)
    finally:
        os.umask(old)
    assert (tmp_path / "2.edgec").read_bytes() == first


def test_weights_are_stored_with_fixed_times_and_permissions(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "m.edgec")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    assert [member.filename for member in members] == sorted(m.filename for m in members)
    for member in members:
        small = member.filename.endswith((".py", ".json", ".npz", ".xml"))
        expected = zipfile.ZIP_DEFLATED if small else zipfile.ZIP_STORED
        assert member.compress_type == expected, member.filename
        assert member.date_time == (1980, 1, 1, 0, 0, 0)
        assert (member.create_system, member.external_attr) == (3, 0o100644 << 16)
        assert (member.extra, member.flag_bits) == (b"", 0)


def test_the_runtime_comes_along(tmp_path: Path) -> None:
    runtime = pack.runtime_files()
    assert len(runtime["__main__.py"].splitlines()) <= 5
    package = Path(pack.__file__).parent
    wanted = {f"edgec/runtime/{path.name}" for path in (package / "runtime").glob("*.py")}
    wanted |= {"__main__.py", "edgec/__init__.py", "edgec/errors.py", "edgec/bundle.schema.json"}
    assert set(runtime) == wanted
    assert sum(len(zlib.compress(data)) for data in runtime.values()) < 125_000


def test_an_existing_bundle_is_kept(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "m.edgec", 1)
    before = path.read_bytes()
    with pytest.raises(InputError, match="exists already") as caught:
        bundles.write(path, 2)
    assert "--force" in caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_force_replaces_a_bundle(tmp_path: Path, old: bool, new: bool) -> None:
    path = bundles.write(tmp_path / "m", 1, folder=old)
    described, files = bundles.parts(2)
    pack.write_bundle(described, files, path, force=True, folder=new)
    with Bundle(path) as bundle:
        assert len(bundle.manifest["engines"]) == 2
        assert bundle.packed != new
    assert os.listdir(tmp_path) == ["m"]


def test_force_replaces_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").write_text("x")
    described, files = bundles.parts(1)
    for folder in (False, True):
        with pytest.raises(InputError, match="is no bundle and is not replaced"):
            pack.write_bundle(described, files, tmp_path / "photos", force=True, folder=folder)
    assert (tmp_path / "photos/holiday.jpg").exists()


@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_leaves_the_old_bundle_and_nothing_else(
    tmp_path: Path, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundles.write(tmp_path / "m", 1, folder=folder)
    described, files = bundles.parts(2)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*No space left on device"):
        pack.write_bundle(described, files, path, force=True, folder=folder)
    assert os.listdir(tmp_path) == ["m"]
    with Bundle(path) as bundle:
        assert len(bundle.manifest["engines"]) == 1


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*No such file"):
        bundles.write(tmp_path / "no" / "m.edgec")


def _set(key: str, value: Any) -> Any:
    return lambda described, files: described.__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("engines", []), r"\$.engines: \[\] should be non-empty"),
        (_set("extra", 1), "Additional properties are not allowed"),
        (_set("schema", 2), r"\$.schema: 1 was expected"),
        (_set("limits", {"part_sqnr_db": 12.0}), "'cosine' is a required property"),
        (_set("outputs", [{**bundles.SCORE, "name": "ghost"}]), "made by no engine"),
        (lambda described, files: files.pop("golden/inputs.npz"), "is used but not listed"),
        (lambda described, files: files.update({"../x": b""}), "'../x' does not match"),
        (lambda described, files: files.update({"__main__.py": b""}), "belong to the runtime"),
    ],
)
def test_a_manifest_that_no_device_would_take(tmp_path: Path, change: Any, message: str) -> None:
    described, files = bundles.parts(2)
    change(described, files)
    with pytest.raises(InternalError, match=message):
        pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)
    assert os.listdir(tmp_path) == []


def test_not_finite_numbers_are_no_json(tmp_path: Path) -> None:
    described, files = bundles.parts(2)
    described["limits"]["cosine"] = float("nan")
    with pytest.raises(InternalError, match="not JSON"):
        pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)


def test_the_manifest_is_readable(tmp_path: Path) -> None:
    text = bundles.members(bundles.write(tmp_path / "m.edgec"))["manifest.json"].decode()
    assert len(text.splitlines()) > 50
    assert list(json.loads(text)) == sorted(json.loads(text))


ARRAYS = {
    "image": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a/b": np.array([[True, False]]),
    "scalar": np.array(3, np.int64),
    "empty": np.zeros((0, 3), np.float16),
    "turned": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
}


def test_npz_bytes() -> None:
    data = pack.npz_bytes(ARRAYS)
    assert data == pack.npz_bytes(dict(reversed(ARRAYS.items())))
    with np.load(io.BytesIO(data), allow_pickle=False) as ours:
        assert set(ours.files) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(ours[name], array, strict=True)
    buffer = io.BytesIO()
    np.savez(buffer, **ARRAYS)
    for source in (data, buffer.getvalue()):
        found = npz.read(source, "x")
        assert set(found) == set(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
            assert found[name].flags.c_contiguous
            assert found[name].flags.writeable


def test_npz_bytes_are_pinned() -> None:
    """Another numpy or Python must not change a bundle's bytes."""
    digest = hashlib.sha256(pack.npz_bytes({"x": np.arange(3, dtype=np.float32)})).hexdigest()
    assert digest == "1c5b06203ab8f0fa27854093827843b5d290ab42ca129e5a5542e53611ff951a"


def test_npz_of_a_user_may_be_compressed(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", **ARRAYS)
    found = npz.read(tmp_path / "x.npz", "x")
    np.testing.assert_array_equal(found["image"], ARRAYS["image"])
