"""Relative layouts to metres, on scenes whose answer is known by construction."""

from functools import cache

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import similarity, transforms
from gena3d_core.layout.evidence import (
    CameraPoses,
    FacingAssets,
    KnownSize,
    ObjectPoints,
    ObjectRays,
    SupportContact,
    UprightAssets,
    points_of_observations,
    points_under_masks,
    rays_of_masks,
)
from gena3d_core.layout.evidence_terms import LayoutError, equations_of
from gena3d_core.layout.relative_layout import Y_UP_MODEL, Z_UP_MODEL, RelativeLayout, layout_from_world
from gena3d_core.layout.scene_assets import scene_assets
from gena3d_core.layout.world_alignment import AlignmentConfig, align_to_world, placed_assets
from gena3d_core.types import Intrinsics, SupportPlane

TABLE = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
EYES = np.array([[0.9, -0.7, 0.7], [-0.6, -0.9, 0.6]])
CAMERA = Intrinsics(320, 240, 260.0, 260.0, 159.5, 119.5)


@cache
def assets():
    """A watering can, a brick, a cylinder and a wedge, each in its grid."""
    can = trimesh.util.concatenate([
        trimesh.creation.cylinder(0.25, 0.6, sections=32),
        trimesh.creation.box((0.5, 0.1, 0.1), transforms.rigid(t=np.array([0.4, 0.0, 0.2]))),
    ])  # fmt: skip
    wedge = trimesh.convex.convex_hull([[0, 0, 0], [1, 0, 0], [0, 0.6, 0], [1, 0.6, 0], [0, 0, 0.5], [0, 0.6, 0.5]])
    solids = [can, trimesh.creation.box((1.0, 0.5, 0.3)), trimesh.creation.cylinder(0.3, 1.0, sections=32), wedge]
    for solid in solids:
        solid.apply_translation(-solid.bounds.mean(axis=0))
        solid.apply_scale(0.98 / solid.extents.max())
    return tuple(mesh_ops.make_mesh(solid.vertices, solid.faces) for solid in solids)


def world_scene(rng, count=4):
    """`S_world_grid` of assets on the table, in its four quarters."""
    S = []
    for number, mesh in enumerate(assets()[:count]):
        size = rng.uniform(0.1, 0.25)
        R = Rotation.from_euler("z", rng.uniform(0, 6.28)).as_matrix()
        angle = number * np.pi / 2 + rng.uniform(-0.3, 0.3)
        at = [0.25 * np.cos(angle), 0.25 * np.sin(angle), -float(mesh.vertices[:, 2].min()) * size]
        S.append(similarity.compose(at, R, size))
    return np.stack(S)


def visible_points(number, S, eye=EYES[0], count=250):
    mesh = assets()[number]
    points, faces = mesh_ops.sample_surface(mesh, 2000, np.random.default_rng(1))
    world = transforms.apply(S, points.astype(np.float64))
    facing = np.einsum("ni,ni->n", eye - world, mesh_ops.face_normals(mesh)[faces] @ similarity.parts(S)[1].T) > 0
    return world[facing][:: max(1, int(facing.sum()) // count)]


def clouds(S):
    return [ObjectPoints(k, visible_points(k, T)) for k, T in enumerate(S)]


def rays(S, layout, eyes=EYES):
    centers = S[:, :3, 3]
    directions = centers[None] - eyes[:, None]
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    count = len(S)
    return ObjectRays(np.tile(np.arange(count), len(eyes)), np.repeat(eyes, count, axis=0), directions.reshape(-1, 3),
                      np.full(count * len(eyes), 0.01))  # fmt: skip


def errors(alignment, S_true):
    """(metres at the query's centre, degrees, factor of scale - 1)."""
    change = similarity.change_between(S_true, alignment.estimate.S)
    return np.linalg.norm(change[:3]), np.degrees(np.linalg.norm(change[3:6])), abs(np.expm1(change[6]))


def scene_of(S_world_grid, query, R_model_grid=Z_UP_MODEL):
    return S_world_grid[query] @ transforms.rigid(R_model_grid.T)


@pytest.mark.parametrize(("query", "axes"), [(0, Z_UP_MODEL), (2, Y_UP_MODEL)])
def test_from_points_of_what_is_visible(query, axes):
    S = world_scene(np.random.default_rng(query))
    alignment = align_to_world(layout_from_world(S, query, axes), assets(), clouds(S))
    shift, angle, factor = errors(alignment, scene_of(S, query, axes))
    assert shift < 0.006
    assert angle < 2.0
    assert factor < 0.02
    assert alignment.metric
    assert alignment.undetermined == ()
    assert alignment.residual_m < 0.004
    assert all(report.used for report in alignment.evidence)
    for found, true in zip(placed_assets(alignment, layout_from_world(S, query, axes)), S, strict=True):
        assert np.linalg.norm(found.S[:3, 3] - true[:3, 3]) < 0.012


def test_one_wrong_cloud_is_left_out_and_named():
    S = world_scene(np.random.default_rng(4))
    items = clouds(S)
    items[1] = ObjectPoints(1, visible_points(1, S[1]) + np.array([0.4, 0.3, 0.2]))
    alignment = align_to_world(layout_from_world(S, 0), assets(), items)
    shift, angle, factor = errors(alignment, scene_of(S, 0))
    assert shift < 0.008
    assert angle < 2.5
    assert factor < 0.03
    assert [report.used for report in alignment.evidence] == [True, False, True, True]
    assert alignment.warnings == (
        "layout: ObjectPoints of asset 1 (number 1) contradicts the other evidence and is not used",
    )


def test_two_cameras_tell_the_scale():
    S = world_scene(np.random.default_rng(1))
    layout = layout_from_world(S, 0)
    both = align_to_world(layout, assets(), [rays(S, layout)])
    shift, angle, factor = errors(both, scene_of(S, 0))
    assert both.metric
    assert shift < 0.002
    assert angle < 0.5
    assert factor < 0.005
    one = align_to_world(layout, assets(), [rays(S, layout, EYES[:1])])
    assert not one.metric


def test_one_camera_over_a_known_table_tells_the_scale():
    S = world_scene(np.random.default_rng(2))
    layout = layout_from_world(S, 1)
    items = [rays(S, layout, EYES[:1]), SupportContact(TABLE), UprightAssets((0, 1, 2, 3))]
    alignment = align_to_world(layout, assets(), items)
    shift, angle, factor = errors(alignment, scene_of(S, 1))
    assert alignment.metric
    assert shift < 0.005
    assert angle < 1.0
    assert factor < 0.01


def test_posed_cameras_of_a_geometry_network():
    S = world_scene(np.random.default_rng(3))
    layout, truth = layout_from_world(S, 0), scene_of(S, 0)
    T_world_camera = np.stack([transforms.look_at(eye, [0, 0, 0.05]) for eye in EYES])
    T_scene_camera = transforms.inverse(truth) @ T_world_camera
    T_scene_camera[:, :3, :3] = similarity.parts(T_scene_camera)[1]
    alignment = align_to_world(layout, assets(), [CameraPoses(T_world_camera, T_scene_camera)])
    assert max(errors(alignment, truth)) < 1e-3
    one = align_to_world(layout, assets(), [CameraPoses(T_world_camera[:1], T_scene_camera[:1])])
    assert "scale" in one.undetermined
    assert errors(one, truth)[1] < 0.1


def test_a_known_size_and_the_table():
    S = world_scene(np.random.default_rng(5))
    layout = layout_from_world(S, 0)
    size = 0.98 * float(similarity.parts(S)[2][2])
    items = [KnownSize(2, size), SupportContact(TABLE), UprightAssets((0,))]
    alignment = align_to_world(layout, assets(), items)
    assert errors(alignment, scene_of(S, 0))[2] < 1e-3
    assert alignment.metric
    assert alignment.undetermined == ("position", "orientation")  # where on the table, and which way round
    heights = [transforms.apply(e.S, m.vertices.astype(float))[:, 2].min()
               for e, m in zip(placed_assets(alignment, layout), assets(), strict=True)]  # fmt: skip
    np.testing.assert_allclose(heights, 0.0, atol=2e-3)
    without = align_to_world(layout, assets(), items[1:])
    assert "scale" in without.undetermined
    assert not without.metric


@given(yaw=st.floats(-3.1, 3.1))
@settings(max_examples=10, deadline=None)
def test_what_a_camera_faces_tells_the_yaw_of_a_symmetrical_object(yaw):
    box = assets()[1:2]
    layout = RelativeLayout(np.array([[0.0, 0, 0, 1, 0, 0, 0, 1]]))
    ahead = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    evidence = [KnownSize(0, 0.2, 0.01), SupportContact(TABLE), UprightAssets((0,)), FacingAssets((0,), ahead)]
    found = align_to_world(layout, box, evidence)
    assert found.undetermined == ("position",)
    _, R, scale = similarity.parts(found.estimate.S)
    assert np.degrees(Rotation.from_matrix(R @ Rotation.from_euler("z", -yaw).as_matrix()).magnitude()) < 1.0
    assert scale == pytest.approx(0.2 / 0.98, rel=0.01)
    without = align_to_world(layout, box, evidence[:3])
    assert without.undetermined == ("position", "orientation")
    with pytest.raises(InputError, match="`ahead` must be a unit vector"):
        FacingAssets((0,), np.array([0.0, 2.0, 0.0]))


def test_without_evidence_the_result_says_so():
    S = world_scene(np.random.default_rng(6))
    for axes in (Z_UP_MODEL, Y_UP_MODEL):
        alignment = align_to_world(layout_from_world(S, 0, axes), assets(), [])
        assert not alignment.metric
        assert alignment.undetermined == ("position", "orientation", "scale")
        assert np.isnan(alignment.residual_m)
        assert "not in metres" in alignment.warnings[0]
        query = placed_assets(alignment, layout_from_world(S, 0, axes))[0].S
        np.testing.assert_allclose(query[:3, :3], np.eye(3), atol=1e-9)  # the query as in its grid, size 1


def test_several_kinds_weigh_by_their_errors():
    S = world_scene(np.random.default_rng(7), 1)
    layout, exact = layout_from_world(S, 0), AlignmentConfig(layout_sigma=1e-6)
    size = 0.98 * float(similarity.parts(S)[2][0])
    items = [KnownSize(0, size, 0.02), KnownSize(0, 1.05 * size, 0.04)]
    alignment = align_to_world(layout, assets()[:1], items, exact)
    # the mean of 0 and log 1.05 with weights 4 : 1, nearly: the robust weight favours the nearer one a little
    assert errors(alignment, S[0])[2] == pytest.approx(0.01, abs=0.003)
    deviation = np.sqrt(alignment.estimate.covariance[6, 6])
    assert deviation == pytest.approx(np.sqrt(1 / (1 / 0.02**2 + 1 / 0.04**2)), rel=0.15)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31 - 1))
def test_equations_are_linear_in_the_change(seed):
    rng = np.random.default_rng(seed)
    S = world_scene(rng)
    layout = layout_from_world(S, 0)
    known, error = scene_assets(layout, assets()), LayoutError(0.001, 0.01)
    start = similarity.changed(scene_of(S, 0), 0.02 * rng.normal(size=7))
    cameras = np.stack([transforms.look_at(eye, [0, 0, 0.05]) for eye in EYES])
    T_scene = transforms.inverse(scene_of(S, 0)) @ cameras
    T_scene[:, :3, :3] = similarity.parts(T_scene)[1]
    items = [rays(S, layout), UprightAssets((1, 2)), KnownSize(3, 0.1), CameraPoses(cameras, T_scene)]
    for item in items:
        rows = equations_of(item, known, start, error)
        for k in range(7):
            step = np.zeros(7)
            step[k] = 1e-5
            ahead, behind = (
                equations_of(item, known, similarity.changed(start, sign * step), error).residuals for sign in (1, -1)
            )
            # the rotation of a camera is linear but for terms of the size of its own residual
            np.testing.assert_allclose(rows.jacobian[:, k], (ahead - behind) / 2e-5, atol=0.04)


def test_evidence_from_masks_and_depth(solids):
    scene = [solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03)), solids.Cylinder((0.15, 0.0, 0), 0.04, 0.09)]
    observations = [solids.observe(scene, solids.ring(2), number=n) for n in range(2)]
    views, masks = observations[0].views, [[o.visible_masks[v] for o in observations] for v in range(2)]
    found = points_under_masks(views[0], [m.astype(bool) for m in masks[0]])
    assert [item.asset for item in found] == [0, 1]
    for item, solid in zip(found, scene, strict=True):
        assert np.abs(solid.distance(item.points_m)).max() < 0.01
    assert [item.asset for item in points_of_observations([None, observations[1]])] == [1]
    lines = rays_of_masks(masks, [v.intrinsics for v in views], [v.T_world_camera for v in views])
    assert lines is not None
    for asset, origin, direction in zip(lines.assets, lines.origins_m, lines.directions, strict=True):
        center = np.array([[0, 0, 0.03], [0.15, 0, 0.045]])[asset] - origin
        assert np.degrees(np.arccos(direction @ center / np.linalg.norm(center))) < 3.0
    empty = [[np.zeros_like(m) for m in row] for row in masks]
    assert rays_of_masks(empty, [v.intrinsics for v in views], [v.T_world_camera for v in views]) is None


def test_bad_evidence_is_refused():
    S = world_scene(np.random.default_rng(0), 2)
    layout = layout_from_world(S, 0)
    with pytest.raises(InputError, match="KnownSize names asset 5, but the layout's assets are 0 to 1"):
        align_to_world(layout, assets()[:2], [KnownSize(5, 0.1)])
    with pytest.raises(InputError, match="2 assets, but 1 meshes"):
        align_to_world(layout, assets()[:1], [])
    with pytest.raises(InputError, match="at least 10 finite points"):
        ObjectPoints(0, np.zeros((3, 3)))
    with pytest.raises(InputError, match="positive"):
        KnownSize(0, -1.0)
    with pytest.raises(InputError, match="unit vector"):
        UprightAssets((0,), np.array([0.0, 0, 2.0]))
    with pytest.raises(InputError, match="in pairs"):
        CameraPoses(np.eye(4)[None], np.zeros((0, 4, 4)))
    with pytest.raises(InputError, match="length one"):
        ObjectRays(np.array([0]), np.zeros((1, 3)), np.ones((1, 3)), np.ones(1))
    with pytest.raises(InputError, match="stages"):
        AlignmentConfig(stages=(3.0,))
    with pytest.raises(InputError, match="unit normal"):
        SupportContact(SupportPlane(np.array([0.0, 0, 3.0]), 0.0))


def test_an_empty_layout_cannot_be_made():
    with pytest.raises(InputError, match="query asset 0 is not one of the 0"):
        RelativeLayout(np.zeros((0, 8)))
