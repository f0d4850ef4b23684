"""Pictures: contact sheets, overviews of a reconstruction, renders. No window needed, no GPU."""

from .contact_sheet import contact_sheet
from .overview import overview
from .scene_picture import scene_picture
from .scene_sheet import scene_sheet

__all__ = ["contact_sheet", "overview", "scene_picture", "scene_sheet"]
