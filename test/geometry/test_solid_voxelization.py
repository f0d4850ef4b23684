"""Filled shares of voxels: volumes of solids with known ones, unions, holes, grids that turn, scale and cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import column_crossings
from gena3d_core.geometry.mesh import concatenate, make_mesh, select_faces, transformed, volume
from gena3d_core.geometry.solid_voxelization import is_solid, solid_occupancy
from gena3d_core.simulation.primitives import make_primitive
from gena3d_core.simulation.surfaces import box as box_surface
from gena3d_core.types import Mesh

SEEDS = st.integers(0, 2**32 - 1)
GRID = np.eye(4)


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Mesh:
    surface = box_surface(np.subtract(high, low), max_edge_m=10.0)
    return make_mesh(surface.vertices + np.add(low, high) / 2, surface.faces)


def sphere(radius: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    mesh = make_primitive("sphere", {"radius_m": radius})
    return make_mesh(mesh.vertices + np.array(center), mesh.faces)


def inside_out(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, np.ascontiguousarray(mesh.faces[:, ::-1]))


def similarity(rng: np.random.Generator, scale: float) -> np.ndarray:
    S = np.eye(4)
    S[:3, :3] = scale * Rotation.random(random_state=rng.integers(2**31)).as_matrix()
    S[:3, 3] = rng.uniform(-1, 1, 3)
    return S


def volume_of(occupancy: np.ndarray) -> float:
    return float(occupancy.astype(np.float64).mean())


@pytest.mark.parametrize(
    "kind", ["sphere", "torus", "cylinder", "cone", "mug", "bowl", "bottle", "banana", "l_bracket"]
)
def test_the_filled_shares_add_up_to_the_volume_of_the_mesh(kind: str) -> None:
    mesh = make_primitive(kind)
    S_world_grid = np.diag([*np.full(3, np.ptp(mesh.vertices, axis=0).max() / 0.98), 1.0])
    filled = solid_occupancy(mesh, S_world_grid, 64) * S_world_grid[0, 0] ** 3
    assert volume_of(filled) == pytest.approx(volume(mesh), rel=5e-3)


def test_an_aligned_box_fills_exactly_its_voxels() -> None:
    occupancy = solid_occupancy(box((-0.25, -0.125, -0.5), (0.25, 0.25, 0.375)), GRID, 16, subsamples=1)
    expected = np.zeros((16, 16, 16), dtype=np.float32)
    expected[4:12, 6:12, 0:14] = 1.0
    assert occupancy.dtype == np.float32
    np.testing.assert_array_equal(occupancy, expected)


def test_the_share_along_z_is_exact_and_that_across_is_sampled() -> None:
    high = box((-0.5, -0.5, -0.5), (0.5, 0.5, -0.5 + 2.3 / 8))
    np.testing.assert_allclose(solid_occupancy(high, GRID, 8)[3, 5, :4], [1.0, 1.0, 0.3, 0.0], atol=1e-6)
    wide = box((-0.5, -0.5, -0.5), (-0.5 + 2.5 / 8, 0.5, 0.5))
    np.testing.assert_allclose(solid_occupancy(wide, GRID, 8)[:4, 5, 3], [1.0, 1.0, 0.5, 0.0], atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_a_grid_that_turns_and_scales_with_the_mesh_sees_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = transformed(make_primitive("mug"), np.diag([6.0, 6.0, 6.0, 1.0]))
    S = similarity(rng, scale=10.0 ** rng.uniform(-1, 1))
    moved = solid_occupancy(transformed(mesh, S), S, 32)
    assert np.abs(moved - solid_occupancy(mesh, GRID, 32)).mean() < 1e-4


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_a_turned_grid_sees_the_same_volume(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = make_primitive("l_bracket")
    S_world_grid = similarity(rng, scale=0.14)
    S_world_grid[:3, 3] = 0.0
    filled = volume_of(solid_occupancy(mesh, S_world_grid, 64)) * 0.14**3
    assert filled == pytest.approx(volume(mesh), rel=5e-3)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_centres_of_full_and_empty_voxels_are_inside_and_outside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    center, radius = rng.uniform(-0.3, 0.3, 3), rng.uniform(0.1, 0.4)
    occupancy = solid_occupancy(sphere(radius, tuple(center)), GRID, 24, subsamples=3)
    axis = (np.arange(24) + 0.5) / 24 - 0.5
    distance = np.linalg.norm(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1) - center, axis=-1) - radius
    half_diagonal = np.sqrt(3.0) / 48 + 1e-3
    assert (occupancy[distance < -half_diagonal] == 1.0).all()
    assert (occupancy[distance > half_diagonal] == 0.0).all()


def test_what_lies_outside_the_grid_is_cut_off() -> None:
    occupancy = solid_occupancy(box((-2.0, -3.0, -4.0), (0.0, 3.0, 4.0)), GRID, 8)
    assert occupancy[:4].min() == 1.0
    assert occupancy[4:].max() == 0.0
    assert not solid_occupancy(box((0.6, 0.6, -0.2), (0.9, 0.9, 0.2)), GRID, 8).any()
    assert not solid_occupancy(box((-0.2, -0.2, 0.6), (0.2, 0.2, 0.9)), GRID, 8).any()
    assert solid_occupancy(box((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0)), GRID, 8).min() == 1.0


def test_overlapping_parts_are_united() -> None:
    both = concatenate([sphere(0.25, (-0.15, 0.0, 0.0)), sphere(0.25, (0.15, 0.0, 0.0))])
    half = 0.15
    lens = np.pi * (2 * 0.25 - 2 * half) ** 2 * (4 * half**2 + 8 * half * 0.25) / (12 * 2 * half)
    expected = 2 * 4 / 3 * np.pi * 0.25**3 - lens
    occupancy = solid_occupancy(both, GRID, 64)
    assert occupancy.max() == 1.0
    assert volume_of(occupancy) == pytest.approx(expected, rel=5e-3)


def test_a_shell_that_faces_inwards_is_a_hole_and_the_side_of_a_whole_mesh_does_not_matter() -> None:
    hollow = concatenate([sphere(0.4), inside_out(sphere(0.3))])
    occupancy = solid_occupancy(hollow, GRID, 64)
    assert occupancy[32, 32, 32] == 0.0
    assert volume_of(occupancy) == pytest.approx(4 / 3 * np.pi * (0.4**3 - 0.3**3), rel=5e-3)
    np.testing.assert_array_equal(
        solid_occupancy(inside_out(sphere(0.4)), GRID, 16), solid_occupancy(sphere(0.4), GRID, 16)
    )


@pytest.mark.parametrize("subsamples", [1, 2, 3])
def test_vertices_and_edges_exactly_on_columns_do_not_leak(subsamples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Columns at multiples of a half: corners, sides and face diagonals of this box pass through them exactly.
    monkeypatch.setattr(column_crossings, "GOLDEN", 0.5)
    occupancy = solid_occupancy(box((-0.25, -0.25, -0.25), (0.25, 0.25, 0.25)), GRID, 8, subsamples=subsamples)
    assert (occupancy[3:5, 3:5, 2:6] == 1.0).all()
    assert occupancy.sum() == occupancy[2:7, 2:7, 2:6].sum()


def test_doubled_vertices_and_touching_parts_are_closed_and_open_meshes_are_refused() -> None:
    mesh = sphere(0.4)
    soup = make_mesh(mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3))
    assert is_solid(mesh)
    assert is_solid(soup)
    np.testing.assert_array_equal(solid_occupancy(soup, GRID, 16), solid_occupancy(mesh, GRID, 16))
    touching = concatenate([box((-0.4, -0.4, 0.0), (0.0, 0.0, 0.2)), box((0.0, 0.0, 0.0), (0.4, 0.4, 0.2))])
    assert is_solid(touching)
    for broken in (
        select_faces(mesh, np.arange(len(mesh.faces) - 1)),
        select_faces(mesh, np.zeros(len(mesh.faces), dtype=bool)),
        Mesh(mesh.vertices, np.concatenate([mesh.faces[:1, ::-1], mesh.faces[1:]])),
    ):
        assert not is_solid(broken)
        with pytest.raises(InputError, match="closed"):
            solid_occupancy(broken, GRID, 8)


def test_sizes_below_one_and_vertices_that_are_not_finite_are_refused() -> None:
    mesh = sphere(0.4)
    with pytest.raises(InputError, match="resolution"):
        solid_occupancy(mesh, GRID, 0)
    with pytest.raises(InputError, match="subsamples"):
        solid_occupancy(mesh, GRID, 8, subsamples=0)
    vertices = mesh.vertices.copy()
    vertices[0, 0] = np.nan
    with pytest.raises(InputError, match="finite"):
        solid_occupancy(Mesh(vertices, mesh.faces), GRID, 8)
