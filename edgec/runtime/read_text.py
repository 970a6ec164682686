"""Texts as token ids, by the model's own `tokenizer.json` and the tokenizers library.

https://huggingface.co/docs/tokenizers/api/tokenizer: normalisation, special tokens and vocabulary
are the file's; cutting and padding are the recipe's.
"""

from typing import Any, Dict

import numpy as np

from edgec.errors import InputError
from edgec.runtime.reading import (
    FLOATS,
    INTEGERS,
    Asset,
    Spec,
    arrange,
    integer,
    reader_table,
    require,
    several,
)

SUFFIXES = (".txt",)
ROLES = ("ids", "mask", "types")
LAYOUTS = ["nt", "t"]
MOST_TOKENS = 1 << 20
OPTIONS = {
    "tokenizer": {"type": "string", "minLength": 1, "maxLength": 4096},
    "tokens": several(integer(1, MOST_TOKENS), 2, 2),
    "pad_id": integer(0, (1 << 31) - 1),
    "special": {"type": "boolean"},
}
SCHEMA = reader_table("text", OPTIONS, ROLES, LAYOUTS, FLOATS + INTEGERS + ["bool"])


class TextReader:
    """Reads a text (str) as ids, attention mask and token types, as far as the graph takes them."""

    takes = "a text"
    opens_files = False

    def __init__(self, spec: Spec, asset: Asset) -> None:
        """Raises InputError where the tokenizer cannot be used, or fills all of `tokens` itself."""
        self._spec = spec
        low, high = spec["tokens"]
        self._tokenizer = open_tokenizer(asset(spec["tokenizer"]), spec["tokenizer"])
        own = self._tokenizer.num_special_tokens_to_add(False) if spec["special"] else 0
        if not max(low, own + 1) <= high:
            message = "tokens = [{}, {}] with {} special tokens leaves none for the text".format(
                low, high, own
            )
            raise InputError(message, hint="Allow more tokens.")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(high)

    def read(self, item: Any, label: str) -> Dict[str, Any]:
        """One sample: cut behind the last token allowed, padded up to the first number of `tokens`.

        Raises InputError naming `label`: no text, or one without any token.
        """
        if not isinstance(item, str):
            message = "{}: expected a text, got {}".format(label, type(item).__name__)
            raise InputError(message, hint="Give a str.")
        if not item.strip():
            raise InputError(label + ": the text is empty", hint="Leave it out.")
        try:
            found = self._tokenizer.encode(item, add_special_tokens=self._spec["special"])
        except Exception as error:  # the library raises plain Exception
            message = "{}: the tokenizer fails: {}".format(label, str(error)[:200])
            raise InputError(message, hint="Check the text and tokenizer.json.") from error
        if not found.ids:
            raise InputError(label + ": the text has no tokens", hint="Leave it out.")
        columns = {"ids": found.ids, "mask": found.attention_mask, "types": found.type_ids}
        rest = max(0, self._spec["tokens"][0] - len(found.ids))
        feeds = {}
        for role, feed in self._spec["inputs"].items():
            fill = self._spec["pad_id"] if role == "ids" else 0
            array = np.array(columns[role] + [fill] * rest).astype(feed["dtype"])
            feeds[feed["name"]] = arrange(array, "t", feed["layout"])
        return feeds


def open_tokenizer(data: bytes, label: str) -> Any:
    """A `tokenizers.Tokenizer`. Raises InputError naming `label` where it is none."""
    package = require("tokenizers", "tokenizers", "reading a text")
    try:
        return package.Tokenizer.from_str(data.decode("utf-8"))
    except BaseException as error:  # a panic of the library is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        message = "{}: not readable as a tokenizer.json: {}".format(label, str(error)[:200])
        hint = "It may be of a newer version: pip install --upgrade tokenizers."
        raise InputError(message, hint=hint) from error
