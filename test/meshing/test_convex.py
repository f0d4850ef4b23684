"""Convex hull and convex parts of solids with known volumes."""

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.meshing.convex import convex_hull, convex_parts
from gena3d_core.types import Mesh


def from_trimesh(solid: trimesh.Trimesh) -> Mesh:
    return mesh_ops.make_mesh(solid.vertices, solid.faces)


def l_bracket() -> Mesh:
    foot, wall = trimesh.creation.box((0.1, 0.06, 0.02)), trimesh.creation.box((0.02, 0.06, 0.1))
    wall.apply_translation([-0.04, 0, 0.04])
    return from_trimesh(trimesh.boolean.union([foot, wall], engine="manifold"))


def is_convex(mesh: Mesh) -> bool:
    return mesh_ops.volume(convex_hull(mesh)) == pytest.approx(mesh_ops.volume(mesh), rel=1e-4)


def test_hull_encloses_the_mesh():
    hull = convex_hull(l_bracket())
    assert mesh_ops.is_watertight(hull)
    assert mesh_ops.volume(hull) > 1.5 * mesh_ops.volume(l_bracket())


def test_convex_mesh_is_one_part():
    (part,) = convex_parts(from_trimesh(trimesh.creation.icosphere(3, 0.05)))
    assert mesh_ops.volume(part) == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.02)


@pytest.mark.parametrize("max_parts", [1, 2, 6])
def test_parts_cover_the_mesh_ever_closer(max_parts, rng):
    mesh = l_bracket()
    parts = convex_parts(mesh, max_parts=max_parts)
    assert 1 <= len(parts) <= max_parts
    assert all(is_convex(part) for part in parts)
    volumes = [mesh_ops.volume(part) for part in parts]
    assert volumes == sorted(volumes, reverse=True)
    assert sum(volumes) > 0.999 * mesh_ops.volume(mesh)
    assert sum(volumes) < {1: 2.5, 2: 1.5, 6: 1.06}[max_parts] * mesh_ops.volume(mesh)
    points, _ = mesh_ops.sample_surface(mesh, 500, rng)
    inside = np.zeros(len(points), bool)
    for part in parts:
        offset = np.einsum("fi,fi->f", mesh_ops.face_normals(part), part.vertices[part.faces[:, 0]])
        inside |= (points @ mesh_ops.face_normals(part).T <= offset + 1e-5).all(axis=1)
    assert inside.all()


def test_separate_pieces_are_separate_parts():
    far = trimesh.creation.box((0.1, 0.1, 0.1))
    far.apply_translation([1, 0, 0])
    both = mesh_ops.concatenate([from_trimesh(trimesh.creation.box((0.2, 0.2, 0.2))), from_trimesh(far)])
    assert [mesh_ops.volume(p) for p in convex_parts(both)] == pytest.approx([0.008, 0.001], rel=1e-4)


def test_open_or_flat_meshes_are_errors():
    sheet = mesh_ops.make_mesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    with pytest.raises(InputError, match="closed mesh"):
        convex_parts(sheet)
    with pytest.raises(InputError, match="no convex hull"):
        convex_hull(sheet)
    with pytest.raises(InputError, match="at least 1"):
        convex_parts(l_bracket(), max_parts=0)
