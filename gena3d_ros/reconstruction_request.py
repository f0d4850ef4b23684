"""One reconstruction: what it is asked for, and the pipeline that does it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from geometry_msgs.msg import PointStamped
from std_msgs.msg import Header

from gena3d_core.errors import Gena3DError, InputError, StageError
from gena3d_core.segmentation.pointing import click_prompts, object_boxes
from gena3d_core.types import (
    BoxPrompt,
    CancelCheck,
    PointPrompt,
    ProgressCallback,
    ReconstructedObject,
    Reconstruction,
    View,
    check_cancelled,
)
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
        points: Sequence[PointPrompt],
        text_prompts: Sequence[str],
        hypotheses: int,
        seed: int,
        frame_id: str,
        progress: ProgressCallback | None,
        cancelled: CancelCheck | None,
    ) -> Reconstruction: ...


@dataclass(frozen=True)
class Request:
    """What one reconstruction is made of.

    clicked_m    places (x, y, z) on objects, in the frame of the view set
    again        objects of the last scene that are asked for once more
    keep_others  objects of the last scene that are not found stay
    """

    view_set: ViewSet
    view_names: tuple[str, ...] = ()
    boxes: tuple[BoxPrompt, ...] = ()
    points: tuple[PointPrompt, ...] = ()
    clicked_m: tuple[tuple[float, float, float], ...] = ()
    again: tuple[ReconstructedObject, ...] = ()
    keep_others: bool = False
    text_prompts: tuple[str, ...] = ()
    hypotheses: int = 1
    seed: int = 0


def make_pipeline(parameters: ReconstructionParameters) -> PipelineLike:
    """The pipeline that the parameters describe."""
    from gena3d_core.pipeline import Pipeline, PipelineConfig  # brings in torch

    options = _given(
        checkpoint=parameters.checkpoint, steps=parameters.sampling_steps, max_memory=parameters.max_memory
    )
    chosen: dict[str, Any] = {"generator": parameters.generator, "generator_options": options}
    if parameters.mode == "scene":
        chosen = {"scene_generator": parameters.generator, "scene_options": options}
    return Pipeline(
        PipelineConfig(
            stereo=parameters.stereo,
            segmenter=parameters.segmenter,
            segmenter_options=_given(checkpoint=parameters.segmenter_checkpoint),
            mode=parameters.mode,
            **chosen,
            amodal=parameters.amodal,
            refine_poses=parameters.refine_poses,
            max_faces=parameters.max_faces,
            watertight=parameters.watertight,
            device=parameters.device,
        )
    )


def _given(**options: object) -> dict[str, object]:
    """Options that are set: an empty text and 0 leave the choice to the stage."""
    return {name: value for name, value in options.items() if value}


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
        # Objects that are asked for again come first: what is found for them has the ids 1, 2, ... in their order.
        boxes = (*object_boxes(views, request.again), *request.boxes)
        points = (*request.points, *click_prompts(views, request.clicked_m))
    except Gena3DError as error:
        raise StageError(VIEWS_STAGE, str(error)) from error
    decoding_s = time.perf_counter() - start
    check_cancelled(cancelled)
    result = pipeline.run(
        views,
        boxes=boxes,
        points=points,
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


def request_from_goal(
    goal: Reconstruct.Goal,
    view_set: ViewSet,
    place: Callable[[PointStamped, Header], tuple[float, float, float]],
    known: Callable[[Sequence[int]], tuple[ReconstructedObject, ...]],
) -> Request:
    """What a goal asks to be done with `view_set`.

    place: coordinates of a clicked point in the frame of a header; known: objects of the last scene by their ids.
    Raises `DataFormatError` for boxes and points that are none, and what `place` and `known` raise.
    """
    return Request(
        view_set=view_set,
        view_names=tuple(goal.view_names),
        boxes=tuple(conversions.box_from_msg(box, f"boxes[{i}]") for i, box in enumerate(goal.boxes)),
        points=tuple(conversions.points_from_msg(item, f"points[{i}]") for i, item in enumerate(goal.points)),
        clicked_m=tuple(place(item, view_set.header) for item in goal.clicked_points),
        again=known(list(goal.object_ids)),
        keep_others=goal.keep_others or bool(goal.object_ids),
        text_prompts=tuple(goal.text_prompts),
        hypotheses=goal.hypotheses,
        seed=goal.seed,
    )
