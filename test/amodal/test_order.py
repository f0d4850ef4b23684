"""Who hides whom: rendered solids with known answers, and drawn outlines where depth is missing."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.amodal.order import Hiding, hiding_order, in_front, touching_pairs
from gena3d_core.errors import InputError

SHAPE = (120, 160)
EYE = (0.7, 0.0, 0.25)
TARGET = (0.0, 0.0, 0.04)


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SHAPE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def disc(x, y, radius):
    return cv2.circle(np.zeros(SHAPE, np.uint8), (x, y), radius, 1, -1).astype(bool)


@pytest.fixture(scope="module")
def three(solids):
    """Seen from +x, in one line: a post in front of a cylinder in front of a tall box; a sphere apart."""
    scene = [
        solids.Box((-0.16, 0.0, 0.1), (0.02, 0.09, 0.1)),
        solids.Cylinder((0.0, 0.0, 0.0), 0.05, 0.12),
        solids.Box((0.14, 0.01, 0.05), (0.01, 0.012, 0.05)),
        solids.Sphere((0.0, 0.22, 0.04), 0.04),
    ]
    view, index = solids.render(scene, EYE, TARGET)
    return view, [index == n for n in range(len(scene))]


def pairs(order):
    return [(hiding.front, hiding.back) for hiding in order]


def test_depth_tells_who_is_in_front(three):
    view, masks = three
    order = hiding_order(masks, view.depth_m)
    assert pairs(order) == [(1, 0), (2, 1)]
    assert {hiding.cue for hiding in order} == {"depth"}


def test_outlines_tell_the_same(three):
    _, masks = three
    order = hiding_order(masks)
    assert pairs(order) == [(1, 0), (2, 1)]
    assert "depth" not in {hiding.cue for hiding in order}


def test_things_side_by_side_do_not_hide_each_other(solids):
    # Two boxes on the table, equally far: they touch in the image, without a step in depth.
    scene = [solids.Box((0, 0.0301, 0.03), (0.03, 0.03, 0.03)), solids.Box((0, -0.0301, 0.03), (0.03, 0.03, 0.03))]
    view, index = solids.render(scene, EYE, TARGET)
    masks = [index == 0, index == 1]
    assert touching_pairs(np.stack(masks)) == [(0, 1)]
    assert hiding_order(masks, view.depth_m) == []


def test_each_may_hide_a_part_of_the_other(solids):
    # A bar leans across: nearer at one end, farther at the other, as two boxes whose halves alternate.
    near, far = rectangle(20, 20, 140, 50), rectangle(20, 50, 140, 80)
    depth = np.full(SHAPE, 1.0, np.float32)
    depth[20:50, 80:] = 0.9
    depth[50:80, :80] = 0.9
    assert pairs(hiding_order([near, far], depth)) == [(0, 1), (1, 0)]


def test_depth_holes_leave_the_outlines(three):
    view, masks = three
    blind = np.full_like(view.depth_m, np.nan)
    assert hiding_order(masks, blind) == hiding_order(masks)


@pytest.mark.parametrize(
    ("front", "back", "cue"),
    [
        (disc(80, 60, 25), rectangle(20, 30, 90, 90), "bite"),
        # A bar over the end of another: no bite, but the bar's side goes on straight.
        (rectangle(80, 10, 100, 110), rectangle(20, 45, 80, 75), "junction"),
        # Equal halves: the lower one stands nearer.
        (rectangle(40, 60, 100, 100), rectangle(40, 20, 100, 60), "height"),
    ],
)
def test_cues_of_outlines(front, back, cue):
    visible = back & ~front
    assert hiding_order([front, visible]) == [Hiding(0, 1, cue)]
    assert hiding_order([visible, front]) == [Hiding(1, 0, cue)]


@given(
    x=st.integers(50, 110), y=st.integers(40, 80), radius=st.integers(14, 22), mirrored=st.booleans(),
    upside_down=st.booleans(),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_a_disc_before_a_bar_is_in_front(x, y, radius, mirrored, upside_down):
    """Whatever way the picture is turned: what takes the bite is in front."""
    front, back = disc(x, y, radius), rectangle(10, 50, 150, 70)
    flips = (slice(None, None, -1 if upside_down else 1), slice(None, None, -1 if mirrored else 1))
    masks = [front[flips], (back & ~front)[flips]]
    assert pairs(hiding_order(masks)) == [(0, 1)] or not touching_pairs(np.stack(masks))


def test_in_front_follows_chains_and_depth(three):
    view, masks = three
    order = hiding_order(masks)
    assert in_front(order, masks, None, 0) == [1, 2]
    assert in_front(order, masks, None, 1) == [2]
    assert in_front(order, masks, None, 2) == []
    # Nearer as a whole and apart from it in the image: the post and the sphere. The cylinder touches it.
    assert in_front([], masks, view.depth_m, 0) == [2, 3]
    # What the target itself hides is never before it, even if it is nearer as a whole.
    assert in_front([Hiding(0, 2, "depth")], masks, view.depth_m, 0) == [3]


def test_nothing_to_compare():
    assert hiding_order([]) == []
    assert hiding_order([rectangle(0, 0, 20, 20)]) == []
    assert hiding_order([rectangle(0, 0, 20, 20), rectangle(60, 60, 80, 80)]) == []
    with pytest.raises(InputError, match="one size"):
        hiding_order([rectangle(0, 0, 20, 20), np.zeros((5, 5), bool)])
    with pytest.raises(InputError, match="depth_m"):
        hiding_order([rectangle(0, 0, 20, 20)], np.zeros((5, 5), np.float32))


def random_solids(solids, rng, count=3):
    """Boxes, cylinders and spheres apart from one another on the table."""
    found, places = [], []
    while len(found) < count:
        place = rng.uniform(-0.15, 0.15, 2)
        if any(np.hypot(*(place - other)) < 0.09 for other in places):
            continue
        (x, y), width, depth = place, *rng.uniform(0.015, 0.04, 2)
        height = rng.uniform(0.04, 0.15)
        radius = rng.uniform(0.02, 0.04)
        places.append(place)
        found.append(
            (
                solids.Box((x, y, height / 2), (width, depth, height / 2)),
                solids.Cylinder((x, y, 0.0), width, height),
                solids.Sphere((x, y, radius), radius),
            )[rng.integers(3)]
        )
    return found


def test_random_scenes_against_what_is_seen_without_the_others(solids, rng):
    """The truth: pixels of an object, rendered alone, that show another one in the scene."""
    found = {"depth": [], "outlines": []}
    for _ in range(40):
        scene = random_solids(solids, rng)
        angle = rng.uniform(0, 2 * np.pi)
        eye = (0.7 * np.cos(angle), 0.7 * np.sin(angle), rng.uniform(0.15, 0.5))
        view, index = solids.render(scene, eye, TARGET)
        masks = [index == number for number in range(len(scene))]
        alone = [solids.render([solid], eye, TARGET)[1] == 0 for solid in scene]
        orders = {"depth": hiding_order(masks, view.depth_m), "outlines": hiding_order(masks)}
        for back, front in np.argwhere([[(whole & mask).sum() >= 30 for mask in masks] for whole in alone]):
            if front == back or not masks[back].any():
                continue
            for name, order in orders.items():
                found[name].append(1 if (front, back) in pairs(order) else -1 if (back, front) in pairs(order) else 0)
    depth, outlines = np.array(found["depth"]), np.array(found["outlines"])
    assert len(depth) >= 15
    assert (depth == 1).mean() >= 0.9
    assert not (depth == -1).any()
    # Outlines alone may err: a high object can stand behind a low one and look bitten into.
    assert (outlines == 1).mean() >= 0.75
