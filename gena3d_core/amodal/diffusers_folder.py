"""Inpainting networks as the package diffusers saves them: what a folder must hold, checked before it is loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..checkpoints.description import read_json
from ..checkpoints.weight_files import read_headers
from ..errors import DataFormatError, MissingDependencyError

INDEX = "model_index.json"
PIP_NAME = "'gena3d[diffusion]'"


@dataclass(frozen=True)
class PaintingFamily:
    """A pipeline class of diffusers that paints a masked region.

    network     folder of the network that is sampled
    in_channels what its first layer takes: noise, mask and masked picture; other numbers are other models
    side        of the pictures, where the configs do not tell
    steps, guidance   sampling steps and guidance scale by default
    half        dtype on an accelerator
    arguments   what else the pipeline is called with
    """

    class_name: str
    network: str
    in_channels: int
    side: int
    steps: int
    guidance: float
    half: str
    first_layer: str
    arguments: Mapping[str, object] = field(default_factory=dict)


FAMILIES: Mapping[str, PaintingFamily] = {
    family.class_name: family
    for family in (
        PaintingFamily(
            "StableDiffusionInpaintPipeline",
            network="unet",
            in_channels=9,
            side=512,
            steps=50,
            guidance=7.5,
            half="float16",
            first_layer="conv_in.weight",
            arguments={"strength": 1.0},
        ),
        PaintingFamily(
            "StableDiffusionXLInpaintPipeline",
            network="unet",
            in_channels=9,
            side=1024,
            steps=30,
            guidance=7.5,
            half="float16",
            first_layer="conv_in.weight",
            # Below 1 the region would start from what was put there, a plain colour.
            arguments={"strength": 1.0},
        ),
        PaintingFamily(
            "FluxFillPipeline",
            network="transformer",
            in_channels=384,
            side=768,
            steps=30,
            guidance=30.0,
            half="bfloat16",
            first_layer="x_embedder.weight",
        ),
    )
}
"""By the class that model_index.json names."""


def require_diffusers(needed_for: str) -> None:
    """Raise `MissingDependencyError` unless the packages diffusers and transformers are installed; imports neither."""
    for package in ("diffusers", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, needed_for, PIP_NAME)


def check_folder(folder: Path) -> tuple[PaintingFamily, int]:
    """The family of the pipeline in `folder`, and the side of its pictures; reads configs and headers, no weights.

    Raises `DataFormatError` for a folder that is none, of another pipeline, or with damaged or missing files.
    """
    if not (folder / INDEX).is_file():
        raise DataFormatError(f"{folder}: holds no {INDEX}; an inpainting pipeline as diffusers saves it is needed")
    index = read_json(folder / INDEX)
    name = str(index.get("_class_name"))
    if name not in FAMILIES:
        raise DataFormatError(f"{folder}: holds a '{name}', which does not inpaint here; known: {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    config = read_json(folder / family.network / "config.json")
    if config.get("in_channels") != family.in_channels:
        raise DataFormatError(
            f"{folder}: its {family.network} takes {config.get('in_channels')} channels, a network that was trained to "
            f"inpaint takes {family.in_channels}: these are the weights of another model"
        )
    for component in _components(index):
        files = weight_files(folder / component)
        if (folder / component).is_dir() and not files and _holds_network(folder / component):
            raise DataFormatError(f"{folder / component}: holds no .safetensors file; fetch the repository again")
        headers = read_headers(files)
        first = headers.get(family.first_layer) if component == family.network else None
        if first is not None and first.shape[1] != family.in_channels:
            raise DataFormatError(
                f"{folder / component}: {family.first_layer} has shape {first.shape}, its config says "
                f"{family.in_channels} channels: weights and config are of different models"
            )
    return family, _side(folder, family, config)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one network: the full-precision ones where there are both."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [file for file in files if ".fp16." not in file.name]
    return plain or files


def variant(folder: Path, family: PaintingFamily) -> str | None:
    """'fp16' where the network is only there in half precision."""
    files = weight_files(folder / family.network)
    return "fp16" if files and all(".fp16." in file.name for file in files) else None


def _components(index: Mapping[str, object]) -> list[str]:
    """Networks and other parts that the pipeline loads; those that it does without are null."""
    skipped = ("safety_checker", "feature_extractor")
    return [
        key
        for key, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None and key not in skipped
    ]


def _holds_network(folder: Path) -> bool:
    return (folder / "config.json").is_file()


def _side(folder: Path, family: PaintingFamily, config: Mapping[str, object]) -> int:
    latent_side = config.get("sample_size")
    autoencoder = read_json(folder / "vae" / "config.json")
    blocks = autoencoder.get("block_out_channels")
    if family.network != "unet" or not isinstance(latent_side, int) or not isinstance(blocks, list):
        return family.side
    return latent_side * 2 ** (len(blocks) - 1)
