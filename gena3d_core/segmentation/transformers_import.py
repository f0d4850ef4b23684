"""Networks of the package transformers, loaded from a folder on this machine and checked for completeness."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import DataFormatError, MissingDependencyError


def import_transformers(needed_for: str, names: Sequence[str]) -> ModuleType:
    """The module `transformers`; raises `MissingDependencyError` where it, or one of `names` in it, is missing."""
    pip_name = "'gena3d[transformers]'"
    if importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError("transformers", needed_for, pip_name)
    transformers = importlib.import_module("transformers")
    for name in names:
        try:
            getattr(transformers, name)
        except (AttributeError, ImportError, RuntimeError) as error:
            raise MissingDependencyError(f"transformers with {name}", needed_for, f"--upgrade {pip_name}") from error
    return transformers


def load_network(class_name: str, folder: Path, needed_for: str, model_types: Sequence[str]) -> Any:
    """The network `class_name` of transformers with the weights in `folder`.

    model_types: what config.json may call itself. Raises `MissingDependencyError` without the package,
    `DataFormatError` for a folder of another model, with broken files, or with weights missing.
    """
    from ..checkpoints.description import read_json

    transformers = import_transformers(needed_for, [class_name])
    config = folder / "config.json"
    if not config.is_file():
        raise DataFormatError(f"{folder}: holds no config.json; {needed_for} needs a folder as transformers saves it")
    kind = read_json(config).get("model_type")
    if kind not in model_types:
        raise DataFormatError(
            f"{folder}: holds a model of type '{kind}'; {needed_for} needs one of type {' or '.join(model_types)}"
        )
    # Progress bars of a library have no place in a node's log.
    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        network, report = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:
        # transformers and safetensors raise errors of many families for files that are missing or broken.
        raise DataFormatError(f"{folder}: {class_name} cannot be loaded: {_one_line(error)}") from error
    finally:
        if shown:
            bars.enable_progress_bar()
    lacking = sorted(report["missing_keys"]) or sorted(str(entry) for entry in report.get("mismatched_keys", ()))
    if lacking:
        raise DataFormatError(
            f"{folder}: {len(lacking)} weights of {class_name} are missing or of another shape, such as {lacking[0]}"
        )
    return network.eval().requires_grad_(False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
