"""A bundle's recipe: pictures, texts and sounds become feeds as they did for its calibration.

`recipe.json` holds one reader for each kind of data, every default filled in, every graph input
named. The compiler prepares its samples with this same code, so that both sides agree.
"""

import json
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple
from weakref import WeakKeyDictionary

from edgec.errors import InputError
from edgec.runtime import read_audio, read_image, read_numbers, read_text
from edgec.runtime.bundle import Bundle
from edgec.runtime.manifest import refuse
from edgec.runtime.reading import Asset, Spec, table
from edgec.runtime.schema import first_error

VERSION = 1
MOST_READERS = 64
NAME = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}(?![\\s\\S])"}


class Kind(NamedTuple):
    """A kind of data: the schema of its readers, how one is made, and the files it takes."""

    schema: Mapping[str, Any]
    reader: Callable[[Spec, Asset], Any]
    suffixes: Tuple[str, ...]


KINDS: Dict[str, Kind] = {
    "image": Kind(read_image.SCHEMA, read_image.ImageReader, read_image.SUFFIXES),
    "text": Kind(read_text.SCHEMA, read_text.TextReader, read_text.SUFFIXES),
    "audio": Kind(read_audio.SCHEMA, read_audio.AudioReader, read_audio.SUFFIXES),
    "numbers": Kind(read_numbers.SCHEMA, read_numbers.NumbersReader, ()),
}
SCHEMA = table(
    {
        "version": {"const": VERSION},
        "name": {"type": "string", "minLength": 1, "maxLength": 1024},
        "readers": {"type": "object", "propertyNames": NAME},
    }
)


class Recipe:
    """The readers of a checked `recipe.json`, opened once; safe to use from several threads."""

    def __init__(self, page: Mapping[str, Any], asset: Asset) -> None:
        """`asset`: the bytes that lie under a name. Raises InputError where anything is wrong, and
        ToolchainError where a package that a reader needs is missing.
        """
        check(page)
        self.kinds: Dict[str, str] = {n: spec["kind"] for n, spec in page["readers"].items()}
        self._readers: Dict[str, Any] = {}
        for name, spec in page["readers"].items():
            try:
                self._readers[name] = KINDS[spec["kind"]].reader(spec, asset)
            except InputError as error:
                message = "readers.{}: {}".format(name, error.message)
                raise InputError(message, hint=error.hint) from error
        self.items: Dict[str, str] = {
            name: reader.takes
            for name, reader in self._readers.items()
            if getattr(reader, "constant", None) is None
        }

    def prepare(
        self, items: Mapping[str, Any], labels: Optional[Mapping[str, str]] = None
    ) -> Dict[str, Any]:
        """Items by the readers' names -> arrays by input name, for one sample.

        `labels` name the items in errors. Raises InputError: an item that is missing, unknown or
        not usable.
        """
        takes = "The recipe reads " + ", ".join("{} ({})".format(*i) for i in self.items.items())
        unknown = sorted(str(name) for name in items if name not in self.items)
        if unknown:
            raise InputError("unknown item " + ", ".join(unknown), hint=takes)
        missing = [name for name in self.items if name not in items]
        if missing:
            raise InputError("missing item " + ", ".join(missing), hint=takes)
        feeds: Dict[str, Any] = {}
        for name, reader in self._readers.items():
            item = items.get(name)
            label = (labels or {}).get(name, name)
            if label == name and reader.opens_files and isinstance(item, (str, os.PathLike)):
                label = str(item)
            feeds.update(reader.read(item, label))
        return feeds


def check(page: Any) -> None:
    """Check a recipe's structure. Raises InputError naming the place."""
    error = first_error(page, dict(SCHEMA, **{"$defs": {}}))
    if error:
        refuse("recipe.json: " + error)
    if len(page["readers"]) > MOST_READERS:
        refuse("recipe.json: more than {} readers".format(MOST_READERS))
    fed: List[str] = []
    for name, spec in page["readers"].items():
        where = "readers." + name
        kind = KINDS.get(str(spec.get("kind"))) if isinstance(spec, dict) else None
        if kind is None:
            refuse("recipe.json: {}.kind: expected {}".format(where, " or ".join(KINDS)))
        error = first_error(spec, dict(kind.schema, **{"$defs": {}}), where)
        if error:
            refuse("recipe.json: " + error)
        fed += [feed["name"] for feed in spec["inputs"].values()]
    for name in fed:
        if fed.count(name) > 1:
            refuse("recipe.json: input {!r} is fed twice".format(name))


def parse(data: bytes) -> Dict[str, Any]:
    """The checked page of `recipe.json` (UTF-8)."""
    try:
        page: Dict[str, Any] = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        refuse("recipe.json is not valid JSON: {}".format(str(error)[:200]))
    check(page)
    return page


_OPEN: "WeakKeyDictionary[Bundle, Recipe]" = WeakKeyDictionary()


def open_recipe(bundle: Bundle) -> Recipe:
    """The recipe of a bundle, opened once for each bundle. Raises InputError where it has none."""
    if bundle not in _OPEN:
        name = bundle.manifest.get("recipe")
        if name is None:
            message = "{} holds no recipe for pictures, texts or sounds".format(bundle.source)
            hint = "Give arrays, or build it with --recipe images, text, audio or image-text."
            raise InputError(message, hint=hint)
        _OPEN[bundle] = Recipe(parse(bundle.read(name)), bundle.read)
    return _OPEN[bundle]


def prepare(bundle: Bundle, items: Mapping[str, Any]) -> Dict[str, Any]:
    """Raw data by the names of the recipe's readers -> feeds for `Model.run`, one sample.

    A picture is a path, a file's bytes or uint8 [height, width, 3] (RGB); a text is a str; a sound
    is a path, a file's bytes or (float samples, rate in Hz); numbers are lists or arrays.
    """
    return open_recipe(bundle).prepare(items)
