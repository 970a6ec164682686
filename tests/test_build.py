"""The whole line: bundles that open and run, the same bytes twice, and never half of one."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphs
import jsonschema
import numpy as np
import pytest
import small

from edgec import runtime
from edgec.build import Job, build, calibrate
from edgec.errors import EdgecError, EmitError, InputError, UnsupportedError
from edgec.report import report_path
from edgec.results import Report
from edgec.runtime.manifest import schema
from edgec.types import Limits, Range, Scheme

NAME = "clip_torchscript"
MODEL = graphs.path(NAME)
LOOSE = Limits(part_sqnr_db=None, cosine=None)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The samples of a fixture, written once."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = graphs.write_samples(name, tmp_path_factory.mktemp(name), 6)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def built(
    tmp_path_factory: pytest.TempPathFactory, samples: Callable[[str], Path]
) -> Callable[..., Report]:
    """Bundles, each built once for all tests that look at it."""
    made: dict[tuple[Any, ...], Report] = {}

    def one(target: str, name: str = NAME, *, data: bool = True) -> Report:
        key = (target, name, data)
        if key not in made:
            job = Job(
                graphs.path(name),
                target=target,
                backend="onnxruntime",
                data=samples(name) if data else None,
                output=tmp_path_factory.mktemp("out") / f"{name}.edgec",
                measure=False,
                threads=1,
            )
            made[key] = build(job)
        return made[key]

    return one


def manifest(path: Path) -> dict[str, Any]:
    if path.is_dir():
        return json.loads((path / "manifest.json").read_text())  # type: ignore[no-any-return]
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("manifest.json"))  # type: ignore[no-any-return]


def schemes(report: Report) -> dict[str, str]:
    return {part: str(scheme) for part, scheme in report.plan.schemes.items()}


EXPECTED = {
    "x86-vnni": {"vision": "int8_static", "text": "int8_dynamic", "fusion": "float32"},
    "x86-avx2": {"vision": "int8_static", "text": "int8_dynamic", "fusion": "float32"},
    "aarch64-dotprod": {"vision": "int8_static", "text": "int8_dynamic", "fusion": "float32"},
    "generic": {"vision": "int8_weight_only", "text": "int8_weight_only", "fusion": "float32"},
}


@pytest.mark.parametrize("target", small.TARGETS)
def test_a_bundle_for_every_target(target: str, built: Callable[..., Report]) -> None:
    report = built(target)
    assert report.target == target
    assert schemes(report) == EXPECTED[target]
    feeds = graphs.load_feeds(NAME, 77, images=1, texts=1)
    exact = small.run(MODEL, feeds, level="ORT_ENABLE_ALL")
    with runtime.load(report.bundle, threads=1) as model:
        outputs = model.run(feeds)
        assert model.self_test().passed
    assert set(outputs) == set(exact)
    for key, array in exact.items():
        assert outputs[key].dtype == array.dtype
        assert outputs[key].shape == array.shape
    embedding = outputs["image_embedding"].ravel(), exact["image_embedding"].ravel()
    cosine = embedding[0] @ embedding[1] / np.prod([np.linalg.norm(e) for e in embedding])
    assert cosine > 0.97
    (artifact,) = report.artifacts
    assert artifact.planned == artifact.emitted == artifact.optimised
    assert (artifact.planned.int8 > 0) == (target != "generic")


@pytest.mark.parametrize("target", small.TARGETS)
def test_the_manifest_keeps_to_its_schema(target: str, built: Callable[..., Report]) -> None:
    page = manifest(built(target).bundle)
    jsonschema.Draft202012Validator(schema()).validate(page)
    assert page["source"] == {
        "name": MODEL.name,
        "sha256": hashlib.sha256(MODEL.read_bytes()).hexdigest(),
        "bytes": MODEL.stat().st_size,
    }
    assert page["target"]["name"] == target
    assert [part["name"] for part in page["parts"]] == list(EXPECTED[target])
    nodes = [node for row in page["decisions"] for node in row["nodes"]]
    assert sorted(nodes) == sorted(str(n.name) for n in small.fixture(NAME).model.graph)
    assert all(row["reason"] and row["evidence"] for row in page["decisions"])
    assert {row["part"] for row in page["checks"]} == {"vision", "text", "fusion", ""}
    assert all(row["samples"] == 2 for row in page["checks"])
    assert page["calibration"]["samples"] == 4 if target != "generic" else True
    assert page["check_data"] == "6 files"


def test_a_bundle_and_its_report_say_the_same(built: Callable[..., Report]) -> None:
    report = built("x86-vnni")
    page = json.loads(report_path(report.bundle).read_text())
    assert page["bundle_bytes"] == report.bundle.stat().st_size == report.bundle_bytes
    assert {part["name"]: part["scheme"] for part in page["parts"]} == schemes(report)
    assert page["decisions"] == manifest(report.bundle)["decisions"]
    for part in page["parts"]:
        if part["scheme"] != "float32":
            assert part["built_bytes"] < 0.6 * part["source_bytes"]


def test_only_bundle_and_report_are_left(built: Callable[..., Report]) -> None:
    report = built("x86-vnni")
    assert sorted(p.name for p in report.bundle.parent.iterdir()) == [
        f"{NAME}.cdx.json",
        f"{NAME}.edgec",
        f"{NAME}.report.json",
    ]


@pytest.mark.parametrize("target", ["x86-vnni", "generic"])
def test_built_twice_gives_the_same_bytes(
    target: str, built: Callable[..., Report], samples: Callable[[str], Path], tmp_path: Path
) -> None:
    first = built(target)
    again = build(
        Job(
            MODEL,
            target=target,
            backend="onnxruntime",
            data=samples(NAME),
            output=tmp_path / "again.edgec",
            measure=False,
            threads=1,
        )
    )
    assert again.bundle.read_bytes() == first.bundle.read_bytes()


def test_a_folder_holds_what_the_file_holds(
    built: Callable[..., Report], samples: Callable[[str], Path], tmp_path: Path
) -> None:
    job = Job(
        MODEL,
        target="x86-vnni",
        backend="onnxruntime",
        data=samples(NAME),
        output=tmp_path / "bundle",
        measure=False,
        threads=1,
    )
    folder = build(job).bundle
    assert folder.is_dir()
    assert manifest(folder)["files"] == manifest(built("x86-vnni").bundle)["files"]
    with runtime.load(folder) as model:
        assert model.self_test().passed


# Failures


def bad_samples(folder: Path) -> Path:
    graphs.write_samples(NAME, folder, 6)
    arrays = dict(np.load(folder / "sample_0004.npz"))
    arrays["image"] = arrays["image"] * np.nan
    np.savez(folder / "sample_0004.npz", **arrays)
    return folder


@pytest.mark.parametrize("force", [False, True])
def test_bad_data_leaves_nothing_and_takes_nothing_away(force: bool, tmp_path: Path) -> None:
    data = bad_samples(tmp_path / "data")
    out = tmp_path / "out"
    out.mkdir()
    output = out / "model.edgec"
    if force:
        output.write_bytes(b"an older bundle")
    job = Job(MODEL, target="generic", data=data, output=output, force=force, measure=False)
    with pytest.raises(InputError, match=r"sample_0004\.npz: input 'image' holds NaN") as caught:
        build(job)
    assert caught.value.exit_code == 3
    assert [(p.name, p.read_bytes()) for p in out.iterdir()] == (
        [("model.edgec", b"an older bundle")] if force else []
    )


def test_an_activation_that_overflows_is_left_out_and_said(tmp_path: Path) -> None:
    data = graphs.write_samples(NAME, tmp_path / "data", 6)
    arrays = dict(np.load(data / "sample_0003.npz"))
    arrays["image"] = np.full_like(arrays["image"], 3e38)
    np.savez(data / "sample_0003.npz", **arrays)
    job = Job(
        MODEL,
        target="x86-vnni",
        backend="onnxruntime",
        data=data,
        output=tmp_path / "model.edgec",
        limits=LOOSE,
        measure=False,
    )
    (said,) = (note for note in build(job).notes if "infinite numbers" in note)
    assert said.startswith("calibration: infinite numbers, which are left out of the range: '")


# Statistics


@pytest.fixture(scope="module")
def statistics(samples: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for x86-vnni, whose builds may need more than those for other targets."""
    file = tmp_path_factory.mktemp("statistics") / "clip.npz"
    calibrate(with_statistics(file, samples(NAME), file.with_name("none")))
    return file


def with_statistics(file: Path | None, data: Path, output: Path, target: str = "x86-vnni") -> Job:
    return Job(
        MODEL,
        target=target,
        backend="onnxruntime",
        data=data,
        output=output,
        measure=False,
        threads=1,
        statistics=file,
    )


@pytest.mark.parametrize("target", ["x86-vnni", "aarch64-dotprod"])
def test_a_build_with_statistics_is_the_build_without(
    target: str,
    built: Callable[..., Report],
    samples: Callable[[str], Path],
    statistics: Path,
    tmp_path: Path,
) -> None:
    before = statistics.read_bytes()
    job = with_statistics(statistics, samples(NAME), tmp_path / "bundle.edgec", target)
    assert build(job).bundle.read_bytes() == built(target).bundle.read_bytes()
    assert statistics.read_bytes() == before  # it had all that these plans ask for


def test_statistics_that_do_not_exist_yet_are_made(
    built: Callable[..., Report], samples: Callable[[str], Path], tmp_path: Path, statistics: Path
) -> None:
    file = tmp_path / "new.npz"
    first = build(with_statistics(file, samples(NAME), tmp_path / "one.edgec"))
    assert first.bundle.read_bytes() == built("x86-vnni").bundle.read_bytes()
    assert file.read_bytes() == statistics.read_bytes()


def test_other_data_verifies_what_was_calibrated_before(
    statistics: Path, samples: Callable[[str], Path], tmp_path: Path
) -> None:
    """None of it is calibrated on, since the statistics know enough; all of it verifies."""
    data = tmp_path / "data"
    data.mkdir()
    for number in range(3):
        arrays = graphs.load_feeds(NAME, 50 + number, batch=1, images=1, texts=1)
        np.savez(data / f"new_{number}.npz", **arrays)  # type: ignore[arg-type]
    report = build(with_statistics(statistics, data, tmp_path / "bundle.edgec"))
    assert {one.samples for one in report.checks.outputs} == {3}
    assert manifest(report.bundle)["calibration"]["samples"] == 4


def test_statistics_that_have_seen_everything(
    samples: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "all.npz"
    job = with_statistics(file, samples(NAME), tmp_path / "bundle.edgec")
    calibrate(job, everything=True)
    with pytest.raises(InputError, match="none is left to verify on") as caught:
        build(job)
    assert "not calibrated on" in caught.value.hint
    assert list(tmp_path.iterdir()) == [file]


def test_statistics_without_data(statistics: Path, tmp_path: Path) -> None:
    job = replace(with_statistics(statistics, tmp_path, tmp_path / "bundle.edgec"), data=None)
    with pytest.raises(InputError, match="without samples to verify on"):
        build(job)


def test_a_damaged_statistics_file_stops_the_build(
    samples: Callable[[str], Path], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"PK")
    with pytest.raises(InputError, match="file"):
        build(with_statistics(file, samples(NAME), tmp_path / "bundle.edgec"))
    assert list(tmp_path.iterdir()) == [file]


def test_an_existing_output_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model.edgec"
    output.write_bytes(b"mine")
    monkeypatch.setattr("edgec.build.prepare", lambda _: pytest.fail("work was done"))
    with pytest.raises(InputError, match=r"model\.edgec exists") as caught:
        build(Job(MODEL, target="generic", output=output))
    assert "--force" in caught.value.hint
    assert output.read_bytes() == b"mine"


def test_force_replaces_a_bundle(built: Callable[..., Report], tmp_path: Path) -> None:
    output = tmp_path / "model.edgec"
    output.write_bytes(b"old")
    job = Job(graphs.path("mlp"), target="generic", output=output, force=True, measure=False)
    report = build(job)
    assert report.bundle == output
    with runtime.load(output) as model:
        assert model.self_test().passed


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        build(Job(MODEL, target="generic", output=tmp_path / "no" / "model.edgec"))


def test_another_backend_is_refused_with_a_reason(tmp_path: Path) -> None:
    job = Job(MODEL, target="generic", backend="tensorrt", output=tmp_path / "m.edgec")
    with pytest.raises(UnsupportedError, match="runs on onnxruntime, not on tensorrt") as caught:
        build(job)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("moment", ["round_1", "calibrate"])
def test_a_killed_build_leaves_no_half_bundle(
    moment: str, samples: Callable[[str], Path], tmp_path: Path
) -> None:
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    out.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-m", "edgec", "build", str(MODEL), "--target", "x86-vnni"]
    command += ["--data", str(samples(NAME)), "-o", str(out / "m.edgec"), "--no-measure"]
    command += ["--backend", "onnxruntime"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pattern = {"round_1": "edgec-build-*/round_1/*.onnx", "calibrate": "edgec-calibrate-*"}[moment]
    end = time.monotonic() + 60
    while not list(temporary.glob(pattern)):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert list(out.iterdir()) == []
    end = time.monotonic() + 15
    while _isolated(temporary) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _isolated(temporary), "a subprocess outlives the build"


def _isolated(temporary: Path) -> list[str]:
    """Subprocesses of a build whose temporary folder is `temporary`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode()
            environment = (entry / "environ").read_bytes().decode()
        except OSError:
            continue
        if entry.name.isdigit() and "edgec.isolate" in line and str(temporary) in environment:
            found.append(entry.name)
    return found


def test_a_crash_while_packing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edgec.pack._to_disk", fail)
    output = tmp_path / "m.edgec"
    with pytest.raises(KeyboardInterrupt):
        build(Job(graphs.path("mlp"), target="generic", output=output, measure=False))
    assert list(tmp_path.iterdir()) == []


# Without data


def test_without_data_the_notes_say_what_it_would_gain(built: Callable[..., Report]) -> None:
    report = built("x86-vnni", data=False)
    assert schemes(report) == {
        "vision": "int8_weight_only",
        "text": "int8_dynamic",
        "fusion": "float32",
    }
    assert (
        "built without data: the checks ran on synthetic inputs and show breakage, not accuracy"
        in report.notes
    )
    assert "with --data FOLDER, vision could run in static INT8" in report.notes
    assert manifest(report.bundle)["notes"] == list(report.notes)
    assert manifest(report.bundle)["check_data"] == "synthetic inputs"
    with runtime.load(report.bundle) as model:
        assert model.self_test().passed


def test_with_data_the_notes_are_about_speed_and_target(built: Callable[..., Report]) -> None:
    notes = built("aarch64-dotprod").notes
    assert not any("without data" in note or "--data" in note for note in notes)
    assert any(note.startswith("speed is unmeasured (") for note in notes)
    assert "target aarch64-dotprod: not verified on hardware" in notes


# Policies and revisions


def test_engines_per_part_equal_one_engine(
    built: Callable[..., Report], samples: Callable[[str], Path], tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[engines]\njoining = "per-part"\n')
    joined = built("x86-vnni")
    apart = build(
        Job(
            MODEL,
            target="x86-vnni",
            backend="onnxruntime",
            data=samples(NAME),
            policy=policy,
            output=tmp_path / "m.edgec",
            measure=False,
            threads=1,
        )
    )
    assert {a.engine: a.parts for a in apart.artifacts} == {
        "vision": ("vision",),
        "text": ("text",),
        "fusion": ("fusion",),
    }
    assert schemes(apart) == schemes(joined)
    feeds = graphs.load_feeds(NAME, 5, images=1, texts=1)
    with runtime.load(joined.bundle, 1) as one, runtime.load(apart.bundle, 1) as several:
        first, second = one.run(feeds), several.run(feeds)
    for key, array in first.items():
        # fusions across the cuts round differently, and INT8 may fall into the next step
        np.testing.assert_allclose(second[key], array, atol=0.02 * np.abs(array).max())


def test_a_part_that_misses_its_limit_goes_back_to_float(
    samples: Callable[[str], Path], tmp_path: Path
) -> None:
    said: list[str] = []
    report = build(
        Job(
            MODEL,
            target="x86-vnni",
            backend="onnxruntime",
            data=samples(NAME),
            output=tmp_path / "m.edgec",
            limits=Limits(part_sqnr_db=60.0),
            measure=False,
            threads=1,
            say=said.append,
        )
    )
    assert schemes(report) == {"vision": "float32", "text": "float32", "fusion": "float32"}
    steps = [(r.part, str(r.before), str(r.after)) for r in report.plan.revisions]
    assert sorted(steps) == [
        ("text", "int8_dynamic", "int8_weight_only"),
        ("text", "int8_weight_only", "float32"),
        ("vision", "int8_static", "float32"),
    ]
    page = manifest(report.bundle)
    assert [(r["part"], r["before"], r["after"]) for r in page["revisions"]] == steps
    for row in page["revisions"]:
        assert row["reason"].startswith("SQNR ")
        assert row["reason"].endswith(" dB is below 60 dB")
        assert any(row["reason"] in line for line in said)
    assert page["limits"] == {"part_sqnr_db": 60.0, "cosine": 0.97}
    assert {part["scheme"] for part in page["parts"]} == {"float32"}
    (artifact,) = report.artifacts
    assert artifact.optimised.int8 == 0
    assert all(one.cosine > 0.99999 for one in report.checks.outputs)


def test_a_limit_that_nothing_can_reach_fails_loudly(tmp_path: Path) -> None:
    job = Job(
        graphs.path("weight_only"),
        target="generic",
        output=tmp_path / "m.edgec",
        limits=Limits(part_sqnr_db=None, cosine=1.5),
        measure=False,
    )
    with pytest.raises(EmitError, match=r"cosine 1\.0000 to the original is below 1\.5"):
        build(job)
    assert not list(tmp_path.iterdir())


def test_what_the_backend_disobeys_becomes_float_and_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Callable[[str], Path]
) -> None:
    from edgec.backends.onnxruntime import Backend

    emit, asked = Backend.emit, []

    def disobey(self: Backend, engine: Any, decisions: Any, *rest: Any) -> Any:
        made = emit(self, engine, decisions, *rest)
        static = [n for n, d in decisions.items() if d.scheme is Scheme.INT8_STATIC]
        conv = next(n for n in static if decisions[n].op_type == "Conv") if not asked else ""
        asked.append(conv)
        return replace(made, misplaced=(conv,) if conv else ())

    monkeypatch.setattr(Backend, "emit", disobey)
    report = build(
        Job(
            graphs.path("cnn"),
            target="x86-vnni",
            backend="onnxruntime",
            data=samples("cnn"),
            output=tmp_path / "m.edgec",
            limits=LOOSE,
            measure=False,
            threads=1,
        )
    )
    (revision,) = report.plan.revisions
    assert revision.nodes == (asked[0],)
    assert "no INT8 kernel" in revision.reason
    assert report.plan.decisions[asked[0]].scheme is Scheme.FLOAT32
    assert report.plan.decisions[asked[0]].reason == revision.reason
    assert report.plan.schemes["vision"] is Scheme.INT8_STATIC
    assert manifest(report.bundle)["revisions"][0]["nodes"] == [asked[0]]


def test_a_backend_that_breaks_on_int8_ends_in_float(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, samples: Callable[[str], Path]
) -> None:
    from edgec.backends.onnxruntime import Backend

    emit = Backend.emit

    def picky(self: Backend, engine: Any, decisions: Any, *rest: Any) -> Any:
        if any(d.scheme is Scheme.INT8_STATIC for d in decisions.values()):
            raise EmitError("audit: the backend's process crashed (SIGSEGV)", hint="h")
        return emit(self, engine, decisions, *rest)

    monkeypatch.setattr(Backend, "emit", picky)
    report = build(
        Job(
            graphs.path("cnn"),
            target="x86-vnni",
            backend="onnxruntime",
            data=samples("cnn"),
            output=tmp_path / "m.edgec",
            measure=False,
            threads=1,
        )
    )
    assert schemes(report) == {"vision": "float32"}
    (row,) = manifest(report.bundle)["revisions"]
    assert row["reason"] == ("the backend failed: audit: the backend's process crashed (SIGSEGV)")
    assert (row["before"], row["after"]) == ("int8_static", "float32")


def test_a_backend_that_always_breaks_fails_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgec.backends.onnxruntime import Backend

    def broken(*_: object) -> None:
        raise EmitError("audit: refused", hint="h", log="the log")

    monkeypatch.setattr(Backend, "emit", broken)
    job = Job(graphs.path("mlp"), target="generic", output=tmp_path / "m", measure=False)
    with pytest.raises(EmitError, match="audit: refused") as caught:
        build(job)
    assert caught.value.log == "the log"
    assert list(tmp_path.iterdir()) == []


# Models that are quantized already


@pytest.mark.parametrize("name", ["qat_qdq", "ptq_qdq", "weight_only", "weight_cast"])
def test_a_quantized_model_is_shipped_as_it_is(name: str, tmp_path: Path) -> None:
    report = build(
        Job(
            graphs.path(name),
            target="x86-vnni",
            backend="onnxruntime",
            output=tmp_path / "m.edgec",
            measure=False,
            threads=1,
        )
    )
    (part,) = report.plan.parts
    assert schemes(report) == {part.name: "kept"}
    assert f"{part.name}: already quantized in the source model, kept as it is" in report.notes
    assert not any("could run in static INT8" in note for note in report.notes)
    feeds = graphs.load_feeds(name, 9)
    exact = small.run(graphs.path(name), feeds, level="ORT_ENABLE_ALL")
    with runtime.load(report.bundle, 1) as model:
        outputs = model.run(feeds)
    for key, array in exact.items():
        assert small.sqnr(array, outputs[key]) > 30
    assert report.sizes[part.name] <= 1.1 * graphs.path(name).stat().st_size


# Shapes


def test_a_fixed_shape(tmp_path: Path) -> None:
    shapes = {
        "image": tuple(Range(n, n) for n in (1, 3, 32, 32)),
        "ids": (Range(1, 1), Range(12, 12)),
        "mask": (Range(1, 1), Range(12, 12)),
    }
    report = build(
        Job(MODEL, target="generic", shapes=shapes, output=tmp_path / "m.edgec", measure=False)
    )
    inputs = {row["name"]: row for row in manifest(report.bundle)["inputs"]}
    assert inputs["image"]["shape"] == [1, 3, 32, 32]
    assert inputs["ids"]["shape"] == [1, 12]
    with runtime.load(report.bundle) as model:
        model.run(graphs.load_feeds(NAME, 1, images=1, texts=1))
        with pytest.raises(InputError, match="ids"):
            model.run(graphs.load_feeds(NAME, 1, images=1, texts=1, sequence=13))


def test_a_range(tmp_path: Path) -> None:
    shapes = {"ids": (Range(1, 2), Range(4, 16)), "mask": (Range(1, 2), Range(4, 16))}
    report = build(
        Job(MODEL, target="generic", shapes=shapes, output=tmp_path / "m.edgec", measure=False)
    )
    inputs = {row["name"]: row for row in manifest(report.bundle)["inputs"]}
    assert inputs["ids"]["range"] == [[1, 2], [4, 16]]
    assert "range" not in inputs["image"]
    with runtime.load(report.bundle) as model:
        for length in (4, 16):
            model.run(graphs.load_feeds(NAME, 1, images=1, texts=1, sequence=length))
        for length in (3, 17):
            with pytest.raises(InputError, match="ids"):
                model.run(graphs.load_feeds(NAME, 1, images=1, texts=1, sequence=length))


@pytest.mark.parametrize(
    ("name", "data"),
    [("lstm", True), ("if_capture", True), ("external", True), ("float16_io", False)],
)
def test_unusual_models(
    name: str, data: bool, built: Callable[..., Report], samples: Callable[[str], Path]
) -> None:
    report = built("x86-vnni", name, data=data)
    feeds = dict(np.load(samples(name) / "sample_0001.npz"))  # one that verifies
    exact = small.run(graphs.path(name), feeds, level="ORT_ENABLE_ALL")
    with runtime.load(report.bundle, 1) as model:
        outputs = model.run(feeds)
    for key, array in exact.items():
        assert small.sqnr(array, outputs[key]) > 12, key


# On this machine


def test_speed_is_measured_where_the_machine_is_the_target(
    samples: Callable[[str], Path], tmp_path: Path
) -> None:
    report = build(
        Job(
            graphs.path("mlp"),
            backend="onnxruntime",
            data=samples("mlp"),
            output=tmp_path / "m.edgec",
            limits=LOOSE,
            threads=1,
        )
    )
    page = json.loads(report_path(report.bundle).read_text())
    (speed,) = page["checks"]["speeds"]
    assert speed["part"] == "model"
    assert speed["float"]["p50"] > 0
    assert speed["built"]["p50"] > 0
    assert speed["gain"]["low"] <= speed["gain"]["median"] <= speed["gain"]["high"]
    assert "speeds" not in manifest(report.bundle)["checks"][0]
    assert "p50" not in json.dumps(manifest(report.bundle))
    assert not any("unmeasured" in note for note in report.notes)


def test_a_build_tells_its_stages(samples: Callable[[str], Path], tmp_path: Path) -> None:
    said: list[str] = []
    build(
        Job(
            MODEL,
            target="x86-vnni",
            backend="onnxruntime",
            data=samples(NAME),
            output=tmp_path / "m.edgec",
            measure=False,
            threads=1,
            say=said.append,
        )
    )
    text = "\n".join(said)
    for word in (
        f"loading {MODEL.name}",
        "parts: vision (cnn), text (transformer), fusion (fusion)",
        "calibrating",
        "on 4 samples",
        "emitting engine main",
        "verifying vision, text, fusion",
        "verifying end to end",
        "packing",
    ):
        assert word in text


def test_every_error_of_a_build_is_one_for_users(tmp_path: Path) -> None:
    for path in graphs.HOSTILE.glob("*.onnx"):
        with pytest.raises(EdgecError) as caught:
            build(Job(path, target="generic", output=tmp_path / "m.edgec", measure=False))
        assert caught.value.hint
        assert list(tmp_path.iterdir()) == []
