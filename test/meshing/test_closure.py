"""Closing on the support: walls down, footprint capped, nothing where views see through or nothing rests."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.geometry import camera
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.observed import ObservedSurface
from gena3d_core.types import SupportPlane


def cut_low_pixels(observation, height_m):
    """The observation without the lowest strip: what a segmenter leaves that cuts above the table."""
    masks = tuple(
        mask & (camera.world_points(view)[..., 2] > height_m)
        for view, mask in zip(observation.views, observation.visible_masks, strict=True)
    )
    kept = observation.points_m[:, 2] > height_m
    return replace(
        observation,
        visible_masks=masks,
        points_m=observation.points_m[kept],
        point_colors=observation.point_colors[kept],
        point_view=observation.point_view[kept],
    )


@pytest.mark.parametrize("cut_m", [0.0, 0.005, 0.008])
def test_box_seen_from_all_sides_becomes_watertight(solids, cut_m):
    box = solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03))
    mesh = ObservedSurface().surface(cut_low_pixels(solids.observe([box], solids.ring(4)), cut_m))
    assert mesh_ops.is_watertight(mesh)
    assert mesh_ops.volume(mesh) == pytest.approx(0.12 * 0.08 * 0.06, rel=0.02)
    assert mesh.vertices[:, 2].min() == pytest.approx(0.0, abs=1e-4)
    assert np.abs(box.distance(mesh.vertices)).mean() < 0.0005


def test_cap_and_walls_are_marked_as_not_observed(solids):
    cylinder = solids.Cylinder((0, 0, 0), 0.04, 0.09)
    mesh = ObservedSurface().surface(cut_low_pixels(solids.observe([cylinder], solids.ring(4)), 0.01))
    low, high = mesh.vertices[:, 2] < 0.002, mesh.vertices[:, 2] > 0.014
    assert not mesh.vertex_observed[low].any()
    assert mesh.vertex_observed[high].mean() > 0.98
    assert mesh.vertex_confidence[low].max() < mesh.vertex_confidence[high].mean() / 2
    cap = mesh_ops.select_faces(mesh, (mesh.vertices[:, 2] < 1e-4)[mesh.faces].all(axis=1))
    assert mesh_ops.area(cap) == pytest.approx(np.pi * 0.04**2, rel=0.12)


def test_single_view_stays_open_where_unseen(solids):
    cylinder = solids.Cylinder((0, 0, 0), 0.04, 0.09)
    mesh = ObservedSurface().surface(solids.observe([cylinder], solids.ring(1, start_deg=0)))
    assert not mesh_ops.is_watertight(mesh)
    walls = (mesh.vertices[:, 2] > 0.005) & (mesh.vertices[:, 2] < 0.085)
    assert mesh.vertices[walls, 0].min() > -0.005  # the far half of the wall is not made up
    cap = mesh.vertices[mesh.vertices[:, 2] < 1e-4]
    assert len(cap) > 0
    assert cap[:, 0].min() > -0.01  # nor is the far half of the footprint
    assert np.hypot(cap[:, 0], cap[:, 1]).max() < 0.043
    assert np.abs(cylinder.distance(mesh.vertices[mesh.vertex_observed])).max() < 0.003


def test_sphere_is_not_given_walls(solids):
    sphere = solids.Sphere((0, 0, 0.05), 0.05)
    mesh = ObservedSurface().surface(solids.observe([sphere], solids.ring(4)))
    assert np.abs(sphere.distance(mesh.vertices)).max() < 0.003


def test_object_held_in_the_air_stays_open(solids):
    box = solids.Box((0, 0, 0.13), (0.06, 0.04, 0.03))
    mesh = ObservedSurface().surface(solids.observe([box], solids.ring(4), target=(0, 0, 0.1)))
    assert mesh.vertices[:, 2].min() > 0.09
    assert not mesh_ops.is_watertight(mesh)
    assert mesh.vertex_observed.all() or mesh.vertex_observed.mean() > 0.98


def test_support_that_is_seen_between_two_feet_is_not_capped(solids):
    # Two blocks as one object, 6 cm apart: the table between them is in sight.
    scene = [solids.Box((-0.05, 0, 0.03), (0.02, 0.03, 0.03)), solids.Box((0.05, 0, 0.03), (0.02, 0.03, 0.03))]
    one, other = (solids.observe(scene, solids.ring(4), number=n) for n in (0, 1))
    both = replace(
        one,
        visible_masks=tuple(a | b for a, b in zip(one.visible_masks, other.visible_masks, strict=True)),
        points_m=np.concatenate([one.points_m, other.points_m]),
        point_colors=np.concatenate([one.point_colors, other.point_colors]),
        point_view=np.concatenate([one.point_view, other.point_view]),
    )
    mesh = ObservedSurface().surface(both)
    cap = mesh.vertices[mesh.vertices[:, 2] < 1e-4]
    assert (np.abs(cap[:, 0]) > 0.02).all()
    assert {bool(x) for x in cap[:, 0] > 0} == {True, False}


def test_tilted_support(solids):
    box = solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03))
    normal = np.array([0.02, -0.03, 1.0]) / np.linalg.norm([0.02, -0.03, 1.0])
    support = SupportPlane(normal, 0.0)
    mesh = ObservedSurface().surface(solids.observe([box], solids.ring(4), support=support))
    heights = support.height_m(mesh.vertices.astype(np.float64))
    assert heights.min() == pytest.approx(0.0, abs=1e-4)
    assert (np.abs(heights) < 1e-4).sum() > 100


def test_no_support_no_closure(solids):
    box = solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03))
    mesh = ObservedSurface().surface(solids.observe([box], solids.ring(4), support=None))
    assert not mesh_ops.is_watertight(mesh)
    assert mesh.vertex_observed.mean() > 0.98
    unclosed = ObservedSurface(support_reach_m=0.0).surface(solids.observe([box], solids.ring(4)))
    assert not mesh_ops.is_watertight(unclosed)
