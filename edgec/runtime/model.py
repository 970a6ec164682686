"""A bundle as a function: feeds to outputs, checked, from any number of threads."""

from pathlib import Path
from types import TracebackType
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Tuple, Type, Union

from edgec.errors import InputError
from edgec.runtime import buffers
from edgec.runtime.buckets import parse, serve, takes
from edgec.runtime.built import Choice, resolve
from edgec.runtime.bundle import Bundle
from edgec.runtime.openers import BUILT_IN, Session, opener
from edgec.runtime.selftest import SelfTest, compare, compare_with_float
from edgec.runtime.values import Value, fit, values


class Model:
    """The engines of a bundle, opened once; `inputs` and `outputs` say what it takes and gives.

    `run` may be called from several threads at once; `close` may not run beside it.
    """

    def __init__(
        self,
        bundle: Bundle,
        threads: Optional[int] = None,
        settings: Optional[Mapping[str, Any]] = None,
        choices: Optional[Mapping[str, Choice]] = None,
        native_code: bool = False,
    ) -> None:
        """As `load` says. `threads`: 0 leaves it to the backend, None keeps the bundle's.

        `choices`: how engines with a build plan are opened, instead of as `finish` left them.
        """
        self.bundle = bundle
        self.inputs: Tuple[Value, ...] = values(bundle.manifest["inputs"])
        self.outputs: Tuple[Value, ...] = values(bundle.manifest["outputs"])
        self._buckets = parse(bundle.manifest)
        self._takes = takes(self.inputs, self._buckets)
        self._steps: List[_Step] = []
        last_use = _last_uses(bundle.manifest)
        try:
            if not native_code:
                refuse_native_code(bundle.manifest)
            ready = resolve(bundle, choices)
            for index, (engine, one) in enumerate(zip(bundle.manifest["engines"], ready)):
                given = _given(settings or {}, one.backend, bundle.manifest)
                chosen = dict(one.settings, **given)
                chosen["device"] = one.device
                chosen["neighbours"] = len(bundle.manifest["engines"]) - 1
                if threads is not None:
                    chosen["threads"] = threads
                session = opener(one.backend)(one.source, chosen)
                done = frozenset(name for name, last in last_use.items() if last == index)
                self._steps.append(_Step(engine, session, done))
        except BaseException:
            self.close()
            raise

    def run(
        self, feeds: Mapping[str, Any], out: Optional[Mapping[str, Any]] = None
    ) -> Dict[str, Any]:
        """Arrays by input name -> new arrays by output name, never changed by a later call.

        `out`: arrays of the caller's, by output name, for results to be written into; they are
        returned in place of new ones. Where the bundle has buckets, captions may come with any
        padding or none. Raises InputError naming the input that is missing, unknown, or does not
        fit in dtype, rank, size or range, or the array that cannot take its output.
        """
        if not self._steps:
            raise InputError("the model is closed", hint="Load it again.")
        fitted, given = fit(feeds, self._takes), dict(out or {})
        names = [value.name for value in self.outputs]
        unknown = sorted(str(name) for name in given if name not in names)
        if unknown:
            message = "unknown output " + ", ".join(unknown)
            raise InputError(message, hint="The model makes " + ", ".join(names))
        buffers.check(given, fitted)
        # with buckets, the engines make an output in another size than the caller gets
        direct = {} if self._buckets is not None else given
        made = serve(lambda known: self._run(known, direct), fitted, self._buckets)
        buffers.fill(given, made)
        return made

    def _run(self, known: Dict[str, Any], out: Mapping[str, Any]) -> Dict[str, Any]:
        """The engines in their order; `known` is used up."""
        outputs: Dict[str, Any] = {}
        wanted = {value.name for value in self.outputs}
        outputs.update((name, known[name].copy()) for name in wanted & set(known))
        for step in self._steps:
            made = step.run(known, out)
            outputs.update((name, made[name]) for name in wanted & set(made))
            known.update(made)
            for name in step.done:
                known.pop(name, None)  # so that the backend can use its memory again
        return {value.name: outputs[value.name] for value in self.outputs}

    def prepare(self, items: Mapping[str, Any]) -> Dict[str, Any]:
        """Pictures, texts and sounds by the names of the recipe's readers -> feeds for `run`.

        Raises InputError: no recipe, or an item that is missing, unknown or not usable.
        """
        from edgec.runtime.recipe import prepare

        if not self._steps:
            raise InputError("the model is closed", hint="Load it again.")
        return prepare(self.bundle, items)

    def golden_inputs(self) -> Dict[str, Any]:
        """The golden sample's inputs."""
        return self.bundle.arrays(self.bundle.manifest["golden"]["inputs"])

    def self_test(self) -> SelfTest:
        """Run the golden sample and compare within the manifest's tolerance."""
        golden = self.bundle.manifest["golden"]
        expected = self.bundle.arrays(golden["outputs"])
        missing = [value.name for value in self.outputs if value.name not in expected]
        if missing:
            message = "the golden data lack output " + ", ".join(missing)
            raise InputError(message, hint="Build the bundle again.")
        made, relative = self.run(self.golden_inputs()), golden["tolerance"]["relative"]
        if "float" not in golden:
            return compare(made, expected, relative)
        exact = self.bundle.arrays(golden["float"])
        return compare_with_float(made, expected, exact, relative)

    def close(self) -> None:
        """Release the engines and the bundle."""
        for step in self._steps:
            step.session.close()
        self._steps = []
        self.bundle.close()

    def __enter__(self) -> "Model":
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


class _Step:
    """One engine in its place: what it reads, makes, and is the last one to read (`done`)."""

    def __init__(self, engine: Mapping[str, Any], session: Session, done: FrozenSet[str]) -> None:
        self.session = session
        self.done = done
        self._label = "engine {!r}".format(engine["name"])
        self._inputs: List[str] = engine["inputs"]
        self._outputs: List[str] = engine["outputs"]

    def run(self, known: Mapping[str, Any], out: Mapping[str, Any]) -> Dict[str, Any]:
        feeds = {name: known[name] for name in self._inputs}
        mine = {name: out[name] for name in self._outputs if name in out}
        # not every backend can write where it is told; the model copies then
        run_into = getattr(self.session, "run_into", None) if mine else None
        made = run_into(feeds, mine) if run_into else self.session.run(feeds)
        missing = [name for name in self._outputs if name not in made]
        if missing:
            message = "{} does not make {}".format(self._label, ", ".join(missing))
            raise InputError(message, hint="Build the bundle again.")
        return {name: made[name] for name in self._outputs}


def refuse_native_code(manifest: Mapping[str, Any]) -> None:
    """Raise InputError where a bundle holds code of others that opening its engines would run."""
    files: List[str] = []
    for engine in manifest["engines"]:
        if engine["settings"].get("kernels"):
            files += engine["data_files"] or [engine["artifact"]]
        for plugin in engine.get("build", {}).get("plugins", ()):
            files += [plugin["cubin"], plugin["launch"]]
    if files:
        message = "the bundle holds native kernels ({}), whose code would run here"
        hint = "If you trust where it comes from: --native-code, or load(path, native_code=True)."
        raise InputError(message.format(", ".join(sorted(set(files)))), hint=hint)


def _last_uses(manifest: Mapping[str, Any]) -> Dict[str, int]:
    last: Dict[str, int] = {}
    for index, engine in enumerate(manifest["engines"]):
        for name in engine["inputs"] + engine["outputs"]:
            last[name] = index
    return last


def _given(
    settings: Mapping[str, Any], backend: str, manifest: Mapping[str, Any]
) -> Dict[str, Any]:
    """Of the caller's settings those for a backend's engines: its own go before those of all."""
    backends = set(BUILT_IN) | {engine["backend"] for engine in manifest["engines"]}
    chosen = {key: value for key, value in settings.items() if key not in backends}
    for name in sorted(backends & set(settings)):
        if not isinstance(settings[name], Mapping):
            shown = repr(settings[name])[:100]
            message = "the settings of backend {} are no mapping: {}".format(name, shown)
            raise InputError(message, hint="Give settings by name: {name: {setting: value}}.")
    chosen.update(settings.get(backend, {}))
    return chosen


def load(
    path: Union[str, Path],
    threads: Optional[int] = None,
    settings: Optional[Mapping[str, Any]] = None,
    native_code: bool = False,
) -> Model:
    """Open and verify the bundle at `path` (a `.edgec` file or its folder) and its engines.

    `native_code`: whether native kernels of custom ops may be run, which are code of whoever made
    the bundle; one that has such kernels is refused otherwise.

    `settings` override those of the engines: of all, or, under the name of a backend, of its own:
    `{"onnxruntime": {"spinning": "never"}, "openvino": {"hint": "throughput"}}`. Names of built-in
    backends that the bundle does not use are no mistake.
    Raises InputError (bundle, settings), ToolchainError (backend).
    """
    return Model(Bundle(path), threads, settings, native_code=native_code)
