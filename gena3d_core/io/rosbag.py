"""Posed views from rosbag2 recordings, without ROS: colour, depth, camera info and TF, synchronised by stamp.

Two passes: transforms and camera infos first, then the images as a stream, of which only keyframes are decoded and
kept, so memory does not grow with the recording.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFormatError, InputError
from ..geometry.depth_registration import register_depth
from ..geometry.transform_tree import TransformLookupError, TransformTree
from ..geometry.transforms import matrix_from_quat_xyzw, rigid
from ..geometry.undistortion import Distortion, undistort_color, undistort_depth
from ..types import Float32Array, Intrinsics, View
from ..views import KeyframeConfig, KeyframeSelector, select_keyframes
from .bag_options import BagOptions
from .bag_storage import Bag, deserialize, header_stamp_ns, open_bag
from .bag_topics import INFO_TYPE, TF_TYPE, BagTopics, find_topics, is_rectified_by_name, is_registered_by_name
from .ros_images import color_from_message, depth_from_message

_log = logging.getLogger("gena3d.io")
NS = 1_000_000_000
DEFAULT_MAX_VIEWS = 20
SHORTLIST = 3
PENDING = 120
"""Images that wait for a partner; more than two seconds apart nothing is a pair."""


@dataclass(frozen=True)
class _Camera:
    frame: str
    intrinsics: Intrinsics
    distortion: Distortion


def load_rosbag(
    path: str | Path,
    frames: Sequence[int] | None = None,
    max_views: int | None = None,
    options: BagOptions | None = None,
) -> tuple[list[View], str]:
    """Views of a rosbag2 folder, .mcap or .db3 file, oldest first, and the name of their world frame.

    A view's name is the index of its colour image.

    frames: indices of colour images, counted from 0; else the `max_views` (default 20) most informative views.
    Raises `DataFormatError` for a damaged recording or one without poses, `InputError` for frames or topics that
    it lacks. A recording that breaks off is read up to there, with a warning on the logger `gena3d.io`.
    """
    options = options or BagOptions()
    with open_bag(Path(path)) as bag:
        try:
            topics = find_topics(bag.topics, options.color_topic, options.depth_topic, options.camera_info_topic)
        except DataFormatError as error:
            raise DataFormatError(f"{path}: {error}") from error
        if topics.other_colors:
            _log.warning(f"{path}: reading {topics.color}; other colour topics: {', '.join(topics.other_colors)}")
        reader = _ViewReader(bag, topics, options)
        views = list(reader.chosen(frames)) if frames is not None else reader.keyframes(max_views)
        if not views:
            raise DataFormatError(f"{path}: {reader.why_nothing()}")
        if reader.skipped:
            reasons = "; ".join(f"{count} x {reason}" for reason, count in reader.skipped.most_common(3))
            _log.warning(f"{path}: skipped colour images: {reasons}")
        if frames is not None and len(views) < len(frames):
            missing = sorted(set(frames) - {int(v.name) for v in views})
            raise InputError(
                f"{path}: no view for frames {missing} among its {reader.color_count} colour images (counted from 0); "
                + (reader.why_nothing() if reader.skipped else "choose smaller numbers")
            )
        return views, reader.world


class _ViewReader:
    """One recording, its transforms and cameras known, ready to stream views."""

    def __init__(self, bag: Bag, topics: BagTopics, options: BagOptions) -> None:
        self.bag, self.topics, self.options = bag, topics, options
        self.skipped: Counter[str] = Counter()
        self.color_count = 0
        self.tree, infos = _read_transforms_and_infos(bag, topics)
        for topic in filter(None, {topics.color_info, topics.depth_info}):
            if topic not in infos:
                raise DataFormatError(f"{bag.path}: topic {topic} holds no message" + _because(bag))
        self.color_camera = _camera(infos[topics.color_info], topics.color, topics.color_info)
        self.depth_camera = _camera(infos[topics.depth_info], topics.depth, topics.depth_info) if topics.depth else None
        try:
            self.world = options.world_frame or self.tree.root(self.color_camera.frame)
        except TransformLookupError as error:
            raise DataFormatError(f"{bag.path}: no pose of the camera: {error}") from error

    def keyframes(self, max_views: int | None) -> list[View]:
        count = max_views or DEFAULT_MAX_VIEWS
        selector = KeyframeSelector(KeyframeConfig(max_views=SHORTLIST * count))
        for index, stamp_ns, raw_color, raw_depth in self._pairs():
            pose = self._pose(stamp_ns)
            if pose is not None and selector.wants_pose(pose, stamp_ns):
                view = self._view(index, stamp_ns, pose, raw_color, raw_depth)
                if view is not None:
                    selector.offer(view)
        return select_keyframes(selector.views, count)

    def chosen(self, frames: Sequence[int]) -> Iterator[View]:
        wanted = set(frames)
        for index, stamp_ns, raw_color, raw_depth in self._pairs():
            if index in wanted:
                pose = self._pose(stamp_ns)
                view = None if pose is None else self._view(index, stamp_ns, pose, raw_color, raw_depth)
                if view is not None:
                    yield view

    def why_nothing(self) -> str:
        if self.skipped:
            reason, count = self.skipped.most_common(1)[0]
            return f"{count} of {self.color_count} colour images gave no view: {reason}" + _because(self.bag)
        return f"topic {self.topics.color} holds no images" + _because(self.bag)

    def _pairs(self) -> Iterator[tuple[int, int, bytes, bytes | None]]:
        """(index of the colour image, stamp, colour, nearest depth) for every colour image that has its depth."""
        colors: deque[tuple[int, int, bytes]] = deque()
        depths: deque[tuple[int, bytes]] = deque(maxlen=PENDING)
        skew_ns = round(self.options.max_skew_s * NS)
        for topic, raw in self.bag.messages({self.topics.color, self.topics.depth} - {""}):
            if topic == self.topics.depth:
                depths.append((header_stamp_ns(raw), raw))
            else:
                colors.append((self.color_count, header_stamp_ns(raw), raw))
                self.color_count += 1
            # A colour image is settled once no later depth can be nearer than those seen.
            while colors and (
                not self.topics.depth or len(colors) > PENDING or (depths and depths[-1][0] >= colors[0][1] + skew_ns)
            ):
                yield from self._paired(colors.popleft(), depths, skew_ns)
        for color in colors:
            yield from self._paired(color, depths, skew_ns)

    def _paired(
        self, color: tuple[int, int, bytes], depths: Sequence[tuple[int, bytes]], skew_ns: int
    ) -> Iterator[tuple[int, int, bytes, bytes | None]]:
        index, stamp_ns, raw = color
        if not self.topics.depth:
            yield index, stamp_ns, raw, None
            return
        nearest = min(depths, key=lambda d: abs(d[0] - stamp_ns), default=None)
        if nearest is not None and abs(nearest[0] - stamp_ns) <= skew_ns:
            yield index, stamp_ns, raw, nearest[1]
        else:
            self.skipped[f"no depth on {self.topics.depth} within {self.options.max_skew_s} s of its stamp"] += 1

    def _pose(self, stamp_ns: int) -> np.ndarray | None:
        try:
            return self.tree.lookup(self.world, self.color_camera.frame, stamp_ns, self.options.max_extrapolation_s)
        except TransformLookupError as error:
            # One key for all stamps, so that the count says how many images it concerns.
            self.skipped[f"no pose ({str(error).partition(' the wanted time')[0]} such an image)"] += 1
            return None

    def _view(
        self, index: int, stamp_ns: int, pose: np.ndarray, raw_color: bytes, raw_depth: bytes | None
    ) -> View | None:
        camera, topics = self.color_camera, self.topics
        try:
            color = color_from_message(
                deserialize(raw_color, self.bag.topics[topics.color], topics.color), topics.color
            )
            _check_size(color, camera, topics.color, topics.color_info)
            return View(
                color=undistort_color(color, camera.intrinsics, camera.distortion),
                intrinsics=camera.intrinsics,
                T_world_camera=pose,
                depth_m=None if raw_depth is None else self._depth(raw_depth, stamp_ns),
                stamp_ns=stamp_ns,
                name=f"{index:06d}",
            )
        except (DataFormatError, TransformLookupError) as error:
            self.skipped[str(error)] += 1
            return None

    def _depth(self, raw: bytes, stamp_ns: int) -> Float32Array:
        topics, camera = self.topics, self.depth_camera
        assert camera is not None
        message = deserialize(raw, self.bag.topics[topics.depth], topics.depth)
        depth_m = depth_from_message(message, topics.depth)
        _check_size(depth_m, camera, topics.depth, topics.depth_info)
        depth_m = undistort_depth(depth_m, camera.intrinsics, camera.distortion)
        color = self.color_camera
        frame = message.header.frame_id.lstrip("/")
        if camera.intrinsics == color.intrinsics and (frame == color.frame or is_registered_by_name(topics.depth)):
            return depth_m
        T_color_depth = np.eye(4) if frame == color.frame else self.tree.lookup(color.frame, frame, stamp_ns, 1.0)
        return register_depth(depth_m, camera.intrinsics, color.intrinsics, T_color_depth)


def _read_transforms_and_infos(bag: Bag, topics: BagTopics) -> tuple[TransformTree, dict[str, Any]]:
    tree, infos = TransformTree(), {}
    for topic, raw in bag.messages({topics.color_info, topics.depth_info, *topics.tf} - {""}):
        if topic in topics.tf:
            for stamped in deserialize(raw, TF_TYPE, topic).transforms:
                _add_transform(tree, stamped, static=topic.endswith("tf_static"))
        elif topic not in infos:
            infos[topic] = deserialize(raw, INFO_TYPE, topic)
    return tree, infos


def _add_transform(tree: TransformTree, stamped: Any, static: bool) -> None:
    t, q = stamped.transform.translation, stamped.transform.rotation
    stamp = stamped.header.stamp
    try:
        T = rigid(matrix_from_quat_xyzw(np.array([q.x, q.y, q.z, q.w])), np.array([t.x, t.y, t.z]))
        tree.add(stamped.header.frame_id, stamped.child_frame_id, T, stamp.sec * NS + stamp.nanosec, static)
    except InputError as error:
        _log.warning(f"transform to '{stamped.child_frame_id}' ignored: {error}")


def _camera(info: Any, image_topic: str, info_topic: str) -> _Camera:
    rectified = is_rectified_by_name(image_topic)
    matrix = (
        np.asarray(info.p, dtype=np.float64).reshape(3, 4)[:, :3] if rectified else np.asarray(info.k).reshape(3, 3)
    )
    try:
        return _Camera(
            frame=info.header.frame_id.lstrip("/"),
            intrinsics=Intrinsics(
                info.width,
                info.height,
                float(matrix[0, 0]),
                float(matrix[1, 1]),
                float(matrix[0, 2]),
                float(matrix[1, 2]),
            ),
            distortion=Distortion() if rectified else Distortion.from_ros(info.distortion_model, info.d),
        )
    except InputError as error:
        raise DataFormatError(f"{info_topic}: {error}; an uncalibrated camera gives no metric views") from error


def _check_size(image: np.ndarray, camera: _Camera, topic: str, info_topic: str) -> None:
    height, width = image.shape[:2]
    if (width, height) != (camera.intrinsics.width, camera.intrinsics.height):
        raise DataFormatError(
            f"{topic}: images are {width}x{height}, but {info_topic} is for "
            f"{camera.intrinsics.width}x{camera.intrinsics.height}"
        )


def _because(bag: Bag) -> str:
    return f" ({bag.damage})" if bag.damage else ""
