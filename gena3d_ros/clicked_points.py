"""Points that a user clicked: heard from RViz, and brought into the frame of the views."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PointStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import Header

from gena3d_core.errors import DataFormatError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.transform_tree import TransformLookupError

from . import qos
from .message_fields import time_from_msg
from .transforms import TransformListener

TOPIC = "/clicked_point"
"""Where RViz's tool Publish Point publishes."""
HISTORY_S = 10.0
PATIENCE_S = 0.5
"""So long a click waits for the transforms of its time, which may be on their way still."""
POLL_S = 0.02


class ClickedPoints:
    """Calls `on_click` for each point on `TOPIC`; `place` serves points that come in other ways too. Thread safe."""

    def __init__(self, node: Any, on_click: Callable[[PointStamped], None]) -> None:
        self._listener = TransformListener(node, HISTORY_S, node.warn)
        # For the node's whole life: what is destroyed while an executor takes it leaves its group locked.
        self._subscription = node.create_subscription(
            PointStamped,
            TOPIC,
            node.guarded(on_click),
            10,
            callback_group=MutuallyExclusiveCallbackGroup(),
            qos_overriding_options=qos.overridable(),
        )

    def place(self, clicked: PointStamped, header: Header) -> tuple[float, float, float]:
        """Coordinates in metres in the frame of `header`; points without a stamp are taken at its time.

        Raises `DataFormatError` for a point without a frame, `TransformLookupError` where TF does not know the way.
        """
        point = (float(clicked.point.x), float(clicked.point.y), float(clicked.point.z))
        source, target = clicked.header.frame_id.lstrip("/"), header.frame_id.lstrip("/")
        if not source:
            raise DataFormatError("clicked_points: a point has no header.frame_id, so nobody knows where it is")
        if source == target:
            return point
        stamp_ns = time_from_msg(clicked.header.stamp) or time_from_msg(header.stamp)
        x, y, z = transforms.apply(self._lookup(target, source, stamp_ns), np.array(point))
        return float(x), float(y), float(z)

    def _lookup(self, target: str, source: str, stamp_ns: int) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._listener.lookup(target, source, stamp_ns)
            except TransformLookupError:
                if time.monotonic() > deadline_s:
                    raise
            time.sleep(POLL_S)
