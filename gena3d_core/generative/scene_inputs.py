"""From images and masks of a scene to conditions: features of each view alone, geometry from all views together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..errors import DataFormatError, InputError
from ..models.conditioning import FlowCondition, ViewTokens
from ..models.image_encoders import ImageEncoder
from ..models.scene_condition import SceneParts, SceneViewTensors, scene_condition
from ..models.scene_flow import SceneCondition
from ..models.scene_geometry import VggtSceneGeometry, scene_geometry_encoder
from ..types import Float64Array, SceneObservation
from ..views.object_crops import CROP_SIZE
from ..views.scene_images import SceneImages, scene_images
from .memory import in_chunks

IMAGES_AT_ONCE = 16
PARTS, GEOMETRY_SIZE = "scene_parts", "geometry_size"
"""Entries of a checkpoint's metadata: which features its scene flow was trained with (`SceneParts` by name), and the
side of the images for its geometry encoder, pixels."""
SMALL_GEOMETRY_SIZE = 160
"""That side where a checkpoint with a geometry encoder of its own does not say."""


@dataclass(frozen=True, eq=False)
class SceneConditions:
    """What conditions the flows of one scene of N assets.

    views    one for each of K views, for all N assets
    seen     (K, N): 1 where a view tells about an asset's place: it shows the asset and the query
    tokens   (K, N, L, C) of the assets' own images; an asset that a view does not show has those of its best view
    """

    views: tuple[SceneCondition, ...]
    seen: Float64Array
    tokens: Tensor

    def of_assets(self, assets: Tensor) -> list[SceneCondition]:
        """The views' conditions for `assets` (n,) int64 alone, in that order."""
        return [SceneCondition(view.tokens[assets.to(view.tokens.device)], view.shared) for view in self.views]

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
    bundle: ModelBundle, scene: SceneObservation, query: int, parts: SceneParts, device: str | torch.device
) -> SceneConditions:
    """Conditions of the scene on `device`; query: number of the asset in whose frame the poses are.

    Raises `InputError` for a checkpoint without the encoders that `parts` wants.
    """
    encoder = bundle.modules.get("image_encoder")
    if encoder is None:
        raise InputError(f"{bundle.source} brings no image encoder: name one with --image-encoder")
    side = geometry_size(bundle)
    prepared = [
        scene_images(image, masks, encoder.image_size, side)
        for image, masks in zip(scene.images, scene.masks, strict=True)
    ]
    geometry = _geometry(bundle, prepared, device) if parts.geometry else None
    few: Any = _FewAtOnce(encoder)
    views = []
    for number, images in enumerate(prepared):
        tensors = SceneViewTensors(
            torch.from_numpy(images.crops).to(device),
            torch.from_numpy(images.masks).to(device),
            torch.from_numpy(images.scene)[None].to(device),
        )
        views.append(scene_condition(few, tensors, None if geometry is None else geometry[:, number], parts))
    pixels = scene.pixels
    views = _seen_somewhere(views, pixels)
    length = bundle.modules["sparse_structure_flow"].config.asset_tokens
    own = torch.stack([view.tokens[:, :length] for view in views])
    seen = (pixels > 0).astype(np.float64)
    together = seen * seen[:, query : query + 1]
    # An asset that no view shows together with the query is placed by the views that show it at all.
    return SceneConditions(tuple(views), np.where(together.any(axis=0), together, seen), own)


def _geometry(bundle: ModelBundle, prepared: list[SceneImages], device: str | torch.device) -> Tensor:
    """(1, K, M, C) tokens, which attend across all K views."""
    module = bundle.modules.get("scene_geometry")
    if module is None:
        raise InputError(f"{bundle.source} brings no encoder of scene geometry: name one with --geometry-encoder")
    encoder = scene_geometry_encoder(module)
    images = torch.from_numpy(np.stack([view.geometry for view in prepared]))[None].to(device)
    instances = torch.from_numpy(np.stack([view.instances for view in prepared]))[None].to(device)
    return encoder.encode(images, instances)


def _seen_somewhere(views: list[SceneCondition], pixels: np.ndarray) -> list[SceneCondition]:
    """Assets that a view does not show get their own tokens from the view that shows most of them."""
    best = pixels.argmax(axis=0)
    found = []
    for number, view in enumerate(views):
        hidden = np.flatnonzero(pixels[number] == 0)
        tokens = view.tokens
        if len(hidden):
            tokens = tokens.clone()
            for asset in hidden.tolist():
                tokens[asset] = views[int(best[asset])].tokens[asset]
        found.append(SceneCondition(tokens, view.shared))
    return found


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
