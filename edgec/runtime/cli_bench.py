"""The verb `bench` of a device: options, the table, the gate."""

import argparse
import math
from pathlib import Path
from typing import Any, Callable, Dict, List

from edgec.errors import EdgecError, InputError
from edgec.runtime.goals import MEASURED, RELATIVE, enforce, fail_if, total_power
from edgec.runtime.scenarios import HARNESSES, SCENARIOS, Load

EXAMPLE = "fail where this holds, such as 'p95>20ms'; several times; exit code 7. Of: {}"


def add_options(parser: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """The options of `bench`."""
    add = parser.add_argument
    add("--inputs", type=Path, metavar="FILE.npz", help="default: the golden inputs")
    add("--against", type=Path, metavar="MODEL", help="an .onnx file or a bundle, interleaved")
    add("--rounds", type=count, default=7, metavar="N")
    add("--calls", type=count, default=10, metavar="N", help="queries of a round, at least")
    add("--seconds", type=_number, default=0.0, metavar="S", help="of a round, at least")
    add("--warmup", type=count, default=5, metavar="N", help="calls")
    names = {name.lower(): name for name in SCENARIOS}
    add(
        "--scenario",
        type=lambda text: names.get(text.lower(), text),
        choices=SCENARIOS,
        default=SCENARIOS[0],
        help="of MLPerf; default: %(default)s",
    )
    about = "LoadGen where it is installed (mlcommons-loadgen), else a plain timer"
    add("--harness", choices=HARNESSES, default=HARNESSES[0], help=about)
    add("--samples", type=count, default=8, metavar="N", help="in a query of MultiStream")
    add("--qps", type=_number, default=0.0, metavar="N", help="queries a second that Server gets")
    add("--bound", type=_number, default=0.0, metavar="MS", help="within which Server answers 99%%")
    again = "attempts more where the device throttled or was busy; default: 2"
    add("--repeat", type=count, default=2, metavar="N", help=again)
    add("--pause", type=_number, default=2.0, metavar="S", help="before an attempt more")
    about = EXAMPLE.format(", ".join(MEASURED))
    add("--fail-if", action="append", default=[], metavar="CONDITION", help=about)


def run(options: argparse.Namespace, tell: Callable[[str], None]) -> Dict[str, Any]:
    """Measure, and judge what `--fail-if` asks."""
    from edgec.runtime.benchmark import Wish, benchmark

    goals = [fail_if(text) for text in options.fail_if]
    if options.against is None and any(one.metric in RELATIVE for one in goals):
        message = "--fail-if: ratio and speedup compare with another model"
        raise InputError(message, hint="Give --against MODEL.")
    load = Load(
        options.scenario,
        options.harness,
        options.seconds,
        max(1, options.samples),
        options.qps,
        options.bound,
    )
    wish = Wish(
        bundle=Path(options.bundle),
        against=options.against,
        inputs=options.inputs,
        threads=options.threads,
        rounds=options.rounds,
        calls=options.calls,
        warmup=options.warmup,
        load=load,
        repeat=options.repeat,
        pause=options.pause,
        native_code=options.native_code,
    )
    page = benchmark(wish, tell)
    show(page, tell)
    try:
        page["goals"] = [one._asdict() for one in enforce(page, goals)]
    except EdgecError as error:
        page["_missed"] = error
    return page


def show(page: Dict[str, Any], tell: Callable[[str], None]) -> None:
    """The page as a table for people, and what to know of it."""
    line = "{:<24} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.1f} {:>8.0f}"
    heads = ("p50 ms", "p95 ms", "p99 ms", "min ms", "max ms", "samples/s", "peak MB")
    tell("{:<24} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}".format(page["scenario"], *heads))
    for case in page["cases"]:
        keys = ("p50", "p95", "p99", "low", "high", "per_second", "peak_mb")
        tell(line.format(case["label"][:24], *(case[key] for key in keys)))
    if "ratio" in page:
        text = "bundle takes {:.3f} of {}'s time (quartiles {:.3f} to {:.3f}, {} rounds)"
        compared, rounds = page["ratio"], page["cases"][0]["rounds"]
        other = page["cases"][1]["label"]
        tell(text.format(compared["median"], other, compared["low"], compared["high"], rounds))
    for case in page["cases"]:
        if case["invalid"]:
            text = "{}: {} of {} rounds are not valid to {}, --calls gives it more queries: {}"
            words = (case["label"], len(case["invalid"]), case["rounds"], page["harness"])
            tell(text.format(*words, case["invalid"][0]))
    tell("{}; {} queries".format(page["label"], page["cases"][0]["queries"]))
    for line in _conditions(page["conditions"]):
        tell(line)
    for mark in page["marks"]:
        tell("marked: " + mark)
    spoilt = sum(bool(one["marks"]) for one in page["attempts"])
    if page["marks"]:
        tell("all {} attempts were marked: these figures are the last one's".format(spoilt))
    elif spoilt:
        tell("attempts that were marked and left out: {}".format(spoilt))


def _conditions(page: Dict[str, Any]) -> List[str]:
    load, found = page["load"], []
    if "other_cpus" in load:
        text = "other work {other_cpus:.2f} and hypervisor {stolen_cpus:.2f} of {cores} CPUs"
        found.append(text.format(**load))
    cores = ("clock_mhz/policy", "clock_mhz/cpu")
    for what, prefix, unit in (("clock", cores, "MHz"), ("temperature", ("temperature_c/",), "C")):
        gauges = [one for key, one in page["gauges"].items() if key.startswith(prefix)]
        if gauges:
            low, high = min(one["min"] for one in gauges), max(one["max"] for one in gauges)
            found.append("{} {:.4g} to {:.4g} {}".format(what, low, high, unit))
    watts = total_power(page["gauges"])
    if watts is not None:
        found.append("power {:.3g} W".format(watts))
    for key in ("scaling_governor", "power_mode"):
        if key in page["settings"]:
            found.append("{} {}".format(key.replace("_", " "), page["settings"][key]))
    lines = ["; ".join(found)] if found else []
    if page["unseen"]:
        lines.append("not seen on this machine: " + ", ".join(page["unseen"]))
    return lines


def _number(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError("must be a number, and not negative")
    return value
