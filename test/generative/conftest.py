"""Small observations and checkpoints for the generators' tests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.geometry import transforms
from gena3d_core.types import Intrinsics, ObjectObservation, SupportPlane, View

INTRINSICS = Intrinsics(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)


def observe(object_id: int, views: int, seed: int = 0) -> ObjectObservation:
    """A ball of 5 cm on the plane z = 0, seen from `views` sides; colours and an occluder are random."""
    rng = np.random.default_rng([seed, object_id])
    normal = rng.normal(size=(600, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    points = (np.array([0.1 * object_id, 0.0, 0.05]) + 0.05 * normal).astype(np.float32)
    row, col = np.mgrid[:48, :64]
    made, visible, occluded = [], [], []
    for number in range(views):
        color = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        radius = 8 + 4 * rng.random()
        ball = (row - 24) ** 2 + (col - 32) ** 2 < radius**2
        hidden = ball & (col > 32 + 6 * rng.random())
        made.append(View(color, INTRINSICS, transforms.rigid(t=(0.0, 0.0, 1.0 + number)), name=f"{number}"))
        visible.append(ball & ~hidden)
        occluded.append(hidden)
    return ObjectObservation(
        id=object_id,
        label="ball",
        score=1.0,
        views=tuple(made),
        visible_masks=tuple(visible),
        occlusion_masks=tuple(occluded),
        points_m=points,
        point_colors=np.full((600, 3), 128, dtype=np.uint8),
        point_view=np.zeros(600, dtype=np.int32),
        support=SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0),
    )


@pytest.fixture(scope="session")
def tiny():
    """Stage 1 in its smallest size, with random weights that depend on their condition."""
    torch.set_num_threads(1)
    return random_bundle("tiny", seed=3)


@pytest.fixture(scope="session")
def observations():
    """Three balls seen by 1, 3 and 2 views."""
    return [observe(1, 1), observe(2, 3), observe(3, 2)]
