"""The process of one case: it opens a file as its tool recommends, then answers on stdin.

    peers_case.py CASE evaluate MODEL HELDOUT REFERENCE RESULT   every held-out sample
    peers_case.py CASE time SAMPLE.npz                           on demand, until stdin closes

CASE is JSON: path, runtime, settings, threads, outputs (the names of the source model). The timed
process answers a line {"warm": n, "calls": n} with {"ms": [..]}, after a first {"ready": true},
and says at the end how much memory it took: {"peak_mb": x}.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, np.ndarray]
Call = Callable[[Feeds], list[np.ndarray]]


def opened(case: dict[str, Any]) -> Call:
    """A function from feeds to outputs in the order of the source model's."""
    path, names = Path(case["path"]), list(case["outputs"])
    return _OPEN[case["runtime"]](path, names, case["settings"], case["threads"])


def _onnxruntime(path: Path, names: list[str], settings: dict[str, Any], threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda feeds: session.run(names, feeds)


def _openvino(path: Path, names: list[str], settings: dict[str, Any], threads: int) -> Call:
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, **settings}
    compiled = openvino.Core().compile_model(str(path), "CPU", options)
    ports = {name: port for port in compiled.outputs for name in port.get_names()}
    wanted = [ports[name] for name in names]
    request = compiled.create_infer_request()

    def call(feeds: Feeds) -> list[np.ndarray]:
        found = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [found[port] for port in wanted]

    return call


def _edgec(path: Path, names: list[str], settings: dict[str, Any], threads: int) -> Call:
    from edgec.runtime import load

    model = load(path, threads)

    def call(feeds: Feeds) -> list[np.ndarray]:
        found = model.run(feeds)
        return [found[name] for name in names]

    return call


_OPEN = {"onnxruntime": _onnxruntime, "openvino": _openvino, "edgec": _edgec}


def heldout(folder: Path) -> Iterator[Feeds]:
    """The held-out samples as batches of one; an input with fewer rows starts again."""
    stacks = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    for index in range(max(map(len, stacks.values()))):
        rows = {name: index % len(stack) for name, stack in stacks.items()}
        yield {name: np.array(stacks[name][row : row + 1]) for name, row in rows.items()}


def evaluate(case: dict[str, Any], model: str, folder: Path, base: Path, into: Path) -> None:
    """Run every held-out sample and write `into`: one array an output, as the task wants them.

    `base` holds FP32's outputs in full, `<index>.npy`, and is written if it is not there; the
    comparison with them goes to `into` with the suffix `.json`.
    """
    import peers_models

    from edgec.compare import Running
    from edgec.runtime import npz

    reduce = next(one.reduce for one in peers_models.MODELS if one.name == model)
    call, names, kept = opened(case), list(case["outputs"]), []
    writing = not base.is_dir()
    full: list[list[np.ndarray]] = [[] for _ in names]
    if not writing:
        stacks = [np.load(base / f"{index}.npy", mmap_mode="r") for index in range(len(names))]
        running = [Running(model, name) for name in names]
    for row, feeds in enumerate(heldout(folder)):
        found = [np.array(array) for array in call(feeds)]  # copies: OpenVINO's are overwritten
        kept.append(reduce(dict(zip(names, found, strict=True))))
        for index, array in enumerate(found):
            if writing:
                full[index].append(array)
            else:
                running[index].add(stacks[index][row], array)
    if writing:
        _write_reference(full, base)
    else:
        results = {name: vars(one.result()) for name, one in zip(names, running, strict=True)}
        into.with_suffix(".json").write_text(json.dumps(results), encoding="utf-8")
    npz.write(into, {name: np.stack([one[name] for one in kept]) for name in kept[0]})


def _write_reference(full: list[list[np.ndarray]], base: Path) -> None:
    partial = base.with_name(base.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for index, arrays in enumerate(full):
        np.save(partial / f"{index}.npy", np.stack(arrays))
    partial.rename(base)


def answer(case: dict[str, Any], sample: Path) -> None:
    """Serve timings until stdin closes."""
    from edgec.runtime.case import peak_mb

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not disturb the protocol
    with np.load(sample) as arrays:
        feeds = dict(arrays)
    call = opened(case)
    _say(answers, {"ready": True})
    for line in iter(sys.stdin.readline, ""):
        wanted = json.loads(line)
        for _ in range(wanted["warm"]):
            call(feeds)
        _say(answers, {"ms": [_timed(call, feeds) for _ in range(wanted["calls"])]})
    _say(answers, {"peak_mb": peak_mb()})


def _timed(call: Call, feeds: Feeds) -> float:
    begin = time.perf_counter()
    call(feeds)
    return (time.perf_counter() - begin) * 1e3


def _say(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def main(case: str, verb: str, *places: str) -> None:
    if verb == "evaluate":
        evaluate(json.loads(case), places[0], *(Path(place) for place in places[1:]))
    else:
        answer(json.loads(case), Path(places[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
