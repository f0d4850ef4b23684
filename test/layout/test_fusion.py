"""Fusion of two estimates of an object's pose, and what happens when they disagree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import similarity
from gena3d_core.geometry.similarity import SimilarityEstimate
from gena3d_core.layout.fusion import FusionLimits, disagreement, fuse, fuse_objects

SIZE_M = 0.2
TRUTH = similarity.compose([1.0, 2.0, 0.1], Rotation.from_euler("xyz", [0.3, 0.1, 1.0]).as_matrix(), SIZE_M)
seeds = st.integers(0, 2**31 - 1)


def estimate(change, deviation) -> SimilarityEstimate:
    return SimilarityEstimate(similarity.changed(TRUTH, np.asarray(change, float)), np.diag(np.square(deviation)))


def small(rng, scale=1.0):
    return scale * rng.normal(0, [0.01] * 3 + [0.03] * 3 + [0.03])


def test_disagreement_by_construction():
    apart = disagreement(
        estimate([0.03, 0.04, 0, 0, 0, np.radians(10), np.log(1.2)], [0.1] * 7), estimate([0] * 7, [0.1] * 7)
    )
    assert apart.shift_m == pytest.approx(0.05)
    assert apart.angle_deg == pytest.approx(10.0)
    assert apart.ratio == pytest.approx(1.2)
    expected = np.sqrt((0.05**2 + np.radians(10) ** 2 + np.log(1.2) ** 2) / 0.02)
    assert apart.deviations == pytest.approx(expected, rel=1e-4)


def test_the_surer_estimate_counts_more():
    predicted, measured = estimate([0.03, 0, 0, 0, 0, 0, 0.1], [0.02] * 7), estimate([0] * 7, [0.01] * 7)
    fused = fuse(predicted, measured)
    change = similarity.change_between(TRUTH, fused.estimate.S)
    np.testing.assert_allclose(change, [0.006, 0, 0, 0, 0, 0, 0.02], atol=1e-5)
    np.testing.assert_allclose(np.diag(fused.estimate.covariance), 1 / (1 / 0.02**2 + 1 / 0.01**2), rtol=1e-3)
    assert fused.source == "both"


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_an_unknown_part_is_taken_from_the_other(seed):
    rng = np.random.default_rng(seed)
    known = np.array([0.001] * 3 + [0.001] * 3 + [1.0])
    predicted = estimate(small(rng), np.where(known < 1, 1.0, 0.001))
    measured = estimate(small(rng), known)
    t, R, scale = similarity.parts(fuse(predicted, measured).estimate.S)
    np.testing.assert_allclose(scale, similarity.parts(predicted.S)[2], rtol=1e-4)
    np.testing.assert_allclose(t, similarity.parts(measured.S)[0], atol=1e-4)
    np.testing.assert_allclose(R, similarity.parts(measured.S)[1], atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_order_does_not_matter_nearby_and_covariances_shrink(seed):
    rng = np.random.default_rng(seed)
    roots = 0.02 * rng.normal(size=(2, 7, 7))
    a, b = (
        SimilarityEstimate(similarity.changed(TRUTH, small(rng, 0.1)), root @ root.T + 1e-6 * np.eye(7))
        for root in roots
    )
    one, other = fuse(a, b).estimate, fuse(b, a).estimate
    np.testing.assert_allclose(one.S, other.S, atol=2e-3)
    np.testing.assert_allclose(one.covariance, other.covariance, atol=1e-7)
    for before in (a, b):
        assert np.linalg.eigvalsh(before.covariance - one.covariance)[0] > -1e-7


def test_exact_estimates_can_be_fused():
    nothing = np.zeros((7, 7))
    fused = fuse(SimilarityEstimate(TRUTH, nothing), SimilarityEstimate(TRUTH, nothing))
    np.testing.assert_allclose(fused.estimate.S, TRUTH, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "text"),
    [([0.5 * SIZE_M + 0.01, 0, 0, 0, 0, 0, 0], "11.0 cm, 0 degrees and a factor of 1.00"),
     ([0, 0, 0, 0, 0.7, 0, 0], "0.0 cm, 40 degrees"), ([0, 0, 0, 0, 0, 0, -0.5], "a factor of 1.65 in size")],
)  # fmt: skip
def test_beyond_the_limits_the_measured_pose_wins(change, text):
    predicted, measured = estimate(change, [0.001] * 7), estimate([0] * 7, [0.1] * 7)
    fused, warnings = fuse_objects({7: predicted}, {7: measured})
    assert fused[7].source == "measured"
    assert fused[7].estimate is measured
    assert len(warnings) == 1
    assert "object 7" in warnings[0]
    assert text in warnings[0]
    wide = FusionLimits(max_shift=9.0, max_angle_deg=180.0, max_ratio=9.0)
    fused, warnings = fuse_objects({7: predicted}, {7: measured}, wide)
    assert fused[7].source == "both"
    assert warnings == []


def test_objects_known_to_one_side_keep_its_pose():
    a, b = estimate([0] * 7, [0.1] * 7), estimate([0.01] * 7, [0.1] * 7)
    fused, warnings = fuse_objects({2: a, 1: a}, {1: b, 5: b})
    assert [(number, pose.source) for number, pose in fused.items()] == [(1, "both"), (2, "layout"), (5, "measured")]
    assert fused[2].estimate is a
    assert fused[5].estimate is b
    assert fused[2].disagreement is None
    assert warnings == []
    with pytest.raises(InputError, match="at least one object"):
        fuse_objects({}, {})
