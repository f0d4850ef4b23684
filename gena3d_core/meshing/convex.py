"""Convex parts of a closed mesh, as collision checkers want them: recursive cuts that shrink the hulls."""

from __future__ import annotations

from dataclasses import dataclass

import manifold3d
import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..types import Float64Array, Mesh

CUT_POSITIONS = (0.25, 0.5, 0.75)
"""Where along each principal axis cuts are tried, as shares of the part's extent."""


@dataclass(frozen=True, eq=False)
class _Part:
    solid: manifold3d.Manifold
    hull: manifold3d.Manifold

    @property
    def excess(self) -> float:
        """Volume of the hull beyond the part itself."""
        return max(self.hull.volume() - self.solid.volume(), 0.0)


def convex_hull(mesh: Mesh) -> Mesh:
    """Closed convex hull of the vertices; raises `InputError` if they span no volume."""
    hull = manifold3d.Manifold.hull_points(mesh.vertices)
    if hull.is_empty() or not hull.volume() > 0:
        raise InputError(f"the mesh's {len(mesh.vertices)} vertices span no volume: it has no convex hull")
    return _to_mesh(hull)


def convex_parts(mesh: Mesh, max_parts: int = 8, max_excess: float = 0.05) -> list[Mesh]:
    """Hulls that together cover a closed mesh, at most `max_parts`, largest first.

    Cuts the part whose hull exceeds it most, where that lowers the hulls' volume most, until the hulls exceed the mesh
    by no more than `max_excess` of its volume or no cut helps. Raises `InputError` for a mesh that is not closed.
    """
    if max_parts < 1:
        raise InputError(f"max_parts must be at least 1, got {max_parts}")
    solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices, mesh.faces.astype(np.uint32)))
    if solid.status() != manifold3d.Error.NoError or not solid.volume() > 0:
        raise InputError("convex parts need a closed mesh that winds outwards; make it watertight first")
    total = solid.volume()
    parts = [_Part(piece, piece.hull()) for piece in solid.decompose()]
    while len(parts) < max_parts and sum(part.excess for part in parts) > max_excess * total:
        worst = max(parts, key=lambda part: part.excess)
        cut = _best_cut(worst)
        if cut is None:
            break
        parts.remove(worst)
        parts.extend(cut)
    parts.sort(key=lambda part: part.hull.volume(), reverse=True)
    return [_to_mesh(part.hull) for part in parts[:max_parts]]


def _best_cut(part: _Part) -> list[_Part] | None:
    """Both halves of the cut that leaves the least hull volume; None if none saves a hundredth of the hull."""
    points = np.asarray(part.solid.to_mesh().vert_properties)[:, :3].astype(np.float64)
    best, least = None, 0.99 * part.hull.volume()
    for axis in _principal_axes(points):
        along = points @ axis
        for share in CUT_POSITIONS:
            offset = along.min() + share * np.ptp(along)
            halves = [half for half in part.solid.split_by_plane(axis.tolist(), float(offset)) if not half.is_empty()]
            candidate = [_Part(half, half.hull()) for half in halves]
            volume = sum(half.hull.volume() for half in candidate)
            if len(candidate) == 2 and volume < least:
                best, least = candidate, volume
    return best


def _principal_axes(points: np.ndarray) -> Float64Array:
    """(6, 3) the cloud's principal axes and the coordinate axes."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    return np.concatenate([axes, np.eye(3)])


def _to_mesh(solid: manifold3d.Manifold) -> Mesh:
    out = solid.to_mesh()
    return mesh_ops.make_mesh(np.asarray(out.vert_properties)[:, :3], np.asarray(out.tri_verts))
