"""Texts: ids, mask and token types by the types and names of the inputs, and the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgec.binding.reader import Reader, has
from edgec.recipe import AUTO
from edgec.runtime.read_text import open_tokenizer
from edgec.runtime.reading import content

IDS = ("id", "token", "text", "caption", "word", "query")
OTHERS = {"mask": ("mask",), "types": ("type", "segment")}
NOT_IDS = ("mask", "type", "segment", "position")
PADS = ("[PAD]", "<pad>", "<|pad|>", "<PAD>")
TOKENS = 128  # where neither recipe, graph nor tokenizer says how many
MOST_BYTES = 256 << 20


def bind(reader: Reader) -> dict[str, Any]:
    """The bound reader's table; the tokenizer becomes an asset of the bundle."""
    whole = [need for need in reader.fits([1, 2], "iu") if not has(need, NOT_IDS)]
    chosen = {"ids": reader.choose("ids", whole, IDS)}
    for role, words in OTHERS.items():
        fits = [need for need in reader.fits([1, 2], "iufb") if has(need, words)]
        free = [need for need in fits if need.name not in reader.shared.taken]
        if free or reader.options.get(role, AUTO) != AUTO:
            chosen[role] = reader.choose(role, fits)
    layouts = {role: "nt" if len(need.shape or ()) == 2 else "t" for role, need in chosen.items()}
    feeds = {role: reader.feed(need, layouts[role]) for role, need in chosen.items()}
    path, data = _tokenizer(reader)
    tokenizer = open_tokenizer(data, str(path))
    default = int((tokenizer.truncation or {}).get("max_length", TOKENS))
    most = reader.options.get("max_tokens")
    axis = layouts["ids"].index("t")
    low, high = reader.length("max_tokens", most, chosen["ids"], axis, default)
    pads = [tokenizer.padding["pad_id"]] if tokenizer.padding else []
    pads += [number for word in PADS if (number := tokenizer.token_to_id(word)) is not None]
    if not pads and (low or 1) > 1 and "mask" not in chosen and "pad_id" not in reader.options:
        raise reader.error("the tokenizer has no padding token", "set pad_id")
    asset = f"recipe/{reader.name}.tokenizer.json"
    reader.shared.assets[asset] = data
    return {
        "inputs": feeds,
        "tokenizer": asset,
        "tokens": [low or 1, high],
        **reader.defaults(pad_id=(pads or [0])[0], special=True),  # behind a mask any id will do
    }


def _tokenizer(reader: Reader) -> tuple[Path, bytes]:
    path = Path(reader.options.get("tokenizer", "tokenizer.json"))
    folders = [path.parent] if path.is_absolute() else list(dict.fromkeys(reader.shared.folders))
    for place in (folder / path for folder in folders):
        if place.is_file():
            return place, content(place, str(place), MOST_BYTES)
    raise reader.error(
        f"there is no {path} in {', '.join(map(str, folders)) or 'any folder'}",
        "put the model's own tokenizer.json there, or set tokenizer = "
        '"PATH" in a recipe of your own; the path is relative to it',
    )
