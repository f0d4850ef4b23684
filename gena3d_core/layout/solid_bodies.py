"""Objects as bodies that must not penetrate one another: how far one must move along a direction to be free.

Lines along the direction are cut into the intervals that lie inside each body; a translation is free if no interval of
the one meets an interval of the other on the same line. Exact along the direction, sampled across it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import manifold3d
import numpy as np

from ..errors import InputError
from ..geometry.column_crossings import crossings, inside_intervals, is_closed, outer_intervals, welded
from ..types import Float64Array, Mesh

COLUMNS = 40
"""Lines along each side of the rectangle in which the shadows of two bodies overlap."""
MIN_OVERLAP_M3 = 1e-12
"""A thousandth of a cubic millimetre: less is rounding."""


@dataclass(eq=False)
class Body:
    """One object in the world, movable by `shift` (3,); meshes that are not closed count as filled along lines.

    points (V, 3), faces (F, 3); closed: whether the faces bound a volume; solid: for exact intersections, or None
    """

    points: Float64Array
    faces: np.ndarray
    closed: bool
    solid: manifold3d.Manifold | None
    center: Float64Array
    shift: Float64Array = field(default_factory=lambda: np.zeros(3))
    _projected: dict[bytes, Float64Array] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[Float64Array, Float64Array]:
        """Lowest and highest corner (3,) where the body is now."""
        return self.points.min(axis=0) + self.shift, self.points.max(axis=0) + self.shift

    def lowest_m(self, up: np.ndarray) -> float:
        """Least coordinate along the unit vector `up` where the body is now."""
        return float((self.points @ up).min() + self.shift @ up)

    def projected(self, frame: np.ndarray) -> Float64Array:
        """(V, 3) points, without the shift, in a frame (3, 3) whose rows are its axes."""
        key = frame.tobytes()
        if key not in self._projected:
            self._projected[key] = self.points @ frame.T
        return self._projected[key]


def make_body(mesh: Mesh, number: int) -> Body:
    """A body from a mesh in the world; raises `InputError`, naming `number`, for one without faces."""
    points, faces = welded(mesh)
    if not len(faces):
        raise InputError(f"object {number} has a mesh without faces; it cannot be kept apart from others")
    closed = is_closed(faces)
    points = points[np.unique(faces)] if not closed else points
    if not closed:
        _, faces = np.unique(faces, return_inverse=True)
        faces = faces.reshape(-1, 3)
    center = (points.min(axis=0) + points.max(axis=0)) / 2.0
    return Body(points, faces, closed, _solid(points, faces) if closed else None, center)


def _solid(points: Float64Array, faces: np.ndarray) -> manifold3d.Manifold | None:
    """The mesh as a manifold; None where it is not one (edges that more than two faces share) or is inside out."""
    solid = manifold3d.Manifold(manifold3d.Mesh(points.astype(np.float32), faces.astype(np.uint32)))
    return solid if solid.status() == manifold3d.Error.NoError and solid.volume() > 0 else None


def frame_along(direction: np.ndarray) -> Float64Array:
    """(3, 3) right-handed frame: rows are two axes across the unit vector `direction` and the vector itself."""
    side = np.eye(3)[np.argmin(np.abs(direction))]
    first = np.cross(side, direction)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first), direction])


def boxes_overlap(first: Body, second: Body, margin_m: float = 0.0) -> bool:
    """Whether the world-aligned boxes of two bodies, one of them grown by `margin_m`, overlap."""
    (low_a, high_a), (low_b, high_b) = first.bounds, second.bounds
    return bool((low_a - margin_m < high_b).all() and (low_b < high_a + margin_m).all())


def blocked_intervals(
    moving: Body, fixed: Body, frame: np.ndarray, clearance_m: float, columns: int = COLUMNS
) -> Float64Array:
    """(M, 2) open intervals of the distance along frame[2] at which `moving` would penetrate `fixed`.

    Each is widened by `clearance_m` at both ends.
    """
    nothing = np.zeros((0, 2))
    placed = [body.projected(frame) + frame @ body.shift for body in (moving, fixed)]
    low = np.maximum(placed[0][:, :2].min(axis=0), placed[1][:, :2].min(axis=0))
    high = np.minimum(placed[0][:, :2].max(axis=0), placed[1][:, :2].max(axis=0))
    if (high <= low).any():
        return nothing
    lines = [_intervals(body, points, low, high, columns) for body, points in zip((moving, fixed), placed, strict=True)]
    (own_low, own_high, own_line), (other_low, other_high, other_line) = lines
    # Both are ordered by line: the other's intervals on the line of each own one are neighbours.
    start, end = (np.searchsorted(other_line, own_line, side=side) for side in ("left", "right"))
    count = end - start
    if not count.sum():
        return nothing
    own = np.repeat(np.arange(len(own_line)), count)
    other = np.arange(len(own)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start, count)
    return np.stack(
        [other_low[other] - own_high[own] - clearance_m, other_high[other] - own_low[own] + clearance_m], axis=1
    )


def _intervals(
    body: Body, points: Float64Array, low: np.ndarray, high: np.ndarray, columns: int
) -> tuple[Float64Array, Float64Array, np.ndarray]:
    scaled = np.empty_like(points)
    scaled[:, :2] = (points[:, :2] - low) / (high - low) * columns
    scaled[:, 2] = points[:, 2]
    corners = scaled[body.faces, :2]
    near = ((corners.max(axis=1) >= 0) & (corners.min(axis=1) <= columns)).all(axis=1)
    if not near.any():
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    column, height, step = crossings(scaled, body.faces[near], columns)
    return inside_intervals(column, height, step) if body.closed else outer_intervals(column, height)


def first_free(blocked: np.ndarray) -> float:
    """Least distance >= 0 outside all open intervals (M, 2)."""
    ahead = blocked[blocked[:, 1] > 0.0]
    ahead = ahead[np.argsort(ahead[:, 0], kind="stable")]
    reach = np.maximum.accumulate(np.concatenate([[0.0], ahead[:, 1]]))
    # The first interval that starts beyond all before it leaves a gap.
    gaps = np.flatnonzero(ahead[:, 0] >= reach[:-1])
    return float(reach[gaps[0]] if len(gaps) else reach[-1])


def first_blocked(blocked: np.ndarray) -> float:
    """Distance >= 0 up to which a body that is free now can move; infinite if nothing is in the way."""
    ahead = blocked[blocked[:, 1] > 0.0]
    return float(np.maximum(ahead[:, 0].min(), 0.0)) if len(ahead) else float("inf")


def penetration_m(first: Body, second: Body, frame: np.ndarray, columns: int = COLUMNS) -> float:
    """Longest piece of a line along frame[2] inside both bodies; 0 if they are apart."""
    if not boxes_overlap(first, second):
        return 0.0
    blocked = blocked_intervals(first, second, frame, 0.0, columns)
    across = blocked[(blocked[:, 0] < 0) & (blocked[:, 1] > 0)]
    return float(np.minimum(-across[:, 0], across[:, 1]).max()) if len(across) else 0.0


def intersection_points(first: Body, second: Body) -> Float64Array:
    """Corners (M, 3) of what two closed bodies share, exactly; empty if they are apart or not manifolds."""
    nothing = np.zeros((0, 3))
    if first.solid is None or second.solid is None or not boxes_overlap(first, second):
        return nothing
    shared = first.solid.translate(first.shift.tolist()) ^ second.solid.translate(second.shift.tolist())
    if shared.is_empty() or shared.volume() <= MIN_OVERLAP_M3:
        return nothing
    return np.asarray(shared.to_mesh().vert_properties, dtype=np.float64)[:, :3]


def penetrates(first: Body, second: Body, frame: np.ndarray) -> bool:
    """Whether two bodies share volume, exactly for closed ones, else as lines along frame[2] tell."""
    if not boxes_overlap(first, second):
        return False
    if first.solid is not None and second.solid is not None:
        return len(intersection_points(first, second)) > 0
    return penetration_m(first, second, frame) > 0.0


def overlapping_pairs(bodies: Sequence[Body], frame: np.ndarray) -> list[tuple[int, int]]:
    """Numbers of the pairs of bodies that penetrate."""
    low, high = (np.stack(corner) for corner in zip(*(body.bounds for body in bodies), strict=True))
    close = ((low[:, None] < high[None]) & (high[:, None] > low[None])).all(axis=-1)
    pairs = [(int(a), int(b)) for a, b in np.argwhere(np.triu(close, k=1))]
    return [(a, b) for a, b in pairs if penetrates(bodies[a], bodies[b], frame)]


def lies_under(lower: Body, upper: Body, frame: np.ndarray) -> bool:
    """Whether the line along frame[2] through the middle of `upper` meets `lower`: it can stand there without tipping."""
    middle = frame[:2] @ (upper.center + upper.shift)
    reach = 0.05 * np.ptp(upper.projected(frame)[:, :2], axis=0) + 1e-6
    points = lower.projected(frame) + frame @ lower.shift
    return len(_intervals(lower, points, middle - reach, middle + reach, 3)[0]) > 0
