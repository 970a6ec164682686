"""Settings of an engine on ONNX Runtime: what is asked for happens; nothing else is possible."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import InputError
from edgec.runtime import load, onnxruntime_settings
from edgec.runtime.onnxruntime_session import open_artifact
from edgec.runtime.onnxruntime_settings import CONFIG, parse

MODEL = bundles.two_tower_models()["one"].SerializeToString()
SETTINGS = {
    "threads",
    "spinning",
    "execution_mode",
    "inter_op_threads",
    "graph_optimization_level",
    "disabled_optimizers",
    "arena",
    "memory_pattern",
    "denormals_as_zero",
    "config",
}


def options(**settings: Any) -> Any:
    return open_artifact(MODEL, settings)._session.get_session_options()


def entry(found: Any, key: str) -> str:
    try:
        return str(found.get_session_config_entry(key))
    except RuntimeError:  # not set
        return ""


def test_the_defaults() -> None:
    found = options()
    assert found.intra_op_num_threads == 0
    assert found.inter_op_num_threads == 0
    assert found.execution_mode == onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    assert found.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert found.enable_cpu_mem_arena is True
    assert found.enable_mem_pattern is True
    assert entry(found, "session.set_denormal_as_zero") == ""
    assert entry(found, "session.force_spinning_stop") == ""


def test_what_is_asked_for_reaches_onnxruntime() -> None:
    found = options(
        threads=2,
        inter_op_threads=3,
        execution_mode="parallel",
        graph_optimization_level="extended",
        arena=False,
        memory_pattern=False,
        denormals_as_zero=False,
        spinning="never",
        config={"session.dynamic_block_base": "4"},
    )
    assert found.intra_op_num_threads == 2
    assert found.inter_op_num_threads == 3
    assert found.execution_mode == onnxruntime.ExecutionMode.ORT_PARALLEL
    assert found.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    assert found.enable_cpu_mem_arena is False
    assert found.enable_mem_pattern is False
    assert entry(found, "session.intra_op.allow_spinning") == "0"
    assert entry(found, "session.inter_op.allow_spinning") == "0"
    assert entry(found, "session.dynamic_block_base") == "4"


DENORMAL = """
import sys
import numpy as np
from onnx import TensorProto, helper
from edgec.runtime.onnxruntime_session import open_artifact
value = helper.make_tensor_value_info
graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "g",
    [value("x", TensorProto.FLOAT, ["n"])], [value("y", TensorProto.FLOAT, ["n"])])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
settings = {"denormals_as_zero": True, "threads": 2} if sys.argv[1] == "zero" else {"threads": 2}
session = open_artifact(model.SerializeToString(), settings)
y = session.run({"x": np.full(1 << 20, 1e-20, np.float32)})["y"]
print(np.count_nonzero(y))
"""


@pytest.mark.parametrize(("word", "left"), [("zero", 0), ("keep", 1 << 20)])
def test_denormals(word: str, left: int) -> None:
    """In a process of its own, because it is a switch of the thread that opens the session."""
    done = subprocess.run(
        [sys.executable, "-c", DENORMAL, word], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == left


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {"arena": False},
        {"memory_pattern": False},
        {"arena": False, "memory_pattern": False},
        {"execution_mode": "parallel", "inter_op_threads": 2, "threads": 1},
        {"config": {"session.disable_prepacking": "1"}},
    ],
)
def test_settings_change_no_result(tmp_path: Path, count: int, settings: dict[str, Any]) -> None:
    plain = {"graph_optimization_level": "disable_all", **settings}
    path = bundles.write(tmp_path / "m.edgec", count, **plain)
    with load(path) as model:
        for seed in range(3):
            feeds = bundles.feeds(seed, 1 + seed, 2 + seed)
            for name, array in bundles.expected(feeds).items():
                np.testing.assert_allclose(model.run(feeds)[name], array, 1e-5, 1e-6)


def test_load_overrides_the_bundle(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "m.edgec", 2, arena=False, threads=3)
    with load(path, settings={"arena": True, "memory_pattern": False}) as model:
        for step in model._steps:
            found = step.session._session.get_session_options()  # type: ignore[attr-defined]
            assert found.enable_cpu_mem_arena is True
            assert found.enable_mem_pattern is False
            assert found.intra_op_num_threads == 3


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"colour": "red"}, "unknown setting 'colour'"),
    ({"Threads": 1}, "unknown setting 'Threads'"),
    ({"device": "gpu"}, "device 'gpu': only the CPU is known"),
    ({"threads": -1}, "threads -1: a whole number from 0 to 1024"),
    ({"threads": 1025}, "threads 1025"),
    ({"threads": 2.0}, "threads 2.0"),
    ({"threads": True}, "threads True"),
    ({"threads": None}, "threads None"),
    ({"inter_op_threads": "2"}, "inter_op_threads '2'"),
    ({"inter_op_threads": 2}, "inter_op_threads 2: execution_mode is not parallel"),
    ({"execution_mode": "ORT_PARALLEL"}, "execution_mode .*: choose one of sequential, parallel"),
    ({"execution_mode": ["parallel"]}, "execution_mode"),
    ({"graph_optimization_level": 99}, "graph_optimization_level 99"),
    ({"graph_optimization_level": {}}, "graph_optimization_level"),
    ({"spinning": "sometimes"}, "spinning 'sometimes'"),
    ({"arena": 1}, "arena 1: true or false"),
    ({"arena": "false"}, "arena 'false'"),
    ({"memory_pattern": None}, "memory_pattern None"),
    ({"denormals_as_zero": "1"}, "denormals_as_zero '1'"),
    ({"disabled_optimizers": {"a": 1}}, "disabled_optimizers a list"),
    ({"disabled_optimizers": [1]}, "no name of an optimizer"),
    ({"disabled_optimizers": ["a b"]}, "no name of an optimizer"),
    ({"disabled_optimizers": ["x\n"]}, "no name of an optimizer"),
    ({"config": None}, "config is an object"),
    ({"config": {"session.qdqisint8allowed": 1}}, "a text of another form"),
    ({"config": {"session.qdqisint8allowed": "1\n"}}, "a text of another form"),
    ({"config": {"session.qdqisint8allowed": "yes"}}, "a text of another form"),
    ({"config": {"session.dynamic_block_base": "-1"}}, "a text of another form"),
    ({"config": {"session.dynamic_block_base": "9" * 1000}}, "a text of another form"),
    ({"config": {"session.intra_op_thread_affinities": "1;;2"}}, "a text of another form"),
    ({"config": {7: "1"}}, "no entry that a bundle may set"),
]
# Entries of onnxruntime that read or write files, take memory for granted that is not there, or
# say how the file itself is to be read.
FORBIDDEN = [
    "session.optimized_model_filepath",
    "session.optimized_model_external_initializers_file_name",
    "session.model_external_initializers_file_folder_path",
    "session.collect_node_memory_stats_to_file",
    "session.node_partition_config_file",
    "session.moe.offload.derived_cache_dir",
    "session.moe.offload.source_root",
    "session.moe_expert_counter_state_file",
    "session.save_model_format",
    "session.load_model_format",
    "session.use_ort_model_bytes_directly",
    "session.use_ort_model_bytes_for_initializers",
    "session.enable_saved_runtime_optimizations",
    "session.use_env_allocators",
    "session.enable_profiling",
    "session.set_denormal_as_zero",
    "ep.context_file_path",
    "ep.context_enable",
    "optimization.minimal_build_optimizations",
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=str)
def test_values_that_are_refused(settings: dict[Any, Any], message: str) -> None:
    with pytest.raises(InputError, match="onnxruntime engine: not allowed: .*" + message) as caught:
        open_artifact(MODEL, settings)
    assert caught.value.hint
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("key", FORBIDDEN)
def test_entries_that_are_not_a_manifests_business(tmp_path: Path, key: str) -> None:
    path = bundles.write(tmp_path / "m.edgec", config={key: "1"})
    with pytest.raises(InputError, match=re.escape(key) + ".*no entry that a bundle may set"):
        load(path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)) | st.text(max_size=20), JUNK, max_size=4))
def test_whatever_stands_there_is_understood_or_refused(settings: dict[str, Any]) -> None:
    try:
        found = parse(settings)
    except InputError:
        return
    assert 0 <= found.threads <= 1024
    assert type(found.arena) is type(found.memory_pattern) is bool
    for key, value in found.entries:
        assert isinstance(key, str)
        assert isinstance(value, str)
        assert "\n" not in value


def _texts(pattern: re.Pattern[str]) -> list[str]:
    tried = ["0", "1", "2", "4", "16", "32", "128", "999", "9" * 9, "-1", "1-1", "1;2;3", "1-9;2"]
    return [text for text in tried if pattern.match(text)]


@pytest.mark.parametrize("key", CONFIG)
def test_every_entry_that_is_allowed_opens_or_is_refused(key: str) -> None:
    texts = _texts(CONFIG[key])
    assert texts
    feeds, opened = bundles.feeds(), 0
    for text in texts:
        try:
            session = open_artifact(MODEL, {"config": {key: text}, "threads": 2})
        except InputError:  # onnxruntime's own refusal
            continue
        opened += 1
        for name, array in session.run(feeds).items():
            np.testing.assert_allclose(array, bundles.expected(feeds)[name], 1e-2, 1e-3)
    assert opened


def test_what_onnxruntime_refuses_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    config = {"session.intra_op_thread_affinities": "1;2;3"}  # two workers too many
    with pytest.raises(InputError, match=r"cannot open the engine's model: .*affinities"):
        open_artifact(MODEL, {"config": config, "threads": 2})
    assert capfd.readouterr().out == ""


def test_a_setting_and_an_entry_for_the_same_thing() -> None:
    """The entry wins: it is the more special one."""
    config = {"session.intra_op.allow_spinning": "1"}
    found = options(spinning="never", config=config)
    assert entry(found, "session.intra_op.allow_spinning") == "1"


def test_everything_is_documented() -> None:
    text = onnxruntime_settings.__doc__ or ""
    for name in SETTINGS:
        assert re.search(rf"^    {name} ", text, re.MULTILINE), name
