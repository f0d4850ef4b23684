"""The plane sweep as a whole, on scenes whose depth is known exactly."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry.transforms import look_at, rigid
from gena3d_core.metrics.depth import depth_error
from gena3d_core.stereo import make_stereo_matcher
from gena3d_core.types import View

TARGET = np.array([0.0, 0.0, 0.05])
GROUND = [((0.0, 0.0, 1.0), 0.0)]
SPHERES = [((0.0, 0.0, 0.12), 0.12)]


def eyes(count: int, elevation_deg: float = 35.0, spread_deg: float = 9.0, distance_m: float = 1.0) -> list[np.ndarray]:
    """Poses on an arc around the target."""
    azimuth = np.radians(spread_deg * (np.arange(count) - (count - 1) / 2.0))
    e = np.radians(elevation_deg)
    offset = np.stack([np.cos(e) * np.sin(azimuth), -np.cos(e) * np.cos(azimuth), np.full(count, np.sin(e))], axis=1)
    return [look_at(TARGET + distance_m * o, TARGET) for o in offset]


def fronto_poses() -> list[np.ndarray]:
    """Three cameras side by side, 8 cm apart, that look along world y."""
    R = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    return [rigid(R, (x, 0.0, 0.5)) for x in (-0.08, 0.0, 0.08)]


def named(views: list[View]) -> list[View]:
    return [replace(view, name=f"v{i}") for i, view in enumerate(views)]


def blind(views: list[View]) -> list[View]:
    return [replace(view, depth_m=None) for view in views]


def errors(found: list[View], truth: list[View], masks=None):
    masks = masks or [np.ones(view.depth_m.shape, dtype=bool) for view in truth]
    return depth_error(
        np.stack([view.depth_m for view in found]), np.stack([view.depth_m for view in truth]), np.stack(masks)
    )


@pytest.fixture(scope="module")
def sphere_views(analytic_view) -> list[View]:
    return named([analytic_view(T, GROUND, SPHERES) for T in eyes(3)])


@pytest.fixture(scope="module")
def fixed():
    """A matcher that neither corrects poses nor searches for the depth range."""
    return make_stereo_matcher("plane_sweep", refine_poses=False, min_depth_m=0.5, max_depth_m=3.0)


@pytest.fixture(scope="module")
def sphere_result(sphere_views, fixed) -> list[View]:
    return fixed(blind(sphere_views))


def test_plane_that_faces_the_camera(analytic_view):
    views = named([analytic_view(T, [((0.0, 1.0, 0.0), 1.2)]) for T in fronto_poses()])
    result = errors(make_stereo_matcher("plane_sweep")(blind(views)), views)
    assert result.median_ratio < 0.004
    assert result.bad_fraction < 0.01
    assert result.coverage > 0.8


def test_slanted_ground_plane(analytic_view):
    views = named([analytic_view(T, GROUND) for T in eyes(3, elevation_deg=30.0)])
    result = errors(make_stereo_matcher("plane_sweep")(blind(views)), views)
    assert result.median_ratio < 0.006
    assert result.bad_fraction < 0.03
    assert result.coverage > 0.6


def test_sphere_on_a_plane(sphere_views, sphere_result):
    result = errors(sphere_result, sphere_views)
    assert result.median_ratio < 0.005
    assert result.bad_fraction < 0.03
    assert result.coverage > 0.6
    near = [view.depth_m < 0.95 for view in sphere_views]
    on_sphere = errors(sphere_result, sphere_views, near)
    assert on_sphere.median_ratio < 0.008
    assert on_sphere.coverage > 0.5


def test_result_is_a_valid_stereo_result(sphere_views, sphere_result):
    assert [view.name for view in sphere_result] == [view.name for view in sphere_views]
    for view in sphere_result:
        assert view.depth_m.dtype == view.depth_confidence.dtype == np.float32
        known = np.isfinite(view.depth_m)
        assert (view.depth_m[known] > 0).all()
        assert not np.isinf(view.depth_m).any()
        assert np.array_equal(view.depth_confidence > 0, known)
        assert view.depth_confidence.max() <= 1.0


def test_confidence_ranks_errors(sphere_views, sphere_result):
    confidence = np.concatenate([v.depth_confidence[np.isfinite(v.depth_m)] for v in sphere_result])
    wrong = np.concatenate(
        [
            (np.abs(v.depth_m - t.depth_m) / t.depth_m)[np.isfinite(v.depth_m)] > 0.02
            for v, t in zip(sphere_result, sphere_views, strict=True)
        ]
    )
    middle = np.median(confidence)
    assert wrong[confidence >= middle].mean() < 0.5 * wrong[confidence < middle].mean()


def test_two_views_suffice(analytic_view, fixed):
    views = named([analytic_view(T, GROUND, SPHERES) for T in eyes(2)])
    result = errors(fixed(blind(views)), views)
    assert result.median_ratio < 0.006
    assert result.coverage > 0.5


def test_exposure_may_differ_between_views(sphere_views, fixed):
    changed = blind(sphere_views)
    for i, (gain, offset) in enumerate(((0.55, 10.0), (1.0, 0.0), (0.8, 50.0))):
        color = np.clip(changed[i].color * gain + offset, 0, 255).astype(np.uint8)
        changed[i] = replace(changed[i], color=color)
    result = errors(fixed(changed), sphere_views)
    assert result.median_ratio < 0.006
    assert result.coverage > 0.5


def test_order_of_views_does_not_matter(sphere_views, sphere_result, fixed):
    order = [2, 0, 1]
    shuffled = fixed([blind(sphere_views)[i] for i in order])
    for place, i in enumerate(order):
        same = np.isclose(shuffled[place].depth_m, sphere_result[i].depth_m, rtol=1e-3, equal_nan=True)
        assert same.mean() > 0.995


def test_depth_that_the_views_have_is_ignored(sphere_views, sphere_result, fixed, rng):
    misled = [
        replace(view, depth_m=rng.uniform(0.5, 3.0, view.depth_m.shape).astype(np.float32)) for view in sphere_views
    ]
    for ours, theirs in zip(fixed(misled), sphere_result, strict=True):
        np.testing.assert_array_equal(ours.depth_m, theirs.depth_m)


def test_census_cost(sphere_views):
    matcher = make_stereo_matcher(
        "plane_sweep", cost="census", refine_poses=False, min_depth_m=0.5, max_depth_m=3.0, fine_width=160
    )
    result = errors(matcher(blind(sphere_views)), sphere_views)
    assert result.median_ratio < 0.01
    assert result.coverage > 0.4


def test_images_of_different_sizes(analytic_view, sphere_views, fixed):
    small = replace(sphere_views[0].intrinsics, width=200, height=180, fx=200.0, fy=200.0, cx=99.0, cy=90.0)
    other = analytic_view(sphere_views[2].T_world_camera, GROUND, SPHERES, small, name="small")
    views = [*sphere_views[:2], other]
    found = fixed(blind(views))
    for ours, truth in zip(found, views, strict=True):
        result = depth_error(ours.depth_m, truth.depth_m)
        assert result.median_ratio < 0.01
        assert result.coverage > 0.4


def test_pose_drift_is_corrected(analytic_view, rng):
    truth = named([analytic_view(T, GROUND, SPHERES) for T in eyes(4, spread_deg=14.0)])
    drifted = []
    for view in blind(truth):
        T = view.T_world_camera.copy()
        T[:3, 3] += rng.normal(scale=0.007, size=3)
        drifted.append(replace(view, T_world_camera=T))
    figures = {
        refine: errors(make_stereo_matcher("plane_sweep", refine_poses=refine)(drifted), truth)
        for refine in (False, True)
    }
    assert figures[True].coverage > figures[False].coverage
    assert figures[True].median_ratio < 0.02


def test_surfaces_without_texture_are_not_trusted(analytic_view, fixed):
    views = named([analytic_view(T, GROUND, SPHERES, textured=False) for T in eyes(3)])
    with pytest.warns(UserWarning, match="no trusted depth"):
        found = fixed(blind(views))
    assert errors(found, views).coverage < 0.02


def test_a_view_that_overlaps_no_other_is_left_empty(analytic_view, sphere_views, fixed):
    turned = sphere_views[0].T_world_camera @ rigid(np.diag([-1.0, 1.0, -1.0]))
    away = analytic_view(turned, [((0.0, 1.0, 0.0), -3.0)], name="away")
    with pytest.warns(UserWarning, match="away"):
        found = fixed(blind([*sphere_views, away]))
    assert np.isnan(found[3].depth_m).all()
    assert (found[3].depth_confidence == 0).all()
    assert errors(found[:3], sphere_views).coverage > 0.6


def test_views_without_any_overlap_are_refused(analytic_view, sphere_views):
    turned = sphere_views[0].T_world_camera @ rigid(np.diag([-1.0, 1.0, -1.0]))
    away = analytic_view(turned, [((0.0, 1.0, 0.0), -3.0)], name="away")
    with pytest.raises(InputError, match="overlap"):
        make_stereo_matcher("plane_sweep")(blind([sphere_views[0], away]))


def test_views_from_one_place_are_refused(sphere_views):
    twin = replace(sphere_views[0], name="twin")
    with pytest.raises(InputError, match="different place"):
        make_stereo_matcher("plane_sweep")(blind([sphere_views[0], twin]))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_views_are_refused(sphere_views, count):
    with pytest.raises(InputError, match=f"at least 2 views.*got {count}"):
        make_stereo_matcher("plane_sweep")(sphere_views[:count])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cost": "sad"}, "census, ncc"),
        ({"device": "nonsense"}, "nonsense"),
        ({"min_depth_m": -1.0}, "depth range"),
        ({"min_depth_m": 2.0, "max_depth_m": 1.0}, "depth range"),
        ({"max_sources": 0}, "max_sources"),
        ({"coarse_width": 900}, "coarse_width"),
        ({"wrong": 1}, "wrong"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        make_stereo_matcher("plane_sweep", **options)


def test_unknown_matcher_lists_the_known():
    with pytest.raises(InputError, match=r"depth_camera, .*plane_sweep"):
        make_stereo_matcher("lidar")


def test_no_warning_on_a_good_set(sphere_views, fixed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fixed(blind(sphere_views[:2]))
