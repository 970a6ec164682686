"""The device's reading of the schema against jsonschema's, and against the compiler's types."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import bundles
import jsonschema
import pytest

from edgec import types
from edgec.errors import InputError
from edgec.runtime import manifest as manifests
from edgec.runtime.schema import first_error

JUNK: list[Any] = [None, True, -1, 0, 1.5, "", "x", "../x", "a\n", [], {}, [1, 2], {"a": 1}, 10**30]


def complete() -> dict[str, Any]:
    described, files = bundles.parts(2)
    bundles.list_files(described, files)
    return described


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], action: Any) -> dict[str, Any]:
    copied = copy.deepcopy(document)
    place: Any = copied
    for key in path[:-1]:
        place = place[key]
    action(place, path[-1])
    return copied


def variants() -> Iterator[dict[str, Any]]:
    document = complete()
    for path in list(places(document)):
        yield changed(document, path, lambda place, key: place.pop(key))
        for junk in JUNK:
            yield changed(
                document, path, lambda place, key, junk=junk: place.__setitem__(key, junk)
            )
        if not isinstance(path[-1], int):
            yield changed(document, path, lambda place, key: place.__setitem__(key + "_", 1))


def test_both_validators_agree_on_thousands_of_damaged_manifests() -> None:
    schema = manifests.schema()
    reference = jsonschema.Draft202012Validator(schema)
    counts = {True: 0, False: 0}
    for document in variants():
        valid = reference.is_valid(document)
        counts[valid] += 1
        assert (first_error(document, schema) is None) == valid, json.dumps(document)
    assert counts[True] > 300
    assert counts[False] > 1500


def test_a_damaged_manifest_is_fine_or_an_input_error() -> None:
    for document in variants():
        message = ""
        try:
            parsed = manifests.parse(json.dumps(document).encode())
        except InputError as error:
            message = error.message
        if message:
            assert message.startswith(("manifest.json: ", "manifest.json is", "this bundle has"))
        else:
            assert parsed == document


def test_the_manifest_of_the_tests_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(manifests.schema())
    assert first_error(complete(), manifests.schema()) is None


@pytest.mark.parametrize(
    ("enum", "where"),
    [
        (types.Scheme, ("$defs", "scheme")),
        (types.Kind, ("properties", "parts", "items", "properties", "kind")),
        (types.Modality, ("properties", "parts", "items", "properties", "modality")),
    ],
)
def test_the_schema_knows_the_compilers_nouns(enum: Any, where: tuple[str, ...]) -> None:
    place: Any = manifests.schema()
    for key in where:
        place = place[key]
    assert set(place["enum"]) == {str(member) for member in enum}


def test_an_unknown_keyword_in_the_schema_is_not_ignored() -> None:
    with pytest.raises(NotImplementedError, match="oneOf"):
        first_error(1, {"$defs": {}, "oneOf": []})
