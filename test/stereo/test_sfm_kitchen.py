"""Structure from motion on photographs: recorded kitchen frames without their poses, and pictures of a house.

Prints its figures (`pytest -s`).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry.similarity_fit import fit_cameras
from gena3d_core.io import load_photos, load_views
from gena3d_core.metrics.relative_poses import relative_pose_errors
from gena3d_core.stereo.sfm import StructureFromMotionConfig, estimated_views

pytestmark = pytest.mark.slow

QUICK = StructureFromMotionConfig(threads=1, max_features=2048)
NEAR = (0, 30, 60, 90, 120, 150)
"""Frames a hand's width to half a metre apart; those of the recording that are nearest are taken."""


def frames_of(folder: Path) -> list[int]:
    recorded = np.array(sorted(int(file.stem) for file in (folder / "color").iterdir()))
    return sorted({int(recorded[np.argmin(np.abs(recorded - number))]) for number in NEAR})


@pytest.fixture
def photos(kitchen_dir):
    """Frames with their recorded poses, and the same without."""
    pytest.importorskip("pycolmap")
    views = load_views(kitchen_dir, frames_of(kitchen_dir))
    return views, [replace(v, pose_known=False, T_world_camera=np.eye(4), depth_m=None) for v in views]


def test_kitchen_frames_without_poses(photos):
    views, unposed = photos
    estimate, residual_px = estimated_views(unposed, QUICK)
    found = estimate.found
    known = np.stack([view.T_world_camera for view in views])[found]
    errors = relative_pose_errors(estimate.T_estimate_camera[found], known)
    fit = fit_cameras(estimate.T_estimate_camera[found], known)
    print(
        f"\nsfm kitchen: {found.sum()} of {len(views)} frames placed, {residual_px:.2f} px; relative rotation "
        f"{np.median(errors.rotation_deg):.2f} deg median, {errors.rotation_deg.max():.2f} max; direction "
        f"{np.nanmedian(errors.direction_deg):.2f} deg median, {np.nanmax(errors.direction_deg):.2f} max; positions "
        f"{100 * fit.rmse_m:.1f} cm rms"
    )
    assert found.sum() >= 4
    assert residual_px < 1.5
    assert np.median(errors.rotation_deg) < 2.0
    assert np.nanmedian(errors.direction_deg) < 10.0


def test_frames_that_show_different_things_say_why(photos):
    first = photos[1][0]
    rng = np.random.default_rng(0)
    noise = replace(first, color=rng.integers(0, 256, first.color.shape, dtype=np.uint8), name="noise")
    with pytest.raises(InputError, match=r"sfm: no two of the 2 views could be placed: no two views show the same"):
        estimated_views([first, noise], replace(QUICK, thorough=False))


def test_pictures_of_a_house(kitchen_dir):
    pytest.importorskip("pycolmap")
    folder = kitchen_dir.parent / "images/pi3_multiview/house"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    views = load_photos([folder], max_views=8)
    estimate, residual_px = estimated_views(views, QUICK)
    focal = [round(float(intrinsics.fx)) for intrinsics in estimate.intrinsics]
    print(
        f"\nsfm house: {estimate.found.sum()} of {len(views)} pictures placed, {residual_px:.2f} px, focal {focal} px"
    )
    # Wide baselines: neighbours only have matches, and only the patient features find them.
    assert estimate.found.sum() >= 3
    assert residual_px < 1.5
