"""What a check has to say: a sentence, the samples that it is about, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """NOTE: worth knowing. WARNING: ranges or checks built on this data would mislead."""

    NOTE = "note"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One result of a check; `samples` are names, empty where it is about all of them."""

    check: str
    severity: Severity
    message: str
    samples: tuple[str, ...]
    hint: str


def note(check: str, message: str, samples: tuple[str, ...] = (), *, hint: str) -> Finding:
    """A finding that is worth knowing."""
    return Finding(check, Severity.NOTE, message, samples, hint)


def warning(check: str, message: str, samples: tuple[str, ...] = (), *, hint: str) -> Finding:
    """A finding that should be dealt with before a build."""
    return Finding(check, Severity.WARNING, message, samples, hint)
