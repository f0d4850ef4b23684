"""`key=value` of the command line to the fields of a recipe, by the types that the dataclass states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from gena3d_core.errors import InputError

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_overrides(kind: type, words: Sequence[str]) -> dict[str, Any]:
    """['batch=8', ...] -> {'batch': 8, ...}; raises `InputError` that names the key, and the known ones."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"'{word}' is no key=value")
        if key not in hints:
            raise InputError(f"unknown key '{key}', one of {', '.join(sorted(hints))}")
        values[key] = parse_value(key, hints[key], text)
    return values


def parse_value(key: str, hint: Any, text: str) -> Any:
    """`text` as the type `hint`: bool, int, float, str, Literal or tuple (values between commas)."""
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise InputError(f"{key} must be one of {', '.join(map(str, get_args(hint)))}, got '{text}'")
        return text
    if get_origin(hint) is tuple:
        return _parse_tuple(key, get_args(hint), text)
    if hint is bool:
        if text.lower() not in BOOLEANS:
            raise InputError(f"{key} must be true or false, got '{text}'")
        return BOOLEANS[text.lower()]
    convert: Callable[[str], Any] = hint
    try:
        return convert(text)
    except ValueError as error:
        raise InputError(f"{key} must be of type {hint.__name__}, got '{text}'") from error


def _parse_tuple(key: str, items: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    parts = [part for part in text.split(",") if part]
    if items[-1] is Ellipsis:
        return tuple(parse_value(key, items[0], part) for part in parts)
    if len(parts) != len(items):
        raise InputError(f"{key} needs {len(items)} values between commas, got '{text}'")
    return tuple(parse_value(key, item, part) for item, part in zip(items, parts, strict=True))
