"""Segmenters on learned models by name: weights found and checked, networks opened, when they are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.front_end_table import FrontEndModel
from ..checkpoints.front_ends import check_files, front_end, log_licence, present_folder, required_folder
from ..errors import InputError
from .automatic import AutomaticConfig
from .florence2 import CLASS, NEEDED_FOR, Florence2, load_florence2
from .grounded import Grounded
from .mask_models import MaskModel
from .promptable import Promptable, PromptableConfig
from .segment_anything_import import import_segment_anything
from .segment_anything_model import load_segment_anything
from .tabletop import TabletopConfig
from .transformers_import import import_transformers
from .transformers_mask_model import FAMILIES, load_transformers_mask_model

SAM_SIZES = ("sam-vit-h", "sam-vit-l", "sam-vit-b")
"""Front-end models that `sam` runs on, best first."""


def make_promptable(
    name: str, *, checkpoint: str | None = None, device: str = "cpu", images_per_pass: int = 4, **options: Any
) -> Promptable:
    """The segmenter `sam`, `sam2` or `sam3`.

    checkpoint: the file (sam) or folder (sam2, sam3) of the weights; None: the places that `gena3d checkpoint info`
    lists. options: fields of `PromptableConfig`, the nested ones as mappings. Raises `MissingDependencyError` for a
    package that is not installed, `DataFormatError` for weights that are absent, damaged or of another network.
    """
    config = _config(options)
    return Promptable(_mask_model(name, checkpoint, device, images_per_pass), config, name)


def make_grounded(
    *,
    checkpoint: str | None = None,
    masks: str = "auto",
    mask_checkpoint: str | None = None,
    device: str = "cpu",
    images_per_pass: int = 4,
    **options: Any,
) -> Grounded:
    """The segmenter `grounded`: Florence-2 and a mask network.

    checkpoint: Florence-2's folder; masks: `sam`, `sam2`, `sam3`, or `auto` for the first whose weights are there;
    mask_checkpoint: its weights. Other options and errors as in `make_promptable`.
    """
    config = _config(options)
    if masks != "auto" and masks not in MASK_MODELS:
        raise InputError(f"masks must be auto or one of {', '.join(MASK_MODELS)}, got '{masks}'")
    import_transformers(NEEDED_FOR, [CLASS])
    detector_folder = _detector_folder(checkpoint)
    chosen = _present_mask_model() if masks == "auto" else masks
    network = _mask_model(chosen, mask_checkpoint, device, images_per_pass)
    return Grounded(load_florence2(detector_folder, device, images_per_pass), Promptable(network, config, chosen))


def load_detector(checkpoint: str | None, device: str = "cpu", images_per_pass: int = 4) -> Florence2:
    """Florence-2 from its folder, None: where `gena3d checkpoint info` looks for it; errors as in `make_grounded`."""
    import_transformers(NEEDED_FOR, [CLASS])
    return load_florence2(_detector_folder(checkpoint), device, images_per_pass)


def _detector_folder(checkpoint: str | None) -> Path:
    return _checked_folder(front_end("florence-2")) if checkpoint is None else Path(checkpoint)


def _sam(checkpoint: str | None, device: str, images_per_pass: int) -> MaskModel:
    import_segment_anything()
    if checkpoint is not None:
        return load_segment_anything(Path(checkpoint), device, images_per_pass)
    present = [name for name in SAM_SIZES if present_folder(front_end(name)) is not None]
    # Without any, the smallest is the one to advise.
    model = front_end(present[0] if present else SAM_SIZES[-1])
    file = _checked_folder(model) / model.files[0].name
    return load_segment_anything(file, device, images_per_pass)


def _transformers_model(name: str) -> Callable[[str | None, str, int], MaskModel]:
    def load(checkpoint: str | None, device: str, images_per_pass: int) -> MaskModel:
        import_transformers(f"the segmenter '{name}'", [FAMILIES[name].class_name])
        folder = _checked_folder(front_end(name)) if checkpoint is None else Path(checkpoint)
        return load_transformers_mask_model(name, folder, device, images_per_pass)

    return load


MASK_MODELS: Mapping[str, Callable[[str | None, str, int], MaskModel]] = {
    "sam": _sam,
    "sam2": _transformers_model("sam2"),
    "sam3": _transformers_model("sam3"),
}
"""Segmenter name -> loader of its network (checkpoint, device, images_per_pass)."""


def _mask_model(name: str, checkpoint: str | None, device: str, images_per_pass: int) -> MaskModel:
    if images_per_pass < 1:
        raise InputError(f"images_per_pass must be at least 1, got {images_per_pass}")
    return MASK_MODELS[name](checkpoint, device, images_per_pass)


def _present_mask_model() -> str:
    here = [name for name in ("sam3", "sam2") if present_folder(front_end(name)) is not None]
    return here[0] if here else "sam"


def _checked_folder(model: FrontEndModel) -> Path:
    folder = required_folder(model)
    check_files(model, folder)
    log_licence(model)
    return folder


def _config(options: Mapping[str, Any]) -> PromptableConfig:
    fields = dict(options)
    for key, kind in (("automatic", AutomaticConfig), ("tabletop", TabletopConfig)):
        if isinstance(fields.get(key), Mapping):
            fields[key] = kind(**fields[key])
    return PromptableConfig(**fields)
