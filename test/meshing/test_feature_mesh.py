"""Mesh of per-voxel features: equal to the dense grid, memory of the touched cubes only, gradients, odd inputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gena3d_core.errors import InputError
from gena3d_core.meshing.feature_mesh import features_to_mesh
from gena3d_core.meshing.flexicubes import FlexiMesh, flexicubes
from gena3d_core.meshing.flexicubes_tables import CORNER_OFFSETS

OFFSETS = torch.tensor(CORNER_OFFSETS)
RADIUS = 0.31


def raster(ijk: Tensor, side: int) -> Tensor:
    return (ijk[..., 0] * side + ijk[..., 1]) * side + ijk[..., 2]


def lattice(side: int) -> Tensor:
    axis = torch.arange(side)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def sphere_features(resolution: int, channels: int = 101, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Features and coordinates of the voxels near a sphere; with noise, corners of neighbours disagree."""
    generator = torch.Generator().manual_seed(0)
    coords = lattice(resolution)
    distance = ((coords.unsqueeze(1) + OFFSETS) / resolution - 0.5).norm(dim=2) - RADIUS
    near = distance.abs().amin(1) < 1.5 / resolution
    feats = noise * torch.randn(int(near.sum()), channels, generator=generator)
    # The extractor shifts distances by one voxel.
    feats[:, :8] = feats[:, :8] / resolution + distance[near] + 1 / resolution
    return feats, coords[near]


def random_features(seed: int, resolution: int, channels: int, share: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coords = lattice(resolution)[torch.rand(resolution**3, generator=generator) < share]
    return torch.randn(len(coords), channels, generator=generator), coords


def dense_mesh(feats: Tensor, coords: Tensor, resolution: int, training: bool) -> FlexiMesh:
    """The definition: dense grids, in which untouched corners lie outside and untouched cubes have no weights."""
    side = resolution + 1
    key = raster(coords.unsqueeze(1) + OFFSETS, side)
    color = feats[:, 53:].unflatten(1, (8, 6)) if feats.shape[1] > 53 else feats[:, :0].unflatten(1, (8, 0))
    given = [feats[:, :8].unsqueeze(2) - 1 / resolution, feats[:, 8:32].unflatten(1, (8, 3)), color]
    values = torch.cat(given, 2).flatten(0, 1)
    total = torch.zeros(side**3, values.shape[1], dtype=feats.dtype).index_add(0, key.flatten(), values)
    count = torch.zeros(side**3, dtype=feats.dtype).index_add(0, key.flatten(), torch.ones(key.numel()).to(feats))
    grid = total / count.clamp_min(1).unsqueeze(1)
    grid[:, 0] = torch.where(count > 0, grid[:, 0], 1.0)
    position = lattice(side) / resolution - 0.5 + (1 - 1e-8) / (2 * resolution) * torch.tanh(grid[:, 1:4])
    weights = torch.zeros(resolution**3, 21, dtype=feats.dtype)
    weights[raster(coords, resolution)] = feats[:, 32:53]
    return flexicubes(
        position,
        grid[:, 0],
        raster(lattice(resolution).unsqueeze(1) + OFFSETS, side),
        resolution,
        beta=weights[:, :12],
        alpha=weights[:, 12:20],
        gamma=weights[:, 20],
        attributes=torch.sigmoid(grid[:, 4:]) if feats.shape[1] > 53 else None,
        training=training,
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    resolution=st.integers(1, 9),
    share=st.floats(0.01, 1.0),
    use_color=st.booleans(),
    training=st.booleans(),
)
def test_equals_the_dense_grid(seed, resolution, share, use_color, training):
    feats, coords = random_features(seed, resolution, 101 if use_color else 53, share)
    before = feats.clone()
    ours = features_to_mesh(feats, coords, resolution, use_color=use_color, training=training)
    assert torch.equal(feats, before), "the input must stay as it is"
    dense = dense_mesh(feats, coords, resolution, training)
    assert torch.equal(ours.faces, dense.faces)
    torch.testing.assert_close(ours.vertices, dense.vertices, atol=2e-6, rtol=0)
    assert (ours.attributes is not None) == use_color
    if use_color:
        torch.testing.assert_close(ours.attributes, dense.attributes, atol=2e-6, rtol=0)
    assert (ours.training is not None) == training


@pytest.mark.parametrize("training", [False, True])
def test_sphere(training):
    feats, coords = sphere_features(32)
    mesh = features_to_mesh(feats, coords, 32, use_color=True, training=training)
    edges = torch.cat([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    keys = edges[:, 0] * len(mesh.vertices) + edges[:, 1]
    assert len(keys.unique()) == len(keys)
    # Only corners within the shell are known: those further inside count as outside, and make a second, inner sheet.
    outer = mesh.vertices.norm(dim=1) > RADIUS - 0.5 / 32
    assert (mesh.vertices[outer].norm(dim=1) - RADIUS).abs().max() < 0.1 / 32
    whole = outer[mesh.faces].all(1)
    p = mesh.vertices[mesh.faces[whole]].double()
    volume = (p[:, 0] * torch.linalg.cross(p[:, 1], p[:, 2])).sum() / 6
    assert float(volume) == pytest.approx(4 / 3 * torch.pi * RADIUS**3, rel=0.02)
    torch.testing.assert_close(mesh.face_normals.norm(dim=1), torch.ones(len(mesh.faces)))
    assert (mesh.face_normals[whole] * p.mean(1)).sum(1).min() > 0
    torch.testing.assert_close(mesh.attributes, torch.full_like(mesh.attributes, 0.5))


def test_order_of_voxels_does_not_matter():
    feats, coords = sphere_features(16, noise=0.5)
    order = torch.randperm(len(coords), generator=torch.Generator().manual_seed(1))
    one = features_to_mesh(feats, coords, 16, use_color=True, training=True)
    other = features_to_mesh(feats[order], coords[order], 16, use_color=True, training=True)
    assert torch.equal(one.faces, other.faces)
    assert torch.equal(one.vertices, other.vertices)
    torch.testing.assert_close(one.training.regularisation, other.training.regularisation)


def test_training_terms():
    feats, coords = sphere_features(16, noise=0.7)
    terms = features_to_mesh(feats, coords, 16, use_color=True, training=True).training
    key = raster(coords.unsqueeze(1) + OFFSETS, 17)
    known, inverse = key.unique(return_inverse=True)
    assert terms.corner_positions.shape == (len(known), 3)
    rest = torch.stack([known // 289, known // 17 % 17, known % 17], 1) / 16 - 0.5
    assert (terms.corner_positions - rest).abs().max() <= 0.5 / 16
    values = torch.cat(
        [feats[:, :8, None] - 1 / 16, feats[:, 8:32].unflatten(1, (8, 3)), feats[:, 53:].unflatten(1, (8, 6))], 2
    )
    flat = inverse.flatten()
    count = torch.bincount(flat).unsqueeze(1)
    mean = torch.zeros(len(known), 10).index_add(0, flat, values.flatten(0, 1)) / count
    torch.testing.assert_close(terms.corner_sdf, mean[:, 0], atol=1e-6, rtol=0)
    deviation = dense_mesh(feats, coords, 16, True).deviation.mean()
    apart = (values - mean[inverse]).square().mean()
    expected = apart + 0.5 * deviation + 0.2 * feats[:, 32:52].abs().mean()
    torch.testing.assert_close(terms.regularisation, expected)


def test_gradients_reach_every_kind_of_feature():
    feats, coords = sphere_features(12, noise=0.5)
    feats.requires_grad_()
    mesh = features_to_mesh(feats, coords, 12, use_color=True, training=True)
    loss = mesh.vertices.square().sum() + mesh.face_normals[:, 0].sum() + mesh.attributes.square().sum()
    loss.backward()
    assert torch.isfinite(feats.grad).all()
    for part in (slice(0, 8), slice(8, 32), slice(32, 44), slice(44, 52), slice(52, 53), slice(53, 101)):
        assert (feats.grad[:, part] != 0).any()
    feats.grad = None
    features_to_mesh(feats, coords, 12, use_color=True, training=True).training.regularisation.backward()
    assert torch.isfinite(feats.grad).all()


def test_descent_on_features():
    feats, coords = sphere_features(12, channels=53)
    feats.requires_grad_()
    optimiser = torch.optim.Adam([feats], lr=2e-3)

    def off() -> Tensor:
        vertices = features_to_mesh(feats, coords, 12, use_color=False, training=True).vertices
        return (vertices[vertices.norm(dim=1) > RADIUS - 0.04].norm(dim=1) - (RADIUS + 0.02)).square().mean()

    start = float(off().detach())
    for _ in range(30):
        optimiser.zero_grad()
        off().backward()
        optimiser.step()
    assert float(off().detach()) < 0.1 * start


class LargestTensor(TorchDispatchMode):
    """Numbers of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("training", [False, True])
def test_memory_grows_with_the_voxels_not_with_the_grid(training):
    feats, coords = sphere_features(16, noise=0.3)
    with LargestTensor() as largest:
        features_to_mesh(feats, coords + 100, 256, use_color=True, training=training)
    assert largest.numel <= feats.numel()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    feats, coords = sphere_features(16, noise=0.3)
    half = feats.to(dtype)
    mesh = features_to_mesh(half, coords, 16, use_color=True, training=True)
    single = features_to_mesh(half.float(), coords, 16, use_color=True, training=True)
    assert mesh.vertices.dtype == torch.float32
    assert torch.equal(mesh.faces, single.faces)
    assert torch.equal(mesh.vertices, single.vertices)


@pytest.mark.parametrize("count", [0, 5])
@pytest.mark.parametrize("training", [False, True])
def test_no_surface_is_an_empty_mesh(count, training):
    feats = torch.ones(count, 101)
    coords = torch.arange(count).unsqueeze(1).expand(-1, 3)
    mesh = features_to_mesh(feats, coords, 8, use_color=True, training=training)
    assert mesh.vertices.shape == mesh.faces.shape == mesh.face_normals.shape == (0, 3)
    assert mesh.attributes.shape == (0, 6)
    if training:
        assert torch.isfinite(mesh.training.regularisation)


def test_batch_column_and_unused_colors():
    feats, coords = sphere_features(8)
    plain = features_to_mesh(feats[:, :53], coords, 8, use_color=False)
    batched = features_to_mesh(feats, torch.nn.functional.pad(coords, (1, 0), value=3).int(), 8, use_color=False)
    assert torch.equal(plain.vertices, batched.vertices)
    assert batched.attributes is None


def test_bad_input():
    feats, coords = sphere_features(8)
    batch = torch.nn.functional.pad(coords, (1, 0))
    batch[-1, 0] = 1
    broken = feats.clone()
    broken[3, 60] = float("nan")
    cases = [
        (feats[:, :60], coords, "want"),
        (feats[:, :53], coords, "want"),
        (feats[:-1], coords, "coordinates"),
        (feats, coords[:, :2], "coordinates"),
        (feats, coords + 4, "outside the grid"),
        (feats, coords - 4, "outside the grid"),
        (feats, batch, "several samples"),
        (broken, coords, "not finite"),
        (torch.cat([feats, feats[:1]]), torch.cat([coords, coords[:1]]), "twice"),
    ]
    for values, places, message in cases:
        with pytest.raises(InputError, match=message):
            features_to_mesh(values, places, 8, use_color=True)
