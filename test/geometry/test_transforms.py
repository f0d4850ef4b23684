import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms

finite = st.floats(-10, 10)
quats_xyzw = arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1)
translations = arrays(np.float64, 3, elements=finite)


def similarity(quat_xyzw, translation, scale=1.0):
    return transforms.rigid(scale * transforms.matrix_from_quat_xyzw(quat_xyzw), translation)


@given(quats_xyzw, translations, st.floats(0.05, 20))
def test_inverse_undoes_similarities(quat_xyzw, translation, scale):
    S = similarity(quat_xyzw, translation, scale)
    np.testing.assert_allclose(transforms.inverse(S) @ S, np.eye(4), atol=1e-9)


@given(quats_xyzw, translations)
def test_inverse_of_a_batch_is_the_batch_of_inverses(quat_xyzw, translation):
    T = similarity(quat_xyzw, translation)
    batch = np.stack([T, np.eye(4), T @ T])
    np.testing.assert_allclose(transforms.inverse(batch), np.linalg.inv(batch), atol=1e-9)


@given(quats_xyzw)
def test_quaternion_round_trip(quat_xyzw):
    R = transforms.matrix_from_quat_xyzw(quat_xyzw)
    back = transforms.quat_xyzw_from_matrix(R)
    assert back[3] >= 0
    np.testing.assert_allclose(transforms.matrix_from_quat_xyzw(back), R, atol=1e-12)


def test_quaternion_order_is_xyzw():
    quarter_turn_about_z = transforms.matrix_from_quat_xyzw([0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    np.testing.assert_allclose(quarter_turn_about_z @ [1, 0, 0], [0, 1, 0], atol=1e-12)


@pytest.mark.parametrize("quat", [[0, 0, 0, 0], [np.nan, 0, 0, 1]])
def test_quaternion_without_direction_is_refused(quat):
    with pytest.raises(InputError, match="no direction"):
        transforms.matrix_from_quat_xyzw(quat)


@given(quats_xyzw, translations, arrays(np.float32, (5, 3), elements=st.floats(-5, 5, width=32)))
def test_apply_is_the_homogeneous_product_and_keeps_the_dtype(quat_xyzw, translation, points):
    T = similarity(quat_xyzw, translation)
    mapped = transforms.apply(T, points)
    assert mapped.dtype == np.float32
    expected = (T @ np.concatenate([points, np.ones((5, 1))], axis=1).T).T[:, :3]
    np.testing.assert_allclose(mapped, expected, atol=1e-4)


@given(translations, translations)
def test_look_at_puts_the_target_on_the_optical_axis(eye, target):
    forward = target - eye
    if np.linalg.norm(np.cross(forward, [0, 0, 1])) < 1e-3:
        return
    T_world_camera = transforms.look_at(eye, target)
    target_camera = transforms.apply(transforms.inverse(T_world_camera), target)
    np.testing.assert_allclose(target_camera, [0, 0, np.linalg.norm(forward)], atol=1e-6)
    assert T_world_camera[2, 1] < 1e-9, "image y points down, so its world z component is negative"
    assert np.linalg.det(T_world_camera[:3, :3]) == pytest.approx(1.0)


def test_look_at_straight_down_is_refused():
    with pytest.raises(InputError, match="look_at"):
        transforms.look_at([0, 0, 1], [0, 0, 0])
