"""Completion without training, on solids whose completion is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.baselines import BASELINES, HullBaseline, MirrorBaseline, NearestBaseline, make_baseline
from gena3d_core.baselines.hull import convex_hull
from gena3d_core.baselines.mirror import find_plane, seen_through
from gena3d_core.baselines.shape_library import build_library
from gena3d_core.errors import CancelledError, InputError
from gena3d_core.geometry.mesh import bounds, is_watertight, make_mesh, sample_surface, transformed, volume
from gena3d_core.geometry.transforms import rigid
from gena3d_core.metrics.surface_distance import MeasuredSurface
from gena3d_core.simulation.primitives import box, cone, cylinder, sphere

SHAPES = {
    "ball": sphere(0.5),
    "tall": cylinder(0.2, 1.0),
    "brick": box((1.0, 0.5, 0.3)),
    "cone": cone(0.4, 1.0),
    "plate": box((1.0, 1.0, 0.08)),
}


@pytest.fixture(scope="module")
def library():
    meshes = list(SHAPES.values())
    return build_library(SHAPES, lambda number: meshes[number])


def error_m(mesh, solid, count=4000):
    """Mean distances from a result to a solid and back from points on the solid."""
    points, _ = sample_surface(mesh, count, np.random.default_rng(0))
    return float(np.abs(solid.distance(points.astype(np.float64))).mean())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 80))
def test_hulls_are_closed_convex_and_hold_their_points(seed, number):
    points = np.random.default_rng(seed).normal(size=(number, 3))
    hull = convex_hull(points)
    assert is_watertight(hull)
    assert volume(hull) > 0
    corners = hull.vertices.astype(np.float64)[hull.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = np.einsum("fi,nfi->nf", normal, points[:, None] - corners[None, :, 0])
    assert height.max() < 1e-5


def test_hull_of_a_ball_seen_all_around(solids):
    ball = solids.Sphere((0.0, 0.0, 0.05), 0.05)
    made = HullBaseline().generate([solids.observe([ball], solids.ring(4))])[0]
    assert np.array_equal(made.S_world_mesh, np.eye(4))
    assert error_m(made.mesh, ball) < 0.003  # its underside is cut off


def test_hull_of_flat_points_is_refused(solids):
    with pytest.raises(InputError, match="no volume"):
        convex_hull(np.random.default_rng(0).normal(size=(50, 3)) * (1, 1, 0))


def test_mirror_completes_a_box_seen_from_one_corner(solids):
    brick = solids.Box((0.0, 0.0, 0.04), (0.05, 0.03, 0.04))
    observation = solids.observe([brick], solids.ring(1, start_deg=35.0))
    plane = find_plane(observation)
    # One of the box's two upright planes of symmetry.
    assert np.abs(plane.normal).max() > 0.99
    assert abs(plane.offset_m) < 0.005
    made = MirrorBaseline().generate([observation])[0]
    low, high = bounds(made.mesh)
    along = int(np.abs(plane.normal).argmax())
    half = (0.05, 0.03)[along]
    assert (low[along], high[along]) == pytest.approx((-half, half), abs=0.006)
    assert error_m(made.mesh, brick) < 0.003


def test_mirror_finds_nothing_where_nothing_is_symmetric(solids):
    # Half of a box's front only: everything beyond is either the same plane or proven empty.
    brick = solids.Box((0.0, 0.0, 0.04), (0.05, 0.03, 0.04))
    observation = solids.observe([brick], solids.ring(1, start_deg=35.0))
    made = MirrorBaseline().generate([observation])[0]
    impossible = seen_through(made.mesh.vertices, observation.views, 0.01)
    assert impossible.mean() < 0.01


def test_seen_through_is_what_lies_before_the_depth(solids):
    ball = solids.Sphere((0.0, 0.0, 0.05), 0.05)
    view = solids.observe([ball], solids.ring(1)).views[0]
    eye = view.T_world_camera[:3, 3]
    front = np.array([0.0, 0.0, 0.05]) + 0.05 * (eye - (0, 0, 0.05)) / np.linalg.norm(eye - (0, 0, 0.05))
    points = np.stack([front + 0.1 * (eye - front), front, 2 * np.array([0, 0, 0.05]) - front, 2 * eye])
    assert seen_through(points, [view], 0.005).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("name", "yaw_deg", "scale"), [("tall", 0, 0.12), ("brick", 30, 0.1), ("cone", 0, 0.2), ("ball", 0, 0.06)]
)
def test_nearest_finds_shape_and_place(solids, library, name, yaw_deg, scale):
    """The observation is made of the mesh itself: points on it that a camera sees, no pictures needed."""
    yaw = np.radians(yaw_deg)
    R = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    low = SHAPES[name].vertices[:, 2].min()
    truth = transformed(SHAPES[name], rigid(scale * R, np.array([0.02, -0.03, -scale * low])))
    observation = seen_from_one_side(solids, truth)
    number, S = NearestBaseline(library).fit(observation)
    assert library.ids[number] == name
    found = MeasuredSurface.of(transformed(SHAPES[name], S))
    points, _ = sample_surface(truth, 2000, np.random.default_rng(1))
    assert found.nearest(points)[0].mean() < 0.03 * scale


def seen_from_one_side(solids, truth):
    """An observation of a solid of the right kind, with its points replaced by those of the near side of a mesh."""
    import dataclasses

    from gena3d_core.stereo.carving import carve_free_space

    base = solids.observe([solids.Sphere((0.0, 0.0, 0.05), 0.05)], solids.ring(2, start_deg=0.0)[:1])
    from gena3d_core.metrics.visibility import seen_points

    points, _ = sample_surface(truth, 6000, np.random.default_rng(0))
    everywhere = tuple(np.ones_like(mask) for mask in base.visible_masks)
    seen = points[seen_points(truth, points, base.views, everywhere, 1e-4)]
    from gena3d_core.metrics.rendering import render_color
    from gena3d_core.viz.render import fragments_of

    view = base.views[0]
    depth = fragments_of(truth, view.T_world_camera, view.intrinsics).depth
    _, hit = render_color(truth, view.T_world_camera, view.intrinsics)
    behind = solids.render([], view.T_world_camera[:3, 3], (0.0, 0.0, 0.03))[0].depth_m
    view = dataclasses.replace(view, depth_m=np.where(hit, depth, behind).astype(np.float32))
    low, high = bounds(truth)
    margin = 0.4 * (high - low).max()
    free = carve_free_space([view], low - margin, high + margin, (high - low).max() / 40)
    return dataclasses.replace(
        base,
        views=(view,),
        visible_masks=(hit,),
        points_m=seen.astype(np.float32),
        point_colors=np.zeros((len(seen), 3), dtype=np.uint8),
        point_view=np.zeros(len(seen), dtype=np.int32),
        free_space=free,
    )


def test_the_field_leads_to_about_the_nearest_sample(library, rng):
    import torch

    points = rng.uniform(-0.5, 0.5, (2, 300, 3)).astype(np.float32)
    shape = torch.tensor([1, 3])
    found = library.nearest_points(shape, torch.from_numpy(points)).numpy()
    for own, near, number in zip(points, found, (1, 3), strict=True):
        best = np.linalg.norm(own[:, None] - library.samples[number].numpy()[None], axis=2).min(axis=1)
        got = np.linalg.norm(own - near, axis=1)
        assert (got >= best - 1e-6).all()
        assert (got - best).max() < 0.1
        assert (got - best).mean() < 0.02


def test_results_do_not_depend_on_company_or_seed(solids, library):
    observations = [
        solids.observe([solids.Sphere((0.0, 0.0, 0.05), 0.05)], solids.ring(2)),
        solids.observe([solids.Cylinder((0.0, 0.0, 0.0), 0.03, 0.1)], solids.ring(1)),
    ]
    for method in (HullBaseline(), MirrorBaseline(), NearestBaseline(library)):
        together = method.generate(observations, seed=3)
        alone = method.generate(observations[1:], seed=4)[0]
        assert np.array_equal(together[1].mesh.vertices, alone.mesh.vertices)
        assert np.array_equal(together[1].S_world_mesh, alone.S_world_mesh)
        with pytest.raises(CancelledError):
            method.generate(observations, cancelled=lambda: True)


def test_names_and_what_they_need():
    assert set(BASELINES) == {"observed", "hull", "mirror", "nearest"}
    with pytest.raises(InputError, match="unknown baseline"):
        make_baseline("magic")
    with pytest.raises(InputError, match="--library"):
        make_baseline("nearest")
    with pytest.raises(InputError, match="at least one shape"):
        build_library([], lambda number: make_mesh(np.zeros((0, 3)), np.zeros((0, 3))))
