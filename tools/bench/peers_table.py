"""The README's block: a table for each model, what it says, and under which conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import peers_front as fronts
from peers_types import Model, Row, Scores

HEAD = ("#", "case", "speed", "MB", "cosine", "SQNR dB", "task", "build s", "build MB", "note")
NOTE = """
Speed: times as fast as FP32 ONNX Runtime in the same round, batch 1, two threads; the median of
{rounds} interleaved rounds, each case in a process of its own, and the quartiles. Cosine and SQNR:
the worst output against FP32 ONNX Runtime, over held-out samples that no case calibrated on.
Calibration: the same 64 samples for every case; edgec calibrates on two thirds of them and verifies
on the rest. MB: the model file; of a bundle the engines, without runtime and golden data. Build:
wall time and the largest resident memory of all processes of the tool, imports included.
Rows in bold are on the Pareto front of speed and SQNR. OpenVINO runs with the LATENCY hint; "f32"
sets INFERENCE_PRECISION_HINT, its default computes in bfloat16 where the CPU has it, as this one
{bf16}. NNCF as advised: where there is attention model_type TRANSFORMER, else the preset MIXED and
fast_bias_correction False; subset_size 64. onnxruntime's quantizer after its own preprocessing,
MinMax, or with no option at all ("its defaults"). Olive's `auto-opt` takes no
samples of tensors, and its `optimize` calibrates on data sets of the Hugging Face hub alone.
"""


def table(rows: Sequence[Row]) -> str:
    """One model's rows in Markdown."""
    best = fronts.front(rows)
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    lines += [_line(_cells(row, row.number in best)) for row in rows]
    return "\n".join(lines)


def block(
    found: Mapping[str, Sequence[Row]], models: Sequence[Model], about: Mapping[str, str], svg: str
) -> str:
    """Everything between the markers: overview, plot, a table per model, the conditions."""
    chosen = [model for model in models if model.name in found]
    parts = [_overview(found, chosen), f"![Speed against fidelity, a panel per model]({svg})"]
    for model in chosen:
        rows = found[model.name]
        said = (fronts.verdict(rows), model.remark, fronts.spoiled(rows))
        parts.append(
            f"<details><summary>{model.title}: {model.about}</summary>\n\n{table(rows)}\n\n"
            f"{' '.join(filter(None, said))}\n\n</details>"
        )
    parts.append(NOTE.strip().format(**about))
    parts.append(f"Measured on {about['machine']}; {about['versions']}.")
    return "\n\n".join(parts)


def task(scores: Scores) -> str:
    """Figures of a task in one cell."""
    return ", ".join(f"{name} {value:.3f}" for name, value in scores.items())


def _overview(found: Mapping[str, Sequence[Row]], models: Sequence[Model]) -> str:
    """One line a model: the best that edgec and the peers reach, and the verdict."""
    head = ("model", "edgec, its own choice", "fastest peer that is not far off", "edgec's rows")
    lines = [_line(head), _line(["---"] * len(head))]
    for model in models:
        rows = found[model.name]
        own = next((row for row in rows if row.case.name == "edgec"), None)
        peers = [row for row in rows if row.case.family not in ("edgec", "float")]
        right = [row for row in peers if row.speed and row.fidelity and not fronts.faults(row)]
        best = max(right, key=lambda row: row.speed.ratio if row.speed else 0.0, default=None)
        lines.append(
            _line([model.title, _short(own), _short(best, name=True), fronts.verdict(rows)])
        )
    return "\n".join(lines)


def _short(row: Row | None, name: bool = False) -> str:
    if row is None:
        return "none"
    if row.speed is None or row.fidelity is None:
        return row.problem
    label = f"{row.case.label}: " if name else ""
    scores = task(row.fidelity.task)
    figures = f"{row.speed.ratio:.2f}x, {fronts.decibel(row.fidelity.sqnr_db)}"
    return f"{label}{figures}{f', {scores}' if scores else ''}"


def _cells(row: Row, best: bool) -> list[str]:
    speed, fidelity, built = row.speed, row.fidelity, row.built
    ours = row.case.build is not None
    notes = [row.problem, *fronts.faults(row), built.note, row.case.note]
    cells = [
        str(row.number),
        row.case.label,
        f"{speed.ratio:.2f}x ({speed.low:.2f} to {speed.high:.2f})" if speed else "-",
        f"{built.bytes / 1e6:.1f}" if built.bytes else "-",
        f"{fidelity.cosine:.4f}" if fidelity else "-",
        fronts.decibel(fidelity.sqnr_db).removesuffix(" dB") if fidelity else "-",
        (task(fidelity.task) if fidelity else "") or "-",
        f"{built.seconds:.1f}" if ours else "-",
        f"{built.peak_mb:.0f}" if ours else "-",
        "; ".join(note for note in notes if note) or " ",
    ]
    cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in cells]
    if best:
        for index in (0, 1, 2, 5):
            cells[index] = f"**{cells[index]}**"
    return cells


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
