"""Node `rgbd_player`: plays a recorded RGB-D folder as the cameras' drivers would have published it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.io.rgbd_folder import RgbdFolder

from .camera_source import CameraSource, Shot
from .diagnostics import OK, WARN, Health
from .frame_stream import Frame
from .lifecycle import run
from .parameter_table import RgbdPlayerParameters

JPEG_SUFFIXES = (".jpg", ".jpeg")
LAST_FRAME_S = 1.0 / 30.0
"""How long the last frame of a pass lasts before a loop begins again."""


class RgbdPlayer(CameraSource):
    """See the package's README for its topics and parameters."""

    KIND = "rgbd_player"

    def __init__(self, node_name: str | None = None, **kwargs: Any) -> None:
        self._folder: RgbdFolder | None = None
        self._frames: tuple[int, ...] = ()
        self._skipped: dict[int, str] = {}
        super().__init__(node_name, **kwargs)

    def configure(self) -> None:
        values: RgbdPlayerParameters = self.parameters.values
        if not values.path:
            raise InputError("path is empty: name the recorded folder to play, such as path:=/data/kitchen")
        self._folder = RgbdFolder.open(values.path)
        self._frames = chosen_frames(self._folder, values.frames)
        self._skipped = {}
        self.open_cameras((values.camera,), self._folder.intrinsics, with_depth=self._folder.has_depth)
        self.get_logger().info(f"{len(self._frames)} frames of {self._folder.directory}")

    def cleanup(self) -> None:
        super().cleanup()
        self._folder = None
        self._frames = ()

    def on_end(self) -> None:
        skipped = f", {len(self._skipped)} skipped" if self._skipped else ""
        self.get_logger().info(f"played {len(self._frames) - len(self._skipped)} frames to the end{skipped}")

    def health(self) -> Iterable[Health]:
        yield from super().health()
        message = "; ".join(self._skipped.values()) or "OK"
        yield Health("recording", WARN if self._skipped else OK, message, {"frames": len(self._frames)})

    def frames(self) -> Iterable[Frame]:
        values: RgbdPlayerParameters = self.parameters.values
        folder, frames = self._folder, self._frames
        if folder is None:
            return
        start_s = 0.0
        while True:
            due_s = start_s
            for index, frame in enumerate(frames):
                shot = self._shot(folder, frame)
                if shot is None:
                    continue
                recorded_s = (folder.stamps_ns[frame] - folder.stamps_ns[frames[0]]) / 1e9
                due_s = start_s + (index / values.rate_hz if values.rate_hz > 0 else recorded_s) / values.speed
                yield Frame(due_s, shot)
            if len(self._skipped) == len(frames):
                raise DataFormatError(f"{folder.directory}: none of its {len(frames)} frames can be read")
            if not values.loop:
                return
            start_s = due_s + (1.0 / values.rate_hz if values.rate_hz > 0 else LAST_FRAME_S) / values.speed

    def _shot(self, folder: RgbdFolder, frame: int) -> Shot | None:
        """One frame as messages; None (with a warning) for a frame that cannot be read."""
        try:
            view = folder.read(frame)
            path = folder.color_path(frame)
            jpeg = path.read_bytes() if path.suffix.lower() in JPEG_SUFFIXES else None
        except (DataFormatError, OSError) as error:
            self._skipped[frame] = f"frame {frame} skipped: {error}"
            self.warn(f"frame {frame}", self._skipped[frame])
            return None
        prepared = self.outputs[0].prepare(view.color, view.depth_m, jpeg)
        return Shot([prepared], [view.T_world_camera], view.stamp_ns)


def chosen_frames(folder: RgbdFolder, frames: Sequence[int]) -> tuple[int, ...]:
    """The frames to play, oldest first ([-1] or none: all); raises `InputError` for one that the folder lacks."""
    chosen = folder.frames if tuple(frames) in ((), (-1,)) else tuple(frames)
    folder.check_frames(chosen)
    return tuple(sorted(set(chosen), key=lambda frame: folder.stamps_ns[frame]))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    return run(functools.partial(RgbdPlayer), args)


if __name__ == "__main__":
    sys.exit(main())
