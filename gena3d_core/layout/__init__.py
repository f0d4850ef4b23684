"""Objects in the world: registration to the metric cloud, contact with the support, no penetration."""

from .placement import LayoutLimits, place_objects

__all__ = ["LayoutLimits", "place_objects"]
