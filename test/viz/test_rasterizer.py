"""The software rasterizer against geometry that is known exactly."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.geometry import camera, transforms
from gena3d_core.types import Intrinsics
from gena3d_core.viz import rasterizer
from gena3d_core.viz.rasterizer import rasterize

INTRINSICS = Intrinsics(60, 40, 50.0, 50.0, 29.5, 19.5)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(1.0, 3.0))
@settings(max_examples=40, deadline=None)
def test_depth_of_a_slanted_plane_is_exact(a, b, c):
    """z = c + a x + b y, two triangles that fill the picture."""
    corner = np.array([[-3, -3], [3, -3], [3, 3], [-3, 3]], dtype=float)
    slopes = corner * 0.25  # rays through a wide frame
    z = c / (1 - a * slopes[:, 0] - b * slopes[:, 1])
    points = np.column_stack([slopes * z[:, None], z])
    uv, depth = camera.project(points, INTRINSICS)
    result = rasterize(uv, depth, np.array([[0, 1, 2], [0, 2, 3]]), 60, 40)
    rays = camera.pixel_rays(INTRINSICS)
    wanted = c / (1 - a * rays[..., 0] - b * rays[..., 1])
    assert (result.face >= 0).all()
    np.testing.assert_allclose(result.depth, wanted, rtol=1e-4)
    back = np.einsum("hwk,hwkc->hwc", result.weights, points[np.array([[0, 1, 2], [0, 2, 3]])[result.face]])
    np.testing.assert_allclose(back, rays * wanted[..., None], rtol=1e-3, atol=1e-3)


def test_a_square_covers_exactly_its_pixels():
    square = np.array([[9.5, 4.5], [19.5, 4.5], [19.5, 14.5], [9.5, 14.5]])
    face = rasterize(square, np.ones(4), np.array([[0, 1, 2], [0, 2, 3]]), 60, 40).face
    wanted = np.zeros((40, 60), bool)
    wanted[5:15, 10:20] = True
    np.testing.assert_array_equal(face >= 0, wanted)


def test_nearer_faces_hide_farther_ones_in_any_order(monkeypatch):
    rng = np.random.default_rng(3)
    monkeypatch.setattr(rasterizer, "CHUNK", 500)  # many chunks, so that they must agree
    count = 60
    center = rng.uniform([0, 0], [60, 40], (count, 2))
    xy = (center[:, None] + rng.uniform(-12, 12, (count, 3, 2))).reshape(-1, 2)
    depth = np.repeat(rng.permutation(count) + 1.0, 3)
    faces = np.arange(3 * count).reshape(-1, 3)
    result = rasterize(xy, depth, faces, 60, 40)
    shuffled = rng.permutation(count)
    again = rasterize(xy, depth, faces[shuffled], 60, 40)
    np.testing.assert_allclose(again.depth, result.depth, rtol=1e-6)
    seen = result.face >= 0
    np.testing.assert_allclose(result.depth[seen], depth[3 * result.face[seen]], rtol=1e-4)
    brute = np.full((40, 60), np.inf)
    for face in faces:
        alone = rasterize(xy, depth, face[None], 60, 40)
        brute = np.minimum(brute, alone.depth)
    np.testing.assert_allclose(result.depth, brute, rtol=1e-5)


def test_faces_behind_the_camera_or_outside_are_dropped():
    points = np.array([[0, 0, -1.0], [1, 0, 1], [0, 1, 1], [9, 9, 1], [9.1, 9, 1], [9, 9.1, 1]])
    uv, depth = camera.project(points, INTRINSICS)
    result = rasterize(uv, depth, np.array([[0, 1, 2], [3, 4, 5]]), 60, 40)
    assert (result.face == -1).all()
    assert np.isinf(result.depth).all()


def test_no_faces_at_all():
    result = rasterize(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3), int), 8, 6)
    assert result.face.shape == (6, 8)
    assert (result.face == -1).all()


def test_both_windings_are_drawn():
    triangle = np.array([[5.0, 5.0], [30.0, 5.0], [5.0, 30.0]])
    one = rasterize(triangle, np.ones(3), np.array([[0, 1, 2]]), 60, 40).face
    two = rasterize(triangle, np.ones(3), np.array([[0, 2, 1]]), 60, 40).face
    np.testing.assert_array_equal(one, two)
    assert (one == 0).sum() > 250


def test_a_moved_camera_sees_the_same_point():
    T = transforms.look_at(np.array([1.0, -2.0, 1.0]), np.zeros(3))
    local = transforms.apply(transforms.inverse(T), np.array([[-0.2, -0.2, 0], [0.4, 0, 0], [0, 0.4, 0.0]]))
    uv, depth = camera.project(local, INTRINSICS)
    result = rasterize(uv, depth, np.array([[0, 1, 2]]), 60, 40)
    assert np.isfinite(result.depth).any()
    uv, distance = camera.project(np.array([[0, 0, np.sqrt(6)]]), INTRINSICS)
    col, row = np.rint(uv[0]).astype(int)
    assert abs(result.depth[row, col] - distance[0]) < 0.06
