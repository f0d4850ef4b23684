"""Layouts relative to the query asset: conventions by construction and by the published numbers; means."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import similarity, transforms
from gena3d_core.layout.layout_mean import mean_layout
from gena3d_core.layout.relative_layout import (
    Y_UP_MODEL,
    Z_UP_MODEL,
    RelativeLayout,
    in_frame_of,
    layout_from_world,
    poses_from_similarities,
    similarities,
    with_query,
    world_similarities,
)

seeds = st.integers(0, 2**31 - 1)
axes = st.sampled_from([Z_UP_MODEL, Y_UP_MODEL])


def random_world(rng, count=4):
    R = Rotation.random(count, random_state=int(rng.integers(1 << 31))).as_matrix()
    return similarity.compose(rng.normal(0, 0.3, (count, 3)), R, rng.uniform(0.05, 0.4, count))


def test_a_scene_whose_answer_is_known():
    """A cup of 0.1 m stands 0.2 m to the left (+y) of a plate of 0.2 m that is turned by 90 degrees about z."""
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    S_world_grid = similarity.compose([[1.0, 2.0, 0.0], [1.0, 2.2, 0.0]], np.stack([quarter, np.eye(3)]), [0.2, 0.1])
    layout = layout_from_world(S_world_grid, 0)
    np.testing.assert_allclose(layout.poses[0], [0, 0, 0, 1, 0, 0, 0, 1], atol=1e-12)
    # seen from the plate the cup lies one plate's width along +x, turned back by 90 degrees, half as large
    half = np.sqrt(0.5)
    np.testing.assert_allclose(layout.poses[1], [1, 0, 0, half, 0, 0, -half, 0.5], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(seeds, axes, st.integers(0, 3))
def test_layouts_go_round(seed, R_model_grid, query):
    S_world_grid = random_world(np.random.default_rng(seed))
    layout = layout_from_world(S_world_grid, query, R_model_grid)
    S_world_scene = S_world_grid[query] @ transforms.rigid(R_model_grid.T)
    np.testing.assert_allclose(world_similarities(S_world_scene, layout.S_scene_grid), S_world_grid, atol=1e-9)
    np.testing.assert_allclose(poses_from_similarities(layout.S_scene_grid, R_model_grid), layout.poses, atol=1e-9)
    other = with_query(layout, (query + 1) % 4)
    np.testing.assert_allclose(other.poses, layout_from_world(S_world_grid, other.query, R_model_grid).poses, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_batches_are_batches_of_single_scenes(seed):
    rng = np.random.default_rng(seed)
    S = np.stack([random_world(rng), random_world(rng)])
    poses = poses_from_similarities(in_frame_of(S, 1))
    assert poses.shape == (2, 4, 8)
    for item, scene in zip(poses, S, strict=True):
        np.testing.assert_allclose(item, layout_from_world(scene, 1).poses, atol=1e-9)
    np.testing.assert_allclose(world_similarities(S[:, 1], similarities(poses)), S, atol=1e-9)


def test_published_training_targets(golden_dir):
    data = load_file(golden_dir / "g_scenegen_pose" / "io.safetensors")
    R = Rotation.from_euler("xyz", data["in.euler_xyz_deg"], degrees=True).as_matrix()
    S = similarity.compose(data["in.translation"], R, data["in.scale"])
    poses, wanted = poses_from_similarities(in_frame_of(S, 0)), data["out.P_quat"]
    wanted = np.concatenate([wanted[:, :3], wanted[:, 3:7] * np.sign(wanted[:, 3:4]), wanted[:, 7:]], axis=1)
    np.testing.assert_allclose(poses, wanted, atol=1e-6)


def test_published_placement_of_voxels(golden_dir):
    data = load_file(golden_dir / "g_scenegen_pose" / "io.safetensors")
    occupied = data["in.occ"]
    S_scene_grid = similarities(data["out.P_quat"], Y_UP_MODEL)
    asset, *index = np.nonzero(occupied)
    points = np.stack(index, axis=1) / occupied.shape[1] - 0.5
    placed = np.einsum("nij,nj->ni", S_scene_grid[asset, :3, :3], points) + S_scene_grid[asset, :3, 3] + 0.5
    np.testing.assert_array_equal(asset, data["out.voxel_owner"])
    np.testing.assert_allclose(placed, data["out.voxel_points"], atol=1e-5)


IDENTITY = [0.0, 0, 0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [([0, 0, 0, 0, 0, 0, 0, 1.0], "quaternion"), ([0, 0, 0, 1, 0, 0, 0, 0.0], "scale above 0"),
     ([np.nan, 0, 0, 1, 0, 0, 0, 1.0], "finite")],
)  # fmt: skip
def test_impossible_poses_are_refused(row, message):
    with pytest.raises(InputError, match=rf"pose \(1,\) .*{message}"):
        RelativeLayout(np.array([IDENTITY, row]))


def test_the_query_is_the_identity():
    with pytest.raises(InputError, match="query asset 1 must be the identity"):
        RelativeLayout(np.array([IDENTITY, [1.0, 0, 0, 1, 0, 0, 0, 1]]), query=1)
    with pytest.raises(InputError, match="query asset 2 is not one of the 1"):
        RelativeLayout(np.array([IDENTITY]), query=2)
    # -q is the same rotation, also for the query
    assert len(RelativeLayout(np.array([[0.0, 0, 0, -1, 0, 0, 0, 1]]))) == 1


@settings(max_examples=40, deadline=None)
@given(seeds, axes)
def test_layouts_with_other_queries_average_to_the_same_scene(seed, R_model_grid):
    S_world_grid = random_world(np.random.default_rng(seed))
    layouts = [layout_from_world(S_world_grid, query, R_model_grid) for query in (2, 0, 3)]
    mean = mean_layout(layouts, query=1)
    np.testing.assert_allclose(mean.layout.poses, layout_from_world(S_world_grid, 1, R_model_grid).poses, atol=1e-7)
    assert mean.deviations.max() < 1e-6
    assert mean_layout(layouts).layout.query == 2


def test_averaging_lowers_the_error_whatever_the_query():
    rng = np.random.default_rng(5)
    errors = {"one": [], "mean": []}
    for _ in range(12):
        S_world_grid = random_world(rng, 5)
        truth = layout_from_world(S_world_grid, 0).S_scene_grid
        layouts = []
        for query in (0, 1, 2, 3, 0, 4, 2, 1):
            noisy = np.stack([similarity.changed(S, rng.normal(0, [0.01] * 3 + [0.05] * 4)) for S in S_world_grid])
            layouts.append(layout_from_world(noisy, query))
        mean = mean_layout(layouts, query=0)
        for name, layout in (("mean", mean.layout), ("one", layouts[0])):
            changes = [similarity.change_between(a, b) for a, b in zip(truth, layout.S_scene_grid, strict=True)]
            errors[name].append(np.sqrt(np.mean(np.square(changes), axis=0)))
        assert 0.005 < np.sqrt((mean.deviations[1:] ** 2).mean()) < 0.5
    ratio = np.mean(errors["mean"], axis=0) / np.mean(errors["one"], axis=0)
    assert (ratio < 0.75).all()


def test_weights_choose_the_view_of_each_asset():
    rng = np.random.default_rng(0)
    first, second = (layout_from_world(random_world(rng, 3), 0) for _ in range(2))
    mean = mean_layout([first, second], np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])).layout
    np.testing.assert_allclose(mean.poses, np.stack([first.poses[0], first.poses[1], second.poses[2]]), atol=1e-9)


def test_layouts_of_different_scenes_are_not_averaged():
    rng = np.random.default_rng(0)
    three, four = layout_from_world(random_world(rng, 3)), layout_from_world(random_world(rng, 4))
    with pytest.raises(InputError, match="same assets"):
        mean_layout([three, four])
    with pytest.raises(InputError, match="axes"):
        mean_layout([three, layout_from_world(random_world(rng, 3), 0, Y_UP_MODEL)])
    with pytest.raises(InputError, match=r"weights must be \(1,\) or \(1, 3\)"):
        mean_layout([three], np.ones(3))
    with pytest.raises(InputError, match="at least one"):
        mean_layout([])
