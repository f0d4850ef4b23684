"""The caster in PyTorch against Embree: the same hits on meshes, soups of triangles and awkward rays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.simulation.primitives import make_primitive
from gena3d_core.simulation.ray_casting import Hits, casting_with, make_caster
from gena3d_core.simulation.torch_ray_casting import make_torch_caster, torch_caster_factory

SEEDS = st.integers(0, 2**32 - 1)


def rays_at(target: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rays from around points (N, 3) towards some of them, of various lengths, in float32."""
    extent = np.ptp(target, axis=0).max()
    origins = target.mean(axis=0) + rng.normal(size=(count, 3)) * extent
    aims = target[rng.integers(len(target), size=count)] + rng.normal(size=(count, 3)) * 0.2 * extent
    return origins.astype(np.float32), ((aims - origins) * rng.uniform(0.1, 3, (count, 1))).astype(np.float32)


def assert_same(found: Hits, expected: Hits, share: float = 1e-3) -> None:
    """The same distance wherever both hit; the same face and place but for ties at edges; misses but for grazes."""
    assert found.face.dtype == np.int32
    assert found.distance.dtype == np.float32
    assert np.mean((found.face < 0) != (expected.face < 0)) <= share
    both = (found.face >= 0) & (expected.face >= 0)
    close = np.isclose(found.distance[both], expected.distance[both], rtol=1e-4, atol=1e-5)
    assert np.mean(~close) <= share
    same = both & (found.face == expected.face)
    assert same.sum() >= (1 - share) * both.sum() - 1
    for name in ("u", "v"):
        off = np.abs(getattr(found, name)[same] - getattr(expected, name)[same]) > 2e-3
        assert np.mean(off) <= 2 * share if len(off) else True
    assert np.isinf(found.distance[found.face < 0]).all()


@pytest.mark.parametrize("kind", ["mug", "torus", "bowl", "l_bracket"])
def test_objects_are_hit_where_embree_hits_them(kind: str) -> None:
    mesh = make_primitive(kind)
    origins, directions = rays_at(mesh.vertices, 4000, np.random.default_rng(3))
    found = make_torch_caster(mesh.vertices, mesh.faces)(origins, directions)
    assert (found.face >= 0).mean() > 0.2
    assert_same(found, make_caster(mesh.vertices, mesh.faces)(origins, directions))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 300))
def test_soups_of_triangles_are_hit_alike(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vertices = rng.normal(size=(3 * count, 3)).astype(np.float32)
    faces = np.arange(3 * count, dtype=np.int32).reshape(-1, 3)
    origins, directions = rays_at(vertices, 300, rng)
    found = make_torch_caster(vertices, faces)(origins, directions)
    assert_same(found, make_caster(vertices, faces)(origins, directions), share=0.01)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_hits_lie_where_their_weights_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mesh = make_primitive("bowl")
    origins, directions = rays_at(mesh.vertices, 200, rng)
    found = make_torch_caster(mesh.vertices, mesh.faces)(origins, directions)
    hit = found.face >= 0
    weights = np.stack([1 - found.u - found.v, found.u, found.v], axis=1)[hit]
    by_weights = np.einsum("nk,nki->ni", weights, mesh.vertices[mesh.faces[found.face[hit]]])
    by_distance = origins[hit] + found.distance[hit, None] * directions[hit]
    np.testing.assert_allclose(by_weights, by_distance, atol=2e-5)


def test_distance_is_limited_and_what_lies_behind_is_not_hit() -> None:
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], dtype=np.float32)
    cast = make_torch_caster(vertices, np.array([[0, 1, 2]], dtype=np.int32))
    origins = np.tile(np.array([0, 0, 2], dtype=np.float32), (3, 1))
    directions = np.array([[0, 0, -1], [0, 0, -1], [0, 0, 1]], dtype=np.float32)
    found = cast(origins, directions, np.array([2.5, 1.5, 9.0], dtype=np.float32))
    assert found.face.tolist() == [0, -1, -1]
    assert found.distance[0] == pytest.approx(2.0)


def test_rays_through_shared_edges_and_vertices_do_not_slip_through() -> None:
    steps = np.arange(9)
    x, y = np.meshgrid(steps, steps, indexing="ij")
    vertices = np.stack([x, y, 0 * x], axis=-1).reshape(-1, 3).astype(np.float32) / 7
    a = (steps[:-1, None] * 9 + steps[:-1]).reshape(-1)
    faces = np.concatenate([np.stack([a, a + 9, a + 10], 1), np.stack([a, a + 10, a + 1], 1)]).astype(np.int32)
    rng = np.random.default_rng(0)
    inner = vertices[((x > 0) & (x < 8) & (y > 0) & (y < 8)).reshape(-1)]
    middles = (inner[:, None] + vertices[faces[:, 0]][None, :4]) / 2
    diagonals = inner + np.array([0.5 / 7, 0.5 / 7, 0])
    targets = np.concatenate([inner, diagonals, middles.reshape(-1, 3)]).astype(np.float32)
    origins = (targets + rng.normal(size=targets.shape) * [0.2, 0.2, 0] + [0, 0, 1]).astype(np.float32)
    assert (make_torch_caster(vertices, faces)(origins, targets - origins).face >= 0).all()


def test_no_faces_no_rays_and_bad_meshes() -> None:
    empty = make_torch_caster(np.zeros((0, 3)), np.zeros((0, 3)))(np.zeros((2, 3)), np.ones((2, 3)))
    assert empty.face.tolist() == [-1, -1]
    mesh = make_primitive("mug")
    assert len(make_torch_caster(mesh.vertices, mesh.faces)(np.zeros((0, 3)), np.zeros((0, 3))).face) == 0
    with pytest.raises(InputError, match="index"):
        make_torch_caster(mesh.vertices, mesh.faces + len(mesh.vertices))
    with pytest.raises(InputError, match="finite"):
        make_torch_caster(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))


def test_casters_are_made_by_the_chosen_factory_within_the_block_only() -> None:
    mesh = make_primitive("mug")
    made = []
    inner = torch_caster_factory("cpu")

    def factory(vertices: np.ndarray, faces: np.ndarray):
        made.append(len(faces))
        return inner(vertices, faces)

    with casting_with(factory):
        cast = make_caster(mesh.vertices, mesh.faces)
    make_caster(mesh.vertices, mesh.faces)
    assert made == [len(mesh.faces)]
    down = cast(np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, -1.0]]))
    assert down.face[0] >= 0
