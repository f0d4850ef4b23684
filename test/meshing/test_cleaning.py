"""Each repair on a mesh with that one fault, and on meshes without any."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.meshing import cleaning
from gena3d_core.types import Mesh


def sphere_mesh(radius=1.0, subdivisions=3) -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions, radius)
    count = len(sphere.vertices)
    return mesh_ops.make_mesh(
        sphere.vertices,
        sphere.faces,
        vertex_colors=np.full((count, 3), 100, np.uint8),
        vertex_confidence=np.full(count, 0.8, np.float32),
        vertex_observed=np.ones(count, bool),
    )


def with_faces(mesh: Mesh, faces: np.ndarray) -> Mesh:
    return mesh_ops.make_mesh(
        mesh.vertices,
        faces,
        vertex_colors=mesh.vertex_colors,
        vertex_confidence=mesh.vertex_confidence,
        vertex_observed=mesh.vertex_observed,
    )


def test_bad_faces_go():
    mesh = sphere_mesh()
    bad = np.array([[0, 0, 1], [*mesh.faces[3]], [*mesh.faces[4, ::-1]]])
    cleaned = cleaning.drop_bad_faces(with_faces(mesh, np.concatenate([mesh.faces, bad])))
    assert len(cleaned.faces) == len(mesh.faces)
    assert mesh_ops.is_watertight(cleaned)


def test_face_soup_is_joined():
    mesh = sphere_mesh()
    soup = mesh_ops.make_mesh(mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3))
    assert not mesh_ops.is_watertight(soup)
    joined = cleaning.merge_vertices(soup)
    assert mesh_ops.is_watertight(joined)
    assert len(joined.vertices) == len(mesh.vertices)


def test_vertices_within_the_tolerance_are_joined():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.0004, 0, 0], [1, 1, 0], [1.0004, 0, 0]], float)
    joined = cleaning.merge_vertices(mesh_ops.make_mesh(vertices, [[0, 1, 2], [3, 5, 4]]), tolerance=0.01)
    assert len(joined.vertices) == 4
    assert len(joined.faces) == 2


def test_small_components_go_and_the_largest_stays():
    speck = mesh_ops.transformed(sphere_mesh(0.05), transforms.rigid(t=np.array([3.0, 0, 0])))
    both = mesh_ops.concatenate([sphere_mesh(), speck])
    cleaned = cleaning.drop_small_components(both, min_share=0.02)
    assert len(cleaned.faces) == len(sphere_mesh().faces)
    assert len(cleaning.drop_small_components(both, min_share=0.0).faces) == len(both.faces)
    assert len(cleaning.drop_small_components(speck, min_share=0.0, min_area=1e9).faces) == len(speck.faces)


def test_pin_holes_close_and_large_openings_stay():
    mesh = sphere_mesh()
    corner = int(mesh.faces[0, 0])
    pin_hole = ~(mesh.faces == corner).any(axis=1)
    above = (mesh.vertices[:, 2] < 0.5)[mesh.faces].all(axis=1)
    opened = mesh_ops.select_faces(mesh, pin_hole & above)
    closed = cleaning.fill_holes(opened, max_perimeter=2.0)
    edges, _, simple = cleaning.boundary_loops(closed)
    assert simple.tolist() == [True]
    assert closed.vertices[edges].reshape(-1, 3)[:, 2].min() > 0.3
    assert len(closed.vertices) == len(opened.vertices) + 1
    assert not closed.vertex_observed[-1]
    assert closed.vertex_confidence[-1] == pytest.approx(0.8)
    everything = cleaning.fill_holes(opened, max_perimeter=np.inf)
    assert mesh_ops.is_watertight(everything)
    assert mesh_ops.volume(everything) > 0


def test_winding_is_repaired(rng):
    mesh = sphere_mesh()
    flip = rng.random(len(mesh.faces)) < 0.4
    mixed = with_faces(mesh, np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces))
    assert not mesh_ops.is_watertight(mixed)
    fixed = cleaning.orient_faces(mixed)
    assert mesh_ops.is_watertight(fixed)
    assert mesh_ops.volume(fixed) == pytest.approx(mesh_ops.volume(mesh), rel=1e-5)


def test_each_closed_component_is_turned_outwards():
    far = mesh_ops.transformed(sphere_mesh(), transforms.rigid(t=np.array([5.0, 0, 0])))
    both = mesh_ops.concatenate([sphere_mesh(), with_faces(far, far.faces[:, ::-1])])
    fixed = cleaning.orient_faces(both)
    assert mesh_ops.volume(fixed) == pytest.approx(2 * mesh_ops.volume(sphere_mesh()), rel=1e-5)


def test_open_surface_keeps_the_winding_of_most_faces():
    mesh = sphere_mesh()
    half = mesh_ops.select_faces(mesh, (mesh.vertices[:, 2] < 0.1)[mesh.faces].all(axis=1))
    faces = half.faces.copy()
    faces[:20] = faces[:20, ::-1]
    np.testing.assert_array_equal(np.sort(cleaning.orient_faces(with_faces(half, faces)).faces), np.sort(half.faces))
    fixed = cleaning.orient_faces(with_faces(half, faces))
    assert (np.einsum("fi,fi->f", mesh_ops.face_normals(fixed), half.vertices[fixed.faces].mean(axis=1)) > 0).all()


def test_taubin_removes_noise_and_keeps_the_size(rng):
    mesh = sphere_mesh(subdivisions=4)
    noisy = mesh_ops.make_mesh(mesh.vertices * (1 + 0.01 * rng.normal(size=(len(mesh.vertices), 1))), mesh.faces)
    smooth = cleaning.taubin_smooth(noisy, iterations=10)
    spread = [np.linalg.norm(m.vertices, axis=1).std() for m in (noisy, smooth)]
    assert spread[1] < 0.6 * spread[0]
    assert mesh_ops.volume(smooth) == pytest.approx(mesh_ops.volume(mesh), rel=0.01)


def test_taubin_leaves_the_boundary():
    mesh = sphere_mesh()
    half = mesh_ops.select_faces(mesh, (mesh.vertices[:, 2] < 0.1)[mesh.faces].all(axis=1))
    rim = np.unique(mesh_ops.boundary_edges(half))
    np.testing.assert_array_equal(cleaning.taubin_smooth(half).vertices[rim], half.vertices[rim])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), removed=st.floats(0.0, 0.4))
def test_repairs_keep_meshes_valid(seed, removed):
    rng = np.random.default_rng(seed)
    mesh = sphere_mesh(subdivisions=2)
    mesh = mesh_ops.select_faces(mesh, rng.random(len(mesh.faces)) >= removed)
    for repair in (
        cleaning.drop_bad_faces,
        cleaning.merge_vertices,
        cleaning.drop_small_components,
        lambda m: cleaning.fill_holes(m, 1.5),
        cleaning.orient_faces,
        cleaning.taubin_smooth,
    ):
        result = repair(mesh)
        assert np.isfinite(result.vertices).all()
        assert len(result.faces) == 0 or result.faces.max() < len(result.vertices)
        assert result.vertex_colors.shape == (len(result.vertices), 3)
        assert result.vertex_observed.shape == (len(result.vertices),)
        assert (mesh_ops.face_areas(cleaning.drop_bad_faces(result)) > 0).all()
        if mesh_ops.is_watertight(mesh):
            assert mesh_ops.is_watertight(result)
