"""Lines through meshes: where they enter and leave."""

import numpy as np
import trimesh

from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry.column_crossings import crossings, inside_intervals, is_closed, outer_intervals, welded

COLUMNS = 8


def box(low, high):
    solid = trimesh.creation.box(bounds=[low, high])
    return mesh_ops.make_mesh(solid.vertices, solid.faces)


def lines(mesh, *, closed=True, **ends):
    points, faces = welded(mesh)
    assert is_closed(faces) == closed
    column, height, step = crossings(points, faces, COLUMNS)
    return inside_intervals(column, height, step, **ends) if closed else outer_intervals(column, height)


def test_every_line_through_a_box_enters_at_its_bottom_and_leaves_at_its_top():
    low, high, column = lines(box((-1, -1, -3), (9, 9, 2)))
    np.testing.assert_array_equal(column, np.arange(COLUMNS**2))
    np.testing.assert_allclose(low, -3.0)
    np.testing.assert_allclose(high, 2.0)
    low, high, _ = lines(box((-1, -1, -3), (9, 9, 2)), low=0.0, high=1.0)
    np.testing.assert_allclose(low, 0.0)
    np.testing.assert_allclose(high, 1.0)


def test_two_boxes_above_each_other_give_two_intervals_in_order():
    both = mesh_ops.concatenate([box((-1, -1, 4), (9, 9, 5)), box((-1, -1, 0), (9, 9, 1))])
    low, high, column = lines(both)
    np.testing.assert_array_equal(column, np.repeat(np.arange(COLUMNS**2), 2))
    np.testing.assert_allclose(low, np.tile([0.0, 4.0], COLUMNS**2))
    np.testing.assert_allclose(high, np.tile([1.0, 5.0], COLUMNS**2))


def test_open_meshes_count_as_filled_between_their_ends():
    both = mesh_ops.concatenate([box((-1, -1, 4), (9, 9, 5)), box((-1, -1, 0), (9, 9, 1))])
    opened = mesh_ops.select_faces(both, np.arange(1, len(both.faces)))
    low, high, column = lines(opened, closed=False)
    assert len(column) == len(np.unique(column)) == COLUMNS**2
    assert low.min() == 0.0
    assert high.max() == 5.0


def test_lines_beside_a_mesh_meet_nothing():
    for closed in (True, False):
        mesh = box((20, 20, 0), (21, 21, 1))
        mesh = mesh if closed else mesh_ops.select_faces(mesh, np.arange(1, 12))
        assert all(len(values) == 0 for values in lines(mesh, closed=closed))
