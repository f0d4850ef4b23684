"""Closed solids from meshes as they come: welded where that is enough, wrapped on a voxel grid where it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..geometry.solid_voxelization import is_solid
from ..geometry.triangles import distance_to_triangles
from ..types import Mesh
from .cleaning import boundary_loops, fill_holes
from .simplification import simplify, with_nearest_attributes
from .surface import surface_from_occupancy

LONGEST_SIDE = 0.98
"""Longest side of the bounding box of a normalised mesh."""
WELDS = (0.0, 1e-6, 1e-4)
"""Vertices closer than this share of the longest side are made one, tried in turn."""
WRAP_RESOLUTION = 128
"""Voxels along the longest side of a mesh that is wrapped."""
SHELL_VOXELS = 0.6
"""The wrap lies this far outside the surface: more than half a voxel, so that a sheet at any angle is without gaps."""
LEAK_VOXELS, REGROWTH = 1.5, 3
"""Gaps up to twice this wide let nothing in; outside then takes back what lies within so many steps, as far as free."""
SAMPLES_PER_VOXEL_FACE = 4.0
SMALL_HOLE, BASE_SHARE = 0.5, 0.06
"""Holes of at most this perimeter, or that lie wholly within this height over the lowest point, in longest sides."""
MIN_VOLUME = 1e-5
"""A mesh that encloses less than this share of its bounding cube is a sheet with two sides, not a solid."""


def close_mesh(mesh: Mesh, max_faces: int = 10_000, resolution: int = WRAP_RESOLUTION) -> Mesh:
    """A mesh that bounds a volume (`is_solid`), faces outwards, at most about `max_faces` faces; colours stay.

    Welding and turning faces is tried first, then filling small holes and such in the base (lowest z), which keep the
    shape. Otherwise the surface is wrapped: solid is what no path from outside reaches through gaps of more than 3
    voxels, with `resolution` voxels along the longest side, so that sheets become up to 1.2 voxels thick and everything
    else grows by up to 0.6. Overlapping parts are united where they are manifold. Raises `InputError` for a mesh
    without faces, extent or finite vertices.
    """
    extent = _longest_side(mesh)
    if len(mesh.faces) > max_faces:
        mesh = simplify(mesh, max_faces)
    for tolerance in WELDS:
        welded = _wound(_weld(mesh, tolerance * extent))
        if is_solid(welded) and abs(mesh_ops.volume(welded)) > MIN_VOLUME * extent**3:
            return unite(welded)
    capped = _capped(welded, extent)
    if is_solid(capped) and abs(mesh_ops.volume(capped)) > MIN_VOLUME * extent**3:
        return unite(capped)
    wrapped = wrap(capped if len(capped.faces) else mesh, resolution)
    simple = simplify(wrapped, max_faces)
    return simple if is_solid(simple) else wrapped


def normalise(mesh: Mesh, longest: float = LONGEST_SIDE) -> Mesh:
    """The mesh with its bounding box centred at the origin and `longest` as its longest side."""
    extent = _longest_side(mesh)
    low, high = mesh_ops.bounds(mesh)
    vertices = (mesh.vertices.astype(np.float64) - (low + high) / 2.0) * (longest / extent)
    return replace(mesh, vertices=vertices.astype(np.float32))


def unite(mesh: Mesh) -> Mesh:
    """A solid mesh with its overlapping parts merged into one outer surface; as it is where they are not manifold."""
    if mesh_ops.face_components(mesh)[0] < 2:
        return mesh
    import manifold3d

    colors = mesh.vertex_colors
    properties = mesh.vertices if colors is None else np.concatenate([mesh.vertices, colors], axis=1)
    solid = manifold3d.Manifold(
        manifold3d.Mesh(np.ascontiguousarray(properties, np.float32), np.ascontiguousarray(mesh.faces, np.uint32))
    )
    if solid.status() != manifold3d.Error.NoError:
        return mesh
    parts = solid.decompose()
    if len(parts) < 2 or any(part.volume() < 0 for part in parts):
        return mesh  # shells that face inwards are cavities
    result = manifold3d.Manifold.batch_boolean(parts, manifold3d.OpType.Add).to_mesh()
    values = np.array(result.vert_properties)
    united = mesh_ops.make_mesh(
        values[:, :3],
        np.array(result.tri_verts),
        vertex_colors=None if colors is None else np.clip(np.round(values[:, 3:6]), 0, 255).astype(np.uint8),
    )
    # vertices whose colours differ along a cut come apart
    united = _weld(united, 0.0)
    return united if is_solid(united) else mesh


def wrap(mesh: Mesh, resolution: int = WRAP_RESOLUTION) -> Mesh:
    """The watertight outer surface at up to 0.6 voxels from any mesh; colours of the nearest vertex."""
    low, high = mesh_ops.bounds(mesh)
    voxel = float((high - low).max()) / resolution
    origin = low - 3.0 * voxel
    shape = tuple(int(n) for n in np.ceil((high - low) / voxel) + 7)
    count = int(np.clip(SAMPLES_PER_VOXEL_FACE * mesh_ops.area(mesh) / voxel**2, 5_000, 1_000_000))
    points, faces = mesh_ops.sample_surface(mesh, count, np.random.default_rng(0))
    local = (points - origin) / voxel
    corners = ((mesh.vertices.astype(np.float64) - origin) / voxel)[mesh.faces]

    near = np.zeros(shape, dtype=bool)
    near[tuple(np.round(local).astype(np.intp).T)] = True
    index = np.argwhere(ndimage.maximum_filter(near, size=5))
    _, nearest = cKDTree(local).query(index, k=3)
    candidates = [distance_to_triangles(index, corners[faces[nearest[:, k]]]) for k in range(nearest.shape[1])]
    distance = np.full(shape, 3.0)
    distance[tuple(index.T)] = np.min(candidates, axis=0)

    regions, _ = ndimage.label(distance > LEAK_VOXELS)
    free = distance > SHELL_VOXELS
    outside = ndimage.binary_dilation(regions == regions[0, 0, 0], iterations=REGROWTH, mask=free)
    solid = np.where(outside | ~free, SHELL_VOXELS - distance, 1.0)
    surface = surface_from_occupancy(solid, voxel, transforms.rigid(t=origin), level=0.0)
    return with_nearest_attributes(surface, mesh)


def _capped(mesh: Mesh, extent: float) -> Mesh:
    """Small holes and those in the base filled: models of solid things mostly lack what nobody sees."""
    edges, loop, simple = boundary_loops(mesh)
    if not simple.any():
        return mesh
    lengths = np.linalg.norm(mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]], axis=1)
    perimeter = np.bincount(loop, weights=lengths, minlength=len(simple))
    top = np.full(len(simple), -np.inf)
    np.maximum.at(top, loop, mesh.vertices[edges[:, 0], 2])
    in_base = top < mesh.vertices[:, 2].min() + BASE_SHARE * extent
    # One limit for all: a hole in the base is left when an opening elsewhere, such as a cup's, is not longer.
    others = perimeter[~in_base & (perimeter > SMALL_HOLE * extent)]
    below = np.nextafter(others.min(), 0.0) if len(others) else np.inf
    wanted = perimeter[in_base & (perimeter <= below)]
    return fill_holes(mesh, max(SMALL_HOLE * extent, float(wanted.max()) if len(wanted) else 0.0))


def _longest_side(mesh: Mesh) -> float:
    if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        raise InputError("a mesh to be closed or normalised needs faces and finite vertices")
    low, high = mesh_ops.bounds(mesh)
    extent = float((high - low).max())
    if not extent > 0:
        raise InputError("a mesh to be closed or normalised needs an extent: all its vertices coincide")
    return extent


def _weld(mesh: Mesh, tolerance: float) -> Mesh:
    """Vertices of one place made one, without flat, repeated and mutually cancelling faces."""
    if tolerance > 0:
        keys = np.floor(mesh.vertices.astype(np.float64) / tolerance + 0.5).astype(np.int64)
    else:
        keys = mesh.vertices + np.float32(0.0)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[mesh.faces].reshape(-1, 3)
    proper = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    # Repeated faces count once, and two sides of one sheet enclose nothing.
    faces = faces[proper]
    _, unique, group = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_inverse=True)
    turned = _odd_order(faces)
    sides = np.bincount(group.reshape(-1), weights=turned, minlength=len(unique))
    counts = np.bincount(group.reshape(-1), minlength=len(unique))
    merged = mesh_ops.select_vertices(replace(mesh, faces=np.zeros((0, 3), np.int32)), first)
    both = (sides > 0) & (sides < counts)
    return _used(replace(merged, faces=faces[unique[~both]].astype(np.int32)))


def _used(mesh: Mesh) -> Mesh:
    return mesh_ops.select_faces(mesh, np.ones(len(mesh.faces), dtype=bool))


def _odd_order(faces: np.ndarray) -> np.ndarray:
    """(F,) bool: whether the corners are an odd permutation of their ascending order."""
    a, b, c = faces.T
    return ((a > b).astype(int) + (b > c) + (a > c)) % 2 == 1


def _wound(mesh: Mesh) -> Mesh:
    """Faces wound alike across edges, and parts turned outwards unless they lie inside another one."""
    if not len(mesh.faces):
        return mesh
    if not is_solid(mesh):
        body = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        trimesh.repair.fix_winding(body)
        mesh = replace(mesh, faces=np.ascontiguousarray(body.faces, dtype=np.int32))
    if mesh_ops.volume(mesh) < 0:
        mesh = replace(mesh, faces=np.ascontiguousarray(mesh.faces[:, ::-1]))
    count, label = mesh_ops.face_components(mesh)
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    share = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    volume = np.bincount(label, weights=share, minlength=count)
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, label, corners.min(axis=1))
    np.maximum.at(high, label, corners.max(axis=1))
    outer = volume > 0
    within = np.all(low[:, None] > low[outer], axis=2) & np.all(high[:, None] < high[outer], axis=2)
    flip = (volume < 0) & ~np.any(within, axis=1)
    return replace(mesh, faces=np.where(flip[label, None], mesh.faces[:, ::-1], mesh.faces).astype(np.int32))


def refined(mesh: Mesh, edge: float) -> Mesh:
    """The solid mesh with edges of about `edge` longest sides at most, still closed; as it is if no manifold."""
    import manifold3d

    body = manifold3d.Manifold(
        manifold3d.Mesh(np.ascontiguousarray(mesh.vertices, np.float32), np.ascontiguousarray(mesh.faces, np.uint32))
    )
    if body.status() != manifold3d.Error.NoError or body.is_empty():
        return mesh
    fine = body.refine_to_length(edge * _longest_side(mesh)).to_mesh()
    made = mesh_ops.make_mesh(np.array(fine.vert_properties)[:, :3], np.array(fine.tri_verts))
    return with_nearest_attributes(made, mesh) if is_solid(made) else mesh
