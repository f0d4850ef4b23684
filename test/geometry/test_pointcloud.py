import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.geometry import camera, transforms
from gena3d_core.geometry.pointcloud import depth_normals, voxel_keys, voxel_thin
from gena3d_core.types import Intrinsics

INTRINSICS = Intrinsics(80, 60, 70.0, 70.0, 39.5, 29.5)


def depth_of_plane(normal, distance_m):
    """Depth (H, W) of the plane n·p = -distance in the camera frame."""
    with np.errstate(divide="ignore"):
        depth = -distance_m / (camera.pixel_rays(INTRINSICS) @ normal)
    return np.where((depth > 0.2) & (depth < 5.0), depth, np.nan).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(x=st.floats(-0.6, 0.6), y=st.floats(-0.6, 0.6), distance_m=st.floats(0.5, 2.0))
def test_normals_of_a_plane_are_its_normal_towards_the_camera(x, y, distance_m):
    normal = np.array([x, y, -1.0]) / np.linalg.norm([x, y, -1.0])
    normals = depth_normals(camera.backproject(depth_of_plane(normal, distance_m), INTRINSICS), step=2, max_jump=0.2)
    known = np.isfinite(normals[..., 0])
    assert known.any()
    np.testing.assert_allclose(normals[known], np.broadcast_to(normal, normals[known].shape), atol=2e-3)


def test_no_normals_across_a_step_of_depth():
    depth = np.full((60, 80), 1.0, dtype=np.float32)
    depth[:, 40:] = 1.5
    known = np.isfinite(depth_normals(camera.backproject(depth, INTRINSICS), step=2)[..., 0])
    assert known[30, 20]
    assert known[30, 60]
    assert not known[2:-2, 38:42].any()


def test_a_picture_smaller_than_the_step_has_no_normals():
    assert np.isnan(depth_normals(np.ones((5, 5, 3), dtype=np.float32), step=4)).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size_m=st.floats(0.01, 0.5), count=st.integers(0, 300))
def test_thinning_keeps_one_point_for_each_voxel(seed, size_m, count):
    points = np.random.default_rng(seed).uniform(-1, 1, (count, 3))
    kept = voxel_thin(points, size_m)
    cells = np.floor(points / size_m).astype(int)
    assert len(kept) == len(np.unique(cells, axis=0))
    assert len(np.unique(cells[kept], axis=0)) == len(kept)


def test_voxel_keys_tell_voxels_apart():
    points = np.array([[0.01, 0.0, 0.0], [0.04, 0.0, 0.0], [0.06, 0.0, 0.0], [-0.01, 0.0, 0.0]])
    keys = voxel_keys(points, 0.05)
    assert keys[0] == keys[1]
    assert len(set(keys.tolist())) == 3


def test_normals_turn_with_the_camera():
    normal = np.array([0.0, 0.0, -1.0])
    local = depth_normals(camera.backproject(depth_of_plane(normal, 1.0), INTRINSICS), step=2)
    T = transforms.look_at([0.0, -1.0, 1.0], [0.0, 0.0, 0.0])
    world = local[30, 40] @ T[:3, :3].T
    np.testing.assert_allclose(world, -T[:3, 2], atol=1e-4)
