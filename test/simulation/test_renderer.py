"""Renders agree with geometry: analytic depth, masks, back-projection, colour of the texture."""

import dataclasses

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import InputError, MissingDependencyError
from gena3d_core.geometry.camera import backproject, pixel_rays, world_points
from gena3d_core.geometry.transforms import apply, inverse, look_at, rigid
from gena3d_core.simulation import Renderer, SceneSpec, ground_truth, ray_casting, views_from_scene
from gena3d_core.simulation.scene import LightSpec, ObjectSpec, OrbitPath, PosePath, TableSpec, object_mesh
from gena3d_core.simulation.textures import Texture
from gena3d_core.types import Intrinsics

CAMERA = Intrinsics(160, 120, 140.0, 150.0, 78.2, 61.3)
EYE = look_at((0.35, -0.4, 0.45), (0.0, 0.0, 0.04))
BALL = ObjectSpec("ball", "sphere", rigid(t=np.array([0.02, 0.01, 0.06])), {"radius_m": 0.06})
BOX = ObjectSpec("box", "box", rigid(t=np.array([-0.12, 0.05, 0.05])), {"size_m": (0.1, 0.1, 0.1)})


def scene(*objects, **changes):
    return SceneSpec(objects=objects, intrinsics=CAMERA, room=None, noise=None, **changes)


@pytest.fixture(scope="module")
def renderer():
    return Renderer(scene(BALL, BOX), shadow_samples=0)


def rays_world(T):
    return pixel_rays(CAMERA).astype(np.float64) @ T[:3, :3].T


def test_depth_of_a_sphere_and_a_plane_is_the_analytic_one(renderer):
    image = renderer.render(EYE)
    d, o = rays_world(EYE), EYE[:3, 3]
    plane = -o[2] / d[..., 2]
    table = image.instance_ids == 0
    on_top = table & (np.abs(o[:2] + plane[..., None] * d[..., :2]) < (0.64, 0.44)).all(axis=-1)
    assert on_top.sum() > 5000
    np.testing.assert_allclose(image.depth_m[on_top], plane[on_top], atol=2e-5)

    to_center = o - (0.02, 0.01, 0.06)
    a, b, c = (d**2).sum(-1), (d * to_center).sum(-1), (to_center**2).sum() - 0.06**2
    root = b**2 - a * c
    inner = (image.instance_ids == 1) & (root > (0.6 * 0.06) ** 2 * a)  # grazing rays see the facets
    analytic = (-b - np.sqrt(np.maximum(root, 0))) / a
    assert inner.sum() > 300
    np.testing.assert_allclose(image.depth_m[inner], analytic[inner], atol=1e-4)
    # the mask is the silhouette, but for the facets at its rim
    silhouette = root > 0
    assert np.mean((image.instance_ids == 1) != silhouette) < 0.003


def test_back_projected_depth_lies_on_the_meshes(renderer):
    image = renderer.render(EYE)
    for index, (item, mesh) in enumerate(zip(renderer.spec.objects, renderer.meshes, strict=True)):
        points = apply(EYE, backproject(image.depth_m, CAMERA))[image.instance_ids == index + 1]
        local = apply(inverse(item.T_world_object), points.astype(np.float64))
        body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        _, distance_m, _ = trimesh.proximity.closest_point(body, local[::5])
        assert distance_m.max() < 1e-4


def test_nearer_objects_hide_farther_ones(renderer):
    hidden = ObjectSpec("hidden", "box", rigid(t=np.array([-0.12, 0.05, 0.04])), {"size_m": (0.04, 0.04, 0.04)})
    image = Renderer(scene(BALL, BOX, hidden), shadow_samples=0).render(EYE)
    assert set(np.unique(image.instance_ids)) == {-1, 0, 1, 2}
    np.testing.assert_array_equal(image.instance_ids, renderer.render(EYE).instance_ids)


def test_background_has_colour_but_no_depth():
    spec = dataclasses.replace(scene(BALL), room=SceneSpec().room)
    image = Renderer(spec, shadow_samples=0).render(look_at((0.5, -0.6, 0.3), (0, 0, 0.1)))
    background = image.instance_ids == -1
    assert 0.1 < background.mean() < 0.9
    np.testing.assert_array_equal(np.isnan(image.depth_m), background)
    assert image.color[background].min() > 5
    assert image.color.dtype == np.uint8
    assert image.depth_m.dtype == np.float32


def test_colour_is_the_texture_under_flat_light():
    texture = Texture("bands", ((0.9, 0.2, 0.1), (0.1, 0.3, 0.8)), limits_m=(0.0,), grain=0.0, gloss=0.0)
    spec = scene(dataclasses.replace(BALL, texture=texture), lights=(), ambient=1.0)
    image = Renderer(spec, shadow_samples=0).render(EYE, antialias=False)
    ball = image.instance_ids == 1
    height = apply(EYE, backproject(image.depth_m, CAMERA))[ball][:, 2] - 0.06
    color = image.color[ball].astype(float)
    reddish = color[:, 0] > color[:, 2]
    np.testing.assert_array_equal(reddish[np.abs(height) > 1e-3], (height < 0)[np.abs(height) > 1e-3])
    # only the ambient light's dependence on the normal changes the brightness
    assert np.ptp(color[reddish][:, 1] / color[reddish][:, 0]) < 0.05


def test_shadow_lies_on_the_side_away_from_the_lamp():
    lamp = LightSpec((-1.0, 0.0, 1.0), 2.0, radius_m=0.01)
    table = TableSpec(texture=Texture(grain=0.0, gloss=0.0))
    spec = scene(BALL, lights=(lamp,), ambient=0.1, table=table)
    T = look_at((0.0, -0.001, 0.9), (0.0, 0.0, 0.0))
    with_shadow, without = (Renderer(spec, shadow_samples=n).render(T, antialias=False) for n in (4, 0))
    darker = without.color[..., 0].astype(int) - with_shadow.color[..., 0] > 20
    darker &= with_shadow.instance_ids == 0
    assert darker.sum() > 50
    points = apply(T, backproject(with_shadow.depth_m, CAMERA))[darker]
    assert points[:, 0].mean() > 0.05
    assert abs(points[:, 1].mean() - 0.01) < 0.02


def test_antialiasing_changes_silhouettes_only(renderer):
    smooth, rough = (renderer.render(EYE, antialias=a) for a in (True, False))
    np.testing.assert_array_equal(smooth.depth_m, rough.depth_m)
    np.testing.assert_array_equal(smooth.instance_ids, rough.instance_ids)
    changed = (smooth.color != rough.color).any(axis=-1)
    assert 0 < changed.mean() < 0.12


def test_rendering_is_deterministic(renderer):
    again = Renderer(scene(BALL, BOX), shadow_samples=0)
    for name in ("color", "depth_m", "instance_ids"):
        np.testing.assert_array_equal(getattr(renderer.render(EYE), name), getattr(again.render(EYE), name))


def test_image_size_may_differ_from_the_scenes(renderer):
    small = Intrinsics(40, 30, 35.0, 37.5, 19.175, 14.95)
    image = renderer.render(EYE, small)
    assert image.color.shape == (30, 40, 3)
    large = renderer.render(EYE)
    np.testing.assert_allclose(np.mean(image.instance_ids == 1), np.mean(large.instance_ids == 1), rtol=0.05)


def test_mesh_files_are_rendered_with_their_vertex_colours(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.06)
    ball.visual.vertex_colors = np.tile(np.array([30, 200, 40, 255], dtype=np.uint8), (len(ball.vertices), 1))
    ball.apply_translation((1.0, 2.0, 3.0))  # the object frame is centred whatever the file says
    ball.export(tmp_path / "ball.ply")
    item = ObjectSpec("file", "mesh", BALL.T_world_object, mesh_path=tmp_path / "ball.ply")
    image = Renderer(scene(item), shadow_samples=0).render(EYE)
    color = image.color[image.instance_ids == 1].astype(int)
    assert np.mean(color[:, 1] > 2 * color[:, 0]) > 0.9  # the rest is highlight
    truth = Renderer(scene(BALL), shadow_samples=0).render(EYE)
    both = (image.instance_ids == 1) & (truth.instance_ids == 1)
    assert both.sum() > 0.97 * (truth.instance_ids == 1).sum()
    assert np.median(np.abs(image.depth_m - truth.depth_m)[both]) < 2e-4


def test_views_carry_pose_noise_and_truth(renderer):
    spec = dataclasses.replace(renderer.spec, noise=SceneSpec().noise)
    poses = OrbitPath(radius_m=0.6, frames=5).poses()
    noisy, same, other = (views_from_scene(spec, poses, seed=s) for s in (1, 1, 2))
    clean = views_from_scene(spec, poses, noise=False, renderer=renderer)
    for a, b, c, d, T in zip(noisy, same, other, clean, poses, strict=True):
        np.testing.assert_array_equal(a.depth_m, b.depth_m)
        np.testing.assert_array_equal(a.color, b.color)
        assert (a.color != c.color).any()
        error_m = np.abs(a.depth_m - d.depth_m)
        assert 1e-4 < np.nanmedian(error_m) < 5e-3
        np.testing.assert_array_equal(a.T_world_camera, T)
        assert np.nanmin(world_points(d)[..., 2]) > -0.04
    assert len({v.name for v in noisy}) == len(noisy)
    assert len({v.stamp_ns for v in noisy}) == len(noisy)
    assert len(views_from_scene(spec, 3, renderer=renderer)) == 3
    with pytest.raises(InputError, match="at least one pose"):
        views_from_scene(spec, [])


def test_both_engines_see_the_same(monkeypatch, renderer):
    pytest.importorskip("open3d")
    reference = renderer.render(EYE)
    monkeypatch.setattr(ray_casting, "_embree_caster", ray_casting._open3d_caster)
    other = Renderer(renderer.spec, shadow_samples=0).render(EYE)
    assert np.mean(other.instance_ids == reference.instance_ids) > 0.9995
    same = other.instance_ids == reference.instance_ids
    np.testing.assert_allclose(other.depth_m[same], reference.depth_m[same], atol=1e-4)
    assert np.mean(np.abs(other.color[same].astype(int) - reference.color[same]) > 3) < 0.01


def test_rays_end_at_their_limit(renderer):
    origins = np.array([[0.02, 0.01, 1.0]] * 3, dtype=np.float32)
    directions = np.array([[0, 0, -1], [0, 0, -1], [0, 0, 1]], dtype=np.float32)
    limit = np.array([0.5, 2.0, 2.0], dtype=np.float32)
    for _ in range(2):  # the limits are the caller's and stay as they were
        hits = renderer._caster(origins, directions, limit)
        np.testing.assert_array_equal(hits.face >= 0, [False, True, False])
        assert hits.distance[1] == pytest.approx(0.88, abs=1e-4)
    np.testing.assert_array_equal(limit, np.array([0.5, 2.0, 2.0], dtype=np.float32))


def test_without_an_engine_the_error_says_what_to_install(monkeypatch):
    def missing(*_):
        raise ImportError("no module")

    monkeypatch.setattr(ray_casting, "_embree_caster", missing)
    monkeypatch.setattr(ray_casting, "_open3d_caster", missing)
    with pytest.raises(MissingDependencyError, match="pip install embreex"):
        Renderer(scene(BALL))


def test_camera_paths_close_and_look_at_their_target():
    for path in (OrbitPath(frames=16, elevation_swing_deg=10), OrbitPath(frames=16, sweep_deg=90)):
        poses = path.poses()
        to_target = np.asarray(path.target_m) - poses[:, :3, 3]
        np.testing.assert_allclose(np.linalg.norm(to_target, axis=1), path.radius_m)
        np.testing.assert_allclose(poses[:, :3, 2] * path.radius_m, to_target, atol=1e-9)
        steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0, append=poses[:1, :3, 3]), axis=1)
        assert steps.max() < 3 * np.median(steps) + 1e-9
    recorded = PosePath(poses)
    np.testing.assert_array_equal(recorded.poses(4), poses[::4])
    with pytest.raises(InputError, match="camera pose 0"):
        PosePath(np.zeros((1, 4, 4)))


def test_ground_truth_is_the_rendered_scene(renderer):
    truth = ground_truth(renderer.spec, renderer.meshes)
    assert [o.label for o in truth.objects] == ["ball", "box"]
    assert [o.id for o in truth.objects] == [1, 2]
    np.testing.assert_allclose(truth.objects[1].size_m, 0.1, atol=1e-6)
    lowest = apply(truth.objects[0].T_world_object, truth.objects[0].mesh.vertices)[:, 2].min()
    assert truth.support.height_m(np.array([0.0, 0.0, lowest])) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_array_equal(object_mesh(BALL).vertices, truth.objects[0].mesh.vertices)


def test_repeated_names_are_refused():
    with pytest.raises(InputError, match="several objects named ball"):
        scene(BALL, BALL)
