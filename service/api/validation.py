"""Validation: turns a client's values into a Pydantic model, or into one clear error."""

import json
from collections.abc import Mapping
from functools import cache
from reprlib import Repr
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import InvalidParameter

Model = TypeVar("Model", bound=BaseModel)

MAX_SHOWN_CHARACTERS = 80
"""Maximum number of characters of a client's value, or of its name, that an error repeats."""

_brief = Repr()
_brief.maxlist = _brief.maxdict = 10
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = 2 * MAX_SHOWN_CHARACTERS


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Return values as a model.

    Raises:
        InvalidParameter: a value is invalid; the error has the name of the first one, its value and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(model, error) from error


def invalid(model: type[BaseModel], error: ValidationError) -> InvalidParameter:
    """Return a validation error as the error of its first parameter."""
    first = error.errors(include_url=False)[0]
    kind, location, given = first["type"], first["loc"], first["input"]
    where = ".".join(map(str, location))[:MAX_SHOWN_CHARACTERS] or "body"
    if kind == "missing":
        return InvalidParameter(where, "is missing")
    if kind == "extra_forbidden":
        return InvalidParameter(where, f"is not a known field; known fields: {', '.join(model.model_fields)}")
    allowed = _allowed(_described(model, location)) or f"is wrong: {first['msg'][0].lower()}{first['msg'][1:]}"
    shown = f"of {len(given)}" if kind in {"too_short", "too_long"} else _shown(given)
    return InvalidParameter(where, f"{allowed}, not {shown}")


def _shown(value: object) -> str:
    """Return a client's value as text, with null and booleans as in JSON. Only the beginning of a large one is read."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    shown = _brief.repr(value)
    return shown if len(shown) < MAX_SHOWN_CHARACTERS else f"{shown[: MAX_SHOWN_CHARACTERS - 3]}..."


@cache
def _properties(model: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = model.model_json_schema()["properties"]
    return properties


def _described(model: type[BaseModel], location: tuple[int | str, ...]) -> dict[str, Any]:
    """Return the schema of a parameter, or of an item of its lists; empty if there is none."""
    described: dict[str, Any] = _properties(model).get(str(location[0]), {}) if location else {}
    for _ in location[1:]:
        described = described.get("items", {})
    return described


def _allowed(described: Mapping[str, Any]) -> str:
    """Return in words what the schema of a number, a choice, a boolean or a list allows; empty for anything else."""
    options = described.get("anyOf", [described])
    if not (option := next((o for o in options if o.get("type") != "null"), None)):
        return ""
    if "enum" in option:
        return f"must be one of {', '.join(map(str, option['enum']))}"
    kind = {"integer": "a whole number", "number": "a number"}.get(option.get("type", ""))
    if kind and "minimum" in option and "maximum" in option:
        return f"must be {kind} in {option['minimum']}..{option['maximum']}"
    if "minItems" in option and "maxItems" in option:
        few, most = option["minItems"], option["maxItems"]
        return f"must be a list of {few if few == most else f'{few}..{most}'} items"
    return "must be true or false" if option.get("type") == "boolean" else ""
