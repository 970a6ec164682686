"""TensorRT: Q/DQ in its own grid, and the engine where it can be built without the GPU.

TensorRT-RTX builds engines on the host for GPUs that are not here. Every other engine is built on
the device by `finish`, from what lies in the bundle: the quantized ONNX, the calibration cache
where that TensorRT reads one, and the build plan. No GPU computes here, so ONNX Runtime stands in:
the same ONNX file, which is the target's own grid, with all graph optimisations off.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgec.backends.onnxruntime import _misplaced as misplaced
from edgec.backends.onnxruntime.audit import Found, planned
from edgec.backends.onnxruntime.cut import cut
from edgec.backends.openvino.audit import emitted
from edgec.backends.tensorrt import plan
from edgec.backends.tensorrt.calibration_cache import dump
from edgec.backends.tensorrt.half import half, rounded
from edgec.backends.tensorrt.prepare import float_biases, ranges, refusal, unquantized
from edgec.errors import EmitError, UnsupportedError
from edgec.graphs import QUANTIZERS, save
from edgec.isolate import TIME_LIMIT, most_memory
from edgec.kernels.plugins import prepare
from edgec.lower import lower
from edgec.results import STAND_IN, Artifact, Engine, StandIn
from edgec.runtime.apart import run
from edgec.runtime.tensorrt_layers import Layer
from edgec.types import Decision, Part, Scheme

RTX = "pip install 'edgec[tensorrt-rtx]'"
LOG = ".build.log"


class Backend:
    """Prepares an engine for TensorRT; builds it where no GPU is needed for that."""

    def emit(
        self, engine: Engine, decisions: Mapping[str, Decision], into: Path, threads: int
    ) -> Artifact:
        """See `backends.Backend`."""
        made = _Models(engine, decisions, into)
        asked = emitted(made.grid, decisions)
        wanted = planned(engine, decisions, asked)
        artifact = Artifact(
            engine=engine.name,
            backend=engine.runtime.backend,
            device=engine.runtime.device,
            path=made.shipped,
            data_files=(),
            parts=engine.parts,
            inputs=engine.inputs,
            outputs=engine.outputs,
            settings={},
            planned=wanted.counts,
            emitted=asked.counts,
            optimised=asked.counts,
            misplaced=misplaced(decisions, wanted, asked, asked),
            notes=made.notes,
            stand_in=StandIn("onnxruntime", made.stand_in, STAND_IN, made.label),
            build=plan.build(engine, made.steps, ready=False, plugins=made.plugins),
            spares=made.spares,
            side_files=made.side_files,
            half=made.half,
        )
        tool = engine.runtime.toolchain
        if tool.built_on != "host":
            note = f"{engine.name}: {tool.name} {tool.version} builds it on the device: "
            return _noted(artifact, note + "python3 BUNDLE finish; not verified on hardware")
        if find_spec(plan.MODULES[tool.name]) is None:
            note = f"{engine.name}: built on the device by finish; {RTX} builds it here"
            return _noted(artifact, note)
        return _built(engine, decisions, artifact, wanted, asked, into)

    def cut(self, artifact: Artifact, part: Part, into: Path) -> Path:
        """See `backends.Backend`: out of the stand-in, in its numbers."""
        path = into / f"{part.name}.built.onnx"
        save(cut(ir.load(artifact.opened.path), part.inputs, part.outputs), path)
        return path

    def forecast(self, engine: Engine) -> str:
        """What building it here will take, or an empty text."""
        if engine.runtime.toolchain.built_on != "host":
            return ""
        need, most = plan.memory(engine) / 1e6, most_memory() / 1e6
        return f"the builder needs up to about {need:.0f} MB of memory; its limit is {most:.0f} MB"


class _Models:
    """The ONNX files of an engine, and the steps that use them."""

    def __init__(self, engine: Engine, decisions: Mapping[str, Decision], into: Path) -> None:
        self._engine, self._into = engine, into
        tool = engine.runtime.toolchain
        self.grid = float_biases(engine.model)
        if why := refusal(self.grid):
            raise EmitError(why, hint="quantize the float model with edgec instead")
        quantized = any(node.op_type in QUANTIZERS for node in self.grid.graph)
        keep = _float32(decisions, None)
        fp16 = engine.precision is Scheme.FLOAT16
        typed = tool.strongly_typed == "always" or (tool.strongly_typed == "optional" and fp16)
        halved = half(self.grid, keep) if fp16 else self.grid
        self.half = fp16 and typed
        implicit = quantized and tool.quantization[0] == "implicit"
        # where flags decide, nothing forbids FP16 but the lack of its flag
        flagged = fp16 and not _float32(decisions, engine.parts)
        self.spares: dict[str, Path] = {}
        self.side_files: tuple[Path, ...] = ()
        self.notes: tuple[str, ...] = ()
        self.steps: list[dict[str, Any]] = []
        explicit = halved if typed else self.grid
        plain = "float16" if fp16 else "float32"
        if not implicit:
            self.shipped = self._save(explicit, "")
            model = self._place(self.shipped)
            form = "explicit" if quantized else "plain"
            first = "int8" if quantized else plain
            if not typed and not quantized and not flagged:
                first = "float32"
            self.steps.append(plan.step("tensorrt", first, form, model, typed=typed, half=flagged))
        if quantized and "implicit" in tool.quantization:
            self._implicit(first=implicit, half=flagged)
        if implicit:
            model = self._spare(self._save(explicit, "explicit"))
        if quantized:
            source = lower(engine.source, replace(engine.runtime, natives={}), engine.off)
            floats = self._save(half(source, keep) if fp16 else source, plain)
            self.steps.append(
                plan.step("tensorrt", plain, "plain", self._spare(floats), typed=typed)
            )
        last, form = ("int8", "explicit") if quantized else (plain, "plain")
        self.steps.append(plan.step("onnxruntime", last, form, model))
        self.plugins: list[dict[str, Any]] = []
        if engine.plugged is not None and not implicit:
            self._plugged(engine.plugged, keep, fp16=fp16)
        self.stand_in = self._save(rounded(self.grid, keep) if fp16 else self.grid, "stand_in")
        rest = "float ops rounded to FP16" if fp16 else "float ops in FP32"
        self.label = (
            f"{engine.name}: checked by ONNX Runtime in its place, on the same Q/DQ with {rest}, "
            "optimisations off; not verified on hardware"
        )

    def _plugged(self, model: ir.Model, keep: frozenset[str], *, fp16: bool) -> None:
        """The first step: the same model with its custom ops as plugins, which take float32."""
        engine, natives = self._engine, self._engine.runtime.natives
        ops = [f"{node.domain}::{node.op_type}" for node in model.graph]
        names = {str(n.name) for n, op in zip(model.graph, ops, strict=True) if op in natives}
        first, grid = self.steps[0], float_biases(model)
        bare = self._save(half(grid, keep | names) if fp16 and first["typed"] else grid, "bare")
        path = bare.with_name(f"{engine.name}.plugins.onnx")
        prepare(bare, path, natives, engine.runtime.toolchain.version)
        bare.unlink()
        chosen = [natives[key] for key in sorted(set(ops) & set(natives))]
        files = [
            Path(shutil.copyfile(file, self._into / file.name))
            for one in chosen
            for file in one.files
        ]
        self.plugins = [dict(one.plugin) for one in chosen]
        self.side_files = (*self.side_files, path, *files)
        self.steps.insert(0, {**first, "model": self._place(path), "plugins": True})

    def _implicit(self, *, first: bool, half: bool) -> None:
        """The float model and the calibration cache, with the head that the version wants."""
        name = self._engine.name
        cache = self._into / f"{name}.calibration"
        version = self._engine.runtime.toolchain.version
        cache.write_text(dump(ranges(self.grid), version), encoding="utf-8")
        self.side_files = (cache,)
        floats = self._save(unquantized(self.grid), "float")
        if first:
            self.shipped = floats
        model = self._place(floats) if first else self._spare(floats)
        self.steps.append(
            plan.step("tensorrt", "int8", "implicit", model, half=half, cache=self._place(cache))
        )

    def _save(self, model: ir.Model, kind: str) -> Path:
        path = self._into / f"{self._engine.name}{'.' + kind if kind else ''}.onnx"
        files = save(model, path)
        if len(files) > 1:
            raise UnsupportedError(
                f"engine {self._engine.name} has more than 1 GiB of weights",
                hint="build its parts one by one: joining = per-part in a policy",
            )
        return path

    def _place(self, path: Path) -> str:
        return f"engines/{path.name}"

    def _spare(self, path: Path) -> str:
        name = f"spares/{path.name}"
        self.spares[name] = path
        return name


def _float32(decisions: Mapping[str, Decision], parts: Collection[str] | None) -> frozenset[str]:
    """Nodes that were decided to compute in float32, of these parts; None: of all, and of none."""
    return frozenset(
        name
        for name, one in decisions.items()
        if one.scheme is Scheme.FLOAT32 and (parts is None or one.part in parts)
    )


def _built(
    engine: Engine,
    decisions: Mapping[str, Decision],
    artifact: Artifact,
    wanted: Found,
    asked: Found,
    into: Path,
) -> Artifact:
    """The artifact with its engine, built in a process of its own."""
    build = dict(artifact.build)
    path, log = into / f"{engine.name}.engine", into / f"{engine.name}{LOG}"
    first = build["steps"][0]
    request = {
        "module": build["module"],
        "model": str(artifact.path),
        "engine": str(path),
        "log": str(log),
        **{key: first[key] for key in ("precision", "form", "typed", "half")},
        "cache": "",
        "batches": "",
        "workspace": 0,
        "timing_cache": "",
        "capabilities": build["requires"]["capabilities"],
        **{key: build[key] for key in ("profiles", "dla", "flags")},
    }
    function = "edgec.runtime.tensorrt_build:build"
    answer = run(function, request, seconds=TIME_LIMIT, memory=most_memory())
    made = [Layer.of(one) for one in answer["layers"]]
    found = _optimised(made, wanted, asked)
    spare = f"spares/{artifact.path.name}"
    moved = f"engines/{artifact.path.name}"
    build["steps"] = [
        {**one, "model": spare if one["model"] == moved else one["model"]} for one in build["steps"]
    ]
    build["requires"] = {**build["requires"], "version": _short(answer["version"])}
    gpus = ", ".join(text for text in answer["set"] if text.startswith("sm_"))
    counts = found.counts
    note = (
        f"{engine.name}: {answer['by']} {answer['version']} built {answer['bytes'] / 1e6:.2f} MB "
        f"for {gpus}: {len(made)} layers, of {counts.int8 + counts.float} products "
        f"{counts.int8} in INT8; not verified on hardware"
    )
    return _noted(
        replace(
            artifact,
            path=path,
            build={**build, "ready": True},
            spares={**artifact.spares, spare: artifact.path},
            optimised=counts,
            misplaced=misplaced(decisions, wanted, asked, found),
            layers=tuple(made),
            log=log,
        ),
        note,
    )


def _optimised(made: list[Layer], wanted: Found, asked: Found) -> Found:
    """The weighted nodes by what the engine multiplies; those that it does not list, as asked.

    Products that share an input become one layer; a layer names all nodes that it came from.
    """
    known = wanted.int8 | wanted.float | asked.int8 | asked.float
    int8 = {n for layer in made if layer.int8 for n in layer.nodes if n in known}
    floats = {n for layer in made if layer.multiplies and not layer.int8 for n in layer.nodes}
    floats = (floats & known) - int8
    unseen = known - int8 - floats
    return Found(
        frozenset(int8 | (unseen & asked.int8)), frozenset(floats | (unseen & asked.float))
    )


def _short(version: str) -> str:
    return ".".join(version.split(".")[:3])


def _noted(artifact: Artifact, note: str) -> Artifact:
    label = "" if artifact.stand_in is None else artifact.stand_in.label
    return replace(artifact, notes=(*artifact.notes, note, *([label] if label else [])))
