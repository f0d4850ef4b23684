"""One reconstruction: what it is asked for, and the pipeline that does it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from gena3d_core.errors import Gena3DError, InputError, StageError
from gena3d_core.types import BoxPrompt, CancelCheck, ProgressCallback, Reconstruction, View, check_cancelled
from gena3d_ros.action import Reconstruct
from gena3d_ros.msg import ViewSet

from . import conversions
from .parameter_table import ReconstructionParameters

VIEWS_STAGE = "views"
"""Name under which the decoding of view messages is reported, before the pipeline's own stages."""


class PipelineLike(Protocol):
    """What the node needs of `gena3d_core.pipeline.Pipeline`."""

    def run(
        self,
        views: Sequence[View],
        *,
        boxes: Sequence[BoxPrompt],
        text_prompts: Sequence[str],
        hypotheses: int,
        seed: int,
        frame_id: str,
        progress: ProgressCallback | None,
        cancelled: CancelCheck | None,
    ) -> Reconstruction: ...


@dataclass(frozen=True)
class Request:
    """What one reconstruction is made of."""

    view_set: ViewSet
    view_names: tuple[str, ...] = ()
    boxes: tuple[BoxPrompt, ...] = ()
    text_prompts: tuple[str, ...] = ()
    hypotheses: int = 1
    seed: int = 0


def make_pipeline(parameters: ReconstructionParameters) -> PipelineLike:
    """The pipeline that the parameters describe."""
    from gena3d_core.pipeline import Pipeline, PipelineConfig  # brings in torch

    options = _generator_options(parameters)
    chosen: dict[str, Any] = {"generator": parameters.generator, "generator_options": options}
    if parameters.mode == "scene":
        chosen = {"scene_generator": parameters.generator, "scene_options": options}
    return Pipeline(
        PipelineConfig(
            stereo=parameters.stereo,
            segmenter=parameters.segmenter,
            mode=parameters.mode,
            **chosen,
            amodal=parameters.amodal,
            refine_poses=parameters.refine_poses,
            max_faces=parameters.max_faces,
            watertight=parameters.watertight,
            device=parameters.device,
        )
    )


def _generator_options(parameters: ReconstructionParameters) -> dict[str, object]:
    """Options of the generator that are set: an empty text and 0 leave the choice to it."""
    named = {
        "checkpoint": parameters.checkpoint,
        "steps": parameters.sampling_steps,
        "max_memory": parameters.max_memory,
    }
    return {name: value for name, value in named.items() if value}


def release_gpu_memory() -> None:
    """Give memory that torch keeps for models which are gone back to the GPU."""
    if "torch" in sys.modules:
        from gena3d_core.device import release_cached_memory

        release_cached_memory()


def reconstruct(
    pipeline: PipelineLike, request: Request, progress: ProgressCallback, cancelled: CancelCheck
) -> Reconstruction:
    """Decode the views of a request and run the pipeline on them; bad views are a failure of stage `views`."""
    progress(VIEWS_STAGE, 0.0)
    start = time.perf_counter()
    try:
        views = conversions.view_set_from_msg(request.view_set, request.view_names)
        if not views:
            raise InputError("the view set is empty: show the camera something, or call the accumulator's capture_view")
    except Gena3DError as error:
        raise StageError(VIEWS_STAGE, str(error)) from error
    decoding_s = time.perf_counter() - start
    check_cancelled(cancelled)
    result = pipeline.run(
        views,
        boxes=request.boxes,
        text_prompts=request.text_prompts,
        hypotheses=request.hypotheses,
        seed=request.seed,
        frame_id=request.view_set.header.frame_id,
        progress=progress,
        cancelled=cancelled,
    )
    if not result.scene.metric:
        raise StageError("layout", "nothing tells the size of the scene in metres: use views with depth, or several")
    timings_s = {VIEWS_STAGE: decoding_s, **result.scene.timings_s}
    if "total" in timings_s:
        timings_s["total"] += decoding_s
    return replace(result, scene=replace(result.scene, timings_s=timings_s))


def request_from_goal(goal: Reconstruct.Goal, view_set: ViewSet) -> Request:
    """What a goal asks to be done with `view_set`; raises `DataFormatError` for a box that is none."""
    return Request(
        view_set=view_set,
        view_names=tuple(goal.view_names),
        boxes=tuple(conversions.box_from_msg(box, f"boxes[{i}]") for i, box in enumerate(goal.boxes)),
        text_prompts=tuple(goal.text_prompts),
        hypotheses=goal.hypotheses,
        seed=goal.seed,
    )
