"""Examples of single objects: what they show is true, consistent and reproducible."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from gena3d_core.amodal.occlusion import occlusion_masks
from gena3d_core.errors import InputError
from gena3d_core.generative.inputs import prepare_inputs
from gena3d_core.geometry import camera
from gena3d_core.geometry.mesh import face_areas, make_mesh
from gena3d_core.simulation.example_settings import ExampleSettings, evaluation_settings
from gena3d_core.simulation.object_example import ObjectExample, make_example
from gena3d_core.simulation.ray_casting import make_caster
from gena3d_core.types import Mesh

CLEAN = ExampleSettings(
    views=3,
    noise=None,
    missing_depth=0.0,
    depth_holes=(0.0, 0.0),
    exact_masks=1.0,
    pose_jitter_m=(0.0, 0.0),
    pose_jitter_deg=(0.0, 0.0),
)
KINDS = ("none", "surface", "objects")


def knot() -> Mesh:
    """A solid without symmetry: a box with a ball and a rod, as separate closed parts."""
    parts = [
        trimesh.creation.box((0.9, 0.5, 0.3)).apply_translation((0.0, 0.0, -0.2)),
        trimesh.creation.icosphere(subdivisions=2, radius=0.2).apply_translation((0.2, 0.0, 0.25)),
        trimesh.creation.cylinder(radius=0.06, height=0.5, sections=12).apply_translation((-0.3, 0.15, 0.2)),
    ]
    whole = trimesh.util.concatenate(parts)
    return make_mesh(whole.vertices, whole.faces)


@pytest.fixture(scope="module", params=KINDS)
def clean(request) -> ObjectExample:
    return make_example(knot(), replace(CLEAN, occlusion=request.param), 5)


def distance(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    return np.abs(trimesh.proximity.closest_point(trimesh.Trimesh(mesh.vertices, mesh.faces), points)[1])


def first_hits(mesh: Mesh, view) -> np.ndarray:
    """(H, W) faces of the mesh at the pixels, -1 = none."""
    rays = camera.pixel_rays(view.intrinsics).reshape(-1, 3) @ view.T_world_camera[:3, :3].T.astype(np.float32)
    eyes = np.broadcast_to(view.T_world_camera[:3, 3].astype(np.float32), rays.shape)
    return make_caster(mesh.vertices, mesh.faces)(eyes, rays).face.reshape(view.depth_m.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_example(kind):
    settings = ExampleSettings(views=2, occlusion=kind, completion="distorted")
    one, same, other = (make_example(knot(), settings, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.mesh.vertices, same.mesh.vertices)
    np.testing.assert_array_equal(one.observation.points_m, same.observation.points_m)
    for a, b in zip(one.observation.views, same.observation.views, strict=True):
        np.testing.assert_array_equal(a.color, b.color)
        np.testing.assert_array_equal(a.depth_m, b.depth_m)
        np.testing.assert_array_equal(a.T_world_camera, b.T_world_camera)
    for name in ("visible_masks", "occlusion_masks"):
        np.testing.assert_array_equal(getattr(one.observation, name), getattr(same.observation, name))
    assert not np.array_equal(one.mesh.vertices, other.mesh.vertices)


def test_points_lie_on_the_true_surface(clean):
    size = float(np.ptp(clean.mesh.vertices, axis=0).max())
    points = clean.observation.points_m
    assert len(points) > 200
    assert distance(clean.mesh, points[::7]).max() < 1e-3 * size


def test_noisy_points_lie_near_the_true_surface():
    settings = replace(CLEAN, occlusion="none", noise=ExampleSettings().noise, noise_level=(1.0, 1.0))
    example = make_example(knot(), settings, 5, scale_m=0.15)
    off = distance(example.mesh, example.observation.points_m[::7])
    assert 1e-5 < np.median(off) < 0.005
    assert (off > 0.02).mean() < 0.05


def test_masks_are_apart_and_visible_pixels_see_the_object(clean):
    for view, visible, occluded in zip(
        clean.observation.views,
        clean.observation.visible_masks,
        clean.observation.occlusion_masks,
        strict=True,
    ):
        assert not (visible & occluded).any()
        assert visible.mean() >= CLEAN.min_visible_pixels / 2
        alone = first_hits(clean.mesh, view) >= 0
        # A ray through an edge may fall either way.
        assert (visible & ~alone).sum() <= 2
        if clean.occlusion == "none":
            np.testing.assert_array_equal(visible, alone)


def test_what_is_covered_is_covered_in_every_view():
    example = make_example(knot(), replace(CLEAN, views=4, occlusion="surface"), 8)
    assert example.covered.any()
    for view, visible, occluded in zip(
        example.observation.views, example.observation.visible_masks, example.observation.occlusion_masks, strict=True
    ):
        face = first_hits(example.cover_mesh, view)
        hit = face >= 0
        disagree = hit & (visible == example.covered[face])
        assert disagree.sum() <= 0.002 * hit.sum() + 2
        assert occluded.any() == (hit & ~visible).any()
        assert np.isnan(view.depth_m[hit & ~visible]).all()


@pytest.mark.parametrize("coverage", [0.2, 0.5, 0.7])
def test_coverage_and_visible_share_of_the_protocol(coverage):
    example = make_example(knot(), evaluation_settings(4, coverage), 1)
    areas = face_areas(example.cover_mesh)
    assert areas[example.covered].sum() / areas.sum() == pytest.approx(coverage, abs=0.01)
    assert example.observation.support is not None
    for view, visible in zip(example.observation.views, example.observation.visible_masks, strict=True):
        share = visible.sum() / (first_hits(example.mesh, view) >= 0).sum()
        assert 0.2 < share < 0.8


def test_fewer_views_are_the_first_of_more():
    few, many = (make_example(knot(), evaluation_settings(n, 0.5), 2) for n in (1, 3))
    np.testing.assert_array_equal(few.mesh.vertices, many.mesh.vertices)
    np.testing.assert_array_equal(few.covered, many.covered)
    np.testing.assert_array_equal(few.observation.views[0].color, many.observation.views[0].color)
    np.testing.assert_array_equal(few.observation.views[0].depth_m, many.observation.views[0].depth_m)


def test_objects_in_front_hide_it_as_the_pipeline_finds_out():
    example = make_example(knot(), replace(CLEAN, occlusion="objects"), 5)
    o = example.observation
    assert o.support is not None
    again = occlusion_masks(o.views, o.visible_masks, o.points_m, o.support)
    np.testing.assert_array_equal(o.occlusion_masks, again)
    # The first view is one that something hides a part of.
    assert o.occlusion_masks[0].any()
    whole = (first_hits(example.mesh, o.views[0]) >= 0).sum()
    assert 0.15 < o.visible_masks[0].sum() / whole < 0.95


@pytest.mark.parametrize("upright", [0.0, 1.0])
def test_on_a_table_it_stands_on_the_plane_and_cameras_look_down(upright):
    settings = replace(CLEAN, occlusion="none", table_share=1.0, upright_share=upright)
    for seed in range(3):
        example = make_example(knot(), settings, seed)
        support = example.observation.support
        assert support is not None
        height = support.height_m(example.mesh.vertices.astype(np.float64))
        assert height.min() == pytest.approx(0.0, abs=1e-6)
        assert support.height_m(example.observation.points_m.astype(np.float64)).min() > -1e-4
        low, high = settings.table_elevation_deg
        for view in example.observation.views:
            middle = (example.mesh.vertices.min(axis=0) + example.mesh.vertices.max(axis=0)) / 2.0
            eye = view.T_world_camera[:3, 3] - middle
            elevation = np.rad2deg(np.arcsin(eye[2] / np.linalg.norm(eye)))
            assert low - 1e-3 <= elevation <= high + 1e-3


def test_in_free_space_cameras_keep_off_the_poles_and_there_is_no_support():
    settings = replace(CLEAN, views=20, occlusion="none", table_share=0.0)
    example = make_example(knot(), settings, 0)
    assert example.observation.support is None
    eyes = np.array([view.T_world_camera[:3, 3] for view in example.observation.views])
    elevation = np.rad2deg(np.arcsin(eyes[:, 2] / np.linalg.norm(eyes, axis=1)))
    assert np.abs(elevation).max() <= 75.0 + 1e-3
    assert elevation.min() < 0 < elevation.max()


def test_sizes_are_metric():
    known = make_example(knot(), CLEAN, 0, scale_m=0.2)
    # Turned about z the box grows, but by no more than its diagonal.
    assert 0.1 < np.ptp(known.mesh.vertices, axis=0).max() < 0.2 * 1.2
    settings = replace(CLEAN, size_m=(0.05, 0.06), upright_share=1.0)
    drawn = make_example(knot(), settings, 0)
    ratio = np.ptp(drawn.mesh.vertices[:, 2]) / np.ptp(knot().vertices[:, 2])
    assert 0.05 <= ratio * np.ptp(knot().vertices, axis=0).max() <= 0.06


def test_pose_jitter_moves_all_views_but_the_first():
    exact = make_example(knot(), replace(CLEAN, occlusion="none"), 4)
    moved = make_example(
        knot(), replace(CLEAN, occlusion="none", pose_jitter_m=(0.01, 0.01), pose_jitter_deg=(1.0, 1.0)), 4
    )
    shift = [
        np.linalg.norm(a.T_world_camera[:3, 3] - b.T_world_camera[:3, 3])
        for a, b in zip(exact.observation.views, moved.observation.views, strict=True)
    ]
    assert shift[0] == 0.0
    assert all(0.0 < s < 0.05 for s in shift[1:])
    np.testing.assert_array_equal(exact.mesh.vertices, moved.mesh.vertices)
    for a, b in zip(exact.observation.views, moved.observation.views, strict=True):
        np.testing.assert_array_equal(a.depth_m, b.depth_m)


def test_depth_goes_missing_in_some_views_but_never_in_all():
    settings = replace(CLEAN, views=4, occlusion="none", missing_depth=1.0)
    example = make_example(knot(), settings, 0)
    assert sum(bool(np.isfinite(view.depth_m).any()) for view in example.observation.views) == 1
    holes = make_example(knot(), replace(CLEAN, views=1, occlusion="none", depth_holes=(0.5, 0.5)), 0).observation
    finite = np.isfinite(holes.views[0].depth_m)[holes.visible_masks[0]]
    assert finite.mean() == pytest.approx(0.5, abs=0.02)


def test_completions_change_only_occluded_pixels():
    settings = replace(CLEAN, occlusion="surface", coverage=(0.5, 0.5))
    plain = make_example(knot(), settings, 6).observation
    completed = make_example(knot(), replace(settings, completion="distorted"), 6).observation
    changed = [(a.color != b.color).any(axis=2) for a, b in zip(plain.views, completed.views, strict=True)]
    assert any(mask.any() for mask in changed)
    assert completed.completed_masks is not None
    for mask, filled, occluded in zip(changed, completed.completed_masks, plain.occlusion_masks, strict=True):
        assert not (mask & ~filled).any()
        assert not (filled & ~occluded).any()
    before, after = (prepare_inputs([o], 48, 64, "observed").crops for o in (plain, completed))
    np.testing.assert_array_equal(before[:, 3:], after[:, 3:])
    hidden = after[:, 4] > 0
    assert before[:, :3].transpose(0, 2, 3, 1)[hidden].mean() < after[:, :3].transpose(0, 2, 3, 1)[hidden].mean()


def test_free_space_on_request_holds_nothing_of_the_object():
    example = make_example(knot(), replace(CLEAN, occlusion="none", free_space_resolution=24), 0)
    grid = example.observation.free_space
    assert grid is not None
    free = np.argwhere(grid.state == grid.FREE)
    assert len(free) > 50
    centers = grid.origin_m + (free + 0.5) * grid.voxel_size_m
    inside = trimesh.Trimesh(example.mesh.vertices, example.mesh.faces).contains(centers)
    assert inside.mean() < 0.01


def test_networks_can_read_them(clean):
    inputs = prepare_inputs([clean.observation], 32, 64, "observed")
    assert inputs.crops.shape == (3, 5, 32, 32)
    assert inputs.has_cloud.all()
    assert (inputs.visibility > 0).all()


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (make_mesh(np.zeros((0, 3)), np.zeros((0, 3))), "without faces"),
        (make_mesh(np.eye(3), np.array([[0, 1, 2]])), "close it"),
        (make_mesh(np.full((4, 3), np.nan), np.array([[0, 1, 2], [0, 2, 3]])), "NaN"),
    ],
)
def test_bad_meshes_are_named(mesh, message):
    with pytest.raises(InputError, match=message):
        make_example(mesh, CLEAN, 0)


def test_an_object_that_no_camera_sees_is_an_error():
    with pytest.raises(InputError, match="in at least 90 % of the image"):
        make_example(knot(), replace(CLEAN, occlusion="none", min_visible_pixels=0.9), 0)
    with pytest.raises(InputError, match="scale_m"):
        make_example(knot(), CLEAN, 0, scale_m=-1.0)
