"""Is this data good to calibrate on? Looked at before anybody does.

One pass over the files gives a sketch of each sample, one run of the float model the extremes of
every value that calibration would observe; then each check says what it finds.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgec.audit.checks import CHECKS
from edgec.audit.checks.lengths import histogram
from edgec.audit.context import Context
from edgec.audit.convergence import Curve, converge
from edgec.audit.extremes import extremes, observed
from edgec.audit.finding import Finding, Severity
from edgec.audit.survey import Complaints, survey
from edgec.binding import bind, near
from edgec.build import Job, prepare
from edgec.errors import InputError
from edgec.recipe import load_recipe


@dataclass(frozen=True)
class Audit:
    """What was found. `total`, `readable`: samples; `run`: those that the model ran on.

    `lengths`: by input, how many samples have which length.
    """

    total: int
    readable: int
    run: int
    findings: tuple[Finding, ...]
    curve: Curve
    lengths: Mapping[str, Mapping[int, int]]

    @property
    def warnings(self) -> int:
        """How many findings are more than notes."""
        return sum(one.severity is Severity.WARNING for one in self.findings)


def audit(job: Job) -> Audit:
    """Look at `job.data` with the eyes of `job.model`, whose first plan says what is calibrated.

    Raises InputError where the data as a whole, or the model, cannot be read.
    """
    if job.data is None:
        raise InputError("no data to look at", hint="give a folder of samples")
    prepared = prepare(job)
    chosen, inputs = load_recipe(job.recipe), prepared.inputs
    recipe = bind(chosen, inputs, near(job.data, job.model))
    threads = job.threads or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="edgec-audit-") as folder:
        job.say(f"looking at {job.data}")
        seen = survey(job.data, inputs, chosen.files, recipe, Path(folder))
        values, files = observed(prepared), [path for _, path in seen.files]
        job.say(f"running the float model on {len(files)} samples")
        found = extremes(prepared.graph, values, files, inputs, threads)
        curve = converge(found)
        constants = frozenset(
            feed["name"]
            for spec in recipe.readers.values()
            if "value" in spec
            for feed in spec["inputs"].values()
        )
        context = Context(prepared, seen, found, curve, constants, threads)
        complaints = Complaints()
        for name, path in seen.files:
            if path in found.refused:
                complaints(name, found.refused[path])
        findings = [*seen.refused, *complaints.findings()]
        findings += [one for check in CHECKS for one in check(context)]
    return Audit(
        total=seen.total,
        readable=len(seen.samples),
        run=len(context.ran),
        findings=tuple(findings),
        curve=curve,
        lengths=histogram(context),
    )
