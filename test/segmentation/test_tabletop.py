"""Tabletop segmentation of analytic and rendered scenes whose instance masks are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.segmentation import make_segmenter
from gena3d_core.simulation import Renderer, SceneSpec, default_scene, random_scene, views_from_scene
from gena3d_core.simulation.scene import ObjectSpec, TableSpec
from gena3d_core.stereo import make_stereo_matcher
from gena3d_core.types import BoxPrompt


@pytest.fixture(scope="module")
def segmenter():
    return make_segmenter("tabletop")


def rendered(spec, count, noise=True):
    """Views with cleaned depth, and (V, H, W) the instance of each pixel: 0 nothing, i + 1 object i."""
    renderer = Renderer(spec, shadow_samples=0)
    poses = spec.camera_path.poses(count)
    views = views_from_scene(spec, poses, noise=noise, seed=3, renderer=renderer)
    truth = np.stack([np.maximum(renderer.render(T).instance_ids, 0) for T in poses])
    return make_stereo_matcher("depth_camera")(views), truth


def matched_iou(segmentation, truth):
    """IoU (over all views together, so ids must agree) of each true object with the mask assigned to it."""
    count = int(truth.max())
    masks = [np.stack(o.visible_masks) for o in segmentation.objects]
    iou = np.zeros((count, len(masks)))
    for j, mask in enumerate(masks):
        inter = np.bincount(truth[mask], minlength=count + 1)[1:]
        union = np.bincount(truth.ravel(), minlength=count + 1)[1:] + mask.sum() - inter
        iou[:, j] = inter / union
    best = np.zeros(count)
    rows, cols = linear_sum_assignment(-iou)
    best[rows] = iou[rows, cols]
    return best


def object_at(name, kind, params, x_m, y_m, height_m):
    return ObjectSpec(name, kind, transforms.rigid(None, np.array([x_m, y_m, height_m / 2])), params)


@pytest.fixture(scope="module")
def laid_table():
    return rendered(default_scene(), 4)


@pytest.mark.parametrize("chosen", [(0,), (1, 2), (0, 1, 2, 3)])
def test_the_default_scene_is_told_apart_with_one_id_an_object(segmenter, laid_table, chosen):
    views, truth = laid_table
    result = segmenter([views[i] for i in chosen])
    assert len(result.objects) == truth.max()
    iou = matched_iou(result, truth[list(chosen)])
    assert iou.mean() > 0.9
    assert iou.min() > 0.8
    assert result.warnings == ()
    assert abs(float(result.support.height_m(np.zeros(3)))) < 0.005


def test_masks_do_not_overlap_and_scores_are_shares(segmenter, laid_table):
    views, _ = laid_table
    result = segmenter(views)
    assert len({o.id for o in result.objects}) == len(result.objects)
    for view in range(len(views)):
        assert np.sum([o.visible_masks[view] for o in result.objects], axis=0).max() <= 1
    for item in result.objects:
        assert 0.0 < item.score <= 1.0
        assert all(
            m.shape == v.color.shape[:2] and m.dtype == bool for m, v in zip(item.visible_masks, views, strict=True)
        )


def test_the_order_of_the_views_does_not_change_the_objects(segmenter, laid_table):
    views, truth = laid_table
    forward, backward = segmenter(views), segmenter(views[::-1])
    np.testing.assert_allclose(
        np.sort(matched_iou(forward, truth)), np.sort(matched_iou(backward, truth[::-1])), atol=0.02
    )


def test_the_support_does_not_depend_on_where_the_world_begins(segmenter, laid_table):
    views, truth = laid_table
    shift = transforms.rigid(transforms.Rotation.from_euler("z", 1.0).as_matrix(), np.array([3.0, -2.0, 0.7]))
    result = segmenter([replace(v, T_world_camera=shift @ v.T_world_camera) for v in views[:2]])
    assert matched_iou(result, truth[:2]).mean() > 0.9
    assert abs(float(result.support.height_m(np.array([3.0, -2.0, 0.7])))) < 0.005


def test_a_centimetre_of_drift_between_the_views_neither_splits_nor_loses_objects(segmenter, laid_table):
    views, truth = laid_table
    shifts = ((0.006, 0.0, 0.005), (-0.005, 0.005, -0.005), (0.0, -0.007, 0.004), (0.0, 0.006, -0.004))
    drifted = [
        replace(v, T_world_camera=transforms.rigid(None, np.array(s)) @ v.T_world_camera)
        for v, s in zip(views, shifts, strict=True)
    ]
    result = segmenter(drifted)
    assert len(result.objects) == truth.max()
    assert matched_iou(result, truth).min() > 0.7


def test_an_empty_table_gives_no_objects_and_says_so(segmenter):
    views, _ = rendered(SceneSpec(), 2)
    result = segmenter(views)
    assert result.objects == ()
    assert result.support is not None
    assert any("nothing stands" in warning for warning in result.warnings)


def test_sheets_of_paper_are_no_objects(segmenter):
    paper = object_at("magazine", "box", {"size_m": (0.21, 0.28, 0.014)}, -0.15, 0.0, 0.014)
    pile = object_at("pile", "box", {"size_m": (0.3, 0.25, 0.028)}, 0.2, 0.1, 0.028)
    mug = object_at("mug", "mug", {"radius_m": 0.04, "height_m": 0.095}, 0.0, -0.15, 0.095)
    views, truth = rendered(SceneSpec(objects=(paper, pile, mug)), 3)
    result = segmenter(views)
    assert len(result.objects) == 1
    assert np.stack(result.objects[0].visible_masks)[truth == 3].mean() > 0.8


def test_furniture_behind_the_table_is_no_object(segmenter):
    back = object_at("backrest", "box", {"size_m": (0.4, 0.03, 0.95)}, 0.0, 0.52, 0.95 - 2 * 0.74)
    mug = object_at("mug", "mug", {"radius_m": 0.04, "height_m": 0.095}, 0.0, 0.0, 0.095)
    spec = SceneSpec(objects=(back, mug), table=TableSpec(size_m=(1.3, 0.9)))
    spec = replace(spec, camera_path=replace(spec.camera_path, start_deg=-110.0, sweep_deg=40.0))
    views, truth = rendered(spec, 3)
    assert (truth == 1).sum() > 3000
    result = segmenter(views)
    assert len(result.objects) == 1
    assert np.stack(result.objects[0].visible_masks)[truth == 2].mean() > 0.8


def test_views_of_a_wall_have_no_support_plane(segmenter, solids):
    wall = solids.Box((0.0, 2.0, 0.0), (3.0, 0.1, 3.0))
    view, _ = solids.render((wall,), (0.0, 0.0, 0.5), (0.0, 2.0, 0.5), table=False)
    with pytest.raises(InputError, match="no support plane"):
        segmenter([view])


def test_views_without_depth_are_named(segmenter, laid_table):
    views, _ = laid_table
    with pytest.raises(InputError, match="'000001' has no depth"):
        segmenter([views[0], replace(views[1], depth_m=None, depth_confidence=None)])
    empty = replace(views[0], depth_m=np.full_like(views[0].depth_m, np.nan))
    with pytest.raises(InputError, match="no view has depth"):
        segmenter([empty])


def test_no_views_is_an_error(segmenter):
    with pytest.raises(InputError, match="no views"):
        segmenter([])


def box_around(mask):
    rows, cols = np.nonzero(mask)
    return (float(cols.min()), float(rows.min()), float(cols.max()), float(rows.max()))


def test_boxes_choose_objects_and_keep_their_order_labels_and_views(segmenter, laid_table):
    views, truth = laid_table
    names = [item.name for item in default_scene().objects]
    wanted = ["bottle", "bowl"]
    prompts = [BoxPrompt(views[1].name, box_around(truth[1] == names.index(name) + 1), label=name) for name in wanted]
    result = segmenter(views, prompts)
    assert [o.label for o in result.objects] == wanted
    assert [o.id for o in result.objects] == [1, 2]
    for item, name in zip(result.objects, wanted, strict=True):
        mask, true = np.stack(item.visible_masks), truth == names.index(name) + 1
        assert (mask & true).sum() / (mask | true).sum() > 0.8
        # Found in the views that were not prompted, too.
        assert all(m.any() for m, t in zip(mask, true, strict=True) if t.sum() > 500)


def test_a_box_makes_an_object_of_a_magazine_too(segmenter):
    paper = object_at("magazine", "box", {"size_m": (0.21, 0.28, 0.014)}, 0.0, 0.0, 0.014)
    views, truth = rendered(SceneSpec(objects=(paper,)), 2)
    assert segmenter(views).objects == ()
    result = segmenter(views, [BoxPrompt(views[0].name, box_around(truth[0] == 1), "magazine")])
    assert [o.label for o in result.objects] == ["magazine"]
    assert np.stack(result.objects[0].visible_masks)[truth == 1].mean() > 0.7


def test_an_empty_box_gives_a_warning_that_names_it(segmenter, laid_table):
    views, _ = laid_table
    result = segmenter(views, [BoxPrompt(views[0].name, (2.0, 2.0, 30.0, 30.0))])
    assert result.objects == ()
    assert any(views[0].name in warning and "(2, 2, 30, 30)" in warning for warning in result.warnings)


def test_a_box_in_an_unknown_view_is_an_error(segmenter, laid_table):
    views, _ = laid_table
    with pytest.raises(InputError, match="nowhere"):
        segmenter(views, [BoxPrompt("nowhere", (0.0, 0.0, 9.0, 9.0))])


def test_unknown_names_and_options_of_segmenters():
    with pytest.raises(InputError, match="tabletop"):
        make_segmenter("magic")
    with pytest.raises(InputError, match="colour"):
        make_segmenter("tabletop", colour=3)
    with pytest.raises(InputError, match="min_height_m"):
        make_segmenter("tabletop", min_height_m=0.7)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 6])
def test_most_of_a_crowded_table_is_told_apart(segmenter, seed):
    """Forty objects a few millimetres apart: those that touch may merge, but few do, and nothing is made up."""
    views, truth = rendered(random_scene(seed, 40), 4)
    visible = np.bincount(truth.ravel(), minlength=41)[1:] > 600
    iou = matched_iou(result := segmenter(views), truth)
    assert (iou[visible] > 0.5).sum() >= 0.5 * visible.sum()
    assert len(result.objects) <= 40
