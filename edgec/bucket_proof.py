"""Proof that the float model honours its mask: padded and trimmed, it says the same.

Every verification sample runs as it was fed and as the runtime would fit it. Sizes that no sample
needs run too, on the longest sample that they hold, and one sample is cut short, so that even
samples without padding prove something. Nothing is assumed of the graph: a model that pools over
its padding, counts its tokens, or fixes its length inside, fails here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgec.buckets import Proposal
from edgec.errors import EmitError
from edgec.isolate import call
from edgec.reference import Reference
from edgec.runtime.buckets import Axis, Buckets, fit, resize, used
from edgec.samples import Input, Samples, read
from edgec.types import Feeds

# Largest difference / largest magnitude of an output over all samples. Shorter sums round
# otherwise, about 1e-6; a position that the mask does not exclude changes far more.
TOLERANCE = 1e-4
HALF_TOLERANCE = 4e-3  # of outputs in float16: 8 units of its last bit


@dataclass(frozen=True)
class Verdict:
    """`problem`: why the buckets are refused, or empty; `outputs`: which keep the dimension.

    `error`: the largest difference relative to its output; `limit`: what was allowed, at most;
    `runs`: how many were compared.
    """

    problem: str
    outputs: tuple[Axis, ...] = ()
    error: float = 0.0
    limit: float = TOLERANCE
    runs: int = 0


@dataclass(frozen=True)
class _Run:
    """One comparison: columns fed, that run instead, and in use; `text` says so."""

    fed: int
    size: int
    length: int
    text: str


def prove(
    model: Path, proposal: Proposal, samples: Samples, inputs: Sequence[Input], threads: int
) -> Proposal:
    """The proposal with what the proof found, or without buckets and with the reason.

    `model` is the untouched source file. Raises InputError where the user asked for buckets that
    the model does not bear.
    """
    if proposal.buckets is None:
        return proposal
    files, needs = list(samples.verification), list(inputs)
    try:
        verdict: Verdict = call(examine, model, proposal.buckets, files, needs, threads)
    except EmitError as error:
        return proposal.refuse(f"the proof on the float model broke off: {error.message}")
    if verdict.problem:
        return proposal.refuse(verdict.problem)
    reason = (
        f"{proposal.reason}; proven on the float model, whose outputs stay within "
        f"{verdict.limit:.0e} of their largest value in {verdict.runs} runs"
    )
    for one in verdict.outputs:
        reason += f"; output {one.name} holds zeros behind what the mask keeps"
    buckets = proposal.buckets._replace(outputs=verdict.outputs)
    return replace(proposal, buckets=buckets, reason=reason)


def examine(
    model: Path, buckets: Buckets, files: Sequence[Path], inputs: Sequence[Input], threads: int
) -> Verdict:
    """Run all comparisons, in this process."""
    proof = _Proof(Reference(model, threads), buckets)
    lengths = []
    for file in files:
        feeds = read(file, inputs)
        lengths.append(used(feeds, buckets))
        proof.compare(file.name, feeds)
    longest = max(lengths)
    last = read(files[lengths.index(longest)], inputs)
    for size in sorted(set(buckets.sizes) - proof.sizes):
        held = [length for length in lengths if length <= size]
        if held:
            file = files[lengths.index(max(held))]
            proof.compare(file.name, read(file, inputs), size)
        else:
            proof.compare("a sample that was cut", _cut(last, buckets, size))
    if longest > 1:  # what no size holds runs at its own length, so that any length must do
        half = max(longest // 2, buckets.low)
        proof.compare("a sample that was cut", _cut(last, buckets, half), half)
    return proof.verdict()


def _cut(feeds: Feeds, buckets: Buckets, length: int) -> Feeds:
    """A sample of the same shape, with all behind `length` made padding."""
    arrays = {one: feeds[one.name] for one in buckets.inputs}
    cut = {o.name: resize(a, o, length, a.shape[o.axis]) for o, a in arrays.items()}
    return {**feeds, **cut}


class _Proof:
    """Runs samples both ways and keeps the largest difference of each output."""

    def __init__(self, reference: Reference, buckets: Buckets) -> None:
        self.sizes: set[int] = set()
        self._reference, self._buckets = reference, buckets
        self._kept = {one.name: one for one in buckets.outputs}
        self._largest = dict.fromkeys(reference.outputs, 0.0)
        self._worst = dict.fromkeys(reference.outputs, (0.0, ""))
        self._limits = dict.fromkeys(reference.outputs, TOLERANCE)
        self._problem = ""
        self._runs = 0

    def compare(self, label: str, feeds: Feeds, size: int = 0) -> None:
        """Run feeds as they are and fitted; `size`: to this one instead of the next."""
        buckets = self._buckets._replace(sizes=(size,)) if size else self._buckets
        fitted = fit(feeds, buckets)
        fed, size = feeds[buckets.mask].shape[1], fitted[buckets.mask].shape[1]
        self.sizes.add(size)
        if self._problem or fed == size:
            return
        text = f"where {label} runs at {buckets.dimension} = {size} instead of {fed}"
        run = _Run(fed, size, used(feeds, buckets), text)
        expected = self._reference.run(feeds)
        try:
            got = self._reference.run(fitted)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            self._problem = f"the model fails {text}: {line}"
            return
        self._runs += 1
        for name in self._reference.outputs:
            self._problem = self._problem or self._look(name, expected[name], got[name], run)

    def _look(self, name: str, expected: np.ndarray, got: np.ndarray, run: _Run) -> str:
        """Take one output into account; a problem that no tolerance covers, or nothing."""
        changed = f"output {name!r} changes its shape from {expected.shape} to {got.shape}"
        if expected.ndim != got.ndim:
            return f"{changed} {run.text}"
        axes = [i for i in range(got.ndim) if expected.shape[i] != got.shape[i]]
        known = self._kept.get(name)
        if axes and known is None and len(axes) == 1:
            known = self._kept[name] = Axis(name, axes[0])
        if known is not None:
            sizes = {(expected.shape[i], got.shape[i]) for i in axes}
            if axes != [known.axis] or sizes != {(run.fed, run.size)}:
                return f"{changed}, not in {self._buckets.dimension} alone, {run.text}"
            columns = np.arange(run.length)
            expected, got = expected.take(columns, known.axis), got.take(columns, known.axis)
        elif axes:
            return f"{changed}, not in {self._buckets.dimension} alone, {run.text}"
        return self._measure(name, expected, got, run)

    def _measure(self, name: str, expected: np.ndarray, got: np.ndarray, run: _Run) -> str:
        blame = f"the model does not honour its mask: output {name!r}"
        if expected.dtype.kind != "f":
            return "" if np.array_equal(expected, got) else f"{blame} changes {run.text}"
        finite = np.isfinite(expected) & np.isfinite(got)
        if not np.array_equal(expected[~finite], got[~finite], equal_nan=True):
            return f"{blame} has NaN or infinity elsewhere {run.text}"
        a, b = expected[finite].astype(np.float64), got[finite].astype(np.float64)
        if expected.dtype == np.float16:
            self._limits[name] = HALF_TOLERANCE
        self._largest[name] = max(self._largest[name], float(np.abs(a).max(initial=0.0)))
        difference = float(np.abs(a - b).max(initial=0.0))
        self._worst[name] = max(self._worst[name], (difference, run.text))
        return ""

    def verdict(self) -> Verdict:
        """What all runs together show."""
        if self._problem:
            return Verdict(self._problem)
        if not self._runs:
            return Verdict("the verification samples are too alike to prove the mask")
        largest = 0.0
        for name, (difference, text) in self._worst.items():
            error = difference / self._largest[name] if self._largest[name] else difference
            if error > self._limits[name]:
                return Verdict(
                    f"the model does not honour its mask: output {name!r} changes by {error:.2g} "
                    f"of its largest value {text}"
                )
            largest = max(largest, error)
        kept = tuple(self._kept[name] for name in self._reference.outputs if name in self._kept)
        return Verdict("", kept, largest, max(self._limits.values()), self._runs)
