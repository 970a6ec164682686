"""The options of a metric: `key=value,key=value` behind its name."""

from __future__ import annotations

import math
import re
from pathlib import Path

from edgec.errors import InputError


class Options:
    """Options as a metric's maker asks for them; `done` refuses those that nobody asked for."""

    def __init__(self, metric: str, text: str) -> None:
        """A comma ends a value only where a key follows: values may hold commas."""
        self.metric = metric
        self.asked: list[str] = []
        self._given: dict[str, str] = {}
        for pair in re.split(r",(?=[a-z]+=)", text) if text else []:
            key, equals, value = pair.partition("=")
            if not equals or not value or key in self._given:
                why = "stands there twice" if key in self._given else "is no option=value"
                raise InputError(
                    f"metric {metric}: {pair!r} {why}",
                    hint=f"write {metric}:option=value,option=value",
                )
            self._given[key] = value

    def text(self, key: str, default: str = "") -> str:
        """A text as it stands there."""
        self.asked.append(key)
        return self._given.get(key, default)

    def required(self, key: str, what: str) -> str:
        """A text that must be there; `what` says what it is."""
        found = self.text(key)
        if not found:
            raise InputError(
                f"metric {self.metric} needs the option {key}",
                hint=f"write {self.metric}:{key}=…, {what}",
            )
        return found

    def choice(self, key: str, *words: str, default: str = "") -> str:
        """One of some words; required where there is no default."""
        either = " or ".join(words)
        found = self.text(key, default) if default else self.required(key, either)
        if found not in words:
            raise self.wrong(key, f"{found!r} is none of {', '.join(words)}", f"write {either}")
        return found

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number between two bounds."""
        found = self.text(key, str(default))
        if not re.fullmatch(r"-?[0-9]{1,9}", found) or not low <= int(found) <= high:
            raise self.wrong(key, f"{found!r} is no such number", f"{low} to {high} are")
        return int(found)

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        found = self.text(key, str(default))
        try:
            value = float(found)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.wrong(key, f"{found!r} is no number", "write a finite number")
        return value

    def file(self, key: str, what: str) -> Path:
        """The path of a file that must be there."""
        path = Path(self.required(key, what))
        if not path.is_file():
            raise self.wrong(key, f"{path}: no such file", f"give {what}")
        return path

    def wrong(self, key: str, why: str, hint: str) -> InputError:
        """The error of an option's value."""
        return InputError(f"metric {self.metric}: {key}: {why}", hint=hint)

    def done(self) -> None:
        """Raises InputError for an option that the metric does not have."""
        unknown = [key for key in self._given if key not in self.asked]
        if unknown:
            raise InputError(
                f"metric {self.metric} has no option {unknown[0]!r}",
                hint=f"it has {', '.join(dict.fromkeys(self.asked))}",
            )
