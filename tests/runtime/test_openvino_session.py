"""OpenVINO engines on the device: settings, shapes, threads, precision."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small

from edgec.errors import InputError, ToolchainError
from edgec.target import cpu_flags

openvino = pytest.importorskip("openvino")

from irs import FIXED, close, expected, feeds, written  # noqa: E402

from edgec.runtime.openvino_session import (  # noqa: E402
    SPECIALISE,
    OpenVINOSession,
    configure,
    open_artifact,
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("engine"))


def compiled(session: OpenVINOSession) -> list[Any]:
    """The sets of shapes that have a compilation; () is the dynamic one."""
    return list(session._compiled)


# Results


def test_it_computes_what_the_model_says(engine: Path) -> None:
    session = open_artifact(engine, {})
    close(session.run(feeds()), feeds())
    session.close()


def test_the_first_shapes_are_compiled_and_the_others_share_one(engine: Path) -> None:
    session = open_artifact(engine, {"specialise": 2})
    assert compiled(session) == []
    for t in (3, 5, 3, 7, 9, 5):
        close(session.run(feeds(t, t=t)), feeds(t, t=t))
    assert compiled(session) == [((2, 3, 32),), ((2, 5, 32),), ()]


def test_without_specialising_one_compilation_serves_all(engine: Path) -> None:
    session = open_artifact(engine, {"specialise": 0})
    assert compiled(session) == [()]
    for t in (1, 4):
        close(session.run(feeds(t, t=t)), feeds(t, t=t))
    assert compiled(session) == [()]


def test_a_handful_is_the_default(engine: Path) -> None:
    session = open_artifact(engine, {})
    for t in range(1, SPECIALISE + 4):
        close(session.run(feeds(t, t=t)), feeds(t, t=t))
    assert len(compiled(session)) == SPECIALISE + 1
    assert compiled(session)[-1] == ()


def test_fixed_shapes_are_compiled_as_they_are(tmp_path: Path) -> None:
    session = open_artifact(written(tmp_path, FIXED), {})
    assert compiled(session) == [()]
    close(session.run(feeds()), feeds())
    assert compiled(session) == [()]
    with pytest.raises(InputError, match="the engine failed"):
        session.run(feeds(t=4))
    close(session.run(feeds(1)), feeds(1))  # a refused call leaves nothing behind


@pytest.mark.parametrize("specialise", [0, 2])
def test_values_that_do_not_fit_are_the_callers_error(specialise: int, engine: Path) -> None:
    session = open_artifact(engine, {"specialise": specialise})
    with pytest.raises(InputError, match="the engine failed") as caught:
        session.run({"x": np.zeros((2, 3, 31), np.float32)})
    assert caught.value.hint == "Check shapes and values of the inputs."
    close(session.run(feeds()), feeds())


def test_no_later_call_changes_a_result(engine: Path) -> None:
    session = open_artifact(engine, {})
    first = session.run(feeds(1))
    kept = {name: array.copy() for name, array in first.items()}
    given = feeds(2)
    before = given["x"].copy()
    session.run(given)
    np.testing.assert_array_equal(given["x"], before)
    session.close()
    for name, array in kept.items():
        np.testing.assert_array_equal(first[name], array)
        assert first[name].flags.writeable


def test_the_caller_may_change_what_was_fed(engine: Path) -> None:
    session = open_artifact(engine, {})
    given = feeds(1)
    found = session.run(given)
    given["x"][:] = np.nan
    close(found, feeds(1))
    close(session.run(feeds(1)), feeds(1))


@pytest.mark.parametrize("specialise", [0, 5])
def test_many_threads_at_once(specialise: int, engine: Path) -> None:
    session = open_artifact(engine, {"specialise": specialise, "threads": 1})
    wrong: list[str] = []
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait()
        for turn in range(12):
            given = feeds(100 * seed + turn, t=1 + (seed + turn) % 3)
            try:
                close(session.run(given), given)
            except BaseException as error:
                wrong.append(repr(error))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert wrong == []
    assert len(compiled(session)) == (3 if specialise else 1)


# Settings: a manifest may say anything


@pytest.mark.parametrize(
    "settings",
    [
        {"CACHE_DIR": "/tmp"},
        {"config": {"CACHE_DIR": "/tmp"}},
        {"disabled_optimizers": []},
        {"device": "CPU"},
        {"device": "HETERO:GPU,CPU"},
        {"device": None},
        {"device": ["cpu"]},
        {"precision": "f32"},
        {"precision": "int8_static"},
        {"precision": 32},
        {"precision": ""},
        {"hint": "LATENCY"},
        {"hint": True},
        {"specialise": -1},
        {"specialise": 65},
        {"specialise": True},
        {"specialise": 2.0},
        {"specialise": "2"},
        {"threads": -1},
        {"threads": 1025},
        {"threads": None},
        {"dynamic_quantization_group": -1},
        {"dynamic_quantization_group": 1 << 17},
        {"dynamic_quantization_group": [64]},
        {"snippets": "DISABLE"},
        {"snippets": 0},
    ],
    ids=repr,
)
def test_what_a_manifest_may_not_say(settings: dict[str, Any], engine: Path) -> None:
    (key,) = settings
    with pytest.raises(InputError, match=rf"openvino engine: not allowed: .*{key}") as caught:
        open_artifact(engine, settings)
    assert "Build the bundle again" in caught.value.hint
    assert caught.value.exit_code == 3


def test_every_setting_reaches_openvino(engine: Path) -> None:
    settings = {"hint": "throughput", "threads": 1, "dynamic_quantization_group": 32}
    session = open_artifact(engine, {**settings, "precision": "float32", "neighbours": 3})
    session.run(feeds())
    (pool,) = session._compiled.values()
    told = {
        name: str(pool._compiled.get_property(name))
        for name in (
            "PERFORMANCE_HINT",
            "INFERENCE_NUM_THREADS",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE",
            "INFERENCE_PRECISION_HINT",
        )
    }
    assert "THROUGHPUT" in told["PERFORMANCE_HINT"]
    assert told["INFERENCE_NUM_THREADS"] == "1"
    assert told["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "32"
    assert (
        "float32" in told["INFERENCE_PRECISION_HINT"] or "f32" in told["INFERENCE_PRECISION_HINT"]
    )
    close(session.run(feeds()), feeds())


def test_settings_of_a_gpu_are_not_those_of_a_cpu() -> None:
    device, properties, most = configure({"device": "gpu", "threads": 4, "precision": "float16"})
    assert device == "GPU"
    assert properties["INFERENCE_PRECISION_HINT"] == "f16"
    assert not {"INFERENCE_NUM_THREADS", "DYNAMIC_QUANTIZATION_GROUP_SIZE"} & set(properties)
    assert most == SPECIALISE


@pytest.mark.parametrize("device", ["gpu", "npu"])
def test_a_device_that_is_not_here(device: str, engine: Path) -> None:
    here = openvino.Core().available_devices
    if any(name.startswith(device.upper()) for name in here):
        pytest.skip(f"this machine has a {device}")
    with pytest.raises(ToolchainError, match=f"finds no {device.upper()} here, only CPU") as caught:
        open_artifact(engine, {"device": device})
    assert caught.value.exit_code == 5


# Precision


def test_float_is_computed_in_float32_unless_the_plan_says_otherwise(engine: Path) -> None:
    """OpenVINO's own choice would be bf16 where the CPU has it."""
    close(open_artifact(engine, {}).run(feeds()), feeds())
    close(open_artifact(engine, {"precision": "float32"}).run(feeds()), feeds())


def test_the_precision_follows_the_setting(engine: Path) -> None:
    if not {"avx512_bf16", "amx_bf16"} & cpu_flags():
        pytest.skip("this CPU has no bf16, and OpenVINO computes in float32 instead")
    found = open_artifact(engine, {"precision": "bfloat16"}).run(feeds())
    close(found, feeds(), least=30)
    exact = expected(feeds())
    assert small.sqnr(exact["y"], found["y"]) < 70


@pytest.mark.parametrize("group", [32, 64])
def test_the_group_of_dynamic_quantization_follows_the_setting(group: int, tmp_path: Path) -> None:
    """With compressed weights, activations are rounded to INT8 only where a group is set."""
    import engines

    from edgec.types import Scheme

    text = "g (float[n,64] x) => (float[n,48] y) { [m] y = MatMul (x, w) }"
    found = small.canonical(small.model(text, w=small.normal(0, 64, 48)))
    policy = engines.everywhere(Scheme.INT8_DYNAMIC)
    artifact = engines.emit(*engines.engine(found, "x86-vnni", [], policy, "openvino"), tmp_path)
    assert artifact.settings["dynamic_quantization_group"] == 64
    given = {"x": small.normal(1, 16, 64)}
    exact = small.run(found.model, given)["y"]
    off, on = (
        open_artifact(artifact.path, {**artifact.settings, "dynamic_quantization_group": size}).run(
            given
        )["y"]
        for size in (0, group)
    )
    if np.array_equal(on, off):
        pytest.skip("this CPU has no VNNI, and OpenVINO leaves activations in float")
    assert small.sqnr(exact, off) > small.sqnr(exact, on) > 35
