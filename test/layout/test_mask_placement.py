"""Objects placed by their masks: where they were, if they are seen from far away and stand on the plane."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.camera import upright_axes
from gena3d_core.geometry.mesh import make_mesh, transformed
from gena3d_core.layout.mask_placement import place_at_mask, standing_depth_m
from gena3d_core.metrics.rendering import render_color
from gena3d_core.types import Intrinsics, SupportPlane

CAMERA = Intrinsics(320, 240, 900.0, 900.0, 159.5, 119.5)
TABLE = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
BALL = trimesh.creation.icosphere(subdivisions=3, radius=0.4)


def seen(S_world_grid, T_world_camera):
    mesh = make_mesh(BALL.vertices, BALL.faces)
    return mesh, render_color(transformed(mesh, S_world_grid), T_world_camera, CAMERA)[1]


@settings(max_examples=15, deadline=None)
@given(st.floats(-0.15, 0.15), st.floats(-0.1, 0.1), st.floats(0.1, 0.3), st.floats(0, 6.28), st.floats(0.3, 1.2))
def test_a_ball_comes_back_to_its_place(x, y, side, azimuth, elevation):
    eye = 2.0 * np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    T = transforms.look_at(eye, np.zeros(3))
    truth = transforms.rigid(side * upright_axes(T), np.array([x, y, 0.4 * side]))
    mesh, mask = seen(truth, T)
    depth = float(transforms.apply(transforms.inverse(T), truth[:3, 3])[2])
    found = place_at_mask(mesh, mask, T, CAMERA, depth)
    np.testing.assert_allclose(found[:3, 3], truth[:3, 3], atol=0.01)
    np.testing.assert_allclose(found[:3, :3], truth[:3, :3], atol=0.05 * side)
    # Where it meets the table is nearer than its middle by no more than its size.
    assert 0 < depth - standing_depth_m(mask, T, CAMERA, TABLE) + 0.4 * side < side


def test_what_cannot_be_placed_is_named():
    T = transforms.look_at(np.array([2.0, 0.0, 1.0]), np.zeros(3))
    mesh, mask = seen(transforms.rigid(0.2 * np.eye(3)), T)
    with pytest.raises(InputError, match="mask with pixels"):
        place_at_mask(mesh, np.zeros_like(mask), T, CAMERA, 1.0)
    with pytest.raises(InputError, match="positive depth"):
        place_at_mask(mesh, mask, T, CAMERA, float("nan"))
    with pytest.raises(InputError, match="stands nowhere"):
        standing_depth_m(np.zeros_like(mask), T, CAMERA, TABLE)
    up = transforms.look_at(np.array([2.0, 0.0, 1.0]), np.array([0.0, 0.0, 3.0]))
    with pytest.raises(InputError, match="does not look down"):
        standing_depth_m(mask, up, CAMERA, TABLE)
