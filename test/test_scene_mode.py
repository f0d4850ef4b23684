"""From pictures to placed objects in mode `scene`, on scenes whose answer is known by construction.

The stand-in flow leads to given boxes and tells given poses; whatever else happens to them is the real thing.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from gena3d_core.errors import DataFormatError, InputError, StageError
from gena3d_core.generative.scene_generator import SceneFlowGenerator
from gena3d_core.generative.settings import SamplingSettings
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import similarity, transforms
from gena3d_core.layout.relative_layout import Y_UP_MODEL
from gena3d_core.pipeline import PHOTO_SHARES, SCENE_SHARES, Pipeline, PipelineConfig
from gena3d_core.scene_mode import SceneKnowledge, layout_residuals, place_generated
from gena3d_core.types import Intrinsics, SceneObservation, View
from gena3d_core.viz import scene_sheet
from gena3d_core.viz.render import fragments_of

from .known_scene import known_bundle, squares

SIZES = [(6, 4, 4), (4, 4, 4), (2, 2, 6)]
"""Of the boxes in eighths of their grids: the query, a cube, a tower."""


def z_up_poses():
    """The query; the cube at 0.7 of its unit, to the right, turned by 40°; the tower at 0.8, ahead: all stand level."""
    turned = np.roll(Rotation.from_euler("z", 40, degrees=True).as_quat(), 1)
    return np.array(
        [
            [0, 0, 0, 1, 0, 0, 0, 1.0],
            [1.1, 0.1, 0.5 * (4 / 8 * 0.7 - 4 / 8), *turned, 0.7],
            [-0.2, 1.0, 0.5 * (6 / 8 * 0.8 - 4 / 8), 1, 0, 0, 0, 0.8],
        ]
    )


def y_up_poses():
    """The same, in the words of the published checkpoint: models with y up."""
    poses = z_up_poses()
    poses[:, :3] = poses[:, :3] @ Y_UP_MODEL.T
    R = Y_UP_MODEL @ similarity.matrix_from_quat_wxyz(poses[:, 3:7]) @ Y_UP_MODEL.T
    poses[:, 3:7] = -similarity.quat_wxyz_from_matrix(R)  # the same rotation
    return poses


@pytest.fixture
def make_pipeline(monkeypatch):
    """A pipeline in mode `scene` whose generator knows the answer."""
    torch.set_num_threads(1)

    def make(poses, metadata=None, **changes):
        settings = SamplingSettings(steps=3)
        generator = SceneFlowGenerator(known_bundle(SIZES, poses, metadata=metadata), settings=settings)
        monkeypatch.setattr("gena3d_core.pipeline.make_scene_generator", lambda *_, **__: generator)
        return Pipeline(PipelineConfig(mode="scene", **changes))

    return make


CONVENTIONS = [(z_up_poses(), {"model_axes": "z_up"}), (y_up_poses(), {"model_axes": "y_up"})]


@pytest.mark.parametrize(("poses", "metadata"), CONVENTIONS)
def test_a_photo_without_a_size_gives_a_scene_up_to_scale(make_pipeline, caplog, poses, metadata):
    told = []
    photo = squares([20, 14, 9])
    scene = make_pipeline(poses, metadata).run_photos(photo, progress=lambda *step: told.append(step))
    assert not scene.metric
    assert "lengths are in units of the query object's size" in caplog.text
    assert any("not in metres" in warning for warning in scene.warnings)
    assert scene.residuals["layout_metric"] == 0.0
    query, cube, tower = scene.objects
    np.testing.assert_allclose(query.size_m, [0.75, 0.5, 0.5], atol=0.04)
    across = 0.5 * 0.7 * (math.cos(math.radians(40)) + math.sin(math.radians(40)))
    np.testing.assert_allclose(cube.size_m, [across, across, 0.35], atol=0.04)
    np.testing.assert_allclose(tower.size_m, [0.2, 0.2, 0.6], atol=0.04)
    np.testing.assert_allclose(query.T_world_object[:3, 3], [0, 0, 0.25], atol=0.03)
    np.testing.assert_allclose(cube.T_world_object[:3, 3], [1.1, 0.1, 0.175], atol=0.03)
    np.testing.assert_allclose(tower.T_world_object[:3, 3], [-0.2, 1.0, 0.3], atol=0.03)
    assert min(item.T_world_object[2, 3] - item.size_m[2] / 2 for item in scene.objects) == pytest.approx(0, abs=1e-3)
    assert {stage for stage, _ in told} == set(PHOTO_SHARES)
    assert told[-1][1] == pytest.approx(1.0)
    # Objects have the colour of their pixels, whatever the generator knows of colours.
    np.testing.assert_array_equal(
        cube.mesh.vertex_colors[0], np.median(photo.images[0][photo.masks[0][1]], axis=0).astype(np.uint8)
    )
    assert scene_sheet(photo, scene).shape[1] == 1600


def test_one_known_size_gives_metres(make_pipeline):
    scene = make_pipeline(z_up_poses()).run_photos(squares([20, 14, 9]), sizes_m={30: 0.12})
    assert scene.metric
    unit = 0.12 / 0.6
    np.testing.assert_allclose([item.size_m[2] for item in scene.objects], [0.5 * unit, 0.35 * unit, 0.12], rtol=0.06)
    np.testing.assert_allclose(scene.objects[1].T_world_object[:2, 3], [1.1 * unit, 0.1 * unit], atol=0.01)
    assert scene.residuals["layout_unit_m"] == pytest.approx(unit, rel=0.05)
    assert 1.0 < scene.residuals["layout_unit_sigma_ratio"] < 1.2
    with pytest.raises(InputError, match=r"sizes are known of objects \[7\]"):
        make_pipeline(z_up_poses()).run_photos(squares([20, 14, 9]), sizes_m={7: 0.12})


def test_pictures_that_an_upright_grid_cannot_use_are_told(make_pipeline):
    scene = make_pipeline(z_up_poses()).run_photos(squares([20, 14, 9], views=2))
    assert "of 2 pictures only number 0 is shown to this generator" in scene.warnings


def test_what_hypotheses_disagree_about_is_less_sure():
    torch.set_num_threads(1)
    photo = squares([20, 14, 9])
    bundle = known_bundle(SIZES, z_up_poses())
    made = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2)).generate(photo, hypotheses=2)
    assert made.pose_samples.shape == (2, 3, 8)
    np.testing.assert_allclose(made.pose_samples[0], made.pose_samples[1])
    other = np.stack([made.poses, made.poses])
    other[1, 1, 0] += 0.4
    known = SceneKnowledge(sizes_m={10: 0.15})
    same, apart = (place_generated(replace(made, pose_samples=p), photo, known) for p in (made.pose_samples, other))
    variances = [[np.diag(pose.estimate.covariance) for pose in placed.poses] for placed in (same, apart)]
    assert variances[1][1][0] - variances[0][1][0] == pytest.approx((0.4 * UNIT_M) ** 2 - (0.03 * UNIT_M) ** 2, rel=0.1)
    np.testing.assert_allclose(variances[0][2], variances[1][2])


UNIT_M = 0.2
S_WORLD_SCENE = similarity.compose(
    [0.05, -0.1, 0.25 * UNIT_M], Rotation.from_euler("z", 25, degrees=True).as_matrix(), UNIT_M
)
COLORS = ((200, 60, 50), (60, 160, 70), (60, 80, 200), (150, 150, 150))


@pytest.fixture(scope="module")
def views():
    """Two posed RGB-D views of the boxes on a table, the first of which looks along the query's y axis."""
    meshes = []
    for size, pose in zip(SIZES, z_up_poses(), strict=True):
        t, R, s = pose[:3], similarity.matrix_from_quat_wxyz(pose[3:7]), pose[7]
        box = trimesh.creation.box(np.array(size) / 8)
        S = S_WORLD_SCENE @ similarity.compose(t, R, s)
        meshes.append(mesh_ops.transformed(mesh_ops.make_mesh(box.vertices, box.faces), S))
    table = trimesh.creation.box((1.6, 1.6, 0.02), transforms.rigid(t=(0.0, 0.0, -0.01)))
    table = table.subdivide().subdivide()
    meshes.append(mesh_ops.make_mesh(table.vertices, table.faces))
    owner = np.repeat(np.arange(4), [len(mesh.faces) for mesh in meshes])
    whole = mesh_ops.concatenate(meshes)
    K = Intrinsics(width=320, height=240, fx=300.0, fy=300.0, cx=159.5, cy=119.5)
    found = []
    target = S_WORLD_SCENE @ [0.3, 0.3, 0.0, 1.0]
    for number, (azimuth, away_m) in enumerate(((25 - 90, 0.75), (25 - 60, 0.95))):
        back = np.array([math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth)), 0.9])
        T = transforms.look_at(target[:3] + away_m * back / np.linalg.norm(back), target[:3])
        seen = fragments_of(whole, T, K)
        color = np.array([*COLORS, (0, 0, 0)], dtype=np.uint8)[np.where(seen.face >= 0, owner[seen.face], 4)]
        depth_m = np.where(np.isfinite(seen.depth), seen.depth, np.nan).astype(np.float32)
        found.append(View(color, K, T, depth_m, name=f"view_{number}"))
    return found


def test_posed_depth_views_place_the_scene_in_the_world(make_pipeline, views):
    told = []
    pipeline = make_pipeline(z_up_poses(), refine_poses=False)
    result = pipeline.run(views, frame_id="map", progress=lambda *step: told.append(step))
    scene = result.scene
    assert scene.metric
    assert scene.frame_id == "map"
    assert len(scene.objects) == 3
    by_height = sorted(scene.objects, key=lambda item: item.size_m[2])
    cube, query, tower = by_height
    places = [(S_WORLD_SCENE @ [*pose[:3], 1.0])[:3] for pose in z_up_poses()]
    for item, place in zip((query, cube, tower), places, strict=True):
        np.testing.assert_allclose(item.T_world_object[:3, 3], place, atol=0.012)
        assert item.T_world_object[2, 3] - item.size_m[2] / 2 == pytest.approx(0.0, abs=0.002)
    np.testing.assert_allclose([item.size_m[2] for item in (query, cube, tower)], [0.1, 0.07, 0.12], rtol=0.1)
    assert scene.residuals["layout_unit_m"] == pytest.approx(UNIT_M, rel=0.06)
    assert scene.residuals["layout_residual_m"] < 0.01
    assert set(scene.timings_s) == {*SCENE_SHARES, "total"}
    for item in scene.objects:
        assert item.residuals["disagreement_m"] < 0.02
        assert item.residuals["disagreement_deg"] < 15
        assert 0.1 < item.observed_fraction < 0.9
    assert told[-1][1] == pytest.approx(1.0)
    assert [observation.id for observation in result.observations] == [item.id for item in scene.objects]


def test_the_baseline_of_two_posed_cameras_tells_metres_without_depth(views):
    torch.set_num_threads(1)
    masks = tuple(np.stack([(view.color == color).all(axis=-1) for color in COLORS[:3]]) for view in views)
    scene = SceneObservation((1, 2, 3), ("query", "cube", "tower"), tuple(view.color for view in views), masks)
    bundle = known_bundle(SIZES, z_up_poses())
    made = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2)).generate(scene)
    known = SceneKnowledge(views=tuple(replace(view, depth_m=None) for view in views))
    placed = place_generated(made, scene, known)
    assert placed.alignment.metric
    unit_m = layout_residuals(placed)["layout_unit_m"]
    assert unit_m == pytest.approx(UNIT_M, rel=0.15)
    for item, pose in zip(placed.objects, z_up_poses(), strict=True):
        np.testing.assert_allclose(item.T_world_object[:3, 3], (S_WORLD_SCENE @ [*pose[:3], 1.0])[:3], atol=0.04)


def test_a_layout_that_the_cameras_contradict_is_told(make_pipeline, views):
    wrong = z_up_poses()
    wrong[2, :3] = [0.9, 1.6, 0.05]  # the tower stands elsewhere
    scene = make_pipeline(wrong, refine_poses=False).run(views).scene
    tower = max(scene.objects, key=lambda item: item.size_m[2])
    place = (S_WORLD_SCENE @ [*z_up_poses()[2, :3], 1.0])[:3]
    np.testing.assert_allclose(tower.T_world_object[:2, 3], place[:2], atol=0.02)
    assert any("layout" in warning and "disagree" in warning for warning in scene.warnings)


def test_an_asset_that_fails_keeps_what_was_seen(monkeypatch, views):
    torch.set_num_threads(1)
    bundle = known_bundle([SIZES[0], SIZES[1], (0, 0, 0)], z_up_poses())
    generator = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2))
    monkeypatch.setattr("gena3d_core.pipeline.make_scene_generator", lambda *_, **__: generator)
    result = Pipeline(PipelineConfig(mode="scene", refine_poses=False)).run(views)
    (failed,) = [w for w in result.scene.warnings if "did not come out" in w]
    assert "only what was seen is shown" in failed
    assert len(result.scene.objects) == 3
    place = (S_WORLD_SCENE @ [*z_up_poses()[2, :3], 1.0])[:3]
    np.testing.assert_allclose(result.scene.objects[-1].T_world_object[:3, 3], place, atol=0.02)


def test_modes_and_their_input():
    with pytest.raises(InputError, match="unknown mode 'scenes'"):
        Pipeline(PipelineConfig(mode="scenes"))
    with pytest.raises(
        InputError, match="unknown generator of scenes 'edge'; choose one of: auto, edge_scene, scenegen"
    ):
        Pipeline(PipelineConfig(mode="scene", scene_generator="edge"))
    with pytest.raises(InputError, match="pictures without camera poses place no object"):
        Pipeline(PipelineConfig(mode="objects", generator="observed")).run_photos(squares([20]))


def test_a_missing_checkpoint_of_scenes_matters_in_mode_scene_only(monkeypatch, tmp_path):
    monkeypatch.setattr("gena3d_core.checkpoints.registry.PACKAGED", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataFormatError, match="the checkpoint 'edge_scene' is not in"):
        Pipeline(PipelineConfig(mode="scene"))
    pipeline = Pipeline(PipelineConfig(mode="auto", generator="observed"))
    with pytest.raises(DataFormatError, match="the checkpoint 'edge_scene' is not in"):
        pipeline.run_photos(squares([20, 14]))


def test_a_failure_names_its_stage(make_pipeline):
    with pytest.raises(StageError, match=r"stage 'generation' failed: objects \[20\] have no pixel"):
        make_pipeline(z_up_poses()).run_photos(squares([20, 14, 9], hidden=[(0, 1)]))
    photo = squares([20, 14, 9])
    with pytest.raises(StageError, match="stage 'generation' failed"):
        make_pipeline(replace_nan(z_up_poses())).run_photos(replace(photo))


def replace_nan(poses):
    """A network that has lost its mind."""
    poses[1, 0] = np.nan
    return poses
