"""The depth camera's errors have the statistics of the model."""

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.simulation.noise import NoiseSpec, color_noise, structured_light_noise

QUIET = NoiseSpec(
    disparity_step_px=0.0, disparity_noise_px=0.0, lateral_noise_px=0.0, edge_dropout=0.0, flying_pixels=0.0,
    grazing_dropout_deg=0.0, dropout=0.0, min_depth_m=0.0, max_depth_m=100.0,
)  # fmt: skip
FOCAL_PX, BASELINE_M = 525.0, 0.075


def spec(**changes):
    return NoiseSpec(**{**QUIET.__dict__, **changes})


def wall(depth_m, shape=(240, 320)):
    return np.full(shape, depth_m, dtype=np.float32)


def test_a_quiet_sensor_changes_nothing(rng):
    depth = rng.uniform(0.5, 3, (40, 50)).astype(np.float32)
    depth[3, 4] = np.nan
    np.testing.assert_allclose(structured_light_noise(depth, rng, FOCAL_PX, QUIET), depth, rtol=1e-6)


@pytest.mark.parametrize("depth_m", [0.5, 1.0, 2.0, 3.5])
def test_axial_noise_grows_with_the_square_of_depth(rng, depth_m):
    noisy = structured_light_noise(wall(depth_m), rng, FOCAL_PX, spec(disparity_noise_px=0.06))
    expected = 0.06 * depth_m**2 / (FOCAL_PX * BASELINE_M)
    assert noisy.std() == pytest.approx(expected, rel=0.03)
    assert noisy.mean() == pytest.approx(depth_m, abs=4 * expected / np.sqrt(noisy.size) + expected**2 / depth_m * 2)


def test_depth_is_quantised_in_steps_of_disparity(rng):
    depth = np.linspace(0.6, 3.0, 320, dtype=np.float32)[None].repeat(50, axis=0)
    noisy = structured_light_noise(depth, rng, FOCAL_PX, spec(disparity_step_px=1 / 8))
    steps = FOCAL_PX * BASELINE_M / noisy * 8
    np.testing.assert_allclose(steps, np.round(steps), atol=2e-3)
    assert np.abs(noisy - depth).max() <= 0.51 * 3.0**2 / (FOCAL_PX * BASELINE_M) / 8 * 1.05


def test_steps_lose_pixels_and_grow_flying_ones(rng):
    depth = wall(1.0)
    depth[:, 160:] = 2.0
    noisy = structured_light_noise(depth, rng, FOCAL_PX, spec(edge_dropout=0.5))
    lost = np.isnan(noisy)
    assert not lost[:, :159].any()
    assert not lost[:, 161:].any()
    assert lost[:, 159:161].mean() == pytest.approx(0.5, abs=0.1)
    flying = structured_light_noise(depth, rng, FOCAL_PX, spec(flying_pixels=0.4))
    between = (flying > 1.01) & (flying < 1.99)
    assert between[:, 159:161].mean() == pytest.approx(0.4, abs=0.1)
    assert not between[:, :159].any()


def test_missing_depth_stays_missing_and_nothing_appears_in_it(rng):
    depth = wall(1.0)
    depth[:, 160:] = np.nan
    noisy = structured_light_noise(depth, rng, FOCAL_PX, NoiseSpec(lateral_noise_px=0.0))
    assert np.isnan(noisy[:, 160:]).all()


def test_grazing_surfaces_and_distant_ones_are_lost(rng):
    rows = np.arange(1, 241, dtype=np.float32)
    floor = (60.0 / rows)[:, None].repeat(320, axis=1).astype(np.float32)
    noisy = structured_light_noise(floor, rng, FOCAL_PX, spec(grazing_dropout_deg=8.0, max_depth_m=10.0))
    # the floor is seen at atan(row / focal); far rows are steps of depth, beyond the model of a smooth surface
    assert np.isnan(noisy[34:70]).all()
    assert np.isfinite(noisy[80:]).all()
    assert np.isnan(structured_light_noise(wall(5.0), rng, FOCAL_PX, NoiseSpec())).all()
    assert np.isnan(structured_light_noise(wall(0.1), rng, FOCAL_PX, NoiseSpec())).all()


def test_random_dropout_covers_its_share_in_blobs(rng):
    lost = np.isnan(structured_light_noise(wall(1.0), rng, FOCAL_PX, spec(dropout=0.05)))
    assert lost.mean() == pytest.approx(0.05, abs=0.01)
    neighbours = lost[:, 1:] & lost[:, :-1]
    assert neighbours.sum() > 0.4 * lost.sum()


def test_reproducible_by_seed():
    images = [structured_light_noise(wall(1.0), np.random.default_rng(s), FOCAL_PX) for s in (1, 1, 2)]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_color_noise_has_its_strength_and_no_bias(rng):
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    noisy = color_noise(grey, rng, 2.0).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.1)
    assert noisy.std() == pytest.approx(2.0 * np.sqrt(0.4 + 0.8), rel=0.05)
    np.testing.assert_array_equal(color_noise(grey, rng, 0.0), grey)


@pytest.mark.parametrize(
    "fields",
    [
        {"baseline_m": 0.0},
        {"dropout": 1.5},
        {"disparity_noise_px": -1.0},
        {"min_depth_m": 5.0},
        {"edge_dropout": float("nan")},
    ],
)
def test_impossible_sensors_are_refused(fields):
    with pytest.raises(InputError, match=next(iter(fields))):
        NoiseSpec(**fields)
