"""A loaded bundle computes what the model computes, for every caller."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bundles
import numpy as np
import onnx
import pytest

from edgec.errors import InputError, ToolchainError
from edgec.runtime import load, openers
from edgec.runtime.onnxruntime_session import OnnxRuntimeSession, open_artifact
from edgec.runtime.values import fit


@pytest.fixture(params=["zip", "folder"])
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return bundles.write(tmp_path / "two", 2, folder=request.param == "folder")


def same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert list(left) == list(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], strict=True)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("n", "t"), [(1, 1), (2, 6), (4, 16)])
def test_engines_equal_the_whole_model_bit_for_bit(
    tmp_path: Path, count: int, n: int, t: int
) -> None:
    path = bundles.write(tmp_path / "m.edgec", count, graph_optimization_level="disable_all")
    feeds = bundles.feeds(n, n, t)
    with load(path) as model:
        same(model.run(feeds), bundles.expected(feeds))


def test_inputs_and_outputs(two: Path) -> None:
    with load(two) as model:
        image, tokens = model.inputs
        assert (image.name, image.dtype, image.shape) == ("image", "float32", ("n", 3, 12, 12))
        assert image.bounds == ((1, 4), None, None, None)
        assert str(tokens) == "tokens: int64[n=1..4, t=1..16]"
        assert [value.name for value in model.outputs] == ["score", "image_vector"]


def test_many_threads(two: Path) -> None:
    samples = [bundles.feeds(seed, 1 + seed % 4, 1 + seed % 16) for seed in range(16)]
    barrier = threading.Barrier(4)
    with load(two, threads=1) as model:
        alone = [model.run(sample) for sample in samples]

        def work(offset: int) -> list[tuple[int, dict[str, Any]]]:
            barrier.wait()
            order = [(offset * 4 + step) % 16 for step in range(160)]
            return [(index, model.run(samples[index])) for index in order]

        with ThreadPoolExecutor(4) as pool:
            for results in pool.map(work, range(4)):
                assert len(results) == 160
                for index, outputs in results:
                    same(outputs, alone[index])


def test_later_calls_leave_earlier_results_alone(two: Path) -> None:
    with load(two) as model:
        first = model.run(bundles.feeds(1))
        before = {name: array.copy() for name, array in first.items()}
        for seed in range(2, 30):
            model.run(bundles.feeds(seed))
        same(first, before)
    gc.collect()
    same(first, before)


def test_results_belong_to_the_caller(two: Path) -> None:
    with load(two) as model:
        first = model.run(bundles.feeds(1))
        before = {name: array.copy() for name, array in first.items()}
        for array in first.values():
            array[...] = 0
        same(model.run(bundles.feeds(1)), before)


def test_engines_hand_over_the_same_array(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Any]] = []
    run = OnnxRuntimeSession.run

    def spy(self: OnnxRuntimeSession, feeds: Any) -> Any:
        outputs = run(self, feeds)
        calls.append((feeds, outputs))
        return outputs

    monkeypatch.setattr(OnnxRuntimeSession, "run", spy)
    with load(two) as model:
        feeds = bundles.feeds()
        outputs = model.run(feeds)
    (first_in, first_out), (second_in, second_out) = calls
    assert first_in["image"] is feeds["image"]
    assert second_in["image_vector"] is first_out["image_vector"] is outputs["image_vector"]
    assert outputs["score"] is second_out["score"]
    assert not first_out["image_vector"].flags.owndata  # a view of the engine's own tensor


def test_a_value_is_released_after_its_last_reader(
    two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(two) as model:
        vision, fusion = model._steps
        assert "image_vector" not in vision.done
        assert {"image_vector", "tokens", "score"} <= fusion.done


WRONG: list[tuple[str, Any, str]] = [
    ("missing", lambda f: f.pop("tokens"), "missing input tokens"),
    ("unknown", lambda f: f.update(colour=f["image"]), "unknown input colour"),
    ("list", lambda f: f.update(image=[1.0]), "input 'image': expected a numpy array, got list"),
    (
        "dtype",
        lambda f: f.update(image=f["image"].astype("f8")),
        "input 'image': expected dtype float32, got float64",
    ),
    (
        "byte order",
        lambda f: f.update(image=f["image"].astype(">f4")),
        "input 'image': expected dtype float32, got >f4",
    ),
    (
        "object",
        lambda f: f.update(image=f["image"].astype(object)),
        "input 'image': expected dtype float32, got object",
    ),
    ("rank", lambda f: f.update(image=f["image"][0]), "input 'image': expected 4 dimensions"),
    (
        "fixed",
        lambda f: f.update(image=f["image"][:, :, :11]),
        r"input 'image': shape \(2, 3, 11, 12\), dimension 2: expected 12",
    ),
    (
        "range",
        lambda f: f.update(tokens=np.zeros((2, 17), np.int64)),
        "input 'tokens'.*dimension 1: expected t from 1 to 16",
    ),
    (
        "empty",
        lambda f: f.update(image=f["image"][:0], tokens=f["tokens"][:0]),
        "input 'image'.*dimension 0: expected n from 1 to 4",
    ),
    (
        "same name",
        lambda f: f.update(tokens=f["tokens"][:1]),
        "input 'tokens'.*dimension 0: n is 1 here and 2 in input 'image'",
    ),
    (
        "value",
        lambda f: f.update(tokens=np.full((2, 3), 99)),
        "the engine failed: .*indices element out of data bounds",
    ),
]


@pytest.mark.parametrize(("change", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_feeds(tmp_path: Path, change: Any, message: str) -> None:
    with load(bundles.write(tmp_path / "m.edgec")) as model:
        feeds = bundles.feeds()
        change(feeds)
        with pytest.raises(InputError, match=message) as caught:
            model.run(feeds)
        assert caught.value.hint
        same(model.run(bundles.feeds()), model.run(bundles.feeds()))  # still usable


def test_strided_feeds(two: Path) -> None:
    feeds = bundles.feeds()
    wide = np.zeros((2, 3, 12, 24), np.float32)
    wide[..., ::2] = feeds["image"]
    with load(two) as model:
        strided = {**feeds, "image": wide[..., ::2]}
        assert not strided["image"].flags.c_contiguous
        same(model.run(strided), model.run(feeds))
        assert fit(strided, model.inputs)["image"].flags.c_contiguous
        assert fit(feeds, model.inputs)["image"] is feeds["image"]


def test_self_test_passes(two: Path) -> None:
    with load(two) as model:
        test = model.self_test()
    assert test.passed
    assert [check.name for check in test.outputs] == ["image_vector", "score"]
    assert all(check.max_abs <= check.limit for check in test.outputs)
    assert all(check.cosine > 0.9999 for check in test.outputs)


def _golden(change: Any, tmp_path: Path) -> Any:
    described, files = bundles.parts(2)
    golden = bundles.expected(bundles.feeds())
    change(golden)
    files["golden/outputs.npz"] = bundles.pack.npz_bytes(golden)
    path = bundles.pack.write_bundle(described, files, tmp_path / "g.edgec", force=False)
    with load(path) as model:
        return model.self_test()


def _nan(golden: dict[str, Any]) -> None:
    golden["score"][0, 0] = np.nan


def _off(golden: dict[str, Any]) -> None:
    golden["score"][0, 0] += 0.03 * np.abs(golden["score"]).max()


def _near(golden: dict[str, Any]) -> None:
    golden["score"][0, 0] += 0.01 * np.abs(golden["score"]).max()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_nan, "NaN or infinity"),
        (_off, "max abs error"),
        (lambda g: g.update(score=-g["score"]), "max abs error"),
        (lambda g: g.update(score=g["score"][:1]), r"float32\[2, 5\] instead of float32\[1, 5\]"),
        (lambda g: g.update(score=g["score"].astype("f8")), "instead of float64"),
        (lambda g: g.update(ghost=g["score"]), "no such output"),
    ],
)
def test_self_test_fails(tmp_path: Path, change: Any, problem: str) -> None:
    import re

    test = _golden(change, tmp_path)
    assert not test.passed
    assert sum(bool(re.search(problem, check.problem)) for check in test.outputs) == 1


def test_self_test_tolerates_rounding(tmp_path: Path) -> None:
    assert _golden(_near, tmp_path).passed


def test_golden_outputs_must_be_complete(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the golden data lack output score"):
        _golden(lambda golden: golden.pop("score"), tmp_path)


def test_cosine_counts_where_the_largest_value_hides_the_error() -> None:
    from edgec.runtime.selftest import compare

    golden = np.full(1000, 0.01, np.float32)
    golden[0] = 1.0
    got = golden.copy()
    got[1:] = -0.005
    check = compare({"y": got}, {"y": golden}, 0.02).outputs[0]
    assert check.max_abs < check.limit
    assert check.problem.startswith("cosine")


@pytest.mark.parametrize("kind", ["int64", "bool"])
def test_whole_numbers_must_be_equal(kind: str) -> None:
    from edgec.runtime.selftest import compare

    golden = np.array([1, 0, 1], kind)
    assert compare({"y": golden.copy()}, {"y": golden}, 0.9).passed
    assert not compare({"y": golden[::-1] ^ np.array([1, 0, 0], kind)}, {"y": golden}, 0.9).passed
    assert compare({"y": golden[:0]}, {"y": golden[:0]}, 0.9).passed


def test_nothing_compared_is_no_success() -> None:
    from edgec.runtime.selftest import compare

    assert not compare({}, {}, 0.02).passed


@pytest.mark.parametrize("folder", [False, True])
def test_external_data(tmp_path: Path, folder: bool) -> None:
    described, files = bundles.parts(2)
    model = bundles.two_tower_models()["fusion"]
    onnx.save_model(
        model,
        tmp_path / "fusion.onnx",
        save_as_external_data=True,
        location="fusion.data",
        size_threshold=0,
    )
    described["engines"][1]["data_files"] = ["engines/fusion.data"]
    files["engines/fusion.onnx"] = (tmp_path / "fusion.onnx").read_bytes()
    files["engines/fusion.data"] = (tmp_path / "fusion.data").read_bytes()
    assert len(files["engines/fusion.data"]) >= 4 * (32 * 8 + 16 * 5)
    path = bundles.pack.write_bundle(described, files, tmp_path / "m", force=False, folder=folder)
    with load(path) as loaded:
        extracted = loaded.bundle.path("engines/fusion.data")
        assert extracted.is_relative_to(path) == folder
        assert extracted.parents[1].stat().st_mode & 0o77 == 0 or folder
        np.testing.assert_allclose(
            loaded.run(bundles.feeds())["score"], bundles.expected(bundles.feeds())["score"], 1e-5
        )
    assert extracted.exists() == folder


def test_closed(two: Path) -> None:
    model = load(two)
    model.close()
    model.close()
    with pytest.raises(InputError, match="closed"):
        model.run(bundles.feeds())


def test_a_backend_from_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Fake:
        def run(self, feeds: Any) -> Any:
            return {"image_vector": np.full((2, 8), 3, np.float32)}

        def close(self) -> None:
            seen.append("closed")

    class Point:
        name = "fake"

        def load(self) -> Any:
            return lambda artifact, settings: seen.append((artifact, settings)) or Fake()

    described, files = bundles.parts(2)
    described["engines"][0].update(backend="fake", device="npu", settings={"anything": 1})
    path = bundles.pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)
    with pytest.raises(InputError, match="no opener for backend 'fake'; known are onnxruntime"):
        load(path)
    monkeypatch.setattr(openers, "_entry_points", lambda: {"fake": Point()})
    with load(path, threads=2) as model:
        assert (model.run(bundles.feeds())["image_vector"] == 3).all()
    artifact, settings = seen[0]
    assert artifact == files["engines/vision.onnx"]
    assert settings == {"anything": 1, "device": "npu", "neighbours": 1, "threads": 2}
    assert seen[1:] == ["closed"]


def test_the_package_metadata_name_the_built_in_openers() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][openers.GROUP] == openers.BUILT_IN
    for backend in openers.BUILT_IN:
        assert callable(openers.opener(backend))


def test_a_backend_that_is_not_installed(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "edgec.runtime.onnxruntime_session")
    with pytest.raises(ToolchainError, match="runs on onnxruntime, which is not installed") as e:
        load(two)
    assert e.value.hint == "pip install onnxruntime"


@pytest.mark.parametrize("newer", ["opset", "ir", "operator"])
def test_a_model_that_is_too_new(tmp_path: Path, newer: str) -> None:
    described, files = bundles.parts(2)
    model = bundles.two_tower_models()["fusion"]
    if newer == "opset":
        model.opset_import[0].version = 999
    elif newer == "ir":
        model.ir_version = 999
    else:
        model.graph.node[-1].op_type = "TanhOfTheFuture"
    files["engines/fusion.onnx"] = model.SerializeToString()
    path = bundles.pack.write_bundle(described, files, tmp_path / "m.edgec", force=False)
    with pytest.raises(ToolchainError, match="too old for the engine's model") as caught:
        load(path)
    assert "pip install --upgrade onnxruntime" in caught.value.hint


def test_disabled_optimizers_reach_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: list[Any] = []
    session = onnxruntime.InferenceSession

    def spy(*args: Any, **more: Any) -> Any:
        asked.append(more.get("disabled_optimizers"))
        return session(*args, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    model = bundles.two_tower_models()["one"].SerializeToString()
    open_artifact(model, {"disabled_optimizers": ["WeightBiasQuantization"]})
    open_artifact(model, {})
    assert asked == [{"WeightBiasQuantization"}, None]


def test_settings_reach_onnxruntime(tmp_path: Path) -> None:
    path = bundles.write(tmp_path / "m.edgec", 2, threads=3, spinning="never")

    def options(**more: Any) -> Any:
        with load(path, **more) as model:
            return model._steps[1].session._session.get_session_options()

    spin = "session.intra_op.allow_spinning"
    assert options().intra_op_num_threads == 3
    assert options().get_session_config_entry(spin) == "0"
    assert options(threads=1).intra_op_num_threads == 1
    stop = options(settings={"spinning": "while_running"})
    assert stop.get_session_config_entry("session.force_spinning_stop") == "1"


@pytest.mark.parametrize(("count", "stops"), [(1, False), (2, True)])
def test_engines_with_neighbours_stop_spinning(tmp_path: Path, count: int, stops: bool) -> None:
    with load(bundles.write(tmp_path / "m.edgec", count)) as model:
        for step in model._steps:
            options = step.session._session.get_session_options()
            try:
                entry = options.get_session_config_entry("session.force_spinning_stop")
            except RuntimeError:  # not set
                entry = "0"
            assert (entry == "1") == stops
