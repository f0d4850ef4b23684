"""What a loaded checkpoint is: the networks of one family, ready to be sampled, and how to use them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

GridFrame = Literal["canonical", "observed"]
"""canonical: object-centric pose unrelated to the cameras; observed: the grid stands upright around the cloud."""
ViewFusion = Literal["view_wise", "concatenated", "stochastic", "multidiffusion"]
"""How several views condition the flow: fused in every attention (GENA3D), as one long context, one view a step, or
as the mean of their velocities."""


@dataclass(frozen=True)
class SamplerDefaults:
    """Defaults of one stage, as the checkpoint states them (see `gena3d_core.sampling`)."""

    steps: int = 12
    guidance_strength: float = 5.0
    guidance_interval: tuple[float, float] = (0.5, 1.0)
    rescale_t: float = 3.0
    sigma_min: float = 1e-5


@dataclass(frozen=True)
class ModelBundle:
    """The networks of one checkpoint.

    modules    networks (torch modules) by role: image_encoder, sparse_structure_flow, sparse_structure_encoder,
               sparse_structure_decoder, structured_latent_flow, structured_latent_encoder, mesh_decoder,
               gaussian_decoder, radiance_field_decoder, scene_geometry; a role may be missing (a checkpoint with
               stage 1 only has no decoders of stage 2). completion_unet stands alone: the feed-forward baseline of
               stage 1
    samplers   'sparse_structure', 'structured_latent' -> defaults
    slat_mean, slat_std   (8,) constants of the structured latents, None without stage 2
    source     where it was read from, for messages
    metadata   what else the config states (licence, commit, metrics); `occupancy_temperature`: logits of the
               sparse-structure decoder divided by it are calibrated (default 1); `occupancy_chance_curve`: slope and
               intercept of what the samples' chances then mean (default: what they say)
    """

    family: str
    source: str
    modules: Mapping[str, Any]
    frame: GridFrame = "canonical"
    fusion: ViewFusion = "view_wise"
    image_size: int = 518
    samplers: Mapping[str, SamplerDefaults] = field(default_factory=dict)
    slat_mean: Tensor | None = None
    slat_std: Tensor | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
