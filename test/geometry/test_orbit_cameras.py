"""Cameras on a sphere: they stand and look where they should, and project as a camera does."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.checkpoints.cases.data_preparation import cameras as run_case
from gena3d_core.checkpoints.golden import compare_case, read_case
from gena3d_core.errors import InputError
from gena3d_core.geometry import orbit_cameras as orbit
from gena3d_core.geometry import transforms

ANGLES = st.floats(-10.0, 10.0)
PITCHES = st.floats(-np.pi / 2, np.pi / 2)


def test_golden_case(golden_dir: Path) -> None:
    case = read_case(golden_dir / "j_cameras")
    differences = compare_case(case, run_case(case))
    assert len(differences) == 8
    assert all(difference.ok for difference in differences.values()), differences


@given(ANGLES, PITCHES, st.floats(0.1, 10.0), st.floats(0.1, 2.5))
@settings(max_examples=60, deadline=None)
def test_cameras_stand_on_the_sphere_and_look_at_the_origin(
    yaw: float, pitch: float, radius: float, fov: float
) -> None:
    pose = orbit.orbit_poses_opengl(np.array([[yaw, pitch]]), radius)[0]
    R = pose[:3, :3]
    assert np.allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(R) == pytest.approx(1.0)
    expected = radius * np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    assert np.allclose(pose[:3, 3], expected)
    optical = orbit.opencv_from_opengl(pose)
    # Image x is level and image y points down.
    assert abs(optical[2, 0]) < 1e-12
    assert optical[2, 1] <= 1e-12
    K = orbit.normalised_intrinsics(fov)
    uv, depth = orbit.project_normalised(np.zeros((1, 3)), transforms.inverse(optical)[None], K[None])
    assert np.allclose(uv, 0.5)
    assert np.allclose(depth, radius)


@given(ANGLES, st.floats(-1.5, 1.5), st.floats(0.5, 5.0))
@settings(max_examples=40, deadline=None)
def test_agrees_with_look_at(yaw: float, pitch: float, radius: float) -> None:
    pose = orbit.opencv_from_opengl(orbit.orbit_poses_opengl(np.array([[yaw, pitch]]), radius))[0]
    assert np.allclose(pose, transforms.look_at(pose[:3, 3], np.zeros(3)), atol=1e-9)


def test_axes_and_radius_of_each_camera() -> None:
    poses = orbit.orbit_poses_opengl(np.array([[0.0, 0.0], [np.pi / 2, 0.0], [0.0, np.pi / 2]]), np.array([1.0, 2, 3]))
    assert np.allclose(poses[:, :3, 3], [[1, 0, 0], [0, 2, 0], [0, 0, 3]], atol=1e-12)
    assert np.allclose(orbit.opencv_from_opengl(orbit.opencv_from_opengl(poses)), poses)


@given(st.integers(0, 10_000), st.sampled_from(orbit.PRIMES))
@settings(max_examples=60, deadline=None)
def test_radical_inverse_mirrors_the_digits(number: int, base: int) -> None:
    digits, rest = [], number
    while rest:
        rest, digit = divmod(rest, base)
        digits.append(digit)
    expected = sum(digit / base ** (place + 1) for place, digit in enumerate(digits))
    assert orbit.radical_inverse(np.array([number]), base)[0] == pytest.approx(expected, abs=1e-12)


@given(st.integers(2, 400), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_directions_are_even(count: int, shift: float, turn: float) -> None:
    yaw_pitch = orbit.sphere_yaw_pitch(count, (shift, turn))
    heights = np.sin(yaw_pitch[:, 1])
    # On a sphere equal areas lie between equally spaced heights (Archimedes).
    assert np.allclose(np.diff(heights), 2.0 / count, atol=1e-9) or np.allclose(np.diff(heights), -2.0 / count)
    turns = np.sort(yaw_pitch[:, 0] / (2 * np.pi) % 1.0)
    assert np.diff(np.append(turns, turns[0] + 1.0)).max() <= 4.0 / count + 1e-9


def test_favouring_moves_half_of_the_cameras_below_up() -> None:
    plain, favoured = (orbit.sphere_yaw_pitch(400, (0.5, 0.0), favour_above=flag) for flag in (False, True))
    assert np.array_equal(plain[:, 0], favoured[:, 0])
    below = [(pitches[:, 1] < 0).mean() for pitches in (plain, favoured)]
    assert below == [0.5, 0.25]
    assert np.abs(favoured[:, 1]).max() <= np.pi / 2


def test_framing_holds_the_cube() -> None:
    fov = np.radians([10.0, 40.0, 70.0])
    corners = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), axis=-1).reshape(-1, 3)
    poses = orbit.opencv_from_opengl(orbit.orbit_poses_opengl(np.full((3, 2), 0.6), orbit.framing_radius(fov)))
    uv, depth = orbit.project_normalised(corners, transforms.inverse(poses), orbit.normalised_intrinsics(fov))
    assert (depth > 0).all()
    assert (uv > 0).all()
    assert (uv < 1).all()


def test_behind_the_camera_is_nowhere() -> None:
    pose = orbit.opencv_from_opengl(orbit.orbit_poses_opengl(np.zeros((1, 2)), 1.0))
    uv, depth = orbit.project_normalised(
        np.array([[2.0, 0.0, 0.0]]), transforms.inverse(pose), orbit.normalised_intrinsics(1.0)[None]
    )
    assert depth[0, 0] == pytest.approx(-1.0)
    assert np.isnan(uv).all()


def test_refusals() -> None:
    with pytest.raises(InputError, match="field of view"):
        orbit.normalised_intrinsics(np.pi)
    with pytest.raises(InputError, match="Hammersley"):
        orbit.hammersley(0, 2)
    with pytest.raises(InputError, match="base"):
        orbit.radical_inverse(np.arange(3), 1)
    with pytest.raises(InputError, match="yaw_pitch"):
        orbit.orbit_poses_opengl(np.zeros((3, 3)), 1.0)
