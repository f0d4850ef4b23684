"""Numerical cases: a folder with `case.json`, `io.safetensors` and, for modules with weights, `weights.safetensors`.

`in.*` of io.safetensors are inputs, `out.*` what the reference gave, `mid.*` what it had on the way. A runner (see
`checkpoints.cases`) builds our module from the case's constructor arguments and computes the same tensors; `verify`
compares them within the case's tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataFormatError

Comparison = Callable[[Tensor, Tensor, "Tolerance"], "Difference"]
"""(ours, theirs, tolerance) -> how far they are apart."""


@dataclass(frozen=True)
class Tolerance:
    """A value passes where |ours - theirs| <= atol + rtol · |theirs|."""

    atol: float
    rtol: float


@dataclass(frozen=True)
class Difference:
    """Largest absolute and relative difference of one tensor, and whether it is within the tolerance."""

    max_abs: float
    max_rel: float
    ok: bool
    remark: str = ""


@dataclass(frozen=True)
class GoldenCase:
    """One case.

    description   case.json
    inputs        `in.*` without the prefix
    expected      `out.*` and `mid.*`, prefix kept
    weights       state dict in the published key names; float16 entries cast to float32 unless the case is about
                  half precision
    """

    name: str
    description: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    expected: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]

    @property
    def constructor(self) -> dict[str, Any]:
        """Constructor arguments of the reference's module."""
        return dict(self.description.get("constructor", {}))


@dataclass(frozen=True)
class CaseResults:
    """What a runner computed: `out.*` and those `mid.*` that ours has too.

    comparisons   tensors that are not compared number by number (meshes whose order is free, for example)
    skipped       name of an expected tensor -> why it does not apply (printed)
    """

    tensors: Mapping[str, Tensor]
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def read_case(folder: Path) -> GoldenCase:
    """Read a case folder; raises `DataFormatError` naming the file that is missing or broken."""
    from .safetensors_file import read_safetensors

    description_file = folder / "case.json"
    try:
        description = json.loads(description_file.read_text())
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{description_file}: no readable case description: {error}") from error
    if not isinstance(description, dict):
        raise DataFormatError(f"{description_file}: expected a JSON object")
    tensors = read_safetensors(folder / "io.safetensors")
    weights_file = folder / "weights.safetensors"
    weights = read_safetensors(weights_file) if weights_file.exists() else {}
    if not _keeps_half(description):
        weights = {k: v.float() if v.dtype == torch.float16 else v for k, v in weights.items()}
    return GoldenCase(
        folder.resolve().name,
        description,
        {k.removeprefix("in."): v for k, v in tensors.items() if k.startswith("in.")},
        {k: v for k, v in tensors.items() if k.startswith(("out.", "mid."))},
        weights,
    )


def _keeps_half(description: Mapping[str, Any]) -> bool:
    constructor = description.get("constructor", {})
    return bool(isinstance(constructor, dict) and constructor.get("use_fp16"))


def case_tolerance(case: GoldenCase) -> Tolerance:
    """The case's tolerance; cases that state it in words get exact-to-1e-6, their runners say what differs."""
    stated = case.description.get("tolerance")
    if isinstance(stated, dict):
        return Tolerance(float(stated.get("atol", 0.0)), float(stated.get("rtol", 0.0)))
    return Tolerance(1e-6, 0.0)


def compare_values(ours: Tensor, theirs: Tensor, tolerance: Tolerance) -> Difference:
    """Number by number, in float64; a NaN, another shape or another count fails."""
    if ours.shape != theirs.shape:
        return Difference(float("inf"), float("inf"), False, f"shape {tuple(ours.shape)}, wanted {tuple(theirs.shape)}")
    a, b = ours.double(), theirs.double()
    if not a.numel():
        return Difference(0.0, 0.0, True)
    apart = (a - b).abs()
    apart = torch.where(a == b, torch.zeros_like(apart), apart)
    # A tolerance relative to an infinite value would let anything pass.
    within = (a == b) | (b.isfinite() & (apart <= tolerance.atol + tolerance.rtol * b.abs()))
    relative = apart / b.abs().clamp_min(1e-12)
    # Relative differences of values near zero say nothing: report those of values that are not lost in atol.
    shown = relative[b.abs() > max(tolerance.atol, 1e-12)]
    return Difference(float(apart.max()), float(shown.max()) if shown.numel() else 0.0, bool(within.all()))


def compare_case(case: GoldenCase, results: CaseResults) -> dict[str, Difference]:
    """Difference of every expected `out.*` and of the `mid.*` that both sides have.

    An `out.*` that the runner neither computed nor skipped with a reason fails.
    """
    tolerance = case_tolerance(case)
    found = {}
    for name, theirs in case.expected.items():
        if name in results.skipped:
            continue
        if name not in results.tensors:
            if name.startswith("out."):
                found[name] = Difference(float("inf"), float("inf"), False, "not computed")
            continue
        compare = results.comparisons.get(name, compare_values)
        found[name] = compare(results.tensors[name], theirs, tolerance)
    return found
