"""The part of JSON Schema (draft 2020-12) that `bundle.schema.json` uses, for the device.

The published schema thus decides on the device too, without the jsonschema package; a test holds
the two validators against each other. Stricter in one point: 1.0 is no integer.
"""

import math
import re
from typing import Any, List, Mapping, Optional

_KNOWN = {"$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum"}
_KNOWN |= {"pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum"}
_KNOWN |= {"items", "minItems", "maxItems"}
_KNOWN |= {"properties", "required", "additionalProperties", "propertyNames"}


def first_error(value: Any, schema: Mapping[str, Any], where: str = "") -> Optional[str]:
    """What is wrong with `value`, as "place: problem", or None. `schema` is the whole document."""
    return _check(value, schema, schema["$defs"], where)


def _check(
    value: Any, schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> Optional[str]:
    unknown = schema.keys() - _KNOWN
    if unknown:  # our own schema uses a word that this validator lacks: never skip a rule
        raise NotImplementedError("schema keywords " + ", ".join(sorted(unknown)))
    if "$ref" in schema:
        error = _check(value, defs[schema["$ref"][len("#/$defs/") :]], defs, at)
        if error:
            return error
    error = _scalar_error(value, schema)
    if error:
        return (at or "top level") + ": " + error
    if isinstance(value, dict):
        return _object_error(value, schema, defs, at)
    if isinstance(value, list):
        return _array_error(value, schema, defs, at)
    return None


def _scalar_error(value: Any, schema: Mapping[str, Any]) -> Optional[str]:
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, kind) for kind in kinds):
            return "expected {}, got {}".format(" or ".join(kinds), _brief(value))
    if "const" in schema and (type(value) is not type(schema["const"]) or value != schema["const"]):
        return "expected {!r}, got {}".format(schema["const"], _brief(value))
    if "enum" in schema and value not in schema["enum"]:
        return "expected one of {}, got {}".format(", ".join(schema["enum"]), _brief(value))
    if isinstance(value, str):
        if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
            return "{} characters are too few or too many".format(len(value))
        if "pattern" in schema and not re.search(schema["pattern"], value):
            why = schema.get("description")
            return _brief(value) + " is not allowed here" + (" ({})".format(why) if why else "")
    if _is(value, "number"):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high or value <= schema.get("exclusiveMinimum", -math.inf):
            return _brief(value) + " is out of range"
    return None


def _object_error(
    value: Mapping[str, Any], schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> Optional[str]:
    missing = [key for key in schema.get("required", ()) if key not in value]
    if missing:
        return (at or "top level") + ": missing " + ", ".join(missing)
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        place = at + "." + key[:80] if at else key[:80]
        if "propertyNames" in schema:
            error = _check(key, schema["propertyNames"], defs, at)
            if error:
                return error
        if key in properties:
            error = _check(item, properties[key], defs, place)
        elif rest is False:
            error = place + ": not known in this schema"
            if properties:
                error += "; known are " + ", ".join(sorted(properties))
        else:
            error = None if rest is True else _check(item, rest, defs, place)
        if error:
            return error
    return None


def _array_error(
    value: "List[Any]", schema: Mapping[str, Any], defs: Mapping[str, Any], at: str
) -> Optional[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return (at or "top level") + ": {} items are too few or too many".format(len(value))
    if "items" in schema:
        for index, item in enumerate(value):
            error = _check(item, schema["items"], defs, "{}[{}]".format(at, index))
            if error:
                return error
    return None


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = {"string": str, "array": list, "object": dict, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[kind])


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "an array"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
