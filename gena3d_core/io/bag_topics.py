"""Which topics of a recording hold colour, depth, camera infos and transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import DataFormatError, InputError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
INFO_TYPE = "sensor_msgs/msg/CameraInfo"
TF_TYPE = "tf2_msgs/msg/TFMessage"
_TRANSPORTS = ("compressed", "compressedDepth", "raw")
_NOT_COLOR = ("depth", "disparity", "infra", "/ir", "mask", "label", "confidence", "overlay", "theora", "debug")
_REGISTERED = ("aligned", "registered", "to_color", "to_rgb")


@dataclass(frozen=True)
class BagTopics:
    """The topics to read; `depth` and `depth_info` are empty without a depth camera.

    other_colors  colour topics that were passed over
    """

    color: str
    color_info: str
    depth: str
    depth_info: str
    tf: tuple[str, ...]
    other_colors: tuple[str, ...] = ()


def find_topics(topics: Mapping[str, str], color: str = "", depth: str = "", camera_info: str = "") -> BagTopics:
    """Choose among `topics` (name -> type); a name given by the caller is taken as it is.

    Raises `InputError` for a given name that the recording lacks, `DataFormatError` when something needed is absent.
    """
    for name in (color, depth, camera_info):
        if name and name not in topics:
            raise InputError(f"the recording has no topic '{name}'; it has {', '.join(sorted(topics)) or 'none'}")
    images = sorted(name for name, kind in topics.items() if kind in IMAGE_TYPES)
    infos = sorted(name for name, kind in topics.items() if kind == INFO_TYPE)
    tf = tuple(sorted(name for name, kind in topics.items() if kind == TF_TYPE))
    colors = sorted(
        (name for name in images if not any(word in name.lower() for word in _NOT_COLOR)),
        key=lambda name: _color_rank(name, topics),
    )
    if not color and not colors:
        raise DataFormatError(
            f"no colour image topic ({' or '.join(IMAGE_TYPES)}) among: {', '.join(sorted(topics)) or 'no topics'}"
        )
    color = color or colors[0]
    if not infos:
        raise DataFormatError(f"no camera info ({INFO_TYPE}) is recorded; record the one beside {color}")
    if not tf:
        raise DataFormatError(
            f"no transforms ({TF_TYPE}) are recorded, so the camera's poses are unknown; record /tf and /tf_static"
        )
    if not depth:
        depths = sorted((n for n in images if "depth" in n.lower()), key=lambda name: _depth_rank(name, color, topics))
        depth = depths[0] if depths else ""
    return BagTopics(
        color=color,
        color_info=camera_info or _info_for(color, infos),
        depth=depth,
        depth_info=_info_for(depth, infos) if depth else "",
        tf=tf,
        other_colors=tuple(name for name in colors if _base(name) != _base(color)),
    )


def is_registered_by_name(depth_topic: str) -> bool:
    """Whether a depth topic's name says that it is aligned to the colour camera."""
    return any(word in depth_topic.lower() for word in _REGISTERED)


def is_rectified_by_name(image_topic: str) -> bool:
    """Whether an image topic's name says that distortion has been removed (`image_rect`, `image_rect_color`)."""
    return "rect" in _base(image_topic).rsplit("/", 1)[-1]


def _base(name: str) -> str:
    head, _, tail = name.rpartition("/")
    return head if tail in _TRANSPORTS else name


def _shared_parts(a: str, b: str) -> int:
    parts_a, parts_b = a.split("/"), b.split("/")
    return next((i for i, (x, y) in enumerate(zip(parts_a, parts_b, strict=False)) if x != y), len(parts_a))


def _info_for(image: str, infos: list[str]) -> str:
    sibling = _base(image).rpartition("/")[0] + "/camera_info"
    return sibling if sibling in infos else max(infos, key=lambda info: _shared_parts(image, info))


def _color_rank(name: str, topics: Mapping[str, str]) -> tuple:
    lower = name.lower()
    has_info = _base(name).rpartition("/")[0] + "/camera_info" in topics
    return (not has_info, not ("color" in lower or "rgb" in lower), topics[name] != IMAGE_TYPES[0], len(name), name)


def _depth_rank(name: str, color: str, topics: Mapping[str, str]) -> tuple:
    raw = topics[name] == IMAGE_TYPES[0]
    return (not is_registered_by_name(name), -_shared_parts(name, color), not raw, name)
