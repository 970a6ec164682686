"""A recipe bound to a graph: which input each reader feeds, and every default filled in.

What comes out is JSON, goes into the bundle as `recipe.json`, and is all that the runtime's readers
know. What a recipe leaves out follows from types, ranks and names of the graph's inputs; where they
allow more than one thing, nothing is guessed. One module for each kind of reader.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgec.binding import audio, image, numbers, text
from edgec.binding.reader import Reader, Shared
from edgec.errors import InputError
from edgec.inputs import Input
from edgec.recipe import Recipe
from edgec.runtime import Bundle, recipe

NAME = "recipe.json"
# In this order inputs are told apart best: token ids by their type, numbers are what is left.
KINDS: Mapping[str, Callable[[Reader], dict[str, Any]]] = {
    "text": text.bind,
    "image": image.bind,
    "audio": audio.bind,
    "numbers": numbers.bind,
}


@dataclass(frozen=True)
class Bound:
    """`page` is recipe.json; `assets` are the files that it names, by their names in a bundle."""

    page: Mapping[str, Any] = field(default_factory=lambda: {"readers": {}})
    assets: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def readers(self) -> Mapping[str, Mapping[str, Any]]:
        """The bound readers by name; none: samples are `.npz` files."""
        readers: Mapping[str, Mapping[str, Any]] = self.page["readers"]
        return readers

    @property
    def files(self) -> dict[str, bytes]:
        """What a bundle stores, by name; nothing where there are no readers."""
        if not self.readers:
            return {}
        page = json.dumps(self.page, indent=1, sort_keys=True, allow_nan=False) + "\n"
        return {NAME: page.encode(), **self.assets}

    @property
    def fingerprint(self) -> str:
        """Of all that decides what a sample becomes; empty without readers."""
        digest = hashlib.sha256()
        for name, data in sorted(self.files.items()):
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        return digest.hexdigest() if self.readers else ""

    def open(self) -> recipe.Recipe:
        """The readers, as a device has them."""
        return recipe.Recipe(self.page, self.assets.__getitem__)


def near(*paths: Path | None) -> list[Path]:
    """Folders that may hold a tokenizer: those of data and model; of `onnx/` also what is above."""
    folders = [path if path.is_dir() else path.absolute().parent for path in paths if path]
    return folders + [folder.parent for folder in folders if folder.name == "onnx"]


def bind(chosen: Recipe, needs: Sequence[Input], folders: Sequence[Path]) -> Bound:
    """Bind a recipe to the graph's inputs; `folders`: where its tokenizer may be.

    Raises InputError: an input that several fit, that none feeds, or that cannot be as the recipe
    wants it; ToolchainError: a package that a reader needs is missing.
    """
    if not chosen.readers:
        return Bound()
    shared = Shared(chosen, needs, folders)
    bound_readers: dict[str, Any] = {}
    for kind, bind_kind in KINDS.items():
        for name, options in chosen.readers.items():
            if options["kind"] == kind:
                column = {"kind": kind, "column": options.get("column", name)}
                bound_readers[name] = column | bind_kind(Reader(name, options, shared))
    left = [need.name for need in needs if need.name not in shared.taken]
    if left:
        raise InputError(
            f"recipe {chosen.name}: no reader feeds input {left[0]!r}",
            hint='add a table [readers.NAME] for it; a constant is kind = "numbers" with value = 0',
        )
    page = {
        "version": recipe.VERSION,
        "name": chosen.name,
        "readers": {name: bound_readers[name] for name in chosen.readers},
    }
    bound = Bound(page, shared.assets)
    try:
        bound.open()  # a reader refuses what contradicts itself
    except InputError as error:
        raise InputError(f"recipe {chosen.name}: {error.message}", hint=error.hint) from error
    return bound


def stored(bundle: Bundle) -> Bound:
    """The recipe that a bundle was built with. Raises InputError where it is damaged."""
    name = bundle.manifest.get("recipe")
    if name is None:
        return Bound()
    page = recipe.parse(bundle.read(name))
    assets = [spec["tokenizer"] for spec in page["readers"].values() if "tokenizer" in spec]
    return Bound(page, {asset: bundle.read(asset) for asset in assets})
