"""3D-consistent patches of a surface."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import area, face_areas, face_components, is_watertight, make_mesh, select_faces, volume
from gena3d_core.simulation.surface_masks import box_mask, grow_patch, patchable, subdivided
from gena3d_core.types import Mesh


def solid(kind: str) -> Mesh:
    shape = {
        "box": lambda: trimesh.creation.box((1.0, 0.5, 0.2)),
        "ball": lambda: trimesh.creation.icosphere(subdivisions=2, radius=0.5),
        "ring": lambda: trimesh.creation.torus(0.4, 0.1),
        "needle": lambda: trimesh.creation.cylinder(radius=0.02, height=1.0, sections=8),
    }[kind]()
    return make_mesh(shape.vertices, shape.faces)


def two_balls() -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.2)
    aside = np.array([0.3, 0.0, 0.0])
    vertices = np.concatenate([ball.vertices - aside, ball.vertices + aside])
    return make_mesh(vertices, np.concatenate([ball.faces, ball.faces + len(ball.vertices)]))


@pytest.mark.parametrize("kind", ["box", "ball", "ring", "needle"])
@pytest.mark.parametrize("max_edge", [0.31, 0.07])
def test_subdivision_keeps_surface_volume_and_closure(kind, max_edge):
    mesh = solid(kind)
    fine = subdivided(mesh, max_edge)
    edges = fine.vertices[fine.faces] - fine.vertices[np.roll(fine.faces, 1, axis=1)]
    assert np.linalg.norm(edges, axis=2).max() <= max_edge + 1e-6
    assert is_watertight(fine)
    np.testing.assert_allclose([area(fine), volume(fine)], [area(mesh), volume(mesh)], rtol=1e-4)


def test_subdivision_leaves_short_edges_and_mixes_colours():
    mesh = Mesh(
        np.array([[0, 0, 0], [1, 0, 0], [0, 0.1, 0]], np.float32),
        np.array([[0, 1, 2]], np.int32),
        vertex_colors=np.array([[0, 0, 0], [200, 100, 0], [0, 0, 0]], np.uint8),
    )
    fine = subdivided(mesh, 0.6)
    assert len(fine.faces) == 3
    assert [100, 50, 0] in fine.vertex_colors.tolist()


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["box", "ball", "ring", "needle"]), coverage=st.floats(0.0, 1.0), seed=st.integers(0, 1 << 16)
)
def test_coverage_is_met_to_within_a_face(kind, coverage, seed):
    mesh = patchable(solid(kind))
    covered = grow_patch(mesh, coverage, np.random.default_rng(seed))
    areas = face_areas(mesh)
    assert abs(areas[covered].sum() / areas.sum() - coverage) <= areas.max() / areas.sum()
    assert areas.max() / areas.sum() < 0.01
    if covered.any():
        assert face_components(select_faces(mesh, covered))[0] == 1


def test_the_same_seed_covers_the_same_faces_and_another_does_not():
    mesh = patchable(solid("ball"))
    one, same, other = (grow_patch(mesh, 0.4, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_pieces_apart_are_reached_one_after_the_other():
    mesh = patchable(two_balls())
    left = mesh.vertices[mesh.faces].mean(axis=1)[:, 0] < 0
    areas = face_areas(mesh)
    for seed in range(4):
        covered = grow_patch(mesh, 0.7, np.random.default_rng(seed))
        shares = [areas[covered & side].sum() / areas[side].sum() for side in (left, ~left)]
        assert max(shares) == pytest.approx(1.0)
        assert min(shares) == pytest.approx(0.4, abs=0.02)


def test_box_mask_is_the_eroded_box_without_visible_pixels():
    covered, visible = np.zeros((512, 512), bool), np.zeros((512, 512), bool)
    covered[100:200, 150:350] = True
    visible[150:160, 150:350] = True
    mask = box_mask(covered, visible, 2)
    assert not (mask & visible).any()
    rows, cols = np.nonzero(mask)
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (112, 187, 162, 337)


def test_box_mask_of_a_sliver_or_of_nothing():
    covered = np.zeros((60, 80), bool)
    assert not box_mask(covered, covered, 3).any()
    covered[10, 20:40] = True
    np.testing.assert_array_equal(box_mask(covered, np.zeros_like(covered), 3), covered)


def test_what_has_no_area_cannot_be_covered():
    flat = make_mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(InputError, match="without area"):
        patchable(flat)
    with pytest.raises(InputError, match="without area"):
        grow_patch(flat, 0.3, np.random.default_rng(0))
    with pytest.raises(InputError, match="coverage"):
        grow_patch(solid("box"), 1.2, np.random.default_rng(0))
