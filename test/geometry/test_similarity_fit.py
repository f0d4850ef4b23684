"""Similarities from cameras and from points with gross errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.similarity_fit import fit_cameras, fit_trimmed


def cameras(count: int, seed: int, positions=None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = rng.normal(size=(count, 3)) if positions is None else positions
    return T


def moved(T: np.ndarray, S: np.ndarray) -> np.ndarray:
    out = S @ T
    out[:, :3, :3] /= np.cbrt(np.linalg.det(S[:3, :3]))
    return out


def similarity(scale: float, seed: int) -> np.ndarray:
    return transforms.rigid(scale * Rotation.random(random_state=seed).as_matrix(), np.array([1.0, -2.0, 0.5]))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 6), scale=st.floats(0.01, 100.0), seed=st.integers(0, 2**16))
def test_any_similarity_of_cameras_is_found(count, scale, seed):
    T, S = cameras(count, seed), similarity(scale, seed + 1)
    found = fit_cameras(T, moved(T, S))
    np.testing.assert_allclose(found.S_world_estimate, S, atol=1e-6 * max(scale, 1.0))
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.rmse_m == pytest.approx(0.0, abs=1e-6 * scale)
    np.testing.assert_allclose(found.rotation_deg, 0.0, atol=1e-4)


def test_positions_on_a_line_are_enough_and_one_place_is_not():
    T, S = cameras(3, 0, np.outer(np.arange(3), (1.0, 0.5, 0.0))), similarity(0.2, 3)
    np.testing.assert_allclose(fit_cameras(T, moved(T, S)).S_world_estimate, S, atol=1e-9)
    still = cameras(3, 0, np.zeros((3, 3)))
    with pytest.raises(InputError, match="2 or more different positions"):
        fit_cameras(still, moved(still, S))
    np.testing.assert_allclose(fit_cameras(still, moved(still, S), scale=0.2).S_world_estimate, S, atol=1e-9)
    with pytest.raises(InputError, match="cameras must be"):
        fit_cameras(T, T[:2])


def test_a_camera_that_looks_elsewhere_shows_in_its_angle():
    T = cameras(8, 1)
    known = T.copy()
    known[3, :3, :3] = known[3, :3, :3] @ Rotation.from_euler("x", 30, degrees=True).as_matrix()
    found = fit_cameras(T, known).rotation_deg
    assert np.argmax(found) == 3
    assert 20.0 < found[3] < 30.0
    assert np.delete(found, 3).max() < 6.0


def test_gross_errors_do_not_move_the_similarity():
    rng = np.random.default_rng(0)
    source, S = rng.normal(size=(400, 3)), similarity(0.7, 5)
    target = transforms.apply(S, source) + rng.normal(size=(400, 3)) * 1e-3
    target[:60] += rng.normal(size=(60, 3)) + 1.0
    found, left = fit_trimmed(source, target)
    np.testing.assert_allclose(found, S, atol=1e-3)
    assert left < 3e-3
    with pytest.raises(InputError, match="at least 3"):
        fit_trimmed(source[:2], target[:2])
    with pytest.raises(InputError, match="at least 3"):
        fit_trimmed(np.zeros((9, 3)), target[:9])
