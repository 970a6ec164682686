"""How fast a part or a whole model is beside its float form: see `edgec.runtime.bench`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgec.errors import EdgecError, EmitError
from edgec.results import Speed
from edgec.runtime import bench, npz
from edgec.types import Feeds
from edgec.verify import PartFiles

ROUNDS = 7
MORE = 21  # where the first rounds leave open which model is the fastest
PART_MS = 60.0  # how long one round of a measurement takes, about
MODEL_MS = 100.0


def time_part(files: PartFiles, milliseconds: float, threads: int) -> Speed:
    """A part's two forms, each in a process of its own, in alternating rounds.

    `milliseconds`: what the float form takes, about. Raises EmitError where the built one fails.
    """
    name, feeds = files.part.name, npz.read(files.feeds, files.feeds.name)
    cases = [
        bench.Case(f"{name} float", files.source, threads),
        bench.Case(f"{name} built", files.built, threads, files.settings, files.backend),
    ]
    calls = _calls(PART_MS, milliseconds)
    try:
        float_form, built = bench.measure(cases, feeds, rounds=ROUNDS, calls_per_round=calls)
    except EdgecError as error:
        bench.measure(cases[:1], feeds, rounds=1, calls_per_round=calls)  # or that is its error
        raise _failure(error) from error
    return Speed(name, float_form, built, bench.ratio(float_form, built))


def race(
    source: Path, models: Mapping[str, Path], feeds: Feeds, threads: int
) -> dict[str, Speed | EmitError]:
    """Time whole models, each in its own process, in alternating rounds with the FP32 source.

    Where the quartiles of the fastest and of another overlap, more rounds decide. What crashes or
    fails alone, too, is left out, and its error takes the place of its speed.
    """
    base = bench.Case("FP32", source, threads)
    probe = bench.measure([base], feeds, rounds=1, warmup=2, calls_per_round=3)[0]
    calls = _calls(MODEL_MS, probe.p50)

    def timed(some: Sequence[bench.Case], rounds: int = ROUNDS) -> list[bench.Timing]:
        return bench.measure(some, feeds, rounds=rounds, calls_per_round=calls)

    cases = [bench.Case(name, path, threads, native_code=True) for name, path in models.items()]
    failed: dict[str, EmitError] = {}
    try:
        first, *timings = timed([base, *cases])
    except EdgecError:
        failed = _failures(cases, timed)
        if not failed:
            raise
        cases = [case for case in cases if case.label not in failed]
        first, *timings = timed([base, *cases])
    if undecided([bench.ratio(first, one) for one in timings]):
        first, *timings = timed([base, *cases], MORE)
    speeds = {t.label: Speed(t.label, first, t, bench.ratio(first, t)) for t in timings}
    return {name: failed[name] if name in failed else speeds[name] for name in models}


def undecided(gains: Sequence[bench.Ratio]) -> bool:
    """Whether another than the fastest may be it: their quartiles overlap."""
    if not gains:
        return False
    best = max(gains, key=lambda one: one.median)
    return any(one is not best and one.high > best.low for one in gains)


def busy(speeds: Sequence[Speed]) -> str:
    """A warning where FP32 itself took now longer, now shorter: other work ran beside it."""
    for one in speeds:
        if bench.unsteady(one.float_form):
            low, high = min(one.float_form.medians), max(one.float_form.medians)
            return (
                f"speed was measured on a busy machine, where FP32 took {low:.3g} to {high:.3g} "
                "ms: build again on an idle one, which may choose otherwise"
            )
    return ""


def _failures(
    cases: Sequence[bench.Case], timed: Callable[[Sequence[bench.Case]], object]
) -> dict[str, EmitError]:
    found = {}
    for case in cases:
        try:
            timed([case])
        except EdgecError as error:
            found[case.label] = _failure(error)
    return found


def _calls(wanted: float, milliseconds: float) -> int:
    return max(1, min(20, round(wanted / max(milliseconds, 0.01))))


def _failure(error: EdgecError) -> EmitError:
    """What ended a measurement. Its first line alone is the message, and alike in every build."""
    first, _, rest = error.message.partition("\n")
    return EmitError(first, hint=error.hint, log=rest)
