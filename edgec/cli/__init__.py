"""The command line: one verb a file, imported when it is asked for."""

from __future__ import annotations

import errno
import sys
import traceback
from importlib import import_module

import click

from edgec import __version__
from edgec.errors import EdgecError, EmitError, InputError, InternalError, ToolchainError
from edgec.lazy import defer

VERBS = {
    "build": "Compile an ONNX model into a verified bundle.",
    "calibrate": "Watch a model on samples, once for every target.",
    "inspect": "Show what a model is made of, and what a target cannot run.",
    "plan": "Show parts and decisions, without building.",
    "data": "Look at calibration data before it is used.",
    "explain": "Tell why a bundle's parts and nodes are as they are.",
    "run": "Run a bundle once.",
    "verify": "Check a bundle, or compare it with its source model.",
    "bench": "Measure a bundle's latency, alone or against a model.",
    "finish": "On the device: build what can only be built there.",
    "info": "Tell what a bundle is made of.",
    "targets": "List the targets, or show one.",
    "image": "Write or build container images for a target.",
    "farm": "Benchmark, verify and finish on many devices.",
    "demo": "Build and compare a real two-tower model on this machine.",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM = "make room where the output lies, and for temporary files, or set TMPDIR"
EPILOGUE = (
    "Exit codes: 2 usage, 3 input, 4 unsupported, 5 something to install, 6 the backend failed, "
    "7 a goal was missed, 70 a defect of edgec."
)


class Verbs(click.Group):
    """Loads a verb's module when the verb is used, so that help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of a first use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"edgec.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs and what they do, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.command(cls=Verbs, epilog=EPILOGUE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgec")
def cli() -> None:
    """The deployment compiler for edge devices: ONNX in, a small, fast, verified bundle out."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; errors become a sentence, a hint and an exit code."""
    defer()
    try:
        code = cli.main(arguments, prog_name="edgec", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except EdgecError as error:
        if isinstance(error, EmitError) and error.log:
            click.echo(error.log, err=True)
        _fail(f"error: {error}", error.exit_code)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "edgec":
            raise
        lacking = ToolchainError(
            f"this verb needs the package {missing!r}, which is not installed",
            hint='pip install "edgec[compile]"; for the demo "edgec[demo]", a farm "edgec[farm]"',
        )
        _fail(f"error: {lacking}", lacking.exit_code)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:  # the outermost frame: what comes here is our defect, and says so
        if isinstance(error, OSError) and error.errno in FULL:
            what = ": ".join(str(one) for one in (error.filename, error.strerror) if one)
            _fail(f"error: {InputError(what, hint=ROOM)}", InputError.exit_code)
        traceback.print_exc()
        _fail(
            f"error: this is a defect of edgec {__version__}; please report it with the lines "
            "above and the command",
            InternalError.exit_code,
        )


def _fail(message: str, code: int) -> None:
    click.echo(message, err=True)
    sys.exit(code)
