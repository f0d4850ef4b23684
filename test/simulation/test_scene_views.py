"""Pictures of whole scenes: what hides what, where it is, and cameras that see all of it."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.camera import backproject, project
from gena3d_core.geometry.mesh import make_mesh
from gena3d_core.simulation.scene_layout import SceneCamera, SceneLayout, SceneObject
from gena3d_core.simulation.scene_views import SceneViewSettings, draw_cameras, render_scene_views, resized_camera
from gena3d_core.types import Intrinsics, SupportPlane

TABLE = SupportPlane(np.array([0.0, 0.0, 1.0]), -0.5)
"""z = 0.5."""


def box(center, size):
    made = trimesh.creation.box(size, trimesh.transformations.translation_matrix(center))
    return make_mesh(made.vertices, made.faces)


def camera(eye, target=(0.0, 0.0, 0.55)):
    T = transforms.look_at(np.array(eye), np.array(target))
    return SceneCamera(T, Intrinsics(96, 72, 90.0, 90.0, 47.5, 35.5))


def test_depth_and_instances_are_those_of_the_nearest_surface():
    meshes = [box((0, 0, 0.55), (0.1, 0.1, 0.1)), box((0, -0.2, 0.56), (0.12, 0.02, 0.12))]
    front, above = render_scene_views(
        meshes, TABLE, [camera((0, -1.0, 0.6)), camera((0, -0.35, 1.4))], SceneViewSettings(), np.random.default_rng(0)
    )
    assert front.color.shape == (72, 96, 3)
    assert front.visibility[1] == 1.0
    assert front.visibility[0] < 0.1  # the board stands before the box
    assert above.visibility[0] > 0.9
    np.testing.assert_array_equal(front.pixels, [(front.instances == 1).sum(), (front.instances == 2).sum()])
    for view in (front, above):
        world = transforms.apply(view.camera.T_world_camera, backproject(view.depth_m, view.camera.intrinsics))
        for number, mesh in enumerate(meshes):
            points = world[view.instances == number + 1]
            if len(points):
                low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
                assert (points > low - 1e-3).all()
                assert (points < high + 1e-3).all()
        table = world[view.instances == 0]
        np.testing.assert_allclose(table[:, 2], 0.5, atol=2e-3)
        assert np.isnan(view.depth_m[view.instances < 0]).all()


def test_without_a_support_there_is_no_table_and_a_wall_is_none():
    meshes = [box((0, 0, 0.55), (0.1, 0.1, 0.1))]
    (view,) = render_scene_views(meshes, None, [camera((0, -1, 0.7))], SceneViewSettings(), np.random.default_rng(0))
    assert set(np.unique(view.instances)) == {-1, 1}
    wall = SupportPlane(np.array([0.0, 1.0, 0.0]), 0.0)
    with pytest.raises(InputError, match="must be horizontal"):
        render_scene_views(meshes, wall, [camera((0, -1, 0.7))], SceneViewSettings(), np.random.default_rng(0))
    with pytest.raises(InputError, match="without objects"):
        render_scene_views([], None, [], SceneViewSettings(), np.random.default_rng(0))


def test_cameras_see_the_whole_scene_from_around():
    rng = np.random.default_rng(1)
    meshes = [box(rng.uniform(-0.3, 0.3, 3) * (1, 1, 0.2) + (0, 0, 0.1), rng.uniform(0.05, 0.2, 3)) for _ in range(4)]
    points = np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float64)
    settings = SceneViewSettings(fill=(0.6, 0.8), spread_deg=0.0)
    cameras = draw_cameras(meshes, 4, settings, rng)
    azimuths = []
    for found in cameras:
        seen = transforms.apply(transforms.inverse(found.T_world_camera), points)
        pixels, depth = project(seen, found.intrinsics)
        assert depth.min() > 0
        assert (pixels >= -0.5).all()
        assert (pixels <= np.array([settings.image_width, settings.image_height]) - 0.5).all()
        ahead = found.T_world_camera[:3, 2]
        assert np.deg2rad(5) < -np.arcsin(ahead[2]) < np.deg2rad(65)
        azimuths.append(np.arctan2(ahead[1], ahead[0]))
    turns = np.diff(np.unwrap(azimuths))
    np.testing.assert_allclose(turns, np.pi / 2, atol=0.35)


def test_a_resized_camera_keeps_its_rays():
    given = camera((0, -1, 0.7))
    small = resized_camera(given, 48)
    assert (small.intrinsics.width, small.intrinsics.height) == (48, 36)
    point = np.array([[0.1, -0.05, 1.0]])
    (large,), _ = project(point, given.intrinsics)
    (found,), _ = project(point, small.intrinsics)
    np.testing.assert_allclose((large + 0.5) * 0.5 - 0.5, found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"image_width": 8}, "16 pixels"), ({"fill": (0.9, 0.5)}, "fill must be"), ({"elevation_deg": (0, 20)}, "elev")],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        SceneViewSettings(**changes)


def test_a_layout_checks_itself():
    thing = SceneObject("mug", np.eye(4))
    with pytest.raises(InputError, match="has no object"):
        SceneLayout("a", ())
    with pytest.raises(InputError, match="query 2 is none of its 1"):
        SceneLayout("a", (thing,), query=2)
    for S in (np.diag([1.0, 2.0, 1.0, 1.0]), np.diag([-1.0, 1.0, 1.0, 1.0]), np.full((4, 4), np.nan)):
        with pytest.raises(InputError, match="S_world_object of object 0"):
            SceneLayout("a", (SceneObject("mug", S),))
