"""Position vectors of SceneGen: what they mean in a scene whose answer is known, and that nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import scene_poses, transforms
from gena3d_core.geometry.scene_poses import (
    IDENTITY,
    fit_into_cube,
    in_query_frame,
    poses_from_similarities,
    relative_poses,
    similarities_from_poses,
    world_similarities,
)


def scenes(assets: int, seed: int) -> np.ndarray:
    """(A, 4, 4) random similarities, as assets lie in a world."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(assets, random_state=np.random.RandomState(seed)).as_matrix()
    parts = zip(rng.uniform(0.05, 3.0, assets), rotation, rng.uniform(-5, 5, (assets, 3)), strict=True)
    return np.stack([transforms.rigid(s * R, t) for s, R, t in parts])


many = settings(deadline=None, max_examples=30)
seeds = st.integers(0, 10**6)


def test_a_known_scene():
    """A 0.2 m query turned by 90° about z at (1, 2, 0), and a 0.1 m asset, unturned, 0.4 m from it along world y."""
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    S = np.stack([transforms.rigid(0.2 * quarter, [1, 2, 0]), transforms.rigid(0.1 * np.eye(3), [1, 2.4, 0])])
    poses = relative_poses(S)
    assert tuple(poses[0]) == IDENTITY
    # World y is the query's x, two of its sizes away; the asset is turned back by 90° and half as large.
    np.testing.assert_allclose(poses[1, :3], [2, 0, 0], atol=1e-12)
    np.testing.assert_allclose(poses[1, 3:7], [np.sqrt(0.5), 0, 0, -np.sqrt(0.5)], atol=1e-12)
    np.testing.assert_allclose(poses[1, 7], 0.5)
    # The top of the asset, half its side above its middle, half a side of the query is 0.1 m.
    top = transforms.apply(similarities_from_poses(poses)[1], np.array([0.0, 0.0, 0.5]))
    np.testing.assert_allclose(transforms.apply(S[0], top), [1, 2.4, 0.05], atol=1e-12)


def test_w_is_the_first_number_of_the_quaternion():
    S = similarities_from_poses(np.array([0, 0, 0, 0.0, 1.0, 0.0, 0.0, 1.0]))  # half a turn about x
    np.testing.assert_allclose(S, np.diag([1.0, -1.0, -1.0, 1.0]), atol=1e-12)


@many
@given(st.integers(1, 6), seeds)
def test_vectors_and_similarities_are_inverses(assets: int, seed: int):
    S = scenes(assets, seed)
    poses = poses_from_similarities(S)
    assert (poses[:, 3] >= 0).all()
    np.testing.assert_allclose(np.linalg.norm(poses[:, 3:7], axis=1), 1.0)
    np.testing.assert_allclose(similarities_from_poses(poses), S, atol=1e-9)
    # Any leading axes, and one vector alone.
    np.testing.assert_array_equal(
        similarities_from_poses(poses[None, :, None])[0, :, 0], similarities_from_poses(poses)
    )
    np.testing.assert_array_equal(poses_from_similarities(S[0]), poses[0])


@many
@given(seeds, st.floats(-3.0, 3.0).filter(lambda f: abs(f) > 1e-3))
def test_length_and_sign_of_the_quaternion_do_not_matter(seed: int, factor: float):
    poses = poses_from_similarities(scenes(3, seed))
    other = poses.copy()
    other[:, 3:7] *= factor
    np.testing.assert_allclose(similarities_from_poses(other), similarities_from_poses(poses), atol=1e-9)


@many
@given(st.integers(2, 6), seeds, st.data())
def test_relative_poses_lead_back_to_the_world(assets: int, seed: int, data: st.DataObject):
    S, query = scenes(assets, seed), data.draw(st.integers(0, assets - 1))
    poses = relative_poses(S, query)
    assert tuple(poses[query]) == IDENTITY
    np.testing.assert_allclose(world_similarities(poses, S[query]), S, atol=1e-8)


@many
@given(st.integers(2, 5), seeds, st.data())
def test_the_query_can_be_changed_without_the_world(assets: int, seed: int, data: st.DataObject):
    S = scenes(assets, seed)
    one, other = (data.draw(st.integers(0, assets - 1)) for _ in range(2))
    np.testing.assert_allclose(in_query_frame(relative_poses(S, one), other), relative_poses(S, other), atol=1e-7)


@many
@given(st.integers(2, 5), seeds, seeds)
def test_moving_the_world_changes_no_pose(assets: int, seed: int, move: int):
    S = scenes(assets, seed)
    np.testing.assert_allclose(relative_poses(scenes(1, move)[0] @ S), relative_poses(S), atol=1e-7)


@many
@given(st.integers(1, 5), seeds, st.floats(0.1, 5.0))
def test_a_scene_fits_its_cube(assets: int, seed: int, half: float):
    S = scenes(assets, seed)
    corners = np.random.default_rng(seed).uniform(-0.5, 0.5, (assets, 8, 3))
    fitted = fit_into_cube(S, corners, half)
    points = np.einsum("aij,anj->ani", fitted[:, :3, :3], corners) + fitted[:, None, :3, 3]
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    assert (high - low).max() == pytest.approx(2 * half)
    np.testing.assert_allclose(low, -high, atol=1e-9)
    np.testing.assert_allclose(relative_poses(fitted), relative_poses(S), atol=1e-7)


def test_grid_axes_of_the_published_frames():
    """A voxel at the top of the z-up grid is at the top (+y) of the published y-up model."""
    np.testing.assert_allclose(transforms.apply(scene_poses.S_YUP_ZUP, np.array([0.1, 0.2, 0.3])), [0.1, 0.3, -0.2])


@pytest.mark.parametrize(
    "poses",
    [
        np.zeros(8),  # no direction
        np.array([0, 0, 0, 1, 0, 0, 0, 0.0]),  # no size
        np.array([0, 0, 0, 1, 0, 0, 0, -1.0]),
        np.array([np.nan, 0, 0, 1, 0, 0, 0, 1.0]),
        np.zeros((3, 7)),
    ],
)
def test_vectors_that_place_nothing_are_refused(poses: np.ndarray):
    with pytest.raises(InputError):
        similarities_from_poses(poses)


@pytest.mark.parametrize("matrix", [np.diag([1.0, 1, -1, 1]), np.diag([1.0, 2, 1, 1]), np.zeros((4, 4)), np.eye(3)])
def test_matrices_that_are_no_similarities_are_refused(matrix: np.ndarray):
    with pytest.raises(InputError):
        poses_from_similarities(matrix)
    with pytest.raises(InputError):
        relative_poses(matrix[None])


def test_a_query_must_be_an_asset_and_a_scene_must_have_a_size():
    with pytest.raises(InputError, match="query 3"):
        relative_poses(scenes(3, 0), 3)
    with pytest.raises(InputError, match="extent"):
        fit_into_cube(np.eye(4)[None], np.zeros((1, 8, 3)))
