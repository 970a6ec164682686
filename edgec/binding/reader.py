"""One reader on its way to its graph inputs: what it may take, and how it says that it cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.errors import InputError
from edgec.inputs import Input
from edgec.recipe import AUTO, Recipe
from edgec.runtime.read_text import ROLES


class Shared:
    """What the readers of one binding share: `taken` are inputs that have a reader, or that the
    recipe names; `assets` are files for the bundle.
    """

    def __init__(self, recipe: Recipe, needs: Sequence[Input], folders: Sequence[Path]) -> None:
        """Raises InputError where the recipe names an input that is not there, or one twice."""
        self.recipe, self.needs, self.folders = recipe.name, needs, folders
        self.assets: dict[str, bytes] = {}
        self.taken: set[str] = set()
        for name, options in recipe.readers.items():
            for key in ("input", *ROLES):
                wanted = options.get(key, AUTO)
                if wanted in self.taken:
                    message = f"recipe {recipe.name}: input {wanted!r} is named twice"
                    raise InputError(message, hint="give each input one reader")
                if wanted != AUTO:
                    Reader(name, options, self).named(key)
                    self.taken.add(wanted)


@dataclass(frozen=True)
class Reader:
    """A reader of a recipe by `name`, with the `options` of its table."""

    name: str
    options: Mapping[str, Any]
    shared: Shared

    def error(self, message: str, hint: str) -> InputError:
        """An error that names the recipe and the reader."""
        place = f"recipe {self.shared.recipe}: readers.{self.name}"
        return InputError(f"{place}: {message}", hint=hint)

    def defaults(self, **values: Any) -> dict[str, Any]:
        """`values`, as far as the options do not say otherwise."""
        return {key: self.options.get(key, value) for key, value in values.items()}

    def fits(self, ranks: Sequence[int], kinds: str) -> list[Input]:
        """Inputs of these ranks and numpy kinds of dtype (`f`, `iu`)."""
        return [
            need
            for need in self.shared.needs
            if need.shape is not None and len(need.shape) in ranks and need.dtype.kind in kinds
        ]

    def named(self, key: str) -> Input:
        """The input that `key` names."""
        wanted = self.options[key]
        found = next((need for need in self.shared.needs if need.name == wanted), None)
        if found is None:
            raise self.error(
                f"{key} = {wanted!r} is not an input of the model",
                "the inputs are " + ", ".join(need.name for need in self.shared.needs),
            )
        return found

    def choose(self, key: str, fits: Sequence[Input], words: Sequence[str] = ()) -> Input:
        """The input that `key` names, else the only free one of `fits`, else the only one of those
        whose name has one of `words`.
        """
        if self.options.get(key, AUTO) != AUTO:
            return self.named(key)
        free = [need for need in fits if need.name not in self.shared.taken]
        found = free if len(free) == 1 else [need for need in free if has(need, words)]
        if len(found) != 1:
            shown = "; ".join(map(describe, free or self.shared.needs))
            raise self.error(
                f"several inputs fit: {shown}" if free else f"no input fits; there are {shown}",
                f'name it: {key} = "…" under [readers.{self.name}]',
            )
        self.shared.taken.add(found[0].name)
        return found[0]

    def feed(self, need: Input, layout: str) -> dict[str, str]:
        """The row of recipe.json that says where a reader's array goes."""
        if need.shape is None or len(need.shape) != len(layout):
            raise self.error(
                f"input {describe(need)} does not have the dimensions {layout or 'that it needs'}",
                "set layout, one letter for each dimension, or give the shape by --shape",
            )
        batch = fixed(need, layout.index("n")) if "n" in layout else None
        if batch not in (None, 1):
            raise self.error(
                f"input {describe(need)} has a batch of {batch}, a recipe gives one sample",
                "export the model with a batch of one, or give .npz files",
            )
        return {"name": need.name, "dtype": str(need.dtype), "layout": layout}

    def agree(self, what: str, need: Input, size: int, axis: int) -> None:
        """Refuse a size that the input does not take in this dimension."""
        low, high = bounds(need, axis)
        if not (low or 1) <= size <= (high or size):
            takes = str(low) if low == high else f"{low} to {high}"
            raise self.error(
                f"{what} = {size}, but input {describe(need)} takes {takes}",
                f"leave {what} out, or set it so",
            )

    def sized(self, key: str, need: Input, axis: int) -> int:
        """The size of a dimension: what `key` says, else what the graph fixes."""
        size = self.options.get(key) or fixed(need, axis)
        if size is None:
            raise self.error(f"input {describe(need)} does not fix {key}", f"set {key}")
        self.agree(key, need, size, axis)
        return int(size)

    def length(
        self, key: str, most: int | None, need: Input, axis: int, default: int | None
    ) -> tuple[int | None, int | None]:
        """Smallest and largest size of a time axis: the shorter is padded, the longer is cut.

        `most` is what `key` says; None, in either place: no limit.
        """
        padding = self.options.get("padding", AUTO)
        low, high = bounds(need, axis)
        if low is not None and low == high and padding == "none":
            raise self.error(
                f'padding = "none", but input {describe(need)} always takes {low}',
                "leave padding out",
            )
        if most is not None:
            self.agree(key, need, most, axis)
            high = most
        elif high is None:
            high = default
        if padding == "max" and high is None:
            raise self.error('padding = "max" has no length to pad to', f"set {key}")
        return (high if padding == "max" else low), high


def has(need: Input, words: Sequence[str]) -> bool:
    """Whether the input's name contains one of the words."""
    return any(word in need.name.lower() for word in words)


def bounds(need: Input, axis: int) -> tuple[int | None, int | None]:
    """Smallest and largest size of a dimension, None where nothing says."""
    size = (need.shape or ())[axis]
    if isinstance(size, int):
        return size, size
    return (need.ranges[axis].low, need.ranges[axis].high) if need.ranges else (None, None)


def fixed(need: Input, axis: int) -> int | None:
    """The size of a dimension, if there is only one."""
    low, high = bounds(need, axis)
    return low if low == high else None


def describe(need: Input) -> str:
    """An input for people: image float32 batchx3x224x224."""
    shape = "of unknown shape" if need.shape is None else "x".join(map(str, need.shape))
    return f"{need.name} {need.dtype} {shape or 'scalar'}"
