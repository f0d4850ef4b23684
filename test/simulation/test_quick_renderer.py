"""Pictures of scenes that are seen once: geometry, light and shadow."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gena3d_core.geometry import camera, transforms
from gena3d_core.geometry.mesh import make_mesh
from gena3d_core.simulation.quick_renderer import (
    BACKGROUND,
    OBJECT,
    TABLE,
    QuickLight,
    QuickPart,
    quick_scene,
    random_backdrop,
    render_quick,
)
from gena3d_core.simulation.textures import Texture
from gena3d_core.types import Intrinsics, Mesh

LENS = Intrinsics(120, 90, 120.0, 120.0, 59.5, 44.5)
POSE = transforms.look_at(np.array([0.5, -0.6, 0.5]), np.array([0.0, 0.0, 0.08]))
PLAIN = Texture(colors=((0.5, 0.5, 0.5),), grain=0.0, gloss=0.0)
BACKDROP = np.full((90, 120, 3), 7, np.uint8)


def ball_on_table(light: QuickLight):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.1).apply_translation((0.0, 0.0, 0.1))
    table = Mesh(
        np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float32),
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
    )
    parts = [QuickPart(make_mesh(ball.vertices, ball.faces), OBJECT, PLAIN), QuickPart(table, TABLE, PLAIN)]
    return quick_scene(parts, light)


@pytest.fixture(scope="module")
def image():
    return render_quick(ball_on_table(QuickLight((0.0, 0.0, 1.0))), POSE, LENS, BACKDROP)


def test_points_and_normals_are_those_of_the_solids(image):
    points = transforms.apply(POSE, camera.backproject(image.depth_m, LENS))
    on_table, on_ball = image.instance == TABLE, image.instance == OBJECT
    assert on_table.sum() > 1000
    assert on_ball.sum() > 200
    assert np.abs(points[on_table][:, 2]).max() < 1e-5
    radial = points[on_ball] - np.array([0.0, 0.0, 0.1])
    np.testing.assert_allclose(np.linalg.norm(radial, axis=1), 0.1, atol=5e-4)
    np.testing.assert_allclose(image.normals[on_ball], 10.0 * radial, atol=0.05)
    np.testing.assert_allclose(image.normals[on_table], np.broadcast_to((0, 0, 1), (on_table.sum(), 3)), atol=1e-6)


def test_the_background_is_the_backdrop_without_depth(image):
    nothing = image.instance == BACKGROUND
    assert nothing.any()
    assert (image.color[nothing] == 7).all()
    assert np.isnan(image.depth_m[nothing]).all()
    assert np.isnan(image.normals[nothing]).all()
    assert (image.face[nothing] == -1).all()


def test_a_lamp_overhead_lights_the_top_and_shadows_the_table_below(image):
    points = transforms.apply(POSE, camera.backproject(image.depth_m, LENS))
    radius = np.hypot(points[..., 0], points[..., 1])
    table = image.instance == TABLE
    shadow, open_table = table & (radius < 0.095), table & (radius > 0.105)
    assert shadow.any()
    assert image.color[shadow].max() < image.color[open_table].min()
    ball = image.instance == OBJECT
    top, side = ball & (points[..., 2] > 0.17), ball & (points[..., 2] < 0.1)
    assert image.color[top].mean() > image.color[side].mean() + 20


def test_vertex_colours_are_mixed_over_faces():
    mesh = Mesh(
        np.array([[-0.2, -0.2, 0], [0.2, -0.2, 0], [0.0, 0.3, 0]], np.float32),
        np.array([[0, 1, 2]], np.int32),
        vertex_colors=np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8),
    )
    scene = quick_scene([QuickPart(mesh, OBJECT)], QuickLight((0.0, 0.0, 1.0), strength=0.5, ambient=0.5))
    above = transforms.look_at(np.array([0.0, -1e-3, 0.6]), np.zeros(3))
    picture = render_quick(scene, above, LENS, BACKDROP)
    seen = picture.color[picture.instance == OBJECT].astype(int)
    assert len(seen) > 500
    # Strength and ambient add up to one: albedo is shown as it is, and the three shares sum to white.
    np.testing.assert_allclose(seen.sum(axis=1), 255, atol=3)


def test_backdrops_differ_and_are_reproducible():
    one, same, other = (random_backdrop(40, 30, np.random.default_rng(s)) for s in (0, 0, 1))
    assert one.shape == (30, 40, 3)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
