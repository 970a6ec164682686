"""What a build is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgec.calibrate import CHECKPOINT
from edgec.recipe import DEFAULT
from edgec.target import HOST
from edgec.types import Limits, Range


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Job:
    """One build, as the command line asks for it. `threads` 0: all cores of this machine.

    `shapes`: bounds per dimension of named inputs. `limits`: instead of the policy's. `goals`: such
    as "size<30MB", besides the policy's. `buckets`: see `edgec.buckets.parse_wish`. `kernels`: a
    folder of custom ops; `original`: what ONNX Runtime runs as the source, where that is not
    `model`, since it has such ops. `form`: onnx or ort, for engines of ONNX Runtime. `statistics`:
    the file of a calibration, which is used, and grows by what is missing. `max_ram`, `native`,
    `checkpoint`: see `edgec.calibrate.Means`; `native` is also whether custom ops may have native
    kernels. `say` hears of each stage.
    """

    model: Path
    target: str = HOST
    stack: str | None = None
    data: Path | None = None
    recipe: str = DEFAULT
    policy: Path | None = None
    backend: str | None = None
    output: Path | None = None
    shapes: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    form: str = "onnx"
    force: bool = False
    measure: bool = True
    threads: int = 0
    limits: Limits | None = None
    goals: tuple[str, ...] = ()
    buckets: str = "auto"
    kernels: Path | None = None
    original: Path | None = None
    statistics: Path | None = None
    max_ram: int = 0
    native: bool = True
    checkpoint: float = CHECKPOINT
    say: Callable[[str], None] = _silent

    @property
    def source(self) -> Path:
        """The float model as it was given, for ONNX Runtime to run."""
        return self.original or self.model
