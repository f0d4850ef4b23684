"""Models of others that the front ends can use: where their files are expected, under which licence, how to get them.

None of them comes with the package: their users bring the files.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataFormatError, Gena3DError, InputError
from . import hub
from .registry import places
from .weight_files import check_sha256, known_sha256, read_headers

log = logging.getLogger("gena3d")


@dataclass(frozen=True)
class WeightFile:
    """One file; size in bytes where it is known exactly, sha256 where it is known, url where it is not on the hub."""

    name: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class FrontEndModel:
    """A model of others.

    files          what must be there, the weights first
    about_gb       size of it all, in 10⁹ bytes
    non_commercial whether the licence of the weights forbids commercial use; None: nobody states one
    repository     Hugging Face repository that holds the files, None for files at an address of their own
    package        pip line of the package that runs it, "" where that is gena3d itself
    whole_repository   the files are only the ones that tell; all of the repository is needed
    obtained_by    how to come by the files, where fetching them is not all
    """

    name: str
    summary: str
    stage: str
    licence: str
    non_commercial: bool | None
    about_gb: float
    files: tuple[WeightFile, ...]
    repository: str | None = None
    package: str = ""
    whole_repository: bool = False
    obtained_by: str = ""

    @property
    def folder(self) -> Path:
        """Where the commands put the files; `places` says where else they are looked for."""
        return places(self.name)[1]

    @property
    def path(self) -> Path:
        """Where the first file is expected."""
        return self.folder / self.files[0].name

    @property
    def obtain(self) -> str:
        """The command that fetches the files to `folder`, or what has to be done."""
        if self.obtained_by:
            return f"{self.obtained_by}, in {shlex.quote(str(self.folder))}"
        folder = shlex.quote(str(self.folder))
        if self.repository is None:
            fetched = [f"curl -L --create-dirs -o {shlex.quote(str(self.folder / f.name))} {f.url}" for f in self.files]
            return " && ".join(fetched)
        names = "" if self.whole_repository else " " + " ".join(shlex.quote(file.name) for file in self.files)
        return f"hf download {self.repository}{names} --local-dir {folder}"


def _meta(file: str) -> str:
    return f"https://dl.fbaipublicfiles.com/{file}"


def _sam(size: str, about_gb: float, file: str, count: int | None, sha256: str) -> FrontEndModel:
    address = _meta(f"segment_anything/{file}")
    return FrontEndModel(
        name=f"sam-vit-{size}",
        summary=f"Segment Anything, ViT-{size.upper()}",
        stage="segmentation",
        licence="Apache-2.0",
        non_commercial=False,
        about_gb=about_gb,
        files=(WeightFile(file, count, sha256, address),),
        package="pip install 'gena3d[sam]'",
    )


FRONT_ENDS: Mapping[str, FrontEndModel] = {
    model.name: model
    for model in (
        FrontEndModel(
            name="pi3",
            summary="π³: points, poses and confidence of unposed views, 959 million parameters",
            stage="stereo",
            licence="code BSD-3-Clause, weights CC BY-NC 4.0",
            non_commercial=True,
            about_gb=3.8,
            files=(WeightFile("model.safetensors"),),
            repository="yyfz233/Pi3",
        ),
        FrontEndModel(
            name="vggt",
            summary="VGGT, whose aggregator gives SceneGen its tokens of scene geometry",
            stage="generation",
            licence="VGGT licence for the code, weights CC BY-NC 4.0",
            non_commercial=True,
            about_gb=5.0,
            files=(WeightFile("model.safetensors"),),
            repository="facebook/VGGT-1B",
        ),
        _sam(
            "h",
            2.6,
            "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        _sam(
            "l",
            1.2,
            "sam_vit_l_0b3195.pth",
            None,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _sam(
            "b",
            0.4,
            "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        FrontEndModel(
            name="sam2",
            summary="SAM 2.1, Hiera-L, as the package transformers reads it",
            stage="segmentation",
            licence="Apache-2.0",
            non_commercial=False,
            about_gb=0.9,
            files=(WeightFile("model.safetensors"), WeightFile("config.json")),
            repository="facebook/sam2.1-hiera-large",
            package="pip install transformers",
            whole_repository=True,
        ),
        FrontEndModel(
            name="sam3",
            summary="SAM 3, prompted with boxes and points, as the package transformers reads it",
            stage="segmentation",
            licence="SAM License; access is granted on its model page",
            non_commercial=False,
            about_gb=3.4,
            files=(WeightFile("model.safetensors"), WeightFile("config.json")),
            repository="facebook/sam3",
            package="pip install transformers",
            whole_repository=True,
        ),
        FrontEndModel(
            name="florence-2",
            summary="Florence-2 large: boxes from text, as the package transformers reads it",
            stage="segmentation",
            licence="MIT",
            non_commercial=False,
            about_gb=1.6,
            files=(WeightFile("model.safetensors"), WeightFile("config.json")),
            repository="florence-community/Florence-2-large",
            package="pip install transformers",
            whole_repository=True,
        ),
        FrontEndModel(
            name="sd-inpainting",
            summary="Stable Diffusion 2 inpainting: hidden parts of objects in each view",
            stage="amodal",
            licence="CreativeML Open RAIL++-M",
            non_commercial=False,
            about_gb=5.2,
            files=(WeightFile("unet/diffusion_pytorch_model.safetensors"), WeightFile("model_index.json")),
            repository="sd2-community/stable-diffusion-2-inpainting",
            package="pip install 'gena3d[amodal]'",
            whole_repository=True,
        ),
        FrontEndModel(
            name="flux-fill",
            summary="FLUX.1 Fill: hidden parts of objects in each view, 12 thousand million parameters",
            stage="amodal",
            licence="FLUX.1 [dev] Non-Commercial License",
            non_commercial=True,
            about_gb=58.0,
            files=(
                WeightFile("transformer/diffusion_pytorch_model-00001-of-00003.safetensors"),
                WeightFile("model_index.json"),
            ),
            repository="black-forest-labs/FLUX.1-Fill-dev",
            package="pip install 'gena3d[amodal]'",
            whole_repository=True,
        ),
        FrontEndModel(
            name="pix2gestalt",
            summary="pix2gestalt: whole objects from their visible parts",
            stage="amodal",
            licence="none stated with the weights; ask their authors before any use that needs one",
            non_commercial=None,
            about_gb=15.4,
            files=(WeightFile("unet/diffusion_pytorch_model.safetensors"), WeightFile("projection.safetensors")),
            package="pip install 'gena3d[amodal]'",
            obtained_by="hf download cvlab/pix2gestalt-weights epoch=000005.ckpt, then convert it to the layout of "
            "diffusers that the module gena3d_core.amodal.pix2gestalt describes",
        ),
        FrontEndModel(
            name="dinov2",
            summary="DINOv2 ViT-L/14 with registers, the image encoder of TRELLIS, Amodal3R and SceneGen",
            stage="generation",
            licence="Apache-2.0",
            non_commercial=False,
            about_gb=1.2,
            files=(
                WeightFile(
                    "dinov2_vitl14_reg4_pretrain.pth",
                    url=_meta("dinov2/dinov2_vitl14/dinov2_vitl14_reg4_pretrain.pth"),
                ),
            ),
        ),
    )
}
"""By the name that commands and options use."""


def front_end(name: str) -> FrontEndModel:
    """The model; raises `InputError` for an unknown name."""
    if name not in FRONT_ENDS:
        raise InputError(f"'{name}' is no model of a front end; known: {', '.join(FRONT_ENDS)}")
    return FRONT_ENDS[name]


def present_folder(model: FrontEndModel) -> Path | None:
    """The folder of this machine that holds all its files, the hub's cache included; None: not here."""
    for folder in places(model.name):
        if all((folder / file.name).is_file() for file in model.files):
            return folder
    if model.repository is None:
        return None
    try:
        folder = hub.snapshot(model.repository, allow_download=False, patterns=[file.name for file in model.files])
    except Gena3DError:
        return None
    return folder if all((folder / file.name).is_file() for file in model.files) else None


def required_folder(model: FrontEndModel) -> Path:
    """`present_folder`; raises the `DataFormatError` that says where the files are expected and how to get them."""
    if (folder := present_folder(model)) is not None:
        return folder
    looked = ", ".join(str(place) for place in places(model.name))
    hub_too = f" or the hub cache of {model.repository}" if model.repository else ""
    raise DataFormatError(
        f"the weights of {model.name} are not on this machine ({model.files[0].name} is not in {looked}{hub_too}); get "
        f"the {model.about_gb:g} GB with: {model.obtain}; licence: {licence_text(model)}"
    )


def licence_text(model: FrontEndModel) -> str:
    """The licence, and what it forbids."""
    remark = {True: " (non-commercial use only)", False: "", None: " (licence unclear)"}[model.non_commercial]
    return model.licence + remark


def log_licence(model: FrontEndModel) -> None:
    """Say a licence that does not allow every use, when the weights are loaded."""
    if model.non_commercial is not False:
        log.warning("%s: licence of the weights: %s", model.name, licence_text(model))


def check_files(model: FrontEndModel, folder: Path, *, hashes: bool = True) -> None:
    """Raise `DataFormatError` for a file of the wrong size or hash, or one that is not whole; reads no weights.

    hashes: also hash files whose SHA-256 is known, which takes seconds a gigabyte.
    """
    for file in model.files:
        path = folder / file.name
        if file.size is not None and path.stat().st_size != file.size:
            raise DataFormatError(
                f"{path}: {path.stat().st_size} bytes instead of {file.size}: damaged or another file; fetch it again: "
                f"{model.obtain}"
            )
        if hashes:
            check_sha256(path, file.sha256 or known_sha256(path))
        if path.suffix == ".safetensors":
            read_headers([path])
