"""Networks with random weights in the sizes that matter: for tests, benchmarks and the start of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..errors import InputError
from ..models.completion_unet import CompletionUNet, CompletionUNetConfig
from ..models.image_encoders.dinov2 import DinoV2, DinoV2Config
from ..models.image_encoders.small import SmallEncoder, SmallEncoderConfig
from ..models.scene_geometry import SmallSceneGeometry, SmallSceneGeometryConfig
from ..models.scene_upgrade import add_scene
from ..models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig
from ..models.sparse_structure_vae import (
    SparseStructureDecoder,
    SparseStructureDecoderConfig,
    SparseStructureEncoder,
    SparseStructureEncoderConfig,
)
from .bundle import GridFrame, ModelBundle, SamplerDefaults


@dataclass(frozen=True)
class Preset:
    """Stage 1 of one size."""

    frame: GridFrame
    encoder: SmallEncoderConfig | DinoV2Config
    flow: SparseStructureFlowConfig
    latent_channels: int
    vae_channels: tuple[int, ...]
    vae_blocks: int
    vae_patch: int = 1
    vae_middle: int = 2


def _flow(resolution: int, width: int, context: int, blocks: int, heads: int, **more: Any) -> SparseStructureFlowConfig:
    channels = more.pop("channels", 8)
    return SparseStructureFlowConfig(
        resolution=resolution,
        in_channels=channels,
        out_channels=channels,
        model_channels=width,
        cond_channels=context,
        num_blocks=blocks,
        num_heads=heads,
        qk_rms_norm=True,
        fusion_norm=True,
        stereo_attention=True,
        **more,
    )


OWN = {"share_mod": True, "geometry_positions": True, "aligned_stereo": True}
"""What helps where the partial cloud lies in the grid of the object."""

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        "observed",
        SmallEncoderConfig(image_size=32, in_channels=5, stem=(8, 16), width=24, depth=1, heads=2),
        _flow(4, 48, 24, 2, 4, channels=8, **OWN),
        latent_channels=8,
        vae_channels=(8, 16),
        vae_blocks=1,
        vae_patch=8,
        vae_middle=1,
    ),
    "edge": Preset(
        "observed",
        SmallEncoderConfig(in_channels=5),
        _flow(8, 256, 192, 7, 8, channels=16, patch_size=2, **OWN),
        latent_channels=16,
        vae_channels=(48, 96),
        vae_blocks=1,
        vae_patch=4,
        vae_middle=1,
    ),
    "small": Preset(
        "observed",
        SmallEncoderConfig(image_size=112, in_channels=5, stem=(16, 32, 64), width=96, depth=2, heads=4),
        _flow(8, 128, 96, 4, 4, channels=16, patch_size=2, **OWN),
        latent_channels=16,
        vae_channels=(48, 96),
        vae_blocks=1,
        vae_patch=4,
        vae_middle=1,
    ),
    "full": Preset(
        "canonical",
        DinoV2Config(),
        _flow(16, 1024, 1024, 24, 16),
        latent_channels=8,
        vae_channels=(32, 128, 512),
        vae_blocks=2,
    ),
}
"""tiny: seconds to train, for tests; edge: what a CPU can sample; small: on the latents of edge, an eighth of its
size, to compare many variants on a CPU; full: GENA3D over TRELLIS-image-large."""

SCENE_GEOMETRY: dict[str, SmallSceneGeometryConfig] = {
    "tiny": SmallSceneGeometryConfig(stem=(8, 16), width=24, depth=1, heads=2, registers=2),
    "edge": SmallSceneGeometryConfig(),
}
"""The small encoders of scene geometry that go with the presets."""

UNETS: dict[str, CompletionUNetConfig] = {
    "tiny": CompletionUNetConfig(64, (16, 24), patch_size=8),
    "edge": CompletionUNetConfig(64, (64, 192, 288)),
}
"""The feed-forward baseline in the sizes of the presets; edge: as many parameters as all networks of that preset."""


def random_unet(size: str, *, seed: int = 0) -> ModelBundle:
    """The feed-forward baseline with random weights. Raises `InputError` for an unknown size."""
    if size not in UNETS:
        raise InputError(f"there is no U-Net of size '{size}', one of {', '.join(UNETS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CompletionUNet(UNETS[size]).eval()
    return ModelBundle("edge", f"random weights (U-Net, {size})", {"completion_unet": network}, frame="observed")


def random_scene_bundle(size: str, *, seed: int = 0, base: ModelBundle | None = None) -> ModelBundle:
    """SceneGen of ours, untrained: a stage 1 of single objects grown, and a small geometry encoder with random weights.

    base: that stage 1, to which nothing is changed by what is added; default: random weights of `size`, and in the
    added parts too. Raises `InputError` for an unknown size, or one that has no small encoders.
    """
    if size not in SCENE_GEOMETRY:
        raise InputError(f"there is no SceneGen of size '{size}', one of {', '.join(SCENE_GEOMETRY)}")
    given = base or random_bundle(size, seed=seed)
    encoder = given.modules["image_encoder"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blank = torch.zeros(1, 5, encoder.image_size, encoder.image_size)
        with torch.no_grad():
            tokens = encoder.encode(blank).shape[1]
        flow = add_scene(given.modules["sparse_structure_flow"], asset_tokens=tokens, quiet=base is not None)
        geometry = SmallSceneGeometry(replace(SCENE_GEOMETRY[size], out_width=flow.config.cond_channels))
        geometry.initialise()
    modules = {**given.modules, "sparse_structure_flow": flow.eval(), "scene_geometry": geometry.eval()}
    source = f"random weights (scene, {size})" if base is None else f"{base.source}, grown but untrained"
    return replace(given, source=source, modules=modules)


def random_bundle(
    size: str, *, device: str = "cpu", dtype: torch.dtype | None = None, seed: int = 0, family: str = "edge"
) -> ModelBundle:
    """Stage 1 with random weights; dtype is that of the matrix products. Raises `InputError` for an unknown size."""
    if size not in PRESETS:
        raise InputError(f"unknown size '{size}', one of {', '.join(PRESETS)}")
    preset = PRESETS[size]
    makers: dict[str, Callable[[], Any]] = {
        "image_encoder": lambda: _image_encoder(preset.encoder),
        "sparse_structure_flow": lambda: SparseStructureFlow(preset.flow),
        "sparse_structure_encoder": lambda: SparseStructureEncoder(
            SparseStructureEncoderConfig(
                1,
                preset.latent_channels,
                preset.vae_blocks,
                preset.vae_channels,
                preset.vae_middle,
                patch_size=preset.vae_patch,
            )
        ),
        "sparse_structure_decoder": lambda: SparseStructureDecoder(
            SparseStructureDecoderConfig(
                1,
                preset.latent_channels,
                preset.vae_blocks,
                preset.vae_channels[::-1],
                preset.vae_middle,
                patch_size=preset.vae_patch,
            )
        ),
    }
    modules = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for role, make in makers.items():
            with torch.device(device):
                module = make()
            if dtype is not None:
                module.set_precision(dtype)
            modules[role] = module.eval()
    return ModelBundle(
        family,
        f"random weights ({size})",
        modules,
        frame=preset.frame,
        image_size=modules["image_encoder"].image_size,
        samplers={"sparse_structure": SamplerDefaults()},
    )


def _image_encoder(config: SmallEncoderConfig | DinoV2Config) -> Any:
    return DinoV2(config) if isinstance(config, DinoV2Config) else SmallEncoder(config)
