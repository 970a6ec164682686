"""A plan is tried and revised until every check holds; what fails for good is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from trials import (
    D,
    F,
    K,
    S,
    Script,
    W,
    artifact,
    by_scheme,
    compared,
    prepared,
    settled,
    trial,
)

from edgec.blame import Broken
from edgec.errors import EmitError
from edgec.results import Counts
from edgec.settle import MAX_REVISIONS, accept, settle
from edgec.trial import Trial
from edgec.types import Limits, Plan

# One plan


def test_a_plan_that_passes_is_tried_once() -> None:
    made, script = prepared(), by_scheme({S: (2.0, 30.0)})
    found = settled(made, script)
    assert found.plan == made.plan
    assert script.schemes == [S]


def test_a_plan_steps_down_until_it_passes_and_tells_each_step() -> None:
    said: list[str] = []
    made = prepared()
    script = by_scheme({S: (2.0, 3.0), D: (0.5, 30.0), W: (1.0, 30.0)})
    found = settle("it", made.plan, made, script, data=True, say=said.append)  # type: ignore[arg-type]
    assert script.schemes == [S, D, W]
    assert found.plan.schemes == {"model": W}
    reasons = [r.reason for r in found.plan.revisions]
    assert reasons == ["SQNR 3.0 dB is below 12 dB", "slower than its float form on this machine"]
    assert said == [
        f"model: int8_static -> int8_dynamic: {reasons[0]}",
        f"model: int8_dynamic -> int8_weight_only: {reasons[1]}",
    ]
    decided = {d.scheme for d in found.plan.decisions.values() if d.op_type == "Gemm"}
    assert decided == {W, F}


def test_where_nothing_safer_is_left_the_limit_is_named() -> None:
    script = by_scheme(dict.fromkeys((S, D, W, F), (1.0, 3.0)))
    with pytest.raises(EmitError, match=r"part model: SQNR 3\.0 dB is below 12 dB") as caught:
        settled(prepared(), script)
    assert script.schemes == [S, D, W, F]
    assert "--max-error none" in caught.value.hint


def broken_on(*runtimes: str) -> Script:
    def verdict(plan: Plan) -> Trial:
        if set(plan.runtimes.values()) & set(runtimes):
            parts = tuple(p for p, home in plan.runtimes.items() if home in runtimes)
            raise Broken(parts, EmitError("convert: crashed", hint="h", log="the log"))
        return trial(*(compared(part) for part in plan.schemes))

    return Script(verdict)


def test_a_runtime_that_breaks_gives_its_parts_to_the_spare_one() -> None:
    made = prepared("clip_torchscript", stack=None)
    assert set(made.plan.runtimes.values()) == {"openvino"}
    found = settled(made, broken_on("openvino"))
    assert set(found.plan.runtimes.values()) == {"onnxruntime"}
    assert found.plan.schemes == {"vision": S, "text": D, "fusion": F}
    assert found.plan.ladders["text"] == (W, F)
    assert {r.runtime for r in found.plan.revisions} == {"onnxruntime"}
    assert {d.backend for d in found.plan.decisions.values()} == {"onnxruntime"}
    dynamic = [d for d in found.plan.decisions.values() if d.scheme is D]
    assert dynamic
    assert all(d.part == "text" and d.smooth for d in dynamic)
    reason = "openvino: the backend failed: convert: crashed"
    assert {r.reason for r in found.plan.revisions} == {reason}


def test_a_part_that_stepped_down_starts_anew_on_the_runtime_that_it_moves_to() -> None:
    """The step was about the other runtime."""
    made = prepared("mlp", stack=None)
    ((part, _),) = made.plan.schemes.items()

    def verdict(plan: Plan) -> Trial:
        if plan.runtimes[part] == "onnxruntime":
            return trial(compared(part))
        if plan.schemes[part] is S:
            return trial(compared(part, 3.0))
        raise Broken((part,), EmitError("convert: crashed", hint="h"))

    found = settled(made, Script(verdict))
    assert [(str(r.before), str(r.after), r.runtime) for r in found.plan.revisions] == [
        ("int8_static", "int8_dynamic", ""),
        ("int8_dynamic", "int8_dynamic", "onnxruntime"),
    ]
    row = made.target.runtime("onnxruntime").ladders[made.parts[0].kind]
    assert found.plan.schemes[part] is row.with_data[0]
    products = [d for d in found.plan.decisions.values() if d.scheme is D]
    assert products
    assert {d.reason for d in products} == {row.reason}


def test_where_every_runtime_breaks_the_last_error_is_told() -> None:
    made = prepared("mlp", stack=None)
    with pytest.raises(EmitError, match="convert: crashed") as caught:
        settled(made, broken_on("openvino", "onnxruntime"))
    assert caught.value.log == "the log"


def test_a_loop_of_revisions_ends() -> None:
    made = prepared()
    node = next(n for n, d in made.plan.decisions.items() if d.scheme is S)
    script = Script(
        lambda plan: trial(
            compared("model"), artifacts=(artifact(Counts(2, 1), Counts(2, 1), (node,)),)
        )
    )
    with pytest.raises(EmitError, match="the backend runs"):
        settled(made, script)
    assert len(script.plans) <= MAX_REVISIONS + 1


# What is shipped


PLAN = prepared().plan


@pytest.mark.parametrize(
    ("optimised", "misplaced"),
    [(Counts(3, 0), ()), (Counts(2, 2), ()), (Counts(2, 1), ("node",))],
    ids=["INT8 that was not planned", "float that was not planned", "misplaced"],
)
def test_what_was_not_built_as_planned_is_refused(
    optimised: Counts, misplaced: tuple[str, ...]
) -> None:
    made = trial(artifacts=(artifact(Counts(2, 1), optimised, misplaced),))
    with pytest.raises(EmitError, match="planned 2 INT8 and 1 float weighted ops") as caught:
        accept(PLAN, made, Limits())
    assert caught.value.log == "\n".join(misplaced)
    accept(PLAN, trial(artifacts=(artifact(Counts(2, 1), Counts(2, 1)),)), Limits())
    # a backend may tell less than all: what it fused away is no contradiction
    accept(PLAN, trial(artifacts=(artifact(Counts(2, 1), Counts(1, 0)),)), Limits())


def test_what_is_kept_may_come_out_in_float() -> None:
    kept = replace(PLAN, schemes={"model": K})
    made = trial(artifacts=(artifact(Counts(2, 1), Counts(0, 3)),))
    accept(kept, made, Limits())
    with pytest.raises(EmitError):
        accept(PLAN, made, Limits())


def test_the_limits_hold_for_parts_and_outputs() -> None:
    off = trial(outputs=(compared("", cosine=0.9),))
    with pytest.raises(EmitError, match=r"output v: cosine 0\.9000 to the original is below 0\.97"):
        accept(PLAN, off, Limits())
    accept(PLAN, off, Limits(cosine=None))
    accept(PLAN, trial(compared("model", 1.0)), Limits(part_sqnr_db=None))
