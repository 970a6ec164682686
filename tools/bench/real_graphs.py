"""Real networks through the whole compiler: the table of the README (see `real-graphs`).

Nine classic structures from the onnx package, whose weights are constants, show size and
structure; three OCR models with trained weights also show what becomes of their task.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import readme_block
import real_graphs_ocr as ocr
import real_graphs_tasks as tasks

from edgec.build import Job, build
from edgec.errors import EdgecError
from edgec.results import Report
from edgec.runtime import load
from edgec.types import Limits, Range

Array = np.ndarray
Shapes = dict[str, tuple[Range, ...]]
HEAD = (
    "| model | nodes | parts | INT8 Conv/MatMul | MB before, engine, bundle | cosine "
    "| task, FP32 → bundle |"
)
NOTE = """
`light_*` are structures: their weights are constants (ConstantOfShape), so before is what these
weights take as float32, limits on accuracy are off, and the cosine says little. The OCR models are
PP-OCR from rapidocr 3.10.0, on rendered text; calibration and verification share no word.
Cosine is the lowest of all outputs, over the build's verification samples. A bundle holds the
engine, the runtime, and a golden sample, which weighs megabytes where inputs are large pictures.
"""


@dataclass(frozen=True)
class Case:
    """A model, what it is calibrated on, and the question that is put to it and to its bundle."""

    name: str
    path: Path
    samples: Callable[[], list[Array]]
    shapes: Shapes
    limits: Limits
    ask: Callable[[ocr.Run, ocr.Run], str]


def light(folder: Path) -> list[Case]:
    cases = []
    for path in sorted(folder.glob("light_*.onnx")):
        cases.append(
            Case(
                path.stem,
                path,
                lambda: [_picture(seed) for seed in range(6)],
                {},
                Limits(part_sqnr_db=None, cosine=None),
                lambda before, after: "structure only",
            )
        )
    return cases


def _picture(seed: int) -> Array:
    """Smooth noise [1, 3, 224, 224]: a few random pixels, enlarged."""
    coarse = np.random.default_rng(seed).normal(0, 1, (1, 3, 7, 7))
    return coarse.repeat(32, 2).repeat(32, 3).astype(np.float32)


def papers(folder: Path, faces: Sequence[Path]) -> list[Case]:
    """The three models of PP-OCR."""
    one, channels, height = Range(1, 1), Range(3, 3), Range(48, 48)
    side, limits = Range(480, 640), Limits()
    det, rec, cls = (
        folder / f"{name}.onnx"
        for name in (
            "PP-OCRv6_det_small",
            "PP-OCRv6_rec_small",
            "ch_ppocr_mobile_v2.0_cls_mobile",
        )
    )
    alphabet = _characters(rec)
    return [
        Case(
            det.stem,
            det,
            lambda: [ocr.whole(page) for page in ocr.pages(ocr.CALIBRATE, 24, faces)],
            {"x": (one, channels, side, side)},
            limits,
            lambda before, after: tasks.detection(before, after, faces),
        ),
        Case(
            rec.stem,
            rec,
            lambda: [
                ocr.strip(line.picture, 160, wider=True)
                for line in ocr.lines(ocr.CALIBRATE, 96, faces)
            ],
            {"x": (one, channels, height, Range(160, 640))},
            limits,
            lambda before, after: tasks.recognition(before, after, faces, alphabet),
        ),
        Case(
            cls.stem,
            cls,
            lambda: [
                ocr.strip(tasks.turned(line.picture, number % 2), 192, wider=False)
                for number, line in enumerate(ocr.lines(ocr.CALIBRATE, 96, faces))
            ],
            {"x": (one, channels, height, Range(192, 192))},
            limits,
            lambda before, after: tasks.classification(before, after, faces),
        ),
    ]


def _characters(model: Path) -> list[str]:
    """The alphabet that a recognition model carries in its metadata."""
    properties = onnx.load(model, load_external_data=False).metadata_props
    found: str = next(one.value for one in properties if one.key == "character")
    return found.splitlines()


def check(case: Case, work: Path) -> str:
    """Build a case, run its bundle, and return its row."""
    model = onnx.load(case.path, load_external_data=False)
    constant = {tensor.name for tensor in model.graph.initializer}
    name = next(value.name for value in model.graph.input if value.name not in constant)
    data = work / "samples"
    data.mkdir()
    for number, array in enumerate(case.samples()):
        np.savez(data / f"{number:03}.npz", **{name: array})
    report = build(
        Job(
            model=case.path,
            target="host",
            data=data,
            limits=case.limits,
            output=work / f"{case.name}.edgec",
            shapes=case.shapes,
            force=True,
            measure=False,
        )
    )
    options = ort.SessionOptions()
    options.log_severity_level = 3  # the structures carry initialisers that nothing uses
    original = ort.InferenceSession(os.fspath(case.path), options)
    with load(report.bundle) as bundle:
        task = case.ask(
            lambda x: original.run(None, {name: x})[0],
            lambda x: next(iter(bundle.run({name: x}).values())),
        )
    return _row(case.name, model, report, task)


def _row(name: str, model: onnx.ModelProto, report: Report, task: str) -> str:
    plan = report.plan
    parts = ", ".join(
        f"{part.name} ({part.kind}): {plan.schemes[part.name]}" for part in plan.parts
    )
    small = sum(one.optimised.int8 for one in report.artifacts)
    total = small + sum(one.optimised.float for one in report.artifacts)
    with zipfile.ZipFile(report.bundle) as bundle:
        engine = sum(one.file_size for one in bundle.infolist() if "engines/" in one.filename)
    sizes = (_float_bytes(model) or report.source_bytes, engine, report.bundle_bytes)
    cosine = min(one.cosine for one in report.checks.outputs)
    cells = (
        name,
        len(model.graph.node),
        parts,
        f"{small} of {total}",
        ", ".join(f"{size / 1e6:.1f}" for size in sizes),
        f"{cosine:.4f}",
        task,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _float_bytes(model: onnx.ModelProto) -> int:
    """What the weights of a `light_*` model would take as float32; 0 where it has real ones."""
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    made = [node.input[0] for node in model.graph.node if node.op_type == "ConstantOfShape"]
    return sum(4 * int(shapes[key].prod()) for key in made if key in shapes)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="where rapidocr is unpacked")
    parser.add_argument("--only", default="", help="only models whose name contains this")
    parser.add_argument("--write", type=Path, help="a Markdown page that has the two markers")
    arguments = parser.parse_args()
    packages: Path = arguments.packages
    faces = ocr.fonts(
        [
            Path("/usr/share/fonts/truetype/dejavu"),
            packages / "matplotlib" / "mpl-data" / "fonts" / "ttf",
        ]
    )
    cases = [
        *light(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"),
        *papers(packages / "rapidocr" / "models", faces),
    ]
    rows, failed = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"], 0
    for case in cases:
        if arguments.only not in case.name:
            continue
        print(case.name, file=sys.stderr)
        try:
            with tempfile.TemporaryDirectory() as work:
                rows.append(check(case, Path(work)))
        except EdgecError as error:
            failed += 1
            rows.append(f"| {case.name} | failed: {error.message} |" + " |" * 5)
        print(rows[-1], file=sys.stderr)
    table = "\n".join(rows) + "\n" + NOTE.rstrip()
    print(table)
    if arguments.write and not arguments.only:
        readme_block.write(arguments.write, table, "real-graphs")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
