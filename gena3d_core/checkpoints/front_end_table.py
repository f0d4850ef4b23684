"""The table of models of others that the front ends can use. None of them comes with the package.

Names, sizes, hashes and licences are as their publishers, or several who fetched them, state them; what nobody states
is left out (sizes in bytes, hashes) or said in a note. `about_gb` is the count of parameters times their width where no
size is stated.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .registry import places

VGGT_PACKAGE = "pip install git+https://github.com/facebookresearch/vggt"
DIFFUSION = "pip install 'gena3d[diffusion]'"
TRANSFORMERS = "pip install 'gena3d[transformers]'"
FOLDER_OF_TRANSFORMERS = ("*.json", "*.txt", "model.safetensors")
FOLDER_OF_DIFFUSERS = ("model_index.json", "*/*.json", "*/*.txt", "*/*.model", "*/*.safetensors")


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
    patterns       what to fetch of the repository where `files` are only the ones that tell
    gated          whether the repository's page must be visited, and its terms accepted, before anything can be fetched
    note           what else must be known, or is not known for sure
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
    patterns: tuple[str, ...] = ()
    gated: bool = False
    note: str = ""

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
        """The command that fetches the files to `folder`."""
        if self.repository is None:
            fetched = [f"curl -L --create-dirs -o {shlex.quote(str(self.folder / f.name))} {f.url}" for f in self.files]
            return " && ".join(fetched)
        if self.patterns:
            # The hub's command takes several patterns in another way in each of its versions.
            wanted = f"local_dir={json.dumps(str(self.folder))}, allow_patterns={json.dumps(self.patterns)}"
            named = json.dumps(self.repository)
            script = f"from huggingface_hub import snapshot_download as get; get({named}, {wanted})"
            return f"python -c {shlex.quote(script)}"
        names = " ".join(shlex.quote(file.name) for file in self.files)
        return f"hf download {self.repository} {names} --local-dir {shlex.quote(str(self.folder))}"


def _meta(file: str) -> str:
    return f"https://dl.fbaipublicfiles.com/{file}"


def _sam(size: str, file: str, count: int, sha256: str) -> FrontEndModel:
    return FrontEndModel(
        name=f"sam-vit-{size}",
        summary=f"Segment Anything, ViT-{size.upper()}",
        stage="segmentation",
        licence="Apache-2.0",
        non_commercial=False,
        about_gb=round(count / 1e9, 1),
        files=(WeightFile(file, count, sha256, _meta(f"segment_anything/{file}")),),
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
            name="pi3x",
            summary="π³X: π³ with smoother depth and a guessed scale, told what is known of the cameras, 1360 million "
            "parameters",
            stage="stereo",
            licence="code BSD-3-Clause, weights CC BY-NC 4.0",
            non_commercial=True,
            about_gb=5.4,
            files=(WeightFile("model.safetensors"),),
            repository="yyfz233/Pi3X",
        ),
        FrontEndModel(
            name="vggt",
            summary="VGGT: depth and poses of unposed views; its aggregator gives SceneGen its tokens of geometry",
            stage="stereo, generation",
            licence="VGGT licence for the code, weights CC BY-NC 4.0",
            non_commercial=True,
            about_gb=5.0,
            files=(
                WeightFile(
                    "model.safetensors",
                    5_026_367_224,
                    "f164acf60724910d8fe1578bb499d800850c7bb0948db7555c413f9fbe60467e",
                ),
            ),
            repository="facebook/VGGT-1B",
            package=VGGT_PACKAGE,
            note="the aggregator alone, for SceneGen, needs no package",
        ),
        FrontEndModel(
            name="vggt-commercial",
            summary="VGGT with weights for commercial use",
            stage="stereo",
            licence="VGGT acceptable-use licence: commercial use, but no military use",
            non_commercial=False,
            about_gb=5.0,
            files=(WeightFile("vggt_1B_commercial.pt"),),
            repository="facebook/VGGT-1B-Commercial",
            package=VGGT_PACKAGE,
            gated=True,
        ),
        _sam(
            "h",
            "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        ),
        _sam(
            "l",
            "sam_vit_l_0b3195.pth",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        ),
        _sam(
            "b",
            "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        ),
        FrontEndModel(
            name="sam2",
            summary="SAM 2.1, Hiera-L, as the package transformers reads it, 224 million parameters",
            stage="segmentation",
            licence="Apache-2.0",
            non_commercial=False,
            about_gb=0.9,
            files=(WeightFile("model.safetensors"), WeightFile("config.json")),
            repository="facebook/sam2.1-hiera-large",
            package=TRANSFORMERS,
            patterns=FOLDER_OF_TRANSFORMERS,
        ),
        FrontEndModel(
            name="sam3",
            summary="SAM 3, prompted with boxes and points, as the package transformers reads it",
            stage="segmentation",
            licence="SAM License",
            non_commercial=False,
            about_gb=3.4,
            files=(WeightFile("model.safetensors"), WeightFile("config.json")),
            repository="facebook/sam3",
            package=TRANSFORMERS,
            patterns=FOLDER_OF_TRANSFORMERS,
            gated=True,
            note="the SAM License restricts some uses; read it first. The size is an estimate",
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
            package=TRANSFORMERS,
            patterns=FOLDER_OF_TRANSFORMERS,
            note="files converted for transformers; those of microsoft/Florence-2-large bring code of their own and do "
            "not fit. The size is an estimate",
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
            package=DIFFUSION,
            patterns=(
                "model_index.json",
                "*/*.json",
                "*/*.txt",
                "*/diffusion_pytorch_model.safetensors",
                "*/model.safetensors",
            ),
            note="a copy kept by users: its publisher, Stability AI, withdrew its own in 2025",
        ),
        FrontEndModel(
            name="flux-fill",
            summary="FLUX.1 Fill [dev]: hidden parts of objects in each view, 12 000 million parameters",
            stage="amodal",
            licence="FLUX.1 [dev] Non-Commercial License",
            non_commercial=True,
            about_gb=34.0,
            files=(WeightFile("model_index.json"), WeightFile("transformer/config.json")),
            repository="black-forest-labs/FLUX.1-Fill-dev",
            package=DIFFUSION,
            patterns=FOLDER_OF_DIFFUSERS,
            gated=True,
            note="the size is an estimate",
        ),
        FrontEndModel(
            name="pix2gestalt",
            summary="pix2gestalt: whole objects from their visible parts",
            stage="amodal",
            licence="CC BY-NC 4.0 for the project; none stated for the weights apart",
            non_commercial=True,
            about_gb=15.5,
            files=(WeightFile("epoch=000005.ckpt"),),
            repository="cvlab/pix2gestalt-weights",
            package=DIFFUSION,
            note="to be converted to the layout of diffusers that the module gena3d_core.amodal.pix2gestalt describes",
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
