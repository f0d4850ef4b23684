"""Constructor arguments of published networks -> our config dataclasses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ...errors import InputError

Config = TypeVar("Config")

TRAINING_ONLY = ("use_checkpoint", "use_skip_connection")
"""Arguments that do not change what a network computes."""


def config_from(
    kind: type[Config],
    constructor: Mapping[str, Any],
    *,
    fixed: Mapping[str, Any] | None = None,
    ignored: Collection[str] = (),
    **ours: Any,
) -> Config:
    """The dataclass `kind` filled from arguments of the same names, then from `ours`.

    fixed: arguments for which only one value can be had -> that value. Raises `InputError` for others, and for
    arguments that are neither fields, fixed, ignored nor for training only, and for missing ones.
    """
    fixed = fixed or {}
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    unknown = constructor.keys() - known.keys() - fixed.keys() - set(ignored) - set(TRAINING_ONLY)
    if unknown:
        raise InputError(f"{kind.__name__} knows no {', '.join(sorted(unknown))}")
    for name, value in fixed.items():
        if constructor.get(name, value) != value:
            raise InputError(f"{name} must be {value!r}, got {constructor[name]!r}: no published model has another")
    values = {name: value for name, value in constructor.items() if name in known} | ours
    missing = [n for n, f in known.items() if n not in values and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise InputError(f"{kind.__name__} needs {', '.join(missing)}")
    return kind(**values)
