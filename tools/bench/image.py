"""The device image of the demonstration: how large it is, and how soon it answers (see `image`).

A run starts a container that is there, opens the bundle and computes the golden sample; beside it,
in turn, the same command on this machine, without a container.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import containers
import numpy as np
import readme_block
from peers_measure import quartiles

from edgec.build import Job, build
from edgec.demo import data, model
from edgec.image import context
from edgec.image.program import Program
from edgec.runtime import npz
from edgec.target import host, load_target

TAG = "localhost/edgec-demonstration"
RUN = ["run", "--golden", "--outputs"]


def bundle(work: Path) -> Path:
    """The demonstration for this machine on ONNX Runtime, built by the table alone."""
    path = work / "emoji.edgec"
    if not path.is_file():
        source = model.compose(work / "emoji.onnx")
        samples = data.write_calibration(work / "calibration")
        job = Job(source, data=samples, output=path, backend="onnxruntime", measure=False)
        build(job)
    return path


def image(path: Path, work: Path, buildah: dict[str, str]) -> float:
    """Write and build the device image; its uncompressed size, MB."""
    target = load_target(host(), None)
    shutil.rmtree(work / "context", ignore_errors=True)
    written = context.write(target, work / "context", path, containers.base(buildah))
    Program("buildah").build(written.folder, "device", TAG, target.arch, {})
    container = containers.call("buildah", "from", "--pull-never", TAG, **buildah).strip()
    try:
        root = containers.call("buildah", "mount", container, **buildah).strip()
        size = containers.call("du", "--summarize", "--bytes", "--one-file-system", root)
    finally:
        containers.call("buildah", "rm", container, **buildah)
    return int(size.split()[0]) / 1e6


def seconds(line: Sequence[str | Path]) -> float:
    started = time.perf_counter()
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def race(path: Path, work: Path, runs: int, buildah: dict[str, str]) -> tuple[list[float], ...]:
    """Seconds from start to first result, in a container and without; the results are the same."""
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    out.chmod(0o777)
    inside: list[float] = []
    outside: list[float] = []
    container = containers.call("buildah", "from", "--pull-never", TAG, **buildah).strip()
    try:
        within = ["buildah", "run", "--volume", f"{out}:/opt/out:rw", container, "--", "python3"]
        within += ["/opt/model/model.edgec", *RUN, "/opt/out/inside.npz"]
        without = [sys.executable, path, *RUN, out / "outside.npz"]
        for turn in range(runs + 1):
            times = seconds(within), seconds(without)
            if turn:  # the first fills the caches
                inside.append(times[0])
                outside.append(times[1])
    finally:
        containers.call("buildah", "rm", container, **buildah)
    here, there = (npz.read(out / f"{one}side.npz", one) for one in ("in", "out"))
    for name, array in here.items():
        np.testing.assert_array_equal(there[name], array)
    return inside, outside


def text(size: float, path: Path, inside: list[float], outside: list[float]) -> str:
    low, middle, high = quartiles([a / b for a, b in zip(inside, outside, strict=True)])
    site = f"{path.stat().st_size / 1e6:.1f} MB"
    return (
        f"The demonstration's device image: {size:.0f} MB uncompressed, of which the bundle is "
        f"{site}. From the start of a container to the first result {statistics.median(inside):.2f}"
        f" s, {middle:.2f}x ({low:.2f} to {high:.2f}) what the same command takes without one, in "
        f"{len(inside)} interleaved runs of buildah; results are equal bit for bit."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="tools/bench/image", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--write", type=Path, help="a Markdown page that has the two markers")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    buildah = containers.prepare()
    os.environ.update(buildah)
    path = bundle(work)
    size = image(path, work, buildah)
    inside, outside = race(path, work, arguments.runs, buildah)
    block = text(size, path, inside, outside)
    print(block)
    (work / "figures.json").write_text(
        json.dumps({"mb": size, "inside_s": inside, "outside_s": outside}), encoding="utf-8"
    )
    if arguments.write:
        readme_block.write(arguments.write, block, "image")


if __name__ == "__main__":
    main()
