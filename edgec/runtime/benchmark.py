"""A benchmark that says under which conditions it ran, and runs again where they were bad.

The page that comes of it is what `bench --json` writes, what the farm brings home and what its
history keeps; `SCHEMA` counts its forms.
"""

import hashlib
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence

from edgec import __version__
from edgec.errors import InputError, ToolchainError
from edgec.runtime import loadgen, npz, sensors
from edgec.runtime.bench import Case, Timing, measure, ratio, unsteady
from edgec.runtime.bundle import Bundle
from edgec.runtime.conditions import Watch, cpus
from edgec.runtime.scenarios import ONE_BY_ONE, Load
from edgec.runtime.stamp import board

SCHEMA = 1
# Other packages that bring the same module.
ALSO = {
    "onnxruntime": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx"),
}
TIMER = "measured with a plain timer in MLPerf's scenarios, not an MLPerf submission"


class Wish(NamedTuple):
    """What to measure and how. `repeat`: further attempts where a run is marked, `pause` seconds
    apart; `native_code`: whether a bundle's native kernels may run; the other fields are those of
    `bench.measure`.
    """

    bundle: Path
    against: Optional[Path] = None
    inputs: Optional[Path] = None
    threads: Optional[int] = None
    rounds: int = 7
    calls: int = 10
    warmup: int = 5
    load: Load = ONE_BY_ONE
    repeat: int = 2
    pause: float = 2.0
    native_code: bool = False


def benchmark(wish: Wish, tell: Callable[[str], None]) -> Dict[str, Any]:
    """Measure until a run is clean, `repeat` further times at most; the page of the last one.

    Every attempt stays on the page with its marks; nothing is averaged over attempts.
    """
    load = _load(wish.load)
    with Bundle(wish.bundle) as bundle:
        page = _about(wish, bundle, load)
        golden = bundle.arrays(bundle.manifest["golden"]["inputs"])
    feeds = npz.read(wish.inputs, str(wish.inputs)) if wish.inputs else golden
    cases = [Case("bundle", wish.bundle, wish.threads, native_code=wish.native_code)]
    if wish.against is not None:
        if not wish.against.exists():
            raise InputError("{} does not exist".format(wish.against), hint="Give a model.")
        name, other = wish.against.name, wish.against
        cases.append(Case(name, other, wish.threads, native_code=wish.native_code))
    attempts: List[Dict[str, Any]] = []
    while True:
        attempts.append(_attempt(wish, load, cases, feeds))
        marks = attempts[-1]["marks"]
        if not marks or len(attempts) > wish.repeat:
            break
        again = "marked: {}; measuring again in {:g} s, attempt {} of {}"
        tell(again.format("; ".join(marks), wish.pause, len(attempts) + 1, wish.repeat + 1))
        time.sleep(wish.pause)
    return dict(page, **attempts[-1], attempts=attempts)


def _attempt(
    wish: Wish, load: Load, cases: Sequence[Case], feeds: Dict[str, Any]
) -> Dict[str, Any]:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with Watch() as watch:
        timings = measure(
            cases,
            feeds,
            rounds=wish.rounds,
            warmup=wish.warmup,
            calls_per_round=wish.calls,
            load=load,
            timeout=600.0 + 10 * load.seconds,
        )
    found: Dict[str, Any] = {
        "started": started,
        "cases": [
            dict(one._asdict(), medians=list(one.medians), invalid=list(one.invalid))
            for one in timings
        ],
        "conditions": watch.page,
        "marks": [*watch.page["marks"], *_unsteady(timings)],
    }
    if len(timings) == 2:
        found["ratio"] = ratio(timings[0], timings[1])._asdict()
    return found


def _unsteady(timings: Sequence[Timing]) -> List[str]:
    text = "unsteady: a round of {} took {:.3g} to {:.3g} ms a query in the median"
    return [
        text.format(one.label, min(one.medians), max(one.medians))
        for one in timings
        if unsteady(one)
    ]


def _load(load: Load) -> Load:
    """The load with its harness chosen. Raises InputError, ToolchainError."""
    if load.scenario == "Server" and load.qps <= 0:
        hint = "Give --qps N: queries that arrive in a second."
        raise InputError("the scenario Server has no rate of its own", hint=hint)
    if load.harness == "loadgen" and not loadgen.installed():
        hint = "pip install mlcommons-loadgen (Linux on x86-64), or measure with --harness timer."
        raise ToolchainError("LoadGen is not installed", hint=hint)
    if load.harness == "auto":
        return load._replace(harness="loadgen" if loadgen.installed() else "timer")
    return load


def _about(wish: Wish, bundle: Bundle, load: Load) -> Dict[str, Any]:
    """What is measured, on what, and how."""
    manifest = bundle.manifest
    settings: Dict[str, Any] = dict(load._asdict(), threads=wish.threads)
    settings.update(rounds=wish.rounds, calls=wish.calls, warmup=wish.warmup)
    settings["inputs"] = _sha256(wish.inputs) if wish.inputs else "golden"
    settings["against"] = wish.against.name if wish.against else None
    backends = {engine["backend"] for engine in manifest["engines"]}
    return {
        "schema": SCHEMA,
        "verb": "bench",
        "label": loadgen.LABEL if load.harness == "loadgen" else TIMER,
        "scenario": load.scenario,
        "harness": load.harness,
        "bundle": {
            "name": wish.bundle.name,
            "sha256": _sha256(wish.bundle) if bundle.packed else bundle.digest,
            "digest": bundle.digest,
            "bytes": sum(one["bytes"] for one in bundle.files.values())
            if not bundle.packed
            else wish.bundle.stat().st_size,
        },
        "model": {
            "name": manifest["source"]["name"],
            "sha256": manifest["source"]["sha256"],
            "signature": signature(manifest),
        },
        "target": {key: manifest["target"][key] for key in ("name", "stack", "arch")},
        "versions": _versions([*sorted(backends | {"numpy"}), *_harness(load)]),
        "machine": machine(),
        "settings": settings,
    }


def signature(manifest: Mapping[str, Any]) -> str:
    """What stays the same of a model that is trained again: what it takes, gives and multiplies."""
    keys = ("name", "dtype", "shape")
    what: List[Any] = [
        [[value[key] for key in keys] for value in manifest[side]] for side in ("inputs", "outputs")
    ]
    what.append(sum(part["macs"] for part in manifest["parts"]))
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _harness(load: Load) -> List[str]:
    return ["mlcommons-loadgen"] if load.harness == "loadgen" else []


def machine() -> Dict[str, Any]:
    """What this machine is."""
    memory = sensors.memory(Path("/")).get("total_mb", 0.0)
    found = {
        "arch": platform.machine(),
        "board": board(),
        "cpu": _cpu(),
        "system": platform.platform(),
    }
    return dict(found, cores=cpus(), memory_mb=round(memory))


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", errors="replace") as lines:
            found = (
                line.partition(":")[2].strip() for line in lines if line.startswith("model name")
            )
            return next(found, "")
    except OSError:
        return ""


def _versions(packages: Sequence[str]) -> Dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"edgec": __version__, "python": sys.version.split()[0]}
    for name in packages:
        found[name] = "unknown"
        for package in (name, *ALSO.get(name, ())):
            try:
                found[name] = version(package)
                break
            except PackageNotFoundError:
                continue
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(str(path), "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise InputError(
            "{} cannot be read: {}".format(path, error.strerror or error),
            hint="Check the path.",
        ) from error
    return digest.hexdigest()
