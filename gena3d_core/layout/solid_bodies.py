"""Objects as bodies that must not penetrate one another: how far one must move along a direction to be free.

Lines along the direction are cut into the intervals that lie inside each body; a translation is free if no interval of
the one meets an interval of the other on the same line. Exact along the direction, sampled across it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import manifold3d
import numpy as np

from ..errors import InputError
from ..geometry.column_crossings import crossings, inside_intervals, is_closed, outer_intervals, welded
from ..types import Float64Array, Mesh

COLUMNS = 32
"""Lines along each side of the rectangle in which the shadows of two bodies overlap."""
MIN_OVERLAP_M3 = 1e-12
"""A thousandth of a cubic millimetre: less is rounding."""


@dataclass(frozen=True, eq=False)
class Projection:
    """A body, without its shift, in a frame: points (V, 3), their lowest and highest corners (3,).

    face_low, face_high (F, 2): the same of each face, by the first two axes alone.
    """

    points: Float64Array
    low: Float64Array
    high: Float64Array
    face_low: Float64Array
    face_high: Float64Array


@dataclass(eq=False)
class Body:
    """One object in the world, movable by `shift` (3,); meshes that are not closed count as filled along lines.

    points (V, 3) from corner low to high (3,), faces (F, 3), without the shift
    closed: whether the faces bound a volume; solid: for exact intersections, or None
    """

    points: Float64Array
    faces: np.ndarray
    closed: bool
    solid: manifold3d.Manifold | None
    low: Float64Array
    high: Float64Array
    shift: Float64Array = field(default_factory=lambda: np.zeros(3))
    _projections: dict[bytes, Projection] = field(default_factory=dict)

    @property
    def bounds(self) -> tuple[Float64Array, Float64Array]:
        """Lowest and highest corner (3,) where the body is now."""
        return self.low + self.shift, self.high + self.shift

    @property
    def center(self) -> Float64Array:
        """Middle (3,) of the box where the body is now."""
        return (self.low + self.high) / 2.0 + self.shift

    def lowest_m(self, frame: np.ndarray) -> float:
        """Least coordinate along frame[2] where the body is now."""
        return float(self.projection(frame).low[2] + self.shift @ frame[2])

    def projection(self, frame: np.ndarray) -> Projection:
        """The body in a frame (3, 3) whose rows are its axes; computed once for each frame."""
        key = frame.tobytes()
        if key not in self._projections:
            points = self.points @ frame.T
            a, b, c = (points[self.faces[:, k], :2] for k in range(3))
            low, high = np.minimum(np.minimum(a, b), c), np.maximum(np.maximum(a, b), c)
            self._projections[key] = Projection(points, points.min(axis=0), points.max(axis=0), low, high)
        return self._projections[key]


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
    solid = _solid(points, faces) if closed else None
    return Body(points, faces, closed, solid, points.min(axis=0), points.max(axis=0))


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
    shadows = [(body.projection(frame), frame[:2] @ body.shift) for body in (moving, fixed)]
    low = np.maximum(*(shadow.low[:2] + shift for shadow, shift in shadows))
    high = np.minimum(*(shadow.high[:2] + shift for shadow, shift in shadows))
    if (high <= low).any():
        return nothing
    lines = [_intervals(body, frame, low, high, columns) for body in (moving, fixed)]
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
    body: Body, frame: np.ndarray, low: np.ndarray, high: np.ndarray, columns: int
) -> tuple[Float64Array, Float64Array, np.ndarray]:
    """Lower and upper ends (M,) along frame[2] of what lies inside the body, on the line (M,) of a raster.

    The raster has columns^2 lines in the rectangle from `low` to `high` (2,) of the frame's first two axes.
    """
    shadow, shift = body.projection(frame), frame @ body.shift
    near = ((shadow.face_high >= low - shift[:2]) & (shadow.face_low <= high - shift[:2])).all(axis=1)
    if not near.any():
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    scale = np.append(columns / (high - low), 1.0)
    origin = np.append(low - shift[:2], -shift[2])
    column, height, step = crossings((shadow.points - origin) * scale, body.faces[near], columns)
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


def lies_under(lower: Body, upper: Body, frame: np.ndarray) -> bool:
    """Whether the line along frame[2] through the middle of `upper` meets `lower`: there it stands without tipping."""
    middle, shadow = frame[:2] @ upper.center, upper.projection(frame)
    reach = 0.05 * (shadow.high - shadow.low)[:2] + 1e-6
    return len(_intervals(lower, frame, middle - reach, middle + reach, 3)[0]) > 0
