"""Scores of scenes: answers known by construction, what each figure reacts to, and what is matched with what."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.mesh import make_mesh, transformed
from gena3d_core.metrics.scene_alignment import align_clouds, centred_starts
from gena3d_core.metrics.scene_objects import PlacedMesh, box_iou, solid_overlap, surface_collision
from gena3d_core.metrics.scene_scores import LIMITS, Agreement, TrueScene, mean_agreement, score_scene
from gena3d_core.simulation.primitives import box, sphere

UNIT_BOX = box((1.0, 0.6, 0.4), bevel_m=0.0)
EMPTY = make_mesh(np.zeros((0, 3)), np.zeros((0, 3)))


def at(*position: float, scale: float = 1.0, yaw_deg: float = 0.0) -> np.ndarray:
    R = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix()
    return transforms.rigid(scale * R, np.array(position))


def scene() -> list[PlacedMesh]:
    """A long box, a small box beside it, a ball; apart from each other, on the table."""
    return [
        PlacedMesh(0, UNIT_BOX, at(0.0, 0.0, 0.04, scale=0.2)),
        PlacedMesh(1, box((1.0, 1.0, 1.8), bevel_m=0.0), at(0.05, 0.2, 0.09, scale=0.1, yaw_deg=30.0)),
        PlacedMesh(2, sphere(0.5), at(-0.2, 0.1, 0.06, scale=0.12)),
    ]


def moved(objects: list[PlacedMesh], S: np.ndarray) -> list[PlacedMesh]:
    return [PlacedMesh(item.id, item.mesh, S @ item.S_world_object) for item in objects]


@pytest.fixture(scope="module")
def truth() -> TrueScene:
    return TrueScene.measure(scene())


def test_the_truth_scores_best_without_alignment(truth):
    scores = score_scene(scene(), truth, alignment="none", object_alignment="none")
    assert scores.scene.chamfer < 1e-3
    assert scores.scene.f == (1.0,) * len(LIMITS)
    assert scores.shape.f == scores.in_place.f == (1.0,) * len(LIMITS)
    assert scores.iou_b == pytest.approx(1.0)
    assert scores.found == 1.0
    assert scores.overlap == 0.0
    assert scores.extra == 0


def test_a_relative_scene_in_any_frame_is_laid_on_the_truth(truth):
    """As SceneGen gives it: in the frame and the unit of the query, here turned by 110° and a fifth of the size."""
    S = at(3.0, -1.0, 0.5, scale=5.0, yaw_deg=110.0)
    scores = score_scene(moved(scene(), S), truth, alignment="similarity", object_alignment="none")
    np.testing.assert_allclose(scores.S_truth_predicted @ S, np.eye(4), atol=0.02)
    assert scores.scene.chamfer < 0.02
    assert scores.scene.f[1] > 0.95
    assert scores.iou_b > 0.9


def test_a_metric_scene_keeps_its_scale(truth):
    scores = score_scene(moved(scene(), at(0.03, 0, 0, scale=1.5)), truth, alignment="rigid", object_alignment="none")
    S = scores.S_truth_predicted
    np.testing.assert_allclose(S[:3, :3] @ S[:3, :3].T, np.eye(3), atol=1e-9)
    assert scores.scene.f[0] < 0.7


def test_a_misplaced_object_costs_the_scene_but_not_its_own_shape(truth):
    wrong = scene()
    wrong[2] = PlacedMesh(2, wrong[2].mesh, at(-0.2, -0.15, 0.06, scale=0.12, yaw_deg=0.0))
    scores = score_scene(wrong, truth, alignment="none", object_alignment="similarity")
    figures = scores.objects[2]
    assert figures.shape.f[1] > 0.95
    assert figures.in_place.f[1] < 0.1
    assert figures.box_iou == 0.0
    # 0.25 m of a ball of 0.12 m: two sides each way, little less where the balls face one another.
    assert 3.0 < figures.in_place.chamfer < 4.2
    assert scores.objects[0].in_place.f == (1.0,) * len(LIMITS)
    assert scores.scene.f[1] < 0.9


def test_object_figures_are_in_units_of_the_object(truth):
    wrong = scene()
    wrong[2] = PlacedMesh(2, sphere(0.55), wrong[2].S_world_object)
    figures = score_scene(wrong, truth, alignment="none", object_alignment="none").objects[2]
    assert figures.shape.chamfer == pytest.approx(0.1, abs=0.01)  # a twentieth of its diameter, both ways
    assert figures.shape.f[0] == 0.0
    assert figures.box_iou == pytest.approx(1.1**-3, abs=0.01)


def test_missing_empty_and_extra_objects_count(truth):
    items = scene()
    predicted = [items[0], PlacedMesh(1, EMPTY, np.eye(4)), PlacedMesh(7, sphere(0.5), at(0.3, 0, 0, scale=0.1))]
    scores = score_scene(predicted, truth, alignment="none", object_alignment="none")
    assert [item.found for item in scores.objects] == [True, False, False]
    assert scores.objects[1].shape == Agreement.nothing()
    assert scores.found == pytest.approx(1 / 3)
    assert scores.iou_b == pytest.approx(1 / 3)
    assert scores.extra == 1
    assert scores.scene.f[1] < 0.8


def test_an_empty_prediction_scores_worst_and_stops_nobody(truth):
    scores = score_scene([], truth)
    assert scores.scene == Agreement.nothing()
    assert scores.shape.chamfer == 2.0
    assert (scores.iou_b, scores.found, scores.iou_scene, scores.overlap) == (0.0, 0.0, 0.0, 0.0)
    np.testing.assert_array_equal(scores.S_truth_predicted, np.eye(4))


def test_objects_are_matched_by_their_ids_and_not_by_their_order(truth):
    back = score_scene(scene()[::-1], truth, alignment="none", object_alignment="none")
    assert [item.id for item in back.objects] == [0, 1, 2]
    assert back.iou_b == pytest.approx(1.0)
    swapped = [
        PlacedMesh(item.id, other.mesh, other.S_world_object)
        for item, other in zip(scene(), scene()[::-1], strict=True)
    ]
    assert score_scene(swapped, truth, alignment="none", object_alignment="none").iou_b < 0.5


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_box_iou_of_shifted_boxes(shift: float):
    other = transformed(UNIT_BOX, at(shift, 0.0, 0.0))
    assert box_iou(UNIT_BOX, other) == pytest.approx(max(0.0, 1 - shift) / (1 + min(shift, 1.0)), abs=1e-6)
    assert box_iou(UNIT_BOX, EMPTY) == 0.0


@settings(deadline=None, max_examples=10)
@given(st.floats(0.1, 10.0), st.floats(-3.0, 3.0), st.floats(0.0, 0.9))
def test_overlap_of_two_boxes_in_any_unit(scale: float, place: float, shift: float):
    cube = box((1.0, 1.0, 1.0), bevel_m=0.0)
    S = at(place, -place, 0.0, scale=scale)
    both = [PlacedMesh(0, cube, S), PlacedMesh(1, cube, S @ at(shift, 0.0, 0.0))]
    assert solid_overlap(both, 64) == pytest.approx((1 - shift) / (1 + shift), abs=0.05)


def test_contact_is_no_overlap_but_shares_surface_voxels():
    cube = box((1.0, 1.0, 1.0), bevel_m=0.0)
    stacked = [PlacedMesh(0, cube, np.eye(4)), PlacedMesh(1, cube, at(0.0, 0.0, 1.0))]
    assert solid_overlap(stacked) == 0.0
    assert 0.02 < surface_collision(stacked) < 0.25  # two of twelve faces
    apart = [PlacedMesh(0, cube, np.eye(4)), PlacedMesh(1, cube, at(0.0, 0.0, 1.2))]
    assert surface_collision(apart) == solid_overlap(apart) == 0.0
    assert surface_collision(stacked[:1]) == solid_overlap(stacked[:1]) == 0.0


def test_open_meshes_take_up_what_they_enclose():
    cube = box((1.0, 1.0, 1.0), bevel_m=0.0)
    opened = make_mesh(cube.vertices, cube.faces[1:])
    assert len(opened.faces) > 11
    both = [PlacedMesh(0, opened, np.eye(4)), PlacedMesh(1, cube, at(0.5, 0.0, 0.0))]
    assert 0.0 <= solid_overlap(both, 32) <= 0.5


def test_starts_lie_on_the_truth_in_size_and_place():
    rng = np.random.default_rng(0)
    source = rng.normal(size=(500, 3))
    S = transforms.rigid(3.0 * np.eye(3), np.array([1.0, 2.0, 3.0]))
    target = transforms.apply(S, source)
    starts = centred_starts(source, target, scaled=True)
    np.testing.assert_allclose(starts[0], S, atol=1e-9)
    up = np.array([0.0, 1.0, 0.0])
    for start in centred_starts(source, target, scaled=False, up=up):
        np.testing.assert_allclose(start[:3, :3] @ up, up, atol=1e-9)
        np.testing.assert_allclose(transforms.apply(start, source.mean(axis=0)), target.mean(axis=0))


def test_what_cannot_be_scored_is_refused(truth):
    with pytest.raises(InputError, match="ids"):
        score_scene([scene()[0], scene()[0]], truth)
    with pytest.raises(InputError, match="at least one"):
        TrueScene.measure([])
    with pytest.raises(InputError, match="area"):
        TrueScene.measure([PlacedMesh(0, EMPTY, np.eye(4))])
    with pytest.raises(InputError, match="alignment"):
        align_clouds(np.eye(3), np.eye(3), "affine")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not all the same"):
        centred_starts(np.ones((20, 3)), np.eye(3), scaled=True)
    with pytest.raises(InputError):
        PlacedMesh(0, UNIT_BOX, np.diag([1.0, 2.0, 1.0, 1.0]))
    with pytest.raises(InputError, match=r"\(4, 4\)"):
        PlacedMesh(0, UNIT_BOX, np.eye(3))
    with pytest.raises(InputError):
        mean_agreement([])
