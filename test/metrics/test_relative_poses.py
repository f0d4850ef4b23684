"""Relative poses: independent of frames and units, and right where the error is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.metrics.relative_poses import relative_pose_errors


def cameras(count, seed):
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = np.random.default_rng(seed).normal(size=(count, 3))
    return T


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 6), scale=st.floats(0.01, 100.0), seed=st.integers(0, 2**16))
def test_another_frame_and_unit_is_no_error(count, scale, seed):
    T = cameras(count, seed)
    moved = transforms.rigid(Rotation.random(random_state=seed + 1).as_matrix(), np.array([1.0, -2.0, 0.5])) @ T
    moved[:, :3, 3] *= scale
    found = relative_pose_errors(moved, T)
    assert found.rotation_deg.shape == found.direction_deg.shape == (count * (count - 1) // 2,)
    np.testing.assert_allclose(found.rotation_deg, 0.0, atol=1e-4)
    np.testing.assert_allclose(found.direction_deg, 0.0, atol=1e-4)


def test_errors_are_those_that_were_made():
    T = cameras(3, 0)
    wrong = T.copy()
    wrong[2, :3, :3] = T[2, :3, :3] @ Rotation.from_euler("x", 30, degrees=True).as_matrix()
    found = relative_pose_errors(wrong, T)
    np.testing.assert_allclose(found.rotation_deg, [0.0, 30.0, 30.0], atol=1e-5)
    np.testing.assert_allclose(found.direction_deg, 0.0, atol=1e-5)
    wrong = T.copy()
    wrong[2, :3, 3] = T[0, :3, 3] - (T[2, :3, 3] - T[0, :3, 3])
    assert relative_pose_errors(wrong, T).direction_deg[1] == pytest.approx(180.0)


def test_one_place_tells_no_direction():
    T = cameras(2, 1)
    T[:, :3, 3] = 0.0
    assert np.isnan(relative_pose_errors(T, T).direction_deg).all()
    with pytest.raises(InputError, match="V >= 2"):
        relative_pose_errors(T[:1], T[:1])
