"""Penetration between objects: measured with surface samples, resolved by the least horizontal translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..geometry import mesh as mesh_ops
from ..types import Float32Array, Float64Array, Mesh

SAMPLES = 3_000
CHUNK_PAIRS = 2_000_000
INSIDE_WINDING = 0.6
"""Winding number from which a point is inside: right behind an open sheet it is 0.5, in a closed surface 1."""


MIN_HORIZONTAL = 0.5
"""Contacts whose normal has a smaller horizontal share are of one object resting on another."""


@dataclass(frozen=True, eq=False)
class SurfaceSamples:
    """Points (N, 3) of one object's surface in the world with outward unit normals (N, 3) and a search tree."""

    points_m: Float64Array
    normals: Float64Array
    tree: cKDTree
    spacing_m: float


@dataclass(frozen=True)
class Contact:
    """Objects number `first` and `second` penetrate by `depth_m`; `share` of the deeper one's samples lie inside."""

    first: int
    second: int
    depth_m: float
    share: float


def sample_object(mesh: Mesh, count: int = SAMPLES, seed: int = 0) -> SurfaceSamples:
    """Surface samples of a mesh in the world."""
    points, faces = mesh_ops.sample_surface(mesh, count, np.random.default_rng(seed))
    normals = mesh_ops.face_normals(mesh)[faces]
    points64 = points.astype(np.float64)
    return SurfaceSamples(points64, normals, cKDTree(points64), float(np.sqrt(mesh_ops.area(mesh) / count)))


def signed_depth_m(points_m: np.ndarray, target: SurfaceSamples) -> Float32Array:
    """(N,) depth of points below the target's surface: positive inside, negative outside, -inf where undecided.

    A point is inside if it lies behind the nearest samples along their normals and the surface winds around it; the
    latter keeps what stands behind an open, one-sided surface out of it.
    """
    distance, index = target.tree.query(points_m, k=4)
    offset = points_m[:, None] - target.points_m[index]
    along = np.einsum("nki,nki->nk", offset, target.normals[index])
    depth = -np.median(along, axis=1)
    tangential = np.sqrt(np.maximum(distance[:, 0] ** 2 - along[:, 0] ** 2, 0.0))
    depth[tangential > np.abs(along[:, 0]) + 2.0 * target.spacing_m] = -np.inf
    behind = np.flatnonzero(depth > 0)
    depth[behind[winding_number(points_m[behind], target) < INSIDE_WINDING]] = -np.inf
    return depth.astype(np.float32)


def winding_number(points_m: np.ndarray, target: SurfaceSamples) -> Float64Array:
    """(N,) generalised winding number of the target around points: 1 inside a closed surface, 0 outside.

    The samples act as dipoles, softened at their spacing. Computed in chunks that bound the memory.
    """
    if not len(points_m):
        return np.zeros(0)
    chunks = np.array_split(points_m, max(1, len(points_m) * len(target.points_m) // CHUNK_PAIRS + 1))
    softening = (0.5 * target.spacing_m) ** 2

    def flux(points: np.ndarray) -> np.ndarray:
        # |p - x|^2 and (p - x) . n by matrix products: no (N, M, 3) array is formed.
        along = (target.points_m * target.normals).sum(axis=1) - points @ target.normals.T
        squared = (target.points_m**2).sum(axis=1) + (points**2).sum(axis=1)[:, None] - 2.0 * points @ target.points_m.T
        return (along / (np.maximum(squared, 0.0) + softening) ** 1.5).sum(axis=1)

    return np.concatenate([flux(chunk) for chunk in chunks]) * target.spacing_m**2 / (4.0 * np.pi)


def overlap(first: SurfaceSamples, second: SurfaceSamples) -> tuple[float, float]:
    """Penetration depth in metres (0 if none) and the share of samples inside, the larger of both directions."""
    depths, shares = [0.0], [0.0]
    for source, target in ((first, second), (second, first)):
        near = _within_bounds(source.points_m, target)
        if not near.any():
            continue
        depth = signed_depth_m(source.points_m[near], target)
        inside = depth > 0.0
        # A high quantile of the inside samples: single noisy samples do not count as contact.
        if inside.sum() >= max(3, 0.001 * len(source.points_m)):
            depths.append(float(np.quantile(depth[inside], 0.95)))
            shares.append(float(inside.sum() / len(source.points_m)))
    return max(depths), max(shares)


def _within_bounds(points_m: np.ndarray, target: SurfaceSamples) -> np.ndarray:
    low, high = target.points_m.min(axis=0), target.points_m.max(axis=0)
    return ((points_m >= low) & (points_m <= high)).all(axis=1)


def find_contacts(samples: Sequence[SurfaceSamples], tolerance_m: float) -> list[Contact]:
    """Pairs of objects that penetrate deeper than `tolerance_m`; only pairs with overlapping boxes are looked at."""
    if len(samples) < 2:
        return []
    low = np.stack([s.points_m.min(axis=0) for s in samples])
    high = np.stack([s.points_m.max(axis=0) for s in samples])
    touching = ((low[:, None] < high[None]) & (high[:, None] > low[None])).all(axis=-1)
    contacts = []
    for first, second in np.argwhere(np.triu(touching, k=1)):
        depth, share = overlap(samples[first], samples[second])
        if depth > tolerance_m:
            contacts.append(Contact(int(first), int(second), depth, share))
    return contacts


def shifted(samples: SurfaceSamples, shift_m: np.ndarray) -> SurfaceSamples:
    """The samples moved by a world translation (3,)."""
    points = samples.points_m + shift_m
    return SurfaceSamples(points, samples.normals, cKDTree(points), samples.spacing_m)


def separating_direction(first: SurfaceSamples, second: SurfaceSamples, up: np.ndarray) -> Float64Array:
    """Horizontal unit vector (3,) along which `second` leaves `first`: the mean normal where it penetrates.

    Zero where that normal is mostly vertical: what stands on or in another object is not pushed off it.
    """
    direction = np.zeros(3)
    for source, target, sign in ((second, first, 1.0), (first, second, -1.0)):
        near = source.points_m[_within_bounds(source.points_m, target)]
        depth = signed_depth_m(near, target) if len(near) else np.zeros(0, np.float32)
        _, index = target.tree.query(near[depth > 0])
        direction += sign * (target.normals[index] * depth[depth > 0, None]).sum(axis=0)
    horizontal = direction - up * (direction @ up)
    norm = np.linalg.norm(horizontal)
    return horizontal / norm if norm > max(MIN_HORIZONTAL * np.linalg.norm(direction), 1e-12) else np.zeros(3)


def resolve(
    samples: Sequence[SurfaceSamples],
    up: np.ndarray,
    max_shift_m: Sequence[float],
    tolerance_m: float = 0.001,
    rounds: int = 8,
) -> tuple[Float64Array, Float64Array]:
    """Horizontal shifts (N, 3) that part penetrating objects, and the penetration (N,) in metres that remains.

    `max_shift_m` bounds each object's total shift. Both objects of a pair move, in proportion to what they may.
    """
    limits = np.asarray(max_shift_m, dtype=np.float64)
    shifts = np.zeros((len(samples), 3))
    current = list(samples)
    contacts = find_contacts(current, tolerance_m)
    for _ in range(rounds if (limits > 0).any() else 0):
        if not contacts:
            break
        before = shifts.copy()
        for contact in contacts:
            pair = (contact.first, contact.second)
            total = limits[list(pair)].sum()
            if total <= 0:
                continue
            direction = separating_direction(current[contact.first], current[contact.second], up)
            for number, sign in zip(pair, (-1.0, 1.0), strict=True):
                wanted = shifts[number] + sign * direction * contact.depth_m * limits[number] / total
                length = np.linalg.norm(wanted)
                shifts[number] = wanted * min(1.0, limits[number] / length) if length > 0 else wanted
                current[number] = shifted(samples[number], shifts[number])
        if np.abs(shifts - before).max() < 1e-5:
            break
        contacts = find_contacts(current, tolerance_m)
    remaining = np.zeros(len(samples))
    for contact in contacts:
        for number in (contact.first, contact.second):
            remaining[number] = max(remaining[number], contact.depth_m)
    return shifts, remaining
