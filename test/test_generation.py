"""The table of generators and the contract of `ObjectGenerator`, kept by `observed`."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import CancelledError, InputError
from gena3d_core.generation import GENERATORS, make_generator
from gena3d_core.geometry import camera
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.observed import ObservedSurface


@pytest.fixture(scope="module")
def observations(solids):
    scene = [
        solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03)),
        solids.Cylinder((0.13, 0.05, 0), 0.04, 0.09),
        solids.Sphere((-0.12, 0.05, 0.04), 0.04),
    ]
    return [solids.observe(scene, solids.ring(2), number=n) for n in range(3)]


def same_mesh(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("vertices", "faces", "vertex_colors", "vertex_confidence", "vertex_observed")
    )


def test_generators_are_made_by_name():
    assert isinstance(make_generator("observed"), ObservedSurface)
    assert make_generator("observed", voxel_size_m=0.004).voxel_size_m == 0.004
    with pytest.raises(InputError, match=r"unknown generator 'best'.*observed"):
        make_generator("best")
    with pytest.raises(InputError, match="does not take"):
        make_generator("observed", quality=11)
    assert set(GENERATORS) >= {"observed"}


@pytest.mark.parametrize("options", [{"voxel_size_m": 0.0}, {"support_reach_m": -1.0}, {"min_component_share": 1.0}])
def test_bad_options_are_errors(options):
    with pytest.raises(InputError):
        make_generator("observed", **options)


def test_one_result_for_each_observation_in_order(observations):
    progress = []
    generator = make_generator("observed")
    completed = generator.generate(observations, progress=lambda stage, fraction: progress.append(fraction))
    assert [c.id for c in completed] == [o.id for o in observations]
    for item in completed:
        np.testing.assert_array_equal(item.S_world_mesh, np.eye(4))
        assert item.mesh.vertex_confidence.min() >= 0.0
        assert item.mesh.vertex_confidence.max() <= 1.0
    assert progress == sorted(progress)
    assert progress[-1] == 1.0


def test_result_does_not_depend_on_the_list_or_the_seed(observations):
    generator = make_generator("observed")
    forward = generator.generate(observations, seed=1)
    backward = generator.generate(observations[::-1], seed=2, hypotheses=3)[::-1]
    alone = [generator.generate([o])[0] for o in observations]
    for one, other, single in zip(forward, backward, alone, strict=True):
        assert same_mesh(one.mesh, other.mesh)
        assert same_mesh(one.mesh, single.mesh)


def test_cancel_stops_between_objects(observations):
    calls = []

    def cancelled():
        calls.append(None)
        return len(calls) > 1

    with pytest.raises(CancelledError):
        make_generator("observed").generate(observations, cancelled=cancelled)
    assert len(calls) == 2


def test_nothing_in_nothing_out():
    assert make_generator("observed").generate([]) == []


def test_object_without_points_is_an_error(observations):
    empty = replace(
        observations[1],
        visible_masks=tuple(np.zeros_like(m) for m in observations[1].visible_masks),
        points_m=np.zeros((0, 3), np.float32),
        point_colors=np.zeros((0, 3), np.uint8),
        point_view=np.zeros(0, np.int32),
    )
    with pytest.raises(InputError, match=r"object 1 \('cylinder'\) has no observed points"):
        make_generator("observed").generate([observations[0], empty])
    broken = replace(observations[1], points_m=np.full_like(observations[1].points_m, np.nan))
    with pytest.raises(InputError, match="not finite"):
        make_generator("observed").generate([broken])


def test_a_handful_of_pixels_still_gives_an_object(observations):
    observation = observations[0]
    mask = np.zeros_like(observation.visible_masks[0])
    chosen = np.argwhere(observation.visible_masks[0])[100]
    mask[tuple(chosen)] = True
    index = 100
    tiny = replace(
        observation,
        visible_masks=(mask, np.zeros_like(mask)),
        points_m=observation.points_m[index : index + 1],
        point_colors=observation.point_colors[index : index + 1],
        point_view=observation.point_view[index : index + 1],
    )
    mesh = make_generator("observed").generate([tiny])[0].mesh
    assert len(mesh.faces) > 0
    assert np.linalg.norm(mesh.vertices - tiny.points_m[0], axis=1).max() < 0.01
    assert mesh.vertex_confidence.max() < 0.5


def test_stray_pixels_far_away_do_not_matter(observations):
    observation = observations[0]
    stray = replace(
        observation,
        points_m=np.concatenate([observation.points_m, [[40.0, 3.0, 9.0]]]).astype(np.float32),
        point_colors=np.concatenate([observation.point_colors, [[0, 0, 0]]]).astype(np.uint8),
        point_view=np.append(observation.point_view, 0).astype(np.int32),
    )
    generator = make_generator("observed")
    assert same_mesh(generator.generate([stray])[0].mesh, generator.generate([observation])[0].mesh)


def test_more_views_more_confidence_and_less_noise(solids):
    sphere = solids.Sphere((0, 0, 0.05), 0.05)
    few, many = (
        make_generator("observed").generate([solids.observe([sphere], solids.ring(n), depth_noise=0.004)])[0].mesh
        for n in (2, 6)
    )
    assert many.vertex_confidence.mean() > few.vertex_confidence.mean()
    assert np.abs(sphere.distance(many.vertices)).mean() < np.abs(sphere.distance(few.vertices)).mean()
    assert 0.9 < mesh_ops.observed_fraction(many) <= 1.0


def test_depth_confidence_lowers_vertex_confidence(solids):
    observation = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(2))
    doubtful = replace(
        observation,
        views=tuple(
            replace(view, depth_confidence=np.full(view.depth_m.shape, 0.3, np.float32)) for view in observation.views
        ),
    )
    sure, unsure = (make_generator("observed").generate([o])[0].mesh for o in (observation, doubtful))
    assert unsure.vertex_confidence.mean() < 0.6 * sure.vertex_confidence.mean()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    depth_scale=st.sampled_from([0.05, 0.3, 1.0, 5.0]),
    noise=st.sampled_from([0.0, 0.01, 0.3]),
    share=st.sampled_from([0.001, 0.2, 1.0]),
    supported=st.booleans(),
)
def test_any_masks_and_depth_give_a_valid_mesh(solids, observations, seed, depth_scale, noise, share, supported):
    rng = np.random.default_rng(seed)
    views, masks = [], []
    for view in observations[0].views:
        depth_m = depth_scale * np.exp(noise * rng.normal(size=view.depth_m.shape)).astype(np.float32)
        depth_m[rng.random(depth_m.shape) < 0.2] = rng.choice([np.nan, np.inf, 0.0, -1.0])
        confidence = rng.random(depth_m.shape).astype(np.float32)
        views.append(replace(view, depth_m=depth_m, depth_confidence=confidence))
        top, left = rng.integers(0, 200), rng.integers(0, 250)
        mask = np.zeros(depth_m.shape, bool)
        mask[top : top + rng.integers(1, 60), left : left + rng.integers(1, 90)] = True
        mask &= (rng.random(mask.shape) < share) & np.isfinite(depth_m) & (depth_m > 0)
        masks.append(mask)
    points = [camera.world_points(view)[mask] for view, mask in zip(views, masks, strict=True)]
    if not sum(map(len, points)):
        return
    observation = replace(
        observations[0],
        views=tuple(views),
        visible_masks=tuple(masks),
        points_m=np.concatenate(points).astype(np.float32),
        point_colors=np.concatenate([v.color[m] for v, m in zip(views, masks, strict=True)]),
        point_view=np.repeat(np.arange(2), [len(p) for p in points]).astype(np.int32),
        support=solids.TABLE if supported else None,
    )
    mesh = make_generator("observed").generate([observation])[0].mesh
    assert len(mesh.faces) > 0
    assert np.isfinite(mesh.vertices).all()
    assert ((mesh.vertex_confidence >= 0) & (mesh.vertex_confidence <= 1)).all()
    assert np.isfinite(mesh.vertex_confidence).all()
    assert mesh_ops.area(mesh) > 0
