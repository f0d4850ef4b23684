"""FilterReg against known transforms and against ICP, from whole, partial, noisy and littered clouds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.filter_registration import FilterRegConfig, filter_register
from gena3d_core.geometry.similarity_fit import fit_similarity, yaw_rotations

RIGID, SCALED = FilterRegConfig(), FilterRegConfig(scaled=True)


def block(count: int, size: tuple[float, ...], center: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    points = rng.uniform(-0.5, 0.5, (count, 3))
    points[np.arange(count), rng.integers(0, 3, count)] = rng.choice([-0.5, 0.5], count)
    return points * size + center


def scene_cloud(count: int, seed: int) -> np.ndarray:
    """Four objects on a table, no two alike: surfaces in metres, about 0.4 m across."""
    rng, share = np.random.default_rng(seed), count // 4
    ball = rng.normal(size=(share, 3))
    ball *= 0.05 / np.linalg.norm(ball, axis=1, keepdims=True)
    parts = [
        block(share, (0.1, 0.06, 0.15), (0.0, 0.0, 0.075), rng),
        ball + np.array([0.15, 0.05, 0.05]),
        block(share, (0.05, 0.12, 0.04), (-0.1, 0.16, 0.02), rng),
        block(count - 3 * share, (0.12, 0.03, 0.08), (0.05, -0.2, 0.04), rng),
    ]
    return np.concatenate(parts)


def transform(seed: int, degrees: float, scale: float = 1.0, shift_m: float = 0.06) -> np.ndarray:
    """Turned about a random axis through the middle of the scene, scaled, shifted."""
    rng = np.random.default_rng(seed)
    axis, shift = rng.normal(size=3), rng.uniform(-1, 1, 3)
    R = scale * Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    middle = np.array([0.03, 0.0, 0.05])
    return transforms.rigid(R, middle + shift_m * shift - R @ middle)


def errors(found: np.ndarray, wanted: np.ndarray) -> tuple[float, float, float]:
    """Degrees, relative error of the scale, metres at the middle of the scene."""
    off = transforms.inverse(wanted) @ found
    scale = float(np.cbrt(np.linalg.det(off[:3, :3])))
    degrees = np.degrees(np.linalg.norm(Rotation.from_matrix(off[:3, :3] / scale).as_rotvec()))
    middle = np.array([0.03, 0.0, 0.05])
    return float(degrees), abs(scale - 1.0), float(np.linalg.norm(transforms.apply(off, middle) - middle))


def icp(source: np.ndarray, target: np.ndarray, scaled: bool, steps: int = 40) -> np.ndarray:
    """Iterative closest points from where the clouds lie."""
    tree, S = cKDTree(target), np.eye(4)
    for _ in range(steps):
        moved = transforms.apply(S, source)
        nearest = target[tree.query(moved)[1]]
        weight = np.ones((1, len(source)))
        S = fit_similarity(moved[None], nearest[None], weight, upright=False, scaled=scaled)[0] @ S
    return S


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10**6), st.floats(0.0, 25.0))
def test_rigid_transforms_are_recovered(seed: int, degrees: float):
    S = transform(seed, degrees)
    fit = filter_register(scene_cloud(1000, seed), transforms.apply(S, scene_cloud(1000, seed + 1)))
    turned, scale, moved_m = errors(fit.S_target_source, S)
    assert turned < 1.0
    assert scale < 1e-9  # rigid means rigid
    assert moved_m < 0.003
    assert fit.inlier_share > 0.9
    assert fit.rmse < 0.02


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10**6), st.floats(0.0, 20.0), st.floats(0.75, 1.33))
def test_similarities_are_recovered(seed: int, degrees: float, scale: float):
    S = transform(seed, degrees, scale)
    fit = filter_register(scene_cloud(1000, seed), transforms.apply(S, scene_cloud(1000, seed + 1)), config=SCALED)
    turned, stretched, moved_m = errors(fit.S_target_source, S)
    assert turned < 1.0
    assert stretched < 0.015
    assert moved_m < 0.003


@pytest.mark.parametrize("degrees", [2.0, 5.0])
def test_near_the_truth_it_agrees_with_icp(degrees: float):
    S = transform(3, degrees, shift_m=0.005)
    source, target = scene_cloud(1500, 1), transforms.apply(S, scene_cloud(1500, 2))
    ours, theirs = filter_register(source, target).S_target_source, icp(source, target, scaled=False)
    turned, _, moved_m = errors(ours, theirs)
    assert turned < 0.7
    assert moved_m < 0.002


def test_far_from_the_truth_it_fails_less_often_than_icp():
    """The reason that the paper gives for it."""
    failures = {"ours": 0, "icp": 0}
    for seed in range(5):
        S = transform(seed, 60.0, 1.4, shift_m=0.1)
        source, target = scene_cloud(800, 2 * seed), transforms.apply(S, scene_cloud(800, 2 * seed + 1))
        ours = filter_register(source, target, config=SCALED).S_target_source
        failures["ours"] += errors(ours, S)[0] > 3.0
        failures["icp"] += errors(icp(source, target, scaled=True), S)[0] > 3.0
    assert failures["ours"] == 0
    assert failures["icp"] >= 2


def test_litter_and_noise_do_not_pull():
    S, rng = transform(4, 15.0), np.random.default_rng(0)
    target = transforms.apply(S, scene_cloud(1500, 2)) + 0.003 * rng.normal(size=(1500, 3))
    litter = rng.uniform(target.min(axis=0) - 0.1, target.max(axis=0) + 0.1, (450, 3))
    fit = filter_register(scene_cloud(1500, 1), np.concatenate([target, litter]))
    turned, _, moved_m = errors(fit.S_target_source, S)
    assert turned < 1.0
    assert moved_m < 0.004
    assert 0.7 < fit.inlier_share < 0.97


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_part_finds_its_place_in_the_whole(both_ways: bool):
    S = transform(5, 10.0, shift_m=0.02)
    part, target = scene_cloud(1500, 1)[:1100], transforms.apply(S, scene_cloud(1500, 2))
    config = replace(RIGID, both_ways=both_ways, start_width=0.25)
    turned, _, moved_m = errors(filter_register(part, target, config=config).S_target_source, S)
    assert turned < 2.0
    assert moved_m < 0.008


def test_the_start_that_leads_nearest_wins():
    S = transforms.rigid(yaw_rotations(np.array([np.pi]))[0])
    starts = np.tile(np.eye(4), (8, 1, 1))
    starts[:, :3, :3] = yaw_rotations(np.arange(8) * np.pi / 4)
    fit = filter_register(scene_cloud(1000, 1), transforms.apply(S, scene_cloud(1000, 2)), starts=starts)
    assert errors(fit.S_target_source, S)[0] < 1.0
    assert fit.start in (3, 4, 5)


def test_the_unit_of_length_does_not_matter():
    S = transform(6, 10.0)
    source, target = scene_cloud(600, 1), transforms.apply(S, scene_cloud(600, 2))
    one = filter_register(source, target, config=SCALED)
    other = filter_register(1000 * source, 1000 * target, config=SCALED)
    np.testing.assert_allclose(other.S_target_source[:3, :3], one.S_target_source[:3, :3], atol=1e-6)
    np.testing.assert_allclose(other.S_target_source[:3, 3], 1000 * one.S_target_source[:3, 3], atol=1e-3)
    assert other.width == pytest.approx(1000 * one.width)
    assert other.rmse == pytest.approx(1000 * one.rmse)


def test_the_same_seed_gives_the_same_result_and_nan_points_are_left_out():
    source, target = scene_cloud(400, 1), scene_cloud(400, 2)
    one, other = (filter_register(source, target, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.S_target_source, other.S_target_source)
    holes = np.concatenate([source, np.full((50, 3), np.nan)])
    assert errors(filter_register(holes, target).S_target_source, np.eye(4))[0] < 2.0


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.zeros((5, 3)), scene_cloud(50, 0)),
        (scene_cloud(50, 0), np.zeros((50, 3))),
        (np.full((50, 3), np.nan), scene_cloud(50, 0)),
        (np.zeros((50, 2)), scene_cloud(50, 0)),
    ],
)
def test_clouds_that_cannot_be_registered_are_refused(source: np.ndarray, target: np.ndarray):
    with pytest.raises(InputError):
        filter_register(source, target)


def test_settings_and_starts_are_checked():
    cloud = scene_cloud(50, 0)
    with pytest.raises(InputError, match="both_ways"):
        FilterRegConfig(scaled=True, both_ways=False)
    with pytest.raises(InputError, match="outlier_share"):
        FilterRegConfig(outlier_share=1.0)
    with pytest.raises(InputError, match="points"):
        FilterRegConfig(coarse_points=3)
    with pytest.raises(InputError, match="round"):
        FilterRegConfig(coarse_rounds=((5, 0),))
    with pytest.raises(InputError, match="starts"):
        filter_register(cloud, cloud, starts=np.eye(4))


def test_points_in_one_place_tell_no_scale():
    """Two candidates at once: one in a single place, which keeps its size, beside an ordinary one."""
    rng = np.random.default_rng(5)
    target = rng.normal(size=(1, 40, 3))
    source = np.concatenate([np.zeros((1, 40, 3)), target / 2.0])
    found = fit_similarity(source, np.repeat(target, 2, axis=0), np.ones((2, 40)), upright=True)
    assert np.isfinite(found).all()
    assert np.linalg.det(found[:, :3, :3]) == pytest.approx([1.0, 8.0])
