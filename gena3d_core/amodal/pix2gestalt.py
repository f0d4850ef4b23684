"""pix2gestalt (Ozguroglu et al., CVPR 2024): the whole object from a picture and the object's visible mask.

The release is one checkpoint of a training framework of its own, which diffusers does not read. This adapter takes the
same networks in the layout of diffusers, in one folder:

    unet/                     UNet2DConditionModel: architecture of Stable Diffusion 1, but 12 input channels; the
                              averaged weights (`model_ema.*`) of the release
    vae/                      AutoencoderKL of Stable Diffusion 1
    image_encoder/            CLIPVisionModelWithProjection, ViT-L/14
    projection.safetensors    weight, bias: the linear layer `cc_projection` of the release, 768 to 768

The network denoises [noisy latent, latent of the picture, latent of the mask as a picture], with the projected CLIP
embedding of the picture as context; guidance sets both conditions to zero.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints.description import read_json
from ..checkpoints.weight_files import read_headers, read_weights
from ..device import release_cached_memory
from ..errors import DataFormatError, InputError
from ..types import UInt8Array
from .diffusers_folder import require_diffusers, weight_files
from .diffusers_inpainter import DTYPES, quiet
from .inpainter import InpaintTask, color_distance

NETWORKS = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "image_encoder": "CLIPVisionModelWithProjection"}
"""Folder -> class, of diffusers or transformers."""
PROJECTION = "projection.safetensors"
IN_CHANNELS = 12
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
PLAIN_DISTANCE = 30.0
"""Painted pixels this close to the painted picture's own background, in grey levels, are background."""


class Pix2Gestalt:
    """`Inpainter` on the networks of pix2gestalt, loaded when it first paints, until `close`."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        steps: int = 50,
        guidance_scale: float = 2.0,
        eta: float = 1.0,
    ) -> None:
        """The folder is checked at once. eta: 1 draws fresh noise in each step, as the release does; 0 draws none.

        Raises `MissingDependencyError` without diffusers, `DataFormatError` for a folder that cannot be used.
        """
        require_diffusers("2D amodal completion with pix2gestalt")
        self.folder, self.device = Path(folder), torch.device(device)
        self.side = _check_folder(self.folder)
        self.dtype = dtype or ("float32" if self.device.type == "cpu" else "float16")
        if self.dtype not in DTYPES or steps < 1:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)} and steps positive, got '{dtype}' and {steps}")
        self.steps, self.guidance_scale, self.eta = steps, guidance_scale, eta
        self.name = f"pix2gestalt {self.folder.resolve()} {steps} {guidance_scale} {eta} {self.dtype}"
        self._networks: dict[str, Any] | None = None

    @torch.inference_mode()
    def __call__(self, tasks: Sequence[InpaintTask]) -> list[UInt8Array]:
        """See `Inpainter`; the picture's own background is replaced by the task's."""
        if not tasks:
            return []
        networks = self.open()
        generators = [torch.Generator("cpu").manual_seed(task.seed) for task in tasks]
        scene = self._tensor(np.stack([task.scene for task in tasks]))
        mask = np.stack([np.repeat(task.visible[..., None], 3, axis=2) for task in tasks])
        vae = networks["vae"]
        seen = torch.cat([vae.encode(image).latent_dist.mode() for image in (scene, self._tensor(255 * mask))], dim=1)
        context = self._context(networks, scene)
        latents = self._denoised(networks["unet"], seen, context, generators)
        decoded = vae.decode(latents / vae.config.scaling_factor).sample
        pictures = ((decoded.float() + 1.0) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).cpu().numpy()
        if not np.isfinite(pictures).all():
            raise DataFormatError(f"{self.folder}: the network paints NaN in {self.dtype}; take float32")
        return [
            on_background(picture.astype(np.uint8), task.background)
            for picture, task in zip(pictures, tasks, strict=True)
        ]

    def close(self) -> None:
        """Give the networks' memory back; they are loaded again when next needed."""
        self._networks = None
        release_cached_memory()

    def _tensor(self, images: np.ndarray) -> Tensor:
        """(B, S, S, 3) 0..255 -> (B, 3, S, S) in [-1, 1]."""
        tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        return tensor.to(self.device, DTYPES[self.dtype])

    def _context(self, networks: dict[str, Any], scene: Tensor) -> Tensor:
        """(B, 1, C): projected embeddings of the pictures."""
        encoder = networks["image_encoder"]
        side = encoder.config.image_size
        small = functional.interpolate(scene.float(), (side, side), mode="bicubic", align_corners=True)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        normalized = ((small + 1.0) / 2.0 - mean) / std
        embedding = encoder(pixel_values=normalized.to(scene.dtype)).image_embeds
        return networks["projection"](embedding)[:, None]

    def _denoised(self, unet: Any, seen: Tensor, context: Tensor, generators: list[torch.Generator]) -> Tensor:
        """(B, 4, h, w): latents of the whole objects."""
        scheduler = importlib.import_module("diffusers").DDIMScheduler(**SCHEDULE)
        scheduler.set_timesteps(self.steps, device=self.device)
        shape = (1, 4, *seen.shape[-2:])
        latents = _noise(shape, generators, seen) * scheduler.init_noise_sigma
        both_seen, both_context = (torch.cat([part, torch.zeros_like(part)]) for part in (seen, context))
        for time in scheduler.timesteps:
            joined = torch.cat([torch.cat([latents] * 2), both_seen], dim=1)
            told, untold = unet(joined, time, encoder_hidden_states=both_context).sample.chunk(2)
            guided = untold + self.guidance_scale * (told - untold)
            # The noise is drawn here, from each picture's own generator, so that a batch does not mix them.
            noise = _noise(shape, generators, seen) if self.eta > 0 else None
            latents = scheduler.step(guided, time, latents, eta=self.eta, variance_noise=noise).prev_sample
        return latents

    def open(self) -> dict[str, Any]:
        """The networks, loaded now if they were not before; raises `DataFormatError` where that fails."""
        if self._networks is None:
            found: dict[str, Any] = {}
            modules = {"image_encoder": importlib.import_module("transformers")}
            diffusers = importlib.import_module("diffusers")
            accelerated = importlib.util.find_spec("accelerate") is not None
            with quiet("diffusers", "transformers"):
                for name, class_name in NETWORKS.items():
                    try:
                        network = getattr(modules.get(name, diffusers), class_name).from_pretrained(
                            self.folder / name,
                            dtype=DTYPES[self.dtype],
                            local_files_only=True,
                            use_safetensors=True,
                            low_cpu_mem_usage=accelerated,
                        )
                    except MemoryError:
                        raise
                    except Exception as error:
                        reason = " ".join(str(error).split())[:300] or type(error).__name__
                        raise DataFormatError(f"{self.folder / name}: cannot be loaded: {reason}") from error
                    found[name] = network.to(self.device).eval()
            weights = read_weights([self.folder / PROJECTION])
            channels_out, channels_in = weights["weight"].shape
            projection = nn.Linear(channels_in, channels_out)
            projection.load_state_dict(weights)
            found["projection"] = projection.to(self.device, DTYPES[self.dtype])
            self._networks = found
        return self._networks


def on_background(picture: UInt8Array, background: tuple[int, int, int]) -> UInt8Array:
    """The picture (S, S, 3) with its own background, the median colour of its rim, replaced."""
    rim = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    own = color_distance(picture, np.median(rim, axis=0)) < PLAIN_DISTANCE
    return np.where(own[..., None], np.asarray(background, dtype=np.uint8), picture)


def _noise(shape: tuple[int, ...], generators: list[torch.Generator], like: Tensor) -> Tensor:
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators]).to(like)


def _check_folder(folder: Path) -> int:
    """Side of its pictures; reads configs and headers. Raises `DataFormatError`."""
    lacking = [f"{name}/" for name in NETWORKS if not (folder / name / "config.json").is_file()]
    lacking += [] if (folder / PROJECTION).is_file() else [PROJECTION]
    if lacking:
        released = next(iter(sorted(folder.glob("*.ckpt"))), None)
        remark = f"{released.name} is the release as it is, which must be converted first; " if released else ""
        raise DataFormatError(
            f"{folder}: lacks {', '.join(lacking)}; {remark}pix2gestalt is taken in the layout of diffusers, which the "
            "module gena3d_core.amodal.pix2gestalt describes"
        )
    config = read_json(folder / "unet" / "config.json")
    if config.get("in_channels") != IN_CHANNELS:
        raise DataFormatError(
            f"{folder}: its unet takes {config.get('in_channels')} channels, that of pix2gestalt takes {IN_CHANNELS}: "
            "these are the weights of another model"
        )
    for name in NETWORKS:
        files = weight_files(folder / name)
        if not files:
            raise DataFormatError(f"{folder / name}: holds no .safetensors file")
        read_headers(files)
    weight = read_headers([folder / PROJECTION]).get("weight")
    if weight is None or weight.shape[0] != config.get("cross_attention_dim"):
        raise DataFormatError(
            f"{folder / PROJECTION}: its weight does not lead to the {config.get('cross_attention_dim')} channels that "
            "the unet takes as context"
        )
    blocks = read_json(folder / "vae" / "config.json")["block_out_channels"]
    return int(config["sample_size"]) * 2 ** (len(blocks) - 1)
