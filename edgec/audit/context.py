"""What the checks look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgec.audit.convergence import Curve
from edgec.audit.extremes import Extremes
from edgec.audit.survey import Survey
from edgec.trial import Prepared


@dataclass(frozen=True)
class Context:
    """The model with its first plan, the samples as they were seen, and the model's own ranges.

    `constants`: inputs that the recipe itself feeds, the same for all samples.
    """

    prepared: Prepared
    survey: Survey
    extremes: Extremes
    curve: Curve
    constants: frozenset[str]
    threads: int

    @property
    def ran(self) -> tuple[tuple[str, Path], ...]:
        """Those of the survey's files that the float model runs on."""
        refused = self.extremes.refused
        return tuple((name, path) for name, path in self.survey.files if path not in refused)

    @property
    def modalities(self) -> Mapping[str, tuple[str, ...]]:
        """The graph inputs of each part that reads some; an input belongs to its first part."""
        left = {need.name for need in self.prepared.inputs}
        found = {}
        for part in self.prepared.parts:
            own = tuple(name for name in part.inputs if name in left)
            left -= set(own)
            if own:
                found[part.name] = own
        return found


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of some names, for a sentence."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
