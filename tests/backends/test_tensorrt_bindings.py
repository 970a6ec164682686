"""The adapters against TensorRT's genuine bindings, 8.6 to 11.4, over a stub of the libraries.

Which calls, flags and classes there are is the bindings' own word. Whether TensorRT then builds is
not verified on hardware.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import bindings
import pytest

OLD = ["8.6.1", "10.3.0", "10.7.0", "10.16.1.11"]
NEW = ["11.4.0.106"]
EXPLICIT_BATCH, STRONGLY_TYPED = 1, 2


@functools.cache
def run(version: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return bindings.run(version, Path(__file__).with_name("conforming.py"), folder)


@pytest.mark.parametrize("version", OLD + NEW)
def test_the_adapter_follows_from_what_is_there(version: str) -> None:
    found = run(version)
    assert found["version"] == version
    assert found["adapter"] == ("TensorRT 8 to 10" if version in OLD else "TensorRT 11")


@pytest.mark.parametrize("version", OLD + NEW)
def test_a_library_that_gives_no_builder_is_a_sentence(version: str) -> None:
    found = run(version)["genuine builder"]
    assert found["error"] == "EmitError"
    assert f"TensorRT {version} does not start here" in found["message"]


@pytest.mark.parametrize("version", OLD + NEW)
def test_every_call_exists_in_the_genuine_classes(version: str) -> None:
    found = run(version)["explicit"]
    assert found["engine"] == "an engine"
    assert found["times"] == "times"
    assert "a line of the log" in found["log"]
    for call in (
        "Builder.create_network",
        "OnnxParser.parse_from_file",
        "IBuilderConfig.set_memory_pool_limit",
        "IBuilderConfig.set_timing_cache",
        "IBuilderConfig.profiling_verbosity = DETAILED",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.add_optimization_profile",
        "Builder.build_serialized_network",
    ):
        assert call in found["calls"]
    assert ("STRIP_PLAN" in found["set"]) is (version != "8.6.1")
    assert "NO_SUCH_FLAG" not in found["set"]


@pytest.mark.parametrize("version", OLD)
def test_flags_choose_the_precision_up_to_10(version: str) -> None:
    found = run(version)
    assert found["explicit"]["flags"][:2] == ["INT8", "FP16"]
    assert found["explicit"]["network"] == [EXPLICIT_BATCH]
    assert "INT8" in found["no half"]["flags"]
    assert "FP16" not in found["no half"]["flags"]
    assert found["float16"]["flags"][:1] == ["FP16"]
    assert "INT8" not in found["float16"]["flags"]
    assert not {"INT8", "FP16"} & set(found["float32"]["flags"])
    assert "IBuilderConfig.int8_calibrator = Cached" in found["implicit"]["calls"]
    assert not any("int8_calibrator" in call for call in found["explicit"]["calls"])


@pytest.mark.parametrize("version", OLD[1:])
def test_typed_networks_of_10_have_no_precision_flags(version: str) -> None:
    found = run(version)["typed"]
    assert found["network"] == [EXPLICIT_BATCH | STRONGLY_TYPED]
    assert not {"INT8", "FP16"} & set(found["flags"])


@pytest.mark.parametrize("version", NEW)
def test_11_has_types_alone_and_reads_no_cache(version: str) -> None:
    found = run(version)
    for form in ("explicit", "typed", "float16", "float32"):
        assert not {"INT8", "FP16"} & set(found[form]["flags"])
        assert found[form]["network"] == [1]  # STRONGLY_TYPED, now the first of the flags
    for form in ("implicit", "dla"):
        assert found[form]["error"] == "ToolchainError"
        assert f"TensorRT {version} reads no calibration cache" in found[form]["message"]
    assert found["calibrators"] == {}


@pytest.mark.parametrize("version", OLD)
def test_a_dla_has_the_gpu_to_fall_back_on(version: str) -> None:
    found = run(version)["dla"]
    assert {"DLA 1", "GPU_FALLBACK", "calibration cache"} <= set(found["set"])
    assert "GPU_FALLBACK" in found["flags"]
    assert "IBuilderConfig.default_device_type = DLA" in found["calls"]
    assert "IBuilderConfig.DLA_core = int" in found["calls"]


@pytest.mark.parametrize("version", OLD + NEW)
def test_what_cannot_be_built_is_told(version: str) -> None:
    found = run(version)
    assert "this device has 2 DLA cores" in found["no such dla"]["message"]
    assert "input 'image' varies in size (?x3x8x8)" in found["no bounds"]["message"]
    assert found["failed"]["error"] == "EmitError"
    assert "cannot build it" in found["failed"]["message"]


@pytest.mark.parametrize("version", OLD)
def test_the_calibrators_are_genuine_ones(version: str) -> None:
    found = run(version)["calibrators"]
    assert found["genuine"]
    assert found["algorithm"] == "ENTROPY_CALIBRATION_2"
    assert found["cache"] == "a cache"
    assert (found["asked before"], found["asked after"]) == (False, True)
    assert "asked for calibration data" in found["refused"]
    stream = found["streamed"]
    assert stream["genuine"]
    assert stream["algorithm"] == "ENTROPY_CALIBRATION_2"
    assert stream["given"] == [[1000, 2000]] * 3  # two buffers, kept
    assert stream["held"] == [8, 16]
    assert stream["copied"] == [
        pair for k in (1, 2, 3) for pair in ([1000, 2.0 * k], [2000, 4.0 * k])
    ]
    assert (stream["batches"], stream["cache"], stream["knows one"]) == (3, "made", True)
