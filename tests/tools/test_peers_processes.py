"""The processes of `tools/bench/peers`: builds that fail, cases that die, outputs that differ."""

import json
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))

import peers_build
import peers_cache
import peers_case
import peers_measure
import peers_ort
from peers_types import Built

MLP = graphs.FIXTURES / "mlp.onnx"


def build(folder: Path, program: str) -> Built:
    artifact = folder / "model.onnx"
    line = [sys.executable, "-c", textwrap.dedent(program), str(artifact)]
    return peers_build.run(line, artifact, {})


def test_build_tells_size_time_and_the_memory_of_children(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        """
        import subprocess, sys
        child = "import time; a = bytearray(300_000_000); time.sleep(1.5)"
        subprocess.run([sys.executable, "-c", child], check=True, start_new_session=True)
        open(sys.argv[1], "wb").write(b"12345")
        """,
    )
    assert built.problem == ""
    assert built.bytes == 5
    assert built.seconds >= 1.5
    assert 300 < built.peak_mb < 600
    assert 300 < built.largest_mb < built.peak_mb


def test_build_counts_the_cpu_time_and_the_short_peak_of_a_child(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        """
        import subprocess, sys, time
        child = (
            "import time; a = bytearray(200_000_000); del a; end = time.process_time() + 0.5\\n"
            "while time.process_time() < end: pass"
        )
        subprocess.run([sys.executable, "-c", child], check=True)
        open(sys.argv[1], "wb").write(b"1")
        """,
    )
    assert built.problem == ""
    assert built.cpu_seconds >= 0.5
    assert built.largest_mb > 200


def test_build_that_takes_too_much_memory_is_ended(tmp_path: Path) -> None:
    program = "import time; a = bytearray(400_000_000); time.sleep(600)"
    artifact = tmp_path / "model.onnx"
    built = peers_build.run([sys.executable, "-c", program], artifact, {}, most_mb=300.0)
    assert built.problem in ("failed at 0.3 GB", "failed at 0.4 GB")  # it may still be growing


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("raise ValueError('no such op')", "exit code 1: ValueError: no such op"),
        ("import os; os.kill(os.getpid(), 11)", "crashed (SIGSEGV)"),
        ("pass", "reported success and wrote nothing"),
    ],
)
def test_build_that_fails_says_how(tmp_path: Path, program: str, problem: str) -> None:
    built = build(tmp_path, program)
    assert (built.problem, built.bytes) == (problem, 0)


def test_build_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    line = ["sh", "-c", "setsid sleep 600 & echo $!; wait"]
    built = peers_build.run(line, tmp_path / "model.onnx", {}, 2.0)
    assert built.problem == "did not end within 2 s"
    child = int((tmp_path / "log.txt").read_text())
    deadline = time.monotonic() + 30  # a busy machine takes a while to let go of what was killed
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def test_weights_of_an_openvino_file_count(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_bytes(b"123")
    (tmp_path / "model.bin").write_bytes(b"45")
    assert peers_build.size(tmp_path / "model.xml") == 5


def case(path: Path) -> dict[str, Any]:
    names = [value.name for value in onnx.load(MLP).graph.output]
    runtime = {"runtime": "onnxruntime", "settings": {}, "threads": 1}
    return {"path": str(path), "outputs": names, **runtime}


def sample(folder: Path) -> Path:
    np.savez(folder / "sample.npz", x=np.ones((1, 20), np.float32))
    return folder / "sample.npz"


def test_measure_times_every_case_in_every_round(tmp_path: Path) -> None:
    both = {"base": case(MLP), "other": case(MLP)}
    speeds, problems = peers_measure.measure(both, "base", sample(tmp_path), 3)
    assert problems == {}
    assert speeds["base"].ratio == 1.0
    assert all(len(one.medians) == 3 and min(one.medians) > 0 for one in speeds.values())
    assert speeds["other"].run_mb > 10


def test_measure_leaves_out_who_dies_and_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    both = {"base": case(MLP), "broken": case(broken)}
    speeds, problems = peers_measure.measure(both, "base", sample(tmp_path), 2)
    assert set(speeds) == {"base"}
    assert "exit code 1" in problems["broken"]
    assert "broken.onnx" in problems["broken"]


def test_measure_needs_its_base(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="base: exit code 1"):
        peers_measure.measure({"base": case(tmp_path / "none")}, "base", sample(tmp_path), 2)


def test_heldout_starts_an_input_again(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    np.save(tmp_path / "b.npy", np.arange(2))
    found = [(int(feeds["a"][0]), int(feeds["b"][0])) for feeds in peers_case.heldout(tmp_path)]
    assert found == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]


def test_evaluation_compares_with_the_first(tmp_path: Path) -> None:
    heldout = tmp_path / "heldout"
    heldout.mkdir()
    np.save(heldout / "x.npy", np.random.default_rng(0).normal(size=(6, 20)).astype(np.float32))
    reference, model = tmp_path / "reference", onnx.load(MLP)
    peers_case.evaluate(case(MLP), "lite0", heldout, reference, tmp_path / "base.npz")
    assert not (tmp_path / "base.json").exists()
    bias = next(one for one in model.graph.initializer if one.name.endswith("bias"))
    array = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(array + np.float32(0.5), bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    for name, path in (("same", MLP), ("other", tmp_path / "other.onnx")):
        peers_case.evaluate(case(path), "lite0", heldout, reference, tmp_path / f"{name}.npz")
    results = {
        name: next(iter(json.loads((tmp_path / f"{name}.json").read_text()).values()))
        for name in ("same", "other")
    }
    assert results["same"]["sqnr_db"] == np.inf
    assert 0 < results["other"]["sqnr_db"] < 60
    arrays = np.load(tmp_path / "base.npz")
    assert all(len(arrays[name]) == 6 for name in arrays.files)


def test_records_are_made_again_under_another_key(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"value": float("inf")}

    path = tmp_path / "record.json"
    first = peers_cache.recall(path, "one", make)
    assert float(peers_cache.recall(path, "one", make)["value"]) == first["value"] == np.inf
    assert len(made) == 1
    peers_cache.recall(path, "two", make)
    assert len(made) == 2


def test_keys_follow_sources_and_settings() -> None:
    assert peers_cache.digest({"a": 1, "b": 2}) == peers_cache.digest({"b": 2, "a": 1})
    assert peers_cache.digest({"a": 1}) != peers_cache.digest({"a": 2})
    keys = [peers_cache.tool_key(tool) for tool in ("ort", "nncf", "edgec", "case")]
    assert len(set(keys)) == len(keys)


def test_a_split_by_hand_follows_the_image(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["features"], "conv"),
        helper.make_node("Flatten", ["features"], ["flat"], "flatten"),
        helper.make_node("Cast", ["input_ids"], ["words"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["words", "v"], ["text"], "text"),
        helper.make_node("MatMul", ["flat", "text"], ["score"], "score"),
    ]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 2, 2]),
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, [4, 3]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, [1, 1])]
    weights = [
        onnx.numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "w"),
        onnx.numpy_helper.from_array(np.ones((3, 1), np.float32), "v"),
    ]
    model = helper.make_model(helper.make_graph(nodes, "two", inputs, outputs, weights))
    onnx.save(model, tmp_path / "two.onnx")
    first, rest = peers_ort.split(tmp_path / "two.onnx", "image")
    assert first == ["conv", "flatten"]
    assert rest == ["text", "score"]
