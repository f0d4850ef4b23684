"""Drawing on RGB arrays: text with a real font, rounded boxes, thumbnails. PIL and OpenCV only."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import MissingDependencyError
from ..types import UInt8Array

Color = tuple[int, int, int]
INK: Color = (28, 33, 40)
MUTED: Color = (104, 112, 122)
FAINT: Color = (205, 210, 216)
PAPER: Color = (250, 250, 248)
CARD: Color = (255, 255, 255)
WHITE: Color = (255, 255, 255)
PALETTE: tuple[Color, ...] = (
    (232, 89, 60), (47, 128, 214), (42, 157, 98), (240, 168, 32), (140, 86, 198),
    (0, 163, 173), (219, 84, 146), (120, 140, 40), (150, 98, 66), (84, 104, 150),
)  # fmt: skip
"""One colour for each object, in order, repeated."""


def object_color(index: int) -> Color:
    """Colour of the `index`-th object."""
    return PALETTE[index % len(PALETTE)]


@lru_cache(maxsize=32)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow brings along, `size` pixels high; with a Pillow before 10.1, one of the system's."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        pass
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError as error:
        raise MissingDependencyError("pillow", "a picture with text", "'pillow>=10.1'") from error


def text_width(text: str, size: int) -> int:
    """Width of `text` in pixels."""
    return int(np.ceil(font(size).getlength(text)))


def fitted(text: str, size: int, width: int) -> str:
    """`text`, shortened with an ellipsis to at most `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def wrapped(text: str, size: int, width: int) -> list[str]:
    """`text` broken at spaces into lines of at most `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] = f"{lines[-1]} {word}"
        else:
            lines.append(fitted(word, size, width))
    return lines


class Canvas:
    """An RGB picture to draw on; coordinates are pixels (x, y) from the top left."""

    def __init__(self, width: int, height: int, background: Color = PAPER) -> None:
        self._image = Image.new("RGB", (width, height), background)
        self._draw = ImageDraw.Draw(self._image)

    @classmethod
    def over(cls, picture: UInt8Array) -> Canvas:
        """A canvas that starts as a copy of `picture` (H, W, 3)."""
        canvas = cls(picture.shape[1], picture.shape[0])
        canvas.paste(picture, (0, 0))
        return canvas

    @property
    def pixels(self) -> UInt8Array:
        """(H, W, 3) uint8 RGB copy of what has been drawn."""
        return np.array(self._image, dtype=np.uint8)

    def text(self, at: tuple[int, int], text: str, size: int, color: Color = INK, anchor: str = "la") -> None:
        """One line of text; `anchor` as in PIL (la: left, top of the line; mm: centre)."""
        self._draw.text(at, text, fill=color, font=font(size), anchor=anchor)

    def box(
        self, box: tuple[int, int, int, int], fill: Color | None, outline: Color | None = None, radius: int = 0
    ) -> None:
        """Rounded rectangle (left, top, right, bottom)."""
        self._draw.rounded_rectangle(box, radius, fill=fill, outline=outline)

    def line(self, start: tuple[int, int], end: tuple[int, int], color: Color, width: int = 1) -> None:
        """Straight line."""
        self._draw.line([start, end], fill=color, width=width)

    def paste(self, picture: UInt8Array, at: tuple[int, int], radius: int = 0) -> None:
        """Put `picture` with its top left corner at `at`, its corners rounded."""
        source = Image.fromarray(np.ascontiguousarray(picture))
        self._image.paste(source, at, _rounded_mask(source.width, source.height, radius) if radius else None)

    def chip(self, at: tuple[int, int], text: str, size: int, color: Color) -> tuple[int, int, int, int]:
        """White text on a pill of `color`, top left corner at `at`; its box."""
        pad = max(3, size // 2)
        box = (at[0], at[1], at[0] + text_width(text, size) + 2 * pad, at[1] + size + pad)
        self.box(box, color, radius=(size + pad) // 2)
        self.text((at[0] + pad, (box[1] + box[3]) // 2), text, size, WHITE, anchor="lm")
        return box


def resized(picture: UInt8Array, width: int, height: int) -> UInt8Array:
    """`picture` scaled to fit into (width, height), cut at the longer side so that it fills it."""
    scale = max(width / picture.shape[1], height / picture.shape[0])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale)))
    large = cv2.resize(picture, size, interpolation=method)
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width], dtype=np.uint8)


@lru_cache(maxsize=64)
def _rounded_mask(width: int, height: int, radius: int) -> Image.Image:
    large = Image.new("L", (4 * width, 4 * height), 0)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, 4 * width - 1, 4 * height - 1), 4 * radius, fill=255)
    return large.resize((width, height), Image.Resampling.LANCZOS)
