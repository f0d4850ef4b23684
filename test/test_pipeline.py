from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gena3d_core.errors import CancelledError, InputError, StageError
from gena3d_core.geometry import transforms
from gena3d_core.pipeline import STAGE_SHARES, Pipeline, PipelineConfig
from gena3d_core.simulation import default_scene, views_from_scene
from gena3d_core.types import BoxPrompt


@pytest.fixture(scope="module")
def views():
    """Four noisy simulated views of the default scene, spread over its camera path."""
    return views_from_scene(default_scene(), seed=1)[:4]


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline()


@pytest.fixture(scope="module")
def reconstruction(pipeline, views):
    return pipeline.run(views, frame_id="map")


def true_centers_m():
    spec = default_scene()
    return {item.name: np.asarray(item.T_world_object)[:3, 3] for item in spec.objects}


def test_every_object_of_the_default_scene_is_found_where_it_stands(reconstruction):
    found = np.array([o.T_world_object[:2, 3] for o in reconstruction.scene.objects])
    for name, center in true_centers_m().items():
        distance_m = np.linalg.norm(found - center[:2], axis=1).min()
        assert distance_m < 0.05, f"{name}: nearest object is {distance_m:.3f} m away"


def test_the_scene_tells_its_frame_time_views_and_costs(reconstruction, views):
    scene = reconstruction.scene
    assert scene.frame_id == "map"
    assert scene.stamp_ns == max(view.stamp_ns for view in views)
    assert scene.view_names == tuple(view.name for view in views)
    assert set(scene.timings_s) == {*STAGE_SHARES, "total"}
    assert len(reconstruction.observations) == len(scene.objects)
    assert [o.id for o in reconstruction.observations] == [o.id for o in scene.objects]


def test_object_frames_are_upright_and_centred(reconstruction):
    for item in reconstruction.scene.objects:
        np.testing.assert_allclose(item.T_world_object[2, :3], [0, 0, 1], atol=1e-6)
        low, high = item.mesh.vertices.min(axis=0), item.mesh.vertices.max(axis=0)
        np.testing.assert_allclose((low + high) / 2, 0, atol=1e-4)
        np.testing.assert_allclose(high - low, item.size_m, atol=1e-4)


def test_the_same_input_gives_the_same_scene(pipeline, views, reconstruction):
    again = pipeline.run(views).scene
    assert len(again.objects) == len(reconstruction.scene.objects)
    for a, b in zip(again.objects, reconstruction.scene.objects, strict=True):
        np.testing.assert_array_equal(a.mesh.vertices, b.mesh.vertices)
        np.testing.assert_array_equal(a.T_world_object, b.T_world_object)


def test_a_moved_world_moves_the_scene(pipeline, views, reconstruction):
    """Gravity stays up: a turn about z and a shift of all cameras turn and shift the objects."""
    T = transforms.rigid(transforms.matrix_from_quat_xyzw([0, 0, np.sin(0.4), np.cos(0.4)]), np.array([1.0, -2.0, 0.3]))
    moved = pipeline.run([replace(v, T_world_camera=T @ v.T_world_camera) for v in views]).scene
    expected = [(T @ o.T_world_object)[:3, 3] for o in reconstruction.scene.objects]
    found = np.array([o.T_world_object[:3, 3] for o in moved.objects])
    for center in expected:
        assert np.linalg.norm(found - center, axis=1).min() < 0.02


def test_the_face_budget_is_kept(views):
    scene = Pipeline(PipelineConfig(max_faces=300)).run(views[:2]).scene
    assert scene.objects
    assert all(len(o.mesh.faces) <= 300 for o in scene.objects)


def test_a_box_picks_one_object(pipeline, views, reconstruction):
    wanted = max(reconstruction.observations, key=lambda o: o.visible_masks[0].sum())
    rows, cols = np.nonzero(wanted.visible_masks[0])
    box = BoxPrompt(views[0].name, (cols.min() - 2, rows.min() - 2, cols.max() + 2, rows.max() + 2), "mine")
    scene = pipeline.run(views, boxes=[box]).scene
    assert [o.label for o in scene.objects] == ["mine"]
    full = next(o for o in reconstruction.scene.objects if o.id == wanted.id)
    assert np.linalg.norm(scene.objects[0].T_world_object[:3, 3] - full.T_world_object[:3, 3]) < 0.03


def test_progress_grows_to_one_through_all_stages(pipeline, views):
    seen = []
    pipeline.run(views[:2], progress=lambda stage, fraction: seen.append((stage, fraction)))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert list(dict.fromkeys(stage for stage, _ in seen)) == list(STAGE_SHARES)


@pytest.mark.parametrize(("begun", "following"), list(pairwise(STAGE_SHARES)))
def test_a_run_cancelled_in_a_stage_never_begins_the_next(pipeline, views, begun, following):
    reached = []
    with pytest.raises(CancelledError):
        pipeline.run(views[:2], progress=lambda name, _: reached.append(name), cancelled=lambda: begun in reached)
    assert begun in reached
    assert following not in reached


def test_a_run_cancelled_before_it_starts_does_nothing(pipeline, views):
    reached = []
    with pytest.raises(CancelledError):
        pipeline.run(views, progress=lambda name, _: reached.append(name), cancelled=lambda: True)
    assert not reached


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": []}, "no views"),
        ({"hypotheses": 0}, "hypotheses"),
        ({"text_prompts": ["mug"]}, "text prompts need"),
        ({"boxes": [BoxPrompt("nowhere", (0, 0, 9, 9))]}, "nowhere"),
    ],
)
def test_input_that_no_stage_could_use_is_refused(pipeline, views, change, message):
    arguments = {"views": views, **change}
    with pytest.raises(InputError, match=message):
        pipeline.run(arguments.pop("views"), **arguments)


def test_two_views_of_one_name_are_refused(pipeline, views):
    with pytest.raises(InputError, match="unique"):
        pipeline.run([views[0], views[0]])


def test_a_failing_stage_is_named(views):
    blind = [replace(v, depth_m=np.full_like(v.depth_m, np.nan)) for v in views]
    with pytest.raises(StageError) as caught:
        Pipeline(PipelineConfig(stereo="depth_camera")).run(blind)
    assert caught.value.stage in ("stereo", "segmentation")


@pytest.mark.parametrize("field", ["stereo", "segmenter", "generator"])
def test_unknown_implementations_are_refused_at_once(field):
    with pytest.raises(InputError, match="nothing_like_this"):
        Pipeline(PipelineConfig(**{field: "nothing_like_this"}))
