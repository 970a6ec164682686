"""One cause at a time, one step down the ladder, every step remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from edgec.results import Artifact, Checks, Comparison, Counts, Speed
from edgec.revise import retreat, revise, worst
from edgec.runtime.bench import Ratio, Timing
from edgec.types import Decision, Kind, Limits, Modality, Part, Plan, RecoveryPlan, Revision, Scheme

F, S, D, W, K = (
    Scheme.FLOAT32,
    Scheme.INT8_STATIC,
    Scheme.INT8_DYNAMIC,
    Scheme.INT8_WEIGHT_ONLY,
    Scheme.KEPT,
)


def part(name: str) -> Part:
    return Part(name, Kind.CNN, Modality.VISION, (), (), (f"{name}/n",), 1, 1, "r")


def plan(**ladders: tuple[Scheme, ...]) -> Plan:
    return Plan(
        parts=tuple(part(name) for name in ladders),
        decisions={
            f"{name}/n": Decision(f"{name}/n", "Conv", name, ladder[0], "b", "cpu", "r", "e")
            for name, ladder in ladders.items()
        },
        runtimes=dict.fromkeys(ladders, "first"),
        schemes={name: ladder[0] for name, ladder in ladders.items()},
        ladders={name: ladder[1:] for name, ladder in ladders.items()},
        spares={name: {} for name in ladders},
        recovery=dict.fromkeys(ladders, RecoveryPlan()),
    )


def comparison(
    name: str, sqnr: float = 40.0, cosine: float = 0.999, value: str = "v"
) -> Comparison:
    return Comparison(name, value, 0.1, cosine, sqnr, 1.0, "none", 8)


def speed(name: str, median: float, low: float | None = None, high: float | None = None) -> Speed:
    return Speed(
        name,
        _timing(10.0),
        _timing(10.0 / median),
        Ratio(
            median=median,
            low=median - 0.02 if low is None else low,
            high=median + 0.02 if high is None else high,
        ),
    )


def _timing(milliseconds: float) -> Timing:
    return Timing(**dict.fromkeys(Timing._fields, milliseconds))  # type: ignore[arg-type]


def checks(
    parts: Sequence[Comparison] = (),
    outputs: Sequence[Comparison] = (),
    speeds: Sequence[Speed] = (),
) -> Checks:
    return Checks(tuple(parts), tuple(outputs), tuple(speeds), "8 files")


def artifact(*misplaced: str) -> Artifact:
    none = Counts(0, 0)
    return Artifact(
        "main", "b", "cpu", Path("m"), (), (), (), (), {}, none, none, none, tuple(misplaced)
    )


def test_a_plan_that_passes_stays_the_same_object() -> None:
    first = plan(a=(S, F), b=(D, W, F))
    good = checks([comparison("a"), comparison("b")], [comparison("")], [speed("a", 1.8)])
    assert revise(first, good, [artifact()], Limits()) is first


def test_a_bad_part_takes_one_step() -> None:
    first = plan(a=(S, F), b=(D, W, F))
    found = revise(first, checks([comparison("a"), comparison("b", 11.94)]), [], Limits())
    assert found.schemes == {"a": S, "b": W}
    assert found.ladders == {"a": (F,), "b": (F,)}
    assert found.revisions == (Revision("b", D, W, "SQNR 11.9 dB is below 12 dB"),)
    again = revise(found, checks([comparison("a"), comparison("b", 3.0)]), [], Limits())
    assert again.schemes == {"a": S, "b": F}
    assert again.ladders["b"] == ()
    assert [r.before for r in again.revisions] == [D, W]
    assert again.revisions[0] is found.revisions[0]
    assert revise(again, checks([comparison("b", 3.0)]), [], Limits()) is again


def test_several_bad_parts_step_together() -> None:
    found = revise(
        plan(a=(S, F), b=(D, W, F)), checks([comparison("a", 1), comparison("b", 2)]), [], Limits()
    )
    assert found.schemes == {"a": F, "b": W}
    assert [r.part for r in found.revisions] == ["a", "b"]


@pytest.mark.parametrize("sqnr", [12.0, 12.1, float("inf")])
def test_the_limit_itself_is_good_enough(sqnr: float) -> None:
    first = plan(a=(S, F))
    assert revise(first, checks([comparison("a", sqnr)]), [], Limits()) is first


def test_a_broken_part_is_reverted() -> None:
    found = revise(plan(a=(S, F)), checks([comparison("a", float("-inf"))]), [], Limits())
    assert found.schemes == {"a": F}


def test_the_worst_output_of_a_part_counts() -> None:
    both = [comparison("a", 40), comparison("a", 5, value="w"), comparison("a", 30)]
    assert worst(both) == {"a": 5}
    assert revise(plan(a=(S, F)), checks(both), [], Limits()).schemes == {"a": F}


def test_a_slow_part_is_reverted_and_its_times_stay_out_of_the_reason() -> None:
    found = revise(
        plan(a=(S, F)), checks([comparison("a")], speeds=[speed("a", 0.5)]), [], Limits()
    )
    assert found.schemes == {"a": F}
    (revision,) = found.revisions
    assert revision.reason == "slower than its float form on this machine"
    assert not any(char.isdigit() for char in revision.reason)
    assert revision.measured == "0.50x of float's speed (0.48 to 0.52)"


@pytest.mark.parametrize(
    "measured",
    [
        speed("a", 1.5),
        speed("a", 0.96, 0.9, 0.99),
        speed("a", 0.9, 0.7, 1.1),
        speed("a", 1.0, 0.9, 1.1),
    ],
    ids=["faster", "within the margin", "within the noise", "equal"],
)
def test_a_part_that_is_not_clearly_slower_stays(measured: Speed) -> None:
    first = plan(a=(S, F))
    assert revise(first, checks([comparison("a")], speeds=[measured]), [], Limits()) is first


def test_a_tenth_of_a_millisecond_is_no_reason() -> None:
    first = plan(a=(S, F))
    ratio = Ratio(median=0.5, low=0.45, high=0.55)
    for built, stays in ((0.19, True), (0.21, False)):
        tiny = Speed("a", _timing(0.1), _timing(built), ratio)
        found = revise(first, checks([comparison("a")], speeds=[tiny]), [], Limits())
        assert (found is first) == stays


def test_error_before_speed() -> None:
    both = checks([comparison("a", 3), comparison("b")], speeds=[speed("b", 0.3)])
    found = revise(plan(a=(S, F), b=(D, F)), both, [], Limits())
    assert found.schemes == {"a": F, "b": D}
    assert found.revisions[0].reason.startswith("SQNR")


def test_end_to_end_the_part_with_the_lowest_sqnr_gives_way() -> None:
    found = revise(
        plan(a=(S, F), b=(D, W, F)),
        checks(
            [comparison("a", 20), comparison("b", 14)],
            [comparison("", cosine=0.9612, value="y"), comparison("", cosine=0.5, value="z")],
        ),
        [],
        Limits(),
    )
    assert found.schemes == {"a": S, "b": W}
    assert found.revisions[0].reason == (
        "output z has cosine 0.5000 end to end, below 0.97, and this part has the lowest "
        "SQNR (14.0 dB)"
    )


def test_end_to_end_a_part_that_cannot_step_is_passed_over() -> None:
    bad = checks([comparison("a", 20), comparison("b", 1)], [comparison("", cosine=0.1)])
    limits = Limits(part_sqnr_db=None)
    found = revise(plan(a=(S, F), b=(F,)), bad, [], limits)
    assert found.schemes == {"a": F, "b": F}
    nothing = plan(a=(F,), b=(K,))
    assert revise(nothing, bad, [], limits) is nothing


@pytest.mark.parametrize("scheme", [F, K])
def test_what_is_float_or_kept_is_left_alone(scheme: Scheme) -> None:
    first = replace(plan(a=(scheme,)), ladders={"a": (F,)})
    bad = checks([comparison("a", 1)], [comparison("", cosine=0)], [speed("a", 0.1)])
    assert revise(first, bad, [], Limits()) is first


def test_limits_that_are_switched_off() -> None:
    first = plan(a=(S, F))
    bad = checks([comparison("a", 1)], [comparison("", cosine=0.1)])
    assert revise(first, bad, [], Limits(part_sqnr_db=None, cosine=None)) is first
    assert (
        revise(first, bad, [], Limits(part_sqnr_db=None)).revisions[0].reason.startswith("output")
    )
    assert revise(first, bad, [], Limits(cosine=None)).revisions[0].reason.startswith("SQNR")
    slow = checks([comparison("a", 1)], speeds=[speed("a", 0.1)])
    off = revise(first, slow, [], Limits(part_sqnr_db=None, cosine=None))
    assert off.revisions[0].reason.startswith("slower")


def test_what_the_backend_disobeys_is_pinned_first() -> None:
    first = plan(a=(S, F), b=(D, F))
    found = revise(first, checks([comparison("b", 1)]), [artifact("a/n")], Limits())
    assert found.schemes == first.schemes
    reason = "the backend has no INT8 kernel for it: its optimised graph kept it in float"
    assert found.pinned == {"a/n": reason}
    assert found.revisions == (Revision("a", S, F, reason, ("a/n",)),)
    assert found.ladders == first.ladders


def test_pinned_nodes_add_up() -> None:
    first = replace(plan(a=(S, F), b=(D, F)), pinned={"a/n": "before"})
    found = revise(first, checks(), [artifact("b/n")], Limits())
    assert set(found.pinned) == {"a/n", "b/n"}
    assert found.pinned["a/n"] == "before"


def test_what_came_out_int8_against_the_plan_is_not_mended_by_a_plan() -> None:
    first = replace(plan(a=(F,)), ladders={"a": ()})
    assert revise(first, checks(), [artifact("a/n")], Limits()) == first


def test_an_engine_that_breaks_takes_its_parts_one_step_back() -> None:
    first = plan(a=(S, F), b=(D, W, F), c=(K,), d=(F,), e=(S, F))
    found = retreat(first, ["a", "b", "c", "d"], "audit: bad node in /tmp/edgec-1/main.onnx")
    assert found.schemes == {"a": F, "b": W, "c": K, "d": F, "e": S}
    assert [r.part for r in found.revisions] == ["a", "b"]
    assert {r.reason for r in found.revisions} == {"the backend failed: audit: bad node in …"}


def test_an_engine_that_breaks_in_float_has_no_way_back() -> None:
    first = plan(a=(F,), b=(K,))
    assert retreat(first, ["a", "b"], "audit: refused") is first


def test_an_engine_that_breaks_moves_to_a_spare_runtime_and_its_ladder() -> None:
    first = replace(
        plan(a=(S, D, F), b=(D, W, F)),
        spares={"a": {"second": (D, F), "third": (F,)}, "b": {}},
    )
    found = retreat(first, ["a", "b"], "convert: crashed")
    assert found.runtimes == {"a": "second", "b": "first"}
    assert found.schemes == {"a": D, "b": W}
    assert found.ladders == {"a": (F,), "b": (F,)}
    assert found.spares == {"a": {"third": (F,)}, "b": {}}
    moved, stepped = found.revisions
    assert moved == Revision(
        "a", S, D, "first: the backend failed: convert: crashed", runtime="second"
    )
    assert stepped == Revision("b", D, W, "the backend failed: convert: crashed")
    again = retreat(found, ["a"], "convert: crashed")
    assert (again.runtimes["a"], again.schemes["a"], again.ladders["a"]) == ("third", F, ())
    assert again.revisions[-1].reason.startswith("second: the backend failed")
    assert retreat(again, ["a"], "convert: crashed") is again


def test_a_part_in_float_or_kept_can_move_too() -> None:
    spares = {"second": (F,)}
    first = replace(plan(a=(F,), b=(K,)), spares={"a": spares, "b": {"second": (K,)}})
    found = retreat(first, ["a", "b"], "refused")
    assert found.runtimes == {"a": "second", "b": "second"}
    assert found.schemes == {"a": F, "b": K}


def test_a_step_down_stays_on_its_runtime() -> None:
    first = replace(plan(a=(S, F)), spares={"a": {"second": (S, F)}})
    found = revise(first, checks([comparison("a", 3.0)]), [], Limits())
    assert found.runtimes == {"a": "first"}
    assert found.schemes == {"a": F}
    assert found.spares == first.spares
    assert found.revisions[0].runtime == ""


def test_what_the_old_runtime_disobeyed_is_forgotten() -> None:
    first = replace(
        plan(a=(S, F), b=(S, F)),
        pinned={"a/n": "no kernel", "b/n": "no kernel"},
        spares={"a": {"second": (S, F)}, "b": {}},
    )
    assert retreat(first, ["a"], "crashed").pinned == {"b/n": "no kernel"}


def test_what_is_wrong_and_has_no_safer_scheme_moves() -> None:
    first = replace(plan(a=(K,), b=(F,)), spares={"a": {"second": (K,)}, "b": {}})
    found = revise(first, checks([comparison("a", 3.0), comparison("b", 3.0)]), [], Limits())
    assert found.runtimes == {"a": "second", "b": "first"}
    (revision,) = found.revisions
    assert revision == Revision("a", K, K, "first: SQNR 3.0 dB is below 12 dB", runtime="second")
    far = checks([comparison("a", 13.0), comparison("b", 13.0)], [comparison("", cosine=0.5)])
    drifted = revise(first, far, [], Limits())
    assert drifted.runtimes == {"a": "second", "b": "first"}
    assert drifted.revisions[0].reason.startswith("first: output v has cosine 0.5000 end to end")
    # a safer scheme comes first
    both = replace(plan(a=(S, F)), spares={"a": {"second": (S, F)}})
    stepped = revise(both, checks([comparison("a", 3.0)]), [], Limits())
    assert (stepped.runtimes, stepped.schemes) == ({"a": "first"}, {"a": F})
