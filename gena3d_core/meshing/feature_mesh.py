"""Mesh from per-voxel features of a structured-latent mesh decoder.

Each active voxel of an R³ grid predicts, for its own eight corners, a distance, a deformation and a colour, and the
weights of its cube. Corner values are the mean over the voxels that touch the corner. Only cubes that touch active
voxels are ever formed; the result is that of the dense grid in which all other corners lie outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from .flexicubes import FlexiMesh, flexicubes
from .flexicubes_tables import corner_offsets

SDF = slice(0, 8)
DEFORMATION = slice(8, 32)
WEIGHTS = slice(32, 53)
ALPHA_AND_BETA = slice(32, 52)
COLOR = slice(53, 101)
GEOMETRY_CHANNELS = 53
COLOR_CHANNELS = 48
UNTOUCHED_SDF = 1.0
CORNER_ORDER = (7, 3, 5, 1, 6, 2, 4, 0)
"""Corners of the voxels around a grid corner, such that the voxels come in ascending order."""


@dataclass(frozen=True, eq=False)
class TrainingTerms:
    """What training needs besides the mesh.

    regularisation    scalar: mean squared difference of voxels about shared corners (over distance, deformation and
                      colour), + 0.5 · mean deviation, + 0.2 · mean |raw alpha and beta|
    corner_positions  (P, 3) deformed positions of all corners of active voxels, ordered by corner
    corner_sdf        (P,) their distances
    """

    regularisation: Tensor
    corner_positions: Tensor
    corner_sdf: Tensor


@dataclass(frozen=True, eq=False)
class FeatureMesh:
    """Mesh in the grid frame [-0.5, 0.5]³; differentiable in the features.

    vertices      (V, 3)
    faces         (F, 3) int64, counter-clockwise seen from outside
    face_normals  (F, 3) unit
    attributes    (V, 6) colour and normal channels in [0, 1], or None
    training      only in training
    """

    vertices: Tensor
    faces: Tensor
    face_normals: Tensor
    attributes: Tensor | None
    training: TrainingTerms | None


@dataclass(frozen=True, eq=False)
class _Corners:
    """The grid corners that active voxels touch.

    keys        (P,) ascending: (i·(R+1) + j)·(R+1) + k
    of_voxel    (N, 8) row in keys
    voxels      (P, 8) voxel of which this is corner q, -1 where that voxel is not active
    """

    keys: Tensor
    of_voxel: Tensor
    voxels: Tensor


@dataclass(frozen=True, eq=False)
class _Cubes:
    """Cubes that may be passed by the surface: ids (C,) ascending, voxel (C,) feature row or -1, corner_keys (C, 8)."""

    ids: Tensor
    voxel: Tensor
    corner_keys: Tensor


def features_to_mesh(
    feats: Tensor, coords: Tensor, resolution: int, *, use_color: bool, training: bool = False
) -> FeatureMesh:
    """Mesh of one sample; empty (no vertices, no faces) where no distance is negative or no voxel is active.

    feats       (N, 53) or with colours (N, 101): 8 distances, 8×3 deformations, 12 beta, 8 alpha, gamma, 8×6 colours.
                Never changed; half precision is computed in float32
    coords      (N, 3) or (N, 4) integers (batch, i, j, k), each voxel once, 0 <= i, j, k < resolution
    resolution  voxels per axis R

    Raises `InputError` for shapes, coordinates or values that do not fit.
    """
    ijk = _checked(feats, coords, resolution, use_color)
    corners = _corners(ijk, resolution)
    kind = torch.promote_types(feats.dtype, torch.float32)
    # The published decoders were trained with distances that are shifted by one voxel.
    distances = feats[:, SDF].to(kind) - 1.0 / resolution
    parts = [feats[:, DEFORMATION], feats[:, COLOR]] if use_color else [feats[:, DEFORMATION]]
    sdf = _corner_means(distances, corners.voxels, kind)
    cubes = _candidate_cubes(ijk, corners, sdf[:, 0] < 0, resolution)

    needed, cube_corners = torch.unique(cubes.corner_keys, return_inverse=True)
    touched = torch.isin(needed, corners.keys, assume_unique=True)
    rows = torch.searchsorted(corners.keys, needed[touched])
    if training:
        means = torch.cat([_corner_means(part, corners.voxels, kind) for part in parts], 1)
        values = means[rows]
    else:
        values = torch.cat([_corner_means(part, corners.voxels[rows], kind) for part in parts], 1)
    # Corners that no voxel touches: outside, in place, colour logits zero.
    grid_values = values.new_zeros(len(needed), values.shape[1]).index_put((touched,), values)
    grid_sdf = torch.full_like(grid_values[:, 0], UNTOUCHED_SDF).index_put((touched,), sdf[rows, 0])
    weights = _cube_weights(feats, cubes, kind)
    surface = flexicubes(
        _positions(needed, grid_values[:, :3], resolution),
        grid_sdf,
        cube_corners,
        resolution,
        beta=weights[:, :12],
        alpha=weights[:, 12:20],
        gamma=weights[:, 20],
        attributes=torch.sigmoid(grid_values[:, 3:]) if use_color else None,
        training=training,
        cube_ids=cubes.ids,
    )
    terms = None
    if training:
        apart = _inconsistency([distances, *parts], torch.cat([sdf, means], 1), corners.of_voxel)
        raw = feats[:, ALPHA_AND_BETA].to(kind)
        terms = TrainingTerms(
            apart + 0.5 * _mean(surface.deviation) + 0.2 * _mean(raw.abs()),
            _positions(corners.keys, means[:, :3], resolution),
            sdf[:, 0],
        )
    return FeatureMesh(surface.vertices, surface.faces, _face_normals(surface), surface.attributes, terms)


def _checked(feats: Tensor, coords: Tensor, resolution: int, use_color: bool) -> Tensor:
    """(N, 3) int64 indices of the voxels."""
    channels = GEOMETRY_CHANNELS + COLOR_CHANNELS
    allowed = (channels,) if use_color else (GEOMETRY_CHANNELS, channels)
    if feats.dim() != 2 or feats.shape[1] not in allowed:
        raise InputError(
            f"mesh features: shape {tuple(feats.shape)}, want (N, {allowed[0]}) with use_color={use_color}"
        )
    if coords.dim() != 2 or coords.shape[1] not in (3, 4) or len(coords) != len(feats):
        raise InputError(f"mesh features: coordinates {tuple(coords.shape)} for {len(feats)} voxels, want (N, 3 or 4)")
    if coords.shape[1] == 4 and len(coords) and (coords[:, 0] != coords[0, 0]).any():
        raise InputError("mesh features: voxels of several samples; extract the samples one by one")
    ijk = coords[:, -3:].long()
    if ((ijk < 0) | (ijk >= resolution)).any():
        raise InputError(f"mesh features: voxels outside the grid 0..{resolution - 1}")
    if feats.numel() and not torch.isfinite(torch.stack(torch.aminmax(feats.detach()))).all():
        raise InputError("mesh features: values that are not finite")
    return ijk


def _keys(ijk: Tensor, side: int) -> Tensor:
    """Raster index of (..., 3) integer coordinates in a grid of `side`."""
    return (ijk[..., 0] * side + ijk[..., 1]) * side + ijk[..., 2]


def _coordinates(keys: Tensor, side: int) -> Tensor:
    """(..., 3) coordinates of raster indices."""
    return torch.stack([keys // side**2, keys // side % side, keys % side], -1)


def _corners(ijk: Tensor, resolution: int) -> _Corners:
    offsets = corner_offsets(ijk.device)
    keys, of_voxel = torch.unique(_keys(ijk.unsqueeze(1) + offsets, resolution + 1), return_inverse=True)
    count = torch.arange(len(ijk), device=ijk.device)
    voxels = torch.full((len(keys), 8), -1, device=ijk.device)
    voxels[of_voxel, torch.arange(8, device=ijk.device)] = count.unsqueeze(1).expand(-1, 8)
    if len(ijk) * 8 != int((voxels >= 0).sum()):
        raise InputError("mesh features: a voxel is given twice")
    return _Corners(keys, of_voxel, voxels)


def _corner_means(values: Tensor, voxels: Tensor, kind: torch.dtype) -> Tensor:
    """(P, c) means of `values` (N, 8·c), corner by corner, over the voxels (P, 8) that touch each grid corner."""
    per_corner = values.unflatten(1, (8, -1))
    total = values.new_zeros(len(voxels), per_corner.shape[2], dtype=kind)
    if not len(values):
        return total
    # Gathering, not scattering: the sum has one order on every device.
    for q in CORNER_ORDER:
        there = (voxels[:, q] >= 0).unsqueeze(1)
        total = total + per_corner[:, q][voxels[:, q].clamp_min(0)].to(kind) * there
    return total / (voxels >= 0).sum(1, keepdim=True)


def _candidate_cubes(ijk: Tensor, corners: _Corners, inside: Tensor, resolution: int) -> _Cubes:
    """Active voxels with corners on both sides, and voxels that are not active next to an inside corner."""
    signs = inside[corners.of_voxel]
    mixed = (signs.any(1) & ~signs.all(1)).nonzero().squeeze(1)
    offsets = corner_offsets(ijk.device)
    corner, q = ((corners.voxels < 0) & inside.unsqueeze(1)).nonzero(as_tuple=True)
    beside = _coordinates(corners.keys[corner], resolution + 1) - offsets[q]
    within = ((beside >= 0) & (beside < resolution)).all(1)
    beside_ids = torch.unique(_keys(beside[within], resolution))
    ids, order = torch.sort(torch.cat([_keys(ijk[mixed], resolution), beside_ids]))
    voxel = torch.cat([mixed, torch.full_like(beside_ids, -1)])[order]
    return _Cubes(ids, voxel, _keys(_coordinates(ids, resolution).unsqueeze(1) + offsets, resolution + 1))


def _cube_weights(feats: Tensor, cubes: _Cubes, kind: torch.dtype) -> Tensor:
    """(C, 21) raw beta, alpha and gamma; zero for cubes that are no voxel."""
    active = cubes.voxel >= 0
    given = feats[:, WEIGHTS][cubes.voxel[active]].to(kind)
    return given.new_zeros(len(active), given.shape[1]).index_put((active,), given)


def _positions(keys: Tensor, deformation: Tensor, resolution: int) -> Tensor:
    """(P, 3) positions in [-0.5, 0.5]³ of grid corners, which a deformation moves by less than half a voxel."""
    rest = _coordinates(keys, resolution + 1).to(deformation.dtype) / resolution - 0.5
    return rest + (1 - 1e-8) / (2 * resolution) * torch.tanh(deformation)


def _inconsistency(parts: list[Tensor], means: Tensor, of_voxel: Tensor) -> Tensor:
    """Mean squared difference between what voxels say of their corners and the corners' means (P, sum of channels)."""
    total = means.new_zeros(())
    column = 0
    for part in parts:
        per_corner = part.unflatten(1, (8, -1)).to(means.dtype)
        width = per_corner.shape[2]
        total = total + (per_corner - means[:, column : column + width][of_voxel]).square().sum()
        column += width
    return total / max(1, of_voxel.numel() * means.shape[1])


def _mean(values: Tensor) -> Tensor:
    """Mean; zero of nothing."""
    return values.sum() / max(1, values.numel())


def _face_normals(surface: FlexiMesh) -> Tensor:
    a, b, c = surface.vertices[surface.faces].unbind(1)
    return F.normalize(torch.linalg.cross(b - a, c - a), dim=1)
