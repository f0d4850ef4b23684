"""Publishes the kept views from a thread of its own: encoding them would hold up the cameras' callbacks."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from sensor_msgs.msg import Image

from gena3d_core.viz import contact_sheet

from . import qos
from .message_fields import header_to_msg, to_array
from .msg import ViewSet
from .view_store import ViewStore


class ViewPublisher:
    """Topics `view_set`, at most every `period_s` and only when the set changed, and `~/keyframes`, if subscribed."""

    def __init__(self, node: Any, store: ViewStore, world_frame: str, period_s: float) -> None:
        self._node, self._store, self._world_frame, self._period_s = node, store, world_frame, period_s
        self.revision = 0
        self._published_changes = 0
        self._previewed_changes = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        overridable = qos.overridable()
        self._view_set = node.create_lifecycle_publisher(
            ViewSet, "view_set", qos.latched(), qos_overriding_options=overridable
        )
        self._preview = node.create_lifecycle_publisher(
            Image, "~/keyframes", qos.reliable(1), qos_overriding_options=overridable
        )

    def start(self) -> None:
        """Begin to publish; revisions count from here."""
        self.revision = 0
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="view_publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End publishing, once what is being encoded has gone out."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def close(self) -> None:
        """Take the topics down."""
        self.stop()
        self._node.destroy_lifecycle_publisher(self._view_set)
        self._node.destroy_lifecycle_publisher(self._preview)

    def _run(self) -> None:
        publish, preview = self._node.guarded(self._publish_views), self._node.guarded(self._publish_preview)
        while not self._stop.wait(self._period_s):
            publish()
            preview()

    def _publish_views(self) -> None:
        changes = self._store.changes
        if changes != self._published_changes:
            self.revision += 1
            self._view_set.publish(self._store.message(self._world_frame, self.revision))
            self._published_changes = changes

    def _publish_preview(self) -> None:
        changes = self._store.changes
        if self._preview.get_subscription_count() == 0:
            self._previewed_changes = -1  # whoever comes next gets a picture at once
        elif changes != self._previewed_changes:
            sheet = contact_sheet(self._store.views)
            message = Image(height=sheet.shape[0], width=sheet.shape[1], encoding="rgb8", step=3 * sheet.shape[1])
            message.header = header_to_msg(self._world_frame, self._node.get_clock().now().nanoseconds)
            message.data = to_array(sheet, np.uint8)
            self._preview.publish(message)
            self._previewed_changes = changes
