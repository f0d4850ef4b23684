"""The keyframes of an accumulator: chosen by the core, encoded once, published when they changed."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np

from gena3d_core.types import View
from gena3d_core.views import KeyframeConfig, KeyframeDecision, KeyframeSelector, select_keyframes

from . import conversions
from .msg import View as ViewMsg
from .msg import ViewSet
from .parameter_table import ViewAccumulatorParameters


def keyframe_config(p: ViewAccumulatorParameters) -> KeyframeConfig:
    """Rules of selection from the node's parameters."""
    return KeyframeConfig(
        max_views=p.max_views,
        min_baseline_m=p.min_baseline_m,
        min_angle_rad=p.min_angle_rad,
        sharper_ratio=p.sharper_ratio,
        min_sharpness=p.min_sharpness,
        min_exposed_fraction=p.min_exposed_fraction,
        recheck_interval_s=p.recheck_interval_s,
        max_age_s=p.max_age_s or float("inf"),
    )


class ViewStore:
    """Keyframes with their messages. Thread safe."""

    def __init__(self, config: KeyframeConfig) -> None:
        self._lock = threading.RLock()
        self._selector = KeyframeSelector(config)
        self._jpegs: dict[str, bytes] = {}
        self._messages: dict[str, ViewMsg] = {}
        self._named: Counter[str] = Counter()
        self.changes = 0
        """Counts every change of the set."""

    @property
    def views(self) -> tuple[View, ...]:
        with self._lock:
            return self._selector.views

    def next_name(self, camera: str) -> str:
        """A name that no view had before."""
        with self._lock:
            self._named[camera] += 1
            return f"{camera}_{self._named[camera]:04d}"

    def wants_pose(self, T_world_camera: np.ndarray, stamp_ns: int) -> bool:
        """Whether a view from there could be kept; cheap, to be asked before an image is decoded."""
        with self._lock:
            return self._selector.wants_pose(T_world_camera, stamp_ns)

    def offer(self, view: View, jpeg: bytes | None = None, *, force: bool = False) -> KeyframeDecision:
        """Keep `view` if it tells more than what is kept, or whatever the rules say; `jpeg` encodes its colour."""
        with self._lock:
            decision = self._selector.offer(view, force=force)
            if decision.kept and jpeg is not None:
                self._jpegs[view.name] = jpeg
            self._forget(decision.removed)
            self.changes += decision.kept or bool(decision.removed)
            return decision

    def expire(self, now_ns: int) -> None:
        """Drop views that are too old."""
        with self._lock:
            removed = self._selector.expire(now_ns)
            self._forget(removed)
            self.changes += bool(removed)

    def clear(self) -> int:
        """Drop every view; how many there were."""
        with self._lock:
            names = tuple(view.name for view in self._selector.views)
            self._selector.clear()
            self._forget(names)
            self.changes += bool(names)
            return len(names)

    def configure(self, config: KeyframeConfig) -> None:
        """Change the rules; of more views than they allow the most informative stay."""
        with self._lock:
            before = self._selector.views
            if len(before) <= config.max_views:
                self._selector.config = config
                return
            self._selector = KeyframeSelector(config)
            for view in select_keyframes(before, config.max_views):
                self._selector.offer(view, force=True)
            kept = {view.name for view in self._selector.views}
            self._forget(tuple(view.name for view in before if view.name not in kept))
            self.changes += 1

    def message(self, frame_id: str, revision: int) -> ViewSet:
        """The set as it is now, in the world frame `frame_id`; each view is encoded once."""
        with self._lock:
            views = self._selector.views
            encoded = {view.name: self._messages.get(view.name) for view in views}
            jpegs = dict(self._jpegs)
        # Encoding takes tens of milliseconds a view: meanwhile others may offer more.
        for view in views:
            if encoded[view.name] is None:
                encoded[view.name] = conversions.view_to_msg(view, frame_id, color_jpeg=jpegs.get(view.name))
        with self._lock:
            current = {view.name for view in self._selector.views}
            self._messages = {name: message for name, message in encoded.items() if name in current and message}
        return conversions.view_set_to_msg([m for m in encoded.values() if m is not None], frame_id, revision)

    def _forget(self, names: tuple[str, ...]) -> None:
        for name in names:
            self._jpegs.pop(name, None)
            self._messages.pop(name, None)
