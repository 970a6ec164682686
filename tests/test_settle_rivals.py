"""Of schemes that the table calls about as fast, and of whole plans, the better one is taken."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from trials import (
    D,
    F,
    S,
    Script,
    W,
    by_scheme,
    compared,
    improved,
    prepared,
    silent,
    speed,
    trial,
)

from edgec.blame import Broken
from edgec.errors import EmitError
from edgec.results import Contender
from edgec.runtime.bench import Ratio
from edgec.settle import CLOSE, Settled, choose, contenders, exactness, no_better, plainest
from edgec.trial import Prepared, Trial
from edgec.types import Override, Plan, Policy

PLAN = prepared().plan
SLOWER_AS_A_WHOLE = "slower than its source in FP32 as a whole model"

# Rivals


def test_a_rival_as_fast_and_more_exact_is_taken() -> None:
    made = prepared()
    script = by_scheme({S: (2.0, 20.0), D: (2.0 * CLOSE + 0.001, 35.0)})
    found = improved(made, script)
    assert script.schemes == [S, D]  # the table expects much less of the others
    assert found.plan.schemes == {"model": D}
    assert found.plan.ladders == {"model": (W, F)}
    assert found.plan.revisions[-1].reason == ("as fast on this machine or faster, and more exact")


def test_a_rival_that_is_clearly_faster_is_taken() -> None:
    script = by_scheme({S: (2.0, 35.0), D: (2.0 / CLOSE + 0.01, 20.0)})
    assert improved(prepared(), script).plan.schemes == {"model": D}


@pytest.mark.parametrize(
    ("gain", "sqnr"),
    [(2.0 * CLOSE - 0.01, 35.0), (2.0, 20.0), (2.0, 19.0)],
    ids=["slower", "as exact", "less exact"],
)
def test_a_rival_that_is_no_better_is_left(gain: float, sqnr: float) -> None:
    made = prepared()
    script = by_scheme({S: (2.0, 20.0), D: (gain, sqnr)})
    found = improved(made, script)
    assert script.schemes == [S, D]
    assert found.plan == made.plan


def test_a_rival_that_fails_its_own_checks_is_left() -> None:
    def verdict(plan: Plan) -> Trial:
        if plan.schemes["model"] is D:
            raise Broken(("model",), EmitError("convert: crashed", hint="h"))
        return trial(compared("model", 20.0), speeds=(speed("model", 2.0),))

    assert improved(prepared(), Script(verdict)).plan.schemes == {"model": S}


def test_what_the_policy_states_has_no_rival() -> None:
    made = prepared()
    figures = {S: (2.0, 20.0), D: (9.0, 60.0)}
    for policy in (
        Policy(parts=(Override("*", S),)),
        Policy(ops=(Override("Softmax", F),)),
        Policy(nodes=(Override("node_Gemm_14", F),)),
    ):
        script = by_scheme(figures)
        assert improved(replace(made, policy=policy), script).plan.schemes == {"model": S}
        assert script.schemes == [S]
    only_method = Policy(parts=(Override("*", runtime="openvino"),))
    assert improved(replace(made, policy=only_method), by_scheme(figures)).plan.schemes == {
        "model": D
    }


# Whole plans


def contender(name: str, gain: float | None, sqnr: float = 20.0) -> Contender:
    return Contender(name, {}, None if gain is None else speed(name, gain), sqnr, "")


def chosen(*raced: Contender) -> str:
    found = [Settled(one.name, PLAN, trial()) for one in raced]
    return choose(found, raced).name


def test_the_fastest_whole_plan_is_chosen() -> None:
    assert chosen(contender("a", 1.5), contender("b", 2.5), contender("c", 2.0, 99.0)) == "b"


def test_of_plans_that_are_nearly_as_fast_the_more_exact_is_chosen() -> None:
    assert chosen(contender("a", 2.5, 20.0), contender("b", 2.5 * CLOSE + 0.001, 30.0)) == "b"
    assert chosen(contender("a", 2.5, 20.0), contender("b", 2.5 * CLOSE - 0.01, 30.0)) == "a"
    assert chosen(contender("a", 2.5, 20.0), contender("b", 2.5, 20.0)) == "a"
    assert chosen(contender("a", None, 99.0), contender("b", 1.0, 20.0)) == "b"
    assert chosen(contender("a", 1.0, np.inf), contender("b", 1.0, 20.0)) == "a"


def test_a_plan_is_as_exact_as_its_worst_part() -> None:
    assert exactness(trial(compared("a", 30.0), compared("b", 20.0), compared("b", 40.0))) == 20.0
    assert exactness(trial(outputs=(compared("", 33.0), compared("", 44.0)))) == 33.0
    assert exactness(trial()) == np.inf


def test_slower_than_the_source_means_every_plan_beyond_the_noise() -> None:
    assert no_better([contender("a", 0.5), contender("b", 0.9)]) == SLOWER_AS_A_WHOLE
    assert no_better([contender("a", 0.5), contender("b", None)]) == SLOWER_AS_A_WHOLE
    assert not no_better([contender("a", 0.5), contender("b", 1.2)])
    assert not no_better([contender("a", 0.96)])
    wide = Contender("a", {}, replace(speed("a", 0.5), gain=Ratio(0.5, 0.2, 1.1)), 20.0, "")
    assert not no_better([wide])


def test_where_every_whole_plan_fails_the_failure_is_told() -> None:
    raced = [Contender(name, {}, None, 20.0, f"{name} crashed") for name in ("a", "b")]
    assert no_better(raced) == "a crashed"
    with pytest.raises(EmitError, match="a crashed"):
        chosen(*raced)


def test_the_plainest_plan_has_every_part_on_its_safest_scheme() -> None:
    made = prepared("clip_torchscript")
    plain = plainest(made, made.plan, "why", data=True)
    assert set(plain.schemes.values()) == {F}
    assert {r.part: (r.before, r.after) for r in plain.revisions} == {
        "vision": (S, F),
        "text": (S, F),
    }
    assert {r.reason for r in plain.revisions} == {"why"}
    assert {d.scheme for d in plain.decisions.values()} == {F}
    assert not any(plain.ladders.values())


# All plans of one target


def both(**gains: float) -> Script:
    """Each part as fast as `gains` says of the runtime that it is on."""

    def verdict(plan: Plan) -> Trial:
        parts = [one.name for one in plan.parts if one.macs]
        speeds = tuple(speed(part, gains[plan.runtimes[part]]) for part in parts)
        return trial(*(compared(part) for part in plan.schemes), speeds=speeds)

    return Script(verdict)


def tried(made: Prepared, script: Script) -> tuple[list[Settled], list[Contender]]:
    return contenders(made, script, data=True, say=silent)  # type: ignore[arg-type]


def test_each_runtime_is_tried_alone_and_a_mix_that_is_neither() -> None:
    made = prepared("clip_torchscript", stack=None)

    def verdict(plan: Plan) -> Trial:
        fast = {"vision": "onnxruntime", "text": "openvino"}
        speeds = [speed(p, 3.0 if plan.runtimes[p] == home else 1.0) for p, home in fast.items()]
        return trial(*(compared(part) for part in plan.schemes), speeds=tuple(speeds))

    found, failed = tried(made, Script(verdict))
    assert failed == []
    assert [one.name for one in found] == ["onnxruntime", "openvino", "mixed"]
    assert set(found[0].plan.runtimes.values()) == {"onnxruntime"}
    assert set(found[1].plan.runtimes.values()) == {"openvino"}
    mix = found[2].plan.runtimes
    assert (mix["vision"], mix["text"]) == ("onnxruntime", "openvino")


def test_a_mix_that_is_one_of_the_runtimes_is_not_tried_again() -> None:
    made = prepared("clip_torchscript", stack=None)
    found, _ = tried(made, both(onnxruntime=3.0, openvino=1.0))
    assert [one.name for one in found] == ["onnxruntime", "openvino"]


def test_a_runtime_that_cannot_be_settled_is_told_and_left_out() -> None:
    made = prepared("mlp", stack=None, backend=None)

    def verdict(plan: Plan) -> Trial:
        if plan.runtimes["model"] == "openvino":
            raise EmitError("compare_parts: the backend's process crashed (SIGSEGV)", hint="h")
        return trial(compared("model"), speeds=(speed("model", 1.0),))

    found, failed = tried(made, Script(verdict))
    assert [one.name for one in found] == ["onnxruntime"]
    (one,) = failed
    assert (one.name, one.runtimes, one.speed) == ("openvino", {"model": "openvino"}, None)
    assert one.failure == "compare_parts: the backend's process crashed (SIGSEGV)"


def test_where_no_runtime_can_be_settled_the_first_failure_is_raised() -> None:
    def verdict(plan: Plan) -> Trial:
        raise EmitError(f"broken on {plan.runtimes['model']}", hint="h")

    with pytest.raises(EmitError, match="broken on onnxruntime"):
        tried(prepared("mlp", stack=None), Script(verdict))


@pytest.mark.parametrize("part", ["vision", "fusion"])
def test_no_plan_leaves_the_runtime_that_the_policy_states(part: str) -> None:
    policy = Policy(parts=(Override(part, runtime="openvino"),))
    made = replace(prepared("clip_torchscript", stack=None), policy=policy)
    found, failed = tried(made, both(onnxruntime=3.0, openvino=1.0))
    assert failed == []
    assert {one.plan.runtimes[part] for one in found} == {"openvino"}
    assert "onnxruntime" in found[0].plan.runtimes.values()


def test_a_part_that_moved_was_measured_where_it_moved_to() -> None:
    """Its figure says nothing of the runtime that it left, which a mix must not go back to."""
    made = prepared("clip_torchscript", stack=None)

    def verdict(plan: Plan) -> Trial:
        if plan.runtimes["vision"] == "openvino":
            raise Broken(("vision",), EmitError("convert: crashed", hint="h"))
        # where the vision tower moved to, it happens to be measured a little faster
        gain = 3.0 if plan.runtimes["text"] == "openvino" else 2.0
        speeds = (speed("vision", gain), speed("text", gain))
        return trial(*(compared(p) for p in plan.schemes), speeds=speeds)

    found, _ = tried(made, Script(verdict))
    assert [one.name for one in found] == ["onnxruntime", "openvino"]
    assert {one.plan.runtimes["vision"] for one in found} == {"onnxruntime"}
