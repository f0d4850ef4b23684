"""Colours continued over what no camera saw."""

import numpy as np
import pytest

from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import voxels
from gena3d_core.meshing.color_filling import fill_unseen_colors
from gena3d_core.meshing.occupancy_surface import surface_from_logits

R = 32


def solid(inside):
    centers = voxels.voxel_centers(np.full(3, -0.5), 1 / R, (R,) * 3)
    return surface_from_logits(inside(centers))


@pytest.fixture(scope="module")
def ball():
    return solid(lambda x: 20 * (0.35 - np.linalg.norm(x, axis=-1)))


@pytest.fixture(scope="module")
def block():
    return solid(lambda x: 20 * (0.3 - np.abs(x).max(axis=-1)))


def steps(mesh, colors, edges):
    return np.abs(colors[edges[:, 0]].astype(float) - colors[edges[:, 1]]).max(axis=1)


def test_seen_colours_stay_and_borders_are_smooth(ball):
    wave = 127 + 100 * np.sin(12 * ball.vertices)
    seen = ball.vertices[:, 0] > 0.05
    filled = fill_unseen_colors(ball, np.where(seen[:, None], wave, 0.0), seen)
    assert filled.dtype == np.uint8
    np.testing.assert_array_equal(filled[seen], np.round(wave[seen]).astype(np.uint8))
    edges = mesh_ops.directed_edges(ball.faces)
    among_seen = steps(ball, filled, edges[seen[edges].all(axis=1)])
    beyond = steps(ball, filled, edges[~seen[edges].all(axis=1)])
    assert beyond.max() <= 1.5 * among_seen.max()
    assert filled[~seen].min() >= filled[seen].min()
    assert filled[~seen].max() <= filled[seen].max()


def test_one_colour_fills_all(ball):
    seen = ball.vertices[:, 2] > 0.3
    filled = fill_unseen_colors(ball, np.full((len(seen), 3), (10, 200, 90)), seen)
    assert (np.abs(filled.astype(int) - (10, 200, 90)) <= 1).all()


def test_colours_keep_to_their_side_of_a_crease(block):
    """The top is red, the front blue: the side between them takes from both, most from what is near."""
    x, y, z = block.vertices.T
    seen = (z > 0.28) | (x > 0.28)
    colors = np.where((z > 0.28)[:, None], (255, 0, 0), (0, 0, 255))
    filled = fill_unseen_colors(block, colors, seen)
    side = (y > 0.29) & ~seen
    reddish = filled[:, 0].astype(int) - filled[:, 2]
    assert np.median(reddish[side & (z > x + 0.15)]) > 60
    assert np.median(reddish[side & (x > z + 0.15)]) < -60


def test_pieces_that_nobody_saw_take_the_nearest_colour():
    two = solid(
        lambda x: 20 * (0.12 - np.minimum(np.linalg.norm(x - 0.25, axis=-1), np.linalg.norm(x + 0.25, axis=-1)))
    )
    seen = two.vertices[:, 0] > 0
    filled = fill_unseen_colors(two, np.full((len(seen), 3), (200, 100, 50)), seen)
    assert (np.abs(filled.astype(int) - (200, 100, 50)) <= 1).all()


def test_nothing_and_everything_seen(ball):
    count = len(ball.vertices)
    assert (fill_unseen_colors(ball, np.zeros((count, 3)), np.zeros(count, bool)) == 128).all()
    colors = np.random.default_rng(0).integers(0, 256, (count, 3))
    np.testing.assert_array_equal(fill_unseen_colors(ball, colors, np.ones(count, bool)), colors)


def test_vertices_without_faces_are_coloured():
    mesh = mesh_ops.make_mesh(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5.0]]), np.array([[0, 1, 2]]))
    filled = fill_unseen_colors(mesh, np.full((4, 3), 77), np.array([True, False, False, False]))
    assert (filled == 77).all()
