"""Surface of occupancy logits: sub-voxel radius, frame, closed at the border, clear errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.meshing.occupancy_surface import surface_from_logits

R = 32


def centres(resolution: int) -> np.ndarray:
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


@pytest.mark.parametrize("centre", [(0.0, 0.0, 0.0), (0.11, -0.07, 0.03)])
@pytest.mark.parametrize("steepness", [20.0, 200.0])
def test_sphere_radius_is_sub_voxel(centre, steepness):
    radius = 0.3
    logits = steepness * (radius - np.linalg.norm(centres(R) - centre, axis=-1))
    mesh = surface_from_logits(logits)
    assert mesh_ops.is_watertight(mesh)
    off = np.linalg.norm(mesh.vertices - np.array(centre), axis=1) - radius
    assert np.abs(off).max() < 0.1 / R
    assert mesh_ops.volume(mesh) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


def test_axes_and_cube_size():
    logits = np.full((8, 8, 8), -1.0)
    logits[1, 3, 6] = 1.0
    mesh = surface_from_logits(logits, cube=4.0)
    np.testing.assert_allclose(mesh.vertices.mean(axis=0), np.array([1.5, 3.5, 6.5]) * 0.5 - 2.0, atol=1e-5)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), 0.5, atol=1e-5)


def test_full_grid_is_the_cube():
    mesh = surface_from_logits(np.full((6, 6, 6), 3.0))
    assert mesh_ops.is_watertight(mesh)
    np.testing.assert_allclose(np.abs(mesh.vertices).max(axis=0), 0.5, atol=1e-5)
    # Marching cubes bevels edges and corners by half a voxel.
    assert 0.9 < mesh_ops.volume(mesh) < 1.0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), resolution=st.integers(1, 7), zeros=st.booleans())
def test_any_logits_close(seed, resolution, zeros):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(resolution,) * 3) * 5
    if zeros:
        logits = np.round(logits / 5)
    logits[tuple(rng.integers(0, resolution, 3))] = 1.0
    mesh = surface_from_logits(logits)
    edges = mesh_ops.directed_edges(mesh.faces)
    # Every directed edge has its opposite as often: no border, even where sheets touch.
    forward, counts = np.unique(edges, axis=0, return_counts=True)
    backward, back_counts = np.unique(edges[:, ::-1], axis=0, return_counts=True)
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(counts, back_counts)
    assert np.abs(mesh.vertices).max() <= 0.5 + 1e-5
    assert mesh_ops.volume(mesh) > 0


def test_half_precision_is_read():
    logits = (20 * (0.3 - np.linalg.norm(centres(16), axis=-1))).astype(np.float16)
    assert mesh_ops.is_watertight(surface_from_logits(logits))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.full((4, 4, 4), -1.0), "no positive logit"),
        (np.zeros((4, 4, 4)), "no positive logit"),
        (np.ones((4, 4, 5)), "want"),
        (np.ones((1, 4, 4, 4)), "want"),
        (np.zeros((0, 0, 0)), "want"),
        (np.full((4, 4, 4), np.nan), "not finite"),
    ],
)
def test_bad_logits(logits, message):
    with pytest.raises(InputError, match=message):
        surface_from_logits(logits)
