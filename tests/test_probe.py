"""The toolchains of this machine asked for real, crashes included, and the row that comes of it."""

from __future__ import annotations

import json
import os
import signal
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small

from edgec import probe as module
from edgec import probe_ask
from edgec.errors import InputError
from edgec.probe import Asked, Probe, as_json, installed, machine, questioned, write
from edgec.probe_ask import Answer, ask, saturates
from edgec.probe_ops import ABSORBED, CASES, FLOAT, case, distance, model, questions, reference
from edgec.probe_row import toml
from edgec.target import cpu_flags, load_target
from edgec.types import Scheme, Support

S, D, W = map(str, (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC, Scheme.INT8_WEIGHT_ONLY))
CPU = "x86-vnni" if "avx512_vnni" in cpu_flags() else "x86-avx2"


def test_every_case_has_a_finite_reference() -> None:
    assert len({one.op for one in CASES}) == len(CASES)
    for one in CASES:
        if one.opset <= 21:
            found = reference(one.op)
            assert np.isfinite(found).all()
            assert found.size


def test_onnxruntime_answers_for_its_own_ops() -> None:
    asked = [(op, FLOAT) for op in ("Conv", "Softmax", "TopK", "GroupNormalization", "LSTM")]
    asked += [("Conv", S), ("MatMul", S), ("MatMul", D), ("Gather", W), ("Add", S)]
    answers = ask("onnxruntime", asked, "uint8")
    assert [(one.op, one.form) for one in answers] == asked
    assert all(one.fine for one in answers), answers
    assert all("dB" in one.evidence or one.evidence == "exact" for one in answers)


def test_what_onnxruntime_does_not_compute_in_int8_is_told() -> None:
    """ConvTranspose between Q/DQ stays in float, as the table says: it states no such form."""
    (answer,) = ask("onnxruntime", [("ConvTranspose", S)], "uint8")
    assert not answer.fine
    assert "alone it runs in float" in answer.evidence
    assert Scheme.INT8_STATIC not in small.runtime("x86-vnni").ops["ConvTranspose"].schemes


def test_a_refusal_is_the_toolchains_own_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    made, feeds = model("Relu", FLOAT)
    made.graph.node[0].op_type = "Nonsense"
    monkeypatch.setattr(probe_ask, "model", lambda *_: (made, feeds))
    (answer,) = ask("onnxruntime", [("Relu", FLOAT)], "uint8")
    assert not answer.fine
    assert "Nonsense" in answer.evidence


def test_a_wrong_result_is_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_ask, "reference", lambda op: -reference(op))
    (answer,) = ask("onnxruntime", [("Relu", FLOAT)], "uint8")
    assert not answer.fine
    assert answer.evidence == "-6 dB of the reference"


def crash(backend: str, asked: tuple[tuple[str, str], ...], kind: str) -> list[Answer]:
    """A toolchain that dies of one op; runs in the subprocess."""
    if ("Erf", FLOAT) in asked:
        os.kill(os.getpid(), signal.SIGSEGV)
    return [Answer(op, form, True, "ran") for op, form in asked]


def test_a_crash_is_the_answer_of_one_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ask", crash)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    asked = [(op, FLOAT) for op in ("Relu", "Erf", "Exp", "Abs")]
    answers = {one.op: one for one in questioned("onnxruntime", asked, "uint8")}
    assert [op for op, one in answers.items() if not one.fine] == ["Erf"]
    assert "SIGSEGV" in answers["Erf"].evidence or "signal 11" in answers["Erf"].evidence


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_products_saturate_where_the_table_says(backend: str) -> None:
    row = small.runtime(CPU, backend)
    assert saturates(backend) is row.grid.reduce_range


def test_questions_are_those_that_a_toolchain_can_be_asked() -> None:
    forms = [("Relu", S), ("Conv", S), ("Nothing", S), ("Gelu", W)]
    asked = questions(forms, 18)
    assert ("Conv", S) in asked
    assert ("Relu", FLOAT) in asked
    assert {("Relu", S), ("Nothing", S), ("Gelu", W), ("Gelu", FLOAT)}.isdisjoint(asked)
    assert set(ABSORBED) <= {one.op for one in CASES}
    assert distance(np.ones(3), np.full(3, np.nan)) == -np.inf
    assert distance(np.ones(3), np.ones(4)) == -np.inf
    assert case("GroupNormalization").opset == 21


def found(*answers: Answer, saturating: bool | None = False, name: str = CPU) -> Probe:
    target = load_target(name, "onnxruntime")
    (runtime,) = target.runtimes
    asked = Asked(runtime, "1.2.3", answers, saturating)
    return Probe(machine(), target, (asked,))


YES = Answer("Conv", FLOAT, True, "exact")
NO = Answer("Conv", S, False, "it says no")


def test_this_machine() -> None:
    seen = machine()
    assert seen.memory_gb > 0.5
    assert set(seen.flags) <= cpu_flags()
    assert seen.packages["onnxruntime"] == installed("onnxruntime") != ""
    assert installed("nothing-of-this-name") == ""


def test_what_differs_is_told() -> None:
    lines = "\n".join(found(YES, NO, Answer("Relu", FLOAT, True, "exact")).lines())
    assert "onnxruntime 1.2.3: 2 of 3 questions answered with yes" in lines
    assert "differs: Conv has no int8_static: it says no" in lines
    lines = "\n".join(found(YES, saturating=True).lines())
    assert "saturate: weights need 7 bits" in lines
    assert ("differs" in lines) is (CPU == "x86-vnni")
    told = "\n".join(
        replace(found(), asked=(Asked(found().asked[0].runtime, "", why="gone"),)).lines()
    )
    assert "onnxruntime: not asked: gone" in told


def test_a_row_carries_what_was_found(tmp_path: Path) -> None:
    seen = found(YES, NO, Answer("Erf", FLOAT, False, "it crashed"), saturating=True)
    board = tmp_path / "my-board"
    write(seen, board, force=False)
    target = load_target(str(board))
    runtime = target.runtime("onnxruntime")
    base = load_target(CPU, "onnxruntime").runtime("onnxruntime")
    assert target.here
    assert target.stack == "onnxruntime"
    assert target.software.packages == seen.machine.packages
    assert "probed on" in target.verified
    assert Scheme.INT8_STATIC not in runtime.ops["Conv"].schemes
    assert Scheme.INT8_WEIGHT_ONLY in runtime.ops["Conv"].schemes
    assert runtime.ops["Conv"].confidence == "measured"
    assert "it says no" in runtime.ops["Conv"].note
    assert runtime.ops["Erf"].support is Support.NO
    assert runtime.ops["MatMul"] == base.ops["MatMul"]  # nobody asked
    assert runtime.grid.reduce_range
    assert runtime.grid.confidence == "measured"
    assert runtime.ladders == base.ladders
    evidence = json.loads((board / "evidence.json").read_text())
    assert evidence == json.loads(json.dumps(as_json(seen)))
    assert sorted(path.name for path in board.iterdir()) == ["evidence.json", "target.toml"]
    text = (board / "target.toml").read_text()
    again = tmp_path / "again"
    write(seen, again, force=False)
    assert (again / "target.toml").read_text() == text


def test_a_row_that_is_there_is_corrected_only_with_force(tmp_path: Path) -> None:
    board = tmp_path / "b"
    board.mkdir()
    own = f'extends = "{CPU}"\nsummary = "mine"\nverified = "by hand"\n[goals]\nlatency_ms = 5\n'
    own += 'source = "a wish"\nconfidence = "inferred"\n[runtimes.onnxruntime.ops]\n'
    own += 'Conv = { schemes = ["int8_static"], note = "by hand" }\n'
    own += 'Add = { schemes = [], note = "broken here" }\n'
    (board / "target.toml").write_text(own)
    with pytest.raises(InputError, match="exists"):
        write(found(YES, NO), board, force=False)
    assert (board / "target.toml").read_text() == own
    write(found(YES, NO), board, force=True)
    target = load_target(str(board), "onnxruntime")
    assert target.summary == "mine"
    assert target.goals["latency_ms"] == 5
    assert target.runtimes[0].ops["Add"].note == "broken here"
    assert target.runtimes[0].ops["Conv"].schemes == {Scheme.INT8_WEIGHT_ONLY}
    (board / "target.toml").write_text("summary = 3\n")
    with pytest.raises(InputError, match="summary: expected string"):
        write(found(YES), board, force=True)


def test_toml_is_read_back_as_it_was() -> None:
    table = {
        "a": 'quotes " and \\ and \u00fc and \x7f and \n',
        "list": [["x", "y"], []],
        "deep": {"dots.in it": {"x": 1, "y": 2.5, "yes": True, "none": {}}},
        "runtimes": {"r": {"ops": {"Conv": {"schemes": ["int8_static"], "limits": {"k": [1]}}}}},
        "empty": {},
    }
    assert tomllib.loads("\n".join(toml(table))) == table
