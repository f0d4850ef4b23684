"""Observation consistency: what cameras proved empty is empty in the result, what they saw is filled (DESIGN, §4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ..geometry import transforms, voxels
from ..types import BoolArray, Float32Array, Float64Array, ObjectObservation, VoxelGrid
from .measured_distance import MeasuredDistance, measured_distance

LIMIT = 3.5
"""Logits are cut to ± this (probability 0.97). Between values cut so the linear interpolation of marching cubes gives
back a flat face from shares of filled voxels within 0.05 voxels; without a cut confident voxels push faces away."""
FILLED = 1.0
"""Least logit of a voxel that is filled: the surface then lies 0.2 voxels outside its centre, or farther."""
OUTSIDE = 0.5 * LIMIT
"""An empty voxel where a surface was measured is at least so negative: it then stays mostly empty in the mesh, too."""
DECIDED = 0.5
"""Trust in a measured distance from which on the surface is where it was measured, and no voxel is corrected."""
BESIDE_CLEARED = 0.25 * LIMIT
"""Largest logit beside a voxel that is cleared: the surface leaves four fifths of the way to its centre free, so that
even a voxel between filled ones stays mostly empty in the mesh."""
NARROW_FACES = 4
"""An empty voxel with so many filled neighbours is treated alike: surfaces halfway to them would fill half of it."""
DEPTH_NOISE_M = 0.005
"""What depth cameras at table distance err by, beside poses: a surface this near to the measured one agrees with it."""
COARSE_MARGIN = 2.0
"""Voxels are coarse against the noise of depth where the margin is less than so many of them."""
FRAGMENT_SHARE = 0.02
"""Pieces with less than this share of the voxels of the largest are fragments, left over from carving."""
FRAGMENT_OBSERVED = 0.005
"""Share of the observed voxels that may go with fragments: strays of depth or masks that passed the filter."""
TOUCHING = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the views prove about the voxels of an object's grid; (R, R, R) bool each.

    free     cameras looked through them; None if nobody carved
    beneath  wholly under the support plane
    surface  hold points of the object. Never free or beneath as well: a free voxel already lies farther in front of a
             measured depth than its noise, so where a voxel is both, one measurement is wrong, and to keep what may be
             there is safer
    margin   voxels by which a measured surface may be off, at least one
    measured the surface between the voxels' centres; None without depth
    """

    free: BoolArray | None
    beneath: BoolArray
    surface: BoolArray
    margin: float
    measured: MeasuredDistance | None = None

    @property
    def empty(self) -> BoolArray:
        """Voxels where the object cannot be."""
        return self.beneath if self.free is None else self.beneath | self.free


@dataclass(frozen=True)
class Disagreement:
    """How an occupancy disagrees with the evidence.

    free_space_violation  share of the occupied voxels that cameras proved empty; None if nobody carved
    observed_coverage     share of the observed voxels with an occupied one within the margin; None if there are none
    """

    free_space_violation: float | None
    observed_coverage: float | None

    def residuals(self, when: str) -> dict[str, float]:
        """The known figures by name, which ends in `when`."""
        named = {
            "free_space_violation": self.free_space_violation,
            "observed_coverage": self.observed_coverage,
        }
        return {f"{name}_{when}": value for name, value in named.items() if value is not None}


def gather_evidence(observation: ObjectObservation, S_world_grid: np.ndarray, cloud: BoolArray) -> Evidence:
    """Evidence in the grid that `S_world_grid` (4, 4) places in the world; cloud (R, R, R) bool: observed voxels."""
    centers_m = grid_centers_m(S_world_grid, len(cloud))
    free = None
    if observation.free_space is not None:
        free = _free_voxels(observation.free_space, S_world_grid, centers_m) & ~cloud
    beneath = np.zeros_like(cloud)
    voxel_m = float(np.linalg.norm(S_world_grid[:3, 0])) / len(cloud)
    if observation.support is not None:
        beneath = (observation.support.height_m(centers_m) < -voxel_m / 2.0) & ~cloud
    measured = measured_distance(observation, centers_m, cloud)
    return Evidence(free, beneath, cloud, max(1.0, DEPTH_NOISE_M / voxel_m), measured)


def make_consistent(logits: np.ndarray, evidence: Evidence) -> Float32Array:
    """Occupancy logits (R, R, R) that agree with the evidence, in ± `LIMIT`, without the fragments that carving leaves.

    Where cameras measured it, the surface is theirs: logits are the measured distances. Every other empty voxel is as
    negative as can be, so that the surface between it and a filled one hardly enters it. Observed voxels that nothing
    occupied comes near are filled, and what is unknown beside them, so that they have a thickness; within the margin
    the samples, which know the object's shape, are better than single measurements. Only fragments may take observed
    voxels with them (`FRAGMENT_OBSERVED`).
    """
    made = np.clip(np.asarray(logits, dtype=np.float32), -LIMIT, LIMIT)
    decided = np.zeros_like(evidence.surface)
    if evidence.measured is not None:
        distance, trust = evidence.measured.distance, evidence.measured.trust
        made += trust * (np.clip(-LIMIT * distance, -LIMIT, LIMIT) - made)
        decided = trust > DECIDED
    decided &= ~evidence.beneath
    empty = evidence.empty | _burying(made > 0, evidence)
    cleared = empty & (made > 0) & ~decided
    made[empty] = np.where(decided[empty], np.minimum(made[empty], -OUTSIDE), -LIMIT)
    narrow = empty & (_filled_faces(made > 0) >= NARROW_FACES)
    kept_out = (cleared & evidence.empty) | narrow
    if kept_out.any():
        beside = ndimage.binary_dilation(kept_out, structure=TOUCHING)
        made[beside] = np.minimum(made[beside], BESIDE_CLEARED)
    missed = np.zeros_like(evidence.surface)
    missed[evidence.surface] = _nearest_occupied(made > 0, evidence.surface)[0] > evidence.margin
    if missed.any():
        filled = ndimage.binary_dilation(missed) & ~empty
        made[filled] = np.maximum(made[filled], FILLED)
    made[_fragments(made > 0, evidence)] = -LIMIT
    return made


def disagreement(occupied: BoolArray, evidence: Evidence) -> Disagreement:
    """Figures of an occupancy (R, R, R) bool before or after it was made consistent."""
    violation, coverage = None, None
    if evidence.free is not None:
        violation = float((occupied & evidence.free).sum() / max(1, occupied.sum()))
    if evidence.surface.any():
        coverage = float((_nearest_occupied(occupied, evidence.surface)[0] <= evidence.margin).mean())
    return Disagreement(violation, coverage)


def grid_centers_m(S_world_grid: np.ndarray, resolution: int) -> Float64Array:
    """(R, R, R, 3) voxel centres of the grid [-0.5, 0.5]³ in the world, metres."""
    centers = voxels.voxel_centers(np.full(3, -0.5), 1.0 / resolution, (resolution,) * 3)
    return transforms.apply(S_world_grid, centers)


def _burying(occupied: BoolArray, evidence: Evidence) -> BoolArray:
    """(R, R, R) bool: occupied voxels right in front of observed ones that they bury.

    Carving stops short of the measured surface, by about a voxel where voxels are coarser than the noise: what samples
    fill there lies before the surface. Front is where free space is nearer.
    """
    if evidence.free is None or evidence.margin >= COARSE_MARGIN or not evidence.free.any():
        return np.zeros_like(occupied)
    filled = occupied & ~evidence.empty
    buried = evidence.surface & (_filled_faces(filled) == 6)
    if not buried.any():
        return buried
    to_free = ndimage.distance_transform_edt(~evidence.free).astype(np.float32)
    behind = ndimage.maximum_filter(np.where(buried, to_free, np.float32(0.0)), size=3)
    return filled & ~evidence.surface & (to_free <= behind - 0.5)


def _filled_faces(occupied: BoolArray) -> np.ndarray:
    """(R, R, R) uint8: how many of each voxel's six neighbours are occupied."""
    p = np.pad(occupied, 1).astype(np.uint8)
    inner = slice(1, -1)
    along_x = p[2:, inner, inner] + p[:-2, inner, inner]
    along_y = p[inner, 2:, inner] + p[inner, :-2, inner]
    return along_x + along_y + p[inner, inner, 2:] + p[inner, inner, :-2]


def _nearest_occupied(occupied: BoolArray, surface: BoolArray) -> tuple[Float64Array, np.ndarray]:
    """Distance (N,) in voxels from each True voxel of `surface`, in array order, to the nearest occupied one, and the
    index (N, 3) of that one; infinity and zeros if nothing is occupied."""
    asked = np.argwhere(surface)
    distance, nearest = np.zeros(len(asked)), asked.copy()
    outside = ~occupied[surface]
    solid = np.argwhere(occupied)
    if not len(solid):
        return np.full(len(asked), np.inf), np.zeros_like(asked)
    if outside.any():
        distance[outside], index = cKDTree(solid, balanced_tree=False).query(asked[outside])
        nearest[outside] = solid[index]
    return distance, nearest


def _free_voxels(carved: VoxelGrid, S_world_grid: np.ndarray, centers_m: np.ndarray) -> BoolArray:
    """(R, R, R) bool: voxels whose centre and surroundings were carved free."""
    if _same_grid(carved, S_world_grid, len(centers_m)):
        return carved.state == VoxelGrid.FREE
    # A voxel of another size or place is free where its eight parts are.
    quarter = 0.25 / len(centers_m)
    free = np.ones(centers_m.shape[:3], dtype=bool)
    for corner in np.argwhere(np.ones((2, 2, 2))) - 0.5:
        offset_m = S_world_grid[:3, :3] @ (2.0 * quarter * corner)
        free &= voxels.sample_grid(carved, centers_m + offset_m) == VoxelGrid.FREE
    return free


def _same_grid(carved: VoxelGrid, S_world_grid: np.ndarray, resolution: int) -> bool:
    side_m = carved.voxel_size_m * resolution
    wanted = transforms.rigid(side_m * np.eye(3), np.asarray(carved.origin_m) + side_m / 2.0)
    return carved.state.shape == (resolution,) * 3 and bool(np.abs(wanted - S_world_grid).max() < 1e-6 * side_m)


def _fragments(occupied: BoolArray, evidence: Evidence) -> BoolArray:
    """(R, R, R) bool: voxels of pieces that are small beside the largest and hold next to nothing that was observed."""
    labels, count = ndimage.label(occupied, structure=TOUCHING)
    if count <= 1:
        return np.zeros_like(occupied)
    size = np.bincount(labels.ravel(), minlength=count + 1)
    size[0] = 0
    # An observed voxel goes with the piece that is nearest to it: if that one stays, it is covered as before.
    _, nearest = _nearest_occupied(occupied, evidence.surface)
    observed = np.bincount(labels[tuple(nearest.T)], minlength=count + 1)
    small = np.flatnonzero((size > 0) & (size < FRAGMENT_SHARE * size.max()))
    # Those with the fewest observed voxels go first, until no more may be lost.
    small = small[np.argsort(observed[small], kind="stable")]
    lost = np.cumsum(observed[small])
    dropped = np.zeros(count + 1, dtype=bool)
    dropped[small[lost <= FRAGMENT_OBSERVED * evidence.surface.sum()]] = True
    return dropped[labels]
