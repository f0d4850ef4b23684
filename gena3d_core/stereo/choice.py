"""The stereo matcher `auto`: the best one that the views and this machine allow, as far as licences allow every use."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from ..checkpoints.front_end_table import FrontEndModel
from ..checkpoints.front_ends import front_end, licence_text, present_folder
from ..errors import Gena3DError, InputError
from ..types import View
from . import LEARNED, StereoMatcher, make_stereo_matcher

log = logging.getLogger("gena3d")

AUTO = "auto"


def weights_here(name: str) -> FrontEndModel | None:
    """The model whose weights the learned matcher `name` would run on; None: none of them is on this machine."""
    models = (front_end(model) for model in LEARNED[name])
    return next((model for model in models if present_folder(model) is not None), None)


def matchers_at_hand(device: str = "cpu") -> dict[str, StereoMatcher]:
    """Every matcher that this machine has what it needs for, in the order in which `choose` prefers them.

    Weights are checked, and read on first use; damaged ones are logged and left out. Learned matchers whose licence
    forbids commercial use come last: nobody has asked for them by name.
    """
    found: dict[str, StereoMatcher] = {"depth_camera": make_stereo_matcher("depth_camera", device=device)}
    here = {name: model for name in LEARNED if (model := weights_here(name)) is not None}
    free = [name for name, model in here.items() if model.non_commercial is False]
    found |= _made(free, device)
    found["plane_sweep"] = make_stereo_matcher("plane_sweep", device=device)
    if find_spec("pycolmap") is not None:
        found["sfm"] = make_stereo_matcher("sfm", device=device)
    return found | _made([name for name in here if name not in free], device)


def _made(names: Sequence[str], device: str) -> dict[str, StereoMatcher]:
    found = {}
    for name in names:
        try:
            found[name] = make_stereo_matcher(name, device=device, load_now=False)
        except Gena3DError as error:
            log.warning("stereo: auto leaves out '%s': %s", name, error)
    return found


def choose(views: Sequence[View], at_hand: Mapping[str, StereoMatcher]) -> str:
    """The name of the first matcher at hand (see `matchers_at_hand`) that these views allow; the choice is logged.

    Raises `InputError` for views without poses where nothing at hand can find them.
    """
    posed, measured = (
        all(given) for given in zip(*((v.pose_known, v.depth_m is not None) for v in views), strict=True)
    )
    allowed = {"depth_camera": posed and measured, "plane_sweep": posed, "sfm": not posed}
    name = next((name for name in at_hand if allowed.get(name, True)), None)
    if name is None:
        raise InputError(no_poses_text([view.name for view in views if not view.pose_known]))
    log.info("stereo: auto chose '%s': %s", name, _reason(name, posed))
    return name


def _reason(name: str, posed: bool) -> str:
    if name == "depth_camera":
        return "every view has depth and a pose"
    lacking = "a view has no depth" if posed else "a view has no pose"
    if name in LEARNED:
        model = weights_here(name)
        licence = f" ({licence_text(model)})" if model is not None else ""
        return f"{lacking}, and its weights are here{licence}"
    return f"{lacking}, and no weights that may be used for everything are here; learned ones are taken by name"


def no_poses_text(names: Sequence[str]) -> str:
    """What to do about views without poses."""
    shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    return (
        f"views without camera poses: {shown}. Take a stereo matcher that finds poses: 'pi3' (weights: gena3d "
        "checkpoint info pi3), or 'sfm' (no weights: pip install 'gena3d[sfm]')"
    )
