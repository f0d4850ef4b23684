"""Objects in the world: registration to the metric cloud, relative layouts in metres, support and no penetration."""

from .placement import LayoutLimits, place_objects
from .relative_layout import RelativeLayout
from .scene_layout import PlacedScene, SceneLayoutConfig, place_scene

__all__ = ["LayoutLimits", "PlacedScene", "RelativeLayout", "SceneLayoutConfig", "place_objects", "place_scene"]
