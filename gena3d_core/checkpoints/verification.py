"""Verification of our networks: numerical cases, and the parameter names of published checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import DataFormatError, Gena3DError, InputError
from .cases import runner_for
from .golden import Difference, GoldenCase, Tolerance, case_tolerance, compare_case, read_case
from .key_maps import rename_key
from .load import check_keys
from .published import build_published, is_supported
from .published.inference import inferred_constructor

Outcome = Literal["ok", "FAIL", "not supported yet"]


@dataclass(frozen=True)
class CaseReport:
    """What verifying one case gave.

    differences   every compared tensor -> how far ours is from the reference's
    skipped       tensors that were not compared -> why
    reason        why the case could not be run, or ""
    """

    name: str
    outcome: Outcome
    tolerance: Tolerance | None = None
    differences: Mapping[str, Difference] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    @property
    def max_abs(self) -> float:
        """Largest absolute difference of all tensors; NaN if any is."""
        return _largest([d.max_abs for d in self.differences.values()])

    @property
    def max_rel(self) -> float:
        """Largest relative difference of all tensors; NaN if any is."""
        return _largest([d.max_rel for d in self.differences.values()])


@dataclass(frozen=True)
class KeysReport:
    """What comparing a list of published parameter names with our module gave; parameters: without buffers."""

    name: str
    outcome: Outcome
    tensors: int = 0
    parameters: int = 0
    reason: str = ""


def verify_case(folder: Path, *, device: str = "cpu", backend: str | None = None) -> CaseReport:
    """Run the case in `folder` with our modules on `device` and compare; never raises for what the folder holds.

    backend: attention backend of every layer that runs (a name of `nn.attention.BACKENDS`); None: the default.
    """
    name = folder.resolve().name
    try:
        case = read_case(folder)
        runner = runner_for(case)
        if runner is None:
            return CaseReport(name, "not supported yet", case_tolerance(case))
        with torch.device(device), _attention_backend(backend), _full_float32():
            results = runner(_moved(case, device))
        results = replace(results, tensors={key: value.detach().cpu() for key, value in results.tensors.items()})
        differences = compare_case(case, results)
    except Gena3DError as error:
        return CaseReport(name, "FAIL", reason=str(error))
    except Exception as error:
        # One broken case must not hide the others: whatever went wrong is this case's result.
        return CaseReport(name, "FAIL", reason=f"{type(error).__name__}: {error}")
    reason = ""
    if not any(key.startswith("out.") for key in differences):
        reason = "nothing was compared"
    passed = not reason and all(d.ok for d in differences.values())
    uncompared = case.expected.keys() - differences.keys()
    skipped = {key: results.skipped.get(key, "ours has no such point") for key in sorted(uncompared)}
    return CaseReport(name, "ok" if passed else "FAIL", case_tolerance(case), differences, skipped, reason)


def verify_keys(file: Path) -> KeysReport:
    """Compare a list of published parameters (class, constructor, tensors: name -> [shape, dtype], buffers) with ours.

    Every name must map to one of ours with the same shape, and the other way round. Nothing is allocated: the module
    is built on the meta device. Never raises for what the file holds.
    """
    name = file.name
    try:
        description = _read_keys(file)
        shapes = {key: tuple(int(n) for n in entry[0]) for key, entry in description["tensors"].items()}
        if not is_supported(str(description["class"])):
            return KeysReport(name, "not supported yet", len(shapes))
        return _compared_keys(name, file, description, shapes)
    except Gena3DError as error:
        return KeysReport(name, "FAIL", reason=str(error))
    except Exception as error:
        return KeysReport(name, "FAIL", reason=f"{type(error).__name__}: {error}")


def _compared_keys(
    name: str, file: Path, description: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> KeysReport:
    published = str(description["class"])
    constructor = description.get("constructor")
    if not isinstance(constructor, Mapping):
        constructor = inferred_constructor(published, shapes)
    with torch.device("meta"):
        module, key_map = build_published(published, constructor)
    ours: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        renamed = rename_key(key, key_map)
        if renamed in ours:
            raise DataFormatError(f"{file}: two published names become '{renamed}', one of them '{key}'")
        ours[renamed] = shape
    check_keys(module, ours, str(file))
    _check_buffers(module, {rename_key(key, key_map) for key in description.get("buffers", ())}, file)
    parameters = sum(p.numel() for p in module.parameters())
    stated = description.get("n_parameters", parameters)
    if stated != parameters:
        raise DataFormatError(f"{file}: states {stated} parameters, ours has {parameters}")
    return KeysReport(name, "ok", len(shapes), parameters)


def _check_buffers(module: nn.Module, wanted: set[str], file: Path) -> None:
    """A published buffer must not be trained by ours, nor the other way round."""
    state = module.state_dict().keys()
    ours = {key for key, _ in module.named_buffers() if key in state}
    if ours != wanted:
        raise DataFormatError(f"{file}: buffers are {sorted(wanted)}, ours {sorted(ours)}")


def _read_keys(file: Path) -> dict[str, Any]:
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{file}: no readable list of parameters: {error}") from error
    if not isinstance(description, dict) or not isinstance(description.get("tensors"), dict):
        raise DataFormatError(f"{file}: expected a JSON object with 'class' and 'tensors'")
    if not isinstance(description.get("class"), str) or not description["class"]:
        raise DataFormatError(f"{file}: does not say which class it is about")
    return description


def _moved(case: GoldenCase, device: str) -> GoldenCase:
    def move(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: tensor.to(device) for key, tensor in tensors.items()}

    return case if device == "cpu" else replace(case, inputs=move(case.inputs), weights=move(case.weights))


@contextmanager
def _attention_backend(name: str | None) -> Iterator[None]:
    """Every attention layer that runs inside uses this backend: runners build their modules themselves."""
    from ..nn.attention import BACKENDS

    if name is None:
        yield
        return
    if name not in BACKENDS:
        raise InputError(f"unknown attention backend '{name}', one of {', '.join(BACKENDS)}")

    def choose(module: nn.Module, inputs: Any) -> None:
        if hasattr(module, "attention_backend"):
            setattr(module, "attention_backend", name)  # noqa: B010

    handle = nn.modules.module.register_module_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _full_float32() -> Iterator[None]:
    """GPUs round the factors of float32 convolutions to ten bits unless told otherwise: more than any tolerance."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _largest(values: list[float]) -> float:
    if any(math.isnan(value) for value in values):
        return math.nan
    return max(values, default=math.nan)
