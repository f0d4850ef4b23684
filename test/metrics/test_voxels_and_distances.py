"""Spheres and boxes whose overlap and distances are known, and properties that hold for all meshes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import concatenate, make_mesh, select_faces, transformed
from gena3d_core.geometry.transforms import rigid
from gena3d_core.geometry.triangles import distance_to_triangles
from gena3d_core.metrics.surface_distance import MeasuredSurface
from gena3d_core.metrics.voxels import enclosed, voxel_iou
from gena3d_core.simulation.primitives import box, sphere

BALL = sphere(0.5)


def moved(mesh, shift):
    return transformed(mesh, rigid(t=np.asarray(shift, dtype=float)))


def test_a_mesh_overlaps_itself_and_nothing_far_away():
    assert voxel_iou(BALL, BALL) == 1.0
    assert voxel_iou(moved(BALL, (1.3, 0, 0)), BALL) == 0.0
    assert voxel_iou(make_mesh(np.zeros((0, 3)), np.zeros((0, 3))), BALL) == 0.0


@pytest.mark.parametrize("shift", [0.125, 0.25, 0.5])
def test_overlap_of_two_balls(shift):
    # Two caps of height r - d / 2 make the lens that both have.
    r = 0.5 + 0.5 / 64  # voxels that the surface touches count: half a voxel all around
    height = r - shift / 2
    lens = 2 * np.pi * height**2 * (3 * r - height) / 3
    expected = lens / (2 * 4 / 3 * np.pi * r**3 - lens)
    assert voxel_iou(moved(BALL, (shift, 0, 0)), BALL) == pytest.approx(expected, abs=0.02)


def test_a_larger_ball_around_counts_its_outside():
    assert voxel_iou(sphere(0.75), BALL) == pytest.approx((1 / 1.5) ** 3, abs=0.02)
    assert voxel_iou(sphere(0.25), BALL) == pytest.approx(0.5**3, abs=0.02)


def test_open_surfaces_count_as_their_voxels():
    half = select_faces(BALL, BALL.vertices[BALL.faces][..., 2].min(axis=1) > 0)
    shell = voxel_iou(half, BALL)
    assert 0.02 < shell < 0.1  # 2 pi r² of one to two voxels in thickness, of 4/3 pi r³


@settings(max_examples=15, deadline=None)
@given(st.floats(0.01, 30.0), st.tuples(*[st.floats(-5, 5)] * 3), st.floats(-0.3, 0.3))
def test_overlap_knows_no_scale_and_place(scale, place, shift):
    other = moved(BALL, (shift, 0.1, 0.0))
    S = rigid(scale * np.eye(3), np.array(place))
    assert voxel_iou(transformed(other, S), transformed(BALL, S)) == pytest.approx(voxel_iou(other, BALL), abs=0.02)


def test_enclosed_needs_a_closed_shell():
    shell = np.zeros((7, 7, 7), dtype=bool)
    shell[1:6, 1:6, 1:6] = True
    shell[2:5, 2:5, 2:5] = False
    assert enclosed(shell).sum() == 27
    shell[1, 3, 3] = False
    assert not enclosed(shell).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distance_to_triangles_is_the_least_over_their_points(seed):
    rng = np.random.default_rng(seed)
    points, corners = rng.normal(size=(5, 3)), rng.normal(size=(5, 3, 3))
    weights = rng.dirichlet(np.ones(3), size=4000)
    weights[:3] = np.eye(3)
    on_triangle = np.einsum("sk,nki->nsi", weights, corners)
    sampled = np.linalg.norm(on_triangle - points[:, None], axis=2).min(axis=1)
    exact = distance_to_triangles(points, corners)
    assert (exact <= sampled + 1e-9).all()
    assert (exact >= sampled - 0.15).all()


def test_distance_to_flat_and_degenerate_triangles():
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    points = np.array([[0.2, 0.2, 0.7], [-3.0, 0, 4], [0.5, -2.0, 0], [1.0, 1.0, 0.0]])
    assert distance_to_triangles(points, np.stack([triangle] * 4)) == pytest.approx([0.7, 5.0, 2.0, np.sqrt(0.5)])
    point = np.zeros((1, 3, 3))
    line = np.array([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    assert distance_to_triangles(np.array([[3.0, 4.0, 0.0]]), point) == pytest.approx(5.0)
    assert distance_to_triangles(np.array([[1.5, 2.0, 0.0]]), line) == pytest.approx(2.0)


def test_nearest_finds_distance_and_face_of_a_box():
    cube = box((1.0, 1.0, 1.0), 0.0)
    surface = MeasuredSurface.of(cube)
    distance, face = surface.nearest(np.array([[0.0, 0.0, 0.8], [0.9, 0.0, 0.1], [0.1, 0.2, 0.25]]))
    assert distance == pytest.approx([0.3, 0.4, 0.25], abs=1e-5)
    assert np.abs(surface.normals[face]).argmax(axis=1).tolist() == [2, 0, 2]


def test_concentric_spheres_are_apart_by_their_radii():
    inner, outer = MeasuredSurface.of(sphere(0.4)), MeasuredSurface.of(BALL)
    points, normals, _ = inner.sample(2000, seed=1)
    distance, face = outer.nearest(points)
    assert distance == pytest.approx(0.1, abs=2e-3)
    assert np.einsum("ni,ni->n", normals, outer.normals[face]).mean() > 0.995


def test_surfaces_without_area_are_refused():
    with pytest.raises(InputError, match="without area"):
        MeasuredSurface.of(concatenate([]))
