"""The capability table: strict, mergeable, and matched to a machine by what its CPU says."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest
import small

from edgec import target as module
from edgec.errors import InputError
from edgec.target import host, load_target, names
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


@pytest.mark.parametrize("name", names())
def test_every_row_is_complete(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert set(target.ladders) == set(Kind)
    assert target.grid.source
    assert target.grid.confidence
    assert target.stack.source
    assert target.stack.confidence
    assert "WeightBiasQuantization" in target.stack.settings["disabled_optimizers"]  # type: ignore[operator]
    np.dtype(target.grid.activations)
    for ladder in target.ladders.values():
        assert ladder.reason
        assert ladder.source
        assert ladder.confidence in ("measured", "documented", "inferred")
        assert ladder.with_data[-1] is Scheme.FLOAT32
        assert ladder.without_data[-1] is Scheme.FLOAT32
        assert Scheme.INT8_STATIC not in ladder.without_data
        assert ladder.int8_ops <= set(target.ops)


def test_the_grids_differ_as_the_instructions_do() -> None:
    assert load_target("x86-vnni").grid.activations == "uint8"
    assert not load_target("x86-vnni").grid.reduce_range
    assert load_target("x86-avx2").grid.reduce_range
    assert load_target("aarch64-dotprod").grid.activations == "int8"
    assert load_target("generic").ladders[Kind.CNN].with_data == (
        Scheme.INT8_WEIGHT_ONLY,
        Scheme.FLOAT32,
    )


def test_an_unknown_target_lists_the_choices() -> None:
    with pytest.raises(InputError) as caught:
        load_target("toaster")
    assert caught.value.message == "unknown target 'toaster'"
    assert caught.value.exit_code == 3
    for name in ("host", *small.TARGETS):
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
    assert target.grid == base.grid
    assert target.ladders == base.ladders
    assert target.ops == base.ops
    assert target.here == (platform.machine() == "x86_64")


def test_tables_merge_key_by_key(tmp_path: Path) -> None:
    text = (
        MY_BOARD
        + """
    [ladders.cnn]
    reason = "mine"
    [ops]
    Conv = { schemes = [], note = "broken here" }
    """
    )
    target = load_target(str(board(tmp_path / "b", text)))
    base = load_target("x86-vnni")
    assert target.ladders[Kind.CNN].reason == "mine"
    assert target.ladders[Kind.CNN].with_data == base.ladders[Kind.CNN].with_data
    assert target.ops["Conv"].schemes == frozenset()
    assert target.ops["Conv"].note == "broken here"
    assert target.ops["Add"] == base.ops["Add"]


def test_a_grid_is_replaced_as_a_whole(tmp_path: Path) -> None:
    text = MY_BOARD + '[grid]\nactivations = "int8"\n'
    with pytest.raises(InputError, match="not a sound table"):
        load_target(str(board(tmp_path / "b", text)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sumary = 'x'", "unknown key 'sumary'"),
        ("[stacks.onnxruntime]\nthreads = 3", "stacks.onnxruntime has the unknown key 'threads'"),
        ("[ladders.cnn]\nwith = []", "ladders.cnn has the unknown key 'with'"),
        ("[ladders.cnn]\nwith_data = ['int9']", "'int9' is not a valid Scheme"),
        ("[ladders.vit]\nwith_data = ['float32']", "vit"),
        ("[ops.Conv]\nscheme = ['float32']", "ops.Conv has the unknown key 'scheme'"),
        ("[ops.Conv]\nschemes = ['fast']", "'fast' is not a valid Scheme"),
        ("[ops]\nNew = { schemes = [] }", "note"),
        ("[grid]\nactivation = 'int8'", "grid has the unknown key 'activation'"),
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


@pytest.mark.parametrize("key", ["summary", "arch", "requires", "verified"])
def test_a_table_of_its_own_needs_every_key(key: str, tmp_path: Path) -> None:
    text = (module.folder("targets") / "generic" / "target.toml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} =")]
    with pytest.raises(InputError, match=key):
        load_target(str(board(tmp_path / "b", "\n".join(lines))))


@pytest.mark.parametrize("text", ["summary = ", "\xff", 'extends = "nothing"'])
def test_a_table_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "target.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"target\.toml"):
        load_target(str(folder))


def test_a_table_that_extends_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board(tmp_path / "loop", 'extends = "loop"\n')
    monkeypatch.setattr(module, "folder", lambda _: tmp_path)
    with pytest.raises(InputError):
        load_target("loop")


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", {"sse2"}, "generic"),
        ("x86_64", {"avx2"}, "x86-avx2"),
        ("x86_64", {"avx2", "avx512_vnni"}, "x86-vnni"),
        ("x86_64", {"avx2", "avx_vnni"}, "x86-vnni"),
        ("aarch64", {"asimd"}, "generic"),
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
