"""Vertex colours come from views that see the vertex, and best from the best of them."""

from dataclasses import replace

import numpy as np
import trimesh

from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.meshing.coloring import vertex_colors


def cylinder_mesh(cylinder):
    solid = trimesh.creation.cylinder(cylinder.radius, cylinder.height, sections=64).subdivide().subdivide()
    vertices = solid.vertices + np.array(cylinder.base) + [0, 0, cylinder.height / 2]
    return mesh_ops.make_mesh(vertices, solid.faces)


def test_colors_of_a_plain_object(solids):
    cylinder = solids.Cylinder((0, 0, 0), 0.04, 0.09)
    observation = solids.observe([cylinder], solids.ring(3))
    mesh = cylinder_mesh(cylinder)
    colors, seen = vertex_colors(mesh, observation.views, observation.visible_masks)
    assert 0.6 < seen.mean() < 1.0
    assert not seen[mesh.vertices[:, 2] < 1e-4].all()
    np.testing.assert_array_equal(colors, np.broadcast_to(solids.COLORS[0], colors.shape))


def test_hidden_vertices_do_not_take_the_occluders_color(solids):
    scene = [solids.Cylinder((0, 0, 0), 0.04, 0.09), solids.Box((0.12, 0, 0.05), (0.01, 0.03, 0.05))]
    observation = solids.observe(scene, [(0.7, 0.0, 0.15)])
    colors, seen = vertex_colors(cylinder_mesh(scene[0]), observation.views)
    assert 0.05 < seen.mean() < 0.5
    # Green is the occluder; the grey table right behind the outline may mix in, since no masks are given.
    assert colors[seen][:, 1].max() <= solids.TABLE_COLOR[1]


def test_frontal_view_wins(solids):
    box = solids.Box((0, 0, 0.05), (0.05, 0.05, 0.05))
    observation = solids.observe([box], [(0.7, 0.05, 0.1), (0.3, 0.65, 0.1)])
    views = [
        replace(view, color=np.full_like(view.color, value))
        for view, value in zip(observation.views, (50, 200), strict=True)
    ]
    wall = mesh_ops.make_mesh(
        [[0.05, -0.03, 0.02], [0.05, 0.03, 0.02], [0.05, 0.03, 0.08], [0.05, -0.03, 0.08]], [[0, 1, 2], [0, 2, 3]]
    )
    colors, seen = vertex_colors(wall, views, observation.visible_masks)
    assert seen.all()
    assert colors.max() < 60


def test_unseen_mesh_is_grey(solids):
    observation = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(1))
    far = mesh_ops.make_mesh(np.eye(3) + 50.0, [[0, 1, 2]])
    colors, seen = vertex_colors(far, observation.views, observation.visible_masks)
    assert not seen.any()
    assert (colors == 128).all()
