"""The procedure on the demo's laid table, with the noise of a depth camera, against every object rendered alone."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.amodal.open_world import complete_hidden_objects
from gena3d_core.amodal.views import hidden_objects
from gena3d_core.observation import build_observations
from gena3d_core.simulation import default_scene, views_from_scene
from gena3d_core.simulation.renderer import Renderer
from gena3d_core.types import ObjectMask, Segmentation, SupportPlane

VIEWS = (2, 3)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture(scope="module")
def table():
    """Observations with true visible masks; and of each object, each view of it alone."""
    spec = default_scene()
    renderer = Renderer(spec, shadow_samples=0)
    poses = spec.camera_path.poses(4)[list(VIEWS)]
    views = views_from_scene(spec, poses, renderer=renderer)
    shown = [renderer.render(pose, antialias=False).instance_ids for pose in poses]
    objects = [
        ObjectMask(number, item.name, 1.0, tuple(ids == number for ids in shown))
        for number, item in enumerate(spec.objects, start=1)
    ]
    support = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
    alone = {}
    for number, item in enumerate(spec.objects, start=1):
        only = Renderer(replace(spec, objects=(item,)), shadow_samples=0)
        alone[number] = [only.render(pose, antialias=False) for pose in poses]
    return build_observations(views, Segmentation(tuple(objects), support)), alone


def without_depth(observation):
    """The same as if no camera measured depth: no occlusion masks either."""
    return replace(
        observation,
        views=tuple(replace(view, depth_m=None) for view in observation.views),
        occlusion_masks=tuple(np.zeros_like(mask) for mask in observation.occlusion_masks),
    )


@pytest.mark.parametrize("with_depth", [True, False])
def test_hidden_parts_are_found_and_nothing_else(table, scripted, with_depth):
    observations, alone = table
    if not with_depth:
        observations = [without_depth(observation) for observation in observations]
    before, after, untouched = [], [], []
    for view in range(len(VIEWS)):
        for number, item in hidden_objects(observations, view, 0, "{label}").items():
            truth = alone[observations[number].id][view]
            whole = truth.instance_ids == 1
            inpainter = scripted.ScriptedInpainter(truth.color, whole)
            (found,) = complete_hidden_objects([item], inpainter, inpainter.side)
            x, y = found.origin_xy
            amodal = found.amodal(item.visible)[y : y + whole.shape[0], x : x + whole.shape[1]]
            seen = item.visible.sum() / whole.sum()
            if seen < 0.97:
                before.append(iou(item.visible, whole))
                after.append(iou(amodal, whole))
            else:
                untouched.append(iou(amodal, whole))
    # Among them a can of which a sixth shows, and an apple of which half does.
    assert len(before) >= 5
    assert min(before) < 0.2
    assert min(after) > 0.97
    assert np.mean(after) > 0.985
    assert min(untouched) > 0.99
