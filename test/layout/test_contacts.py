"""Contacts of whole scenes, with exact intersections of closed meshes as the judge."""

from itertools import combinations

import manifold3d
import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.layout import solid_bodies
from gena3d_core.layout.contacts import NOTHING, SUPPORT, ContactConfig, resolve_contacts
from gena3d_core.types import Mesh, SupportPlane

TABLE = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
UP_FRAME = solid_bodies.frame_along(np.array([0.0, 0.0, 1.0]))
CLEARANCE = ContactConfig().clearance_m


def placed(solid: trimesh.Trimesh, at, turn_deg=(0.0, 0.0, 0.0)) -> Mesh:
    R = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
    return mesh_ops.make_mesh(solid.vertices @ R.T + np.array(at), solid.faces)


def box(size=(0.1, 0.1, 0.1), at=(0.0, 0.0, 0.05), turn_deg=(0.0, 0.0, 0.0)) -> Mesh:
    return placed(trimesh.creation.box(size), at, turn_deg)


def ball(radius=0.05, at=(0.0, 0.0, 0.05)) -> Mesh:
    return placed(trimesh.creation.icosphere(3, radius), at)


def bowl(at=(0.0, 0.0, 0.0)) -> Mesh:
    """Outer radius 0.1, wall 0.01 thick, its floor 0.01 high."""
    profile = np.array([[0.0, 0.0], [0.1, 0.0], [0.1, 0.08], [0.09, 0.08], [0.09, 0.01], [0.0, 0.01]])
    return placed(trimesh.creation.revolve(profile, sections=48), at)


def moved(meshes, result):
    return [mesh_ops.transformed(m, transforms.rigid(t=s)) for m, s in zip(meshes, result.shifts_m, strict=True)]


def shared_volume(meshes) -> float:
    solids = [manifold3d.Manifold(manifold3d.Mesh(m.vertices, m.faces.astype(np.uint32))) for m in meshes]
    return sum((a ^ b).volume() for a, b in combinations(solids, 2))


def lowest(meshes):
    return np.array([m.vertices[:, 2].min() for m in meshes])


def test_boxes_side_by_side_share_the_least_way():
    meshes = [box(), box(at=(0.08, 0.0, 0.05))]
    result = resolve_contacts(meshes, TABLE)
    assert result.before == ((0, 1),)
    assert result.after == ()
    half = (0.02 + CLEARANCE) / 2
    np.testing.assert_allclose(result.shifts_m, [[-half, 0, 0], [half, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(result.moved_m, half, atol=1e-6)
    assert result.rests_on == (SUPPORT, SUPPORT)
    assert shared_volume(moved(meshes, result)) == 0.0


def test_what_may_not_move_stays():
    meshes = [box(), box(at=(0.08, 0.0, 0.05))]
    result = resolve_contacts(meshes, TABLE, mobility=[0.0, 1.0])
    np.testing.assert_allclose(result.shifts_m, [[0, 0, 0], [0.02 + CLEARANCE, 0, 0]], atol=1e-6)
    fixed = resolve_contacts(meshes, TABLE, mobility=[0.0, 0.0])
    np.testing.assert_array_equal(fixed.shifts_m, 0.0)
    assert fixed.after == ((0, 1),)
    assert fixed.warnings == ("layout: objects 0 and 1 still penetrate each other",)


def test_sunk_is_lifted_and_floating_is_lowered():
    meshes = [box(at=(0.0, 0.0, 0.03)), box(at=(0.3, 0.0, 0.2)), box(at=(0.6, 0.0, 0.05))]
    result = resolve_contacts(meshes, TABLE)
    np.testing.assert_allclose(result.shifts_m, [[0, 0, 0.02], [0, 0, -0.15], [0, 0, 0]], atol=1e-7)
    assert result.rests_on == (SUPPORT,) * 3
    # Without a support nobody knows where to.
    np.testing.assert_array_equal(resolve_contacts(meshes, None).shifts_m, 0.0)
    assert resolve_contacts(meshes, TABLE, mobility=[1, 0, 1]).rests_on == (SUPPORT, NOTHING, SUPPORT)


def test_box_sunk_into_a_book_is_put_on_it():
    book, small = box((0.3, 0.2, 0.04), (0.0, 0.0, 0.02)), box((0.06, 0.06, 0.06), (0.02, 0.01, 0.05))
    result = resolve_contacts([book, small], TABLE)
    np.testing.assert_allclose(result.shifts_m, [[0, 0, 0], [0, 0, 0.02 + CLEARANCE]], atol=1e-6)
    assert result.rests_on == (SUPPORT, 0)


def test_box_that_floats_over_a_stack_lands_on_it():
    meshes = [box((0.3, 0.2, 0.04), (0.0, 0.0, 0.02)), box((0.1, 0.1, 0.1), (0, 0, 0.12)), box(at=(0, 0, 0.4))]
    result = resolve_contacts(meshes, TABLE)
    np.testing.assert_allclose(result.shifts_m[:, 2], [0, -0.03 + CLEARANCE, -0.21 + 2 * CLEARANCE + 0.0], atol=1e-6)
    assert result.rests_on == (SUPPORT, 0, 1)


def test_apple_in_a_bowl_lies_on_its_floor():
    meshes = [bowl(), ball(0.04, (0.01, 0.0, 0.03))]
    result = resolve_contacts(meshes, TABLE)
    final = moved(meshes, result)
    assert shared_volume(final) == 0.0
    assert result.rests_on == (SUPPORT, 0)
    assert lowest(final)[1] == pytest.approx(0.01, abs=2 * CLEARANCE)
    np.testing.assert_allclose(result.shifts_m[:, :2], 0.0, atol=1e-9)


def test_tilted_support():
    normal = Rotation.from_euler("x", 20, degrees=True).apply([0.0, 0.0, 1.0])
    plane = SupportPlane(normal, -0.3)
    R = Rotation.from_euler("x", 20, degrees=True).as_matrix()
    flat = [box(at=(0.0, 0.0, 0.02)), box(at=(0.07, 0.0, 0.09))]
    tilted = [mesh_ops.transformed(m, transforms.rigid(R, 0.3 * normal)) for m in flat]
    result = resolve_contacts(tilted, plane)
    for mesh in moved(tilted, result):
        assert plane.height_m(mesh.vertices.astype(np.float64)).min() == pytest.approx(0.0, abs=1e-6)
    assert result.after == ()


def test_scene_without_faults_is_left_alone():
    solids = [box(), ball(at=(0.2, 0.0, 0.05)), bowl((0.0, 0.3, 0.0))]
    meshes = [
        mesh_ops.transformed(mesh, transforms.rigid(t=[0, 0, -z]))
        for mesh, z in zip(solids, lowest(solids), strict=True)
    ]
    result = resolve_contacts(meshes, TABLE)
    np.testing.assert_allclose(result.shifts_m, 0.0, atol=1e-7)
    assert (result.before, result.after, result.warnings) == ((), (), ())


def test_open_meshes_are_kept_apart_too():
    half = ball()
    half = mesh_ops.select_faces(half, (half.vertices[:, 0] > -0.01)[half.faces].all(axis=1))
    meshes = [half, box(at=(0.08, 0.0, 0.05))]
    result = resolve_contacts(meshes, TABLE)
    assert result.before == ((0, 1),)
    assert result.after == ()
    assert result.moved_m.max() < 0.03


def test_bad_input():
    assert resolve_contacts([], TABLE).shifts_m.shape == (0, 3)
    with pytest.raises(InputError, match="object 1 has a mesh without faces"):
        resolve_contacts([box(), mesh_ops.make_mesh(np.zeros((0, 3)), np.zeros((0, 3)))], TABLE)
    with pytest.raises(InputError, match="mobility"):
        resolve_contacts([box()], TABLE, mobility=[-1.0])
    with pytest.raises(InputError, match="clearance"):
        ContactConfig(clearance_m=0.0)


def random_scene(seed: int, count: int) -> list[Mesh]:
    rng = np.random.default_rng(seed)
    meshes = []
    for kind in rng.integers(0, 4, count):
        size = rng.uniform(0.04, 0.16, 3)
        at = [*rng.uniform(-0.12, 0.12, 2), rng.uniform(0.0, 0.12)]
        turn = rng.uniform(0, 360, 3) if rng.random() < 0.5 else [0, 0, rng.uniform(0, 360)]
        solids = (
            lambda s=size: trimesh.creation.box(s),
            lambda s=size: trimesh.creation.cylinder(s[0] / 2, s[1], sections=24),
            lambda s=size: trimesh.creation.icosphere(2, s[0] / 2),
            lambda s=size: trimesh.creation.torus(s[0], s[0] / 3, 24, 12),
        )
        meshes.append(placed(solids[kind](), at, turn))
    return meshes


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(2, 6))
def test_nothing_penetrates_or_sinks(seed, count):
    meshes = random_scene(seed, count)
    result = resolve_contacts(meshes, TABLE)
    final = moved(meshes, result)
    assert result.after == ()
    assert shared_volume(final) <= count**2 * 1e-12
    assert lowest(final).min() > -1e-6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_floats_in_ordinary_heaps(seed):
    """Wedged between others an object may stay above them (seed 121 with five objects does)."""
    assert NOTHING not in resolve_contacts(random_scene(seed, 4), TABLE).rests_on


def test_the_same_input_gives_the_same_result():
    meshes = random_scene(3, 6)
    first, second = resolve_contacts(meshes, TABLE), resolve_contacts(meshes, TABLE)
    np.testing.assert_array_equal(first.shifts_m, second.shifts_m)
    assert len(first.before) > 1


@settings(max_examples=8, deadline=None)
@given(angle=st.floats(0.0, 6.28), overlap=st.floats(0.002, 0.04))
def test_two_balls_part_by_their_overlap(angle, overlap):
    direction = np.array([np.cos(angle), np.sin(angle), 0.0])
    meshes = [ball(), ball(at=(0.1 - overlap) * direction + [0, 0, 0.05])]
    result = resolve_contacts(meshes, TABLE)
    assert shared_volume(moved(meshes, result)) == 0.0
    apart = np.linalg.norm(result.shifts_m[1] - result.shifts_m[0])
    # 16 directions: the nearest is at most 11.25 degrees off
    assert apart < overlap * 1.1 + 0.003


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-100, 100), st.integers(1, 50)), max_size=8))
def test_first_free_and_first_blocked(spans):
    blocked = np.array([(start, start + length) for start, length in spans], dtype=np.float64).reshape(-1, 2) / 100

    def free(distance):
        return not ((blocked[:, 0] < distance - 1e-12) & (distance + 1e-12 < blocked[:, 1])).any()

    found = solid_bodies.first_free(blocked)
    assert free(found)
    ends = [end for _, end in blocked if 0 < end < found]
    assert not any(free(distance) for distance in [0.0, *ends] if distance < found)
    reach = solid_bodies.first_blocked(blocked)
    assert all(not (0 <= start < reach) for start, _ in blocked)
