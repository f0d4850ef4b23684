"""From images and masks of a scene to conditions: features of each view alone, geometry from all views together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..errors import DataFormatError, InputError
from ..memory import in_chunks
from ..models.conditioning import FlowCondition, ViewTokens
from ..models.image_encoders import ImageEncoder
from ..models.scene_condition import SceneParts, SceneViewTensors, scene_condition
from ..models.scene_flow import SceneCondition
from ..models.scene_geometry import VggtSceneGeometry, scene_geometry_encoder
from ..types import Float64Array, SceneObservation
from ..views.object_crops import CROP_SIZE
from ..views.scene_images import SceneImages, scene_images

IMAGES_AT_ONCE = 16
PARTS, GEOMETRY_SIZE, VIEWS = "scene_parts", "geometry_size", "scene_views"
"""Entries of a checkpoint's metadata: which features its scene flow was trained with (`SceneParts` by name), the side
of the images for its geometry encoder in pixels, and how many views of a scene it was shown together."""
SMALL_GEOMETRY_SIZE = 160
"""That side where a checkpoint with a geometry encoder of its own does not say."""


@dataclass(frozen=True, eq=False)
class SceneConditions:
    """What conditions the flows of one scene of N assets.

    views    one for each of K views, for all N assets
    seen     (K, N): 1 where a view tells about an asset's place: it shows the asset and the query, else 0
    tokens   (K, N, L, C) of the assets' own images; an asset that a view does not show has those of its best view
    """

    views: tuple[SceneCondition, ...]
    seen: Float64Array
    tokens: Tensor

    def of_assets(self, assets: Tensor) -> list[SceneCondition]:
        """The views' conditions for `assets` (n,) int64 alone, in that order."""
        own = assets.to(self.views[0].tokens.device)
        return [
            SceneCondition(view.tokens[own], view.shared, None if view.hints is None else view.hints.of_assets(own))
            for view in self.views
        ]

    def of_objects(self, assets: Tensor) -> FlowCondition:
        """Condition of stage 2, which sees each asset alone, for `assets` (n,) int64 in that order."""
        views, device = len(self.views), self.tokens.device
        own = self.tokens[:, assets.to(device)].transpose(0, 1).flatten(0, 1)
        owner = torch.arange(len(assets), device=device).repeat_interleave(views)
        weight = torch.full((len(owner),), 1.0 / views, device=device)
        return FlowCondition(ViewTokens(own, owner, weight), len(assets))


@dataclass(frozen=True)
class _FewAtOnce:
    """An image encoder that takes many images a few at a time."""

    encoder: ImageEncoder

    def encode(self, images: Tensor) -> Tensor:
        parts = in_chunks(len(images), IMAGES_AT_ONCE, lambda start, stop: self.encoder.encode(images[start:stop]))
        return torch.cat(parts)


@torch.no_grad()
def encode_scene(
    bundle: ModelBundle,
    scene: SceneObservation,
    query: int,
    parts: SceneParts,
    device: str | torch.device,
    views: Sequence[int] | None = None,
) -> SceneConditions:
    """Conditions of the scene on `device`; query: number of the asset in whose frame the poses are.

    views: numbers of the images that are conditioned on, default: all. An asset that none of these shows is described
    by the image that shows most of it. Raises `InputError` for a checkpoint without the encoders that `parts` wants.
    """
    encoder = bundle.modules.get("image_encoder")
    if encoder is None:
        raise InputError(f"{bundle.source} brings no image encoder: name one with --image-encoder")
    chosen = list(range(len(scene.images))) if views is None else list(views)
    pixels = scene.pixels
    unseen = np.flatnonzero((pixels[chosen] == 0).all(axis=0))
    extra = sorted({int(n) for n in pixels[:, unseen].argmax(axis=0)})
    side = geometry_size(bundle)
    prepared = {
        number: scene_images(scene.images[number], scene.masks[number], encoder.image_size, side)
        for number in (*chosen, *extra)
    }
    geometry = _geometry(bundle, [prepared[number] for number in chosen], device) if parts.geometry else None
    few: Any = _FewAtOnce(encoder)
    found = {}
    for index, number in enumerate(prepared):
        tensors = _tensors(prepared[number], device)
        if number in chosen:
            found[number] = scene_condition(few, tensors, None if geometry is None else geometry[:, index], parts)
        else:
            found[number] = scene_condition(few, tensors, None, replace(parts, scene=False, geometry=False))
    conditions = [_completed(found, number, pixels) for number in chosen]
    length = bundle.modules["sparse_structure_flow"].config.asset_tokens
    seen = (pixels[chosen] > 0).astype(np.float64)
    return SceneConditions(
        tuple(conditions),
        seen * seen[:, query : query + 1],
        torch.stack([condition.tokens[:, :length] for condition in conditions]),
    )


def _tensors(images: SceneImages, device: str | torch.device) -> SceneViewTensors:
    return SceneViewTensors(
        torch.from_numpy(images.crops).to(device),
        torch.from_numpy(images.masks).to(device),
        torch.from_numpy(images.scene)[None].to(device),
    )


def _geometry(bundle: ModelBundle, prepared: list[SceneImages], device: str | torch.device) -> Tensor:
    """(1, K, M, C) tokens, which attend across all K views."""
    module = bundle.modules.get("scene_geometry")
    if module is None:
        raise InputError(f"{bundle.source} brings no encoder of scene geometry: name one with --geometry-encoder")
    encoder = scene_geometry_encoder(module)
    images = torch.from_numpy(np.stack([view.geometry for view in prepared]))[None].to(device)
    instances = torch.from_numpy(np.stack([view.instances for view in prepared]))[None].to(device)
    return encoder.encode(images, instances)


def _completed(found: Mapping[int, SceneCondition], number: int, pixels: np.ndarray) -> SceneCondition:
    """The condition of one image in which assets that it does not show have the tokens of the image that does most."""
    view, tokens = found[number], found[number].tokens
    hidden = np.flatnonzero(pixels[number] == 0)
    if len(hidden):
        numbers = sorted(found)
        best = np.array(numbers)[pixels[numbers].argmax(axis=0)]
        tokens = tokens.clone()
        for asset in hidden.tolist():
            tokens[asset] = found[int(best[asset])].tokens[asset]
    return replace(view, tokens=tokens)


def geometry_size(bundle: ModelBundle) -> int:
    """Side of the images for the geometry encoder, pixels; raises `DataFormatError` for a bad entry of the metadata."""
    stated = bundle.metadata.get(GEOMETRY_SIZE)
    if stated is None:
        module = bundle.modules.get("scene_geometry")
        published = module is None or isinstance(scene_geometry_encoder(module), VggtSceneGeometry)
        return CROP_SIZE if published else SMALL_GEOMETRY_SIZE
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise DataFormatError(f"{bundle.source}: {GEOMETRY_SIZE} must be a positive number of pixels, got {stated!r}")
    return stated


def scene_parts(bundle: ModelBundle) -> SceneParts:
    """The features that the checkpoint was trained with: what its metadata states, else all.

    Raises `DataFormatError` for a bad entry.
    """
    stated: Any = bundle.metadata.get(PARTS)
    known = asdict(SceneParts())
    if stated is None:
        return SceneParts()
    if not isinstance(stated, Mapping) or not all(k in known and isinstance(v, bool) for k, v in stated.items()):
        raise DataFormatError(f"{bundle.source}: {PARTS} must hold true or false for {', '.join(known)}")
    return SceneParts(**stated)


def shown_pixels(scene: SceneObservation) -> Float64Array:
    """(K, N) pixels of each asset in each image; raises `InputError` for an asset that has none."""
    pixels = scene.pixels
    if hidden := [scene.ids[n] for n in np.flatnonzero(pixels.sum(axis=0) == 0)]:
        raise InputError(f"objects {hidden} have no pixel in any image: leave them out")
    return pixels
