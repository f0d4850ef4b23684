"""Keyframes: image quality and the choice of the most informative views."""

from .quality import ImageQuality, image_quality, sharpness
from .selection import KeyframeConfig, KeyframeDecision, KeyframeSelector, select_keyframes, select_poses

__all__ = [
    "ImageQuality",
    "KeyframeConfig",
    "KeyframeDecision",
    "KeyframeSelector",
    "image_quality",
    "select_keyframes",
    "select_poses",
    "sharpness",
]
