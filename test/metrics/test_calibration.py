"""Calibration of made-up probabilities whose truth is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.metrics.calibration import calibration, count, total


def test_honest_probabilities_have_no_error(rng):
    confidence = rng.random(200_000)
    found = calibration(count(confidence, rng.random(len(confidence)) < confidence))
    assert found.ece < 0.01
    assert found.auroc == pytest.approx(5 / 6, abs=0.01)  # of a uniform p: 1/2 + 1/3
    for part in found.curve:
        assert part.low <= part.confidence <= part.high
        assert part.accuracy == pytest.approx(part.confidence, abs=0.03)


def test_overconfidence_is_its_distance(rng):
    right = rng.random(100_000) < 0.6
    found = calibration(count(np.full(len(right), 0.9), right))
    assert found.ece == pytest.approx(0.3, abs=0.01)
    assert found.auroc == pytest.approx(0.5)
    assert len(found.curve) == 1
    assert found.curve[0].count == len(right)


def test_confidence_that_separates(rng):
    right = np.arange(1000) % 2 == 0
    assert calibration(count(np.where(right, 0.8, 0.3), right)).auroc == 1.0
    assert calibration(count(np.where(right, 0.3, 0.8), right)).auroc == 0.0
    assert np.isnan(calibration(count(np.full(5, 0.5), np.ones(5, dtype=bool))).auroc)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 300))
def test_auroc_is_the_share_of_ordered_pairs(seed, number):
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 20, number) / 20.0
    right = rng.random(number) < 0.5
    right[:2] = True, False
    wrong, good = confidence[~right][:, None], confidence[right][None]
    expected = (wrong < good).mean() + (wrong == good).mean() / 2
    assert calibration(count(confidence, right)).auroc == pytest.approx(expected)


def test_counts_add_up(rng):
    confidence, right = rng.random(1000), rng.random(1000) < 0.5
    parts = [count(confidence[i::3], right[i::3]) for i in range(3)]
    one, other = calibration(total(parts)), calibration(count(confidence, right))
    assert one.ece == pytest.approx(other.ece)
    assert one.auroc == pytest.approx(other.auroc)
    assert np.isnan(calibration(total([])).ece)


def test_what_is_no_probability_is_refused():
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        count(np.array([1.2]), np.array([True]))
    with pytest.raises(InputError, match=r"\(N,\)"):
        count(np.zeros(2), np.zeros(3, dtype=bool))
    with pytest.raises(InputError, match="bins"):
        calibration(count(np.zeros(1), np.zeros(1, dtype=bool)), bins=7)
