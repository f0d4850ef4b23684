"""The plane sweep on a real recording, against its depth sensor."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gena3d_core.metrics.depth import DepthError, depth_error, texture_mask
from gena3d_core.stereo import make_stereo_matcher
from gena3d_core.types import Intrinsics, View


def load(folder: Path, frame: int) -> View:
    c = json.loads((folder / "camera.json").read_text())
    intrinsics = Intrinsics(*(c[key] for key in ("width", "height", "fx", "fy", "cx", "cy")))
    color = cv2.imread(str(folder / "color" / f"{frame:06d}.jpg"))[..., ::-1].copy()
    depth_mm = cv2.imread(str(folder / "depth" / f"{frame:06d}.png"), cv2.IMREAD_UNCHANGED)
    depth_m = np.where(depth_mm == 0, np.nan, depth_mm * 1e-3).astype(np.float32)
    T = np.loadtxt(folder / "pose" / f"{frame:06d}.txt")
    return View(color, intrinsics, T, depth_m, name=str(frame))


def error_on_texture(folder: Path, frames: list[int], **options) -> DepthError:
    truth = [load(folder, frame) for frame in frames]
    found = make_stereo_matcher("plane_sweep", **options)([replace(view, depth_m=None) for view in truth])
    return depth_error(
        np.stack([view.depth_m for view in found]),
        np.stack([view.depth_m for view in truth]),
        np.stack([texture_mask(view.color) for view in truth]),
    )


def test_neighbouring_frames(kitchen_dir):
    result = error_on_texture(kitchen_dir, [274, 290, 302], fine_width=320)
    assert result.median_ratio < 0.025
    assert result.bad_fraction < 0.2
    assert result.coverage > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames", "min_coverage"),
    [([0, 478, 204, 290], 0.3), ([358, 436, 394, 376], 0.5), ([248, 478], 0.25), ([394, 358], 0.3)],
)
def test_sparse_views(kitchen_dir, frames, min_coverage):
    result = error_on_texture(kitchen_dir, frames)
    assert result.median_ratio < 0.03
    assert result.bad_fraction < 0.2
    assert result.coverage > min_coverage
