"""`finish`: build on the device what only the device can build, prove it, and keep it.

    1  compare the device with what the bundle is for
    2  for each engine take the first step of its plan that builds: INT8, FP16, ONNX Runtime
    3  run the golden sample in a process of its own; what fails there takes the next step
    4  write `built/<stamp>-<bundle>/manifest.json`, last and at once

Killed at any point, it starts again where it was: engines that are complete are known by their
hash. The builder was run with TensorRT-RTX on a machine without a GPU; engines of Jetson are not
verified on hardware.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional

from edgec.errors import EdgecError, EmitError, InputError
from edgec.runtime import apart, built, stamp
from edgec.runtime.bundle import Bundle
from edgec.runtime.model import refuse_native_code
from edgec.runtime.tensorrt_build import digest

_TEST_SECONDS = 900.0
_SHARE = 0.9  # of the free memory that a builder may take
_LABELS = {"int8": "INT8", "float16": "FP16", "float32": "FP32"}


class Wishes(NamedTuple):
    """`onnxruntime`: that alone, on whatever device. `again`: forget what was built.

    `seconds`: for one engine; `memory`: bytes for its builder, 0: most of what is free;
    `calibrate`: a folder of samples for TensorRT's own calibration, or "". `native_code`: as `load`
    has it.
    """

    onnxruntime: bool = False
    again: bool = False
    seconds: float = 3600.0
    memory: int = 0
    calibrate: str = ""
    threads: Optional[int] = None
    native_code: bool = False


def finish(path: str, wishes: Wishes, say: Callable[[str], None]) -> Dict[str, Any]:
    """Build, prove and keep. Returns what the built manifest holds; `place` is its folder.

    UnsupportedError: another device. EmitError: not even the last step passes the self-test.
    """
    with Bundle(path) as bundle:
        if not wishes.native_code:
            refuse_native_code(bundle.manifest)
        engines = built.waiting(bundle)
        device = stamp.probe(engines[0]["build"]["module"])
        if not wishes.onnxruntime:
            for engine in engines:
                wrong = stamp.mismatches(engine["build"]["requires"], device)
                if wrong:
                    raise stamp.wrong_device(bundle.manifest["target"], device, wrong)
        place = built.folder(bundle, device)
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place):
            known = None if wishes.again else _known(bundle, place, say)
            if known is not None:
                return known
            with contextlib.suppress(FileNotFoundError):
                (place / built.NAME).unlink()
            return _Work(bundle, device, place, wishes, say).run()


def _known(bundle: Bundle, place: Path, say: Callable[[str], None]) -> Optional[Dict[str, Any]]:
    try:
        if built.read(bundle, place) is None:
            return None
    except InputError as error:
        say("{}: building again".format(error.message))
        return None
    say("finished before: {}".format(place))
    page: Dict[str, Any] = json.loads((place / built.NAME).read_text(encoding="utf-8"))
    return dict(page, place=str(place))


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two at once would overwrite each other; the lock ends with the process."""
    import fcntl

    with open(str(place / ".lock"), "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = "another finish is at work in {}".format(place)
            raise InputError(message, hint="Wait for it, or end it.") from error
        yield


class _Work:
    """One run of finish."""

    def __init__(
        self,
        bundle: Bundle,
        device: stamp.Device,
        place: Path,
        wishes: Wishes,
        say: Callable[[str], None],
    ) -> None:
        self._bundle, self._device, self._place = bundle, device, place
        self._wishes, self._say = wishes, say
        self._engines = built.waiting(bundle)
        self._told: List[str] = []
        self._rows: Dict[str, Dict[str, Any]] = {}

    def run(self) -> Dict[str, Any]:
        levels = {engine["name"]: 0 for engine in self._engines}
        while True:
            for engine in self._engines:
                if self._rows.get(engine["name"], {}).get("step") != levels[engine["name"]]:
                    row = self._first(engine, levels[engine["name"]])
                    self._rows[engine["name"]], levels[engine["name"]] = row, row["step"]
            try:
                result = self._test()
                if result["passed"]:
                    return self._keep(result)
                why = "; ".join(result["problems"])
            except EdgecError as error:
                why = error.message
            lower = [e for e in self._engines if levels[e["name"]] + 1 < len(built.steps(e))]
            if not lower:
                message = "the self-test fails on every step: {}".format(why)
                raise EmitError(message, hint="Report it, with the logs in {}.".format(self._place))
            for engine in lower:
                self._tell(engine, levels[engine["name"]], "the self-test fails: " + why)
                levels[engine["name"]] += 1

    def _first(self, engine: Mapping[str, Any], level: int) -> Dict[str, Any]:
        """The first step from `level` on that can be made."""
        steps = built.steps(engine)
        for index in range(level, len(steps)):
            try:
                return self._make(engine, index)
            except InputError:
                raise
            except EdgecError as error:
                self._tell(engine, index, error.message)
        message = "engine {}: no step of its plan can be made here".format(engine["name"])
        hint = "pip install onnxruntime, the last step; the reasons stand above."
        raise EmitError(message, hint=hint, log="\n".join(self._told))

    def _tell(self, engine: Mapping[str, Any], index: int, why: str) -> None:
        """The sentence of a fallback."""
        steps = built.steps(engine)
        line = "engine {}: not {}: {}".format(engine["name"], label(steps[index]), why)
        if index + 1 < len(steps):
            line += "; next: {}".format(label(steps[index + 1]))
        self._told.append(line)
        self._say(line)

    def _make(self, engine: Mapping[str, Any], index: int) -> Dict[str, Any]:
        step, name = built.steps(engine)[index], "{}.{}".format(engine["name"], index)
        record = self._place / (name + ".json")
        kept = None if self._wishes.again else self._kept(record, index)
        if kept is not None:
            self._say("engine {}: {} was built before".format(engine["name"], label(step)))
            return kept
        if step["by"] == "onnxruntime":
            row = self._onnxruntime(step, name)
        elif self._wishes.onnxruntime:
            raise EmitError("--onnxruntime was given", hint="Leave it out.")
        elif not self._device.version:
            raise EmitError(self._device.missing, hint="Install it.")
        elif not self._device.capability:
            raise EmitError("CUDA finds no NVIDIA GPU here", hint="Check the driver.")
        elif self._wishes.calibrate and step["form"] == "explicit":
            raise EmitError("--calibrate was given, and Q/DQ is calibrated", hint="Leave it out.")
        elif _shipped_first(engine, index):
            row = {"file": "", "sha256": "", "seconds": 0.0, "by": "the build"}
        else:
            row = self._tensorrt(engine, step, name)
        row.update(step=index, precision=step["precision"], form=step["form"])
        _write(record, row)
        return row

    def _kept(self, record: Path, index: int) -> Optional[Dict[str, Any]]:
        """What an interrupted run had completed."""
        try:
            row: Dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            file = row["file"]
            if file and (Path(file).name != file or digest(self._place / file) != row["sha256"]):
                return None
            return row if row["step"] == index else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _onnxruntime(self, step: Mapping[str, Any], name: str) -> Dict[str, Any]:
        from edgec.runtime.openers import opener

        opener("onnxruntime")  # ToolchainError where it is missing
        row = {"file": "", "sha256": "", "seconds": 0.0, "by": "ONNX Runtime"}
        if step["model"] in self._bundle.manifest.get("spares", {}):
            path = built.spare(self._bundle, step["model"], self._place / (name + ".onnx"))
            row.update(file=path.name, sha256=digest(path))
        return row

    def _tensorrt(self, engine: Mapping[str, Any], step: Mapping[str, Any], name: str) -> Any:
        plan = engine["build"]
        if step["model"] in self._bundle.manifest.get("spares", {}):
            model = built.spare(self._bundle, step["model"], self._place / (name + ".onnx"))
        else:
            for other in engine["data_files"]:
                self._bundle.path(other)
            model = self._bundle.path(step["model"])
        cache = str(self._bundle.path(step["cache"])) if step.get("cache") else ""
        request = {
            "module": plan["module"],
            "model": str(model),
            "engine": str(self._place / (name + ".engine")),
            "log": str(self._place / (name + ".log")),
            "precision": step["precision"],
            "form": step["form"],
            "typed": step["typed"],
            "half": step["half"],
            "cache": cache,
            "batches": self._wishes.calibrate if step["form"] == "implicit" else "",
            "profiles": plan["profiles"],
            "timing_cache": str(self._place / "timing.cache"),
            "capabilities": plan["requires"]["capabilities"],
            "dla": plan["dla"],
            "flags": plan["flags"],
            "plugins": built.plugins(self._bundle, engine, step),
        }
        free = apart.available()
        text = "engine {}: building {}; the builder needs about {:.0f} MB, {:.0f} MB are free"
        self._say(text.format(engine["name"], label(step), plan["memory"] / 1e6, free / 1e6))
        ladder = [one for one in plan["workspace"] if plan["memory"] + one <= free]
        limit = self._wishes.memory or int(_SHARE * free)
        for workspace in ladder or plan["workspace"][-1:] or [0]:
            start = time.monotonic()
            try:
                answer = apart.run(
                    "edgec.runtime.tensorrt_build:build",
                    dict(request, workspace=workspace),
                    seconds=self._wishes.seconds,
                    memory=limit,
                )
            except apart.OutOfMemory as error:
                last: EdgecError = error
                self._say("{}: {}".format(engine["name"], error.message))
                continue
            layers = answer.pop("layers")
            took = {"seconds": round(time.monotonic() - start, 3), "workspace": workspace}
            return dict(answer, file=name + ".engine", layers=len(layers), **took)
        raise last

    def _test(self) -> Any:
        request = {
            "bundle": str(self._bundle.source.absolute()),
            "choices": {
                name: [row["step"], str(self._place / row["file"]) if row["file"] else ""]
                for name, row in self._rows.items()
            },
            "threads": self._wishes.threads,
        }
        function = "edgec.runtime.finish_test:test"
        return apart.run(function, request, seconds=_TEST_SECONDS, memory=0)

    def _keep(self, result: Mapping[str, Any]) -> Dict[str, Any]:
        page = {
            "schema": built.SCHEMA,
            "bundle": self._bundle.digest,
            "target": {k: self._bundle.manifest["target"][k] for k in ("name", "stack")},
            "device": stamp.as_json(self._device),
            "engines": self._rows,
            "fallbacks": self._told,
            "self_test": result["outputs"],
            "timings": result["timings"],
        }
        _write(self._place / built.NAME, page)
        for engine in self._engines:
            row = self._rows[engine["name"]]
            step = built.steps(engine)[row["step"]]
            self._say("engine {}: {}".format(engine["name"], label(step)))
        self._say("finished: {}".format(self._place))
        return dict(page, place=str(self._place))


def _shipped_first(engine: Mapping[str, Any], index: int) -> bool:
    """Whether the step's engine lies in the bundle already."""
    return bool(index == 0 and engine["build"]["ready"])


def label(step: Mapping[str, Any]) -> str:
    """A step of a build plan, for people."""
    by = "ONNX Runtime" if step["by"] == "onnxruntime" else "TensorRT"
    form = " by a calibration cache" if step["form"] == "implicit" else ""
    plugins = " with plugins" if step.get("plugins") else ""
    return "{} on {}{}{}".format(_LABELS[step["precision"]], by, form, plugins)


def _write(path: Path, page: Mapping[str, Any]) -> None:
    from edgec.runtime.npz import write_bytes

    write_bytes(path, (json.dumps(page, indent=1, sort_keys=True) + "\n").encode())
    with contextlib.suppress(OSError):  # some file systems cannot
        handle = os.open(str(path.parent), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
