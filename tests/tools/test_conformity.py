"""A sample of ONNX's node cases, as `tools/conformance` judges all of them."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.backend.test.case.node as onnx_cases
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "conformity"))

import conformity as tool
import conformity_case as one
import readme_block

# By the module of onnx that makes them: making all 1,884 takes half a minute.
SAMPLE = {
    "and_": ("and2d", "and_bcast4v3d"),
    "attention": ("attention_4d_with_qk_matmul",),
    "averagepool": ("averagepool_2d_ceil", "averagepool_2d_pads_count_include_pad"),
    "batch_normalization": ("batchnorm_example", "batchnorm_epsilon"),
    "bitshift": ("bitshift_right_uint8", "bitshift_left_uint64"),
    "castlike": ("castlike_FLOAT_to_BFLOAT16",),
    "celu": ("celu", "celu_expanded"),
    "clip": ("clip", "clip_default_min", "clip_min_greater_than_max"),
    "concat": ("concat_3d_axis_negative_3",),
    "conv": ("conv_with_strides_no_padding", "conv_with_autopad_same"),
    "convtranspose": ("convtranspose_pads", "convtranspose_dilations"),
    "einsum": ("einsum_batch_matmul", "einsum_inner_prod"),
    "gelu": ("gelu_default_1", "gelu_tanh_2"),
    "gemm": ("gemm_all_attributes", "gemm_transposeB"),
    "groupnormalization": ("group_normalization_example", "group_normalization_epsilon"),
    "gru": ("gru_defaults",),
    "hardswish": ("hardswish",),
    "if_": ("if", "if_seq", "if_opt"),
    "instance_normalization": ("instancenorm_epsilon",),
    "layernormalization": ("layer_normalization_3d_axis1_epsilon",),
    "loop": ("loop11", "loop13_seq", "loop16_seq_none"),
    "lstm": ("lstm_with_peepholes",),
    "matmulinteger": ("matmulinteger",),
    "mish": ("mish",),
    "mod": ("mod_float32_mixed_sign_fmod_0", "mod_float_edge_cases_fmod_0_float32"),
    "nonmaxsuppression": ("nonmaxsuppression_two_classes",),
    "not_": ("not_4d",),
    "pad": ("constant_pad_axes", "reflect_pad"),
    "qlinearconv": ("qlinearconv",),
    "quantizelinear": ("quantizelinear_axis", "quantizelinear_blocked_symmetric"),
    "reducel2": ("reduce_l2_negative_axes_keep_dims_random",),
    "rmsnormalization": ("rms_normalization_2d_axis1", "rms_normalization_4d_axis2"),
    "rotaryembedding": ("rotary_embedding_3d_input", "rotary_embedding_interleaved"),
    "scan": ("scan_sum", "scan9_sum"),
    "slice": ("slice_neg_steps", "slice_default_axes"),
    "spacetodepth": ("spacetodepth",),
    "string_concat": ("string_concat",),
    "sum": ("sum_example", "sum_one_input"),
    "swiglu": ("swiglu", "swiglu_alpha"),
    "swish": ("swish",),
    "topk": ("top_k_negative_axis",),
    "where": ("where_long_example",),
}


def sampled() -> list[Any]:
    found = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for module in SAMPLE:
            importlib.import_module(f"{onnx_cases.__name__}.{module}")
    known = {case.name: case for case in onnx_cases._NodeTestCases}
    for names in SAMPLE.values():
        found += [known[f"test_{name}"] for name in names]
    return found


@pytest.mark.parametrize("backend", one.BACKENDS)
def test_a_sample_of_the_node_cases(backend: str) -> None:
    rows = [one.judge(case, backend) for case in sampled()]
    assert len(rows) >= 60
    failed = [(row["case"], row["reason"]) for row in rows if row["state"] == one.FAILED]
    assert failed == []
    assert sum(row["state"] == one.PASSED for row in rows) >= 0.8 * len(rows)
    assert all(row["reason"] for row in rows if row["state"] != one.PASSED)


def relu() -> Any:
    importlib.import_module(f"{onnx_cases.__name__}.relu")
    return next(case for case in onnx_cases._NodeTestCases if case.name == "test_relu")


@pytest.mark.parametrize("backend", one.BACKENDS)
def test_numbers_that_no_one_computes_are_not_passed(backend: str) -> None:
    case = relu()
    inputs, outputs = case.data_sets[0]
    wrong = replace(case, data_sets=[(inputs, [outputs[0] + 1])])
    row = one.judge(wrong, backend)
    assert row["state"] == one.SHARED
    assert "Mismatched elements" in row["reason"]


def test_a_refusal_where_the_backend_passes_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.errors import UnsupportedError

    def refuse(*_: object) -> None:
        raise UnsupportedError("no", hint="none")

    monkeypatch.setattr(one, "load", refuse)
    row = one.judge(relu(), "onnxruntime")
    assert (row["state"], row["reason"]) == (one.FAILED, "UnsupportedError: no")


def test_a_traceback_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one, "load", lambda *_: 1 / 0)
    row = one.judge(relu(), "onnxruntime")
    assert row["state"] == one.FAILED
    assert row["reason"].startswith("ZeroDivisionError")


@dataclass(frozen=True)
class Deadly:
    """A case whose data ends the process that looks at it."""

    name: str
    model: bytes = b""

    @property
    def data_sets(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


def test_a_crash_condemns_one_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tool.__file__, readme_block.__file__, __file__]
    path = os.pathsep.join(str(Path(file).parent) for file in files)
    monkeypatch.setenv("PYTHONPATH", path)
    log = tmp_path / "log.jsonl"
    cases = [relu(), Deadly("deadly"), replace(relu(), name="after")]
    tool.judge(cases, "onnxruntime", log)
    known, begun = tool.read(log)
    assert begun == ""
    assert known["test_relu", "onnxruntime"]["state"] == one.PASSED
    assert known["deadly", "onnxruntime"]["state"] == one.FAILED
    assert "SIGSEGV" in known["deadly", "onnxruntime"]["reason"]
    assert known["after", "onnxruntime"]["state"] == one.PASSED


def test_a_log_that_was_cut_short_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    row = {"case": "a", "state": one.PASSED, "reason": "", "backend": "openvino"}
    log.write_text(json.dumps(row) + '\n{"case": "b", "sta')
    assert tool.read(log) == ({("a", "openvino"): row}, "")


def test_the_table() -> None:
    states = [one.PASSED, one.PASSED, one.REFUSED, one.SHARED]
    known = {(str(i), "openvino"): {"state": state} for i, state in enumerate(states)}
    assert tool.table(known, ["openvino"]).splitlines()[-1] == "| openvino | 4 | 2 | 1 | 1 | 0 |"
