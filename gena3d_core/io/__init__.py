"""Recordings in (RGB-D folders, nerfstudio, rosbag2), scenes out (scene.json and .glb)."""

from .load import load_views
from .rgbd_folder import RgbdFolder

__all__ = ["RgbdFolder", "load_views"]
