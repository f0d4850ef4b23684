"""Penetration of closed and open meshes, and the least translation that parts them."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.layout import collisions
from gena3d_core.types import Mesh

UP = np.array([0.0, 0.0, 1.0])


def box_mesh(size=(0.1, 0.1, 0.1), at=(0.0, 0.0, 0.05)) -> Mesh:
    box = trimesh.creation.box(size)
    return mesh_ops.make_mesh(box.vertices + np.array(at), box.faces)


def sphere_mesh(radius=0.05, at=(0.0, 0.0, 0.05)) -> Mesh:
    sphere = trimesh.creation.icosphere(4, radius)
    return mesh_ops.make_mesh(sphere.vertices + np.array(at), sphere.faces)


def samples_of(*meshes):
    return [collisions.sample_object(mesh) for mesh in meshes]


def test_signed_depth_of_a_sphere(rng):
    target = collisions.sample_object(sphere_mesh())
    points = rng.uniform(-0.08, 0.08, (2000, 3)) + np.array([0, 0, 0.05])
    truth = 0.05 - np.linalg.norm(points - [0, 0, 0.05], axis=1)
    depth = collisions.signed_depth_m(points, target)
    clear = np.abs(truth) > 0.004
    assert ((depth > 0) == (truth > 0))[clear].mean() > 0.995
    inside = clear & (truth > 0) & (truth < 0.03)
    np.testing.assert_allclose(depth[inside], truth[inside], atol=0.003)


def test_winding_number():
    target = collisions.sample_object(sphere_mesh())
    points = np.array([[0, 0, 0.05], [0.02, 0, 0.05], [0.2, 0, 0.05]])
    np.testing.assert_allclose(collisions.winding_number(points, target), [1, 1, 0], atol=0.02)
    assert collisions.winding_number(np.zeros((0, 3)), target).shape == (0,)


@pytest.mark.parametrize("gap", [0.002, -0.004, -0.01, -0.02])
def test_penetration_depth_of_boxes(gap):
    contacts = collisions.find_contacts(samples_of(box_mesh(), box_mesh(at=(0.1 + gap, 0.0, 0.05))), 0.001)
    if gap > 0:
        assert contacts == []
    else:
        (contact,) = contacts
        assert (contact.first, contact.second) == (0, 1)
        assert contact.depth_m == pytest.approx(-gap, abs=0.003)
        assert contact.share > 0.01


def test_object_behind_an_open_surface_is_not_inside():
    sphere = sphere_mesh()
    front = mesh_ops.select_faces(sphere, (sphere.vertices[:, 0] > 0.0)[sphere.faces].all(axis=1))
    behind = box_mesh((0.03, 0.03, 0.03), at=(-0.02, 0.0, 0.05))
    assert collisions.find_contacts(samples_of(front, behind), 0.001) == []
    # The same box within the whole sphere is inside.
    assert len(collisions.find_contacts(samples_of(sphere, behind), 0.001)) == 1


def test_boxes_are_parted_horizontally():
    samples = samples_of(box_mesh(), box_mesh(at=(0.09, 0.0, 0.05)))
    shifts, remaining = collisions.resolve(samples, UP, [0.02, 0.02])
    np.testing.assert_allclose(shifts[:, 2], 0.0, atol=1e-12)
    np.testing.assert_allclose(shifts[0], -shifts[1], atol=1e-9)
    assert np.linalg.norm(shifts, axis=1).sum() == pytest.approx(0.01, abs=0.004)
    assert shifts[1, 0] > 0.002
    assert remaining.max() == 0.0


def test_only_the_free_object_moves():
    samples = samples_of(box_mesh(), box_mesh(at=(0.09, 0.0, 0.05)))
    shifts, remaining = collisions.resolve(samples, UP, [0.0, 0.02])
    np.testing.assert_array_equal(shifts[0], 0.0)
    assert shifts[1, 0] == pytest.approx(0.01, abs=0.004)
    assert remaining.max() == 0.0


def test_bounds_hold_and_the_rest_is_reported():
    samples = samples_of(box_mesh(), box_mesh(at=(0.08, 0.0, 0.05)))
    shifts, remaining = collisions.resolve(samples, UP, [0.002, 0.002])
    assert np.linalg.norm(shifts, axis=1).max() <= 0.002 + 1e-9
    np.testing.assert_allclose(remaining, 0.016, atol=0.004)


def test_objects_apart_do_not_move():
    samples = samples_of(box_mesh(), sphere_mesh(at=(0.2, 0.0, 0.05)), box_mesh(at=(0.0, 0.3, 0.05)))
    shifts, remaining = collisions.resolve(samples, UP, [0.02] * 3)
    np.testing.assert_array_equal(shifts, 0.0)
    np.testing.assert_array_equal(remaining, 0.0)


def test_object_that_rests_on_another_is_not_pushed_off():
    samples = samples_of(box_mesh(), box_mesh((0.05, 0.05, 0.05), at=(0.01, 0.0, 0.12)))
    shifts, remaining = collisions.resolve(samples, UP, [0.01, 0.01])
    np.testing.assert_array_equal(shifts, 0.0)
    np.testing.assert_allclose(remaining, 0.005, atol=0.002)


def test_no_objects():
    shifts, remaining = collisions.resolve([], UP, [])
    assert shifts.shape == (0, 3)
    assert remaining.shape == (0,)


@settings(max_examples=12, deadline=None)
@given(angle=st.floats(0.0, 6.28), overlap=st.floats(0.004, 0.02), x=st.floats(-3, 3), y=st.floats(-3, 3))
def test_spheres_are_parted_along_their_centres_anywhere(angle, overlap, x, y):
    direction = np.array([np.cos(angle), np.sin(angle), 0.0])
    T = transforms.rigid(t=np.array([x, y, 0.0]))
    first = mesh_ops.transformed(sphere_mesh(), T)
    second = mesh_ops.transformed(sphere_mesh(at=(0.1 - overlap) * direction + [0, 0, 0.05]), T)
    shifts, remaining = collisions.resolve(samples_of(first, second), UP, [0.0, 0.03])
    assert remaining.max() == 0.0
    assert shifts[1] @ direction > 0.5 * np.linalg.norm(shifts[1])
    assert np.linalg.norm(shifts[1]) < overlap + 0.005
