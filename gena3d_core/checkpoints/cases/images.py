"""Cases of the image encoder and of image and mask preparation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ...amodal import mask_conditioning
from ...models.image_encoders.dinov2 import DinoV2
from ...views import object_crops
from ..golden import CaseResults, Comparison, Difference, GoldenCase, Tolerance, compare_values
from ..published import load_published


def dinov2(case: GoldenCase) -> CaseResults:
    """Features of every in.image<i>."""
    model = cast(DinoV2, load_published("DinoVisionTransformer", case.constructor, case.weights, case.name))
    found: dict[str, Tensor] = {}
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


def amodal_masks(case: GoldenCase) -> CaseResults:
    """Amodal3R's image and masks, with and without the grown occluder."""
    image, mask = case.inputs["image"].cpu().numpy(), case.inputs["mask"].cpu().numpy()
    removed, occluder = mask_conditioning.split_grey_mask(mask, int(case.description.get("kernel_size", 3)))
    removed_k0, occluder_k0 = mask_conditioning.split_grey_mask(mask, 0)
    results: dict[str, np.ndarray] = {
        "out.image_518": mask_conditioning.visible_image(image, removed),
        "out.mask_removed": removed.astype(np.uint8),
        "out.mask_occ": occluder.astype(np.uint8),
        "out.mask_removed_k0": removed_k0.astype(np.uint8),
        "out.mask_occ_k0": occluder_k0.astype(np.uint8),
        "out.visible_ratio_37x37": mask_conditioning.patch_ratios(~removed),
        "out.occluded_ratio_37x37": mask_conditioning.patch_ratios(occluder),
    }
    exact = [name for name in results if "mask" in name]
    comparisons: dict[str, Comparison] = dict.fromkeys(exact, _within(0.0)) | {"out.image_518": _within(1.0)}
    ratios = [name for name in results if "ratio" in name]
    return CaseResults(_tensors(results), comparisons | dict.fromkeys(ratios, _within(1e-6)))


def crops(case: GoldenCase) -> CaseResults:
    """TRELLIS' crops at inference and in training, and SceneGen's image for the geometry encoder."""
    rgba = case.inputs["rgba"].cpu().numpy()
    results: dict[str, np.ndarray] = {
        "out.infer_518": object_crops.inference_crop(rgba),
        "out.train_518_uint8": np.round(object_crops.training_crop(rgba) * 255.0),
        "out.vggt_518_uint8": np.round(object_crops.geometry_image(rgba) * 255.0),
    }
    return CaseResults(_tensors(results), dict.fromkeys(results, _within(1.0)))


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _within(atol: float) -> Comparison:
    """Number by number, within `atol`, for cases that state their tolerance in words."""

    def compare(ours: Tensor, theirs: Tensor, stated: Tolerance) -> Difference:
        return compare_values(ours, theirs, Tolerance(atol, 0.0))

    return compare
