"""Placing completed objects: frames, sizes, settling, collisions, residuals, errors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.generation import make_generator
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.layout import LayoutLimits, place_objects
from gena3d_core.layout.settle import settle_shift_m, support_gap_m
from gena3d_core.meshing import make_watertight
from gena3d_core.types import CompletedObject, Mesh, SupportPlane, View


@pytest.fixture(scope="module")
def scene(solids):
    return [solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03)), solids.Cylinder((0.15, 0.0, 0), 0.04, 0.09)]


@pytest.fixture(scope="module")
def observations(solids, scene):
    return [solids.observe(scene, solids.ring(4), number=n) for n in range(2)]


@pytest.fixture(scope="module")
def completed(observations):
    return make_generator("observed").generate(observations)


def world_mesh(item) -> Mesh:
    return mesh_ops.transformed(item.mesh, item.T_world_object)


def test_observed_objects_are_placed_where_they_are(scene, observations, completed):
    placed = place_objects(completed, observations, observations[0].support)
    assert [p.id for p in placed] == [0, 1]
    assert [p.label for p in placed] == ["box", "cylinder"]
    for solid, item, given_mesh in zip(scene, placed, completed, strict=True):
        low, high = mesh_ops.bounds(item.mesh)
        np.testing.assert_allclose(low, -high, atol=1e-6)
        np.testing.assert_allclose(item.size_m, high - low, atol=1e-6)
        np.testing.assert_array_equal(item.T_world_object[:3, :3], np.eye(3))
        np.testing.assert_allclose(world_mesh(item).vertices, given_mesh.mesh.vertices, atol=1e-6)
        assert np.abs(solid.distance(world_mesh(item).vertices)).mean() < 0.001
        assert 0.5 < item.observed_fraction < 1.0
        assert 0.0 < item.score <= 0.9
        assert item.residuals["penetration_m"] == 0.0
        assert item.residuals["support_shift_m"] == 0.0
        assert item.residuals["fit_rmse_m"] < 0.002
    np.testing.assert_allclose(placed[0].size_m, [0.12, 0.08, 0.06], atol=0.007)


def lowered(completed, shift):
    T = transforms.rigid(t=np.array([0.0, 0.0, shift]))
    return [replace(c, mesh=mesh_ops.transformed(c.mesh, T)) for c in completed]


@pytest.mark.parametrize("shift", [-0.004, 0.004])
def test_drift_along_the_support_normal_is_taken_back(observations, completed, shift):
    closed = [replace(c, mesh=make_watertight(c.mesh)) for c in completed]
    for item in place_objects(lowered(closed, shift), observations, observations[0].support):
        assert item.residuals["support_gap_m"] == pytest.approx(shift, abs=0.001)
        assert item.residuals["support_shift_m"] == pytest.approx(0.004, abs=0.001)
        assert support_gap_m(world_mesh(item), observations[0].support) == pytest.approx(0.0, abs=0.0005)


def test_settling_is_bounded(observations, completed):
    limits = LayoutLimits(observed_shift_m=0.002)
    placed = place_objects(lowered(completed, -0.01), observations, observations[0].support, limits)
    for item in placed:
        assert item.residuals["support_shift_m"] == pytest.approx(0.002)
        assert mesh_ops.bounds(world_mesh(item))[0][2] == pytest.approx(-0.008, abs=0.001)


def test_open_mesh_is_lifted_but_not_lowered(solids):
    observation = solids.observe([solids.Sphere((0, 0, 0.04), 0.04)], solids.ring(1))
    completed = make_generator("observed").generate([observation])
    (item,) = place_objects(completed, [observation], observation.support)
    assert item.residuals["support_gap_m"] > 0.005
    assert item.residuals["support_shift_m"] == 0.0
    sunk = lowered(completed, -0.03)
    (item,) = place_objects(sunk, [observation], observation.support)
    assert item.residuals["support_shift_m"] == pytest.approx(0.005)


def test_objects_that_hang_or_stand_elsewhere_stay(observations, completed):
    placed = place_objects(lowered(completed, 0.2), observations, observations[0].support)
    assert all(item.residuals["support_shift_m"] == 0.0 for item in placed)
    placed = place_objects(completed, observations, None)
    assert all("support_gap_m" not in item.residuals for item in placed)


def test_settle_shift_follows_the_normal():
    normal = np.array([0.0, 0.6, 0.8])
    support = SupportPlane(normal, -0.1)
    np.testing.assert_allclose(settle_shift_m(-0.02, support, 0.05, 0.03), 0.02 * normal)
    np.testing.assert_allclose(settle_shift_m(0.02, support, 0.005, 0.03), -0.005 * normal)
    np.testing.assert_array_equal(settle_shift_m(0.04, support, 0.05, 0.03), np.zeros(3))
    tilted = mesh_ops.make_mesh(
        normal * 0.13 + np.array([[0.01, 0, 0], [0, 0.008, -0.006], [-0.01, 0, 0]]), [[0, 1, 2]]
    )
    assert support_gap_m(tilted, support) == pytest.approx(0.03, abs=1e-6)


def test_penetrating_objects_are_parted_within_the_bound(observations, completed):
    T = transforms.rigid(t=np.array([-0.053, 0.0, 0.0]))  # cylinder 3 mm into the box
    moved = [completed[0], replace(completed[1], mesh=mesh_ops.transformed(completed[1].mesh, T))]
    placed = place_objects(moved, observations, observations[0].support)
    assert sum(item.residuals["collision_shift_m"] for item in placed) == pytest.approx(0.003, abs=0.002)
    assert all(item.residuals["penetration_m"] == 0.0 for item in placed)
    fixed = place_objects(moved, observations, observations[0].support, LayoutLimits(observed_shift_m=0.0))
    assert all(item.residuals["collision_shift_m"] == 0.0 for item in fixed)
    assert all(0.002 < item.residuals["penetration_m"] < 0.006 for item in fixed)


def test_mesh_of_unknown_pose_is_registered(scene, observations, completed):
    S = transforms.rigid(7.0 * np.eye(3), np.array([0.1, -0.3, 0.2]))
    unknown = [CompletedObject(c.id, mesh_ops.transformed(c.mesh, S)) for c in completed]
    placed = place_objects(unknown, observations, observations[0].support)
    for solid, item in zip(scene, placed, strict=True):
        assert np.abs(solid.distance(world_mesh(item).vertices)).mean() < 0.004
        assert item.residuals["registration_scale"] == pytest.approx(1 / 7.0, rel=0.05)
        assert item.residuals["registration_rmse_m"] < 0.003


def test_lists_must_match(observations, completed):
    with pytest.raises(InputError, match=r"\[1, 0\] do not match observations \[0, 1\]"):
        place_objects(completed[::-1], observations, None)
    empty = replace(completed[0], mesh=mesh_ops.make_mesh(np.zeros((0, 3)), np.zeros((0, 3))))
    with pytest.raises(InputError, match="object 0 has a mesh without faces"):
        place_objects([empty, completed[1]], observations, None)
    assert place_objects([], [], None) == []


@settings(max_examples=8, deadline=None)
@given(shift=st.tuples(*[st.floats(-3.0, 3.0)] * 3))
def test_placing_is_translation_equivariant(observations, completed, shift):
    T = transforms.rigid(t=np.array(shift))
    there = [replace(c, mesh=mesh_ops.transformed(c.mesh, T)) for c in completed]
    support = SupportPlane(np.array([0.0, 0.0, 1.0]), -shift[2])
    seen = [replace(o, points_m=transforms.apply(T, o.points_m)) for o in observations]
    here, moved = (
        place_objects(completed, observations, observations[0].support),
        place_objects(there, seen, support),
    )
    for one, other in zip(here, moved, strict=True):
        np.testing.assert_allclose(other.T_world_object, T @ one.T_world_object, atol=1e-5)
        np.testing.assert_allclose(other.mesh.vertices, one.mesh.vertices, atol=1e-5)
        assert other.residuals["fit_rmse_m"] == pytest.approx(one.residuals["fit_rmse_m"], abs=1e-5)


def test_views_are_not_needed_to_place(observations, completed):
    blind = [
        replace(o, views=tuple(View(v.color, v.intrinsics, v.T_world_camera) for v in o.views)) for o in observations
    ]
    assert len(place_objects(completed, blind, observations[0].support)) == 2
