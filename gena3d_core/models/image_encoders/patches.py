"""What the image encoders share: colour normalisation and position tables of other image sizes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised_channels(images: Tensor, channels: int, multiple: int) -> Tensor:
    """The first `channels` of images (P, >= channels, H, W); the three of colour, in [0, 1], by ImageNet's statistics.

    Raises `InputError` for fewer channels, or sides that are not multiples of `multiple`.
    """
    check_images(images, channels, multiple)
    mean = torch.tensor(IMAGENET_MEAN, device=images.device, dtype=torch.float32)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device, dtype=torch.float32)[:, None, None]
    color = (images[:, :3].float() - mean) / std
    return torch.cat([color, images[:, 3:channels].float()], dim=1)


def check_images(images: Tensor, channels: int, multiple: int) -> None:
    """Raise `InputError` unless images are (P, >= channels, H, W) with sides that are multiples of `multiple`."""
    if images.ndim != 4 or images.shape[1] < channels:
        raise InputError(f"images must be (P, {channels} or more, H, W), got {tuple(images.shape)}")
    height, width = images.shape[-2:]
    if height % multiple or width % multiple or not height or not width:
        raise InputError(f"image sides must be multiples of {multiple} pixels, got {height} x {width}")


def resized_positions(table: Tensor, height: int, width: int, *, antialias: bool = True, offset: float = 0.0) -> Tensor:
    """Position table of a square grid, (1, n², C), for a grid of height x width tokens: (1, height · width, C).

    Bicubic, to exactly that grid; offset, in tokens, is added before the scale is taken (some DINOv2 models were
    trained with 0.1).
    """
    side = round(table.shape[1] ** 0.5)
    if (height, width) == (side, side):
        return table
    grid = table.float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
    if offset:
        scale = [(height + offset) / side, (width + offset) / side]
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=antialias)
    if grid.shape[-2:] != (height, width):
        raise InputError(f"position offset {offset} gives {tuple(grid.shape[-2:])} tokens, not {(height, width)}")
    return grid.flatten(2).transpose(1, 2).to(table.dtype)
