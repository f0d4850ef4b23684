"""From inputs to the condition of the flows: image tokens, mask tokens, the latent of the partial cloud."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..errors import InputError
from ..memory import in_chunks
from ..models.conditioning import FlowCondition, ViewTokens, mask_token_bias, view_weights
from .inputs import ObjectInputs

CROPS_AT_ONCE = 16


@torch.no_grad()
def encode_condition(bundle: ModelBundle, inputs: ObjectInputs, device: str | torch.device) -> FlowCondition:
    """Everything that conditions the flows of `bundle`, for all objects of `inputs`, on `device`.

    Raises `InputError` if the checkpoint has no image encoder.
    """
    encoder = bundle.modules.get("image_encoder")
    if encoder is None:
        raise InputError(f"{bundle.source} brings no image encoder: name one with --image-encoder")
    crops = torch.from_numpy(inputs.crops).to(device)
    tokens = torch.cat(in_chunks(len(crops), CROPS_AT_ONCE, lambda start, stop: encoder.encode(crops[start:stop])))
    owner = torch.from_numpy(inputs.owner).to(device)
    batch = len(inputs.has_cloud)
    weight = view_weights(torch.from_numpy(inputs.visibility).to(device), owner, batch)
    views = ViewTokens(tokens, owner, weight)
    config = bundle.modules["sparse_structure_flow"].config
    if config.occlusion_attention:
        views = with_masks(views, crops, encoder.special_tokens)
    if not config.stereo_attention or not inputs.has_cloud.any():
        return FlowCondition(views, batch, None, torch.zeros(batch, dtype=torch.bool, device=device))
    return FlowCondition(
        views, batch, cloud_latents(bundle, inputs, device), torch.from_numpy(inputs.has_cloud).to(device)
    )


def cloud_latents(bundle: ModelBundle, inputs: ObjectInputs, device: str | torch.device) -> Tensor:
    """(B, C, R, R, R): posterior means of the voxelised partial clouds (GENA3D eq. 5)."""
    encoder = bundle.modules["sparse_structure_encoder"]
    clouds = torch.from_numpy(inputs.clouds).to(device)[:, None].float()
    return torch.cat(in_chunks(len(clouds), CROPS_AT_ONCE, lambda start, stop: encoder(clouds[start:stop]).mean))


def with_masks(views: ViewTokens, crops: Tensor, special_tokens: int) -> ViewTokens:
    """Amodal3R's mask weights and occluded-ratio tokens of the crops' masks (P, 5, S, S)."""
    patches = views.tokens.shape[1] - special_tokens
    side = math.isqrt(patches)
    if side * side != patches:
        raise InputError(f"the image encoder gives {patches} patches, which make no square: masks cannot be matched")
    ratios = F.adaptive_avg_pool2d(crops[:, 3:5], side).flatten(2)
    occlusion = ratios[:, 1, :, None].expand(-1, -1, views.tokens.shape[2])
    return ViewTokens(
        views.tokens, views.owner, views.weight, mask_token_bias(ratios[:, 0], special_tokens), occlusion.contiguous()
    )
