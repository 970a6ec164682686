"""Stage 12: try a plan, revise it where a check fails, until every check holds.

A build that can measure settles one plan for each runtime of the target, and one that mixes what
was fastest; the fastest as a whole wins, timed side by side with the source model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgec import timing
from edgec.assign import assign, decide
from edgec.blame import Broken
from edgec.errors import EmitError, InternalError
from edgec.policy import match
from edgec.results import Contender, Speed
from edgec.revise import SLOWER, retreat, revise, worst
from edgec.route import alone, mixed
from edgec.trial import Prepared, Trial, Trials
from edgec.types import Feeds, Limits, Plan, Revision, Scheme

MAX_REVISIONS = 16
RIVAL = 0.7  # of the expected speed, from which another scheme is worth a trial
CLOSE = 0.97  # of the fastest's speed: within this, the more exact one is taken


@dataclass(frozen=True)
class Settled:
    """A plan that every check accepts, and what it became."""

    name: str
    plan: Plan
    trial: Trial


def settle(
    name: str,
    plan: Plan,
    prepared: Prepared,
    trials: Trials,
    *,
    data: bool,
    say: Callable[[str], None],
) -> Settled:
    """Raises EmitError where no safer scheme or runtime is left."""
    graph, target, policy = prepared.graph, prepared.target, prepared.policy
    made = None
    for _ in range(MAX_REVISIONS):
        try:
            made = trials.run(plan)
            better = revise(plan, made.checks, made.artifacts, policy.limits)
        except Broken as broken:
            better = retreat(plan, broken.parts, broken.error.message)
            if better == plan:
                raise broken.error from broken
        if better == plan:
            break
        for revision in better.revisions[len(plan.revisions) :]:
            moved = f" on {revision.runtime}" if revision.runtime else ""
            say(f"{revision.part}: {revision.before} -> {revision.after}{moved}: {revision.reason}")
        plan = decide(graph, better, policy, target, data=data)
    else:
        try:
            made = trials.run(plan)
        except Broken as broken:
            raise broken.error from broken
    if made is None:
        raise InternalError("the loop of revisions ended without a trial")
    accept(plan, made, policy.limits)
    return Settled(name, plan, made)


def contenders(
    prepared: Prepared, trials: Trials, *, data: bool, say: Callable[[str], None]
) -> tuple[list[Settled], list[Contender]]:
    """A settled plan for each runtime alone, then the mix; and those that failed, with the reason.

    Raises the first failure where nothing could be settled.
    """
    graph, parts, policy, target = (
        prepared.graph,
        prepared.parts,
        prepared.policy,
        prepared.target,
    )
    found: list[Settled] = []
    failed: list[Contender] = []
    errors: list[EmitError] = []
    tried: list[Mapping[str, str]] = []

    def attempt(name: str, routes: Mapping[str, str]) -> None:
        if routes in tried or any(one.plan.runtimes == routes for one in found):
            return
        tried.append(routes)
        plan = assign(graph, parts, policy, target, data=data, routes=routes)
        plan = replace(plan, recovery=prepared.plan.recovery)
        try:
            one = settle(name, plan, prepared, trials, data=data, say=say)
            found.append(improve(one, prepared, trials, data=data, say=say))
        except EmitError as error:
            errors.append(error)
            failed.append(Contender(name, routes, None, float("nan"), error.message))

    for runtime in target.runtimes:
        say(f"trying {runtime.name}")
        attempt(runtime.name, alone(runtime.name, parts, graph, policy, target))
    if len(found) > 1:
        say("trying the mix of what was fastest")
        fastest = min(found, key=lambda one: sum(s.built.p50 for s in one.trial.checks.speeds))
        attempt("mixed", mixed(parts, fastest.plan.runtimes, _speeds(found)))
    if not found:
        raise errors[0]
    return found, failed


def improve(
    settled: Settled,
    prepared: Prepared,
    trials: Trials,
    *,
    data: bool,
    say: Callable[[str], None],
) -> Settled:
    """Where the table expects another scheme to be about as fast, the measured better one.

    Better is clearly faster, or as fast and more exact. What the policy states is left alone.
    """
    graph, target, policy = prepared.graph, prepared.target, prepared.policy
    if any(one.scheme for one in (*policy.ops, *policy.nodes)):
        return settled
    for part in prepared.parts:
        plan, wish = settled.plan, match(policy.parts, part.name)
        if wish is not None and wish.scheme is not None:
            continue
        before, speed = plan.schemes[part.name], target.runtime(plan.runtimes[part.name]).ladders
        expected = speed[part.kind].speed
        for scheme in plan.ladders[part.name]:
            if scheme not in expected or expected[scheme] < RIVAL * expected.get(before, 1.0):
                continue
            say(f"{part.name}: trying {scheme} beside {before}")
            change = Revision(
                part.name, before, scheme, "as fast on this machine or faster, and more exact"
            )
            rest = plan.ladders[part.name][plan.ladders[part.name].index(scheme) + 1 :]
            rival = replace(
                plan,
                schemes={**plan.schemes, part.name: scheme},
                ladders={**plan.ladders, part.name: rest},
                revisions=(*plan.revisions, change),
            )
            rival = decide(graph, rival, policy, target, data=data)
            try:
                other = settle(settled.name, rival, prepared, trials, data=data, say=say)
            except EmitError:
                continue
            if other.plan.schemes[part.name] is scheme and _better(part.name, other, settled):
                settled = other
                break
    return settled


def _better(part: str, other: Settled, settled: Settled) -> bool:
    new, old = (
        {speed.part: speed.gain.median for speed in one.trial.checks.speeds}
        for one in (other, settled)
    )
    if part not in new or part not in old:
        return False
    exact = worst(other.trial.checks.parts)[part] > worst(settled.trial.checks.parts)[part]
    return new[part] * CLOSE > old[part] or (exact and new[part] >= CLOSE * old[part])


def plainest(prepared: Prepared, plan: Plan, reason: str, *, data: bool) -> Plan:
    """The plan with every part on its safest scheme, where INT8 makes the whole no better."""
    changes = tuple(
        Revision(
            part.name,
            plan.schemes[part.name],
            plan.ladders[part.name][-1],
            reason,
        )
        for part in prepared.parts
        if plan.ladders[part.name]
    )
    safest = {one.part: one.after for one in changes}
    plan = replace(
        plan,
        schemes={**plan.schemes, **safest},
        ladders={**plan.ladders, **dict.fromkeys(safest, ())},
        revisions=(*plan.revisions, *changes),
    )
    return decide(prepared.graph, plan, prepared.policy, prepared.target, data=data)


def race(
    settled: Sequence[Settled],
    source: Path,
    runnable: Callable[[Settled], Path],
    feeds: Feeds,
    threads: int,
) -> list[Contender]:
    """Time the whole models beside the FP32 source; a failure stands in place of a speed."""
    found = timing.race(source, {one.name: runnable(one) for one in settled}, feeds, threads)
    raced = []
    for one in settled:
        made, exact = found[one.name], exactness(one.trial)
        if isinstance(made, EmitError):
            failure = f"the whole model: {made.message}"
            raced.append(Contender(one.name, one.plan.runtimes, None, exact, failure))
        else:
            raced.append(Contender(one.name, one.plan.runtimes, made, exact, ""))
    return raced


def no_better(raced: Sequence[Contender]) -> str:
    """Why none of the plans is worth it: all fail, or are slower than the source; else empty."""
    gains = [one.speed.gain for one in raced if one.speed is not None]
    if not gains:
        return raced[0].failure
    slower = all(gain.median < SLOWER and gain.high < 1 for gain in gains)
    return "slower than its source in FP32 as a whole model" if slower else ""


def choose(settled: Sequence[Settled], raced: Sequence[Contender]) -> Settled:
    """The fastest; of those nearly as fast, the most exact. Raises EmitError where all failed."""
    gains = [one.speed.gain.median for one in raced if one.speed is not None]
    if not gains:
        raise EmitError(raced[0].failure, hint="choose another runtime by --backend or a policy")
    best = max(gains)
    close = [
        index
        for index, one in enumerate(raced)
        if one.speed is not None and one.speed.gain.median >= CLOSE * best
    ]
    return settled[max(close, key=lambda index: raced[index].sqnr_db)]


def exactness(trial: Trial) -> float:
    """The lowest SQNR of any part, in dB; of any output where no part was compared."""
    found = worst(trial.checks.parts).values() or [one.sqnr_db for one in trial.checks.outputs]
    return min(found, default=float("inf"))


def accept(plan: Plan, made: Trial, limits: Limits) -> None:
    """Refuse to ship what the backend did not build as planned, or what is still too far off."""
    for artifact in made.artifacts:
        extra = artifact.optimised.int8 - artifact.planned.int8
        missing = artifact.optimised.float - artifact.planned.float
        kept = [part for part in artifact.parts if plan.schemes[part] is Scheme.KEPT]
        if artifact.misplaced or extra > 0 or (missing > 0 and not kept):
            raise EmitError(
                f"engine {artifact.engine}: planned {artifact.planned.int8} INT8 and "
                f"{artifact.planned.float} float weighted ops, the backend runs "
                f"{artifact.optimised.int8} and {artifact.optimised.float}",
                hint="keep the parts in float by a policy, and report the model",
                log="\n".join(artifact.misplaced),
            )
    for part, sqnr in worst(made.checks.parts).items():
        if limits.part_sqnr_db is not None and sqnr < limits.part_sqnr_db:
            raise EmitError(
                f"part {part}: SQNR {sqnr:.1f} dB is below {limits.part_sqnr_db:g} dB, and no "
                "safer scheme is left",
                hint="the policy may force it; --max-error none ships it anyway",
            )
    for one in made.checks.outputs:
        if limits.cosine is not None and one.cosine < limits.cosine:
            raise EmitError(
                f"output {one.value}: cosine {one.cosine:.4f} to the original is below "
                f"{limits.cosine:g}, and no safer scheme is left",
                hint="report the model: a rewrite may be wrong; --max-error none ships it anyway",
            )


def _speeds(found: Sequence[Settled]) -> Mapping[str, list[Speed]]:
    """What was measured of each part, by the runtime that it ended up on."""
    speeds: dict[str, list[Speed]] = {}
    for one in found:
        for speed in one.trial.checks.speeds:
            speeds.setdefault(one.plan.runtimes[speed.part], []).append(speed)
    return speeds
