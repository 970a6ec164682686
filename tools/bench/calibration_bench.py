"""What calibration costs beside onnxruntime and NNCF, and with --accuracy what its methods gain.

Run through `calibration`, which makes the environment. A run goes on where another one stopped. The
README is written only from complete results of all models; methods are in it once they were judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import calibration_accuracy
import calibration_table
import peers
import peers_cache as cache
import readme_block
from calibration_cases import COSTS, TASKS
from calibration_cost import Costs, Results, order
from peers_models import MODELS
from peers_steps import say

MODELS_OF_COST = ("resnet50", "lite0", "minilm")
FEWEST_ROUNDS = 3


def main() -> int:
    arguments = _arguments()
    work, packages = arguments.work, arguments.packages
    work.mkdir(parents=True, exist_ok=True)
    names = TASKS if arguments.accuracy else MODELS_OF_COST
    for model in MODELS:
        if model.name not in names or model.name not in (arguments.only or names):
            continue
        if arguments.accuracy:
            text = calibration_table.methods(calibration_accuracy.judge(model, work, packages))
        else:
            results = Costs(model, work, packages).run(arguments.rounds, arguments.cases or ())
            figures = calibration_table.overview({model.name: results}, [model])
            text = f"{figures}\n\n{calibration_table.costs(results)}"
        print(f"\n{model.title}: {model.about}\n\n{text}\n", flush=True)
    return _publish(work, packages, arguments.write, arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench/calibration", description=__doc__)
    parser.add_argument("--accuracy", action="store_true", help="judge methods, measure no cost")
    both = sorted({*MODELS_OF_COST, *TASKS})
    parser.add_argument("--only", nargs="+", choices=both, metavar="MODEL", help=str(both))
    cases = [case.name for case in COSTS]
    parser.add_argument("--cases", nargs="+", choices=cases, metavar="CASE", help=str(cases))
    parser.add_argument("--rounds", type=int, default=5, help="at least 3 (default: 5)")
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--packages", type=Path, required=True, help="where the data packages are")
    parser.add_argument("--write", type=Path, help="a Markdown page that has the two markers")
    arguments = parser.parse_args()
    if arguments.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds: at least {FEWEST_ROUNDS}")
    arguments.work, arguments.packages = arguments.work.resolve(), arguments.packages.resolve()
    return arguments


def complete(results: Results, rounds: int) -> bool:
    """Whether every case has all its rounds, or a reason why not; what runs once may be missing."""
    done = {(one.case, one.samples, one.turn) for one in results.runs}
    failed = {(one.case, one.samples) for one in results.runs if one.built.problem}
    return all(
        (case.name, samples, turn) in done or (case.name, samples) in failed
        for turn in range(rounds)
        for case, samples in order(turn)
        if samples in case.samples
    )


def _publish(work: Path, packages: Path, page: Path | None, rounds: int) -> int:
    """Write the block, if every model has been measured."""
    models = [model for model in MODELS if model.name in MODELS_OF_COST]
    found = {model.name: Costs(model, work, packages).results() for model in models}
    missing = [name for name, results in found.items() if not complete(results, rounds)]
    if missing:
        say(f"no table yet: not measured are {', '.join(missing)}")
        return 1 if page else 0
    judged = {model.name: calibration_accuracy.kept(model, work) for model in MODELS}
    text = calibration_table.block(found, judged, MODELS, about(found))
    (work / "calibration.md").write_text(text + "\n", encoding="utf-8")
    if page:
        readme_block.write(page, text, "calibration")
    return 0


def about(found: Mapping[str, Results]) -> dict[str, str]:
    """The conditions that the text under the tables states."""
    rounds = min(max(one.turn for one in results.runs) + 1 for results in found.values())
    tools = sorted({one for tool in ("ort", "nncf") for one in cache.versions(tool)})
    return {"rounds": str(rounds), "machine": peers.machine(), "versions": ", ".join(tools)}


if __name__ == "__main__":
    sys.exit(main())
