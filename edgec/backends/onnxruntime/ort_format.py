"""onnxruntime's own format (`.ort`), for builds of onnxruntime that cannot read ONNX.

Such a minimal build has no optimiser either, so the graph is optimised here. Of onnxruntime's two
styles only "Fixed" is made. "Runtime" leaves fusions to the device: onnxruntime 1.32 then runs all
static INT8 in float, unless it is told to trust the file; some fusions cannot be replayed at all
(a ViT kept 12 MatMulInteger where Fixed has MatMulIntegerToFloat); a basic minimal build replays
none. And nothing is gained. One pass alone looks at this CPU: it lays out float convolutions for
the width of its registers. Without it, 20 models of all kinds came out with the same bytes on
AVX512-VNNI, AVX2 and SSE4.2, and 18 of them on a Cortex-A76 (emulated); the other two hold float16,
which that one multiplies and x86 casts. So there are

    portable   without that pass: right on every CPU
    this_cpu   with it: a machine with other registers fails at the first call, or is wrong
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from edgec.backends.onnxruntime.audit import NCHWC, Found, Names, read_back
from edgec.errors import InputError
from edgec.runtime.onnxruntime_settings import parse

PORTABLE, THIS_CPU = "portable", "this_cpu"
STYLES = (PORTABLE, THIS_CPU)
FORMATS = ("onnx", "ort")
MOST_BYTES = (1 << 31) - (1 << 26)  # of weights: a flatbuffer ends at 2 GiB


def form(settings: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """What a runtime's settings say of the file (one of FORMATS), and what is left for its opener.

    Raises InputError: `format` or `ort_style` is none of those that exist.
    """
    rest = dict(settings)
    chosen, style = rest.pop("format", "onnx"), rest.pop("ort_style", PORTABLE)
    if chosen not in FORMATS or style not in STYLES:
        raise InputError(
            f"onnxruntime engine: format {chosen!r} in style {style!r} is unknown",
            hint=f"format is one of {', '.join(FORMATS)}, ort_style one of {', '.join(STYLES)}",
        )
    disabled = rest.get("disabled_optimizers", [])
    if chosen == "ort" and style == PORTABLE and isinstance(disabled, list):
        rest["disabled_optimizers"] = [*disabled, NCHWC]
    return str(chosen), rest


def files(source: Path) -> tuple[Path, Path]:
    """What `convert` writes beside an ONNX file: the `.ort` file, and the list of operators."""
    return source.with_suffix(".ort"), source.with_suffix(".required_operators.config")


def convert(
    source: Path, settings: Mapping[str, object], threads: int, known: Names = frozenset()
) -> Found:
    """Write the `.ort` form of an ONNX file with its list of operators, and count what it holds.

    The operators are those that a reduced build of onnxruntime needs, with their types. `known`:
    the names of the model's nodes. Opens the result, and raises what onnxruntime raises; the files
    appear when they are complete.
    """
    import onnxruntime

    from edgec.backends.onnxruntime.stable import stable
    from edgec.runtime.onnxruntime_session import session_options

    checked = parse({**settings, "threads": threads})
    options = session_options(checked)
    target, operators = files(source)
    with tempfile.TemporaryDirectory(prefix=".ort-", dir=source.parent) as folder:
        made = Path(folder) / target.name
        options.optimized_model_filepath = str(made)
        options.add_session_config_entry("session.load_model_format", "ONNX")
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(
            source,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=set(checked.disabled) or None,
            enable_fallback=0,
        )
        made.write_bytes(stable(made.read_bytes()))
        listed = Path(folder) / operators.name
        listed.write_text(_operators(made, target.name), encoding="utf-8")
        found = read_back(made, checked, source, known)
        listed.replace(operators)
        made.replace(target)
    return found


def _operators(model: Path, name: str) -> str:
    """The operators with their types, as onnxruntime's build reads it (`--include_ops_by_config`).

    onnxruntime's own tool writes it; its remarks name the file's place on this machine.
    """
    import onnxruntime
    from onnxruntime.tools.ort_format_model import create_config_from_models

    listed = model.with_suffix(".config")
    create_config_from_models([model], listed, True)
    lines = listed.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    head = f"# {name}, written by onnxruntime {onnxruntime.__version__}"
    return "\n".join([head, *rows, ""])
