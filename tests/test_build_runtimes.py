"""Builds with two runtimes to choose from: what breaks on one moves to the other."""

from __future__ import annotations

import json
import os
from pathlib import Path

import graphs
import jsonschema
import pytest
import small

import edgec
from edgec import runtime
from edgec.build import Job, build
from edgec.errors import EmitError, ToolchainError, UnsupportedError
from edgec.report import report_path
from edgec.results import Report
from edgec.runtime.bundle import Bundle
from edgec.runtime.manifest import schema
from edgec.types import Limits, Scheme

NAME = "clip_torchscript"
LOOSE = Limits(part_sqnr_db=None, cosine=None)
# OpenVINO's process dies where it reads, or after so many calls runs, a model that holds a word
# and lies at such a path.
CRASH = """
import builtins, os, resource, signal
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
plain = builtins.__import__
left = []
def imported(name, *arguments, **named):
    module = plain(name, *arguments, **named)
    if name == "openvino" and hasattr(module, "Core") and not hasattr(module, "FRAGILE"):
        class Core(module.Core):
            def read_model(self, path, *more):
                with open(path, "rb") as stream:
                    if {word!r} in stream.read() and {place!r} in str(path):
                        left.append({calls!r})
                die()
                return super().read_model(path, *more)
        infer = module.InferRequest.infer
        def counted(*arguments, **named):
            left[:] = [calls - 1 for calls in left]
            die()
            return infer(*arguments, **named)
        module.InferRequest.infer = counted
        module.Core, module.FRAGILE = Core, True
    return module
def die():
    if any(calls < 1 for calls in left):
        os.kill(os.getpid(), signal.SIGSEGV)
builtins.__import__ = imported
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.write_samples(NAME, tmp_path_factory.mktemp("data"), 5)


def fragile(
    word: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch, calls: int = 0, place: str = ""
) -> None:
    """OpenVINO segfaults on models with `word`, in every process that a build starts.

    It dies in the call of that number; 0: as soon as it reads such a model.
    """
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CRASH.format(word=word, calls=calls, place=place))
    root = str(Path(edgec.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), root]))


def made(folder: Path, data: Path | None, name: str = NAME, **more: object) -> Report:
    job = {"target": "x86-vnni", "measure": False, "threads": 2, "limits": LOOSE, **more}
    return build(Job(graphs.path(name), data=data, output=folder / "m.edgec", **job))  # type: ignore[arg-type]


def runs(report: Report, least: float, name: str = NAME) -> None:
    """The bundle is sound, and near the source model."""
    with Bundle(report.bundle) as bundle:
        jsonschema.Draft202012Validator(schema()).validate(bundle.manifest)
    feeds = graphs.load_feeds(name, 77, images=1, texts=1, batch=1)
    exact = small.run(graphs.path(name), feeds, level="ORT_ENABLE_BASIC")
    with runtime.load(report.bundle, threads=2) as model:
        assert model.self_test().passed
        outputs = model.run(feeds)
    for key, array in exact.items():
        assert outputs[key].dtype == array.dtype
        assert small.sqnr(array, outputs[key]) > least, key


@pytest.fixture(scope="module")
def table(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """What the table alone makes of the fixture."""
    return made(tmp_path_factory.mktemp("table"), data)


def test_the_table_alone_gives_one_runtime(table: Report) -> None:
    assert set(table.plan.runtimes.values()) == {"openvino"}
    (artifact,) = table.artifacts
    assert artifact.backend == "openvino"
    assert artifact.planned == artifact.emitted == artifact.optimised
    assert artifact.planned.int8 == 24
    assert table.plan.schemes == {
        "vision": Scheme.INT8_STATIC,
        "text": Scheme.INT8_STATIC,
        "fusion": Scheme.FLOAT32,
    }
    assert table.contenders == ()
    runs(table, 12)


def test_two_builds_for_openvino_give_the_same_bytes(
    table: Report, data: Path, tmp_path: Path
) -> None:
    again = made(tmp_path, data)
    assert again.bundle.read_bytes() == table.bundle.read_bytes()


def test_a_crash_moves_the_parts_to_the_other_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile(b"Conv", tmp_path, monkeypatch)
    samples = graphs.write_samples("cnn", tmp_path / "cnn", 5)
    report = made(tmp_path, samples, "cnn")
    assert report.plan.runtimes == {"vision": "onnxruntime"}
    (revision,) = report.plan.revisions
    assert revision.runtime == "onnxruntime"
    assert (revision.before, revision.after) == (Scheme.INT8_STATIC, Scheme.INT8_STATIC)
    assert revision.reason == (
        "openvino: the backend failed: convert: the backend's process crashed (SIGSEGV)"
    )
    (artifact,) = report.artifacts
    assert artifact.backend == "onnxruntime"
    with Bundle(report.bundle) as bundle:
        (row,) = bundle.manifest["revisions"]
    assert (row["runtime"], row["reason"]) == ("onnxruntime", revision.reason)
    runs(report, 12, "cnn")


@pytest.mark.slow
def test_only_the_part_that_breaks_moves(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile(b"/text/", tmp_path, monkeypatch)
    report = made(tmp_path, data)
    assert report.plan.runtimes == {
        "vision": "openvino",
        "text": "onnxruntime",
        "fusion": "openvino",
    }
    assert [(r.part, r.runtime) for r in report.plan.revisions] == [("text", "onnxruntime")]
    assert report.plan.schemes["text"] is Scheme.INT8_DYNAMIC  # the other runtime's ladder
    homes = {part: made_by.backend for made_by in report.artifacts for part in made_by.parts}
    assert homes == dict(report.plan.runtimes)
    assert all(one.planned == one.optimised for one in report.artifacts)
    assert sum(one.planned.int8 for one in report.artifacts) == 24
    runs(report, 12)


def test_a_crash_on_the_only_runtime_takes_the_next_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile(b"QuantizeLinear", tmp_path, monkeypatch)  # DequantizeLinear is spelt otherwise
    samples = graphs.write_samples("mlp", tmp_path / "mlp", 5)
    report = made(tmp_path, samples, "mlp", backend="openvino")
    (revision,) = report.plan.revisions
    assert (revision.before, revision.after) == (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC)
    assert revision.runtime == ""
    assert revision.reason == (
        "the backend failed: convert: the backend's process crashed (SIGSEGV)"
    )
    runs(report, 25, "mlp")


def test_a_crash_that_nothing_helps_against_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragile(b"Gemm", tmp_path, monkeypatch)
    with pytest.raises(EmitError, match=r"convert: the backend's process crashed \(SIGSEGV\)"):
        made(tmp_path, None, "mlp", backend="openvino")
    assert not list(tmp_path.glob("m*"))


@pytest.mark.parametrize("backend", [None, pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_part_that_crashes_its_backend_while_it_runs_gives_way(
    backend: str | None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compiles; verification dies. To another runtime, or, where there is none, a scheme."""
    words = {None: b"/text/", "openvino": b"FakeQuantize"}
    fragile(words[backend], tmp_path, monkeypatch, calls=1, place="text.built")
    said: list[str] = []
    report = made(tmp_path, data, backend=backend, say=said.append)
    (revision,) = report.plan.revisions
    assert revision.part == "text"
    crash = "the backend failed: compare_parts: the backend's process crashed (SIGSEGV)"
    if backend is None:
        assert (revision.runtime, revision.reason) == ("onnxruntime", f"openvino: {crash}")
        assert report.plan.schemes["text"] is Scheme.INT8_DYNAMIC
    else:
        assert (revision.runtime, revision.reason) == ("", crash)
        assert (revision.before, revision.after) == (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC)
        assert report.plan.schemes["text"] is Scheme.INT8_WEIGHT_ONLY  # 32 inputs: see the table
    assert "verification failed: trying vision, text, fusion" in said
    assert report.plan.schemes["vision"] is Scheme.INT8_STATIC
    runs(report, 12)


def test_an_engine_that_crashes_only_as_a_whole_gives_way(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts alone run well, so all of them move."""
    fragile(b"", tmp_path, monkeypatch, calls=1, place="main.xml")
    report = made(tmp_path, data)
    assert set(report.plan.runtimes.values()) == {"onnxruntime"}
    assert {r.part for r in report.plan.revisions} == {"vision", "text", "fusion"}
    assert {r.reason for r in report.plan.revisions} == {
        "openvino: the backend failed: compare_outputs: the backend's process crashed (SIGSEGV)"
    }
    runs(report, 12)


@pytest.mark.slow
def test_a_float_model_that_fails_blames_no_backend(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys, types\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'edgec.verify' and 'edgec.isolate' in sys.orig_argv:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    root = str(Path(edgec.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), root]))
    said: list[str] = []
    with pytest.raises(
        EmitError, match=r"compare_parts: the backend's process crashed \(SIGKILL\)"
    ):
        made(tmp_path, data, say=said.append)
    assert not [line for line in said if "->" in line]


def test_a_model_that_came_quantized_is_right_on_openvino(tmp_path: Path) -> None:
    """Its embedding has a scale per column, which OpenVINO 2026.4 gets wrong as it came."""
    report = made(tmp_path, None, "weight_only", limits=Limits(), backend="openvino")
    assert set(report.plan.schemes.values()) == {Scheme.KEPT}
    assert report.plan.revisions == ()
    runs(report, 30, "weight_only")


def test_group_normalization_runs_on_openvino(tmp_path: Path) -> None:
    """Its native form, with fixed shapes and in float32, crashed other versions of OpenVINO."""
    name = "groupnorm"
    samples = graphs.write_samples(name, tmp_path / "data", 4)
    policy = tmp_path / "policy.toml"
    policy.write_text('[parts."*"]\nscheme = "float32"\n')
    report = made(tmp_path, samples, name, backend="openvino", policy=policy)
    assert {artifact.backend for artifact in report.artifacts} == {"openvino"}
    assert report.plan.revisions == ()
    runs(report, 100, name)


# What may be chosen from


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_backend_can_be_pinned(backend: str, tmp_path: Path) -> None:
    report = made(tmp_path, None, "mlp", backend=backend)
    assert {artifact.backend for artifact in report.artifacts} == {backend}
    assert all(spares == {} for spares in report.plan.spares.values())
    runs(report, 25, "mlp")


def test_a_backend_that_the_target_lacks(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        made(tmp_path, None, "mlp", backend="tensorrt")
    assert caught.value.message == (
        "target x86-vnni with stack onnxruntime+openvino runs on onnxruntime, openvino, "
        "not on tensorrt"
    )


def test_a_backend_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.backends.find_spec", lambda _: None)
    report = made(tmp_path, None, "mlp")
    assert {artifact.backend for artifact in report.artifacts} == {"onnxruntime"}
    note = "openvino was not tried: pip install 'edgec[openvino]' brings it"
    assert note in report.notes
    with pytest.raises(ToolchainError, match="openvino is not installed here") as caught:
        made(tmp_path, None, "mlp", backend="openvino", force=True)
    assert caught.value.hint == "pip install 'edgec[openvino]'"


# On this machine


def test_every_runtime_of_this_machine_is_tried_and_the_best_is_shipped(tmp_path: Path) -> None:
    samples = graphs.write_samples("mlp", tmp_path / "data", 5)
    said: list[str] = []
    report = made(tmp_path, samples, "mlp", target="host", measure=True, say=said.append)
    names = [one.name for one in edgec.target.load_target("host").runtimes]
    tried = {one.name: one for one in report.contenders}
    assert set(names) <= set(tried)
    lines = [f"trying {name}" for name in names]
    assert [line for line in said if line in lines] == lines
    assert all(one.speed is not None or one.failure for one in report.contenders)
    assert report.chosen in tried
    assert dict(tried[report.chosen].runtimes) == dict(report.plan.runtimes)
    page = json.loads(report_path(report.bundle).read_text())
    assert page["chosen"] == report.chosen
    assert [row["name"] for row in page["contenders"]] == [one.name for one in report.contenders]
    assert all(row["speed"]["gain"]["median"] > 0 for row in page["contenders"] if row["speed"])
    with Bundle(report.bundle) as bundle:
        assert "contenders" not in bundle.manifest  # times are no part of a bundle
    runs(report, 20, "mlp")


def test_a_crash_in_a_measurement_is_a_reason_to_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verification, with fewer calls, goes well."""
    fragile(b"FakeQuantize", tmp_path, monkeypatch, calls=6, place=".built.")
    samples = graphs.write_samples("mlp", tmp_path / "data", 5)
    said: list[str] = []
    more = {"target": "host", "measure": True, "backend": "openvino", "say": said.append}
    report = made(tmp_path, samples, "mlp", **more)
    step = "model: int8_static -> int8_dynamic: the backend failed: "
    assert f"{step}case 'model built' failed: signal SIGSEGV" in said
    assert report.plan.schemes["model"] is not Scheme.INT8_STATIC
    runs(report, 20, "mlp")
