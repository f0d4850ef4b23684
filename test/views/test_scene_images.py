"""Images of a scene for SceneGen: what is where in crops, masks, the whole image and that for geometry."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.types import Intrinsics
from gena3d_core.views.object_crops import geometry_image
from gena3d_core.views.scene_images import geometry_intrinsics, geometry_map, scene_images


def picture():
    color = np.full((60, 80, 3), 200, dtype=np.uint8)
    masks = np.zeros((3, 60, 80), dtype=bool)
    masks[0, 10:30, 5:25] = True
    masks[1, 30:50, 40:70] = True
    color[masks[0]], color[masks[1]] = (255, 0, 0), (0, 0, 255)
    return color, masks


def test_each_part_shows_its_asset():
    color, masks = picture()
    found = scene_images(color, masks, 32, 28)
    assert found.crops.shape == (3, 5, 32, 32)
    seen = found.crops[0, 3] > 0.5
    np.testing.assert_allclose(found.crops[0, 0][seen].mean(), 1.0, atol=0.05)
    assert found.crops[0, 2].max() < 0.1
    assert seen.mean() == pytest.approx(1 / 1.2**2, abs=0.06)
    assert found.crops[0, 4].max() == 0
    # The third asset is hidden altogether.
    assert found.crops[2].max() == 0
    assert not found.masks[2].any()
    rows, columns = np.nonzero(found.masks[0])
    np.testing.assert_allclose([rows.min() / 32, (rows.max() + 1) / 32], [10 / 60, 30 / 60], atol=1 / 32)
    np.testing.assert_allclose([columns.min() / 32, (columns.max() + 1) / 32], [5 / 80, 25 / 80], atol=1 / 32)
    assert found.scene[:, 20, 22].argmax() == 2
    np.testing.assert_array_equal(np.unique(found.instances), [0, 1, 2])


def test_the_map_lies_as_the_image_for_geometry():
    color, masks = picture()
    found = scene_images(color, masks, 32, 56)
    reds, blues = found.instances == 1, found.instances == 2
    inner = reds & np.roll(reds, 1, 0) & np.roll(reds, -1, 0) & np.roll(reds, 1, 1) & np.roll(reds, -1, 1)
    assert found.geometry[:, inner].argmax(axis=0).max() == 0
    assert np.median(found.geometry[2][blues]) > 0.9
    np.testing.assert_array_equal(found.geometry.transpose(1, 2, 0), geometry_image(color, 56))
    depth = geometry_map(np.where(masks[0], 2.5, 1.5).astype(np.float32), 56, np.nan)
    assert np.isnan(depth[0]).all()
    assert set(np.unique(depth[~np.isnan(depth)])) == {1.5, 2.5}
    np.testing.assert_array_equal(depth == 2.5, reds)


@settings(max_examples=12, deadline=None)
@given(st.integers(40, 200), st.integers(40, 200), st.integers(0, 10**6))
def test_a_pixel_keeps_its_ray(width, height, seed):
    rng = np.random.default_rng(seed)
    camera = Intrinsics(width, height, 90.0, 95.0, rng.uniform(20, 30), rng.uniform(20, 30))
    size = 14 * 8
    small = geometry_intrinsics(camera, size)
    mark = np.zeros((height, width), dtype=np.float32)
    row, column = int(rng.integers(4, height - 4)), int(rng.integers(4, width - 4))
    mark[row - 4 : row + 5, column - 4 : column + 5] = 1.0
    rows, columns = np.nonzero(geometry_map(mark, size, 0.0))
    found = ((columns.mean() - small.cx) / small.fx, (rows.mean() - small.cy) / small.fy)
    wanted = ((column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy)
    np.testing.assert_allclose(found, wanted, atol=1.0 * max(width, height) / size / 90.0)


def test_what_does_not_fit_is_named():
    color, masks = picture()
    with pytest.raises(InputError, match="masks must have shape"):
        scene_images(color, masks[:, :50], 32, 28)
    with pytest.raises(InputError, match="1 to 254 assets, got 0"):
        scene_images(color, masks[:0], 32, 28)
