"""Stage 12: what fails a check goes to the next safer scheme, and the plan remembers why.

Reasons never hold a time, so that two builds that decide alike are alike byte by byte; the
measurement itself stands in the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgec.results import Artifact, Checks, Comparison, Speed
from edgec.types import Limits, Plan, Revision, Scheme

SLOWER = 0.95  # of float's speed, below which a part has come out slower beyond the noise
SLOWER_MS = 0.1  # and by how much: two processes of one model differ by less
UNCHANGED = (Scheme.FLOAT32, Scheme.BFLOAT16, Scheme.FLOAT16, Scheme.KEPT)


def revise(plan: Plan, checks: Checks, artifacts: Sequence[Artifact], limits: Limits) -> Plan:
    """The same plan where every check holds; else one with safer schemes and new revisions.

    One cause at a time: a backend that disobeys, then a part's error, its speed, the whole.
    """
    pinned = _disobeyed(plan, artifacts)
    if pinned:
        return replace(
            plan,
            pinned={**plan.pinned, **{node: r.reason for r in pinned for node in r.nodes}},
            revisions=(*plan.revisions, *pinned),
        )
    found = _inaccurate(plan, checks.parts, limits) or _slow(plan, checks.speeds)
    found = found or _drifted(plan, checks, limits)
    return _stepped(plan, found)


def retreat(plan: Plan, parts: Sequence[str], message: str) -> Plan:
    """The same plan with every part of a broken engine on another runtime, where there is one.

    Else each goes to its next safer scheme. The plan itself where none of them can step. Paths are
    left out of the reason.
    """
    reason = "the backend failed: " + re.sub(r"\S*/\S+", "…", message)[:300]
    found = []
    for part in parts:
        if plan.spares[part]:
            found.append(_move(plan, part, f"{plan.runtimes[part]}: {reason}"))
        elif _can_step(plan, part):
            found.append(_step(plan, part, reason))
    return _stepped(plan, found)


def worst(comparisons: Sequence[Comparison]) -> Mapping[str, float]:
    """The lowest SQNR of any output, per part."""
    found: dict[str, float] = {}
    for one in comparisons:
        found[one.part] = min(found.get(one.part, one.sqnr_db), one.sqnr_db)
    return found


def _stepped(plan: Plan, found: Sequence[Revision]) -> Plan:
    if not found:
        return plan
    schemes, ladders = dict(plan.schemes), dict(plan.ladders)
    runtimes, spares, pinned = dict(plan.runtimes), dict(plan.spares), dict(plan.pinned)
    nodes = {part.name: part.nodes for part in plan.parts}
    for revision in found:
        schemes[revision.part] = revision.after
        if revision.runtime:
            left = dict(plan.spares[revision.part])
            runtimes[revision.part] = revision.runtime
            ladders[revision.part] = left.pop(revision.runtime)[1:]
            spares[revision.part] = left
            for node in nodes.get(revision.part, ()):
                pinned.pop(node, None)  # the other runtime may have a kernel for it
        else:
            ladders[revision.part] = plan.ladders[revision.part][1:]
    return replace(
        plan,
        runtimes=runtimes,
        spares=spares,
        schemes=schemes,
        ladders=ladders,
        pinned=pinned,
        revisions=(*plan.revisions, *found),
    )


def _disobeyed(plan: Plan, artifacts: Sequence[Artifact]) -> list[Revision]:
    by_part: dict[tuple[str, Scheme], list[str]] = {}
    for artifact in artifacts:
        for node in artifact.misplaced:
            decision = plan.decisions[node]
            if decision.scheme in UNCHANGED:
                continue  # to be float and came out INT8: no plan mends that, and none is accepted
            by_part.setdefault((decision.part, decision.scheme), []).append(node)
    return [
        Revision(
            part=part,
            before=scheme,
            after=Scheme.FLOAT32,
            reason="the backend has no INT8 kernel for it: its optimised graph kept it in float",
            nodes=tuple(nodes),
        )
        for (part, scheme), nodes in by_part.items()
    ]


def _inaccurate(plan: Plan, parts: Sequence[Comparison], limits: Limits) -> list[Revision]:
    if limits.part_sqnr_db is None:
        return []
    return [
        _safer(plan, part, f"SQNR {sqnr:.1f} dB is below {limits.part_sqnr_db:g} dB")
        for part, sqnr in worst(parts).items()
        if sqnr < limits.part_sqnr_db and (_can_step(plan, part) or plan.spares[part])
    ]


def _slow(plan: Plan, speeds: Sequence[Speed]) -> list[Revision]:
    return [
        _step(
            plan,
            speed.part,
            "slower than its float form on this machine",
            f"{speed.gain.median:.2f}x of float's speed "
            f"({speed.gain.low:.2f} to {speed.gain.high:.2f})",
        )
        for speed in speeds
        if _is_slower(speed) and _can_step(plan, speed.part)
    ]


def _is_slower(speed: Speed) -> bool:
    ratio = speed.gain.median < SLOWER and speed.gain.high < 1
    return ratio and speed.built.p50 - speed.float_form.p50 > SLOWER_MS


def _drifted(plan: Plan, checks: Checks, limits: Limits) -> list[Revision]:
    """End to end too far off: the part with the lowest SQNR gives way."""
    if limits.cosine is None:
        return []
    bad = [one for one in checks.outputs if one.cosine < limits.cosine]
    errors = worst(checks.parts)
    candidates = {p: db for p, db in errors.items() if _can_step(plan, p)}
    candidates = candidates or {p: db for p, db in errors.items() if plan.spares[p]}
    if not bad or not candidates:
        return []
    part = min(candidates, key=lambda name: candidates[name])
    lowest = min(bad, key=lambda one: one.cosine)
    return [
        _safer(
            plan,
            part,
            f"output {lowest.value} has cosine {lowest.cosine:.4f} end to end, below "
            f"{limits.cosine:g}, and this part has the lowest SQNR ({candidates[part]:.1f} dB)",
        )
    ]


def _can_step(plan: Plan, part: str) -> bool:
    last = plan.schemes[part] in (Scheme.FLOAT32, Scheme.KEPT)
    return not last and bool(plan.ladders[part])


def _safer(plan: Plan, part: str, reason: str) -> Revision:
    """The next safer scheme, or, where there is none, another runtime."""
    if _can_step(plan, part):
        return _step(plan, part, reason)
    return _move(plan, part, f"{plan.runtimes[part]}: {reason}")


def _move(plan: Plan, part: str, reason: str) -> Revision:
    runtime, ladder = next(iter(plan.spares[part].items()))
    return Revision(
        part=part, before=plan.schemes[part], after=ladder[0], reason=reason, runtime=runtime
    )


def _step(plan: Plan, part: str, reason: str, measured: str = "") -> Revision:
    return Revision(
        part=part,
        before=plan.schemes[part],
        after=plan.ladders[part][0],
        reason=reason,
        measured=measured,
    )
