"""Engines in onnxruntime's own format: what runs in them, on which machines, the same bytes."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import replace
from pathlib import Path

import graphs
import numpy as np
import pytest
import small
from engines import emit, engine, everywhere, run
from suite import Suite
from test_onnxruntime import fed, having

from edgec.backends import backend
from edgec.backends.onnxruntime import ort_format
from edgec.backends.onnxruntime.audit import NCHWC, audit
from edgec.backends.onnxruntime.stable import stable
from edgec.errors import EmitError, InputError, UnsupportedError
from edgec.results import Artifact, Counts, Engine
from edgec.runtime.onnx_file import is_ort
from edgec.runtime.onnxruntime_session import open_artifact
from edgec.types import Graph, Plan, Scheme

NAMES = ["cnn", "vit", "clip_dynamo", "siamese", "mlp", "lstm", "if_capture", "ptq_qdq"]


def built(name: str, into: Path, target: str = "x86-vnni", **settings: object) -> Artifact:
    into.mkdir(exist_ok=True)
    made, plan = engine(small.fixture(name), target, fed(name))
    return emit(having(made, **settings), plan, into)


class TestOrtFormat(Suite):
    name = "onnxruntime"
    suffix = ".ort"

    def made(
        self, name: str, scheme: Scheme | None, *, data: bool = True
    ) -> tuple[Graph, Engine, Plan]:
        found, made, plan = super().made(name, scheme, data=data)
        return found, having(made, format="ort"), plan

    def test_what_an_artifact_says_of_itself(self, tmp_path: Path) -> None:
        _, made, plan = self.made("clip_dynamo", None)
        ours = emit(made, plan, tmp_path)
        assert ours.path == tmp_path / "main.ort"
        assert ours.side_files == (tmp_path / "main.required_operators.config",)
        written = {"main.onnx", "main.ort", "main.required_operators.config"}
        assert {file.name for file in tmp_path.iterdir()} == written


@pytest.mark.parametrize("name", NAMES)
def test_the_same_ops_and_the_same_numbers_as_onnx(name: str, tmp_path: Path) -> None:
    # without the layout for this CPU, which adds up float convolutions in another order
    disabled = ["WeightBiasQuantization", NCHWC]
    plain = built(name, tmp_path / "onnx", disabled_optimizers=disabled)
    ours = built(name, tmp_path / "ort", format="ort")
    assert ours.settings["disabled_optimizers"] == disabled  # parts are compared as they run
    assert ours.path == tmp_path / "ort" / "main.ort"
    assert is_ort(ours.path)
    assert (ours.planned, ours.emitted) == (plain.planned, plain.emitted)
    assert ours.optimised == plain.optimised == ours.planned
    assert ours.misplaced == ()
    assert not {"format", "ort_style"} & set(ours.settings)
    feeds = graphs.load_feeds(name, 7)
    expected, got = run(plain, feeds), run(ours, feeds)
    assert list(got) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key], strict=True)


@pytest.mark.parametrize("target", ["x86-avx2", "aarch64-dotprod", "generic"])
def test_for_another_machine(target: str, tmp_path: Path) -> None:
    ours = built("cnn", tmp_path, target, format="ort")
    assert ours.planned == ours.optimised
    assert (ours.planned.int8 == 0) == (target == "generic")


@pytest.mark.parametrize("name", ["cnn", "trimodal_dynamo"])
def test_the_same_bytes_each_time(name: str, tmp_path: Path) -> None:
    digests = set()
    for turn in range(3):
        ours = built(name, tmp_path / str(turn), format="ort")
        files = (ours.path, *ours.side_files)
        digests.add(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
    assert len(digests) == 1


def test_bytes_of_another_schema_are_left_alone(tmp_path: Path) -> None:
    data = built("mlp", tmp_path, format="ort").path.read_bytes()
    assert stable(data) == data
    root = int.from_bytes(data[:4], "little")
    vtable = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    newer = bytearray(data)  # with something in the slot that is out of use
    assert newer[vtable + 8 : vtable + 10] == b"\0\0"
    newer[vtable + 8 : vtable + 10] = newer[vtable + 4 : vtable + 6]
    assert stable(bytes(newer)) == bytes(newer)


def test_portable_is_the_default_and_lays_nothing_out_for_this_cpu(tmp_path: Path) -> None:
    made, plan = engine(small.fixture("cnn"), "x86-vnni", [], everywhere(Scheme.FLOAT32))
    files: dict[str, tuple[bytes, str]] = {}
    for style in ("", "portable", "this_cpu"):
        into = tmp_path / f"style_{style}"
        into.mkdir()
        wanted = {"ort_style": style} if style else {}
        ours = emit(having(made, format="ort", **wanted), plan, into)
        assert ours.misplaced == ()
        assert ours.optimised == ours.planned == Counts(0, 11)
        assert any("laid out for CPUs" in note for note in ours.notes) == (style == "this_cpu")
        files[style] = ours.path.read_bytes(), ours.side_files[0].read_text()
    assert files[""] == files["portable"]
    assert b"ReorderOutput" not in files["portable"][0]
    assert "nchwc" not in files["portable"][1]
    if platform.machine() == "x86_64":
        assert "com.microsoft.nchwc;1;Conv" in files["this_cpu"][1]


def test_names_are_the_nodes_own_even_where_it_is_laid_out(tmp_path: Path) -> None:
    made, plan = engine(small.fixture("cnn"), "x86-vnni", fed("cnn"))
    config = {"session.disable_quant_qdq": "1"}
    ours = emit(having(made, config=config, format="ort", ort_style="this_cpu"), plan, tmp_path)
    static = {n for n, d in plan.decisions.items() if d.scheme is Scheme.INT8_STATIC}
    assert ours.optimised.int8 == 0
    assert len(ours.misplaced) == ours.planned.int8 > 5
    assert set(ours.misplaced) <= static


def test_the_list_of_operators_is_that_of_the_graph(tmp_path: Path) -> None:
    ours = built("cnn", tmp_path, format="ort")
    (listed,) = ours.side_files
    assert listed.name == "main.required_operators.config"
    head, *rows = listed.read_text().splitlines()
    assert head.startswith("# main.ort, written by onnxruntime ")
    assert str(tmp_path) not in listed.read_text()
    assert {row.split(";")[0] for row in rows} == {"ai.onnx", "com.microsoft"}
    assert any(row.startswith("com.microsoft;1;") and "QLinearAdd" in row for row in rows)
    # with the types that each needs: what --enable_reduced_operator_type_support builds on
    assert any('DequantizeLinear{"inputs": {"0": ["uint8_t"]}}' in row for row in rows)


def test_the_list_of_operators_is_read_by_onnxruntimes_build(tmp_path: Path) -> None:
    from onnxruntime.tools.reduced_build_config_parser import parse_config

    ours = built("vit", tmp_path, format="ort")
    required, types = parse_config(str(ours.side_files[0]), True)
    assert "MatMulIntegerToFloat" in required["com.microsoft"][1]
    assert types is not None


def test_settings_that_name_no_form(tmp_path: Path) -> None:
    unknown = {"format": "tflite"}, {"format": "ort", "ort_style": "runtime"}, {"format": ["ort"]}
    for settings in unknown:
        with pytest.raises(InputError, match=r"format .* in style .* is unknown") as caught:
            built("mlp", tmp_path, **settings)
        assert "ort_style one of portable, this_cpu" in caught.value.hint


def test_weights_beyond_what_the_format_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgec.backends.onnxruntime.MOST_BYTES", 1000)
    with pytest.raises(UnsupportedError, match=r"engine main has .* GiB of weights; a .ort file"):
        built("mlp", tmp_path, format="ort")
    assert list(tmp_path.iterdir()) == []
    assert built("mlp", tmp_path / "onnx").path.is_file()


def test_external_weights_come_into_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgec.graphs.EXTERNAL_FROM", 1000)
    ours = built("vit", tmp_path, format="ort")
    assert (tmp_path / "main.onnx.data").is_file()
    for file in tmp_path.iterdir():
        if file.name not in ("main.ort",):
            file.unlink()
    feeds = graphs.load_feeds("vit", 1)
    exact = small.run(small.fixture("vit").model, feeds)["logits"]
    assert small.sqnr(exact, run(ours, feeds)["logits"]) > 6


def test_a_model_that_onnxruntime_refuses_leaves_nothing(tmp_path: Path) -> None:
    made, plan = engine(small.fixture("mlp"), "x86-vnni", [])
    broken = made.model.clone()
    broken.graph[0].op_type = "Nonsense"
    with pytest.raises(EmitError, match=r"convert: .*Nonsense"):
        emit(having(replace(made, model=broken), format="ort"), plan, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["main.onnx"]


def test_an_optimisation_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, plan = engine(small.fixture("cnn"), "x86-vnni", [], everywhere(Scheme.FLOAT32))

    def picky(function: object, path: Path, settings: dict[str, object], *more: object) -> object:
        if "graph_optimization_level" not in settings:
            raise EmitError("convert: a pass failed", hint="h")
        return ort_format.convert(path, settings, *more)  # type: ignore[arg-type]

    monkeypatch.setattr("edgec.backends.onnxruntime.call", picky)
    ours = emit(having(made, format="ort"), plan, tmp_path)
    assert ours.settings["graph_optimization_level"] == "basic"
    assert is_ort(ours.path)
    fixed = having(made, format="ort", graph_optimization_level="disable_all")
    assert emit(fixed, plan, tmp_path).settings["graph_optimization_level"] == "disable_all"


def test_parts_are_cut_out_of_the_onnx_file_beside_it(tmp_path: Path) -> None:
    from edgec.partition import partition

    made, plan = engine(small.fixture("clip_dynamo"), "x86-vnni", fed("clip_dynamo"))
    ours = emit(having(made, format="ort"), plan, tmp_path)
    parts = [p for p in partition(small.fixture("clip_dynamo")) if p.outputs and p.macs]
    assert len(parts) > 1
    for part in parts:
        path = backend("onnxruntime").cut(ours, part, tmp_path)
        session = open_artifact(path, ours.settings)
        assert set(part.outputs) <= set(session._outputs)
    (tmp_path / "main.onnx").unlink()
    with pytest.raises(UnsupportedError, match=r"no part can be taken out of main.ort"):
        backend("onnxruntime").cut(ours, parts[0], tmp_path)


def test_what_is_shipped_is_what_was_counted(tmp_path: Path) -> None:
    """The count is of the .ort file itself, not of the graph that it was made from."""
    made, plan = engine(small.fixture("siamese"), "x86-vnni", fed("siamese"))
    ours = emit(having(made, format="ort"), plan, tmp_path)
    assert audit(ours.path, ours.settings, 1).counts == ours.optimised
    float_made, float_plan = engine(
        small.fixture("siamese"), "x86-vnni", [], everywhere(Scheme.FLOAT32)
    )
    (tmp_path / "float").mkdir()
    other = emit(having(float_made, format="ort"), float_plan, tmp_path / "float")
    ours.path.write_bytes(other.path.read_bytes())
    assert audit(ours.path, ours.settings, 1).counts == other.optimised != ours.optimised
