"""Views in, scene out: the only file that knows every stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .errors import InputError
from .generation import (
    AUTO,
    CHECKPOINT_GENERATORS,
    ObjectGenerator,
    SceneGenerator,
    chosen_generator,
    complete_objects,
    free_space_resolution,
    make_generator,
    make_scene_generator,
)
from .geometry.bundle_adjustment import refine_poses_by_features
from .geometry.registration import refine_view_poses
from .layout import place_objects
from .meshing import finish_mesh
from .meshing.appearance import with_appearance
from .observation import build_observations, with_free_space
from .outlines import mask_model_of
from .scene_mode import SceneKnowledge, SceneResult, SceneRun, reconstruct_scene, scene_of_views
from .segmentation import make_segmenter, prompt_kinds
from .stage_run import StageRun
from .stereo import NEED_POSES, make_stereo_matcher, match_views
from .stereo.choice import choose, matchers_at_hand, no_poses_text
from .types import (
    BoxPrompt,
    CancelCheck,
    ObjectObservation,
    PointPrompt,
    ProgressCallback,
    Prompt,
    Reconstruction,
    Scene,
    SceneObservation,
    TextPrompt,
    View,
)
from .view_completion import NONE, make_view_completer

STAGE_SHARES = {
    "stereo": 0.25,
    "registration": 0.15,
    "segmentation": 0.15,
    "observation": 0.05,
    "amodal": 0.02,
    "carving": 0.08,
    "generation": 0.15,
    "meshing": 0.10,
    "layout": 0.05,
}
"""Stages in order, with the share of the whole work that progress reports give each."""
_OF_OBJECTS = ("amodal", "carving")
SCENE_SHARES = {
    stage: share / (1.0 - sum(STAGE_SHARES[own] for own in _OF_OBJECTS))
    for stage, share in STAGE_SHARES.items()
    if stage not in _OF_OBJECTS
}
"""The same in mode `scene`, whose generator sees what hides what by itself."""
PHOTO_SHARES = {"generation": 0.75, "meshing": 0.15, "layout": 0.10}
"""The same where nothing but pictures and masks is given."""
MODES = ("objects", "scene", "auto")
"""objects: each object by itself, placed by its measured points; scene: all together with their relative layout; auto:
objects where cameras are posed, scene for pictures without."""


@dataclass(frozen=True)
class PipelineConfig:
    """Which implementation each stage uses, and the limits of the result."""

    stereo: str = "auto"
    """Stereo matcher by name; `auto`: the cameras' depth where every view has it, else a network whose weights are here
    for every use, else `plane_sweep`, or `sfm` for views without poses, else any network (see `stereo.choice`)."""
    segmenter: str = "tabletop"
    segmenter_options: Mapping[str, object] = field(default_factory=dict)
    """Options of the segmenter's own, such as a checkpoint (see `segmentation.learned`)."""
    amodal: str = NONE
    """What paints the hidden parts of objects into their views, by name; `none`: nothing does, the generator gets the
    occlusion masks only; `auto`: `oaac` where its weights are."""
    amodal_options: Mapping[str, object] = field(default_factory=dict)
    """Options of the view completer's own, such as a checkpoint (see `view_completion.make_view_completer`)."""
    generator: str = AUTO
    """What completes the objects, by name; `auto`: the checkpoint that comes with the package."""
    generator_options: Mapping[str, object] = field(default_factory=dict)
    """Options of the generator's own, such as a checkpoint (see `generative.flow_generator.make_flow_generator`)."""
    mode: str = AUTO
    """One of `MODES`."""
    scene_generator: str = AUTO
    """What imagines whole scenes, by name; `auto`: the checkpoint that comes with the package."""
    scene_options: Mapping[str, object] = field(default_factory=dict)
    """Its options (see `generative.scene_generator.make_scene_generator`)."""
    refine_poses: bool = True
    """Align the views to one another before their depth is merged."""
    max_faces: int = 20_000
    """Face budget of each mesh."""
    watertight: bool = False
    """Close every mesh, also where nothing was seen."""
    free_space_resolution: int | None = None
    """Voxels a side of the free-space grid given to the generator; None: what it wants, 0: none."""
    device: str = "cpu"
    """Torch device of the stages that use torch."""


class Pipeline:
    """Runs the stages; holds the models, so make it once and call `run` often. Not thread-safe."""

    def __init__(self, config: PipelineConfig | None = None) -> None:
        """Raises `InputError` for a name that no implementation has, `DataFormatError` for a checkpoint that is not
        there; that of scenes is only looked for in mode `scene`, or by `run_photos`."""
        self.config = config or PipelineConfig()
        if self.config.mode not in MODES:
            raise InputError(f"unknown mode '{self.config.mode}', one of {', '.join(MODES)}")
        if self.config.max_faces < 4:
            raise InputError(f"max_faces must be at least 4, got {self.config.max_faces}")
        if (self.config.free_space_resolution or 0) < 0:
            raise InputError(f"free_space_resolution must not be negative, got {self.config.free_space_resolution}")
        self._segmenter = make_segmenter(
            self.config.segmenter, **{"device": self.config.device, **self.config.segmenter_options}
        )
        amodal = {"device": self.config.device, "mask_model": mask_model_of(self._segmenter)}
        self._view_completer = make_view_completer(self.config.amodal, **{**amodal, **self.config.amodal_options})
        self._scene_generator: SceneGenerator | None = None
        self._generator: ObjectGenerator | None = None
        self._free_space_resolution = 0
        if self.config.mode == "scene":
            self._scene_generator = self._make_scene_generator()
        else:
            self._generator = self._make_generator()
            wanted = self.config.free_space_resolution
            self._free_space_resolution = free_space_resolution(self._generator) if wanted is None else wanted
        name, device = self.config.stereo, self.config.device
        self._matchers = matchers_at_hand(device) if name == AUTO else {name: make_stereo_matcher(name, device=device)}

    def _make_generator(self) -> ObjectGenerator:
        options = dict(self.config.generator_options)
        generator = chosen_generator(self.config.generator, checkpoint=options.get("checkpoint"))
        if generator in CHECKPOINT_GENERATORS:
            options.setdefault("device", self.config.device)
        return make_generator(generator, **options)

    def _make_scene_generator(self) -> SceneGenerator:
        return make_scene_generator(
            self.config.scene_generator, **{"device": self.config.device, **self.config.scene_options}
        )

    def run(
        self,
        views: Sequence[View],
        *,
        boxes: Sequence[BoxPrompt] = (),
        points: Sequence[PointPrompt] = (),
        text_prompts: Sequence[str] = (),
        hypotheses: int = 1,
        seed: int = 0,
        frame_id: str = "world",
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Reconstruction:
        """Reconstruct the objects that `views` show.

        views must have unique names, and poses in the same world frame (z up), named `frame_id` in the result; only
        stereo matchers that find poses take views without.
        Raises `InputError` for input that no stage could use, `StageError` (which names the stage) when one fails,
        `CancelledError` soon after `cancelled()` becomes true.
        """
        prompts: tuple[Prompt, ...] = (*boxes, *points, *(TextPrompt(text) for text in text_prompts))
        _check_input(views, prompts, hypotheses)
        self._check_prompt_kinds(prompts)
        run = StageRun(progress, cancelled, STAGE_SHARES if self._generator else SCENE_SHARES)
        warnings: list[str] = []

        posed, residuals = self._posed_depth(views, run, warnings)
        with run.stage("segmentation"):
            segmentation = self._segmenter(posed, prompts)
            warnings.extend(segmentation.warnings)
        with run.stage("observation"):
            observations = build_observations(posed, segmentation, align_objects=self.config.refine_poses)
        if self._generator is None:
            made = SceneResult((), {}, True, ())
            if self.config.amodal != NONE:
                warnings.append(f"amodal: '{self.config.amodal}' does nothing in mode 'scene', which takes masks only")
            if segmentation.objects:
                checked, known = scene_of_views(posed, segmentation, observations)
                warnings.extend(checked.warnings)
                made = self._scene_made(run, checked.scene, known, seed, hypotheses)
            scene = replace(
                _scene(made, run, frame_id, warnings, residuals),
                stamp_ns=max(view.stamp_ns for view in views),
                support=segmentation.support,
                view_names=tuple(view.name for view in views),
            )
            seen = {observation.id: observation for observation in observations}
            own = tuple(seen[item.id] for item in made.objects if item.id in seen)
            return Reconstruction(scene=scene, views=tuple(posed), observations=own)
        with run.stage("amodal"):
            shown = self._completed_views(observations, seed, run)
        with run.stage("carving"):
            # The space around an object is carved where its completed views say that it lies.
            shown = [with_free_space(observation, self._free_space_resolution) for observation in shown]
            observations = [replace(o, free_space=s.free_space) for o, s in zip(observations, shown, strict=True)]
        with run.stage("generation"):
            completed, incomplete = complete_objects(
                self._generator,
                shown,
                seed=seed,
                hypotheses=hypotheses,
                progress=run.inner_progress,
                cancelled=cancelled,
            )
            warnings.extend(incomplete)
        with run.stage("meshing"):
            completed = [
                replace(c, mesh=finish_mesh(c.mesh, max_faces=self.config.max_faces, watertight=self.config.watertight))
                for c in completed
            ]
        with run.stage("layout"):
            objects = [
                with_appearance(item, observation)
                for item, observation in zip(
                    place_objects(completed, observations, segmentation.support), observations, strict=True
                )
            ]
        scene = Scene(
            objects=tuple(objects),
            frame_id=frame_id,
            stamp_ns=max(view.stamp_ns for view in views),
            support=segmentation.support,
            view_names=tuple(view.name for view in views),
            timings_s=run.seconds,
            residuals=residuals,
            warnings=tuple(warnings),
            metric=_metric(residuals),
        )
        return Reconstruction(scene=scene, views=tuple(posed), observations=tuple(observations))

    def _completed_views(
        self, observations: Sequence[ObjectObservation], seed: int, run: StageRun
    ) -> list[ObjectObservation]:
        """The objects with their hidden parts painted into the views."""
        try:
            return self._view_completer.complete(
                observations, seed=seed, progress=run.inner_progress, cancelled=run.cancelled
            )
        finally:
            if self.config.device != "cpu":
                # The generator comes next, and needs the memory.
                self._view_completer.close()

    def _check_prompt_kinds(self, prompts: Sequence[Prompt]) -> None:
        kinds = prompt_kinds(self._segmenter)
        for kind, words in ((TextPrompt, "text prompts"), (PointPrompt, "points")):
            if kind not in kinds and any(isinstance(prompt, kind) for prompt in prompts):
                able = "'grounded'" if kind is TextPrompt else "'sam', 'sam2', 'sam3' or 'grounded'"
                takes = "boxes only" if kinds == {BoxPrompt} else "boxes and points"
                raise InputError(f"{words} need a segmenter such as {able}; '{self.config.segmenter}' takes {takes}")

    def _scene_made(
        self, run: StageRun, scene: SceneObservation, known: SceneKnowledge, seed: int, hypotheses: int
    ) -> SceneResult:
        if self._scene_generator is None:
            self._scene_generator = self._make_scene_generator()
        how = SceneRun(
            self._scene_generator,
            run.stage,
            lambda mesh: finish_mesh(mesh, max_faces=self.config.max_faces, watertight=self.config.watertight),
            seed,
            hypotheses,
            run.inner_progress,
            run.cancelled,
        )
        return reconstruct_scene(how, scene, known)

    def run_photos(
        self,
        scene: SceneObservation,
        *,
        sizes_m: Mapping[int, float] | None = None,
        hypotheses: int = 1,
        seed: int = 0,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Scene:
        """Reconstruct a scene of pictures without cameras, with masks as `views.scene_masks.checked_scene` gives them.

        sizes_m: longest sides that are known, by id of the object; without any, lengths are in units of the size of the
        largest object in the pictures and `metric` is False. The world has z up and, with generators of upright grids,
        y ahead of the camera. Raises as `run`, and `InputError` in mode `objects`.
        """
        if self.config.mode == "objects":
            raise InputError("pictures without camera poses place no object: mode 'scene' or 'auto' takes them")
        if hypotheses < 1:
            raise InputError(f"hypotheses must be at least 1, got {hypotheses}")
        run = StageRun(progress, cancelled, PHOTO_SHARES)
        made = self._scene_made(run, scene, SceneKnowledge(sizes_m=sizes_m or {}), seed, hypotheses)
        return _scene(made, run, "scene", [], {})

    def _posed_depth(
        self, views: Sequence[View], run: StageRun, warnings: list[str]
    ) -> tuple[list[View], dict[str, float]]:
        """Views with depth and poses aligned to one another, and the residuals of the alignment."""
        name = choose(views, self._matchers) if self.config.stereo == AUTO else self.config.stereo
        unposed = [view.name for view in views if not view.pose_known]
        if unposed and name in NEED_POSES:
            raise InputError(no_poses_text(unposed))
        refine = self.config.refine_poses and len(views) > 1
        residuals: dict[str, float] = {}
        posed = list(views)
        if name == "depth_camera":
            with run.stage("stereo"):
                posed = self._matchers[name](posed)
            with run.stage("registration"):
                if refine:
                    posed, report = refine_view_poses(posed)
                    residuals.update(report.residuals())
                    warnings.extend(report.warnings)
            return posed, residuals
        if name not in NEED_POSES:
            with run.stage("stereo"):
                found = match_views(self._matchers[name], posed)
                residuals.update(found.residuals)
                warnings.extend(found.warnings)
                posed = [view for view in found.views if view.pose_known]
            with run.stage("registration"):
                # Structure from motion has adjusted the poses better than depth could.
                if refine and found.metric and name != "sfm":
                    posed, report = refine_view_poses(posed)
                    residuals.update(report.residuals())
                    warnings.extend(report.warnings)
            return posed, residuals
        # Matching along epipolar lines needs good poses first, and there is no depth to align yet.
        with run.stage("registration"):
            if refine:
                posed, residual_px = refine_poses_by_features(posed)
                if math.isfinite(residual_px):
                    residuals["registration_residual_px"] = residual_px
                else:
                    warnings.append("registration: too few features match between the views; recorded poses are kept")
        with run.stage("stereo"):
            posed = self._matchers[name](posed)
        return posed, residuals


def _scene(
    made: SceneResult, run: StageRun, frame_id: str, warnings: Sequence[str], residuals: Mapping[str, float]
) -> Scene:
    return Scene(
        objects=made.objects,
        frame_id=frame_id,
        timings_s=run.seconds,
        residuals={**residuals, **made.residuals},
        warnings=(*warnings, *made.warnings),
        metric=made.metric and _metric(residuals),
    )


def _metric(residuals: Mapping[str, float]) -> bool:
    """Whether the lengths of what stereo found are metres."""
    return residuals.get("stereo_metric", 1.0) != 0.0


def _check_input(views: Sequence[View], prompts: Sequence[Prompt], hypotheses: int) -> None:
    if not views:
        raise InputError("no views: at least one posed camera view is needed")
    names = [view.name for view in views]
    if len(set(names)) != len(names):
        raise InputError(f"view names must be unique, got {names}")
    unknown = sorted({prompt.view for prompt in prompts if not isinstance(prompt, TextPrompt)} - set(names))
    if unknown:
        raise InputError(f"boxes or points name views {unknown} that are not among {names}")
    if hypotheses < 1:
        raise InputError(f"hypotheses must be at least 1, got {hypotheses}")
