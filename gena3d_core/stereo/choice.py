"""The stereo matcher `auto`: the best one that the views and this machine allow."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from ..checkpoints.front_ends import front_end, present_folder
from ..errors import Gena3DError, InputError
from ..types import View
from . import LEARNED, StereoMatcher, make_stereo_matcher

log = logging.getLogger("gena3d")

AUTO = "auto"


def matchers_at_hand(device: str = "cpu") -> dict[str, StereoMatcher]:
    """Every matcher that this machine has what it needs for, best first; weights are checked, and read on first use.

    Damaged weights are logged and left out.
    """
    found: dict[str, StereoMatcher] = {"depth_camera": make_stereo_matcher("depth_camera", device=device)}
    for name in LEARNED:
        if present_folder(front_end(name)) is None:
            continue
        try:
            found[name] = make_stereo_matcher(name, device=device, load_now=False)
        except Gena3DError as error:
            log.warning("stereo: auto leaves out '%s': %s", name, error)
    found["plane_sweep"] = make_stereo_matcher("plane_sweep", device=device)
    if find_spec("pycolmap") is not None:
        found["sfm"] = make_stereo_matcher("sfm", device=device)
    return found


def choose(views: Sequence[View], at_hand: Mapping[str, StereoMatcher]) -> str:
    """The name of the best matcher for these views; the choice is logged.

    Raises `InputError` for views without poses where nothing at hand can find them.
    """
    posed, measured = (
        all(given) for given in zip(*((v.pose_known, v.depth_m is not None) for v in views), strict=True)
    )
    learned = next((name for name in LEARNED if name in at_hand), None)
    if posed and measured:
        name, why = "depth_camera", "every view has depth and a pose"
    elif learned is not None:
        name, why = learned, f"{'a view has no depth' if posed else 'a view has no pose'}, and its weights are here"
    elif posed:
        name, why = "plane_sweep", f"a view has no depth, and no weights of {' or '.join(LEARNED)} are here"
    elif "sfm" in at_hand:
        name, why = "sfm", f"a view has no pose, and no weights of {' or '.join(LEARNED)} are here"
    else:
        raise InputError(no_poses_text([view.name for view in views if not view.pose_known]))
    log.info("stereo: auto chose '%s': %s", name, why)
    return name


def no_poses_text(names: Sequence[str]) -> str:
    """What to do about views without poses."""
    shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    return (
        f"views without camera poses: {shown}. Take a stereo matcher that finds poses: 'pi3' (weights: gena3d "
        "checkpoint info pi3), or 'sfm' (no weights: pip install 'gena3d[sfm]')"
    )
