"""A scene without penetration: every object on the support or on another object, none inside one, moved as little as
possible.

For whole generated objects, whose poses are estimates and may move as far as it takes; `collisions` nudges measured,
often open surfaces within what their noise allows. Objects are translated, never turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import InputError
from ..types import Float64Array, Mesh, SupportPlane
from . import solid_bodies
from .solid_bodies import Body

SUPPORT = -1
"""Number of the support plane where objects are said to rest on something."""
NOTHING = -2


@dataclass(frozen=True)
class ContactConfig:
    """Gaps and effort."""

    clearance_m: float = 0.0005
    """Left between objects that were parted, in the direction in which they were, and under those that were lowered."""
    directions: int = 16
    """Horizontal directions in which an object may leave another, besides upwards."""
    tried: int = 4
    """Directions looked at closely for each contact: those in which the objects' extents overlap least."""
    rounds: int = 3
    """Rounds in which both objects of each pair give way, before what is left is settled one object at a time."""
    attempts: int = 8
    """Most moves of one object when it is settled."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.clearance_m) and self.clearance_m > 0) or min(self.directions, self.tried) < 1:
            raise InputError("contacts: clearance_m, directions and tried must be positive")


@dataclass(frozen=True, eq=False)
class ContactResolution:
    """How N objects were moved.

    shifts_m  (N, 3) translations in the world
    before, after  pairs of objects that share volume
    rests_on  number of what each object stands on, the lowest contact: an object, `SUPPORT`, or `NOTHING`
    """

    shifts_m: Float64Array
    before: tuple[tuple[int, int], ...]
    after: tuple[tuple[int, int], ...]
    rests_on: tuple[int, ...]
    warnings: tuple[str, ...] = ()

    @property
    def moved_m(self) -> Float64Array:
        """(N,) how far each object was moved."""
        return np.asarray(np.linalg.norm(self.shifts_m, axis=1))


def resolve_contacts(
    meshes: Sequence[Mesh],
    support: SupportPlane | None,
    *,
    mobility: Sequence[float] | None = None,
    config: ContactConfig | None = None,
) -> ContactResolution:
    """Translations after which no two objects penetrate and none is below the support; what floated is lowered.

    An object wedged between others may stay above them, since nothing is tilted: `rests_on` then says `NOTHING`.
    meshes: in the world, metres; closed ones are handled exactly, others as if filled along vertical and horizontal
    lines. support None: nothing is lifted onto it or lowered. mobility (N,) >= 0: how easily each moves when two must
    part; 0 keeps an object where it is (a measured one), equal by default. Deterministic. Pairs that stay in contact,
    as two that may not move, are in `after` and in a warning. Raises `InputError` for a mesh without faces.
    """
    config = config or ContactConfig()
    weights = np.ones(len(meshes)) if mobility is None else np.asarray(mobility, dtype=np.float64)
    if weights.shape != (len(meshes),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"mobility must be {len(meshes)} numbers of at least 0, got {weights.tolist()}")
    if not meshes:
        return ContactResolution(np.zeros((0, 3)), (), (), ())
    up = np.array([0.0, 0.0, 1.0]) if support is None else np.asarray(support.normal, dtype=np.float64)
    bodies = [solid_bodies.make_body(mesh, number) for number, mesh in enumerate(meshes)]
    scene = _Scene(bodies, weights, up, None if support is None else -float(support.offset_m), config)

    before = tuple(scene.penetrating_pairs())
    scene.lift_onto_support()
    scene.part_pairs()
    scene.settle_in_order()
    scene.lower()
    after = tuple(scene.penetrating_pairs())
    warnings = [f"layout: objects {a} and {b} still penetrate each other" for a, b in after]
    rests_on = tuple(scene.rests_on(number) for number in range(len(bodies)))
    warnings += [
        f"layout: object {number} does not rest on anything, and may not be moved"
        for number, below in enumerate(rests_on)
        if below == NOTHING and support is not None and weights[number] == 0
    ]
    return ContactResolution(np.stack([body.shift for body in bodies]), before, after, rests_on, tuple(warnings))


class _Scene:
    """Bodies on their way to their places."""

    def __init__(
        self, bodies: list[Body], mobility: np.ndarray, up: np.ndarray, floor_m: float | None, config: ContactConfig
    ) -> None:
        self.bodies, self.mobility, self.up, self.floor_m, self.config = bodies, mobility, up, floor_m, config
        self.up_frame, self.down_frame = solid_bodies.frame_along(up), solid_bodies.frame_along(-up)
        angle = np.arange(config.directions) * (2.0 * np.pi / config.directions)
        self.directions = np.cos(angle)[:, None] * self.up_frame[0] + np.sin(angle)[:, None] * self.up_frame[1]
        self.frames = [solid_bodies.frame_along(direction) for direction in self.directions]
        along = [body.points @ self.directions.T for body in bodies]
        self._known: dict[tuple[int, int, bytes], bool] = {}
        self.far, self.near = (np.stack([f(a, axis=0) for a in along]) for f in (np.max, np.min))

    def penetrating_pairs(self) -> list[tuple[int, int]]:
        """Numbers of the bodies that penetrate each other."""
        return [pair for pair in combinations(range(len(self.bodies)), 2) if self._penetrate(*pair)]

    def lift_onto_support(self) -> None:
        """Movable bodies that reach below the support are lifted onto it."""
        if self.floor_m is None:
            return
        for number in np.flatnonzero(self.mobility > 0):
            self.bodies[number].shift += max(self.floor_m - self.bodies[number].lowest_m(self.up_frame), 0.0) * self.up

    def part_pairs(self) -> None:
        """Both bodies of each penetrating pair give way, by their mobility; the upper one alone if it goes up."""
        for _ in range(self.config.rounds):
            pairs = [pair for pair in self.penetrating_pairs() if self.mobility[list(pair)].sum() > 0]
            if not pairs:
                return
            for first, second in pairs:
                self._part(first, second)

    def _part(self, first: int, second: int) -> None:
        options: list[tuple[float, Float64Array, int | None]] = [
            (solid_bodies.first_free(self._blocked(second, [first], self.frames[k])), self.directions[k], None)
            for k in self._directions(second, [first])
        ]
        for upper, lower in ((second, first), (first, second)):
            if self.mobility[upper] > 0 and self._can_stand(upper, [lower]):
                rise = solid_bodies.first_free(self._blocked(upper, [lower], self.up_frame))
                options.append((rise, self.up, upper))
        distance, direction, alone = min(options, key=lambda option: option[0])
        if alone is not None:
            self.bodies[alone].shift += distance * direction
            return
        share = self.mobility[second] / (self.mobility[first] + self.mobility[second])
        self.bodies[first].shift -= (1.0 - share) * distance * direction
        self.bodies[second].shift += share * distance * direction

    def settle_in_order(self) -> None:
        """Bodies are put down one after the other, each free of all before it: fixed ones first, then large ones."""
        volume = [float(np.prod(np.ptp(body.points, axis=0))) for body in self.bodies]
        order = sorted(range(len(self.bodies)), key=lambda k: (self.mobility[k], -volume[k], k))
        for place, number in enumerate(order):
            if self.mobility[number] > 0:
                self._free(number, order[:place])

    def _free(self, number: int, others: list[int]) -> None:
        """Moves a body until it shares no volume with the others."""
        for attempt in range(self.config.attempts):
            met = self._met(number, others)
            if not met:
                return
            clearance = self.config.clearance_m * 2.0**attempt
            ways = [(self.frames[k], self.directions[k]) for k in self._directions(number, met)]
            if self._can_stand(number, met):
                ways.append((self.up_frame, self.up))
            distances = [
                max(
                    solid_bodies.first_free(self._blocked(number, others, frame, clearance)),
                    self._shared_width(number, met, direction) + clearance if attempt else 0.0,
                )
                for frame, direction in ways
            ]
            best = int(np.argmin(distances))
            self.bodies[number].shift += distances[best] * ways[best][1]

    def _shared_width(self, number: int, met: list[int], direction: np.ndarray) -> float:
        """Extent along a direction of what a body shares with those it meets: slivers that no line has hit."""
        shared = [solid_bodies.intersection_points(self.bodies[number], self.bodies[other]) for other in met]
        return max((float(np.ptp(points @ direction)) for points in shared if len(points)), default=0.0)

    def lower(self) -> None:
        """Movable bodies that float are lowered onto what is beneath them, the lowest first."""
        if self.floor_m is None:
            return
        heights = [body.lowest_m(self.up_frame) for body in self.bodies]
        for number in sorted(range(len(self.bodies)), key=lambda k: (heights[k], k)):
            body, others = self.bodies[number], [k for k in range(len(self.bodies)) if k != number]
            gap = body.lowest_m(self.up_frame) - self.floor_m
            if self.mobility[number] <= 0 or gap <= 0:
                continue
            fall = min(gap, solid_bodies.first_blocked(self._blocked(number, others, self.down_frame)))
            body.shift -= fall * self.up
            for attempt in range(self.config.attempts):
                met = self._met(number, others)
                if not met or fall <= 0:
                    break
                back = self._shared_width(number, met, self.up) + self.config.clearance_m * 2.0**attempt
                body.shift += min(back, fall) * self.up
                fall -= back

    def rests_on(self, number: int) -> int:
        """What is right below a body."""
        body, reach = self.bodies[number], 4.0 * self.config.clearance_m
        if self.floor_m is not None and body.lowest_m(self.up_frame) - self.floor_m <= reach:
            return SUPPORT
        below = [
            (solid_bodies.first_blocked(self._blocked(number, [other], self.down_frame)), other)
            for other in range(len(self.bodies))
            if other != number
        ]
        gap, other = min(below, default=(float("inf"), NOTHING))
        return other if gap <= reach else NOTHING

    def _blocked(
        self, moving: int, fixed: list[int], frame: np.ndarray, clearance_m: float | None = None
    ) -> Float64Array:
        clearance = self.config.clearance_m if clearance_m is None else clearance_m
        found = [solid_bodies.blocked_intervals(self.bodies[moving], self.bodies[k], frame, clearance) for k in fixed]
        return np.concatenate([np.zeros((0, 2)), *found])

    def _directions(self, moving: int, fixed: list[int]) -> np.ndarray:
        """Horizontal directions in which the extents of a body and of those it leaves overlap least, best first."""
        far = self.far[fixed] + np.stack([self.bodies[k].shift for k in fixed]) @ self.directions.T
        near = self.near[moving] + self.directions @ self.bodies[moving].shift
        return np.argsort(far.max(axis=0) - near, kind="stable")[: self.config.tried]

    def _can_stand(self, upper: int, lower: list[int]) -> bool:
        return any(solid_bodies.lies_under(self.bodies[k], self.bodies[upper], self.up_frame) for k in lower)

    def _met(self, number: int, others: list[int]) -> list[int]:
        """Those of the others that a body penetrates."""
        return [k for k in others if self._penetrate(*sorted((number, k)))]

    def _penetrate(self, first: int, second: int) -> bool:
        """Whether two bodies penetrate; computed once for each place of the one relative to the other."""
        a, b = self.bodies[first], self.bodies[second]
        key = (first, second, (b.shift - a.shift).tobytes())
        if key not in self._known:
            self._known[key] = solid_bodies.penetrates(a, b, self.up_frame)
        return self._known[key]
