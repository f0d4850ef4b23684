"""What a caller may tell about a rosbag2 recording."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BagOptions:
    """How to read a recording; empty names are found out.

    world_frame          frame of the poses; else the root of the TF tree that holds the camera
    max_skew_s           colour and depth no further apart than this make a view
    max_extrapolation_s  TF may end or begin so much short of an image
    """

    color_topic: str = ""
    depth_topic: str = ""
    camera_info_topic: str = ""
    world_frame: str = ""
    max_skew_s: float = 0.02
    max_extrapolation_s: float = 0.1
