"""The families of checkpoints that gena3d knows: what each needs, under which licence, and where it is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .bundle import GridFrame, ViewFusion


@dataclass(frozen=True)
class Family:
    """A family of checkpoints.

    obtain       how to come by it
    repository   Hugging Face repository that stands for the name, None where the user has to name one
    files        what a directory of it holds
    roles        networks that it must have to generate
    sha256       file -> SHA-256, for files whose hash is known beforehand
    remarks      what the user should know
    """

    name: str
    summary: str
    licence: str
    obtain: str
    repository: str | None
    frame: GridFrame
    fusion: ViewFusion
    files: tuple[str, ...]
    roles: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


STAGE_1 = ("image_encoder", "sparse_structure_flow", "sparse_structure_decoder")
STAGE_2 = ("structured_latent_flow", "mesh_decoder")
PUBLISHED_FILES = ("pipeline.json", "ckpts/*.json", "ckpts/*.safetensors")
OWN_FILES = ("config.json", "*.safetensors")
NO_HASHES = (
    "hashes of the published files were not known when this was written: only those of the hub cache are checked"
)
DINO_APART = "the image encoder DINOv2 ViT-L/14 with registers comes apart (--image-encoder)"

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="edge",
            summary="small stage-1 model of ours, made by training/, runs on a CPU",
            licence="Apache-2.0",
            obtain="training/ makes it; give its directory",
            repository=None,
            frame="observed",
            fusion="view_wise",
            files=OWN_FILES,
            roles=(*STAGE_1, "sparse_structure_encoder"),
            remarks=("its config.json holds the SHA-256 of every file",),
        ),
        Family(
            name="edge_scene",
            summary="small SceneGen of ours over `edge`: several objects of a scene with their places, on a CPU",
            licence="Apache-2.0",
            obtain="training/ makes it; give its directory",
            repository=None,
            frame="observed",
            fusion="stochastic",
            files=OWN_FILES,
            roles=(*STAGE_1, "sparse_structure_encoder"),
            remarks=("it shares weights with `edge`, which must be beside it or with the package",),
        ),
        Family(
            name="trellis-image-large",
            summary="TRELLIS, single images, both stages",
            licence="MIT",
            obtain="--download fetches it, or give its directory",
            repository="microsoft/TRELLIS-image-large",
            frame="canonical",
            fusion="stochastic",
            files=PUBLISHED_FILES,
            roles=(*STAGE_1, *STAGE_2),
            remarks=(DINO_APART, NO_HASHES),
        ),
        Family(
            name="amodal3r",
            summary="Amodal3R, occluded objects, both stages",
            licence="none in its code repository; its model card says CC-BY-4.0",
            obtain="not fetched by this name, as its licence is unclear: judge for yourself, then give its directory "
            "or the repository Sm0kyWu/Amodal3R",
            repository=None,
            frame="canonical",
            fusion="stochastic",
            files=("pipeline.json", "Amodal3R_ckpts/*.json", "Amodal3R_ckpts/*.safetensors"),
            roles=(*STAGE_1, *STAGE_2),
            remarks=(DINO_APART, NO_HASHES),
        ),
        Family(
            name="scenegen",
            summary="SceneGen, several objects of a scene with their places",
            licence="MIT; the VGGT weights that it needs have a licence of their own",
            obtain="--download fetches it, or give its directory",
            repository="haoningwu/SceneGen",
            frame="canonical",
            fusion="stochastic",
            files=PUBLISHED_FILES,
            roles=(*STAGE_1, *STAGE_2),
            remarks=(DINO_APART, "the VGGT aggregator that it conditions on comes apart", NO_HASHES),
        ),
        Family(
            name="gena3d",
            summary="GENA3D at paper scale, as training/ makes it; nobody has published one",
            licence="that of whoever trained it",
            obtain="training/ makes it; give its directory",
            repository=None,
            frame="canonical",
            fusion="view_wise",
            files=OWN_FILES,
            roles=(*STAGE_1, "sparse_structure_encoder", *STAGE_2),
            remarks=(DINO_APART, "its config.json holds the SHA-256 of every file"),
        ),
    )
}
"""Family by name."""


@dataclass(frozen=True)
class ImageEncoderFiles:
    """Where an image encoder that a published pipeline only names is found: file of the torch hub, hub repository."""

    torch_hub_file: str
    repository: str


IMAGE_ENCODERS: dict[str, ImageEncoderFiles] = {
    "dinov2_vitl14_reg": ImageEncoderFiles("dinov2_vitl14_reg4_pretrain.pth", "facebook/dinov2-with-registers-large"),
}
"""By the name that published pipelines use."""

PACKAGED = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
"""Checkpoints that come with the package, one folder a family."""


def places(name: str) -> tuple[Path, ...]:
    """Folders (or files) in which `name` is looked for, in this order; the hub's cache comes after them."""
    return (
        Path("checkpoints") / name,
        Path.home() / ".cache" / "gena3d" / "checkpoints" / name,
        PACKAGED / name,
    )
