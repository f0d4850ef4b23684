"""Cases of the image encoder and of image and mask preparation."""

from __future__ import annotations

from typing import cast

import torch

from ...models.image_encoders.dinov2 import DinoV2
from ..golden import CaseResults, GoldenCase
from ..published import load_published


def dinov2(case: GoldenCase) -> CaseResults:
    """Features of every in.image<i>."""
    model = cast(DinoV2, load_published("DinoVisionTransformer", case.constructor, case.weights, case.name))
    found = {}
    for name in case.inputs:
        if not name.startswith("image"):
            continue
        number, image = name.removeprefix("image"), case.inputs[name]
        patch = model.config.patch_size
        with torch.no_grad():
            features = model(image)
            positions = model.positions(image.shape[-2] // patch, image.shape[-1] // patch)
        found |= {
            f"out.x_prenorm{number}": features.prenorm,
            f"out.x_norm_patchtokens{number}": features.patch_tokens,
            f"out.x_norm_clstoken{number}": features.class_token,
            f"out.x_norm_regtokens{number}": features.register_tokens,
            f"out.cond_tokens{number}": features.condition_tokens,
            f"out.pos_embed_used{number}": positions,
        }
    return CaseResults(found)
