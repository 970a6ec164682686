"""Models of public libraries become verified bundles for every CPU target, on each runtime."""

from __future__ import annotations

from pathlib import Path

import graphs
import pytest
from test_partition_library import EXPECTED

from edgec.backends import missing
from edgec.build import Job, build
from edgec.results import Report
from edgec.runtime import load
from edgec.target import load_target, stacks

TARGETS = ("generic", "x86-avx2", "x86-vnni", "x86-bf16", "aarch64-dotprod")
ROWS = {
    (target, one.name): stack
    for target in TARGETS
    for stack in reversed(stacks(target))
    for one in load_target(target, stack).runtimes
    if one.device == "cpu" and not missing(one.backend)
}


def check(name: str, target: str, runtime: str, folder: Path) -> Report:
    """Build for one runtime and look at the bundle."""
    stack = ROWS[target, runtime]
    data = graphs.write_samples(f"library/{name}", folder / "data", 8)
    report = build(
        Job(
            model=graphs.path(f"library/{name}"),
            target=target,
            stack=stack,
            backend=runtime,
            data=data,
            output=folder / "made.edgec",
            measure=False,
        )
    )
    parts = {part.name for part in report.plan.parts}
    assert parts == {part for part, _, _ in EXPECTED[name]}
    compared = {one.part for one in report.checks.parts}
    assert compared == parts
    assert all(one.sqnr_db >= 12 for one in report.checks.parts)
    assert all(one.cosine >= 0.97 for one in report.checks.outputs)
    feeds = graphs.load_feeds(f"library/{name}", 1000, batch=1, images=1, texts=1)
    if load_target(target, stack).here:
        with load(report.bundle) as bundle:
            assert set(bundle.run(feeds)) == {one.value for one in report.checks.outputs}
    return report


@pytest.mark.slow
@pytest.mark.parametrize(("target", "runtime"), ROWS)
@pytest.mark.parametrize("name", EXPECTED)
def test_built_and_verified(name: str, target: str, runtime: str, tmp_path: Path) -> None:
    check(name, target, runtime, tmp_path)


def test_a_decoder_with_its_past(tmp_path: Path) -> None:
    """The one of these that every run of the tests builds."""
    report = check("whisper_past_script", "x86-vnni", "onnxruntime", tmp_path)
    assert sum(artifact.optimised.int8 for artifact in report.artifacts) > 10
