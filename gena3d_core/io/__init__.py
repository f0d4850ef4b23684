"""Recordings in (RGB-D folders, nerfstudio, rosbag2), scenes out (scene.json and .glb)."""

from .bag_options import BagOptions
from .image_files import write_picture
from .load import Recording, check_input, is_photos, load_recording, load_views
from .nerfstudio import PosedImages
from .photo_scenes import PhotoScene, is_photo_scene, load_photo_scene
from .plain_images import is_plain_images, load_photos, refuse_plain_images
from .rgbd_folder import RgbdFolder
from .scene import load_scene, save_scene

__all__ = [
    "BagOptions",
    "PhotoScene",
    "PosedImages",
    "Recording",
    "RgbdFolder",
    "check_input",
    "is_photo_scene",
    "is_photos",
    "is_plain_images",
    "load_photo_scene",
    "load_photos",
    "load_recording",
    "load_scene",
    "load_views",
    "refuse_plain_images",
    "save_scene",
    "write_picture",
]
