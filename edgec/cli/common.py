"""What the verbs share: options, shapes, tables and JSON."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgec.errors import InputError
from edgec.outputs import check_file

if TYPE_CHECKING:
    from edgec.types import Range

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)


class Output(click.Path):
    """A file that will be written: that it can be is found out before the work begins."""

    def convert(self, *given: Any) -> Any:
        """As the other paths, and checked. Raises InputError."""
        found = super().convert(*given)
        if found != "-" or not self.allow_dash:
            check_file(Path(os.fsdecode(found)))
        return found


OUTPUT = Output(path_type=Path)
# Control characters, which names in a model may hold, and a terminal would obey.
CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

json_option = click.option(
    "--json",
    "json_file",
    type=Output(allow_dash=True),
    metavar="FILE",
    help="Write the result as JSON; - for stdout.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(0), default=0, help="Threads; 0 for all cores."
)
stack_option = click.option(
    "--stack", help="A software stack of the target; without it, its default is named on stderr."
)


kernels_option = click.option(
    "--kernels",
    type=FILE,
    metavar="FOLDER",
    help="Custom ops: a folder of one or several. A build compiles and runs their native kernels, "
    "which are their author's code.",
)


def job_options(function: Command) -> Command:
    """The options that `build` and `plan` share."""
    options = [
        click.argument("model", type=FILE),
        click.option(
            "--target", default="host", show_default=True, help="A target's name or folder."
        ),
        stack_option,
        click.option(
            "--data", type=FILE, help="Samples: a folder, or a .csv, .jsonl or .txt file."
        ),
        click.option(
            "--recipe",
            default="tensors",
            show_default=True,
            help="How they are read: tensors (.npz), images, text, audio, image-text, or a file.",
        ),
        kernels_option,
        click.option("--policy", type=FILE, help="What you want per part, op or node (TOML)."),
        click.option("--backend", help="Build for this backend or runtime alone."),
        click.option(
            "--shape",
            "shapes",
            multiple=True,
            metavar="NAME=1x3x224x224",
            help="Fix or bound an input's shape; a dimension may be a range: ids=1x1..128.",
        ),
        click.option(
            "--buckets",
            default="auto",
            show_default=True,
            metavar="auto|none|exact|16,32,64",
            help="Lengths at which padded sequences run: from the data, or these.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def name_stack(target: str, stack: str | None) -> None:
    """Say on stderr which stack is taken where none is asked for, and which others there are."""
    from edgec.target import HOST, stacks

    if stack is not None or target == HOST:
        return
    default, *others = stacks(target)
    also = f"the default; --stack also takes {', '.join(others)}" if others else "its only one"
    click.echo(f"target {target}: stack {default}, {also}", err=True)


def size(text: str) -> int:
    """Bytes: `800M` -> 800000000; K, M and G are powers of 1,000, and 0 stands for no limit."""
    number = text.strip().upper().removesuffix("B")
    scale = {"K": 10**3, "M": 10**6, "G": 10**9}.get(number[-1:], 0)
    try:
        found = float(number[:-1] if scale else number) * (scale or 1)
    except ValueError:
        found = math.nan
    if not (found == 0 or 1 <= found < 1e18):
        raise click.BadParameter(f"{text!r} is no size; write 800M or 2G")
    return int(found)


def calibration_options(function: Command) -> Command:
    """How calibration works."""
    options = [
        click.option(
            "--max-ram",
            default="0",
            metavar="SIZE",
            callback=lambda _context, _option, text: size(text),
            help="Memory that the calibrating process may take, such as 800M; default: most of it.",
        ),
        click.option(
            "--native/--no-native",
            default=True,
            help="Compile what is compiled here: histograms, else counted in numpy, and native "
            "kernels of custom ops, else run as their references.",
        ),
        click.option(
            "--checkpoint",
            type=click.FloatRange(0),
            default=2.0,
            show_default=True,
            metavar="SECONDS",
            help="How often the state of a calibration is saved.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[Range, ...]]:
    """`ids=1x1..128` -> {"ids": (Range(1, 1), Range(1, 128))}."""
    from edgec.types import Range

    shapes = {}
    for text in texts:
        name, equals, dims = text.rpartition("=")
        try:
            ranges = []
            for dim in dims.split("x"):
                low, dots, high = dim.partition("..")
                bounds = Range(int(low), int(high) if dots else int(low))
                if not 1 <= bounds.low <= bounds.high:
                    raise ValueError(dim)
                ranges.append(bounds)
            if not equals or not name:
                raise ValueError(text)
        except ValueError as error:
            raise InputError(
                f"--shape {text}: not a shape",
                hint="write NAME=1x3x224x224, or a range for a dimension: NAME=1x1..128",
            ) from error
        shapes[name] = tuple(ranges)
    return shapes


def write_json(target: str | None, result: Any) -> None:
    """Write JSON to a file (complete or not at all) or to stdout."""
    if target is None:
        return
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    from edgec.runtime.npz import write_bytes

    write_bytes(Path(target), text.encode())


class Page:
    """Text and tables for people: on stdout, or on stderr while stdout carries JSON."""

    def __init__(self, json_file: str | None) -> None:
        self._stream = sys.stderr if json_file == "-" else sys.stdout

    def line(self, text: str = "") -> None:
        """A line of plain text, without what a terminal would obey."""
        print(text.translate(CONTROLS), file=self._stream)

    def table(self, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; columns whose head ends in a unit or count are right-aligned by their look."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text  # names in a model may look like rich's markup

        def shown(cell: str) -> Text:
            return Text(cell.translate(CONTROLS))

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, head in enumerate(heads):
            numeric = bool(rows) and all(_numeric(row[index]) for row in rows)
            table.add_column(
                shown(head), justify="right" if numeric else "left", no_wrap=index == 0
            )
        for row in rows:
            table.add_row(*map(shown, row))
        width = None if self._stream.isatty() else 160
        Console(file=self._stream, width=width, highlight=False).print(table)


def _numeric(text: str) -> bool:
    return text[:1].isdigit() or text[:1] in "-+" or text in ("", "equal", "broken")


def megabytes(count: int) -> str:
    """Bytes as MB (10**6)."""
    return f"{count / 1e6:.2f}"
