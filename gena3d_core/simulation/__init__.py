"""Synthetic tabletop scenes: textured primitives, a scene file, a ray-casting renderer and a sensor noise model."""

from .ground_truth import ground_truth
from .noise import NoiseSpec, color_noise, structured_light_noise
from .primitives import make_primitive
from .renderer import RenderedView, Renderer, views_from_scene
from .scene import SceneSpec
from .scene_file import load_scene_spec
from .scene_library import default_scene, find_scene, random_scene

__all__ = [
    "NoiseSpec",
    "RenderedView",
    "Renderer",
    "SceneSpec",
    "color_noise",
    "default_scene",
    "find_scene",
    "ground_truth",
    "load_scene_spec",
    "make_primitive",
    "random_scene",
    "structured_light_noise",
    "views_from_scene",
]
