"""Closed solids from meshes with doubled vertices, holes, sheets, overlapping and turned parts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import bounds, concatenate, face_components, make_mesh, select_faces, transformed, volume
from gena3d_core.geometry.solid_voxelization import is_solid, solid_occupancy
from gena3d_core.geometry.triangles import distance_to_triangles
from gena3d_core.meshing.solid_closing import close_mesh, normalise, refined, wrap
from gena3d_core.simulation.primitives import make_primitive
from gena3d_core.types import Mesh

SEEDS = st.integers(0, 2**32 - 1)


def shape(kind: str, scale: float = 8.0, **params: object) -> Mesh:
    mesh = transformed(make_primitive(kind, params), np.diag([scale, scale, scale, 1.0]))
    return replace(mesh, vertex_colors=np.full((len(mesh.vertices), 3), (10, 20, 30), np.uint8))


def soup(mesh: Mesh) -> Mesh:
    """Every face with corners of its own."""
    corners = mesh.faces.reshape(-1)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors[corners]
    return make_mesh(mesh.vertices[corners], np.arange(len(corners)).reshape(-1, 3), vertex_colors=colors)


def moved(mesh: Mesh, x: float) -> Mesh:
    return replace(mesh, vertices=mesh.vertices + np.array([x, 0, 0], np.float32))


def test_a_closed_mesh_stays_as_it_is() -> None:
    mesh = shape("l_bracket")
    closed = close_mesh(mesh)
    assert len(closed.faces) == len(mesh.faces)
    assert volume(closed) == pytest.approx(volume(mesh), rel=1e-5)
    np.testing.assert_array_equal(np.unique(closed.vertex_colors, axis=0), [[10, 20, 30]])


@settings(max_examples=8, deadline=None)
@given(seed=SEEDS)
def test_faces_apart_and_turned_at_random_are_joined_without_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = shape("l_bracket")
    torn = soup(mesh)
    torn = replace(torn, vertices=(torn.vertices + rng.uniform(-1, 1, torn.vertices.shape) * 1e-7).astype(np.float32))
    turned = np.where(rng.random(len(torn.faces))[:, None] < 0.5, torn.faces[:, ::-1], torn.faces)
    closed = close_mesh(replace(torn, faces=np.ascontiguousarray(turned)))
    assert is_solid(closed)
    assert volume(closed) == pytest.approx(volume(mesh), rel=1e-3)


def test_a_mesh_turned_inside_out_faces_outwards_and_a_cavity_stays_one() -> None:
    ball = shape("ellipsoid", radii_m=(0.05, 0.05, 0.05))
    inner = transformed(ball, np.diag([0.5, 0.5, 0.5, 1.0]))
    inner = replace(inner, faces=np.ascontiguousarray(inner.faces[:, ::-1]))
    hollow = concatenate([ball, inner])
    inside_out = replace(hollow, faces=np.ascontiguousarray(hollow.faces[:, ::-1]))
    for mesh in (hollow, inside_out):
        assert volume(close_mesh(mesh)) == pytest.approx(volume(ball) * (1 - 0.125), rel=0.01)


def test_overlapping_parts_lose_what_lies_inside() -> None:
    one = shape("cylinder")
    other = moved(one, 0.2)
    closed = close_mesh(concatenate([one, other]))
    assert is_solid(closed)
    assert face_components(closed)[0] == 1
    assert volume(one) * 1.2 < volume(closed) < volume(one) * 1.9


def test_an_open_mesh_is_wrapped_closely_and_its_hollow_stays_open() -> None:
    bowl = shape("bowl")
    normals_up = select_faces(bowl, bowl.vertices[bowl.faces][:, :, 2].mean(axis=1) > bowl.vertices[:, 2].min() + 0.05)
    assert not is_solid(normals_up)
    closed = close_mesh(normals_up)
    assert is_solid(closed)
    assert len(closed.faces) <= 10_000
    extent = np.subtract(*bounds(closed)[::-1])
    np.testing.assert_allclose(extent, np.subtract(*bounds(normals_up)[::-1]), atol=0.02 * extent.max())
    occupancy = solid_occupancy(normalise(closed), np.eye(4), 32)
    assert occupancy[16, 16].max() > 0.2
    assert occupancy[16, 16, 18:].max() == 0.0
    np.testing.assert_array_equal(np.unique(closed.vertex_colors, axis=0), [[10, 20, 30]])


def test_a_solid_without_its_base_is_filled_and_keeps_its_surface() -> None:
    apple = shape("apple")
    low = apple.vertices[:, 2].min()
    cut = select_faces(apple, apple.vertices[apple.faces][:, :, 2].max(axis=1) > low + 0.01)
    distance = np.linalg.norm(apple.vertices[apple.faces[:, 0]] - apple.vertices[len(apple.vertices) // 2], axis=1)
    pierced = select_faces(apple, distance > 0.03)
    for mesh in (cut, pierced):
        assert not is_solid(mesh)
        closed = close_mesh(mesh)
        assert is_solid(closed)
        assert volume(closed) == pytest.approx(volume(apple), rel=0.02)
        assert len(closed.faces) < len(apple.faces) * 1.1


def test_a_sheet_becomes_a_thin_plate() -> None:
    sheet = make_mesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    both = concatenate([sheet, replace(sheet, faces=np.ascontiguousarray(sheet.faces[:, ::-1]))])
    for mesh in (sheet, both):
        closed = close_mesh(mesh)
        assert is_solid(closed)
        assert volume(closed) == pytest.approx(1.2 / 128, rel=0.15)


def test_the_wrap_follows_the_surface_at_its_distance() -> None:
    ball = shape("ellipsoid", radii_m=(0.05, 0.05, 0.05))
    wrapped = wrap(select_faces(ball, np.arange(len(ball.faces)) != 7), 64)
    radius = np.linalg.norm(wrapped.vertices, axis=1)
    voxel = 0.8 / 64
    assert radius.min() > 0.4
    assert radius.max() < 0.4 + 0.65 * voxel
    assert radius.std() < 0.1 * voxel


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_distance_to_a_triangle_is_that_to_its_nearest_sampled_point(seed: int) -> None:
    rng = np.random.default_rng(seed)
    triangle, points = rng.normal(size=(3, 3)), rng.normal(size=(20, 3))
    share = np.stack(np.meshgrid(np.linspace(0, 1, 81), np.linspace(0, 1, 81)), -1).reshape(-1, 2)
    share = share[share.sum(axis=1) <= 1]
    sampled = triangle[0] + share @ (triangle[1:] - triangle[0])
    nearest = np.linalg.norm(points[:, None] - sampled, axis=2).min(axis=1)
    found = distance_to_triangles(points, np.broadcast_to(triangle, (20, 3, 3)))
    assert (found <= nearest + 1e-9).all()
    step = np.linalg.norm(triangle[1:] - triangle[0], axis=1).max() / 80
    assert (found >= nearest - 1.5 * step).all()


def test_normalising_and_refining() -> None:
    mesh = normalise(moved(shape("mug", 3.0), 5.0))
    low, high = bounds(mesh)
    np.testing.assert_allclose((low + high) / 2, 0, atol=1e-6)
    assert (high - low).max() == pytest.approx(0.98, abs=1e-5)
    box = normalise(shape("box", bevel_m=0.0))
    fine = refined(box, 0.05)
    corners = fine.vertices[fine.faces]
    assert np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max() <= 0.056
    assert is_solid(fine)
    assert volume(fine) == pytest.approx(volume(box), rel=1e-4)


def test_meshes_without_anything_to_close_are_refused() -> None:
    for vertices, faces in ((np.zeros((0, 3)), np.zeros((0, 3))), (np.zeros((3, 3)), [[0, 1, 2]])):
        with pytest.raises(InputError):
            close_mesh(make_mesh(vertices, faces))
    with pytest.raises(InputError):
        close_mesh(make_mesh(np.full((3, 3), np.inf), [[0, 1, 2]]))
