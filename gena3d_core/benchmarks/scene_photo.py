"""A picture of a scene with masks, as a person would make them, to measure on."""

from __future__ import annotations

import numpy as np

from ..simulation import Renderer, default_scene
from ..types import SceneObservation


def photo_of_scene() -> SceneObservation:
    """The packaged scene from its first camera, with perfect masks."""
    spec = default_scene()
    image = Renderer(spec).render(spec.camera_path.poses(1)[0])
    seen = [n + 1 for n in range(len(spec.objects)) if (image.instance_ids == n + 1).any()]
    masks = np.stack([image.instance_ids == n for n in seen])
    return SceneObservation(tuple(seen), tuple(spec.objects[n - 1].name for n in seen), (image.color,), (masks,))


def largest(scene: SceneObservation, count: int) -> SceneObservation:
    """The `count` objects with the most pixels, in their order."""
    kept = np.sort(np.argsort(-scene.pixels.sum(axis=0), kind="stable")[:count]).tolist()
    return SceneObservation(
        tuple(scene.ids[n] for n in kept),
        tuple(scene.labels[n] for n in kept),
        scene.images,
        tuple(masks[kept] for masks in scene.masks),
    )
