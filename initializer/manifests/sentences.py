"""What a schema found wrong, said so that the person who wrote the manifest understands it."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from jsonschema.exceptions import ValidationError, best_match

__all__ = ["place_and_sentence", "shortened"]

MAX_VALUE_CHARACTERS = 80

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "nothing",
    "number": "a number",
    "object": "an object",
    "string": "text",
}
_PYTHON_TYPES = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
}


def place_and_sentence(error: ValidationError) -> tuple[str, str]:
    """Where it is, such as `spec.ports[0].name`, empty for the whole; and what is wrong, as a predicate."""
    nearest = best_match([error]) or error  # of alternatives that all failed, the one that came nearest
    return nearest.json_path.removeprefix("$").removeprefix("."), _sentence(nearest)


def shortened(text: str) -> str:
    """The text, cut to 80 characters."""
    return text if len(text) <= MAX_VALUE_CHARACTERS else f"{text[:MAX_VALUE_CHARACTERS]}…"


def _sentence(error: ValidationError) -> str:
    rule: Any = error.validator_value
    found: Any = error.instance
    match error.validator:
        case "required":
            return f"lacks {_listed((field for field in rule if field not in found), 'and')}"
        case "additionalProperties":
            schema: Any = error.schema
            return _unknown_fields(found, schema.get("properties", {}))
        case "type":
            return f"must be {_expected(rule)}, not {_TYPES[_PYTHON_TYPES.get(type(found), 'null')]}"
        case "enum":
            choices = (_shown(choice) for choice in rule if choice is not None)
            return f"must be {_listed(choices, 'or')}, not {_shown(found)}"
        case "pattern":
            return f"must match {rule}, which {_shown(found)} does not"
        case _:
            return f"is not allowed: {shortened(error.message)}"


def _unknown_fields(found: Iterable[str], known: Iterable[str]) -> str:
    unknown = sorted(set(found).difference(known))
    if len(unknown) > 1:
        return f"has the unknown fields {_listed(map(shortened, unknown), 'and')}"
    near = get_close_matches(unknown[0], list(known), n=1)
    return f"has the unknown field {shortened(unknown[0])}" + (f"; did you mean {near[0]}?" if near else "")


def _expected(types: str | list[str]) -> str:
    names = [types] if isinstance(types, str) else [name for name in types if name != "null"]
    return _listed((_TYPES[name] for name in names), "or")


def _listed(words: Iterable[str], conjunction: str) -> str:
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def _shown(value: Any) -> str:
    return shortened(repr(value))
