"""The segmenter `auto`: the best one that this machine has the weights and packages for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec

from ..checkpoints.front_ends import front_end, licence_text, present_folder
from ..errors import Gena3DError, InputError
from ..types import BoxPrompt, PointPrompt, Prompt, Segmentation, TextPrompt, View
from . import Segmenter
from .grounded import Grounded
from .learned import SAM_SIZES, load_detector, make_promptable
from .promptable import Promptable
from .tabletop import Tabletop, TabletopConfig

log = logging.getLogger("gena3d")

MASK_NETWORKS = {"sam3": ("sam3",), "sam2": ("sam2",), "sam": SAM_SIZES}
"""Segmenters on mask networks, best first -> the models of `checkpoints.front_end_table` of which each needs one."""
PACKAGES = {"sam3": "transformers", "sam2": "transformers", "sam": "segment_anything", "grounded": "transformers"}
DETECTOR = "florence-2"


class AutoSegmenter:
    """`Segmenter`: words go to the detector, all else to the mask network, or without weights to the tabletop."""

    def __init__(self, plain: Segmenter, with_words: Segmenter | None = None) -> None:
        self.plain, self.with_words = plain, with_words
        words = frozenset() if with_words is None else frozenset({TextPrompt})
        self.prompt_kinds: frozenset[type] = frozenset({BoxPrompt, PointPrompt}) | words

    def __call__(self, views: Sequence[View], prompts: Sequence[Prompt] = ()) -> Segmentation:
        """See `Segmenter`; raises `InputError` for words where no detector is here."""
        if not any(isinstance(prompt, TextPrompt) for prompt in prompts):
            return self.plain(views, prompts)
        if self.with_words is None:
            raise InputError(
                "segmenter 'auto' takes words only with the weights of Florence-2 and of a mask network: see gena3d "
                f"checkpoint info {DETECTOR} and gena3d checkpoint info {SAM_SIZES[-1]}"
            )
        return self.with_words(views, prompts)


def make_auto(device: str = "cpu") -> AutoSegmenter:
    """The best segmenter whose weights and packages are here; the choice is logged, and what had to be left out."""
    network = _mask_network(device)
    detector = None if network is None else _with_detector(network, device)
    plain: Segmenter = Tabletop(TabletopConfig()) if network is None else network
    words = "takes no words" if detector is None else "words through Florence-2"
    name = "tabletop" if network is None else network.name
    log.info("segmentation: auto chose '%s', %s", name, words)
    return AutoSegmenter(plain, detector)


def _mask_network(device: str) -> Promptable | None:
    for name, models in MASK_NETWORKS.items():
        here = [model for model in models if present_folder(front_end(model)) is not None]
        if not here or find_spec(PACKAGES[name]) is None:
            continue
        try:
            found = make_promptable(name, device=device)
        except Gena3DError as error:
            log.warning("segmentation: auto leaves out '%s': %s", name, error)
            continue
        log.info("segmentation: '%s' runs on %s (%s)", name, here[0], licence_text(front_end(here[0])))
        return found
    return None


def _with_detector(network: Promptable, device: str) -> Grounded | None:
    if present_folder(front_end(DETECTOR)) is None or find_spec(PACKAGES["grounded"]) is None:
        return None
    try:
        return Grounded(load_detector(None, device), network)
    except Gena3DError as error:
        log.warning("segmentation: auto takes no words: %s", error)
        return None
