"""The capability table: strict, mergeable, and matched to a machine by what its CPU says."""

from __future__ import annotations

import platform
from pathlib import Path

import graphs
import numpy as np
import pytest
import small

from edgec import table
from edgec import target as module
from edgec.backends import BUILT_IN
from edgec.errors import InputError
from edgec.target import host, load_target, names, stacks
from edgec.types import Kind, Scheme


def board(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "target.toml").write_text(text, encoding="utf-8")
    return folder


MY_BOARD = """extends = "x86-vnni"
summary = "my board"
arch = "x86_64"
requires = []
verified = "measured by me"
"""


ROWS = [(name, stack) for name in names() for stack in stacks(name)]


@pytest.mark.parametrize(("name", "stack"), ROWS)
def test_every_row_is_complete(name: str, stack: str) -> None:
    target = load_target(name, stack)
    assert (target.name, target.stack) == (name, stack)
    assert target.runtimes
    assert len({one.name for one in target.runtimes}) == len(target.runtimes)
    # decisions are told apart by backend and device, so no two runtimes of a stack share both
    assert len({(one.backend, one.device) for one in target.runtimes}) == len(target.runtimes)
    for runtime in target.runtimes:
        assert target.runtime(runtime.name) is runtime
        assert runtime.backend in {*BUILT_IN, "tensorrt"}
        assert set(runtime.ladders) == set(Kind)
        for known in (runtime, runtime.grid, *runtime.ladders.values()):
            assert known.source
            assert known.confidence in ("measured", "documented", "inferred")
        np.dtype(runtime.grid.activations)
        assert any(rule.schemes for rule in runtime.ops.values())
        # the safest numbers that the device has: FP16 hardware computes nothing in FP32
        safest = runtime.ladders[Kind.GLUE].with_data[-1]
        assert safest is Scheme.FLOAT32 or safest is runtime.precision is Scheme.FLOAT16
        fp16 = safest is Scheme.FLOAT16
        assert runtime.precision in runtime.ladders[Kind.GLUE].with_data
        for ladder in runtime.ladders.values():
            assert ladder.reason
            assert ladder.with_data[-1] is ladder.without_data[-1] is safest
            assert not fp16 or Scheme.FLOAT32 not in (*ladder.with_data, *ladder.without_data)
            assert Scheme.INT8_STATIC not in ladder.without_data
            assert ladder.int8_ops <= set(runtime.ops)
            assert all(times > 0 for times in ladder.speed.values())
    with pytest.raises(KeyError):
        target.runtime("nothing")


def test_onnxruntime_never_quantizes_what_a_plan_leaves_in_float() -> None:
    for name, stack in ROWS:
        for runtime in load_target(name, stack).runtimes:
            if runtime.backend == "onnxruntime":
                assert "WeightBiasQuantization" in runtime.settings["disabled_optimizers"]  # type: ignore[operator]


def test_the_grids_differ_as_the_instructions_do() -> None:
    assert small.runtime("x86-vnni").grid.activations == "uint8"
    assert not small.runtime("x86-vnni").grid.reduce_range
    assert small.runtime("x86-avx2").grid.reduce_range
    assert small.runtime("aarch64-dotprod").grid.activations == "int8"
    assert small.runtime("generic").ladders[Kind.CNN].with_data == (
        Scheme.INT8_WEIGHT_ONLY,
        Scheme.FLOAT32,
    )


def test_x86_has_two_runtimes() -> None:
    target = load_target("x86-vnni")
    assert [one.name for one in target.runtimes] == ["onnxruntime", "openvino"]
    assert [one.device for one in target.runtimes] == ["cpu", "cpu"]
    assert stacks("x86-vnni")[0] == target.stack
    for stack in ("onnxruntime", "openvino"):
        assert [one.name for one in load_target("x86-vnni", stack).runtimes] == [stack]


def test_a_device_with_an_npu() -> None:
    target = load_target("intel-core-ultra")
    assert [one.device for one in target.runtimes] == ["cpu", "gpu", "npu"]
    assert {one.backend for one in target.runtimes} == {"openvino"}
    assert [one.static_shapes for one in target.runtimes] == [False, False, True]
    assert [one.precision for one in target.runtimes] == [
        Scheme.FLOAT32,
        Scheme.FLOAT16,
        Scheme.FLOAT16,
    ]
    assert not target.here


def test_an_unknown_target_lists_the_choices() -> None:
    with pytest.raises(InputError) as caught:
        load_target("toaster")
    assert caught.value.message == "unknown target 'toaster'"
    assert caught.value.exit_code == 3
    for name in ("host", *names()):
        assert name in caught.value.hint


@pytest.mark.parametrize("name", ["../../etc", "./nothing/", "x86-vnni/target.toml", ""])
def test_a_path_that_is_no_target(name: str) -> None:
    with pytest.raises(InputError, match="unknown target"):
        load_target(name)


def test_an_unknown_stack_lists_the_choices() -> None:
    with pytest.raises(InputError, match="target generic has no stack 'tvm'") as caught:
        load_target("generic", "tvm")
    assert "onnxruntime" in caught.value.hint


def test_a_board_of_ones_own(tmp_path: Path) -> None:
    target = load_target(str(board(tmp_path / "my-board", MY_BOARD)))
    base = load_target("x86-vnni")
    assert target.name == "my-board"
    assert target.summary == "my board"
    assert target.stack == base.stack
    assert target.runtimes == base.runtimes
    assert target.here == (platform.machine() == "x86_64")


def test_tables_merge_key_by_key(tmp_path: Path) -> None:
    text = (
        MY_BOARD
        + """
    [runtimes.onnxruntime]
    max_opset = 19
    [runtimes.onnxruntime.ladders.cnn]
    reason = "mine"
    [runtimes.onnxruntime.ops]
    Conv = { schemes = [], note = "broken here" }
    """
    )
    mine, other = load_target(str(board(tmp_path / "b", text))).runtimes
    base = load_target("x86-vnni")
    known = base.runtime("onnxruntime")
    assert mine.max_opset == 19
    assert mine.max_ir == known.max_ir
    assert mine.ladders[Kind.CNN].reason == "mine"
    assert mine.ladders[Kind.CNN].with_data == known.ladders[Kind.CNN].with_data
    assert mine.ladders[Kind.MLP] == known.ladders[Kind.MLP]
    assert mine.ops["Conv"].schemes == frozenset()
    assert mine.ops["Conv"].note == "broken here"
    assert mine.ops["Add"] == known.ops["Add"]
    assert mine.grid == known.grid
    assert other == base.runtime("openvino")


LIKE = """
default_stack = "mine"
[stacks.mine]
runtimes = ["fast", "openvino"]
source = "tried"
confidence = "measured"
[runtimes.fast]
like = "openvino"
device = "gpu"
static_shapes = true
precision = "float16"
[runtimes.fast.settings]
hint = "throughput"
[runtimes.fast.ladders.cnn]
speed = { int8_static = 9.0 }
"""


def test_a_runtime_may_be_like_another(tmp_path: Path) -> None:
    target = load_target(str(board(tmp_path / "b", MY_BOARD + LIKE)))
    base = load_target("x86-vnni").runtime("openvino")
    fast, plain = target.runtimes
    assert target.stack == "mine"
    assert plain == base
    assert (fast.name, fast.backend, fast.device) == ("fast", "openvino", "gpu")
    assert fast.static_shapes
    assert fast.precision is Scheme.FLOAT16
    assert fast.settings == {**base.settings, "hint": "throughput"}
    assert fast.grid == base.grid
    assert fast.ops == base.ops
    assert fast.ladders[Kind.CNN].with_data == base.ladders[Kind.CNN].with_data
    assert fast.ladders[Kind.CNN].speed[Scheme.INT8_STATIC] == 9
    assert fast.ladders[Kind.TRANSFORMER] == base.ladders[Kind.TRANSFORMER]


def test_a_runtime_that_is_like_itself(tmp_path: Path) -> None:
    text = MY_BOARD + '[runtimes.a]\nlike = "b"\n[runtimes.b]\nlike = "a"\n'
    with pytest.raises(InputError, match=r"runtimes\.a: is like itself \(a -> b\)"):
        load_target(str(board(tmp_path / "b", text)))


def test_a_stack_whose_runtime_does_not_exist(tmp_path: Path) -> None:
    known = '\nsource = "x"\nconfidence = "inferred"\n'
    folder = board(tmp_path / "b", MY_BOARD + '[stacks.mine]\nruntimes = ["nothing"]' + known)
    with pytest.raises(InputError, match=r"stacks\.mine: there is no runtime 'nothing'") as caught:
        load_target(str(folder), "mine")
    assert "onnxruntime-1.19" in caught.value.hint


def test_a_grid_is_replaced_as_a_whole(tmp_path: Path) -> None:
    text = MY_BOARD + '[runtimes.onnxruntime.grid]\nactivations = "int8"\n'
    with pytest.raises(InputError, match=r"onnxruntime\.grid: missing symmetric_activations"):
        load_target(str(board(tmp_path / "b", text)))


ORT = "runtimes.onnxruntime"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sumary = 'x'", "sumary: not known in this schema; known are arch, boards"),
        ("[grid]\nactivations = 'int8'", "grid: not known"),
        ("[stacks.onnxruntime]\nthreads = 3", "stacks.onnxruntime.threads: not known"),
        ("[stacks.mine]\nruntimes = ['openvino']", "stacks.mine: source, confidence is missing"),
        (f"[{ORT}]\nopset = 3", f"{ORT}.opset: not known in this schema; known are backend"),
        (f"[{ORT}]\nprecision = 'int9'", f"{ORT}.precision: expected one of float32"),
        (f"[{ORT}]\nconfidence = 'sure'", "expected one of measured, documented, inferred"),
        ("[runtimes.new]\nlike = 'nothing'", "runtimes.new.like: there is no runtime 'nothing'"),
        ("[runtimes.new]\nbackend = 'b'", "runtimes.new: device, max_opset, max_ir"),
        (f"[{ORT}.ladders.cnn]\nwith = []", f"{ORT}.ladders.cnn.with: not known"),
        (f"[{ORT}.ladders.cnn]\nwith_data = ['int9']", "cnn.with_data[0]: expected one of float32"),
        (f"[{ORT}.ladders.cnn]\nspeed = {{ int9 = 1.0 }}", "cnn.speed: expected one of float32"),
        (f"[{ORT}.ladders.cnn]\nspeed = {{ float32 = 'fast' }}", "expected number, got 'fast'"),
        (f"[{ORT}.ladders.vit]\nwith_data = ['float32']", "expected one of cnn, transformer"),
        (f"[{ORT}.ops.Conv]\nscheme = ['float32']", "ops.Conv.scheme: not known"),
        (f"[{ORT}.ops.Conv]\nschemes = ['fast']", "ops.Conv.schemes[0]: expected one of"),
        (f"[{ORT}.ops]\nNew = {{ schemes = [] }}", "ops.New: note is missing"),
        (f"[{ORT}.grid]\nactivation = 'int8'", f"{ORT}.grid: missing activations"),
        ("[hardware.tpu]\nisa = 'x'", "hardware.tpu: not known in this schema; known are cpu, dla"),
        ("[hardware.gpu]\nisa = 'x'", "hardware.gpu: source, confidence is missing"),
        ("[hardware.cpu.dtypes]\nint8 = { speed = 'quick' }", "expected one of none, slow, plain"),
        ("[hardware.cpu.dtypes]\nint9 = { speed = 'fast' }", "expected one of float64, float32"),
        (f"[{ORT}.bugs.x]\nop = 'Conv'", f"{ORT}.bugs.x: effect, detour is missing"),
        (f"[{ORT}.instead.int8_dynamic]\nreason = 'x'", "with_data, without_data is missing"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_file(
    text: str, words: str, tmp_path: Path
) -> None:
    folder = board(tmp_path / "b", MY_BOARD + text)
    with pytest.raises(InputError) as caught:
        load_target(str(folder))
    assert caught.value.message.startswith(f"{folder / 'target.toml'}: ")
    assert words in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("key", ["summary", "arch", "verified"])
def test_a_table_of_its_own_needs_every_key(key: str, tmp_path: Path) -> None:
    text = (module.folder("targets") / "generic" / "target.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
    with pytest.raises(InputError, match=f"the row: {key} is missing"):
        load_target(str(board(tmp_path / "b", "\n".join(lines))))


@pytest.mark.parametrize("text", ["summary = ", "\xff", 'extends = "nothing"'])
def test_a_table_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "target.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"target\.toml"):
        load_target(str(folder))


def test_a_table_that_extends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board(tmp_path / "here", 'extends = "there"\n')
    board(tmp_path / "there", 'extends = "here"\n')
    monkeypatch.setattr(table, "folder", lambda _: tmp_path)
    with pytest.raises(InputError, match="extends: 'here' extends this file in turn"):
        load_target("here")


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"sse2"}, "generic"),
        ("x86_64", {"avx2"}, "x86-avx2"),
        ("x86_64", {"avx2", "avx512_vnni"}, "x86-vnni"),
        ("x86_64", {"sse4_2"}, "x86-sse4"),
        ("x86_64", {"avx2", "avx_vnni"}, "x86-avx-vnni"),
        ("x86_64", {"avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}, "x86-amx"),
        ("x86_64", {"avx2", "avx512_vnni", "avx512_bf16"}, "x86-bf16"),
        ("x86_64", {"avx2", "avx512_bf16"}, "x86-avx2"),
        ("aarch64", {"asimd"}, "aarch64"),
        ("aarch64", {"asimd", "asimddp"}, "aarch64-dotprod"),
        ("riscv64", set(), "generic"),
        ("aarch64", {"avx2", "avx512_vnni"}, "generic"),
    ],
)
def test_the_host_is_found_by_its_flags(
    machine: str, flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(module, "cpu_flags", lambda: frozenset(flags))
    assert host() == expected
    found = load_target("host")
    assert found.name == expected
    assert found.here
    assert [name for name in names() if load_target(name).here] == [expected]


def test_flags_are_read_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "x86": "processor : 0\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\nflags : fpu\n",
        "arm": "processor : 0\nFeatures\t: fp asimd asimddp\nCPU part : 0xd0b\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: texts["x86"])
    assert module.cpu_flags() == {"fpu", "avx2", "avx512_vnni"}
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: texts["arm"])
    assert module.cpu_flags() == {"fp", "asimd", "asimddp"}


def test_a_system_that_does_not_tell_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError("no /proc")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert module.cpu_flags() == frozenset()


def test_the_memory_of_an_engine(tmp_path: Path) -> None:
    """Where a row states it, parts that are larger are cut and engines hold no more."""
    from edgec.build import Job, prepare
    from edgec.join import join

    text = MY_BOARD + "[runtimes.onnxruntime.limits]\nengine_bytes = 50_000\n"
    row = board(tmp_path / "my-board", text)
    assert load_target(str(row)).runtime("onnxruntime").limits.engine_bytes == 50_000
    model = graphs.path("clip_torchscript")
    made = prepare(Job(model=model, target=str(row), backend="onnxruntime"))
    assert [part.name for part in made.parts][:3] == ["vision", "text_part1", "text_part2"]
    engines = join(made.graph, made.plan, made.target)
    assert len(engines) > 1
    sizes = {part.name: part.weight_bytes for part in made.parts}
    for engine in engines:
        assert len(engine.parts) == 1 or sum(sizes[name] for name in engine.parts) <= 50_000
