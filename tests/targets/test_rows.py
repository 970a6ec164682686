"""Every file of the table against the published schema; every device with every stack."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import small

from edgec.assign import assign
from edgec.data import folder
from edgec.runtime.schema import first_error
from edgec.table import FAMILIES, FILE, families, schema
from edgec.target import load_target, names, stacks
from edgec.target_view import as_json, lines
from edgec.types import Decision, Pace, Policy, Runtime, Scheme, Support, Target

FILES = sorted(
    [*folder("targets").glob(f"*/{FILE}"), *(folder("targets") / FAMILIES).glob("*.toml")]
)
ROWS = [(name, stack) for name in names() for stack in stacks(name)]
# Every device with its default stack, and one with all that a Jetson may have.
OFTEN = [(n, s) for n, s in ROWS if s == stacks(n)[0] or n == "jetson-orin"]
SELDOM = [pytest.param(*row, marks=pytest.mark.slow) for row in ROWS if row not in OFTEN]
CONFIDENCE = ("measured", "documented", "inferred")
ASKED_FOR = {
    *("jetson-nano", "jetson-xavier-nx", "jetson-agx-xavier", "jetson-orin-nano", "jetson-orin-nx"),
    *("jetson-orin", "jetson-thor", "nvidia-t4", "nvidia-l4", "rtx-30", "rtx-40", "rtx-50"),
    *("x86-avx2", "x86-avx-vnni", "x86-vnni", "x86-amx", "intel-core-ultra", "x86-sse4"),
    *("raspberry-pi-4", "raspberry-pi-5", "rk3588", "jetson-orin-cpu", "aarch64"),
}
# The hardware on which edgec itself was run; every other row says that it was not.
MEASURED = {"generic", "x86-vnni", "x86-bf16"}


def ids(path: Path) -> str:
    return path.stem if path.name != FILE else path.parent.name


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_every_file_keeps_the_published_schema(path: Path) -> None:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(table, schema())
    assert first_error(table, schema()) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"sumary": "x"},
        {"runtimes": {"a": {"max_opset": "20"}}},
        {"runtimes": {"a": {"ops": {"Conv": {"schemes": ["int9"]}}}}},
        {"hardware": {"gpu": {"dtypes": {"int8": {}}}}},
        {"hardware": {"tpu": {}}},
        {"stacks": {"s": {"runtimes": []}}},
        {"goals": {"memory_mb": 0}},
    ],
    ids=json.dumps,
)
def test_both_validators_refuse(broken: dict[str, Any]) -> None:
    assert first_error(broken, schema()) is not None
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


def test_the_devices_that_were_asked_for() -> None:
    assert set(names()) >= ASKED_FOR
    for name in ("jetson-orin", "jetson-orin-nx", "jetson-orin-nano"):
        assert set(stacks(name)) == {"jp5", "jp6.0", "jp6.2", "jp7.2", "jp7.2.2"}
    assert stacks("jetson-orin")[0] == "jp6.2"


def test_no_family_is_idle() -> None:
    named = set()
    for path in FILES:
        bases = tomllib.loads(path.read_text(encoding="utf-8")).get("extends", [])
        named |= {bases} if isinstance(bases, str) else set(bases)
    assert set(families()) <= named
    assert not set(families()) & set(names()) - {"jetson-orin"}  # a family and its largest board


def known(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of a page that has, or lacks, a source."""
    if isinstance(value, dict):
        if "source" in value or "confidence" in value:
            yield place, value
        for key, item in value.items():
            yield from known(item, f"{place}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from known(item, place)


@pytest.mark.parametrize(("name", "stack"), ROWS)
def test_everything_in_a_row_says_how_it_is_known(name: str, stack: str) -> None:
    target = load_target(name, stack)
    page = as_json(target)
    rows = dict(known(page))
    for place, row in rows.items():
        assert row["source"].strip(), place
        assert row["confidence"] in CONFIDENCE, place
    for kind in ("software", "hardware.cpu"):
        assert f".{kind}" in rows
    for runtime in (*page["runtimes"], *page["offloads"]):
        wanted = [runtime, runtime["grid"], *runtime["ladders"].values(), *runtime["ops"].values()]
        assert all(row["source"] and row["confidence"] in CONFIDENCE for row in wanted)
    if name not in MEASURED:
        assert "not verified on hardware" in target.verified
    text = "\n".join(lines(target, stacks(name)))
    assert target.verified in text
    assert all(runtime.grid.source in text for runtime in target.runtimes)
    json.dumps(page, allow_nan=False)


def missing_words(target: Target, decisions: dict[str, Decision]) -> Iterator[str]:
    for one in decisions.values():
        if not (one.reason.strip() and one.evidence.strip()):
            yield f"{one.node}: no reason or evidence"
        runtime = runtime_of(target, one)
        if one.scheme in runtime.refused:
            yield f"{one.node}: {one.scheme} is refused on {runtime.name}"


def runtime_of(target: Target, decision: Decision) -> Runtime:
    return next(
        one
        for one in target.runtimes
        if (one.backend, one.device) == (decision.backend, decision.device)
    )


@pytest.mark.parametrize(("name", "stack"), [*OFTEN, *SELDOM])
def test_the_two_tower_model_is_planned_without_a_word_missing(name: str, stack: str) -> None:
    found, target = small.fixture("clip_torchscript"), load_target(name, stack)
    plan = assign(found, small.parts("clip_torchscript"), Policy(), target, data=True)
    assert set(plan.decisions) == {str(node.name) for node in found.model.graph}
    assert list(missing_words(target, dict(plan.decisions))) == []
    for part in plan.parts:
        runtime = target.runtime(plan.runtimes[part.name])
        steps = (plan.schemes[part.name], *plan.ladders[part.name])
        assert not set(steps) & set(runtime.refused)


def test_what_hardware_lacks_is_on_no_ladder() -> None:
    lacking = 0
    for name, stack in ROWS:
        target = load_target(name, stack)
        for runtime in (*target.runtimes, *target.offloads):
            for scheme in runtime.refused:
                lacking += 1
                for ladder in runtime.ladders.values():
                    assert scheme not in (*ladder.with_data, *ladder.without_data)
    assert lacking > 10


def test_accelerators_are_where_the_stack_has_them() -> None:
    def dla(name: str, stack: str) -> tuple[str, ...]:
        return tuple(one.name for one in load_target(name, stack).offloads)

    assert dla("jetson-orin", "jp6.2") == ("tensorrt-10.3-dla",)
    assert dla("jetson-orin", "jp7.2") == ()  # TensorRT 10.8 to 11.3 have none
    assert dla("jetson-orin", "jp7.2.2") == ("tensorrt-11.4-dla",)
    assert dla("jetson-orin-nano", "jp6.2") == ()  # the board has none
    assert dla("jetson-thor", "jp7.2.2") == ()
    (one,) = load_target("jetson-orin", "jp6.2").offloads
    assert one.toolchain.quantization == ("implicit",)
    assert one.limits.loadables == 16
    assert one.static_shapes
    assert one.dtypes["float32"].speed is Pace.NONE


def test_int8_of_tensorrt_by_version() -> None:
    forms = {
        stack: load_target("jetson-orin", stack).runtimes[0].toolchain
        for stack in stacks("jetson-orin")
    }
    assert {stack: one.version for stack, one in forms.items()} == {
        "jp5": "8.5.2",
        "jp6.0": "8.6.2",
        "jp6.2": "10.3.0",
        "jp7.2": "10.16.2",
        "jp7.2.2": "11.4.1",
    }
    assert forms["jp7.2.2"].quantization == ("explicit",)
    assert forms["jp7.2.2"].strongly_typed == "always"
    assert "implicit" in forms["jp6.2"].quantization
    rtx = load_target("rtx-40").runtimes[0]
    assert (rtx.toolchain.name, rtx.toolchain.built_on) == ("tensorrt-rtx", "host")
    assert rtx.unsupported.keys() >= {"DynamicQuantizeLinear", "QLinearConv", "MatMulInteger"}
    assert rtx.ops["NonZero"].support is Support.NO
    assert rtx.grid.symmetric_activations
    assert Scheme.INT8_DYNAMIC in rtx.instead
