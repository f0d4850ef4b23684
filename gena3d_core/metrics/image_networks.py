"""Networks of image metrics, from weights that the user has: nothing is fetched, nothing is unpickled blindly.

inception   TorchScript file of pictures (N, 3, 299, 299) to features, such as `inception-2015-12-05.pt`
clip        TorchScript file with `encode_image`, such as OpenAI's `ViT-B-32.pt`, or a folder of a CLIP model in the
            layout of transformers
lpips       folder with `backbone.safetensors` (VGG-16 convolutions, `features.N.weight` and `.bias` as torchvision
            names them) and `linear.safetensors` (`lin0` .. `lin4`, as published); or a TorchScript file of two batches
            of pictures in [-1, 1] to distances
judge       folder of a vision-language model in the layout of transformers
dino        weights of DINOv2, as generators have them: file of the torch hub, or folder in the layout of transformers
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..checkpoints.open import open_checkpoint
from ..errors import DataFormatError, InputError, MissingDependencyError
from ..models.image_encoders.dinov2 import DinoV2
from ..models.image_encoders.patches import normalised_channels
from ..types import Float64Array, UInt8Array
from .image_sets import ImageNetworks

BATCH = 32
INCEPTION_SIZE, CLIP_SIZE, DINO_SIZE = 299, 224, 224
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1], as LPIPS normalises them."""
VGG_POOLS = (4, 9, 16, 23)
"""Layers of torchvision's VGG-16 that halve the picture; features are taken before each, and at the end."""
PROMPT = (
    "You see several pictures of one 3D object, rendered from different directions. Judge how coherent its shape, "
    "texture and identity are over the pictures, and the quality of its appearance. 0 to 20: severe inconsistencies or "
    "artefacts; 21 to 40: clear defects; 41 to 60: moderate; 61 to 80: good; 81 to 100: convincing throughout. "
    'Answer with nothing but {"score": <integer from 0 to 100>}.'
)


def load_networks(paths: Mapping[str, Path]) -> ImageNetworks:
    """Networks by name (see above). Raises `InputError` for other names, `DataFormatError` for files."""
    makers: dict[str, Callable[[Path], Any]] = {
        "inception": load_inception,
        "clip": load_clip,
        "lpips": load_lpips,
        "judge": load_judge,
        "dino": load_dino,
    }
    unknown = sorted(set(paths) - set(makers))
    if unknown:
        raise InputError(f"unknown image networks {', '.join(unknown)}; known: {', '.join(makers)}")
    return ImageNetworks(**{name: makers[name](path) for name, path in paths.items()})


def to_tensor(pictures: UInt8Array, size: int | None = None) -> Tensor:
    """(N, 3, S, S) float32 in [0, 1] of pictures (N, H, W, 3) uint8."""
    images = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255.0
    if size is None or images.shape[-2:] == (size, size):
        return images
    return functional.interpolate(images, (size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)


@torch.no_grad()
def _in_batches(run: Callable[..., Tensor], *pictures: UInt8Array) -> Float64Array:
    parts = []
    for start in range(0, len(pictures[0]), BATCH):
        out = run(*(part[start : start + BATCH] for part in pictures))
        parts.append(out.detach().float().cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


@dataclass(frozen=True, eq=False)
class ScriptedInception:
    """Features of a TorchScript Inception; the StyleGAN file takes uint8 and says `return_features`, others [-1, 1]."""

    network: Any

    def __call__(self, pictures: UInt8Array) -> Float64Array:
        """(N, D) features of pictures (N, H, W, 3) uint8."""
        return _in_batches(self._features, pictures)

    def _features(self, pictures: UInt8Array) -> Tensor:
        images = to_tensor(pictures, INCEPTION_SIZE)
        names = [argument.name for argument in self.network.forward.schema.arguments]
        if "return_features" in names:
            out = self.network((images * 255.0).round().to(torch.uint8), return_features=True)
        else:
            out = self.network(2.0 * images - 1.0)
        out = out[0] if isinstance(out, (tuple, list)) else out
        return out.flatten(2).mean(dim=2) if out.ndim > 2 else out


@dataclass(frozen=True, eq=False)
class ClipEmbedding:
    """Image embeddings of a CLIP model; encode: normalised pictures (N, 3, 224, 224) to (N, D)."""

    encode: Callable[[Tensor], Tensor]

    def __call__(self, pictures: UInt8Array) -> Float64Array:
        """(N, D) embeddings of pictures (N, H, W, 3) uint8."""
        return _in_batches(self._embed, pictures)

    def _embed(self, pictures: UInt8Array) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        return self.encode((to_tensor(pictures, CLIP_SIZE) - mean) / std)


@dataclass(frozen=True, eq=False)
class DinoEmbedding:
    """Class tokens of DINOv2 after its final norm."""

    network: DinoV2

    def __call__(self, pictures: UInt8Array) -> Float64Array:
        """(N, C) embeddings of pictures (N, H, W, 3) uint8."""
        return _in_batches(self._embed, pictures)

    def _embed(self, pictures: UInt8Array) -> Tensor:
        images = to_tensor(pictures, DINO_SIZE)
        patch = self.network.config.patch_size
        return self.network(normalised_channels(images, self.network.in_channels, patch)).class_token


@dataclass(frozen=True, eq=False)
class Lpips:
    """Perceptual distance over the convolutions of VGG-16: unit feature vectors, weighted squares, mean over pixels.

    backbone  `features.N.weight` and `.bias` by N; linear  (C_k,) weights of the five depths
    """

    backbone: dict[int, tuple[Tensor, Tensor]]
    linear: tuple[Tensor, ...]

    def __call__(self, pictures: UInt8Array, references: UInt8Array) -> Float64Array:
        """(N,) distances of pairs (N, H, W, 3) uint8."""
        return _in_batches(self._distance, pictures, references)

    def _distance(self, pictures: UInt8Array, references: UInt8Array) -> Tensor:
        pairs = zip(self._depths(pictures), self._depths(references), self.linear, strict=True)
        parts = [(((a - b) ** 2) * weight.view(-1, 1, 1)).sum(dim=1).mean(dim=(1, 2)) for a, b, weight in pairs]
        return torch.stack(parts).sum(dim=0)

    def _depths(self, pictures: UInt8Array) -> list[Tensor]:
        shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (LPIPS_SHIFT, LPIPS_SCALE))
        x, found = (2.0 * to_tensor(pictures) - 1.0 - shift) / scale, []
        for number in range(max(self.backbone) + 1):
            if number in VGG_POOLS:
                found.append(_unit(x))
                x = functional.max_pool2d(x, 2)
            elif number in self.backbone:
                x = functional.relu(functional.conv2d(x, *self.backbone[number], padding=1))
        return [*found, _unit(x)]


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


@dataclass(frozen=True, eq=False)
class ScriptedDistance:
    """A TorchScript file of two batches of pictures in [-1, 1], (N, 3, H, W), to distances."""

    network: Any

    def __call__(self, pictures: UInt8Array, references: UInt8Array) -> Float64Array:
        """(N,) distances of pairs (N, H, W, 3) uint8."""

        def run(a: UInt8Array, b: UInt8Array) -> Tensor:
            return self.network(2.0 * to_tensor(a) - 1.0, 2.0 * to_tensor(b) - 1.0).reshape(len(a))

        return _in_batches(run, pictures, references)


@dataclass(frozen=True, eq=False)
class LanguageJudge:
    """Perceptual coherence score of a vision-language model; ask: prompt and pictures to its answer."""

    ask: Callable[[str, UInt8Array], str]

    def __call__(self, pictures: UInt8Array) -> float:
        """Score in [0, 100]. Raises `InputError` for an answer without one."""
        return parse_score(self.ask(PROMPT, pictures))


def parse_score(answer: str) -> float:
    """The number of `{"score": N}` somewhere in a text. Raises `InputError` if there is none in [0, 100]."""
    for text in re.findall(r"\{[^{}]*\}", answer):
        try:
            score = json.loads(text).get("score")
        except (json.JSONDecodeError, AttributeError):
            continue
        if isinstance(score, (int, float)) and not isinstance(score, bool) and 0 <= score <= 100:
            return float(score)
    raise InputError(f'the judge of pictures must answer {{"score": 0..100}}, not: {answer[:200]!r}')


def load_inception(path: str | Path) -> ScriptedInception:
    """Raises `DataFormatError` for a file that is no TorchScript."""
    return ScriptedInception(_scripted(Path(path), "an Inception network for FID and KID"))


def load_clip(path: str | Path) -> ClipEmbedding:
    """From a TorchScript file or a transformers folder. Raises `DataFormatError`, `MissingDependencyError`."""
    path = Path(path)
    if path.is_dir():
        model = _transformers(path, "CLIPModel", "the CLIP score")
        return ClipEmbedding(lambda images: _embeddings(model.get_image_features(pixel_values=images)))
    network = _scripted(path, "a CLIP model")
    if not hasattr(network, "encode_image"):
        raise DataFormatError(f"{path}: has no method encode_image; give OpenAI's TorchScript file or a CLIP folder")
    return ClipEmbedding(network.encode_image)


def load_dino(path: str | Path) -> DinoEmbedding:
    """Raises `DataFormatError` for what holds no DINOv2."""
    network = open_checkpoint(path, dtype=torch.float32).modules.get("image_encoder")
    if not isinstance(network, DinoV2):
        raise DataFormatError(f"{path}: holds no DINOv2, but {type(network).__name__}")
    return DinoEmbedding(network)


def _embeddings(out: Any) -> Tensor:
    """Newer releases of transformers wrap the embeddings."""
    return out if isinstance(out, Tensor) else out.pooler_output


def load_lpips(path: str | Path) -> Lpips | ScriptedDistance:
    """From a folder of weights or a TorchScript file. Raises `DataFormatError` for what is missing or does not fit."""
    path = Path(path)
    if not path.is_dir():
        return ScriptedDistance(_scripted(path, "an LPIPS network"))
    from safetensors.torch import load_file

    try:
        backbone, linear = (load_file(path / f"{name}.safetensors") for name in ("backbone", "linear"))
    except Exception as error:  # safetensors raises its own kind
        raise DataFormatError(
            f"{path}: LPIPS needs backbone.safetensors and linear.safetensors there ({error})"
        ) from error
    numbers = sorted(int(m[1]) for name in backbone if (m := re.fullmatch(r"features\.(\d+)\.weight", name)))
    depths = sorted((int(m[1]), name) for name in linear if (m := re.match(r"lin(\d)\b.*weight$", name)))
    if not numbers or len(depths) != len(VGG_POOLS) + 1:
        raise DataFormatError(
            f"{path}: want `features.N.weight` in backbone.safetensors and `lin0` to `lin4` in linear.safetensors, got "
            f"{len(numbers)} and {len(depths)}"
        )
    try:
        layers = {
            n: (backbone[f"features.{n}.weight"].float(), backbone[f"features.{n}.bias"].float()) for n in numbers
        }
        found = Lpips(layers, tuple(linear[name].float().reshape(-1) for _, name in depths))
        found(*np.zeros((2, 1, 32, 32, 3), dtype=np.uint8))
    except (KeyError, RuntimeError) as error:
        raise DataFormatError(
            f"{path}: the weights do not make a VGG-16 with LPIPS' linear layers ({error})"
        ) from error
    return found


def load_judge(path: str | Path, device: str = "cpu") -> LanguageJudge:
    """From a transformers folder of a vision-language model. Raises `DataFormatError`, `MissingDependencyError`."""
    path = Path(path)
    model = _transformers(path, "AutoModelForImageTextToText", "the perceptual coherence score").to(device)
    processor = _transformers(path, "AutoProcessor", "the perceptual coherence score")

    def ask(prompt: str, pictures: UInt8Array) -> str:
        from PIL import Image

        content: list[dict[str, Any]] = [{"type": "image", "image": Image.fromarray(picture)} for picture in pictures]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": prompt}]}]
        inputs = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(device)
        with torch.no_grad():
            out = model.generate(**inputs, max_new_tokens=32, do_sample=False)
        return str(processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])

    return LanguageJudge(ask)


def _scripted(path: Path, what: str) -> Any:
    if not path.is_file():
        raise DataFormatError(f"{path}: no such file; it should be {what} as TorchScript")
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise DataFormatError(f"{path}: not a TorchScript file, which {what} should be ({first})") from error


def _transformers(folder: Path, name: str, needed_for: str) -> Any:
    if not folder.is_dir():
        raise DataFormatError(f"{folder}: no such folder; {needed_for} needs a model in the layout of transformers")
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError("transformers", needed_for) from error
    try:
        model = getattr(transformers, name).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever its readers raise
        first = str(error).partition("\n")[0]
        raise DataFormatError(f"{folder}: {name} of transformers cannot read it ({first})") from error
    return model.eval() if hasattr(model, "eval") else model
