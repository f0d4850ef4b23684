"""Cases of the networks of scene geometry, and of the images that they take."""

from __future__ import annotations

from typing import cast

import torch

from ...models.geometry.pi3 import Pi3
from ...models.geometry.vggt import VggtAggregator, condition_tokens
from ...views.geometry_images import limited_size, stacked_views
from ..golden import CaseResults, GoldenCase
from ..published import load_published


def pi3(case: GoldenCase) -> CaseResults:
    """Points, confidence and poses of in.images; poses once more with the views in reverse order."""
    model = cast(Pi3, load_published("Pi3", case.constructor, case.weights, case.name))
    images = case.inputs["images"]
    with torch.no_grad():
        found, reversed_views = model(images), model(images.flip(1))
        patches = model.patch_tokens(images).flatten(0, 1)
    return CaseResults(
        {
            "out.points": found.points,
            "out.local_points": found.local_points,
            "out.conf": found.confidence_logit[..., None],
            "out.camera_poses": found.T_world_camera,
            "out.camera_poses_views_reversed": reversed_views.T_world_camera,
            "mid.encoder_patchtokens": patches,
        }
    )


def vggt_aggregator(case: GoldenCase) -> CaseResults:
    """out.first and out.last of the pairs of blocks, and the tokens of view 0 as SceneGen takes them."""
    model = cast(VggtAggregator, load_published("Aggregator", case.constructor, case.weights, case.name))
    with torch.no_grad():
        first, last = model(case.inputs["images"], layers=(0, -1))
    tokens = condition_tokens(last[0, 0])
    return CaseResults({"out.first": first, "out.last": last, "out.scenegen_tokens_view0": tokens})


def view_images(case: GoldenCase) -> CaseResults:
    """out.tensor = in.image prepared; out.size_table…: width, height -> prepared width, height at the default limit."""
    image = case.inputs["image"].cpu().numpy()
    prepared = stacked_views([image], pixel_limit=int(case.description["pixel_limit"]))[0]
    found = {"out.tensor": torch.from_numpy(prepared)}
    table = "out.size_table_w_h_to_w_h"
    if table in case.expected:
        sizes = [(int(width), int(height)) for width, height in case.expected[table][:, :2]]
        found[table] = torch.tensor([[*size, *limited_size(*size)] for size in sizes])
    return CaseResults(found)
