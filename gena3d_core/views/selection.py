"""Which views to keep: online from a stream (`KeyframeSelector`), offline from a recording (`select_keyframes`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..types import Float64Array, View, require_rigid
from .pose_metric import farthest_points, pose_distance
from .quality import image_quality, sharpness

NS = 1_000_000_000


@dataclass(frozen=True)
class KeyframeConfig:
    """Rules of keyframe selection.

    max_views             at most so many are kept
    min_baseline_m        a camera that moved so far shows something new ...
    min_angle_rad         ... or one whose optical axis turned so far
    sharper_ratio         a view near a kept one replaces it when it is so many times sharper
    min_sharpness         less sharp views are refused
    min_exposed_fraction  views with a smaller share of usable pixels are refused
    recheck_interval_s    a view near a kept one is looked at again at most so often (0: always)
    half_life_s           a view's worth halves in this time; infinity: age never matters
    max_age_s             older views are dropped, and a view near one older than half of this replaces it
    replace_gain          with `max_views` kept, a view from a new pose must be worth so many times the least of them
    """

    max_views: int = 8
    min_baseline_m: float = 0.05
    min_angle_rad: float = 0.14
    sharper_ratio: float = 1.25
    min_sharpness: float = 0.0
    min_exposed_fraction: float = 0.2
    recheck_interval_s: float = 0.1
    half_life_s: float = float("inf")
    max_age_s: float = float("inf")
    replace_gain: float = 1.2

    def __post_init__(self) -> None:
        if self.max_views < 1:
            raise InputError(f"max_views must be at least 1, got {self.max_views}")
        for name in ("min_baseline_m", "min_angle_rad", "half_life_s", "max_age_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("sharper_ratio", "replace_gain"):
            if not getattr(self, name) >= 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class KeyframeDecision:
    """What became of an offered view: kept or not, why (one line for a log), and the names of views that left."""

    kept: bool
    reason: str
    removed: tuple[str, ...] = ()


@dataclass(eq=False)
class _Kept:
    view: View
    sharpness: float
    rechecked_ns: int


class KeyframeSelector:
    """Keeps the most informative views of a stream, at most `config.max_views`. Not thread safe."""

    def __init__(self, config: KeyframeConfig | None = None) -> None:
        self.config = config or KeyframeConfig()
        self._kept: list[_Kept] = []

    @property
    def views(self) -> tuple[View, ...]:
        """The kept views, oldest first."""
        return tuple(k.view for k in sorted(self._kept, key=lambda k: _key(k.view)))

    def clear(self) -> None:
        """Forget every view."""
        self._kept.clear()

    def expire(self, now_ns: int) -> tuple[str, ...]:
        """Drop views older than `max_age_s`; their names."""
        old = [k for k in self._kept if now_ns - k.view.stamp_ns > self.config.max_age_s * NS]
        self._kept = [k for k in self._kept if k not in old]
        return tuple(k.view.name for k in old)

    def wants_pose(self, T_world_camera: np.ndarray, stamp_ns: int) -> bool:
        """Whether a view from this pose could be kept; costs microseconds, so ask before decoding an image.

        Never says no to a view that `offer` would keep, but for repeats of a kept pose within `recheck_interval_s`.
        """
        if not self._kept:
            return True
        units = self._distance_to_kept(T_world_camera)
        nearest = int(np.argmin(units))
        if units[nearest] < self._one_unit:
            return abs(stamp_ns - self._kept[nearest].rechecked_ns) >= self.config.recheck_interval_s * NS
        return len(self._kept) < self.config.max_views or self._victim(T_world_camera, stamp_ns, np.inf) is not None

    def offer(self, view: View, *, force: bool = False) -> KeyframeDecision:
        """Keep `view` if it tells more than what is kept; `force` keeps it whatever the rules say (but never > N)."""
        removed = self.expire(view.stamp_ns)
        quality = image_quality(view.color)
        entry = _Kept(view, quality.sharpness, view.stamp_ns)
        if not force and quality.exposed_fraction < self.config.min_exposed_fraction:
            percent = 100 * quality.exposed_fraction
            return KeyframeDecision(False, f"only {percent:.0f} % of its pixels are well exposed", removed)
        if not force and quality.sharpness < self.config.min_sharpness:
            return KeyframeDecision(False, f"blurred: its sharpness is {quality.sharpness:.4f}", removed)
        if self._kept and not force:
            units = self._distance_to_kept(view.T_world_camera)
            nearest = int(np.argmin(units))
            if units[nearest] < self._one_unit:
                return self._offer_repeat(entry, nearest, removed)
        if len(self._kept) < self.config.max_views:
            self._kept.append(entry)
            return KeyframeDecision(True, "forced" if force else "new pose", removed)
        victim = self._victim(view.T_world_camera, view.stamp_ns, np.inf if force else entry.sharpness)
        if victim is None and force:
            victim = int(np.argmin([k.view.stamp_ns for k in self._kept]))
        if victim is None:
            return KeyframeDecision(False, "tells less than the views kept", removed)
        gone = self._kept[victim].view.name
        self._kept[victim] = entry
        return KeyframeDecision(True, f"tells more than '{gone}'", (*removed, gone))

    def _offer_repeat(self, entry: _Kept, nearest: int, removed: tuple[str, ...]) -> KeyframeDecision:
        other = self._kept[nearest]
        other.rechecked_ns = entry.view.stamp_ns
        stale = entry.view.stamp_ns - other.view.stamp_ns > 0.5 * self.config.max_age_s * NS
        sharper = entry.sharpness > self.config.sharper_ratio * other.sharpness
        if not (sharper or stale):
            return KeyframeDecision(False, f"same pose as '{other.view.name}' and not sharper", removed)
        self._kept[nearest] = entry
        why = "sharper than" if sharper else "fresher than"
        return KeyframeDecision(True, f"{why} '{other.view.name}' at the same pose", (*removed, other.view.name))

    @property
    def _one_unit(self) -> float:
        one = np.eye(4)
        one[0, 3] = self.config.min_baseline_m
        return float(self._distance(one[None], np.eye(4)[None])[0, 0]) * (1 - 1e-9)

    def _distance(self, T_a: np.ndarray, T_b: np.ndarray) -> Float64Array:
        return pose_distance(T_a, T_b, self.config.min_baseline_m, self.config.min_angle_rad)

    def _distance_to_kept(self, T_world_camera: np.ndarray) -> Float64Array:
        require_rigid("T_world_camera", T_world_camera)
        return self._distance(T_world_camera[None], np.stack([k.view.T_world_camera for k in self._kept]))[0]

    def _victim(self, T_world_camera: np.ndarray, stamp_ns: int, candidate_sharpness: float) -> int | None:
        """Index of the kept view that tells least once the candidate has joined; None if the candidate does."""
        poses = np.stack([*(k.view.T_world_camera for k in self._kept), T_world_camera])
        distance = self._distance(poses, poses)
        np.fill_diagonal(distance, np.inf)
        # The second neighbour decides which of the closest two is the more redundant.
        near = np.sort(distance, axis=1)[:, :2]
        spread = near[:, 0] + (0.1 * near[:, 1] if len(poses) > 2 else 0.0)
        known = np.array([k.sharpness for k in self._kept])
        weight = sharpness_weight(np.append(known, candidate_sharpness), np.median(known))
        stamps = np.array([*(k.view.stamp_ns for k in self._kept), stamp_ns], dtype=np.float64)
        age_s = np.maximum(stamps.max() - stamps, 0.0) / NS
        worth = spread * weight * 0.5 ** (age_s / self.config.half_life_s)
        victim = int(np.lexsort((stamps[:-1], worth[:-1]))[0])
        # Without the gain a moving camera would swap a view at every step, and each swap costs a reconstruction.
        return victim if worth[-1] > self.config.replace_gain * worth[victim] else None


def sharpness_weight(values: np.ndarray, reference: float | None = None) -> Float64Array:
    """Weights in (0, 1], 0.5 at `reference` (default: the median); they halve a blurred view's say, no more."""
    values = np.maximum(np.asarray(values, dtype=np.float64), 1e-12)
    reference = float(np.median(values)) if reference is None else max(float(reference), 1e-12)
    return 1.0 / (1.0 + reference / values)


def _key(view: View) -> tuple[int, str, str]:
    return view.stamp_ns, view.camera, view.name


def select_poses(poses: np.ndarray, count: int, weight: np.ndarray | None = None) -> list[int]:
    """Sorted indices of the `count` of `poses` (N, 4, 4) that are farthest apart, weighted by `weight` (N,)."""
    poses = np.asarray(poses, dtype=np.float64)
    weight = np.ones(len(poses)) if weight is None else np.asarray(weight, dtype=np.float64)
    return sorted(farthest_points(pose_distance(poses, poses), weight, count)) if len(poses) else []


def select_keyframes(views: Sequence[View], max_views: int) -> list[View]:
    """The most informative subset of at most `max_views` views, oldest first, whatever the order they come in.

    Greedy farthest points in baseline and view angle, weighted by sharpness, starting from the sharpest view.
    """
    if max_views < 1:
        raise InputError(f"max_views must be at least 1, got {max_views}")
    ordered = sorted(views, key=_key)
    if len(ordered) <= max_views:
        return ordered
    weight = sharpness_weight(np.array([sharpness(v.color) for v in ordered]))
    return [ordered[i] for i in select_poses(np.stack([v.T_world_camera for v in ordered]), max_views, weight)]
