"""Procedural shapes: every family closed, small enough and in one piece; drawn by seed and index alone."""

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import bounds, is_watertight, volume
from gena3d_core.geometry.solid_voxelization import solid_occupancy
from training.meshes import open_source
from training.shapes.looks import MAX_FACES, painted, triangulated
from training.shapes.source import FAMILIES, MIN_FILL, deformed, make_shape, one_piece, posed


@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_makes_closed_shapes(name: str) -> None:
    family = FAMILIES[name]
    made = 0
    for seed in range(5):
        rng = np.random.default_rng((seed, 17))
        piece = one_piece(family.make(rng))
        if piece is None:
            continue
        solid = posed(piece, rng, family.tumbles)
        if solid.volume() <= MIN_FILL:
            continue
        mesh = painted(triangulated(solid), rng)
        assert is_watertight(mesh)
        assert len(mesh.faces) <= MAX_FACES
        assert volume(mesh) == pytest.approx(solid.volume(), rel=0.1)
        assert mesh.vertex_colors is not None
        made += 1
        if made == 2:
            return
    raise AssertionError(f"family {name} made {made} shapes in 5 draws")


def test_shapes_are_normalised_and_follow_from_seed_and_index() -> None:
    first, again, other = make_shape(5, 3), make_shape(5, 3), make_shape(6, 3)
    np.testing.assert_array_equal(first.mesh.vertices, again.mesh.vertices)
    np.testing.assert_array_equal(first.mesh.faces, again.mesh.faces)
    np.testing.assert_array_equal(first.mesh.vertex_colors, again.mesh.vertex_colors)
    assert first.scale_m == again.scale_m
    assert first.mesh.vertices.shape != other.mesh.vertices.shape or not np.allclose(
        first.mesh.vertices, other.mesh.vertices
    )
    for index in range(12):
        shape = make_shape(7, index)
        low, high = bounds(shape.mesh)
        assert (high - low).max() == pytest.approx(0.98, abs=1e-4)
        np.testing.assert_allclose(low + high, 0, atol=1e-5)
        smallest, largest = FAMILIES[shape.category].size_m
        assert smallest <= shape.scale_m * 0.98 <= largest
        filled = solid_occupancy(shape.mesh, np.eye(4), 48).mean(dtype=float)
        assert filled == pytest.approx(volume(shape.mesh), rel=0.02, abs=1e-4)


def test_a_long_list_holds_many_kinds() -> None:
    categories = {make_shape(1, index).category for index in range(40)}
    assert len(categories) >= 18


def test_the_source_lists_and_loads_its_shapes() -> None:
    source = open_source("procedural:30:4")
    assert list(source.ids())[:2] == ["procedural_4_000000", "procedural_4_000001"]
    assert len(source.ids()) == 30
    np.testing.assert_array_equal(source.load("procedural_4_000002").mesh.vertices, make_shape(4, 2).mesh.vertices)
    for wrong in ("procedural_4_000030", "procedural_5_000000", "mug"):
        with pytest.raises(InputError, match="has no shape"):
            source.load(wrong)


@pytest.mark.parametrize("text", ["procedural:", "procedural:0", "procedural:5:x", "procedural:5:1:2", "procedural:-3"])
def test_texts_that_name_no_set_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="COUNT"):
        open_source(text)


def test_deforming_without_strength_changes_nothing() -> None:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
    np.testing.assert_allclose(deformed(points, 0.0, 0.0, 0.0), points)
    np.testing.assert_allclose(deformed(points, 0.3, 0.1, 0.4)[:, 2], points[:, 2])
