"""What keeps INT8 close to float is tried stage by stage, told, and kept only where it helps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import graphs
import numpy as np
import pytest
import small
from engines import everywhere, seen

from edgec import build as line
from edgec import isolate, moments, tune
from edgec.build import Job
from edgec.errors import EmitError
from edgec.gather import Gathered
from edgec.manifest import manifest
from edgec.moments import second_moments
from edgec.quantize import quantize
from edgec.rows import Row, rows
from edgec.samples import inputs
from edgec.target import stacks
from edgec.trial import Prepared, Trials
from edgec.types import (
    Gain,
    Graph,
    Kind,
    Method,
    Recovery,
    RecoveryPlan,
    Scheme,
    Statistics,
    Target,
)

Array = np.ndarray
Feeds = Mapping[str, Array]
S, W, D = Scheme.INT8_STATIC, Scheme.INT8_WEIGHT_ONLY, Scheme.INT8_DYNAMIC
OFF = {"bias": False, "strengths": (), "gptq": False, "mask_aware": False}


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests spare themselves the subprocess, which takes longer than the work in it."""

    def here(function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(tune, "call", here)
    monkeypatch.setattr(moments, "call", here)


@dataclass(frozen=True)
class Tuned:
    """A part that was tuned, and what from."""

    recovery: Recovery
    gains: tuple[Gain, ...]
    score: Callable[[Recovery], float]

    @property
    def labels(self) -> list[str]:
        return [gain.stage for gain in self.gains]


def written(feeds: Sequence[Feeds], folder: Path) -> list[Row]:
    paths = []
    for index, one in enumerate(feeds):
        paths.append(folder / f"{index:03}.npz")
        np.savez(paths[-1], **one)  # type: ignore[arg-type]
    return rows(paths)


def tuned(
    found: Graph,
    feeds: Sequence[Feeds],
    folder: Path,
    scheme: Scheme,
    backend: str = "onnxruntime",
    **changes: Any,
) -> Tuned:
    """The only part of a graph that computes, on x86 with VNNI; `changes`: of its RecoveryPlan."""
    runtime = small.runtime("x86-vnni", backend)
    plan = small.plan(found, "x86-vnni", everywhere(scheme), backend=backend)
    wish = replace(RecoveryPlan(), **changes)
    plan = replace(plan, recovery=dict.fromkeys(plan.recovery, wish))
    (part,) = (part for part in plan.parts if part.macs)
    samples = written(feeds, folder)
    statistics = seen(found, plan, runtime, feeds, histograms=True)
    files = [row.path for row in samples]
    names = tune.round_by_moments(found, plan)
    known = dict(second_moments(found, names, files, inputs(found), 1))
    recovery, gains = tune.tune(
        found, part, plan, runtime, statistics, known, samples, [], folder / "tune", 1
    )

    def score(one: Recovery) -> float:
        recovery = dict.fromkeys(plan.recovery, one)
        made = quantize(found.model, plan.decisions, statistics, recovery, runtime, known)
        built = [small.run(made, sample) for sample in feeds]
        exact = [small.run(found.model, sample) for sample in feeds]
        return min(
            small.sqnr(
                *(np.concatenate([run[n].ravel() for run in side]) for side in (exact, built))
            )
            for n in exact[0]
        )

    return Tuned(recovery, gains, score)


def check_the_chain(found: Tuned, plan: RecoveryPlan) -> None:
    """Each stage begins where the one before it ended, and no step that is kept does harm."""
    score: float | None = None
    stages: dict[str, list[Gain]] = {}
    for gain in found.gains:
        kind = gain.stage.rpartition(" ")[0] if gain.stage[-1].isdigit() else gain.stage
        stages.setdefault("ranges" if gain.stage.startswith("ranges") else kind, []).append(gain)
    for tries in stages.values():
        assert len({gain.before_db for gain in tries}) == 1
        assert score is None or tries[0].before_db == score
        score = tries[0].before_db
        kept = [gain for gain in tries if gain.kept]
        assert len(kept) <= 1
        for gain in kept:
            assert gain.after_db > gain.before_db
            score = gain.after_db
    kept_labels = [gain.stage for gain in found.gains if gain.kept]
    now = found.recovery
    assert now.bias == ("bias correction" in kept_labels)
    assert now.gptq == ("GPTQ rounding" in kept_labels)
    assert now.mask_aware == ("mask-aware ranges" in kept_labels)
    assert (now.smoothing > 0) == any(label.startswith("smoothing") for label in kept_labels)
    if now.smoothing:
        assert f"smoothing {now.smoothing}" in kept_labels
    if now.method is not plan.methods[0]:
        assert f"ranges by {now.method}" in kept_labels


ALL = ["smoothing 0.8", "smoothing 0.7", "smoothing 0.9", "bias correction", "GPTQ rounding"]
OTHERS = ["ranges by moving_average", "ranges by percentile", "ranges by mse", "ranges by entropy"]


@pytest.mark.parametrize(
    ("name", "scheme", "backend", "labels"),
    [
        ("cnn", S, "onnxruntime", [*ALL[3:], *OTHERS]),
        ("vit", S, "openvino", [*ALL[:3], ALL[4], *OTHERS]),
        ("vit", D, "onnxruntime", [*ALL[:3], "GPTQ rounding"]),
        ("mlp", W, "onnxruntime", ALL[3:]),
    ],
)
def test_every_stage_is_told(
    name: str, scheme: Scheme, backend: str, labels: list[str], tmp_path: Path
) -> None:
    feeds = [graphs.load_feeds(name, seed) for seed in range(4)]
    plan = RecoveryPlan(methods=tuple(Method))
    found = tuned(small.fixture(name), feeds, tmp_path, scheme, backend, methods=tuple(Method))
    assert found.labels == labels
    check_the_chain(found, plan)
    # what was judged is what is built: the same figure, but for the optimiser's own roundings
    start = Recovery(Method.MINMAX, {}, False, 0.0, False, False)
    assert found.gains[0].before_db == pytest.approx(found.score(start), abs=1.0)
    last = [gain.after_db for gain in found.gains if gain.kept]
    if last:
        assert last[-1] == pytest.approx(found.score(found.recovery), abs=1.0)


BOTH = """g (float[10,32] x) => (float[10,16] y) {
  [product] h = MatMul (x, w)
  [soft] p = Softmax <axis = -1> (h)
  [gemm] y = Gemm (p, v, b)
}"""


@pytest.mark.usefixtures("smoothed")
@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ({}, set()),
        ({"bias": False}, {"bias correction"}),
        ({"strengths": ()}, set(ALL[:3])),
        ({"strengths": (0.7,)}, {"smoothing 0.8", "smoothing 0.9"}),
        ({"gptq": False}, {"GPTQ rounding"}),
        ({"methods": (Method.MSE,)}, set(OTHERS)),
        (OFF | {"methods": (Method.ENTROPY,)}, {*ALL, *OTHERS}),
    ],
)
def test_what_is_switched_off_is_not_tried(
    off: dict[str, Any], gone: set[str], tmp_path: Path
) -> None:
    """A product and a Gemm, so that all stages but that of masks have something to do."""
    weights = {"w": small.normal(0, 32, 32), "v": small.normal(1, 32, 16), "b": small.normal(2, 16)}
    found = small.canonical(small.model(BOTH, **weights))
    feeds = [{"x": small.normal(seed, 10, 32)} for seed in range(2)]
    changes = {"methods": tuple(Method), **off}
    made = tuned(found, feeds, tmp_path, S, "openvino", **changes)
    assert made.labels == [label for label in (*ALL, *OTHERS) if label not in gone]
    assert made.recovery.method in changes["methods"]
    for field, value in {"bias": False, "gptq": False}.items():
        if off.get(field) is False:
            assert getattr(made.recovery, field) is value
    if off.get("strengths") == ():
        assert made.recovery.smoothing == 0


LINEAR = """g (float[1,n,32] x) => (float[1,n,16] y) {
  [product] h = MatMul (x, w)
  [soft] p = Softmax <axis = -1> (h)
  y = Sub (h, p)
}"""


def linear(weight: Array) -> Graph:
    return small.canonical(small.model(LINEAR, w=weight.astype(np.float32)))


def test_clipping_a_tail_that_carries_the_signal_is_not_kept(tmp_path: Path) -> None:
    """Rare numbers a hundred times the others, which KL divergence cuts off."""
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_t(2, (1, 400, 32)).astype(np.float32)} for _ in range(6)]
    found = tuned(
        linear(small.normal(9, 32, 16)),
        feeds,
        tmp_path,
        S,
        "openvino",
        **OFF | {"methods": (Method.MINMAX, Method.ENTROPY)},
    )
    (entropy,) = found.gains
    assert entropy.stage == "ranges by entropy"
    assert entropy.after_db < entropy.before_db - 3
    assert not entropy.kept
    assert found.recovery.method is Method.MINMAX


@pytest.fixture
def smoothed(monkeypatch: pytest.MonkeyPatch) -> None:
    """These graphs count as mlp, which the table does not smooth on OpenVINO."""
    real = small.target

    def target(name: str, backend: str = "onnxruntime") -> Target:
        row = real(name, backend)
        (one,) = row.runtimes
        mlp = replace(one.ladders[Kind.MLP], smooth=True)
        return replace(row, runtimes=(replace(one, ladders={**one.ladders, Kind.MLP: mlp}),))

    monkeypatch.setattr(small, "target", target)


@pytest.mark.usefixtures("smoothed")
def test_smoothing_sparse_channels_is_not_kept(tmp_path: Path) -> None:
    """Rare peaks in some channels: their weights grow at the cost of all others."""
    feeds = []
    for seed in range(8):
        x = np.abs(small.normal(seed, 1, 10, 32)) + 1
        if seed == 0:
            x[0, 0, ::4] = 12
        feeds.append({"x": x})
    found = tuned(
        linear(small.normal(9, 32, 16)),
        feeds,
        tmp_path,
        S,
        "openvino",
        **OFF | {"strengths": (0.9, 0.8)},
    )
    assert found.labels == ["smoothing 0.9", "smoothing 0.8"]
    assert all(gain.after_db < gain.before_db for gain in found.gains)
    assert not any(gain.kept for gain in found.gains)
    assert found.recovery.smoothing == 0


@pytest.mark.usefixtures("smoothed")
def test_smoothing_loud_channels_is_kept(tmp_path: Path) -> None:
    loud = np.ones(32, np.float32)
    loud[[3, 17]] = 60, 25
    feeds = [{"x": small.normal(seed, 1, 10, 32) * loud} for seed in range(8)]
    weight = small.normal(9, 32, 16) / loud[:, None]
    found = tuned(linear(weight), feeds, tmp_path, S, "openvino", **OFF | {"strengths": (0.8, 0.7)})
    assert found.recovery.smoothing in (0.8, 0.7)
    first = found.gains[0]
    assert first.after_db > first.before_db + 3


@pytest.mark.parametrize("tail", [1.5, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_auto_never_ends_below_min_max(seed: int, tail: float, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    feeds = [{"x": random.standard_t(tail, (1, 10, 32)).astype(np.float32)} for _ in range(6)]
    everything = {"methods": tuple(Method)}
    found = tuned(
        linear(small.normal(seed, 32, 16)), feeds, tmp_path, S, "openvino", **OFF | everything
    )
    assert found.labels == OTHERS
    minmax = found.gains[0].before_db
    taken = {g.stage: g.after_db for g in found.gains if g.kept} or {"ranges by minmax": minmax}
    ((label, score),) = taken.items()
    assert label == f"ranges by {found.recovery.method}"
    assert score >= minmax
    assert score == minmax or score > minmax + tune.MARGIN
    assert max(g.after_db for g in found.gains) <= max(score, minmax) + tune.MARGIN
    least = found.score(Recovery(Method.MINMAX, {}, False, 0.0, False, False))
    assert found.score(found.recovery) >= least - 0.1


def test_the_method_of_a_value_stays_what_the_policy_states(tmp_path: Path) -> None:
    feeds = [{"x": small.normal(seed, 1, 10, 32)} for seed in range(3)]
    stated = {"x": Method.PERCENTILE}
    found = tuned(
        linear(small.normal(1, 32, 16)),
        feeds,
        tmp_path,
        S,
        "openvino",
        **OFF | {"values": stated, "methods": tuple(Method)},
    )
    assert found.recovery.values == stated


@pytest.mark.parametrize("count", [3, 15, 16, 40, 300])
def test_rounding_is_judged_by_what_it_has_not_seen(count: int) -> None:
    rows = [Row(Path(f"{index}.npz"), str(index)) for index in range(count)]
    fit, fresh, seen = tune.split(rows)
    if count < tune.FEW:
        assert (fit, fresh, seen) == (rows, rows, [])
        return
    assert not {row.digest for row in fit} & {row.digest for row in fresh}
    assert seen == fit
    assert all(0 < len(one) <= tune.MOST_SAMPLES for one in (fit, fresh))
    assert len(fit) + len(fresh) == min(count, 2 * tune.MOST_SAMPLES)


# Where nothing can be tried


def test_without_samples_the_preferred_choice_is_made(tmp_path: Path) -> None:
    found = small.fixture("cnn")
    plan = small.plan(found, "x86-vnni")
    (part,) = plan.parts
    runtime = small.runtime("x86-vnni")
    statistics = seen(found, plan, runtime, [graphs.load_feeds("cnn")])
    for wish, expected in (
        (RecoveryPlan(), Recovery(Method.MINMAX, {}, True, 0.8, False, True)),
        (
            RecoveryPlan((Method.MSE, Method.MINMAX), {"x": Method.ENTROPY}, **OFF),
            Recovery(Method.MSE, {"x": Method.ENTROPY}, False, 0.0, False, False),
        ),
    ):
        stated = replace(plan, recovery={part.name: wish})
        place = tmp_path / "tune"
        made = tune.tune(found, part, stated, runtime, statistics, {}, [], [], place, 1)
        assert made == (expected, ())
        assert made[0] == tune.plain(wish)
        assert not place.exists()


def test_a_part_without_int8_has_nothing_to_try(tmp_path: Path) -> None:
    found = small.fixture("cnn")
    plan = small.plan(found, "x86-vnni", everywhere(Scheme.FLOAT32))
    (part,) = plan.parts
    samples = written([graphs.load_feeds("cnn")], tmp_path)
    place, runtime = tmp_path / "tune", small.runtime("x86-vnni")
    made = tune.tune(found, part, plan, runtime, Statistics(), {}, samples, [], place, 1)
    assert made == (tune.plain(RecoveryPlan()), ())
    assert not place.exists()
    assert tune.round_by_moments(found, plan) == []


def test_a_part_that_onnx_runtime_cannot_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "call", isolate.call)
    found, runtime = linear(small.normal(1, 32, 16)), small.runtime("x86-vnni", "openvino")
    plan = small.plan(found, "x86-vnni", everywhere(S), backend="openvino")
    (part,) = plan.parts
    statistics = seen(found, plan, runtime, [{"x": small.normal(0, 1, 10, 32)}])
    samples = written([{"x": small.normal(0, 1, 10, 31)}], tmp_path)
    with pytest.raises(EmitError, match=r"search: .*InvalidArgument") as caught:
        tune.tune(found, part, plan, runtime, statistics, {}, samples, [], tmp_path / "tune", 1)
    assert caught.value.hint


# Within a build


@dataclass(frozen=True)
class Started:
    """A build that has calibrated and not yet tried anything."""

    prepared: Prepared
    gathered: Gathered
    trials: Trials
    said: list[str]


@pytest.fixture
def started(tmp_path: Path) -> Started:
    data = graphs.write_samples("cnn", tmp_path / "samples", 6)
    said: list[str] = []
    job = Job(
        graphs.path("cnn"),
        target="x86-vnni",
        stack=next(s for s in stacks("x86-vnni") if s.startswith("onnxruntime")),
        data=data,
        measure=False,
        threads=1,
        say=said.append,
    )
    prepared, folder = line.prepare(job), tmp_path / "work"
    folder.mkdir()
    samples = line._samples(job, prepared, folder)
    gathered = line._gather(job, prepared, samples, (), folder)
    calibration = line._observe(job, prepared, gathered)
    trials = Trials(job.model, prepared, gathered, calibration, folder, 1, False, said.append)
    return Started(prepared, gathered, trials, said)


def test_samples_that_verify_are_never_looked_at(started: Started, tmp_path: Path) -> None:
    """They are gone, and nothing changes."""
    gathered = started.gathered
    assert {row.digest for row in gathered.rows}.isdisjoint(
        row.digest for row in rows(gathered.samples.verification)
    )
    for path in {*gathered.samples.verification, *gathered.trimmed.verification}:
        path.unlink()
    plan = started.prepared.plan
    recovery, gains, notes = started.trials._recover(plan, started.trials._observe(plan), tmp_path)
    assert set(recovery) == {part.name for part in plan.parts}
    assert [gain.stage for gain in gains] == ["bias correction", "GPTQ rounding", *OTHERS]
    assert notes == ()


def test_a_build_goes_on_where_nothing_can_be_tried(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials need more memory than there is."""
    plan, trials = started.prepared.plan, started.trials
    (part,) = (part.name for part in plan.parts)
    known = trials._observe(plan)
    with monkeypatch.context() as context:
        context.setattr(tune, "call", isolate.call)
        context.setattr(moments, "call", isolate.call)
        context.setattr(isolate, "MEMORY_SHARE", 1e-6)
        trials._recover(plan, known, tmp_path)
    trial = trials.run(plan)
    assert trial.recovery == {part: tune.plain(plan.recovery[part])}
    assert trial.gains == ()
    moment, tuning = trial.notes
    rounding = "some weights are rounded to nearest, not by second moments: gather: "
    untried = f"{part}: what keeps INT8 close to float was not tried: search: "
    for note, why in ((moment, rounding), (tuning, untried)):
        assert note.startswith(f"{why}the backend's process used ")
    assert {moment, tuning} <= set(started.said)
    assert trial.checks.parts
    page = manifest(
        started.prepared,
        plan,
        trial,
        started.gathered.samples,
        started.gathered.proposal,
        measured=False,
    )
    assert {moment, tuning} <= set(page["notes"])
    assert page["calibration"]["recovery"] == []
    # and it is not tried again
    before = list(started.said)
    again = trials.run(plan)
    assert again.notes == trial.notes
    assert not any("trying" in one or "moments" in one for one in started.said[len(before) :])
