"""Mesh measures against closed formulas, edits that keep meshes valid."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.types import Mesh


def box_mesh(size=(2.0, 3.0, 4.0)) -> Mesh:
    box = trimesh.creation.box(size)
    return mesh_ops.make_mesh(box.vertices, box.faces)


def sphere_mesh(radius=1.0, subdivisions=4) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions, radius)
    return mesh_ops.make_mesh(sphere.vertices, sphere.faces)


def test_box_measures():
    mesh = box_mesh()
    assert mesh_ops.area(mesh) == pytest.approx(2 * (2 * 3 + 3 * 4 + 2 * 4))
    assert mesh_ops.volume(mesh) == pytest.approx(24.0)
    assert mesh_ops.is_watertight(mesh)
    assert len(mesh_ops.boundary_edges(mesh)) == 0
    low, high = mesh_ops.bounds(mesh)
    np.testing.assert_allclose([low, high], [[-1, -1.5, -2], [1, 1.5, 2]])


def test_flipped_mesh_has_negative_volume():
    mesh = box_mesh()
    flipped = mesh_ops.make_mesh(mesh.vertices, mesh.faces[:, ::-1])
    assert mesh_ops.volume(flipped) == pytest.approx(-24.0)


def test_sphere_normals_point_outwards():
    mesh = sphere_mesh()
    np.testing.assert_allclose(mesh_ops.vertex_normals(mesh), mesh.vertices, atol=0.01)
    centers = mesh.vertices[mesh.faces].mean(axis=1)
    assert (np.einsum("fi,fi->f", mesh_ops.face_normals(mesh), centers) > 0.99).all()


def test_removing_a_face_opens_the_mesh():
    mesh = box_mesh()
    open_mesh = mesh_ops.select_faces(mesh, np.arange(len(mesh.faces)) > 0)
    assert not mesh_ops.is_watertight(open_mesh)
    edges = mesh_ops.boundary_edges(open_mesh)
    assert len(edges) == 3
    # The hole's edges wind the other way round than the face that closed it.
    removed = {tuple(e) for e in mesh_ops.directed_edges(mesh.faces[:1])}
    assert {tuple(e[::-1]) for e in edges} == removed


def test_doubled_face_is_not_watertight():
    mesh = box_mesh()
    doubled = mesh_ops.make_mesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[:1], mesh.faces[:1, ::-1]]))
    assert not mesh_ops.is_watertight(doubled)


def test_components_and_concatenation():
    parts = [box_mesh(), mesh_ops.transformed(sphere_mesh(), transforms.rigid(t=np.array([9.0, 0, 0])))]
    mesh = mesh_ops.concatenate(parts)
    count, component = mesh_ops.face_components(mesh)
    assert count == 2
    assert [np.sum(component == k) for k in (0, 1)] == [len(p.faces) for p in parts]
    assert mesh_ops.volume(mesh) == pytest.approx(sum(mesh_ops.volume(p) for p in parts), rel=1e-4)


def test_concatenation_keeps_attributes_only_if_all_have_them():
    colored = mesh_ops.make_mesh(np.eye(3), [[0, 1, 2]], vertex_colors=np.full((3, 3), 7, np.uint8))
    assert mesh_ops.concatenate([colored, colored]).vertex_colors.shape == (6, 3)
    assert mesh_ops.concatenate([colored, mesh_ops.make_mesh(np.eye(3), [[0, 1, 2]])]).vertex_colors is None
    assert len(mesh_ops.concatenate([]).faces) == 0


def test_samples_lie_on_the_surface_uniformly(rng):
    mesh = box_mesh((1.0, 1.0, 4.0))
    points, faces = mesh_ops.sample_surface(mesh, 20_000, rng)
    distance_to_side = np.abs(np.abs(points) - [0.5, 0.5, 2.0]).min(axis=1)
    assert distance_to_side.max() < 1e-6
    on_ends = np.isclose(np.abs(points[:, 2]), 2.0, atol=1e-6).mean()
    assert on_ends == pytest.approx(2 / 18, abs=0.01)
    normals = mesh_ops.face_normals(mesh)[faces]
    np.testing.assert_allclose(np.einsum("ni,ni->n", normals, points), np.abs(normals) @ [0.5, 0.5, 2.0], atol=1e-5)


def test_sampling_an_empty_mesh_is_an_error(rng):
    with pytest.raises(InputError, match="without area"):
        mesh_ops.sample_surface(mesh_ops.make_mesh(np.zeros((0, 3)), np.zeros((0, 3))), 10, rng)
    with pytest.raises(InputError, match="no bounding box"):
        mesh_ops.bounds(mesh_ops.make_mesh(np.zeros((0, 3)), np.zeros((0, 3))))


def test_observed_fraction_is_weighted_by_area():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [5, 2, 0]], float)
    observed = np.array([True] * 3 + [False] * 3)
    mesh = mesh_ops.make_mesh(vertices, [[0, 1, 2], [3, 4, 5]], vertex_observed=observed)
    assert mesh_ops.observed_fraction(mesh) == pytest.approx(0.5 / 3.5)
    assert mesh_ops.observed_fraction(box_mesh()) == 1.0
    assert mesh_ops.vertex_mask_faces(mesh, observed).tolist() == [True, False]


def test_directions_cover_the_sphere():
    directions = mesh_ops.sphere_directions(128)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0)
    np.testing.assert_allclose(directions[:128].mean(axis=0), 0.0, atol=0.01)


@settings(max_examples=30, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    shift=st.tuples(*[st.floats(-2.0, 2.0)] * 3),
    scale=st.floats(0.1, 5.0),
)
def test_similarities_scale_area_and_volume(angles, shift, scale):
    S = transforms.rigid(scale * Rotation.from_euler("xyz", angles).as_matrix(), np.array(shift))
    mesh = box_mesh()
    moved = mesh_ops.transformed(mesh, S)
    assert mesh_ops.area(moved) == pytest.approx(mesh_ops.area(mesh) * scale**2, rel=1e-4)
    assert mesh_ops.volume(moved) == pytest.approx(mesh_ops.volume(mesh) * scale**3, rel=1e-3)
    assert mesh_ops.is_watertight(moved)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 1.0))
def test_selecting_faces_keeps_geometry_and_attributes(seed, share):
    rng = np.random.default_rng(seed)
    mesh = sphere_mesh(subdivisions=2)
    colors = rng.integers(0, 255, (len(mesh.vertices), 3)).astype(np.uint8)
    mesh = mesh_ops.make_mesh(mesh.vertices, mesh.faces, vertex_colors=colors)
    keep = rng.random(len(mesh.faces)) < share
    part = mesh_ops.select_faces(mesh, keep)
    np.testing.assert_array_equal(part.vertices[part.faces], mesh.vertices[mesh.faces[keep]])
    np.testing.assert_array_equal(part.vertex_colors[part.faces], colors[mesh.faces[keep]])
    assert len(np.unique(part.faces)) == len(part.vertices)
