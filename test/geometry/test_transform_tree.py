"""The transform tree against a plain chain of matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.transform_tree import TransformLookupError, TransformTree

SECOND = 1_000_000_000
poses = st.builds(
    lambda r, t: transforms.rigid(Rotation.from_rotvec(r).as_matrix(), np.array(t)),
    st.tuples(*[st.floats(-2, 2)] * 3),
    st.tuples(*[st.floats(-5, 5)] * 3),
)


@given(poses, poses, poses)
@settings(max_examples=40, deadline=None)
def test_lookup_is_the_product_along_the_tree(T_map_base, T_base_arm, T_base_camera):
    tree = TransformTree()
    tree.add("map", "base", T_map_base, SECOND)
    tree.add("base", "arm", T_base_arm, SECOND)
    tree.add("base", "camera", T_base_camera, 0, static=True)
    np.testing.assert_allclose(tree.lookup("map", "camera", SECOND), T_map_base @ T_base_camera, atol=1e-9)
    across = transforms.inverse(T_base_arm) @ T_base_camera
    np.testing.assert_allclose(tree.lookup("arm", "camera", SECOND), across, atol=1e-9)
    np.testing.assert_allclose(tree.lookup("camera", "arm", SECOND), transforms.inverse(across), atol=1e-9)
    np.testing.assert_allclose(tree.lookup("arm", "arm", SECOND), np.eye(4), atol=1e-9)
    assert tree.root("camera") == tree.root("arm") == "map"


@given(poses, poses, st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_between_samples_translation_is_linear_and_rotation_steady(T_a, T_b, fraction):
    tree = TransformTree()
    tree.add("map", "camera", T_a, 0)
    tree.add("map", "camera", T_b, SECOND)
    T = tree.lookup("map", "camera", round(fraction * SECOND))
    np.testing.assert_allclose(T[:3, 3], (1 - fraction) * T_a[:3, 3] + fraction * T_b[:3, 3], atol=1e-6)
    whole = Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3]).magnitude()
    part = Rotation.from_matrix(T_a[:3, :3].T @ T[:3, :3]).magnitude()
    assert part == pytest.approx(fraction * whole, abs=1e-6)


@given(st.permutations(range(6)))
def test_samples_may_come_in_any_order(order):
    tree = TransformTree()
    for i in order:
        tree.add("map", "camera", transforms.rigid(t=np.array([float(i), 0, 0])), i * SECOND)
    assert tree.lookup("map", "camera", round(2.5 * SECOND))[0, 3] == pytest.approx(2.5)


def test_a_sample_of_the_same_time_replaces_the_earlier_one():
    tree = TransformTree()
    for x in (1.0, 2.0):
        tree.add("map", "camera", transforms.rigid(t=np.array([x, 0, 0])), SECOND)
    assert tree.lookup("map", "camera", SECOND)[0, 3] == 2.0


def test_no_guessing_beyond_the_samples():
    tree = TransformTree()
    tree.add("map", "camera", np.eye(4), SECOND)
    tree.add("map", "camera", np.eye(4), 2 * SECOND)
    with pytest.raises(TransformLookupError, match=r"'map' -> 'camera' starts 0\.500 s after"):
        tree.lookup("map", "camera", SECOND // 2)
    with pytest.raises(TransformLookupError, match=r"ends 1\.000 s before"):
        tree.lookup("map", "camera", 3 * SECOND)
    tree.lookup("map", "camera", 3 * SECOND, max_extrapolation_s=1.0)


def test_history_and_a_clock_that_jumped_back():
    tree = TransformTree(history_s=5)
    tree.add("base", "camera", np.eye(4), 0, static=True)
    for i in range(100):
        tree.add("map", "base", transforms.rigid(t=np.array([float(i), 0, 0])), i * SECOND)
    with pytest.raises(TransformLookupError, match="starts"):
        tree.lookup("map", "camera", 50 * SECOND)
    assert tree.newest_ns("base") == 99 * SECOND
    assert tree.newest_ns("camera") is None
    tree.forget_after(96 * SECOND)
    assert tree.newest_ns("base") == 96 * SECOND
    tree.forget_after(0)
    with pytest.raises(TransformLookupError, match="'map' is unknown"):
        tree.lookup("map", "camera", 0)


def test_faults_say_which_frame():
    tree = TransformTree()
    tree.add("map", "base", np.eye(4), 0)
    tree.add("odom", "camera", np.eye(4), 0)
    with pytest.raises(TransformLookupError, match="'lidar' is unknown"):
        tree.lookup("map", "lidar", 0)
    with pytest.raises(TransformLookupError, match="not connected"):
        tree.lookup("map", "camera", 0)
    tree.add("base", "map", np.eye(4), 0)
    with pytest.raises(TransformLookupError, match="loop"):
        tree.lookup("map", "base", 0)
    with pytest.raises(InputError, match="two different frames"):
        tree.add("map", "map", np.eye(4), 0)
    with pytest.raises(InputError, match="rigid"):
        tree.add("map", "base", 2 * np.eye(4), 0)
