"""Keyframes: never too many, sharp before blurred, the same whatever the order."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry.transforms import look_at
from gena3d_core.types import Intrinsics, View
from gena3d_core.views import (
    KeyframeConfig,
    KeyframeSelector,
    image_quality,
    select_keyframes,
    select_poses,
    sharpness,
)

INTRINSICS = Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
_rng = np.random.default_rng(7)
CRISP = _rng.integers(30, 220, (48, 64, 3), dtype=np.uint8)
BLURS = [CRISP, *(cv2.GaussianBlur(CRISP, (0, 0), sigma) for sigma in (0.8, 1.5, 3.0))]
SECOND = 1_000_000_000


def pose(azimuth: float, radius_m: float = 1.0) -> np.ndarray:
    return look_at(np.array([radius_m * np.cos(azimuth), radius_m * np.sin(azimuth), 0.6]), np.zeros(3))


def view(azimuth: float, blur: int = 0, second: float = 0.0, radius_m: float = 1.0) -> View:
    return View(
        BLURS[blur],
        INTRINSICS,
        pose(azimuth, radius_m),
        stamp_ns=round(second * SECOND),
        name=f"{azimuth:.4f}/{blur}/{second}/{radius_m}",
    )


streams = st.lists(
    st.builds(
        view,
        st.floats(0, 6.28),
        st.integers(0, 3),
        st.integers(0, 40).map(lambda n: n / 4),
        st.sampled_from([0.6, 1.0]),
    ),
    max_size=14,
    unique_by=lambda v: v.name,
)


def test_sharpness_falls_with_blur_and_ignores_gain():
    values = [sharpness(image) for image in BLURS]
    assert values == sorted(values, reverse=True)
    assert values[0] > 3 * values[2]
    dimmed = (0.5 * CRISP.astype(float) + 0.5).astype(np.uint8)
    assert sharpness(dimmed) == pytest.approx(values[0], rel=0.05)


def test_blank_and_badly_exposed_images():
    assert sharpness(np.full((48, 64, 3), 128, np.uint8)) == 0
    assert image_quality(np.zeros((48, 64, 3), np.uint8)).exposed_fraction == 0
    assert image_quality(CRISP).exposed_fraction == 1
    with pytest.raises(InputError, match="uint8"):
        sharpness(np.zeros((4, 4), np.float32))


def test_large_images_are_judged_like_small_ones():
    large = cv2.resize(CRISP, (1920, 1440), interpolation=cv2.INTER_NEAREST)
    assert image_quality(large).exposed_fraction == 1


@given(streams, st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_selector_keeps_at_most_n_and_says_what_left(stream, count):
    selector = KeyframeSelector(KeyframeConfig(max_views=count, recheck_interval_s=0))
    held: set[str] = set()
    for offered in stream:
        wanted = selector.wants_pose(offered.T_world_camera, offered.stamp_ns)
        decision = selector.offer(offered)
        assert wanted or not decision.kept, "a view that would have been kept was not asked for"
        held = (held - set(decision.removed)) | ({offered.name} if decision.kept else set())
        assert held == {kept.name for kept in selector.views}
        assert len(held) <= count
    assert bool(stream) == bool(selector.views)


@given(streams, st.integers(1, 6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_offline_selection_ignores_the_order(stream, count, random):
    shuffled = list(stream)
    random.shuffle(shuffled)
    first, second = select_keyframes(stream, count), select_keyframes(shuffled, count)
    assert [v.name for v in first] == [v.name for v in second]
    assert len(first) == min(count, len(stream))
    assert [v.stamp_ns for v in first] == sorted(v.stamp_ns for v in first)


@given(st.integers(0, 2), st.integers(1, 3), st.floats(0, 6))
def test_clearly_sharper_view_at_the_same_pose_wins(blur, extra, azimuth):
    sharp, blurred = view(azimuth, blur, 0.0), view(azimuth, min(blur + extra, 3), 1.0)
    others = [view(azimuth + 2, 1, 2.0), view(azimuth + 4, 1, 3.0)]
    for order in ([sharp, blurred], [blurred, sharp]):
        selector = KeyframeSelector(KeyframeConfig(max_views=4, recheck_interval_s=0))
        for offered in (*others, *order):
            selector.offer(offered)
        names = {kept.name for kept in selector.views}
        assert sharp.name in names
        assert blurred.name not in names
    chosen = {v.name for v in select_keyframes([*others, blurred, sharp], 3)}
    assert chosen == {sharp.name, *(v.name for v in others)}


def test_offline_selection_spreads_the_views():
    close = [view(0.01 * i, second=i) for i in range(10)]
    far = [view(2.1, second=10), view(4.2, second=11)]
    chosen = select_keyframes([*close, *far], 3)
    assert {v.name for v in far} <= {v.name for v in chosen}


def test_full_selector_drops_the_most_redundant_view():
    selector = KeyframeSelector(KeyframeConfig(max_views=3))
    for offered in (view(0.0, second=0), view(0.2, second=1), view(2.0, second=2)):
        assert selector.offer(offered).kept
    decision = selector.offer(view(4.2, second=3))
    assert decision.kept
    assert decision.removed in ((view(0.0, second=0).name,), (view(0.2, second=1).name,))


def test_a_view_between_two_kept_ones_is_refused_when_full():
    selector = KeyframeSelector(KeyframeConfig(max_views=3))
    for i in range(3):
        selector.offer(view(2.1 * i, second=i))
    between = view(0.15, second=4)
    decision = selector.offer(between)
    assert not decision.kept
    assert "less" in decision.reason


def test_repeats_are_rechecked_no_more_often_than_asked():
    selector = KeyframeSelector(KeyframeConfig(recheck_interval_s=0.5))
    selector.offer(view(0.0, second=10))
    assert not selector.wants_pose(pose(0.0), round(10.3 * SECOND))
    assert selector.wants_pose(pose(0.0), round(10.6 * SECOND))
    assert selector.wants_pose(pose(0.0), 9 * SECOND), "a clock that jumped back must not silence the camera"


def test_old_views_expire_and_give_way_to_fresh_ones():
    selector = KeyframeSelector(KeyframeConfig(max_age_s=10))
    selector.offer(view(0.0, second=0))
    assert selector.offer(view(0.0, second=6)).kept, "the kept view is past half its life"
    assert selector.offer(view(3.0, second=12)).removed == ()
    assert selector.offer(view(2.0, second=17)).removed == (view(0.0, second=6).name,)


def test_half_life_prefers_recent_views():
    stream = [view(0.4 * i, second=10 * i) for i in range(8)]
    kept = {}
    for half_life in (float("inf"), 5.0):
        selector = KeyframeSelector(KeyframeConfig(max_views=3, half_life_s=half_life))
        for offered in stream:
            selector.offer(offered)
        kept[half_life] = min(v.stamp_ns for v in selector.views)
    assert kept[5.0] > kept[float("inf")]


def test_force_keeps_any_view_but_never_too_many():
    selector = KeyframeSelector(KeyframeConfig(max_views=2))
    for i in range(4):
        assert selector.offer(view(0.0, blur=3, second=i), force=True).kept
        assert len(selector.views) <= 2
    assert view(0.0, blur=3, second=3).name in {v.name for v in selector.views}


def test_dark_views_are_refused_with_the_reason():
    selector = KeyframeSelector()
    decision = selector.offer(replace(view(0.0), color=np.zeros((48, 64, 3), np.uint8)))
    assert not decision.kept
    assert "exposed" in decision.reason
    assert selector.views == ()


def test_turning_on_the_spot_is_a_new_view_and_rolling_is_not():
    selector = KeyframeSelector()
    selector.offer(view(0.0))
    turned, rolled = pose(0.0).copy(), pose(0.0).copy()
    turned[:3, :3] = turned[:3, :3] @ cv2.Rodrigues(np.array([0.0, 0.3, 0.0]))[0]
    rolled[:3, :3] = rolled[:3, :3] @ cv2.Rodrigues(np.array([0.0, 0.0, 1.0]))[0]
    assert selector.offer(replace(view(0.0, second=1), T_world_camera=turned, name="turned")).kept
    assert not selector.offer(replace(view(0.0, second=1), T_world_camera=rolled, name="rolled")).kept


@pytest.mark.parametrize(
    "wrong", [{"max_views": 0}, {"min_baseline_m": 0}, {"sharper_ratio": 0.5}, {"max_age_s": -1}, {"replace_gain": 0.9}]
)
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        KeyframeConfig(**wrong)


def test_no_views_and_no_room():
    assert select_keyframes([], 3) == []
    assert select_poses(np.zeros((0, 4, 4)), 3) == []
    with pytest.raises(InputError, match="max_views"):
        select_keyframes([view(0.0)], 0)
