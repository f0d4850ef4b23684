"""Views as tensors, at one resolution."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from ...types import View


@dataclass(frozen=True, eq=False)
class Frame:
    """One view at one resolution.

    gray (h, w) and color (3, h, w) float32 in [0, 1]; K (3, 3), K_inverse (3, 3); T_camera_world and
    T_world_camera (4, 4): float32 tensors on the device of the sweep.
    """

    gray: torch.Tensor
    color: torch.Tensor
    K: torch.Tensor
    K_inverse: torch.Tensor
    T_camera_world: torch.Tensor
    T_world_camera: torch.Tensor

    @property
    def rays(self) -> torch.Tensor:
        """(3, h, w) directions in the camera frame with z = 1."""
        height, width = self.gray.shape
        v, u = torch.meshgrid(
            torch.arange(height, dtype=torch.float32, device=self.gray.device),
            torch.arange(width, dtype=torch.float32, device=self.gray.device),
            indexing="ij",
        )
        return torch.einsum("ij,jhw->ihw", self.K_inverse, torch.stack([u, v, torch.ones_like(u)]))


def make_frame(view: View, width: int, device: torch.device) -> Frame:
    """The view with its image reduced (never enlarged) to `width` columns."""
    full_height, full_width = view.color.shape[:2]
    width = min(width, full_width)
    height = max(1, round(full_height * width / full_width))
    color = cv2.resize(view.color, (width, height), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    scale = np.array([width / full_width, height / full_height, 1.0])
    K = view.intrinsics.matrix
    # Pixel centres are integers, so the image's corner lies at -0.5: that corner must stay fixed.
    K[:2, 2] += 0.5
    K = scale[:, None] * K
    K[:2, 2] -= 0.5
    T = np.asarray(view.T_world_camera, dtype=np.float64)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)

    return Frame(
        gray=tensor(gray) / 255.0,
        color=tensor(np.moveaxis(color, -1, 0)) / 255.0,
        K=tensor(K),
        K_inverse=tensor(np.linalg.inv(K)),
        T_camera_world=tensor(np.linalg.inv(T)),
        T_world_camera=tensor(T),
    )
