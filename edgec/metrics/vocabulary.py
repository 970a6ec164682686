"""From class numbers to text: a list of tokens, or the model's own tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import InputError
from edgec.metrics.labels import decoded, parsed
from edgec.runtime.read_text import open_tokenizer

MOST_TOKENS = 1 << 22
HINT = (
    "give a token a line in the order of the classes, a JSON list of tokens, a JSON object "
    "{token: class}, or a tokenizer.json"
)


@dataclass(frozen=True)
class Tokens:
    """Token texts by class; `space` is the token, or the part of one, that means a space."""

    texts: tuple[str, ...]
    space: str

    def join(self, ids: Sequence[int]) -> str:
        """The text of some classes; one beyond the list is written as the replacement character."""
        known = len(self.texts)
        text = "".join(self.texts[i] if i < known else "\N{REPLACEMENT CHARACTER}" for i in ids)
        return text.replace(self.space, " ") if self.space else text


@dataclass(frozen=True)
class Tokenizer:
    """A `tokenizers.Tokenizer`; special tokens are left out of texts."""

    tokenizer: Any

    def join(self, ids: Sequence[int]) -> str:
        """The text of some classes."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def read(path: Path, space: str) -> Tokens | Tokenizer:
    """The vocabulary in a file.

    A text file holds a token a line, exactly as it is: an empty line is a class that writes
    nothing. Raises InputError naming the file and the token; ToolchainError without tokenizers.
    """
    text = decoded(path)
    if path.suffix != ".json":
        return Tokens(tuple(text.removesuffix("\n").split("\n")), space)
    page = parsed(text, str(path), HINT)
    if isinstance(page, dict) and isinstance(page.get("model"), dict):
        return Tokenizer(open_tokenizer(text.encode(), str(path)))
    if isinstance(page, list) and page and all(isinstance(token, str) for token in page):
        return Tokens(tuple(page), space)
    if not isinstance(page, dict) or not page:
        raise InputError(f"{path}: not a vocabulary", hint=HINT)
    found: dict[int, str] = {}
    for token, place in page.items():
        if type(place) is not int or not 0 <= place < MOST_TOKENS or place in found:
            raise InputError(
                f"{path}: {token[:80]!r} has the class {str(place)[:80]}",
                hint="each token has a class of its own, from 0 on",
            )
        found[place] = token
    return Tokens(tuple(found.get(place, "") for place in range(max(found) + 1)), space)
