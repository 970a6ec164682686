"""Mutants of real models against all that edgec does before a backend: tools/fuzz --help."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from corpus import corpus
from minimise import minimise
from mutants import Mutant, make, parses
from pipeline import examine, warm

IN_ACCESS, IN_OPEN = 0x1, 0x20  # of inotify, see man 7 inotify
IN_NONBLOCK = 0o4000
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "fuzz"
WRITE = 0.3  # the share of mutants that are written out
MOST_MEGABYTES = 2048  # the largest of the real models takes 1,200


class Folder:
    """A model's folder with traps around it: links that leave it, a pipe, a canary outside."""

    def __init__(self, place: Path) -> None:
        self.inner = place / "inner"
        (self.inner / "sub").mkdir(parents=True)
        (place / "out").mkdir()
        self.model = self.inner / "model.onnx"
        canary = place / "canary.bin"
        canary.write_bytes(b"\x42" * 65536)
        (self.inner / "w.bin").write_bytes(bytes(range(256)) * 256)
        here = Path(__file__).resolve().parents[2] / "tests" / "fixtures"
        for name in ("external.bin", "hostile/short.bin"):
            shutil.copy(here / name, self.inner)
        (self.inner / "link.bin").symlink_to(canary)
        (self.inner / "linked").symlink_to(place)
        os.link(canary, self.inner / "hard.bin")
        os.mkfifo(self.inner / "pipe.bin")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watch = self._libc.inotify_init1(IN_NONBLOCK)
        if self._libc.inotify_add_watch(self._watch, bytes(canary), IN_ACCESS | IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self._out = place / "out"

    def touched(self) -> bool:
        """Whether anyone, also C++, has opened the canary since the last call."""
        try:
            return bool(os.read(self._watch, 65536))
        except BlockingIOError:
            return False

    def clear(self) -> None:
        for file in self._out.iterdir():
            file.unlink()


def run(folder: Folder, mutant: Mutant, seed: int) -> dict[str, Any]:
    """Everything that is to be known of one mutant."""
    folder.model.write_bytes(mutant.data)
    write = (mutant.number * 7919 + seed) % 100 < WRITE * 100
    result = examine(folder.model, mutant.number, write)
    folder.clear()
    if not result["finding"] and result["megabytes"] > MOST_MEGABYTES:
        result.update(finding="memory", error=f"{result['megabytes']} MB by {result['stage']}")
    if folder.touched():
        result.update(finding="outside", error="the canary was opened")
    head = {"number": mutant.number, "base": mutant.base, "recipe": mutant.recipe}
    return {**head, "parses": parses(mutant.data), **result}


def figures(results: list[dict[str, Any]]) -> str:
    """The summary of a run."""
    count = len(results)
    parsed = sum(r["parses"] for r in results)
    loaded = sum(bool(r.get("loaded")) for r in results)
    kinds = Counter(r["finding"] for r in results if r["finding"])
    lines = [
        f"{count} mutants, {parsed} ({parsed / max(count, 1):.0%}) still parse as a model, "
        f"{loaded} ({loaded / max(count, 1):.0%}) are accepted by load",
        "reached: "
        + ", ".join(f"{n} {s}" for s, n in Counter(r["stage"] for r in results).items()),
        "refused: "
        + ", ".join(f"{n} {s}" for s, n in Counter(r.get("refused") for r in results).items() if s),
        f"most CPU {max((r['seconds'] for r in results), default=0):.1f} s, most memory "
        f"{max((r['megabytes'] for r in results), default=0)} MB",
        "findings: " + (", ".join(f"{n} {kind}" for kind, n in kinds.items()) or "none"),
    ]
    places = Counter(
        (r["finding"], r.get("where") or r.get("error", "")) for r in results if r["finding"]
    )
    for (kind, place), number in places.most_common(40):
        first = next(
            r["number"]
            for r in results
            if r["finding"] == kind and (r.get("where") or r.get("error", "")) == place
        )
        lines.append(f"  {number:4} {kind}: {place} (first: {first})")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/fuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=500, help="how many (500)")
    parser.add_argument("--seed", type=int, default=1, help="other seed, other mutants (1)")
    parser.add_argument("--start", type=int, default=0, help="the number of the first")
    parser.add_argument("--log", type=Path, help="results, a line a mutant; goes on from there")
    parser.add_argument("--only", type=int, help="run this mutant alone, and tell all")
    parser.add_argument("--save", type=Path, help="with --only: write its file there")
    parser.add_argument("--minimise", action="store_true", help="with --only: make it small first")
    options = parser.parse_args()
    bases = corpus(CACHE)
    warm()
    with tempfile.TemporaryDirectory(prefix="edgec-fuzz-") as place:
        folder = Folder(Path(place))
        if options.only is not None:
            mutant = make(bases, options.seed, options.only)
            result = run(folder, mutant, options.seed)
            if options.minimise and result["finding"]:
                mutant = minimise(
                    bases, options.seed, mutant, result, lambda m: run(folder, m, options.seed)
                )
                result = run(folder, mutant, options.seed)
            print(json.dumps(result, indent=1), f"\n{len(mutant.data)} bytes")
            if options.save:
                options.save.write_bytes(mutant.data)
            return bool(result["finding"])
        results = _resume(options.log)
        known = {r["number"] for r in results}
        with (options.log or Path(os.devnull)).open("a", encoding="utf-8") as log:
            for number in range(options.start, options.start + options.mutants):
                if number in known:
                    continue
                result = run(folder, make(bases, options.seed, number), options.seed)
                results.append(result)
                log.write(json.dumps(result) + "\n")
                log.flush()
                if sys.stderr.isatty() or number % 500 == 0:
                    found = sum(bool(r["finding"]) for r in results)
                    print(f"{len(results)} done, {found} findings", file=sys.stderr, flush=True)
    print(figures(results))
    return int(any(r["finding"] for r in results))


def _resume(log: Path | None) -> list[dict[str, Any]]:
    if log is None or not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


if __name__ == "__main__":
    sys.exit(main())
