"""transforms.json: the same world points whichever way the file describes the scene."""

import json

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.camera import world_points
from gena3d_core.geometry.transforms import rigid
from gena3d_core.io import load_views

OPTICAL_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture
def write(tmp_path, views, millimetres):
    """Writes the views with changes to the JSON; returns the path of the file."""
    (tmp_path / "images").mkdir()

    def write(frame_changes=None, T_file_world=None, suffix=".png", **changes):
        k = views[0].intrinsics
        T_file_world = np.eye(4) if T_file_world is None else T_file_world
        frames = []
        for view in views:
            cv2.imwrite(str(tmp_path / f"images/{view.name}.png"), view.color[..., ::-1])
            cv2.imwrite(str(tmp_path / f"images/{view.name}_depth.png"), millimetres(view.depth_m))
            frames.append(
                {
                    "file_path": f"images/{view.name}{suffix}",
                    "depth_file_path": f"images/{view.name}_depth.png",
                    "transform_matrix": (T_file_world @ view.T_world_camera @ OPTICAL_FROM_OPENGL).tolist(),
                    **(frame_changes or {}),
                }
            )
        content = {
            "camera_model": "OPENCV",
            "w": k.width,
            "h": k.height,
            "fl_x": k.fx,
            "fl_y": k.fy,
            "cx": k.cx + 0.5,
            "cy": k.cy + 0.5,
            "frames": frames,
            **changes,
        }
        (tmp_path / "transforms.json").write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
        return tmp_path / "transforms.json"

    return write


def assert_same(before, after):
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(b.color, a.color)
        np.testing.assert_allclose(b.T_world_camera, a.T_world_camera, atol=1e-9)
        np.testing.assert_allclose(world_points(b), world_points(a), atol=1e-5)


def test_poses_pixels_and_depth_come_back(write, views):
    loaded = load_views(write())
    assert_same(views, loaded)
    assert loaded[0].intrinsics == views[0].intrinsics
    assert_same(views, load_views(write().parent))


def test_a_scene_written_with_another_up_gives_the_same_world_points(write, views):
    R = Rotation.from_rotvec([1.1, 0.7, 0.0]).as_matrix()  # about an axis in the plane: the smallest turn of `up`
    assert_same(views, load_views(write(T_file_world=rigid(R), up=R[:, 2].tolist())))
    upside_down = Rotation.from_rotvec([np.pi, 0, 0]).as_matrix()
    assert_same(views, load_views(write(T_file_world=rigid(upside_down), up=[0, 0, -1])))


def test_a_scene_turned_about_z_gives_turned_world_points(write, views):
    R = Rotation.from_rotvec([0.0, 0.0, 0.8]).as_matrix()
    T = rigid(R, np.array([0.3, -0.2, 0.1]))
    for a, b in zip(views, load_views(write(T_file_world=T)), strict=True):
        np.testing.assert_allclose(world_points(b), world_points(a) @ R.T.astype(np.float32) + T[:3, 3], atol=1e-5)


def test_applied_scale_is_divided_out(write, views):
    loaded = load_views(write(applied_scale=2.0))
    np.testing.assert_allclose(loaded[1].T_world_camera[:3, 3], views[1].T_world_camera[:3, 3] / 2, atol=1e-9)


def test_intrinsics_of_each_frame_win(write, views):
    loaded = load_views(write(frame_changes={"fl_x": 99.0}))
    assert {view.intrinsics.fx for view in loaded} == {99.0}
    assert {view.intrinsics.fy for view in loaded} == {views[0].intrinsics.fy}


def test_field_of_view_instead_of_a_focal_length(write):
    view = load_views(write(fl_x=None, fl_y=None, cx=None, cy=None, camera_angle_x=2 * np.arctan(0.5)))[0]
    assert (view.intrinsics.fx, view.intrinsics.fy) == pytest.approx((64, 64))
    assert (view.intrinsics.cx, view.intrinsics.cy) == (31.5, 23.5)


def test_file_names_without_suffix(write, views):
    assert_same(views, load_views(write(suffix="")))


def test_depth_unit_and_no_depth(write, views):
    doubled = load_views(write(depth_unit_scale_factor=0.002))[0].depth_m
    np.testing.assert_allclose(doubled, 2 * views[0].depth_m, rtol=1e-6)
    assert load_views(write(frame_changes={"depth_file_path": None}))[0].depth_m is None


@pytest.mark.parametrize("model", ["OPENCV", "OPENCV_FISHEYE"])
def test_distortion_is_removed(write, views, model):
    coefficients = {"k1": -0.25, "k2": 0.03}
    distorted = load_views(write(camera_model=model, **coefficients))[0]
    plain = views[0]
    center = (slice(22, 27), slice(29, 34))
    np.testing.assert_allclose(distorted.color[center].astype(int), plain.color[center], atol=3)
    assert np.abs(distorted.color[2, 2].astype(int) - plain.color[2, 2]).max() > 5
    assert distorted.intrinsics == plain.intrinsics


def test_chosen_frames_and_views(write):
    path = write()
    assert [view.name for view in load_views(path, frames=[3, 1])] == ["000001", "000003"]
    assert len(load_views(path, max_views=2)) == 2
    with pytest.raises(InputError, match=r"no frame 9; its frames are 0\.\.3"):
        load_views(path, frames=[9])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "at least one frame"),
        ({"frames": [{"file_path": "x.png"}]}, "frame 0: the pose"),
        ({"frame_changes": {"transform_matrix": [[1, 0], [0, 1]]}}, "frame 0: the pose must be a 4x4"),
        ({"frame_changes": {"transform_matrix": np.full((4, 4), np.inf).tolist()}}, "frame 0: the pose holds NaN"),
        ({"frame_changes": {"transform_matrix": np.diag([2, 2, 2, 1]).tolist()}}, "frame 0: the pose is not a rigid"),
        ({"frame_changes": {"file_path": "images/absent.png"}}, r"absent\.png: no such file"),
        ({"frame_changes": {"file_path": None}}, "frame 0 has no 'file_path'"),
        ({"fl_x": None}, "focal length is unknown"),
        ({"fl_x": "long"}, "'fl_x' must be a number"),
        ({"w": 640}, "intrinsics are for 640x48 pixels"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model 'EQUIRECTANGULAR' is not supported"),
        ({"up": [0, 0, 0]}, "'up' must be three numbers"),
        ({"up": "z"}, "'up' must be three numbers"),
        ({"applied_scale": 0}, "'applied_scale' must be positive"),
    ],
)
def test_each_fault_is_named(write, changes, message):
    with pytest.raises(DataFormatError, match=message) as caught:
        load_views(write(**changes))
    assert "\n" not in str(caught.value)
