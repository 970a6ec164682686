"""Each part goes where it may run and is likely, or was measured, to run fastest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import graphs
import pytest
import small

from edgec.assign import assign
from edgec.build import Job, prepare
from edgec.canonicalise import canonicalise
from edgec.errors import UnsupportedError
from edgec.load import load
from edgec.policy import load_policy
from edgec.results import Speed
from edgec.route import GAIN, MUCH, allowed, alone, likely, mixed
from edgec.runtime.bench import Ratio, Timing
from edgec.target import load_target
from edgec.types import Graph, Kind, Override, Part, Policy, Range, Runtime, Scheme, Target

NAME = "clip_torchscript"
PARTS = {part.name: part for part in small.parts(NAME)}
S, D, F = Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC, Scheme.FLOAT32


def runtime(name: str, speeds: Mapping[Kind, float], **changed: object) -> Runtime:
    """A runtime that is expected to reach `speeds`, with data or without."""
    base = load_target("x86-vnni").runtime("openvino")
    ladders = dict(base.ladders)
    for kind, times in speeds.items():
        row = ladders[kind]
        firsts = {row.with_data[0]: times, row.without_data[0]: times}
        ladders[kind] = replace(row, speed=firsts)
    return replace(base, name=name, ladders=ladders, **changed)  # type: ignore[arg-type]


def target(*runtimes: Runtime) -> Target:
    return replace(load_target("x86-vnni"), runtimes=runtimes)


def pinned(**runtimes: str) -> Policy:
    wishes = tuple(Override(part, runtime=name) for part, name in runtimes.items())
    return Policy(parts=wishes, source="mine.toml")


def routes(row: Target, policy: Policy | None = None, *, data: bool = True) -> Mapping[str, str]:
    found = small.fixture(NAME)
    return likely(small.parts(NAME), found, policy or Policy(), row, data=data)


def test_the_fixture_is_what_the_tests_take_it_for() -> None:
    assert {name: part.kind for name, part in PARTS.items()} == {
        "vision": Kind.CNN,
        "text": Kind.TRANSFORMER,
        "fusion": Kind.FUSION,
    }
    assert PARTS["vision"].macs
    assert PARTS["text"].macs
    assert not PARTS["fusion"].macs


# By the table


def test_a_row_with_one_runtime_leaves_no_choice() -> None:
    assert set(routes(small.target("generic")).values()) == {"onnxruntime"}


def test_all_parts_stay_together_where_nothing_promises_much() -> None:
    almost = runtime("a", {Kind.CNN: 2.0, Kind.TRANSFORMER: 2.0})
    better = runtime("b", {Kind.CNN: 2.0 * 0.99 * MUCH, Kind.TRANSFORMER: 0.5})
    light = replace(PARTS["vision"], macs=1)
    found = likely(
        (light, PARTS["text"], PARTS["fusion"]),
        small.fixture(NAME),
        Policy(),
        target(almost, better),
        data=True,
    )
    assert found == {"vision": "a", "text": "a", "fusion": "a"}


def test_a_part_that_another_runtime_promises_much_for_goes_there() -> None:
    vision = runtime("v", {Kind.CNN: 3.0, Kind.TRANSFORMER: 1.0})
    text = runtime("t", {Kind.CNN: 3.0 / MUCH, Kind.TRANSFORMER: MUCH})
    for row in (target(vision, text), target(text, vision)):
        found = routes(row)
        assert (found["vision"], found["text"]) == ("v", "t")
        # what has no products stays with most of the work
        heavier = max(("vision", "text"), key=lambda name: PARTS[name].macs)
        assert found["fusion"] == found[heavier]


def test_the_runtime_with_the_least_time_in_all_is_common() -> None:
    slow = runtime("a", {Kind.CNN: 1.0, Kind.TRANSFORMER: 1.0})
    fast = runtime("b", {Kind.CNN: 1.2, Kind.TRANSFORMER: 1.2})
    assert set(routes(target(slow, fast)).values()) == {"b"}
    assert set(routes(target(slow, replace(slow, name="b"))).values()) == {"a"}


def test_without_data_the_schemes_without_data_count() -> None:
    base = load_target("x86-vnni").runtime("openvino")
    row = base.ladders[Kind.CNN]
    with_data = replace(row, speed={row.with_data[0]: 9.0, row.without_data[0]: 1.0})
    first = replace(base, name="a", ladders={**base.ladders, Kind.CNN: with_data})
    even = replace(row, speed={row.with_data[0]: 2.0, row.without_data[0]: 2.0})
    second = replace(base, name="b", ladders={**base.ladders, Kind.CNN: even})
    assert routes(target(first, second))["vision"] == "a"
    assert routes(target(first, second), data=False)["vision"] == "b"


def test_a_plan_has_the_ladders_of_its_runtimes_and_keeps_the_others_to_spare() -> None:
    found, row = small.fixture(NAME), load_target("x86-vnni")
    chosen = {"vision": "onnxruntime", "text": "openvino", "fusion": "onnxruntime"}
    plan = assign(found, small.parts(NAME), Policy(), row, data=True, routes=chosen)
    assert plan.runtimes == chosen
    for part, home in chosen.items():
        kind = PARTS[part].kind
        own = row.runtime(home).ladders[kind].with_data
        (other,) = {one.name for one in row.runtimes} - {home}
        assert (plan.schemes[part], *plan.ladders[part]) == own
        assert plan.spares[part] == {other: row.runtime(other).ladders[kind].with_data}
        homes = {(d.backend, d.device) for d in plan.decisions.values() if d.part == part}
        assert homes == {(row.runtime(home).backend, "cpu")}


# What a policy and a device allow


def test_a_policy_chooses_a_runtime_per_part() -> None:
    row = load_target("x86-vnni")
    found = routes(row, pinned(text="onnxruntime"))
    assert found["text"] == "onnxruntime"
    assert found["vision"] == routes(row)["vision"]
    exact_first = pinned(**{"*": "openvino", "vision": "onnxruntime"})
    assert routes(row, exact_first) == {
        "vision": "onnxruntime",
        "text": "openvino",
        "fusion": "openvino",
    }


def test_a_policy_file_may_name_a_runtime(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[parts.text]\nruntime = "onnxruntime"\n[parts."*"]\nruntime = "openvino"\n')
    prepared = prepare(Job(graphs.path(NAME), target="x86-vnni", policy=path))
    assert prepared.plan.runtimes == {
        "vision": "openvino",
        "text": "onnxruntime",
        "fusion": "openvino",
    }
    assert all(spares == {} for spares in prepared.plan.spares.values())
    assert load_policy(path).parts[0] == Override("text", runtime="onnxruntime")


def test_a_runtime_that_the_target_lacks() -> None:
    with pytest.raises(UnsupportedError) as caught:
        routes(load_target("x86-vnni"), pinned(text="tensorrt"))
    assert caught.value.message == (
        "policy mine.toml: part text is to run on tensorrt, which x86-vnni with stack "
        "onnxruntime+openvino does not have"
    )
    assert caught.value.hint == "it has onnxruntime, openvino"
    assert caught.value.exit_code == 4


def fixed(**shapes: tuple[Range, ...]) -> tuple[Graph, Part]:
    found = canonicalise(load(graphs.path("cnn")), shapes)
    (part,) = small.partition(found)
    return found, part


NPU = runtime("npu", {}, device="npu", static_shapes=True)
CPU = runtime("cpu", {})


def test_fixed_shapes_only_names_the_dimension_and_the_remedy() -> None:
    found, part = fixed()
    with pytest.raises(UnsupportedError) as caught:
        allowed(part, found, Policy(), target(NPU))
    assert caught.value.message == (
        f"part {part.name}: npu takes fixed shapes only, and {part.inputs[0]}[0] is symbolic"
    )
    assert "--shape" in caught.value.hint
    assert caught.value.exit_code == 4


def test_what_takes_symbolic_shapes_is_left() -> None:
    found, part = fixed()
    assert allowed(part, found, Policy(), target(NPU, CPU)) == (CPU,)
    assert alone("npu", [part], found, Policy(), target(NPU, CPU)) == {part.name: "cpu"}
    assert likely([part], found, Policy(), target(NPU, CPU), data=True) == {part.name: "cpu"}
    with pytest.raises(UnsupportedError, match=r"npu takes fixed shapes only"):
        allowed(part, found, pinned(**{part.name: "npu"}), target(NPU, CPU))


def test_a_fixed_shape_opens_it() -> None:
    name = small.parts("cnn")[0].inputs[0]
    rank = len(small.fixture("cnn").model.graph.inputs[0].shape or ())
    sizes = tuple(Range(n, n) for n in (1, 3, 32, 32)[:rank])
    found, part = fixed(**{name: sizes})
    assert allowed(part, found, Policy(), target(NPU, CPU)) == (NPU, CPU)
    loose = (Range(1, 2), *sizes[1:])
    found, part = fixed(**{name: loose})
    assert allowed(part, found, Policy(), target(NPU, CPU)) == (CPU,)


def test_a_value_between_parts_may_be_the_symbolic_one() -> None:
    found = small.fixture(NAME)
    fusion = PARTS["fusion"]
    with pytest.raises(
        UnsupportedError, match=r"part fusion: npu takes fixed shapes only"
    ) as caught:
        allowed(fusion, found, Policy(), target(NPU))
    assert any(f"{name}[" in caught.value.message for name in fusion.inputs)


def test_an_unknown_shape_is_not_a_fixed_one() -> None:
    made = small.model("g (float[2,4] x) => (float[2,4] y) { a = Relu (x)\n y = Neg (a) }")
    found = small.canonical(made)
    (part,) = small.partition(found)
    assert allowed(part, found, Policy(), target(NPU, CPU)) == (NPU, CPU)
    found.model.graph.inputs[0].shape = None
    assert allowed(part, found, Policy(), target(NPU, CPU)) == (CPU,)
    with pytest.raises(UnsupportedError, match=r"fixed shapes only, and the shape of x is unknown"):
        allowed(part, found, Policy(), target(NPU))


# Alone, and mixed


def test_alone_keeps_to_the_policy() -> None:
    found, row = small.fixture(NAME), load_target("x86-vnni")
    parts = small.parts(NAME)
    assert alone("openvino", parts, found, Policy(), row) == dict.fromkeys(PARTS, "openvino")
    assert alone("openvino", parts, found, pinned(text="onnxruntime"), row) == {
        "vision": "openvino",
        "text": "onnxruntime",
        "fusion": "openvino",
    }


def measured(**gains: float) -> list[Speed]:
    timing = Timing(**dict.fromkeys(Timing._fields, 1.0))  # type: ignore[arg-type]
    return [Speed(part, timing, timing, Ratio(gain, gain, gain)) for part, gain in gains.items()]


def everywhere(name: str) -> Mapping[str, str]:
    return dict.fromkeys(PARTS, name)


def test_each_part_goes_where_it_was_measured_clearly_faster() -> None:
    parts = small.parts(NAME)
    found = {
        "onnxruntime": measured(vision=3.0, text=1.5),
        "openvino": measured(vision=2.0, text=1.5 * GAIN * 1.01),
    }
    assert mixed(parts, everywhere("onnxruntime"), found) == {
        "vision": "onnxruntime",
        "text": "openvino",
        "fusion": "onnxruntime",
    }
    assert mixed(parts, everywhere("openvino"), found) == {
        "vision": "onnxruntime",
        "text": "openvino",
        "fusion": "openvino",
    }


def test_within_the_margin_nothing_is_cut() -> None:
    found = {
        "onnxruntime": measured(vision=2.0, text=2.0),
        "openvino": measured(vision=2.0 * GAIN * 0.99, text=1.0),
    }
    home = everywhere("onnxruntime")
    assert mixed(small.parts(NAME), home, found) == home


def test_what_was_not_measured_stays_where_it_was() -> None:
    home = {**everywhere("openvino"), "fusion": "onnxruntime"}
    assert mixed(small.parts(NAME), home, {"onnxruntime": []}) == home
    found = {"onnxruntime": measured(vision=2.0), "openvino": []}
    assert mixed(small.parts(NAME), home, found) == {**home, "vision": "onnxruntime"}
