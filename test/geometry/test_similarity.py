"""Similarities: parts, small changes and their covariance, means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import similarity, transforms

seeds = st.integers(0, 2**31 - 1)


def random_similarities(rng, *shape):
    count = int(np.prod(shape))
    R = Rotation.random(count, random_state=int(rng.integers(1 << 31))).as_matrix().reshape(*shape, 3, 3)
    return similarity.compose(rng.normal(size=(*shape, 3)), R, np.exp(rng.normal(0, 0.7, shape)))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_parts_undo_compose(seed):
    S = random_similarities(np.random.default_rng(seed), 2, 3)
    np.testing.assert_allclose(similarity.compose(*similarity.parts(S)), S, atol=1e-12)
    t, R, scale = similarity.parts(S)
    np.testing.assert_allclose(R @ np.swapaxes(R, -1, -2), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    assert (scale > 0).all()
    assert t.shape == (2, 3, 3)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_quaternions_have_w_first_and_go_round(seed):
    R = Rotation.random(4, random_state=seed).as_matrix().reshape(2, 2, 3, 3)
    q = similarity.quat_wxyz_from_matrix(R)
    assert (q[..., 0] >= 0).all()
    np.testing.assert_allclose(similarity.matrix_from_quat_wxyz(-3.0 * q), R, atol=1e-12)
    turn = similarity.matrix_from_quat_wxyz([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    np.testing.assert_allclose(turn @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_mirrors_and_bad_quaternions_are_refused():
    with pytest.raises(InputError, match="mirror"):
        similarity.parts(np.diag([1.0, 1.0, -1.0, 1.0]))
    with pytest.raises(InputError, match="no direction"):
        similarity.matrix_from_quat_wxyz([0.0, 0, 0, 0])
    with pytest.raises(InputError, match="finite"):
        similarity.SimilarityEstimate(np.eye(4), np.full((7, 7), np.nan))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_changes_go_round(seed):
    rng = np.random.default_rng(seed)
    S = random_similarities(rng, 2)
    change = similarity.change_between(S[0], S[1])
    np.testing.assert_allclose(similarity.changed(S[0], change), S[1], atol=1e-9)
    assert np.linalg.norm(change[3:6]) <= np.pi + 1e-9
    crossed = similarity.cross_matrix(change[:3]) @ change[3:6]
    np.testing.assert_allclose(crossed, np.cross(change[:3], change[3:6]), atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_point_jacobian_is_the_derivative(seed):
    rng = np.random.default_rng(seed)
    S, points = random_similarities(rng, 1)[0], rng.normal(size=(5, 3))
    J = similarity.point_jacobian(S, points)
    for k in range(7):
        step = np.zeros(7)
        step[k] = 1e-6
        ahead, behind = (transforms.apply(similarity.changed(S, sign * step), points) for sign in (1, -1))
        np.testing.assert_allclose(J[..., k], (ahead - behind) / 2e-6, atol=1e-6)


def test_covariance_of_a_chain_is_what_samples_spread_over():
    rng = np.random.default_rng(3)
    outer, inner = random_similarities(rng, 2)
    deviation = np.array([0.01, 0.02, 0.005, 0.01, 0.003, 0.02, 0.01])
    other = 0.5 * deviation[::-1]
    estimate = similarity.chained(similarity.SimilarityEstimate(outer, np.diag(deviation**2)), inner, np.diag(other**2))
    np.testing.assert_allclose(estimate.S, outer @ inner)
    draws = rng.normal(size=(4000, 2, 7))
    spread = np.array(
        [
            similarity.change_between(
                estimate.S, similarity.changed(outer, deviation * d[0]) @ similarity.changed(inner, other * d[1])
            )
            for d in draws
        ]
    )
    scale = np.sqrt(np.diag(estimate.covariance))
    np.testing.assert_allclose(np.cov(spread.T) / np.outer(scale, scale), estimate.covariance / np.outer(scale, scale),
                               atol=0.09)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_mean_of_one_pose_and_its_copies_is_that_pose(seed):
    S = random_similarities(np.random.default_rng(seed), 3)
    copies = np.repeat(S[:, None], 4, axis=1)
    np.testing.assert_allclose(similarity.mean_similarity(copies, [0.1, 2.0, 0.0, 1.0]), S, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seeds, st.floats(0.01, 1.5), st.floats(0.01, 1.5))
def test_mean_of_two_lies_halfway(seed, angle, log_ratio):
    rng = np.random.default_rng(seed)
    S = random_similarities(rng, 1)[0]
    axis = rng.normal(size=3)
    change = np.concatenate([rng.normal(size=3), angle * axis / np.linalg.norm(axis), [log_ratio]])
    pair = np.stack([similarity.changed(S, change), similarity.changed(S, -change)])
    np.testing.assert_allclose(similarity.mean_similarity(pair), S, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_mean_moves_with_the_frame_and_forgets_the_order(seed):
    rng = np.random.default_rng(seed)
    # near one another, as views' poses are: far apart the mean of rotations need not be unique
    S = np.stack([similarity.changed(np.eye(4), 0.3 * rng.normal(size=7)) for _ in range(5)])
    weights = rng.uniform(0.1, 1.0, 5)
    T = similarity.compose(rng.normal(size=3), Rotation.random(random_state=seed).as_matrix(), 1.7)
    mean, order = similarity.mean_similarity(S, weights), rng.permutation(5)
    np.testing.assert_allclose(similarity.mean_similarity(T @ S, weights), T @ mean, atol=1e-9)
    np.testing.assert_allclose(similarity.mean_similarity(S[order], weights[order]), mean, atol=1e-9)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]])
def test_useless_weights_are_refused(weights):
    with pytest.raises(InputError, match="weights"):
        similarity.mean_similarity(np.stack([np.eye(4)] * 2), weights)


def test_the_mean_of_rotations_about_one_axis_is_the_mean_angle():
    turns = Rotation.from_euler("z", [[10], [20], [60]], degrees=True).as_matrix()
    angle = Rotation.from_matrix(similarity.mean_rotation(turns, np.ones(3))).as_euler("xyz", degrees=True)
    np.testing.assert_allclose(angle[:2], 0.0, atol=1e-9)
    assert 28.0 < angle[2] < 32.0
