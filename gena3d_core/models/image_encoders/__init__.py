"""Image encoders: crops of an object to the tokens that the generators attend to."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class ImageEncoder(Protocol):
    """What every encoder here offers.

    image_size      side of the crops it was trained on, pixels
    in_channels     leading channels of the crops that it reads
    width           channels of its tokens
    special_tokens  leading tokens that stand for no patch (class and register tokens)
    """

    @property
    def image_size(self) -> int: ...

    @property
    def in_channels(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def special_tokens(self) -> int: ...

    def encode(self, images: Tensor) -> Tensor:
        """Crops (P, 3 to 5, S, S) -> tokens (P, L, width).

        Channels: red, green, blue in [0, 1] over black, then the visible and the occluded mask in {0, 1}; those
        beyond `in_channels` are not read. Raises `InputError` for too few channels or a size that does not fit.
        """
        ...
