"""ONNX's own node cases through edgec, for each CPU backend: tools/conformance [--write README.md].

Every case goes through load, canonicalise, partition, lower, emit in float and run, and is compared
with its expected outputs. What does not pass is run by the backend alone too: where that passes,
or where edgec computes other numbers and the backend alone refuses, edgec has failed. Results are
kept, and a run goes on where another one stopped, as long as edgec and the packages are the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import conformity_case as one
import numpy as np
import readme_block

import edgec
from edgec.errors import EdgecError
from edgec.isolate import call

CHUNK, SECONDS = 60, 600.0
STATES = (one.PASSED, one.REFUSED, one.SHARED, one.FAILED)
PACKAGES = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "openvino", "numpy")


def cases(work: Path) -> list[Any]:
    """All node cases, in onnx's order. Making them takes half a minute, so they are kept."""
    from onnx.backend.test.case.node import collect_testcases

    kept = work / f"cases-{version('onnx')}.pickle"  # this tool's own file
    if kept.is_file():
        return list(pickle.loads(kept.read_bytes()))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        made = list(collect_testcases(None))
    partial = kept.with_suffix(".partial")
    partial.write_bytes(pickle.dumps(made))
    partial.rename(kept)
    return made


def fingerprint() -> str:
    """Of all that results depend on."""
    digest = hashlib.sha256(" ".join(version(name) for name in PACKAGES).encode())
    for path in sorted([*Path(edgec.__file__).parent.rglob("*.py"), Path(one.__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def judge(wanted: Sequence[Any], backend: str, log: Path) -> None:
    """Judge what the log lacks, many cases a process; a process that dies condemns one case."""
    while True:
        known, begun = read(log)
        left = [case for case in wanted if (case.name, backend) not in known]
        if not left:
            return
        chunk = left[:CHUNK]
        print(f"\r{backend}: {len(left)} left  ", end="", file=sys.stderr, flush=True)
        try:
            call(one.run_all, chunk, backend, log, seconds=SECONDS)
        except EdgecError as error:
            _, begun = read(log)
            if not begun:
                raise
            row = {"case": begun, "state": one.FAILED, "reason": error.message}
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({**row, "backend": backend, "crash": "yes"}) + "\n")


def read(log: Path) -> tuple[dict[tuple[str, str], one.Row], str]:
    """What is known of (case, backend), and the case that was begun last and has not ended."""
    known: dict[tuple[str, str], one.Row] = {}
    begun = ""
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:  # half a line: the process was ended as it wrote
            continue
        if row["state"] == "begun":
            begun = row["case"]
        else:
            known[row["case"], row["backend"]] = row
            begun = ""
    return known, begun


def table(known: dict[tuple[str, str], one.Row], backends: Sequence[str]) -> str:
    """The markdown table: counts, and what is refused, by reason."""
    lines = ["| backend | cases | passed | refused, as alone | other numbers, as alone | failed |"]
    lines.append("|---" * 6 + "|")
    for backend in backends:
        rows = [row for (_, name), row in known.items() if name == backend]
        counts = Counter(row["state"] for row in rows)
        cells = [backend, len(rows), *(counts[s] for s in STATES)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/conformance", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="where results are kept")
    parser.add_argument("--backend", choices=one.BACKENDS, help="this one alone")
    parser.add_argument("--only", default="", help="cases whose name contains this, judged anew")
    parser.add_argument("--again", type=Path, help="judge only what failed in this log, anew")
    parser.add_argument("--write", type=Path, help="a Markdown page that has the two markers")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = [str(Path(__file__).resolve().parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)  # subprocesses import `conformity_case`
    backends = [arguments.backend] if arguments.backend else list(one.BACKENDS)
    log = arguments.work / f"{fingerprint()}.jsonl"
    found = cases(arguments.work)
    narrowed = arguments.only or arguments.again
    if narrowed:
        log = arguments.work / "narrowed.jsonl"
        log.unlink(missing_ok=True)
    for backend in backends:
        wanted = [case for case in found if arguments.only in case.name]
        if arguments.again:
            before, _ = read(arguments.again)
            bad = {k for (k, b), row in before.items() if b == backend and row["state"] == "failed"}
            wanted = [case for case in wanted if case.name in bad]
        judge(wanted, backend, log)
    print(file=sys.stderr)
    known, _ = read(log)
    for (name, backend), row in known.items():
        if row["state"] == one.FAILED or (narrowed and row["state"] != one.PASSED):
            print(f"{row['state']} on {backend}: {name}: {row['reason']}", file=sys.stderr)
    text = table(known, backends)
    print(text)
    print(f"results: {log}", file=sys.stderr)
    if arguments.write and not narrowed:
        readme_block.write(arguments.write, text, "conformance")
    return 1 if any(row["state"] == one.FAILED for row in known.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
