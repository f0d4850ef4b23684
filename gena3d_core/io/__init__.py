"""Recordings in (RGB-D folders, nerfstudio, rosbag2), scenes out (scene.json and .glb)."""

from .load import load_views
from .nerfstudio import PosedImages
from .rgbd_folder import RgbdFolder
from .scene import load_scene, save_scene

__all__ = ["PosedImages", "RgbdFolder", "load_scene", "load_views", "save_scene"]
