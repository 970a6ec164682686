"""edgec beside other tools: makes models, builds every case, measures, writes table and plot.

Run through `peers`, which makes the environments. A run goes on where another one stopped: see
`peers_steps` for what is kept. The README is written only from complete results of all models.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import peers_cache as cache
import peers_cases
import peers_plot
import peers_steps as steps
import peers_table
import readme_block
from peers_models import MODELS
from peers_types import Row

PLOT = Path(__file__).with_name("peers.svg")
FEWEST_ROUNDS = 7


def main() -> int:
    arguments = _arguments()
    work: Path = arguments.work
    chosen = [model for model in MODELS if not arguments.only or model.name in arguments.only]
    clocks = []
    for model in chosen:
        bench = steps.Bench(model, work, arguments.packages)
        numbered = peers_cases.cases(model.kind, arguments.cases or ())
        rows = bench.run(numbered, arguments.rounds, arguments.until, arguments.fresh or ())
        if rows:
            print(f"\n{model.title}: {model.about}\n\n{peers_table.table(rows)}\n", flush=True)
        if arguments.until == steps.STEPS[-1] and not arguments.cases:
            bench.keep(rows)
        clocks.append(f"{model.name}: " + _spent(bench.seconds))
        steps.say(clocks[-1])
    steps.say("seconds\n" + "\n".join(clocks))
    if arguments.until == steps.STEPS[-1] and not arguments.cases:
        return _publish(work, arguments.write)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/peers", description=__doc__)
    models = [model.name for model in MODELS]
    parser.add_argument("--only", nargs="+", choices=models, metavar="MODEL", help=str(models))
    parser.add_argument(
        "--cases", nargs="+", choices=peers_cases.names(), metavar="CASE", help="these and the base"
    )
    parser.add_argument("--rounds", type=int, default=11, help="at least 7 (default: 11)")
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--packages", type=Path, required=True, help="where the data packages are")
    parser.add_argument("--until", choices=steps.STEPS, default=steps.STEPS[-1], help="last step")
    parser.add_argument(
        "--fresh", nargs="+", choices=peers_cases.tools(), metavar="TOOL", help="build these anew"
    )
    parser.add_argument("--write", type=Path, help="a Markdown page that has the two markers")
    arguments = parser.parse_args()
    if arguments.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds: at least {FEWEST_ROUNDS}")
    arguments.work, arguments.packages = arguments.work.resolve(), arguments.packages.resolve()
    return arguments


def _publish(work: Path, page: Path | None) -> int:
    """Write the block and the plot, if every model has been measured."""
    found = {model.name: rows for model in MODELS if (rows := steps.kept(model, work))}
    missing = [model.name for model in MODELS if model.name not in found]
    if missing:
        steps.say(f"no table yet: not measured are {', '.join(missing)}")
        return 1 if page else 0
    text = peers_table.block(found, MODELS, about(found), "tools/bench/peers.svg")
    plot = peers_plot.draw([(model.title, found[model.name]) for model in MODELS])
    (work / "peers.md").write_text(text + "\n", encoding="utf-8")
    (work / "peers.svg").write_text(plot, encoding="utf-8")
    if page:
        readme_block.write(page, text, "peers")
        PLOT.write_text(plot, encoding="utf-8")
    return 0


def about(found: Mapping[str, Sequence[Row]]) -> dict[str, str]:
    """The conditions that the text under the table states."""
    rounds = {len(row.speed.medians) for rows in found.values() for row in rows if row.speed}
    _, flags = _processor()
    tools = sorted({one for tool in ("ort", "nncf") for one in cache.versions(tool)})
    olive = cache.olive_version()
    return {
        "rounds": str(min(rounds)),
        "bf16": "does" if flags & {"avx512_bf16", "amx_bf16"} else "does not",
        "machine": machine(),
        "versions": ", ".join([*tools, *([f"olive-ai {olive}"] if olive else [])]),
    }


def machine() -> str:
    """The processor, for a table's last line."""
    processor, flags = _processor()
    vnni = ", AVX512-VNNI" if "avx512_vnni" in flags else ""
    return f"{processor}, {os.cpu_count()} cores{vnni}"


def _processor() -> tuple[str, set[str]]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine(), set()
    pairs = (line.partition(":") for line in lines)
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    return fields.get("model name", platform.machine()), set(fields.get("flags", "").split())


def _spent(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{step} {spent:.0f}" for step, spent in seconds.items())


if __name__ == "__main__":
    sys.exit(main())
