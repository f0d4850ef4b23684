"""Surface voxels of meshes: against sampled points, against a box clipper, on solids with known answers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.checkpoints.cases.data_preparation import voxels as run_case
from gena3d_core.checkpoints.golden import compare_case, read_case
from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh_voxelization
from gena3d_core.geometry.mesh_voxelization import (
    cell_centers,
    normalise_vertices,
    occupied_indices,
    voxelize_surface,
)

WALLS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
CUBE_FACES = np.concatenate([WALLS[:, [0, 1, 2]], WALLS[:, [0, 2, 3]]])
SEEDS = st.integers(0, 2**32 - 1)


def box(low: float, high: float) -> np.ndarray:
    """(8, 3) corners, x slowest."""
    return np.stack(np.meshgrid(*[[low, high]] * 3, indexing="ij"), axis=-1).reshape(8, 3)


def touches_box(triangle: np.ndarray, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether a triangle (3, 3) touches a box, by clipping it with the six walls (Sutherland-Hodgman)."""
    polygon = list(triangle)
    for axis in range(3):
        for wall, sign in ((low[axis], 1.0), (high[axis], -1.0)):
            side = [sign * (corner[axis] - wall) for corner in polygon]
            clipped = []
            for i, corner in enumerate(polygon):
                if side[i - 1] * side[i] < 0:
                    share = side[i - 1] / (side[i - 1] - side[i])
                    clipped.append(polygon[i - 1] + share * (corner - polygon[i - 1]))
                if side[i] >= 0:
                    clipped.append(corner)
            polygon = clipped
    return bool(polygon)


def test_golden_case(golden_dir: Path) -> None:
    case = read_case(golden_dir / "j_voxelize")
    vertices = normalise_vertices(case.inputs["vertices_raw"].numpy())
    assert np.abs(vertices - case.inputs["vertices"].numpy()).max() < 1e-7
    results = run_case(case)
    assert np.array_equal(results.tensors["out.voxel_indices"].numpy(), case.expected["out.voxel_indices"].numpy())
    differences = compare_case(case, results)
    assert len(differences) == 2
    assert all(difference.ok for difference in differences.values())


def test_the_comparison_of_cells_finds_faults(golden_dir: Path) -> None:
    case = read_case(golden_dir / "j_voxelize")
    results = run_case(case)
    for name, tensor in results.tensors.items():
        for wrong in (tensor[1:], tensor.flip(0), tensor + tensor.new_tensor([1, 0, 0])):
            broken = {**results.tensors, name: wrong}
            assert not compare_case(case, type(results)(broken, results.comparisons))[name].ok


@given(SEEDS, st.integers(1, 24), st.floats(0.02, 1.0))
@settings(max_examples=40, deadline=None)
def test_every_surface_point_lies_in_an_occupied_voxel(seed: int, resolution: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.45, 0.45, (6, 1, 3)) + rng.uniform(-size, size, (6, 3, 3)) / 2
    vertices = np.clip(corners.reshape(-1, 3), -0.49, 0.49)
    occupancy = voxelize_surface(vertices, np.arange(18).reshape(6, 3), resolution)
    weights = rng.dirichlet(np.ones(3), 500)
    points = np.einsum("pv,fvi->fpi", weights, vertices.reshape(6, 3, 3)).reshape(-1, 3)
    index = np.floor((points + 0.5) * resolution).astype(int)
    assert occupancy[tuple(index.T)].all()


@given(SEEDS, st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_exactly_the_voxels_that_clipping_finds(seed: int, resolution: int) -> None:
    rng = np.random.default_rng(seed)
    triangle = rng.uniform(-0.49, 0.49, (3, 3))
    occupancy = voxelize_surface(triangle, np.array([[0, 1, 2]]), resolution)
    low = np.stack(np.indices(occupancy.shape), axis=-1).reshape(-1, 3) / resolution - 0.5
    expected = [touches_box(triangle, corner, corner + 1 / resolution) for corner in low]
    assert np.array_equal(occupancy.reshape(-1), expected)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_do_not_matter(chunk: int, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    vertices, faces = rng.uniform(-0.5, 0.5, (12, 3)), np.arange(12).reshape(4, 3)
    whole = voxelize_surface(vertices, faces, 6)
    monkeypatch.setattr(mesh_voxelization, "CHUNK", chunk)
    assert np.array_equal(voxelize_surface(vertices, faces, 6), whole)


def test_a_box_is_a_shell() -> None:
    # Walls inside the cells of layers 16 and 47 touch those layers only.
    occupancy = voxelize_surface(box(16.5 / 64 - 0.5, 47.5 / 64 - 0.5), CUBE_FACES)
    expected = np.zeros((64, 64, 64), dtype=bool)
    expected[16:48, 16:48, 16:48] = True
    expected[17:47, 17:47, 17:47] = False
    assert np.array_equal(occupancy, expected)


def test_closed_boxes_count_walls_that_lie_between_cells() -> None:
    occupancy = voxelize_surface(box(-0.25, 0.25), CUBE_FACES, 8)
    expected = np.zeros((8, 8, 8), dtype=bool)
    expected[1:7, 1:7, 1:7] = True
    expected[3:5, 3:5, 3:5] = False
    assert np.array_equal(occupancy, expected)


def test_what_lies_outside_is_moved_to_the_walls() -> None:
    occupancy = voxelize_surface(box(-3.0, 3.0), CUBE_FACES, 8)
    expected = np.ones((8, 8, 8), dtype=bool)
    expected[1:7, 1:7, 1:7] = False
    assert np.array_equal(occupancy, expected)


def test_triangles_without_area_and_meshes_without_faces() -> None:
    vertices = np.array([[-0.35, 0.07, 0.07], [0.35, 0.07, 0.07], [0.0, 0.07, 0.07], [0.3, 0.3, 0.3]])
    line = voxelize_surface(vertices, np.array([[0, 1, 2]]), 10)
    assert occupied_indices(line).tolist() == [[i, 5, 5] for i in range(1, 9)]
    point = voxelize_surface(vertices, np.array([[3, 3, 3]]), 4)
    assert occupied_indices(point).tolist() == [[3, 3, 3]]
    assert not voxelize_surface(vertices, np.zeros((0, 3), dtype=int)).any()


def test_grown_boxes_hold_more() -> None:
    vertices, faces = box(-0.25, 0.25), CUBE_FACES
    counts = [voxelize_surface(vertices, faces, 8, grown=grown).sum() for grown in (-1e-9, 0.0, 1e-9, 0.13)]
    # Walls exactly between cells: boxes shrunk by any amount miss them.
    assert counts[0] == 0
    assert counts[1] == counts[2] < counts[3]


@given(SEEDS, st.floats(1e-3, 1e3))
@settings(max_examples=30, deadline=None)
def test_normalised_vertices_fill_the_cube(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(20, 3)) * rng.uniform(0.1, 1.0, 3) * scale + rng.normal(size=3) * 10
    normalised = normalise_vertices(points)
    extent = np.ptp(normalised, axis=0)
    assert extent.max() == pytest.approx(1.0)
    assert np.abs(normalised.min(axis=0) + normalised.max(axis=0)).max() < 1e-9
    # A similarity: all distances change by one factor.
    ratios = np.linalg.norm(np.diff(normalised, axis=0), axis=1) / np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.allclose(ratios, ratios[0])


def test_centres_lead_back_to_their_cells() -> None:
    index = np.argwhere(np.ones((4, 4, 4), dtype=bool))
    assert np.array_equal(np.floor((cell_centers(index, 4) + 0.5) * 4).astype(int), index)


def test_refusals() -> None:
    faces = np.array([[0, 1, 2]])
    with pytest.raises(InputError, match="finite"):
        voxelize_surface(np.full((3, 3), np.nan), faces)
    with pytest.raises(InputError, match=r"outside 0\.\.2"):
        voxelize_surface(np.zeros((3, 3)), np.array([[0, 1, 3]]))
    with pytest.raises(InputError, match="resolution"):
        voxelize_surface(np.zeros((3, 3)), faces, 0)
    with pytest.raises(InputError, match="coincide"):
        normalise_vertices(np.ones((3, 3)))
    with pytest.raises(InputError, match="finite"):
        normalise_vertices(np.zeros((0, 3)))
