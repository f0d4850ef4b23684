"""From assets with a relative layout to placed objects, on a scene whose answer is known by construction."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import similarity, transforms
from gena3d_core.geometry.similarity import SimilarityEstimate
from gena3d_core.layout import RelativeLayout, place_scene
from gena3d_core.layout.evidence import KnownSize, SupportContact, UprightAssets
from gena3d_core.layout.relative_layout import Y_UP_MODEL, Z_UP_MODEL
from gena3d_core.types import CompletedObject, SupportPlane

TABLE = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
METRIC = (KnownSize(0, 0.4), SupportContact(TABLE), UprightAssets((0, 1, 2)))


def asset(number, size) -> CompletedObject:
    solid = trimesh.creation.box(size)
    return CompletedObject(number, mesh_ops.make_mesh(solid.vertices, solid.faces), residuals={"steps": 25.0})


@pytest.fixture
def completed():
    return [asset(10, (1.0, 0.8, 0.5)), asset(20, (0.5, 0.5, 1.0)), asset(30, (1.0, 0.2, 0.2))]


def z_up_poses():
    """A box of 0.4 m; a tower half as large, 0.2 m along x and 0.2 m too high; a bar 1 cm inside the box."""
    turn = np.roll(Rotation.from_euler("z", 90, degrees=True).as_quat(), 1)
    return np.array([
        [0.0, 0.0, 0.0, 1, 0, 0, 0, 1.0],
        [1.0, 0.0, 0.5, 1, 0, 0, 0, 0.5],
        [-0.525, 0.0, -0.2, *turn, 0.5],
    ])  # fmt: skip


def y_up_poses():
    """The same scene as the published checkpoint says it: model frames with y up, (x, y, z) = grid's (x, z, -y)."""
    poses = z_up_poses()
    poses[:, :3] = poses[:, :3] @ Y_UP_MODEL.T
    R = Y_UP_MODEL @ similarity.matrix_from_quat_wxyz(poses[:, 3:7]) @ Y_UP_MODEL.T
    poses[:, 3:7] = similarity.quat_wxyz_from_matrix(R)
    return poses


@pytest.mark.parametrize(("poses", "axes"), [(z_up_poses(), Z_UP_MODEL), (y_up_poses(), Y_UP_MODEL)])
def test_a_known_scene_end_to_end(completed, poses, axes):
    scene = place_scene(completed, RelativeLayout(poses, 0, axes), METRIC, labels=["box", "tower", "bar"])
    assert scene.alignment.metric
    assert [(o.id, o.label) for o in scene.objects] == [(10, "box"), (20, "tower"), (30, "bar")]
    box, tower, bar = scene.objects
    scales = [similarity.parts(pose.estimate.S)[2] for pose in scene.poses]
    np.testing.assert_allclose(scales, [0.4, 0.2, 0.2], rtol=0.01)
    assert box.size_m[2] == pytest.approx(0.2, rel=0.03)
    assert tower.size_m[2] == pytest.approx(0.2, rel=0.03)
    lowest = [o.T_world_object[2, 3] - o.size_m[2] / 2 for o in scene.objects]
    np.testing.assert_allclose(lowest, 0.0, atol=1e-3)  # the tower was lowered, nothing is below the table
    # the centres are 0.4 and 0.21 m from the box's, as far as the bar had to leave it
    apart = [np.linalg.norm((o.T_world_object - box.T_world_object)[:2, 3]) for o in (tower, bar)]
    np.testing.assert_allclose(apart, [0.4, 0.22], atol=0.02)
    assert scene.contacts.before == ((0, 2),)
    assert scene.contacts.after == ()
    assert bar.residuals["contact_shift_m"] > 0.002
    assert bar.residuals["steps"] == 25.0
    assert tower.residuals["layout_sigma_m"] > box.residuals["layout_sigma_m"] * 0.9
    assert scene.warnings == ("layout: the evidence does not determine position, orientation in the world",)


def test_without_evidence_sizes_are_relative(completed):
    scene = place_scene(completed, RelativeLayout(z_up_poses()))
    assert not scene.alignment.metric
    np.testing.assert_allclose(scene.objects[0].size_m, [1.0, 0.8, 0.5], atol=1e-6)
    assert "not in metres" in scene.warnings[0]


def test_measured_poses_are_fused_or_win(completed):
    layout = RelativeLayout(z_up_poses())
    before = place_scene(completed, layout, METRIC)
    tower = before.poses[1].estimate.S
    near = SimilarityEstimate(similarity.changed(tower, np.array([0.004, 0, 0, 0, 0, 0, 0.0])), 1e-8 * np.eye(7))
    far = SimilarityEstimate(transforms.rigid(t=[0.5, 0.0, 0.0]) @ tower, 1e-4 * np.eye(7))
    fused = place_scene(completed, layout, METRIC, measured={20: near})
    assert [pose.source for pose in fused.poses] == ["layout", "both", "layout"]
    assert fused.objects[1].residuals["disagreement_m"] == pytest.approx(0.004, abs=1e-6)
    np.testing.assert_allclose(fused.poses[1].estimate.S, near.S, atol=1e-4)
    won = place_scene(completed, layout, METRIC, measured={20: far})
    assert won.poses[1].source == "measured"
    assert any("object 20" in warning and "50.0 cm" in warning for warning in won.warnings)


def test_measured_poses_alone_place_the_scene(completed):
    layout = RelativeLayout(z_up_poses())
    R = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    S_world_scene = similarity.compose([1.0, 2.0, 0.1], R, 0.4)
    S = S_world_scene @ layout.S_scene_grid
    measured = {number: SimilarityEstimate(S[k], 1e-6 * np.eye(7)) for k, number in ((1, 20), (2, 30))}
    scene = place_scene(completed, layout, support=TABLE, measured=measured)
    assert scene.alignment.metric
    np.testing.assert_allclose(scene.alignment.estimate.S, S_world_scene, atol=1e-4)
    np.testing.assert_allclose(scene.poses[0].estimate.S, S[0], atol=1e-4)
    assert [pose.source for pose in scene.poses] == ["layout", "both", "both"]


def test_lists_must_match(completed):
    layout = RelativeLayout(z_up_poses())
    with pytest.raises(InputError, match="2 assets, a layout of 3"):
        place_scene(completed[:2], layout)
    with pytest.raises(InputError, match=r"objects \[99\] that are not in the layout"):
        place_scene(completed, layout, measured={99: SimilarityEstimate(np.eye(4), np.eye(7))})
    with pytest.raises(InputError, match="ids of their own"):
        place_scene([completed[0]] * 3, layout)
