"""The open-world procedure with an inpainter that knows the answer: what it must come to, by construction."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.amodal.inpainter import BackgroundRemoval, plain_background
from gena3d_core.amodal.occlusion import occlusion_masks
from gena3d_core.amodal.open_world import HiddenObject, OpenWorldConfig, complete_hidden_objects
from gena3d_core.amodal.order import hiding_order, in_front
from gena3d_core.errors import InputError

EYE, TARGET = (0.7, 0.0, 0.25), (0.0, 0.0, 0.04)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def hidden(color, masks, number, depth_m=None, occlusion=None, **more):
    order = hiding_order(masks, depth_m)
    front = in_front(order, masks, depth_m, number)
    nothing = np.zeros_like(masks[number])
    occluders = np.stack([masks[n] for n in front]) if front else np.zeros((0, *nothing.shape), bool)
    return HiddenObject(color, masks[number], occluders, nothing if occlusion is None else occlusion, **more)


@pytest.fixture(scope="module")
def post(solids, scripted):
    """A cylinder behind a post that splits it; and the inpainter that knows the cylinder."""
    scene = [solids.Cylinder((0.0, 0.0, 0.0), 0.05, 0.12), solids.Box((0.14, 0.0, 0.08), (0.01, 0.012, 0.08))]
    view, index = solids.render(scene, EYE, TARGET)
    alone, whole = solids.render(scene[:1], EYE, TARGET)
    masks = [index == 0, index == 1]
    return view, masks, whole == 0, lambda **more: scripted.ScriptedInpainter(alone.color, whole == 0, **more)


@pytest.mark.parametrize("with_depth", [True, False])
def test_the_whole_object_is_found(post, with_depth):
    view, masks, whole, make = post
    inpainter = make()
    item = hidden(view.color, masks, 0, view.depth_m if with_depth else None)
    (found,) = complete_hidden_objects([item], inpainter, inpainter.side)
    assert iou(masks[0], whole) < 0.85
    assert iou(found.amodal(masks[0]), whole) > 0.97
    assert found.picture.shape == view.color.shape
    assert found.origin_xy == (0, 0)
    assert found.stop == "no further occluder"
    assert found.iterations == 1


def test_visible_pixels_never_change(post, rng):
    view, masks, _, make = post
    inpainter = make()
    noisy = replace(view, color=rng.integers(0, 256, view.color.shape, dtype=np.uint8)).color
    (found,) = complete_hidden_objects([hidden(noisy, masks, 0)], inpainter, inpainter.side)
    assert found.completed.any()
    assert not (found.completed & masks[0]).any()
    # Neither does anything else but the object's guessed pixels.
    np.testing.assert_array_equal(found.picture[~found.completed], noisy[~found.completed])
    # What the network is shown of the scene is the object alone.
    task = inpainter.tasks[0]
    plain = ~task.visible & ~task.region
    away = np.linalg.norm(task.picture[plain].astype(float) - task.background, axis=-1)
    assert np.median(away) == 0


def test_an_object_that_nothing_hides_is_left_alone(post):
    view, masks, _, make = post
    inpainter = make()
    (found,) = complete_hidden_objects([hidden(view.color, masks, 1)], inpainter, inpainter.side)
    assert (found.stop, found.iterations, len(inpainter.tasks)) == ("nothing hides it", 0, 0)
    assert not found.completed.any()
    np.testing.assert_array_equal(found.picture, view.color)


def test_no_growth_stops(post):
    view, masks, _, make = post
    inpainter = make()
    inpainter.whole = masks[0]  # paints background in all of the region
    (found,) = complete_hidden_objects([hidden(view.color, masks, 0)], inpainter, inpainter.side)
    assert (found.stop, found.iterations) == ("no growth", 1)
    assert found.completed.sum() <= 0.005 * masks[0].sum()
    assert found.asked.any()


def drawn(shape, boxes):
    """A picture of rectangles (x0, y0, x1, y1), the later ones in front, and their visible masks."""
    color = np.full((*shape, 3), 90, np.uint8)
    index = np.full(shape, -1)
    colors = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        index[y0:y1, x0:x1] = number
        color[y0:y1, x0:x1] = colors[number]
    return color, [index == number for number in range(len(boxes))]


def test_what_hides_the_completed_part_comes_next(scripted):
    """A long bar: one block hides its middle, a second one its far end, which nobody could know at first."""
    boxes = [(20, 60, 200, 80), (60, 30, 120, 110), (119, 20, 230, 120)]
    color, masks = drawn((140, 260), boxes)
    alone, (whole,) = drawn((140, 260), boxes[:1])
    inpainter = scripted.ScriptedInpainter(alone, whole)
    # The second block does not touch what is seen of the bar.
    item = HiddenObject(color, masks[0], np.stack(masks[1:]), np.zeros_like(whole))
    config = OpenWorldConfig(max_iterations=8, margin=1.0)
    (found,) = complete_hidden_objects([item], inpainter, inpainter.side, config=config)
    assert found.iterations >= 2
    assert found.stop == "no further occluder"
    assert iou(found.amodal(masks[0]), whole) > 0.95
    (cut_short,) = complete_hidden_objects([item], inpainter, inpainter.side, config=replace(config, max_iterations=1))
    assert (cut_short.iterations, cut_short.stop) == (1, "iteration limit")
    assert 0.4 < iou(cut_short.amodal(masks[0]), whole) < 0.7
    # The second round must not paint anew what the first one painted.
    assert not (inpainter.tasks[0].region & inpainter.tasks[0].visible).any()
    assert (found.asked & cut_short.asked == cut_short.asked).all()


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_the_canvas_grows_where_the_image_cuts_the_object(scripted, side):
    big = np.full((300, 340, 3), 90, np.uint8)
    rows, cols = np.indices(big.shape[:2])
    whole = ((cols - 170) / 60.0) ** 2 + ((rows - 150) / 50.0) ** 2 < 1
    big[whole] = (180, 60, 30)
    # The camera sees all of it but a quarter.
    cuts = {
        "left": (140, 0, 340, 300),
        "right": (0, 0, 200, 300),
        "top": (0, 130, 340, 300),
        "bottom": (0, 0, 340, 170),
    }
    x0, y0, x1, y1 = cuts[side]
    color, visible = big[y0:y1, x0:x1], whole[y0:y1, x0:x1]
    inpainter = scripted.ScriptedInpainter(big, whole, origin_xy=(-x0, -y0))
    nothing = np.zeros_like(visible)
    item = HiddenObject(color, visible, np.zeros((0, *visible.shape), bool), nothing)
    (found,) = complete_hidden_objects([item], inpainter, inpainter.side)
    x, y = found.origin_xy
    height, width = color.shape[:2]
    truth = whole[y0 - y : y0 - y + len(found.picture), x0 - x : x0 - x + found.picture.shape[1]]
    assert whole.sum() * 0.99 <= truth.sum()
    assert iou(found.amodal(visible), truth) > 0.97
    np.testing.assert_array_equal(found.picture[y : y + height, x : x + width], color)
    grown = {
        "left": x,
        "top": y,
        "right": found.picture.shape[1] - width - x,
        "bottom": len(found.picture) - height - y,
    }
    assert grown.pop(side) > 20
    assert set(grown.values()) == {0}
    unbent = OpenWorldConfig(border_extension=0.0)
    (kept,) = complete_hidden_objects([item], inpainter, inpainter.side, config=unbent)
    assert (kept.stop, kept.picture.shape) == ("nothing hides it", color.shape)


def test_occlusion_masks_of_unknown_things_count(solids, scripted):
    """Without a segment of what hides it, the nearer surfaces in front of its likely extent do."""
    scene = [solids.Cylinder((0, 0, 0), 0.05, 0.12), solids.Box((0.15, 0.0, 0.1), (0.01, 0.012, 0.1))]
    observation = solids.observe(scene, [(0.7, 0.0, 0.3), (0.0, 0.7, 0.3)], number=0)
    masks = occlusion_masks(observation.views, observation.visible_masks, observation.points_m, observation.support)
    alone, index = solids.render(scene[:1], (0.7, 0.0, 0.3), (0, 0, 0.03))
    inpainter = scripted.ScriptedInpainter(alone.color, index == 0)
    visible = observation.visible_masks[0]
    item = HiddenObject(observation.views[0].color, visible, np.zeros((0, *visible.shape), bool), masks[0])
    (found,) = complete_hidden_objects([item], inpainter, inpainter.side)
    assert iou(found.amodal(visible), index == 0) > 0.95


def test_objects_together_are_as_objects_alone(post, solids):
    view, masks, _, make = post
    inpainter = make()
    items = [hidden(view.color, masks, n, view.depth_m, prompt="thing", seed=n) for n in (0, 1)]
    together = complete_hidden_objects(items, inpainter, inpainter.side)
    alone = [complete_hidden_objects([item], inpainter, inpainter.side)[0] for item in items]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.picture, b.picture)
        np.testing.assert_array_equal(a.completed, b.completed)


def test_background_differs_from_the_object():
    assert plain_background(np.full((50, 3), 230, np.uint8)) == (128, 128, 128)
    assert plain_background(np.full((50, 3), 128, np.uint8)) in {(255, 255, 255), (0, 0, 0)}
    assert plain_background(np.full((50, 3), 100, np.uint8)) == (255, 255, 255)
    assert plain_background(np.zeros((0, 3), np.uint8)) == (128, 128, 128)


def test_outline_without_a_network(post):
    view, masks, _, make = post
    inpainter = make()
    complete_hidden_objects([hidden(view.color, masks, 0)], inpainter, inpainter.side)
    task = inpainter.tasks[0]
    painted = inpainter([task])
    # JPEG-like noise of a network's decoder must not be taken for the object.
    noise = np.random.default_rng(0).normal(0, 4, painted[0].shape)
    noisy = np.clip(painted[0] + noise, 0, 255).astype(np.uint8)
    clean, dirty = BackgroundRemoval()([task, task], [painted[0], noisy])
    assert iou(clean, dirty) > 0.97
    assert (clean & task.visible).sum() == task.visible.sum()


def test_bad_input(post):
    view, masks, _, make = post
    item = HiddenObject(view.color, np.zeros_like(masks[0]), np.stack(masks), masks[1])
    with pytest.raises(InputError, match="without visible pixels"):
        complete_hidden_objects([item], make(), 64)
    with pytest.raises(InputError, match="occluders"):
        HiddenObject(view.color, masks[0], masks[1], masks[1])
    with pytest.raises(InputError, match="max_iterations"):
        OpenWorldConfig(max_iterations=0)
    with pytest.raises(InputError, match="margin"):
        OpenWorldConfig(margin=0.0)
