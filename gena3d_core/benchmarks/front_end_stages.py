"""Which front ends there are to measure, and how each is made and run on views."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.front_ends import front_end, present_folder, required_folder
from ..errors import Gena3DError
from ..stereo import LEARNED
from ..types import ObjectObservation, View
from ..view_completion import NETWORKS

Run = Callable[[int], dict[str, Any]]
"""Does the work once; the argument is the number of the run, which must not find the run before remembered. Gives facts
about the result for the row."""
Make = Callable[[Sequence[View], str, str | None], Run]
"""From views, device and checkpoint (None: the usual place) to what is run; loads the weights."""
TINY, REAL, NONE = "tiny", "real", "no weights"


@dataclass(frozen=True)
class FrontEnd:
    """One thing to measure: `size` is `TINY` (random weights), `REAL`, or `NONE` for one that takes no weights.

    models  of `checkpoints.front_end_table`, the real one needs the weights of one of them
    """

    stage: str
    name: str
    size: str
    make: Make
    models: tuple[str, ...] = ()

    def missing(self) -> str:
        """Why the real one cannot be measured with weights in their usual place; empty where they are there."""
        if self.size != REAL or any(present_folder(front_end(name)) for name in self.models):
            return ""
        try:
            required_folder(front_end(self.models[-1]))
        except Gena3DError as error:
            return str(error)
        return ""


def _segmenter(name: str, tiny: bool = False) -> Make:
    def make(views: Sequence[View], device: str, checkpoint: str | None) -> Run:
        from ..segmentation import make_segmenter

        options = {"checkpoint": checkpoint} if checkpoint else {}
        segmenter = _tiny_segmenter(name, device) if tiny else make_segmenter(name, device=device, **options)
        return lambda _: {"objects": len(segmenter(views).objects)}

    return make


def _tiny_segmenter(name: str, device: str) -> Any:
    from ..segmentation.promptable import Promptable
    from . import tiny_networks

    if name == "sam":
        from ..segmentation.segment_anything_model import SegmentAnything

        return Promptable(SegmentAnything(tiny_networks.tiny_sam(), device), name=name)
    from ..segmentation.transformers_import import import_transformers
    from ..segmentation.transformers_mask_model import FAMILIES, TransformersMaskModel

    import_transformers(f"the segmenter '{name}'", [FAMILIES["sam2"].class_name])
    masks = Promptable(TransformersMaskModel(tiny_networks.tiny_sam2(), FAMILIES["sam2"], device), name=name)
    if name == "sam2":
        return masks
    from ..segmentation.florence2 import Florence2
    from ..segmentation.grounded import Grounded

    network, tokenizer = tiny_networks.tiny_florence2()
    return Grounded(Florence2(network, tokenizer, device=device, image_size=64, max_new_tokens=20), masks)


def _stereo(name: str, tiny: bool = False) -> Make:
    def make(views: Sequence[View], device: str, checkpoint: str | None) -> Run:
        from ..stereo import make_stereo_matcher, match_views

        options = {"checkpoint": checkpoint} if checkpoint else {}
        matcher = _tiny_stereo(name, device) if tiny else make_stereo_matcher(name, device=device, **options)
        # What measures depth needs it; the others must not be helped by it.
        given = (
            views if name == "depth_camera" else [replace(view, depth_m=None, depth_confidence=None) for view in views]
        )

        def run(number: int) -> dict[str, Any]:
            found = match_views(matcher, [_changed(view, number) for view in given]).views
            known = [np.isfinite(view.depth_m).mean() for view in found if view.depth_m is not None]
            return {"known_depth": float(np.mean(known)) if known else 0.0}

        return run

    return make


def _tiny_stereo(name: str, device: str) -> Any:
    from ..stereo.learned import LearnedStereo, LearnedStereoConfig
    from .tiny_networks import tiny_pi3

    network = tiny_pi3().to(device)
    return LearnedStereo(name, lambda: network, LearnedStereoConfig(min_confidence=0.0, edge_ratio=1e6), device)


def _changed(view: View, number: int) -> View:
    """The view with one pixel of another colour, so that nothing is found remembered."""
    color = view.color.copy()
    color.reshape(-1)[number % color.size] ^= 1
    return replace(view, color=color)


def _masks_only(views: Sequence[View], device: str, checkpoint: str | None) -> Run:
    from ..amodal.occlusion import occlusion_masks

    observations = _observations(views)

    def run(_: int) -> dict[str, Any]:
        hidden = [occlusion_masks(o.views, o.visible_masks, o.points_m, o.support) for o in observations]
        return {"objects": len(hidden), "hidden_pixels": int(sum(mask.sum() for masks in hidden for mask in masks))}

    return run


def _completer(name: str, tiny: bool = False) -> Make:
    def make(views: Sequence[View], device: str, checkpoint: str | None) -> Run:
        from ..view_completion import make_view_completer

        options = {"checkpoint": checkpoint} if checkpoint else {}
        completer: Any = _tiny_completer(name, device) if tiny else make_view_completer(name, device=device, **options)
        inpainter = completer.inpainter
        observations = _observations(views)
        painted = _Counted(inpainter)
        completer.inpainter = painted

        def run(number: int) -> dict[str, Any]:
            painted.count = 0
            completer.complete(observations, seed=number)
            return {"objects": len(observations), "pictures": painted.count, "steps": inpainter.steps}

        return run

    return make


class _Counted:
    """An inpainter that counts the pictures it paints."""

    def __init__(self, inpainter: Any) -> None:
        self.inpainter, self.count = inpainter, 0
        self.side, self.name = inpainter.side, inpainter.name

    def __call__(self, tasks: Any) -> Any:
        self.count += len(tasks)
        return self.inpainter(tasks)

    def close(self) -> None:
        self.inpainter.close()


def _tiny_completer(name: str, device: str) -> Any:
    from ..amodal.diffusers_folder import require_diffusers
    from ..view_completion import make_view_completer
    from . import tiny_diffusion

    require_diffusers(f"the amodal completer '{name}'")
    save, options = tiny_diffusion.SAVED[name]
    with tempfile.TemporaryDirectory() as folder:
        completer: Any = make_view_completer(
            name, checkpoint=str(save(Path(folder))), device=device, steps=4, **options
        )
        completer.inpainter.open()
    return completer


def _observations(views: Sequence[View]) -> list[ObjectObservation]:
    """What the tabletop segmenter finds, as the stage is given it."""
    from ..observation import build_observations
    from ..segmentation import make_segmenter
    from ..stereo import make_stereo_matcher

    measured = make_stereo_matcher("depth_camera")(views)
    return build_observations(measured, make_segmenter("tabletop")(measured))


SEGMENTER_MODELS = {
    "sam": ("sam-vit-h", "sam-vit-l", "sam-vit-b"),
    "sam2": ("sam2",),
    "sam3": ("sam3",),
    "grounded": ("florence-2",),
}
FRONT_ENDS: tuple[FrontEnd, ...] = (
    FrontEnd("segmentation", "tabletop", NONE, _segmenter("tabletop")),
    *(FrontEnd("segmentation", name, TINY, _segmenter(name, True)) for name in ("sam", "sam2", "grounded")),
    *(FrontEnd("segmentation", name, REAL, _segmenter(name), models) for name, models in SEGMENTER_MODELS.items()),
    *(FrontEnd("stereo", name, NONE, _stereo(name)) for name in ("depth_camera", "plane_sweep", "sfm")),
    FrontEnd("stereo", "pi3", TINY, _stereo("pi3", True)),
    *(FrontEnd("stereo", name, REAL, _stereo(name), models) for name, models in LEARNED.items()),
    FrontEnd("amodal", "none", NONE, _masks_only),
    *(FrontEnd("amodal", name, TINY, _completer(name, True)) for name in NETWORKS),
    *(FrontEnd("amodal", name, REAL, _completer(name), (model,)) for name, model in NETWORKS.items()),
)
STAGES: Mapping[str, str] = {
    "segmentation": "masks of the objects in all views",
    "stereo": "depth, and poses where they are found, of all views",
    "amodal": "hidden parts of the objects in all views",
}
"""Stage -> what one run of it gives."""
