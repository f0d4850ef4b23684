"""Prompts from places in the world: the view that sees them, what stands in front, and tabletop's answer to clicks."""

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry import camera, transforms
from gena3d_core.segmentation.pointing import click_prompts, object_boxes
from gena3d_core.segmentation.tabletop import Tabletop
from gena3d_core.types import Mesh, PointPrompt, ReconstructedObject

EYES = [(0.8, 0.1, 0.55), (0.1, 0.5, 0.4), (-0.6, 0.0, 0.6)]
SPHERE, SIDE = np.array([0.0, 0.0, 0.06]), np.array([0.25, 0.1, 0.05])
ON_SPHERE, ON_SIDE, BESIDE = np.array([0.0, 0.0, 0.12]), np.array([0.25, 0.1, 0.1]), np.array([0.3, 0.08, 0.05])


@pytest.fixture(scope="module")
def views(solids):
    things = [solids.Sphere(tuple(SPHERE), 0.06), solids.Box(tuple(SIDE), (0.05, 0.04, 0.05))]
    return [solids.render(things, eye, (0.1, 0.05, 0.03), name=f"view{i}")[0] for i, eye in enumerate(EYES)]


def pixel(view, point_m):
    in_camera = transforms.apply(transforms.inverse(view.T_world_camera), np.asarray(point_m, float))
    return camera.project(in_camera, view.intrinsics)[0]


def ball(center, radius, id=7, label="ball"):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(400, 3))
    vertices = (radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(np.float32)
    mesh = Mesh(vertices, np.zeros((0, 3), np.int32))
    T = transforms.rigid(t=np.asarray(center, float))
    return ReconstructedObject(id, label, 0.9, mesh, T_world_object=T, size_m=np.full(3, 2 * radius))


def test_a_click_goes_to_the_nearest_view_that_sees_the_place(views):
    top = ON_SPHERE
    prompts = click_prompts(views, [top], ["ball"])
    nearest = int(np.argmin([np.linalg.norm(np.array(eye) - top) for eye in EYES]))
    assert prompts[0].view == views[nearest].name
    assert prompts[0].label == "ball"
    np.testing.assert_allclose(prompts[0].points_xy[0], pixel(views[nearest], top), atol=1e-6)


def test_what_is_hidden_from_a_view_is_asked_of_another(views):
    # The side of the box that looks away from the second camera, which is the nearest by far.
    hidden = BESIDE
    assert click_prompts(views, [hidden])[0].view == "view0"


@pytest.mark.parametrize("place", [(0.0, 0.0, 5.0), (0.0, 0.0, 0.06), (30.0, 0.0, 0.0)])
def test_places_that_no_view_sees_are_refused(views, place):
    with pytest.raises(InputError, match=r"no view sees the clicked point"):
        click_prompts(views, [place])
    with pytest.raises(InputError, match="finite"):
        click_prompts(views, [(np.nan, 0.0, 0.0)])


def test_no_point_is_no_prompt(views):
    assert click_prompts(views, []) == []
    assert object_boxes(views, []) == []


def test_an_object_is_asked_for_by_the_box_of_what_is_seen_of_it(views):
    prompt = object_boxes(views, [ball(SPHERE, 0.06)])[0]
    assert prompt.label == "ball"
    view = next(view for view in views if view.name == prompt.view)
    x, y = pixel(view, SPHERE)
    x_min, y_min, x_max, y_max = prompt.box_xyxy
    assert x_min < x < x_max
    assert y_min < y < y_max
    depth = np.linalg.norm(view.T_world_camera[:3, 3] - SPHERE)
    assert x_max - x_min == pytest.approx(2 * 0.06 * view.intrinsics.fx / depth, rel=0.25)
    with pytest.raises(InputError, match="object 7 is seen in none of the 3 views"):
        object_boxes(views, [ball((0.0, 0.0, 3.0), 0.06)])


@pytest.mark.parametrize("place", [ON_SPHERE, ON_SIDE])
def test_tabletop_takes_clicks(views, place):
    prompt = click_prompts(views, [place], ["clicked"])[0]
    found = Tabletop()(views, [prompt])
    assert [item.label for item in found.objects] == ["clicked"]
    points = np.concatenate(
        [camera.world_points(v)[m] for v, m in zip(views, found.objects[0].visible_masks, strict=True)]
    )
    assert np.ptp(points[:, 2]) == pytest.approx(place[2], abs=0.02)
    assert np.linalg.norm(points[:, :2].mean(axis=0) - place[:2]) < 0.03


def test_clicks_in_order_and_beside(views):
    one, other = click_prompts(views, [ON_SPHERE, ON_SIDE])
    found = Tabletop()(views, [other, one])
    assert [item.id for item in found.objects] == [1, 2]
    first = camera.world_points(views[0])[found.objects[0].visible_masks[0]]
    assert first[:, 0].mean() > 0.15
    # What is clicked both as part of it and as beside it is not it.
    view, (x, y) = one.view, one.points_xy[0]
    contradiction = PointPrompt(view, ((x, y), (x + 1, y)), (True, False))
    empty = PointPrompt(view, ((2.0, 2.0),))
    nothing = Tabletop()(views, [contradiction, empty])
    assert nothing.objects == ()
    assert len(nothing.warnings) == 2
    assert "click (2, 2)" in nothing.warnings[1]
