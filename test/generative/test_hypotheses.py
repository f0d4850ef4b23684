"""Several samples: which is shown, what all say together, and the confidence that follows."""

from __future__ import annotations

import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, EmptyResultError
from gena3d_core.generative.hypotheses import (
    OBSERVED_CONFIDENCE,
    ChanceCurve,
    calibrated,
    chance_curve,
    filling_logit,
    most_typical,
    occupancy_probability,
    with_confidence,
)
from gena3d_core.generative.object_shape import shape_of_samples
from gena3d_core.geometry.voxels import voxel_centers
from gena3d_core.meshing.occupancy_surface import surface_from_logits

R = 24


def ball(radius, center=(0.0, 0.0, 0.0)):
    """Sharp logits of a ball in the grid's cube."""
    centers = voxel_centers(np.full(3, -0.5), 1 / R, (R,) * 3)
    return (200 * (radius - np.linalg.norm(centers - np.array(center), axis=-1))).astype(np.float32)


def test_the_sample_nearest_to_all_is_kept():
    samples = np.stack([ball(0.2), ball(0.3), ball(0.3, (0.02, 0, 0)), ball(0.45)])
    assert most_typical(samples > 0) in (1, 2)
    assert most_typical(samples[::-1] > 0) in (1, 2)
    assert most_typical(samples[:1] > 0) == 0
    shape = shape_of_samples(samples, None)
    np.testing.assert_array_equal(shape.logits, samples[shape.kept])
    assert not shape.residuals


def test_empty_samples_are_outvoted_but_nothing_at_all_is_an_error():
    nothing = np.full((R,) * 3, -5.0, np.float32)
    assert most_typical(np.stack([nothing, ball(0.3), ball(0.3)]) > 0) > 0
    with pytest.raises(EmptyResultError, match="no occupied voxel"):
        shape_of_samples(np.stack([nothing, nothing]), None)


def test_probability_is_the_mean_of_the_samples():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(5, 4, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(occupancy_probability(samples), (1 / (1 + np.exp(-samples))).mean(axis=0), atol=1e-6)


def test_the_temperature_calibrates_logits():
    """Logits three times too sure: their error goes once they are divided by what the checkpoint states."""
    rng = np.random.default_rng(1)
    true_logits = rng.normal(size=(1, 40, 40, 40)).astype(np.float32)
    occupied = rng.random((40,) * 3) < 1 / (1 + np.exp(-true_logits[0]))

    def calibration_error(metadata):
        p = occupancy_probability(calibrated(3 * true_logits, metadata, "test")).ravel()
        bins = np.minimum((p * 10).astype(int), 9)
        size = np.bincount(bins, minlength=10)
        return np.abs(np.bincount(bins, p - occupied.ravel(), minlength=10)).sum() / size.sum()

    assert calibration_error({}) > 0.1
    assert calibration_error({"occupancy_temperature": 3}) < 0.02


@pytest.mark.parametrize("value", [0, -1.0, "2", None, True, float("nan"), float("inf"), [1]])
def test_a_bad_temperature_is_refused(value):
    with pytest.raises(DataFormatError, match=r"model\.json: occupancy_temperature"):
        calibrated(np.zeros(1), {"occupancy_temperature": value}, "model.json")


def test_the_level_of_filling_gives_the_best_expected_f_measure():
    chance = np.random.default_rng(4).beta(0.5, 3.0, (8, 8, 8)).astype(np.float32)

    def expected(level):
        filled = chance > level
        return 2 * chance[filled].sum() / (filled.sum() + chance.sum())

    best = max(expected(level) for level in np.linspace(0.0, 0.98, 400))
    assert expected(1 / (1 + np.exp(-filling_logit(chance)))) == pytest.approx(best, abs=1e-3)
    sure = np.zeros((4, 4, 4), np.float32)
    sure[:2] = 1.0
    assert filling_logit(sure) == pytest.approx(0.0, abs=1e-3)
    faint = 0.3 * sure  # nothing is likely, and yet something is there
    assert (faint > 1 / (1 + np.exp(-filling_logit(faint)))).sum() == 32
    assert not (0.05 * np.ones_like(sure) > 1 / (1 + np.exp(-filling_logit(0.05 * np.ones_like(sure))))).any()


def test_a_curve_mends_what_a_temperature_cannot():
    """All samples leave out half of what is there: chances are too low, however sure the samples are."""
    rng = np.random.default_rng(3)
    said = rng.uniform(0.02, 0.98, 50000).astype(np.float32)
    full = rng.random(50000) < ChanceCurve(0.5, 1.2)(said)
    curve = chance_curve({"occupancy_chance_curve": [0.5, 1.2]}, "test")
    for low in np.arange(0.1, 0.9, 0.1):
        asked = (curve(said) >= low) & (curve(said) < low + 0.1)
        if asked.sum() > 500:
            assert abs(full[asked].mean() - curve(said)[asked].mean()) < 0.05
    assert np.array_equal(chance_curve({}, "test")(said), said)
    ends = curve(np.array([0.0, 1.0]))
    assert 0.0 < ends[0] < 0.05 < 0.95 < ends[1] < 1.0


def test_a_curve_changes_chances_and_no_shape():
    samples = np.stack([ball(0.3), ball(0.3), ball(0.2)])
    plain, curved = shape_of_samples(samples, None), shape_of_samples(samples, None, ChanceCurve(0.5, 0.5))
    np.testing.assert_array_equal(plain.logits, curved.logits)
    np.testing.assert_allclose(curved.probability, ChanceCurve(0.5, 0.5)(plain.probability))
    assert np.abs(plain.probability - curved.probability).max() > 0.01


@pytest.mark.parametrize("value", [0.5, [1.0], [0.0, 1.0], [1.0, "a"], [True, 0.0], [1.0, float("nan")], {"slope": 1}])
def test_a_bad_curve_is_refused(value):
    with pytest.raises(DataFormatError, match=r"model\.json: occupancy_chance_curve"):
        chance_curve({"occupancy_chance_curve": value}, "model.json")


def test_confidence_is_high_where_samples_agree():
    """Two samples agree on the lower half of a ball; above, one has nothing."""
    half = ball(0.3)
    half[:, :, R // 2 :] = -50.0
    samples = np.stack([ball(0.3), half])
    mesh = with_confidence(surface_from_logits(samples[0]), occupancy_probability(samples))
    z = mesh.vertices[:, 2]
    assert mesh.vertex_confidence[z < -0.1].min() > 0.95
    assert mesh.vertex_confidence[z > 0.1].max() < 0.6
    assert mesh.vertex_confidence[z > 0.1].min() > 0.4


def test_measured_surface_is_sure_even_where_samples_disagree():
    samples = np.stack([ball(0.3), np.full((R,) * 3, -50.0, np.float32)])
    surface = (np.abs(ball(0.3)) < 4) & (np.arange(R) > R / 2)
    mesh = with_confidence(surface_from_logits(samples[0]), occupancy_probability(samples), surface)
    z = mesh.vertices[:, 2]
    assert mesh.vertex_confidence[z > 0.1].min() >= 0.99 * OBSERVED_CONFIDENCE
    assert mesh.vertex_confidence[z < -0.1].max() < 0.6
    assert mesh.vertex_confidence.max() <= 1.0
