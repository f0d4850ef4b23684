"""What is known of views before a network looks at them: poses, rays and depth at the network's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ..types import Float32Array, Intrinsics, View


@dataclass(frozen=True, eq=False)
class KnownViews:
    """Of S views of h x w pixels; NaN where a view has none.

    T_world_camera  (S, 4, 4)
    rays            (S, h, w, 2): x/z and y/z
    depth_m         (S, h, w)
    """

    T_world_camera: Float32Array
    rays: Float32Array
    depth_m: Float32Array

    def digest(self) -> bytes:
        """Bytes that tell one from another."""
        return b"".join(part.tobytes() for part in (self.T_world_camera, self.rays[:, ::9, ::9], self.depth_m))

    def tensors(self, device: str) -> dict[str, torch.Tensor]:
        """The same by name, as one scene, on `device`."""
        parts = {"T_world_camera": self.T_world_camera, "rays": self.rays, "depth_m": self.depth_m}
        return {name: torch.from_numpy(part)[None].to(device) for name, part in parts.items()}


def known_views(views: Sequence[View], height: int, width: int) -> KnownViews:
    """Images of the views being stretched to height x width."""
    poses = np.full((len(views), 4, 4), np.nan, dtype=np.float32)
    rays = np.full((len(views), height, width, 2), np.nan, dtype=np.float32)
    depth_m = np.full((len(views), height, width), np.nan, dtype=np.float32)
    for i, view in enumerate(views):
        if view.pose_known:
            poses[i] = view.T_world_camera
        if view.intrinsics_known:
            rays[i] = stretched_rays(view.intrinsics, height, width)
        if view.depth_m is not None:
            depth_m[i] = cv2.resize(view.depth_m, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return KnownViews(poses, rays, depth_m)


def stretched_rays(intrinsics: Intrinsics, height: int, width: int) -> Float32Array:
    """(height, width, 2) x/z and y/z of the pixels of an image that was stretched to that size."""
    columns = (np.arange(width) + 0.5) * intrinsics.width / width - 0.5 - intrinsics.cx
    rows = (np.arange(height) + 0.5) * intrinsics.height / height - 0.5 - intrinsics.cy
    x, y = np.broadcast_arrays(columns[None] / intrinsics.fx, rows[:, None] / intrinsics.fy)
    return np.stack([x, y], axis=-1).astype(np.float32)
