"""Stamped transforms between named frames, looked up along the tree with interpolation; no ROS needed."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..types import Float64Array, require_rigid
from . import transforms

NS = 1_000_000_000


class TransformLookupError(InputError):
    """No transform between two frames at that time; the message says which link is missing or too old."""


@dataclass
class _Edge:
    """`T_parent_child` over time, 104 bytes a sample; a static edge has one pose that holds always."""

    parent: str
    static: bool
    stamps_ns: array[int] = field(default_factory=lambda: array("q"))
    rows: array[float] = field(default_factory=lambda: array("d"))

    def put(self, stamp_ns: int, T: np.ndarray) -> None:
        row = array("d", np.asarray(T, dtype=np.float64)[:3].tobytes())
        at = bisect_left(self.stamps_ns, stamp_ns)
        if at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns:
            self.rows[12 * at : 12 * at + 12] = row
        else:
            self.stamps_ns.insert(at, stamp_ns)
            self.rows[12 * at : 12 * at] = row

    def pose(self, at: int) -> Float64Array:
        T = np.eye(4)
        T[:3] = np.array(self.rows[12 * at : 12 * at + 12]).reshape(3, 4)
        return T

    def keep(self, first_ns: int, last_ns: int) -> None:
        start, end = bisect_left(self.stamps_ns, first_ns), bisect_right(self.stamps_ns, last_ns)
        self.stamps_ns, self.rows = self.stamps_ns[start:end], self.rows[12 * start : 12 * end]


class TransformTree:
    """Frames in a tree, each with one parent, as TF has it. Not thread-safe.

    history_s: samples older than the newest of their link by more than this are forgotten.
    """

    def __init__(self, history_s: float = float("inf")) -> None:
        self._edges: dict[str, _Edge] = {}
        self._history_s = history_s

    @property
    def frames(self) -> tuple[str, ...]:
        """Every frame known, sorted."""
        return tuple(sorted(self._edges.keys() | {edge.parent for edge in self._edges.values()}))

    def add(self, parent: str, child: str, T_parent_child: np.ndarray, stamp_ns: int, static: bool = False) -> None:
        """Add a sample. Raises `InputError` for a pose that is not rigid or a frame that is its own parent."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child or parent == child:
            raise InputError(f"a transform needs two different frames, got '{parent}' -> '{child}'")
        require_rigid(f"transform '{parent}' -> '{child}'", T_parent_child)
        edge = self._edges.get(child)
        if edge is None or edge.parent != parent or edge.static != static:
            edge = self._edges[child] = _Edge(parent, static)
        edge.put(0 if static else stamp_ns, T_parent_child)
        # A tenth more than the history, so that the arrays are seldom copied.
        if edge.stamps_ns[-1] - edge.stamps_ns[0] > 1.1 * self._history_s * NS:
            edge.keep(edge.stamps_ns[-1] - round(self._history_s * NS), edge.stamps_ns[-1])

    def newest_ns(self, child: str) -> int | None:
        """Stamp of the newest sample of the link above `child`; None for a static or unknown one."""
        edge = self._edges.get(child.lstrip("/"))
        return None if edge is None or edge.static else edge.stamps_ns[-1]

    def forget_after(self, stamp_ns: int) -> None:
        """Forget what is newer than `stamp_ns`: time has jumped back. Static transforms stay."""
        for child, edge in list(self._edges.items()):
            if not edge.static:
                edge.keep(edge.stamps_ns[0], stamp_ns)
                if not edge.stamps_ns:
                    del self._edges[child]

    def root(self, frame: str) -> str:
        """The frame at the top of the tree that holds `frame`. Raises `TransformLookupError` for an unknown frame."""
        return self._chain(frame.lstrip("/"))[-1]

    def lookup(self, target: str, source: str, stamp_ns: int, max_extrapolation_s: float = 0.0) -> Float64Array:
        """`T_target_source` (4, 4) at `stamp_ns`: linear in translation, slerp in rotation.

        Beyond the first and last sample of a link the nearest one holds for `max_extrapolation_s`. Raises
        `TransformLookupError`.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        up_target, up_source = self._chain(target), self._chain(source)
        if up_target[-1] != up_source[-1]:
            raise TransformLookupError(
                f"frames '{target}' and '{source}' are not connected: their trees end in '{up_target[-1]}' and "
                f"'{up_source[-1]}'"
            )
        while len(up_target) > 1 and len(up_source) > 1 and up_target[-2] == up_source[-2]:
            up_target.pop()
            up_source.pop()
        slack_ns = round(max_extrapolation_s * NS)
        return transforms.inverse(self._climb(up_target, stamp_ns, slack_ns)) @ self._climb(
            up_source, stamp_ns, slack_ns
        )

    def _chain(self, frame: str) -> list[str]:
        chain = [frame]
        if frame not in self._edges and not any(edge.parent == frame for edge in self._edges.values()):
            known = ", ".join(self.frames) or "none"
            raise TransformLookupError(f"frame '{frame}' is unknown to TF (known: {known})")
        while chain[-1] in self._edges:
            parent = self._edges[chain[-1]].parent
            if parent in chain:
                raise TransformLookupError(f"frames {', '.join(chain)} form a loop")
            chain.append(parent)
        return chain

    def _climb(self, chain: list[str], stamp_ns: int, slack_ns: int) -> Float64Array:
        """`T_top_bottom` along `chain`, bottom first."""
        T = np.eye(4)
        for child in chain[:-1]:
            T = self._sample(child, stamp_ns, slack_ns) @ T
        return T

    def _sample(self, child: str, stamp_ns: int, slack_ns: int) -> Float64Array:
        edge = self._edges[child]
        if edge.static:
            return edge.pose(0)
        stamps = edge.stamps_ns
        after = bisect_left(stamps, stamp_ns)
        if after < len(stamps) and stamps[after] == stamp_ns:
            return edge.pose(after)
        if 0 < after < len(stamps):
            before_ns, after_ns = stamps[after - 1], stamps[after]
            fraction = (stamp_ns - before_ns) / (after_ns - before_ns)
            return _interpolate(edge.pose(after - 1), edge.pose(after), fraction)
        at = 0 if after == 0 else len(stamps) - 1
        nearest = stamps[at]
        if abs(nearest - stamp_ns) <= slack_ns:
            return edge.pose(at)
        side = "starts" if after == 0 else "ends"
        raise TransformLookupError(
            f"transform '{edge.parent}' -> '{child}' {side} {abs(nearest - stamp_ns) / NS:.3f} s "
            f"{'after' if after == 0 else 'before'} the wanted time {stamp_ns / NS:.3f}"
        )


def _interpolate(T_a: Float64Array, T_b: Float64Array, fraction: float) -> Float64Array:
    # The same as scipy's Slerp, which takes four times as long to set up.
    turn = Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3]).as_rotvec()
    R = T_a[:3, :3] @ Rotation.from_rotvec(fraction * turn).as_matrix()
    return transforms.rigid(R, (1 - fraction) * T_a[:3, 3] + fraction * T_b[:3, 3])
