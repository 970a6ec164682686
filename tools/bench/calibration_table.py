"""The README's block: the figures with their aims, every case of a model, the methods on tasks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import peers_front as fronts
import peers_table
from calibration_accuracy import Judged
from calibration_cases import COSTS, METHODS
from calibration_cost import Results
from calibration_figures import FIGURES, cpu, peak
from peers_measure import quartiles
from peers_types import Model

HEAD = ("case", "samples", "CPU s", "wall s", "peak MB", "over inference", "values", "note")
NOTE = """
CPU time: user and system time of a case's process and its children. A case runs in a process of its
own from start to end, imports included (of byte code, as pip leaves it; edgec's is compiled first);
{rounds} rounds, every second one backwards; medians, and quartiles in brackets. One more sample:
(t(128) - t(32)) / 96, the same for edgec and for inference, paired by round. Peak memory: the
largest process of a case, as the kernel records it; a case whose processes hold 12 GB together is
ended. Inference alone reads the same files and runs the source model in ONNX Runtime with all its
optimisations. edgec: `edgec calibrate --target host --all`, full histograms of every value that its
plan quantizes. onnxruntime: the calibrator that `quantize_static` opens, on the preprocessed model,
up to the ranges, threads as it chooses; of MiniLM the matrix products alone. Its Entropy has by
default as many bins as levels, so that there is nothing to search; the second row gives it 2,048
and 128. `nncf.quantize` cannot stop after calibration: its time holds the quantized model and the
bias correction too, and its samples are in memory (20 MB of 32 pictures). A search's time is that
of one value, over all values that have a histogram. Samples: 2,048 files a model, with arrays of
their own: the 64 of the tables above, then pictures shifted by up to 32 pixels over their own
reflection and mirrored, and texts cut and with their tokens in another order (34 of the short ones
come twice).
"""
METHODS_NOTE = """
Every part in static INT8 on ONNX Runtime, with nothing measured or reverted, so that a row shows
the method and not what a build would make of it. The same 64 samples as above, of which two thirds
calibrate. SQNR of a part: its worst output on float inputs, over the build's verification samples;
all other figures over held-out samples, against FP32 ONNX Runtime.
"""


def costs(results: Results) -> str:
    """Every case of a model in Markdown."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for case in COSTS:
        for samples in (*case.samples, *case.once):
            mine = [one for one in results.runs if (one.case, one.samples) == (case.name, samples)]
            if not mine:
                continue
            wrong = next((one.built.problem for one in mine if one.built.problem), "")
            told = mine[-1].told
            wall = statistics.median(one.built.seconds for one in mine)
            notes = [wrong, "not native" if told.get("native") is False else ""]
            cells = [
                case.label,
                f"{samples:,}",
                "-" if wrong else _spread(list(cpu(results, case.name, samples).values())),
                "-" if wrong else f"{wall:.1f}",
                f"{peak(results, case.name, samples):.0f}" if not wrong else "-",
                _above(results, case.name, samples) if not wrong else "-",
                str(told.get("values", "-")),
                "; ".join(filter(None, notes)) or " ",
            ]
            lines.append(_line(cells))
    return "\n".join(lines)


def overview(found: Mapping[str, Results], models: Sequence[Model]) -> str:
    """A line a figure; what misses its aim says so."""
    head = ["", "aim", *(model.title for model in models)]
    lines = [_line(head), _line(["---"] * len(head))]
    for figure in FIGURES:
        cells = []
        for model in models:
            one = figure.find(found[model.name])
            cells.append(f"**{one.text}, missed**" if one.met is False else one.text)
        lines.append(_line([figure.label, figure.aim, *cells]))
    return "\n".join(lines)


def methods(judged: Sequence[Judged]) -> str:
    """A model's methods, a line each."""
    labels = {"fp32": "FP32", **{one.name: one.label for one in METHODS}}
    head = ("method", "parts, SQNR dB", "worst output, SQNR dB", "task", "build s", "note")
    lines = [_line(head), _line(["---"] * len(head))]
    for one in judged:
        parts = ", ".join(f"{name} {_decibel(value)}" for name, value in one.parts.items())
        right = not one.problem
        cells = [
            labels.get(one.name, one.name),
            parts or "-",
            _decibel(one.sqnr_db) if right else "-",
            peers_table.task(one.task) or "-",
            f"{one.seconds:.0f}" if one.seconds else "-",
            one.problem or " ",
        ]
        lines.append(_line(cells))
    return "\n".join(lines)


def block(
    found: Mapping[str, Results],
    judged: Mapping[str, Sequence[Judged]],
    models: Sequence[Model],
    about: Mapping[str, str],
) -> str:
    """Everything between the markers: figures, cases, methods where there are any, conditions."""
    measured = [model for model in models if model.name in found]
    parts = [overview(found, measured)]
    parts += [_folded(model, costs(found[model.name])) for model in measured]
    parts.append(NOTE.strip().format(**about))
    tasks = [model for model in models if judged.get(model.name)]
    if tasks:
        parts.append("What the methods make of models that have a task:")
        parts += [_folded(model, methods(judged[model.name])) for model in tasks]
        parts.append(METHODS_NOTE.strip())
    parts.append(f"Measured on {about['machine']}; {about['versions']}.")
    return "\n\n".join(parts)


def _folded(model: Model, table: str) -> str:
    return f"<details><summary>{model.title}: {model.about}</summary>\n\n{table}\n\n</details>"


def _above(results: Results, case: str, samples: int) -> str:
    own, plain = (peak(results, name, samples) for name in (case, "plain"))
    return (
        "-" if own is None or plain is None or case.startswith("plain") else f"{own - plain:+.0f}"
    )


def _spread(values: Sequence[float]) -> str:
    low, middle, high = quartiles(sorted(values))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})" if len(values) > 1 else f"{middle:.1f}"


def _decibel(value: float) -> str:
    return fronts.decibel(value).removesuffix(" dB")


def _line(cells: Sequence[str]) -> str:
    cleaned = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    return "| " + " | ".join(cleaned) + " |"
