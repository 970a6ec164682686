"""The verbs of a device: run, bench, verify, finish, info."""

import argparse
import json
import math
import sys
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

from edgec.errors import EdgecError, GoalMissed, InputError, InternalError
from edgec.runtime import cli_bench

EPILOGUE = "Exit codes: 3 input, 4 unsupported, 5 something to install, 7 outside the tolerance."


def main(
    arguments: Optional[List[str]] = None,
    bundle: Optional[str] = None,
    program: str = "python3 -m edgec.runtime",
    keep: Optional[Callable[[Dict[str, Any]], None]] = None,
) -> int:
    """Run a verb and return the exit code. `bundle`: where a bundle runs itself, its own path.

    `keep` gets what `--json` writes, as well.
    """
    options = _parser(bundle, program).parse_args(arguments)
    try:
        _check_json(options.json)
        result: Dict[str, Any] = options.verb(options)
        missed = result.pop("_missed", None)
        _write_json(options.json, result)
        if keep is not None:
            keep(_plain(result))
        if missed is not None:
            raise missed
    except EdgecError as error:
        print("error: {}".format(error), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception:  # the outermost frame: whatever comes here is our defect, and says so
        traceback.print_exc()
        print("error: this is a defect of edgec; please report it", file=sys.stderr)
        return InternalError.exit_code
    return 0


def _parser(bundle: Optional[str], program: str) -> argparse.ArgumentParser:
    program = "python3 " + bundle if bundle else program
    parser = argparse.ArgumentParser(prog=program, description=__doc__, epilog=EPILOGUE)
    verbs = parser.add_subparsers(metavar="VERB", dest="verb_name")
    verbs.required = True

    def add(name: str, verb: Any, about: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about, description=about, epilog=EPILOGUE)
        if bundle is None:
            sub.add_argument("bundle", metavar="BUNDLE", help="a .edgec file or its folder")
        sub.add_argument("--threads", type=_count, metavar="N", help="0: the backend's choice")
        sub.add_argument("--json", metavar="FILE", help="write the result as JSON; - for stdout")
        if bundle is None:
            sub.add_argument(
                "--native-code",
                action="store_true",
                help="run native kernels that the bundle holds: code of whoever made it",
            )
        else:
            sub.set_defaults(native_code=True)  # this very program comes from the bundle
        sub.set_defaults(verb=verb, **({} if bundle is None else {"bundle": bundle}))
        return sub

    run = add("run", _run, "Run the bundle once, on arrays or on what its recipe reads.")
    run.add_argument("--inputs", type=Path, metavar="FILE.npz", help="arrays by input name")
    run.add_argument("--golden", action="store_true", help="the inputs that the bundle brings")
    run.add_argument("--image", metavar="FILE", help="a png, jpg, webp or bmp file")
    run.add_argument("--text", help="the text itself")
    run.add_argument("--audio", metavar="FILE.wav")
    more = "for a reader by its name, where the recipe has several of a kind, or of numbers"
    run.add_argument(
        "--item", type=_pair, action="append", default=[], metavar="NAME=VALUE", help=more
    )
    run.set_defaults(refuse=run.error)
    run.add_argument("--outputs", type=Path, metavar="FILE.npz", help="where the outputs go")
    bench = add("bench", _bench, "Measure latency; each case has a process of its own.")
    cli_bench.add_options(bench, _count)
    add("verify", _verify, "Check the bundle's files, then its results on the golden inputs.")
    finish = add(
        "finish", _finish, "Build on this device what can only be built here, then verify."
    )
    finish.add_argument("--onnxruntime", action="store_true", help="that alone, on any device")
    finish.add_argument("--again", action="store_true", help="forget what was built before")
    finish.add_argument("--seconds", type=_count, default=3600, metavar="N", help="for an engine")
    finish.add_argument("--max-mb", type=_count, default=0, metavar="N", help="for its builder")
    finish.add_argument(
        "--calibrate", type=Path, metavar="FOLDER", help=".npz samples for TensorRT's calibration"
    )
    add("info", _info, "Tell what the bundle is made of.")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _pair(text: str) -> Tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


def _run(options: argparse.Namespace) -> Dict[str, Any]:
    from edgec.runtime import npz
    from edgec.runtime.model import load
    from edgec.runtime.values import describe

    raw = [options.image, options.text, options.audio, options.item or None]
    given = [options.golden, options.inputs is not None, any(one is not None for one in raw)]
    if sum(given) != 1:
        options.refuse("give --inputs, --golden, or what the recipe reads: --image, --text, …")
    if len(dict(options.item)) < len(options.item):
        options.refuse("--item: the same name twice")
    with load(options.bundle, options.threads, native_code=options.native_code) as model:
        if options.golden:
            feeds = model.golden_inputs()
        elif options.inputs is not None:
            feeds = npz.read(options.inputs, str(options.inputs))
        else:
            feeds = _prepared(options, model.bundle)
        outputs = model.run(feeds)
    if options.outputs is not None:
        npz.write(options.outputs, outputs)
    for line in describe(outputs):
        _tell(options, line)
    shapes = {n: {"dtype": str(a.dtype), "shape": list(a.shape)} for n, a in outputs.items()}
    return {"outputs": shapes, "file": str(options.outputs) if options.outputs else None}


def _prepared(options: argparse.Namespace, bundle: Any) -> Dict[str, Any]:
    from edgec.runtime.recipe import open_recipe

    recipe = open_recipe(bundle)
    items: Dict[str, Any] = dict(options.item)
    for kind in ("image", "text", "audio"):
        value = getattr(options, kind)
        names = [name for name, found in recipe.kinds.items() if found == kind]
        if value is not None and (len(names) != 1 or names[0] in items):
            known = ", ".join("{} ({})".format(*pair) for pair in recipe.items.items())
            message = "--{}: the recipe has no single free reader for it".format(kind)
            raise InputError(message, hint="Give --item NAME=VALUE for each of " + known)
        if value is not None:
            items[names[0]] = value
    return recipe.prepare(items)


def _bench(options: argparse.Namespace) -> Dict[str, Any]:
    return cli_bench.run(options, lambda line: _tell(options, line))


def _verify(options: argparse.Namespace) -> Dict[str, Any]:
    from edgec.runtime.model import load

    with load(options.bundle, options.threads, native_code=options.native_code) as model:
        test = model.self_test()
    for check in test.outputs:
        line = "{}: max abs error {:.3g} (limit {:.3g}), cosine {:.6f}: {}".format(
            check.name, check.max_abs, check.limit, check.cosine, check.problem or "ok"
        )
        _tell(options, line)
    result: Dict[str, Any] = {"passed": test.passed}
    result["outputs"] = [check._asdict() for check in test.outputs]
    failed = [check for check in test.outputs if not check.passed]
    if failed:
        worst = failed[0]
        hint = "This device computes something else than the build did. Build for this target, "
        hint += "or compare: python3 BUNDLE run --golden."
        goal = "self-test of output {!r} ({})".format(worst.name, worst.problem)
        result["_missed"] = GoalMissed(goal, worst.max_abs, worst.limit, hint=hint)
    return result


def _finish(options: argparse.Namespace) -> Dict[str, Any]:
    from edgec.runtime.built import waiting
    from edgec.runtime.bundle import Bundle
    from edgec.runtime.finish import Wishes, finish

    with Bundle(options.bundle) as bundle:
        backends = sorted({engine["backend"] for engine in bundle.manifest["engines"]})
        nothing = not waiting(bundle)
    if nothing:
        _tell(options, "nothing has to be built on this device for {}".format(", ".join(backends)))
        return dict(_verify(options), built=[])
    wishes = Wishes(
        onnxruntime=options.onnxruntime,
        again=options.again,
        seconds=float(options.seconds),
        memory=options.max_mb * 10**6,
        calibrate=str(options.calibrate.absolute()) if options.calibrate else "",
        threads=options.threads,
        native_code=options.native_code,
    )
    page = finish(options.bundle, wishes, lambda line: _tell(options, line))
    timings = page["timings"]
    line = "golden sample: {calls} calls, median {p50_ms:.3f} ms, {min_ms:.3f} to {max_ms:.3f} ms"
    _tell(options, line.format(**timings))
    return dict(page, built=sorted(page["engines"]), passed=True)


def _info(options: argparse.Namespace) -> Dict[str, Any]:
    from edgec.runtime.buckets import parse
    from edgec.runtime.bundle import Bundle
    from edgec.runtime.values import values

    with Bundle(options.bundle) as bundle:
        manifest = bundle.manifest
    tool, target, source = manifest["tool"], manifest["target"], manifest["source"]
    _tell(options, "{} for {} ({})".format(source["name"], target["name"], target["stack"]))
    _tell(options, "built by {} {}".format(tool["name"], tool["version"]))
    for what in ("inputs", "outputs"):
        for value in values(manifest[what]):
            _tell(options, "{} {}".format(what[:-1], value))
    if "recipe" in manifest:
        _tell(options, "recipe {}: run takes --image, --text or --audio".format(manifest["recipe"]))
    if "buckets" in manifest:
        _tell(options, "buckets: {}".format(parse(manifest)))
    for engine in manifest["engines"]:
        names = [engine["artifact"]] + engine["data_files"]
        size = sum(manifest["files"][name]["bytes"] for name in names) / 1e6
        line = "engine {}: {} on {}, {:.1f} MB, parts {}"
        parts = ", ".join(engine["parts"])
        _tell(
            options,
            line.format(engine["name"], engine["backend"], engine["device"], size, parts),
        )
        _tell_plan(options, engine)
    for part in manifest["parts"]:
        line = "part {}: {} {} in {}, {} nodes: {}"
        words = [part[key] for key in ("name", "modality", "kind", "scheme", "nodes", "reason")]
        _tell(options, line.format(*words))
    return {key: value for key, value in manifest.items() if key != "files"}


def _tell_plan(options: argparse.Namespace, engine: Dict[str, Any]) -> None:
    if "build" not in engine:
        return
    from edgec.runtime.finish import label

    plan = engine["build"]
    chain = "; else ".join(label(step) for step in plan["steps"])
    gpus = ", ".join(plan["requires"]["capabilities"]) or "any"
    where = "was built ahead" if plan["ready"] else "is built by finish"
    line = "engine {} {} for {}, compute capability {}, TensorRT {}: {}"
    arch, version = plan["requires"]["arch"], plan["requires"]["version"]
    _tell(options, line.format(engine["name"], where, arch, gpus, version, chain))


def _tell(options: argparse.Namespace, line: str) -> None:
    print(line, file=sys.stderr if options.json == "-" else sys.stdout)


def _check_json(target: Optional[str]) -> None:
    """Raises InputError before the work where what comes of it could not be written."""
    if target not in (None, "-"):
        from edgec.runtime.npz import check_writable

        check_writable(Path(str(target)))


def _write_json(target: Optional[str], result: Dict[str, Any]) -> None:
    if target is None:
        return
    text = json.dumps(_plain(result), indent=1, sort_keys=True, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
    else:
        from edgec.runtime.npz import write_bytes

        write_bytes(Path(target), text.encode())


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
