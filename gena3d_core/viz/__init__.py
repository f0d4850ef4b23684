"""Pictures: contact sheets and overviews of a reconstruction. No window, no GPU."""

from .contact_sheet import contact_sheet

__all__ = ["contact_sheet"]
