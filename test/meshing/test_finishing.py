"""Watertight option, face budget and carried attributes."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.meshing import finish_mesh, make_watertight, simplify
from gena3d_core.meshing.occupancy_surface import surface_from_logits
from gena3d_core.meshing.surfels import surfels
from gena3d_core.types import Mesh


def from_trimesh(solid: trimesh.Trimesh) -> Mesh:
    height = solid.vertices[:, 2]
    shade = np.clip(255 * (height - height.min()) / max(np.ptp(height), 1e-9), 0, 255).astype(np.uint8)
    return mesh_ops.make_mesh(
        solid.vertices,
        solid.faces,
        vertex_colors=np.repeat(shade[:, None], 3, axis=1),
        vertex_confidence=np.linspace(0, 1, len(height)).astype(np.float32),
        vertex_observed=height > np.median(height),
    )


def sphere_mesh(subdivisions=4) -> Mesh:
    return from_trimesh(trimesh.creation.icosphere(subdivisions, 0.05))


def torus_mesh() -> Mesh:
    return from_trimesh(trimesh.creation.torus(0.05, 0.015, major_sections=96, minor_sections=48))


def lower_part(mesh: Mesh, height: float) -> Mesh:
    return mesh_ops.select_faces(mesh, (mesh.vertices[:, 2] < height)[mesh.faces].all(axis=1))


@pytest.mark.parametrize("make", [sphere_mesh, torus_mesh])
@pytest.mark.parametrize("budget", [2000, 500])
def test_budget_is_kept_and_closed_meshes_stay_closed(make, budget):
    mesh = make()
    small = simplify(mesh, budget)
    assert len(small.faces) <= budget
    assert mesh_ops.is_watertight(small)
    assert mesh_ops.volume(small) == pytest.approx(mesh_ops.volume(mesh), rel=0.04)


def test_attributes_follow_the_vertices():
    mesh = sphere_mesh()
    small = simplify(mesh, 600)
    expected = 255 * (small.vertices[:, 2] + 0.05) / 0.1
    assert np.abs(small.vertex_colors[:, 0] - expected).max() < 12
    assert small.vertex_confidence.shape == small.vertex_observed.shape == (len(small.vertices),)


def test_mesh_within_the_budget_is_untouched():
    mesh = sphere_mesh(2)
    assert simplify(mesh, 10_000) is mesh


def test_impossible_budget_is_an_error():
    with pytest.raises(InputError, match="at least 4"):
        simplify(sphere_mesh(), 3)
    with pytest.raises(InputError, match="no faces left"):
        finish_mesh(mesh_ops.make_mesh(np.zeros((3, 3)), [[0, 1, 2]]), max_faces=100)


def test_open_sphere_is_closed_near_its_true_volume():
    closed = make_watertight(lower_part(sphere_mesh(5), 0.03))
    assert mesh_ops.is_watertight(closed)
    missing = np.pi * 0.02**2 * (3 * 0.05 - 0.02) / 3  # the cap that is cut off
    assert mesh_ops.volume(closed) == pytest.approx(mesh_ops.volume(sphere_mesh(5)) - missing, rel=0.05)
    lid = closed.vertices[:, 2] > 0.03 - 0.002
    away_from_rim = np.hypot(closed.vertices[:, 0], closed.vertices[:, 1]) < 0.03
    assert not closed.vertex_observed[lid & away_from_rim].any()
    assert closed.vertex_confidence[lid & away_from_rim].max() <= 0.1 + 1e-6


def test_surface_that_was_open_does_not_swell():
    closed = make_watertight(lower_part(sphere_mesh(5), 0.03))
    kept = closed.vertices[closed.vertices[:, 2] < 0.02]
    assert abs(np.linalg.norm(kept, axis=1).mean() - 0.05) < 0.0006


def test_closed_mesh_is_returned_as_it_is():
    mesh = torus_mesh()
    assert make_watertight(mesh) is mesh


def test_thin_cup_stays_a_cup():
    outer = trimesh.creation.cylinder(0.04, 0.09, sections=64)
    inner = trimesh.creation.cylinder(0.036, 0.09, sections=64)
    inner.apply_translation([0, 0, 0.004])
    cup = trimesh.boolean.difference([outer, inner], engine="manifold").subdivide_to_size(0.006)
    mesh = from_trimesh(cup)
    open_cup = mesh_ops.select_faces(mesh, ~(mesh.vertices[:, 2] < -0.0449)[mesh.faces].all(axis=1))
    closed = make_watertight(open_cup, resolution=64)
    assert mesh_ops.is_watertight(closed)
    hollow = trimesh.Trimesh(closed.vertices, closed.faces).contains(np.array([[0, 0, 0.02], [0.02, 0, 0.0]]))
    assert not hollow.any()
    assert mesh_ops.volume(closed) == pytest.approx(cup.volume, rel=0.25)


def test_flat_sheet_becomes_a_thin_solid():
    sheet = mesh_ops.make_mesh([[0, 0, 0], [0.1, 0, 0], [0.1, 0.05, 0], [0, 0.05, 0]], [[0, 1, 2], [0, 2, 3]])
    closed = make_watertight(sheet)
    assert mesh_ops.is_watertight(closed)
    assert 0 < mesh_ops.volume(closed) < 0.1 * 0.05 * 0.004


def test_closing_follows_a_rigid_motion_and_scale():
    mesh = lower_part(sphere_mesh(), 0.03)
    S = transforms.rigid(3.0 * np.eye(3), np.array([1.0, 2.0, 3.0]))
    assert mesh_ops.volume(make_watertight(mesh_ops.transformed(mesh, S))) == pytest.approx(
        27.0 * mesh_ops.volume(make_watertight(mesh)), rel=0.01
    )


def test_point_like_mesh_cannot_be_closed():
    with pytest.raises(InputError, match="no extent"):
        make_watertight(mesh_ops.make_mesh(np.ones((3, 3)), [[0, 1, 2]]))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.3, 0.95), budget=st.integers(200, 3000))
def test_any_part_of_a_surface_can_be_finished(seed, share, budget):
    rng = np.random.default_rng(seed)
    mesh = torus_mesh()
    direction = rng.normal(size=3)
    side = mesh.vertices @ (direction / np.linalg.norm(direction))
    part = mesh_ops.select_faces(mesh, (side < np.quantile(side, share))[mesh.faces].all(axis=1))
    finished = finish_mesh(part, max_faces=budget, watertight=True)
    assert mesh_ops.is_watertight(finished)
    assert mesh_ops.volume(finished) > 0
    assert len(finished.faces) <= budget


def test_surfels_face_their_camera(solids):
    observation = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(2))
    few = np.linspace(0, len(observation.points_m) - 1, 7).astype(int)
    mesh = surfels(
        observation.points_m[few], observation.point_colors[few], observation.point_view[few], observation.views
    )
    assert len(mesh.faces) == 14
    np.testing.assert_allclose(mesh.vertices.reshape(7, 4, 3).mean(axis=1), observation.points_m[few], atol=1e-6)
    normals = mesh_ops.face_normals(mesh)[:7]
    eyes = np.stack([view.T_world_camera[:3, 3] for view in observation.views])[observation.point_view[few]]
    assert (np.einsum("ni,ni->n", normals, eyes - observation.points_m[few]) > 0).all()
    assert mesh_ops.area(mesh) == pytest.approx(7 * (0.57 / 300) ** 2, rel=0.3)


@pytest.mark.parametrize("center_m", [(0.0, 0.0, 0.0), (3.0, -2.0, 1.0)])
def test_the_budget_is_kept_far_from_the_origin(center_m):
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=0.05)
    rough = sphere.vertices * (1 + 0.01 * np.random.default_rng(0).standard_normal((len(sphere.vertices), 1)))
    mesh = Mesh((rough + np.array(center_m)).astype(np.float32), sphere.faces.astype(np.int32))
    simplified = simplify(mesh, 300)
    assert 200 < len(simplified.faces) <= 300
    distance_m = np.linalg.norm(simplified.vertices - np.array(center_m), axis=1)
    assert np.abs(distance_m - 0.05).max() < 0.005


def test_crumpled_meshes_are_not_cut_to_nothing():
    """Noise as occupancy touches itself everywhere: the repair of its simplified mesh would leave almost nothing."""
    noise = np.random.default_rng(0).normal(size=(24, 24, 24))
    mesh = surface_from_logits(noise)
    made = simplify(mesh, len(mesh.faces) // 3)
    assert len(made.faces) <= len(mesh.faces) // 3
    assert mesh_ops.area(made) > 0.3 * mesh_ops.area(mesh)
