"""Similarity registration against known transforms, from whole and partial clouds."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.geometry.similarity import fit_similarity
from gena3d_core.layout.registration import register_similarity
from gena3d_core.types import Mesh


def from_trimesh(solid: trimesh.Trimesh) -> Mesh:
    return mesh_ops.make_mesh(solid.vertices, solid.faces)


def watering_can() -> Mesh:
    """No symmetry: a body, a spout to one side, a knob on another."""
    body = trimesh.creation.cylinder(0.25, 0.6, sections=48)
    spout = trimesh.creation.box((0.5, 0.08, 0.08))
    spout.apply_translation([0.4, 0.0, 0.2])
    knob = trimesh.creation.icosphere(3, 0.12)
    knob.apply_translation([0.05, 0.28, -0.1])
    return from_trimesh(trimesh.boolean.union([body, spout, knob], engine="manifold"))


def seen_from(mesh: Mesh, S: np.ndarray, azimuth: float, noise: float, rng: np.random.Generator) -> np.ndarray:
    """World points of the mesh that a camera at 35 degrees of elevation sees, with noise in mesh units."""
    points, _ = mesh_ops.sample_surface(mesh, 5000, rng)
    eye = 3.0 * np.array([np.cos(azimuth) * 0.82, np.sin(azimuth) * 0.82, 0.57])
    rays = (eye - points) / np.linalg.norm(eye - points, axis=1, keepdims=True)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    visible = ~solid.ray.intersects_any(points + 1e-3 * rays, rays)
    return transforms.apply(S, points[visible] + rng.normal(size=(visible.sum(), 3)) * noise)


def similarity(scale: float, yaw: float, t=(0.0, 0.0, 0.0), tilt=(0.0, 0.0)) -> np.ndarray:
    R = Rotation.from_euler("zxy", [yaw, *tilt]).as_matrix()
    return transforms.rigid(scale * R, np.asarray(t, dtype=np.float64))


def mesh_error(mesh: Mesh, S_found: np.ndarray, S_true: np.ndarray) -> float:
    """Mean distance of the mesh's vertices between both placings, relative to its longest side."""
    low, high = mesh_ops.bounds(mesh)
    scale = np.cbrt(np.linalg.det(S_true[:3, :3])) * (high - low).max()
    vertices = mesh.vertices.astype(np.float64)
    moved = transforms.apply(S_found, vertices) - transforms.apply(S_true, vertices)
    return float(np.linalg.norm(moved, axis=1).mean() / scale)


@pytest.mark.parametrize("yaw", [0.3, 2.0, 4.4])
def test_whole_cloud(rng, yaw):
    mesh = watering_can()
    S = similarity(0.13, yaw, (1.0, -2.0, 0.4))
    points = transforms.apply(S, mesh_ops.sample_surface(mesh, 3000, rng)[0].astype(np.float64))
    fit = register_similarity(mesh, points)
    assert mesh_error(mesh, fit.S_world_mesh, S) < 0.01
    assert fit.scale == pytest.approx(0.13, rel=0.02)
    assert fit.rmse_m < 0.13 * 0.03
    assert fit.inlier_share > 0.99


@pytest.mark.parametrize("azimuth", [0.5, 2.6, 4.7])
def test_cloud_from_one_side(rng, azimuth):
    mesh = watering_can()
    S = similarity(0.2, 1.1, (0.3, 0.2, 0.1))
    fit = register_similarity(mesh, seen_from(mesh, S, azimuth, 0.005, rng))
    assert mesh_error(mesh, fit.S_world_mesh, S) < 0.05
    assert fit.scale == pytest.approx(0.2, rel=0.06)


def test_outliers_do_not_pull(rng):
    mesh = watering_can()
    S = similarity(0.2, 5.1)
    points = seen_from(mesh, S, 1.0, 0.005, rng)
    stray = rng.uniform(-0.15, 0.15, (len(points) // 12, 3))
    fit = register_similarity(mesh, np.concatenate([points, stray]))
    assert mesh_error(mesh, fit.S_world_mesh, S) < 0.06


def test_tilted_object_needs_a_free_fit(rng):
    mesh = watering_can()
    S = similarity(0.2, 0.7, tilt=(0.12, -0.1))
    points = transforms.apply(S, mesh_ops.sample_surface(mesh, 3000, rng)[0].astype(np.float64))
    upright = register_similarity(mesh, points)
    free = register_similarity(mesh, points, upright=False)
    assert mesh_error(mesh, free.S_world_mesh, S) < 0.012
    assert free.rmse_m < 0.7 * upright.rmse_m
    np.testing.assert_allclose(upright.S_world_mesh[:3, 2] / upright.scale, [0, 0, 1], atol=1e-9)


def test_up_of_the_world_may_point_anywhere(rng):
    mesh = watering_can()
    up = np.array([0.6, 0.0, 0.8])
    turn = similarity(1.0, 0.0)
    turn[:3, :3] = Rotation.align_vectors([up], [[0, 0, 1.0]])[0].as_matrix()
    S = turn @ similarity(0.2, 2.2)
    points = transforms.apply(S, mesh_ops.sample_surface(mesh, 3000, rng)[0].astype(np.float64))
    assert mesh_error(mesh, register_similarity(mesh, points, up=up).S_world_mesh, S) < 0.01


def test_symmetric_object_fits_by_shape(rng):
    mesh = from_trimesh(trimesh.creation.cylinder(0.2, 0.5, sections=64))
    S = similarity(0.2, 0.4, (0.0, 0.0, 1.0))
    fit = register_similarity(mesh, seen_from(mesh, S, 0.0, 0.003, rng))
    points = mesh_ops.sample_surface(mesh, 3000, rng)[0].astype(np.float64)
    gap = cKDTree(transforms.apply(S, points)).query(transforms.apply(fit.S_world_mesh, points))[0]
    assert gap.mean() < 0.2 * 0.025


def test_result_is_reproducible(rng):
    mesh = watering_can()
    points = seen_from(mesh, similarity(0.2, 1.0), 0.3, 0.005, rng)
    fits = [register_similarity(mesh, points, seed=3).S_world_mesh for _ in range(2)]
    np.testing.assert_array_equal(*fits)


def test_too_little_to_register():
    mesh = watering_can()
    with pytest.raises(InputError, match="at least 10"):
        register_similarity(mesh, np.zeros((9, 3)))
    with pytest.raises(InputError, match="not all the same"):
        register_similarity(mesh, np.ones((20, 3)))
    with pytest.raises(InputError, match="without area"):
        register_similarity(mesh_ops.make_mesh(np.zeros((3, 3)), [[0, 1, 2]]), np.random.default_rng(0).random((20, 3)))


@settings(max_examples=40, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    scale=st.floats(0.05, 20.0),
    shift=st.tuples(*[st.floats(-5.0, 5.0)] * 3),
    upright=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_closed_form_fit_recovers_exact_similarities(angles, scale, shift, upright, seed):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(2, 30, 3))
    R = Rotation.from_euler("z", angles[0]) if upright else Rotation.from_euler("xyz", angles)
    S = transforms.rigid(scale * R.as_matrix(), np.array(shift))
    weight = rng.uniform(0.1, 1.0, (2, 30))
    weight[:, :3] = 0.0
    target = transforms.apply(S, source)
    target[:, :3] += 100.0  # weightless points must not matter
    found = fit_similarity(source, target, weight, upright)
    np.testing.assert_allclose(found, np.stack([S, S]), atol=1e-7 * max(scale, 1.0))
