from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.types import Intrinsics, Mesh, ObjectObservation, SupportPlane, View

INTRINSICS = Intrinsics(width=4, height=3, fx=5.0, fy=5.0, cx=1.5, cy=1.0)


def make_view(**changes):
    return replace(View(np.zeros((3, 4, 3), np.uint8), INTRINSICS, np.eye(4), name="a"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"color": np.zeros((4, 4, 3), np.uint8)}, r"color of view 'a' must have shape \(3, 4, 3\)"),
        ({"color": np.zeros((3, 4, 3), np.float32)}, "uint8"),
        ({"depth_m": np.zeros((3, 4), np.float64)}, "float32"),
        ({"depth_m": np.zeros((3, 5), np.float32)}, "depth_m of view 'a'"),
        ({"T_world_camera": np.full((4, 4), np.nan)}, "NaN"),
        ({"T_world_camera": np.diag([2.0, 2.0, 2.0, 1.0])}, "not a rigid transform"),
        ({"T_world_camera": np.diag([1.0, 1.0, -1.0, 1.0])}, "not a rigid transform"),
        ({"T_world_camera": np.eye(3)}, r"\(4, 4\)"),
    ],
)
def test_views_refuse_what_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        make_view(**changes)


@pytest.mark.parametrize("changes", [{"width": 0}, {"fx": 0.0}, {"fy": -1.0}, {"cx": float("nan")}])
def test_intrinsics_refuse_impossible_cameras(changes):
    with pytest.raises(InputError):
        replace(INTRINSICS, **changes)


def test_meshes_refuse_faces_out_of_range():
    with pytest.raises(InputError, match=r"outside 0\.\.2"):
        Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 3]], np.int32))


def test_meshes_refuse_attributes_of_another_length():
    with pytest.raises(InputError, match="vertex_confidence"):
        Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32), vertex_confidence=np.ones(2, np.float32))


def test_height_above_a_support_plane():
    plane = SupportPlane(np.array([0.0, 0.0, 1.0]), -0.7)
    np.testing.assert_allclose(plane.height_m(np.array([[5.0, 5.0, 0.9], [0.0, 0.0, 0.7]])), [0.2, 0.0], atol=1e-12)


def test_visibility_is_visible_over_visible_and_occluded():
    visible = np.zeros((3, 4), bool)
    visible[0] = True
    occluded = np.zeros((3, 4), bool)
    occluded[1:] = True
    nothing = np.zeros((3, 4), bool)
    observation = ObjectObservation(
        id=1,
        label="",
        score=1.0,
        views=(make_view(), make_view(name="b"), make_view(name="c")),
        visible_masks=(visible, visible, nothing),
        occlusion_masks=(occluded, nothing, occluded),
        points_m=np.zeros((1, 3), np.float32),
        point_colors=np.zeros((1, 3), np.uint8),
        point_view=np.zeros(1, np.int32),
    )
    np.testing.assert_allclose(observation.visibility, [4 / 12, 1.0, 0.0])
