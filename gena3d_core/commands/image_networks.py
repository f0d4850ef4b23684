"""Options that name the weights of networks by which pictures are compared."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

IMAGE_NETWORKS = {
    "inception": ("FID, KID", "TorchScript file"),
    "clip": ("CLIP score", "TorchScript file or folder of transformers"),
    "lpips": ("LPIPS", "folder of backbone.safetensors and linear.safetensors, or TorchScript file"),
    "judge": ("PCS", "folder of a vision-language model of transformers"),
    "dino": ("DINO similarity", "DINOv2: file of the torch hub or folder of transformers"),
}
"""Option -> (figures, what its weights are)."""


def add_network_arguments(parser: argparse.ArgumentParser, names: Collection[str] = tuple(IMAGE_NETWORKS)) -> None:
    """An option for each network of `names`."""
    pictures = parser.add_argument_group("metrics of pictures, by networks whose weights you have")
    for name in names:
        what, kind = IMAGE_NETWORKS[name]
        pictures.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"{what}: {kind}")


def given_networks(args: argparse.Namespace) -> tuple[tuple[str, Path], ...]:
    """Names and paths of the networks asked for, each of which was opened once: what is wrong shows before the work."""
    from ..metrics.image_networks import load_networks

    networks = tuple((name, getattr(args, name)) for name in IMAGE_NETWORKS if getattr(args, name, None) is not None)
    load_networks(dict(networks))
    return networks
