"""What a checkpoint on disk states about itself, before any weight is read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from ..errors import DataFormatError
from .bundle import GridFrame, SamplerDefaults, ViewFusion

Naming = Literal["own", "published", "transformers"]
"""Whose class, arguments and parameter names a network is stored with."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class ModuleFiles:
    """One network of a checkpoint: its class, constructor arguments and files.

    sha256   hash of each file, None where nobody knows it
    base     network of another checkpoint that gives the weights which the files lack; None: they have all
    """

    role: str
    class_name: str
    constructor: Mapping[str, Any]
    files: tuple[Path, ...]
    sha256: tuple[str | None, ...]
    naming: Naming
    base: ModuleFiles | None = None

    @property
    def source(self) -> str:
        """The files, for messages."""
        if not self.files:
            return "no files" if self.base is None else self.base.source
        return str(self.files[0]) + (f" and {len(self.files) - 1} more" if len(self.files) > 1 else "")


@dataclass(frozen=True)
class CheckpointDescription:
    """A checkpoint that was found but not read; image_encoder: name of one that comes apart, None: it needs none."""

    family: str
    source: str
    modules: Mapping[str, ModuleFiles]
    frame: GridFrame = "canonical"
    fusion: ViewFusion = "view_wise"
    image_size: int = 518
    image_encoder: str | None = None
    samplers: Mapping[str, SamplerDefaults] = field(default_factory=dict)
    slat_mean: tuple[float, ...] | None = None
    slat_std: tuple[float, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object; a name that stands twice in one object is an error, since the second would hide the first."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataFormatError(f"{file}: '{twice[0]}' stands there twice")
        return dict(pairs)

    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except FileNotFoundError as error:
        raise DataFormatError(f"{file}: no such file; a checkpoint needs it, fetch it again") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataFormatError(f"{file}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise DataFormatError(f"{file}: expected a JSON object, got {type(content).__name__}")
    return content


def entry(content: Mapping[str, Any], name: str, kind: type[Value], file: Path) -> Value:
    """content[name], which must be of `kind`; raises `DataFormatError`."""
    value = content.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataFormatError(f"{file}: '{name}' must be of type {kind.__name__}, got {value!r}")
    return value


def floats(values: Any, name: str, file: Path) -> tuple[float, ...]:
    """A list of numbers; raises `DataFormatError`."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise DataFormatError(f"{file}: '{name}' must be a list of numbers, got {values!r}")
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise DataFormatError(f"{file}: '{name}' must be a list of numbers, got {values!r}") from error


def sampler_defaults(params: Mapping[str, Any], file: Path) -> SamplerDefaults:
    """From our names of `SamplerDefaults`; raises `DataFormatError` for others and for values that are not numbers."""
    known = SamplerDefaults.__dataclass_fields__.keys()
    if unknown := sorted(params.keys() - known):
        raise DataFormatError(f"{file}: a sampler has no '{unknown[0]}', only {', '.join(known)}")
    try:
        values = {k: float(v) for k, v in params.items() if k not in ("steps", "guidance_interval")}
        steps = int(params.get("steps", SamplerDefaults.steps))
        low, high = (float(v) for v in params.get("guidance_interval", SamplerDefaults.guidance_interval))
    except (TypeError, ValueError) as error:
        raise DataFormatError(f"{file}: a sampler's values are not numbers ({error})") from error
    return SamplerDefaults(steps=steps, guidance_interval=(low, high), **values)
