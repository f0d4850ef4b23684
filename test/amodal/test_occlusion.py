"""Occlusion masks of solids behind solids, against what a camera would see without the occluder."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.amodal.occlusion import OcclusionPair, front_depth, likely_extent, occlusion_masks, occlusion_pairs
from gena3d_core.errors import InputError
from gena3d_core.geometry import camera

EYES = [(0.7, 0.0, 0.3), (0.0, 0.7, 0.3)]


@pytest.fixture(scope="module")
def scene(solids):
    """A cylinder; from the first eye a post hides part of it, from the second nothing does."""
    return [solids.Cylinder((0, 0, 0), 0.05, 0.12), solids.Box((0.15, 0.0, 0.1), (0.01, 0.012, 0.1))]


@pytest.fixture(scope="module")
def observed(solids, scene):
    return [solids.observe(scene, EYES, number=n) for n in range(len(scene))]


def masks_of(observation):
    return occlusion_masks(observation.views, observation.visible_masks, observation.points_m, observation.support)


def test_hidden_pixels_are_found(solids, scene, observed):
    occluded = masks_of(observed[0])
    _, alone = solids.render(scene[:1], EYES[0], (0, 0, 0.03))
    truth = (alone == 0) & ~observed[0].visible_masks[0]
    overlap = (occluded[0] & truth).sum() / (occluded[0] | truth).sum()
    assert truth.sum() > 300
    assert overlap > 0.9
    assert occluded[1].sum() == 0


def test_visible_and_occluded_pixels_are_disjoint(observed):
    for observation in observed:
        for visible, occluded in zip(observation.visible_masks, masks_of(observation), strict=True):
            assert not (visible & occluded).any()


def test_the_front_object_is_not_hidden(observed):
    assert all(mask.sum() == 0 for mask in masks_of(observed[1]))


def test_extent_reaches_down_to_the_support(solids):
    # A low wall hides the foot of the cylinder from the only eye: the shadow on the support brings it back.
    scene = [solids.Cylinder((0, 0, 0), 0.05, 0.12), solids.Box((0.12, 0.0, 0.02), (0.01, 0.1, 0.02))]
    observation = solids.observe(scene, [(0.7, 0.0, 0.12)])
    _, alone = solids.render(scene[:1], (0.7, 0.0, 0.12), (0, 0, 0.03))
    truth = (alone == 0) & ~observation.visible_masks[0]
    with_support = masks_of(observation)[0]
    without = masks_of(replace(observation, support=None))[0]
    assert (with_support & truth).sum() > 0.9 * truth.sum()
    assert (without & truth).sum() < 0.2 * truth.sum()


def test_visibility_follows(observed):
    completed = replace(observed[0], occlusion_masks=masks_of(observed[0]))
    tau = completed.visibility
    assert tau[0] < 0.9
    assert tau[1] == 1.0


def test_who_hides_whom(observed):
    occlusions = [masks_of(observation) for observation in observed]
    pairs = occlusion_pairs([7, 9], [o.visible_masks for o in observed], occlusions)
    assert pairs == [OcclusionPair(hidden=7, occluder=9, view=0, pixels=int(occlusions[0][0].sum()))]
    assert occlusion_pairs([7, 9], [o.visible_masks for o in observed], occlusions, min_pixels=100_000) == []
    assert occlusion_pairs([], [], []) == []


def test_front_depth_of_a_box(solids):
    box = solids.Box((0, 0, 0.05), (0.04, 0.03, 0.05))
    corners = np.array([[x, y, z] for x in (-0.04, 0.04) for y in (-0.03, 0.03) for z in (0.0, 0.1)])
    hull = likely_extent(corners, None)
    view, index = solids.render([box], (0.5, 0.2, 0.4), (0, 0, 0.05))
    rows, cols = np.nonzero(index == 0)
    front = front_depth(hull, view.T_world_camera, camera.pixel_rays(view.intrinsics)[rows, cols])
    np.testing.assert_allclose(front, view.depth_m[rows, cols], atol=1e-4)


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.zeros((5, 3)), np.full((4, 3), np.nan), np.eye(3)])
def test_no_volume_no_masks(observed, points):
    view = observed[0].views[0]
    mask = occlusion_masks([view], [np.zeros(view.depth_m.shape, bool)], points, None)[0]
    assert mask.shape == view.depth_m.shape
    assert not mask.any()


def test_views_that_cannot_tell_give_empty_masks(observed):
    observation = observed[0]
    blind = replace(observation.views[0], depth_m=None)
    inside = replace(observation.views[0], T_world_camera=np.eye(4))
    for view in (blind, inside):
        masks = occlusion_masks([view], observation.visible_masks[:1], observation.points_m, None)
        assert not masks[0].any()


def test_masks_must_match_the_views(observed):
    with pytest.raises(InputError, match="2 views need as many masks, got 1"):
        occlusion_masks(observed[0].views, observed[0].visible_masks[:1], observed[0].points_m, None)
