"""The generator that imagines a whole scene: all assets of a picture together, and where they are to one another."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch

from ..checkpoints.bundle import ModelBundle, SamplerDefaults
from ..checkpoints.open import open_checkpoint
from ..errors import DataFormatError, EmptyResultError, InputError, MemoryBudgetError
from ..geometry import scene_poses
from ..memory import chunk_rows, in_chunks, memory_left, parse_bytes
from ..models.scene_condition import SceneParts
from ..models.scene_flow import SceneFlow
from ..sampling import object_seed
from ..types import (
    CancelCheck,
    Float64Array,
    GeneratedScene,
    Mesh,
    ProgressCallback,
    SceneObservation,
    check_cancelled,
)
from .detail import detailed_meshes
from .hypotheses import calibrated, common_logits, filling_logit, most_typical, occupancy_probability
from .object_shape import ObjectShape, completed_object, shape_mesh
from .scene_inputs import VIEWS, SceneConditions, encode_scene, scene_parts, shown_pixels
from .scene_structure import SceneSamples, sample_scene, scene_asset_bytes
from .settings import SamplingSettings, StageSampler, chosen_dtype, stage_sampler

log = logging.getLogger("gena3d")

MAX_ASSETS = 16
"""Assets generated together at most; more are done in groups."""
MAX_VIEWS = 8
"""Views shown at most."""
SCENE_SAMPLER = SamplerDefaults(steps=25, guidance_strength=5.0)
"""Of both stages, where a checkpoint says nothing (paper, 4.1)."""
STRUCTURE_SHARE = 0.5
MODEL_AXES = {"z_up": np.eye(3), "y_up": scene_poses.S_YUP_ZUP[:3, :3]}
"""Entry `model_axes` of a checkpoint's metadata (default z_up): `R_model_grid` of the poses."""


class SceneFlowGenerator:
    """A `SceneGenerator` over a checkpoint of SceneGen; holds the networks, so make it once."""

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        settings: SamplingSettings | None = None,
        detail: str = "auto",
        parts: SceneParts | None = None,
        max_assets: int = MAX_ASSETS,
        max_views: int | None = None,
    ) -> None:
        """parts: features to condition on, default: those that the checkpoint was trained with. max_assets: generated
        together. max_views: shown; default: as the checkpoint states, else `MAX_VIEWS`, but one where the grids are
        turned as a view sees them, which views from different sides would contradict. Raises `InputError` if the
        checkpoint lacks a network that these need, or is none of SceneGen."""
        if max_assets < 2 or (max_views is not None and max_views < 1):
            raise InputError(f"max_assets must be at least 2 and max_views 1, got {max_assets} and {max_views}")
        flow = bundle.modules.get("sparse_structure_flow")
        if not isinstance(flow, SceneFlow):
            raise InputError(
                f"{bundle.source} is no checkpoint of SceneGen: its stage 1 is "
                f"{'missing' if flow is None else f'a {type(flow).__name__}'}; --mode objects takes it"
            )
        samplers = dict.fromkeys(("sparse_structure", "structured_latent"), SCENE_SAMPLER)
        self.bundle = replace(bundle, samplers={**samplers, **bundle.samplers}, fusion="stochastic")
        self.settings = settings or SamplingSettings()
        if self.settings.fusion not in (None, "stochastic"):
            raise InputError(f"SceneGen shows its views in turn: fusion '{self.settings.fusion}' is not for it")
        self.parts, self.max_assets = parts or scene_parts(bundle), max_assets
        needed = ["image_encoder", "sparse_structure_decoder", *(["scene_geometry"] if self.parts.geometry else [])]
        refine = ["structured_latent_flow", "mesh_decoder"]
        self.full = detail == "full" or (detail == "auto" and all(role in bundle.modules for role in refine))
        missing = [role for role in needed + (refine if self.full else []) if role not in bundle.modules]
        if missing:
            hint = "; name one with --geometry-encoder" if "scene_geometry" in missing else ""
            raise InputError(f"{bundle.source} lacks {', '.join(missing)}, which generation of scenes needs{hint}")
        axes = bundle.metadata.get("model_axes", "z_up")
        if axes not in MODEL_AXES:
            raise DataFormatError(f"{bundle.source}: model_axes must be one of {', '.join(MODEL_AXES)}, got {axes!r}")
        self.R_model_grid: Float64Array = MODEL_AXES[axes]
        known = bundle.metadata.get(VIEWS, 1 if bundle.frame == "observed" else MAX_VIEWS)
        if isinstance(known, bool) or not isinstance(known, int) or known < 1:
            raise DataFormatError(f"{bundle.source}: {VIEWS} must be a positive number, got {known!r}")
        self.max_views: int = max_views or known
        self.device = next(flow.parameters()).device

    def generate(
        self,
        scene: SceneObservation,
        *,
        query: int | None = None,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> GeneratedScene:
        """See `SceneGenerator`. query: number of the asset that gives frame and unit; None: the largest in the
        pictures. Poses are those of the hypothesis nearest to all of them together; so are shapes, but of networks in
        the frame `observed`, which are sure of little: there they are what the hypotheses have in common."""
        check_cancelled(cancelled)
        order = _order(scene, query)
        views = _best_views(scene, order[0], self.max_views)
        conditions = encode_scene(self.bundle, scene, order[0], self.parts, self.device, views)
        chunk, warnings = self._others_at_once(len(order), conditions)
        share = STRUCTURE_SHARE if self.full else 1.0

        def report(start: float, stop: float) -> Callable[[float], None] | None:
            return None if progress is None else lambda done: progress("generation", start + (stop - start) * done)

        def work(number: int, start: int, stop: int) -> tuple[list[int], SceneSamples]:
            group = [order[0], *order[1 + start : 1 + stop]]
            seeds = [object_seed(seed, id, number) for id in scene.ids]
            done, after = (share * (number + at / max(len(order) - 1, 1)) / hypotheses for at in (start, stop))
            sampler = stage_sampler(self.bundle, "sparse_structure", self.settings, report(done, after), cancelled)
            return group, sample_scene(self.bundle, conditions, group, seeds, sampler)

        samples = []
        for number in range(hypotheses):
            part = partial(work, number)
            samples.append(in_chunks(len(order) - 1, chunk, part) if len(order) > 1 else [part(0, 0)])
        logits, poses = _assembled(samples, len(order))
        logits = calibrated(logits, self.bundle.metadata, self.bundle.source)
        shapes, kept, failures = _shapes(logits, scene.ids, by_chance=self.bundle.frame == "observed")
        meshes: dict[int, Mesh] = {number: shape_mesh(shape, None, np.eye(4)) for number, shape in shapes.items()}
        if self.full:
            sampler = stage_sampler(self.bundle, "structured_latent", self.settings, report(share, 1.0), cancelled)
            seeds = [object_seed(seed, id, kept) for id in scene.ids]
            meshes = self._details(conditions, shapes, seeds, sampler)
        for number in [n for n, mesh in meshes.items() if not len(mesh.faces)]:
            failures[scene.ids[number]] = "the mesh decoder gave no surface: try another seed, or --detail structure"
        present = [n for n in range(len(scene.ids)) if n in meshes and scene.ids[n] not in failures]
        if not present:
            raise EmptyResultError("the generator found no object at all: another seed or another checkpoint may help")
        assets = [completed_object(scene.ids[n], meshes[n], shapes[n]) for n in present]
        seen = (conditions.seen[:, present] > 0).any(axis=0)
        own, query = _among(poses, present, order[0], kept)
        upright = self.bundle.frame == "observed"
        return GeneratedScene(
            tuple(assets),
            own[kept],
            query,
            own,
            self.R_model_grid,
            np.atleast_1d(seen),
            tuple(views),
            upright,
            failures,
            tuple(warnings),
        )

    def _others_at_once(self, assets: int, conditions: SceneConditions) -> tuple[int, list[str]]:
        """How many assets besides the query are generated together, and what to tell the user.

        Raises `MemoryBudgetError` if not even two assets fit.
        """
        limit = self.max_assets
        if self.settings.max_memory_bytes is not None:
            budget = memory_left(self.bundle, self.settings.max_memory_bytes)
            limit = min(limit, chunk_rows(limit, scene_asset_bytes(self.bundle, conditions), budget))
            if limit < min(assets, 2):
                raise MemoryBudgetError(
                    "two assets of a scene do not fit the memory budget together: raise --max-memory"
                )
        if assets <= limit:
            return max(assets - 1, 1), []
        count = math.ceil((assets - 1) / (limit - 1))
        told = (
            f"{assets} assets are more than {limit}: they are generated in {count} groups, which share the query asset "
            "but do not see one another"
        )
        log.warning(told)
        return math.ceil((assets - 1) / count), [told]

    def _details(
        self, conditions: SceneConditions, shapes: dict[int, ObjectShape], seeds: Sequence[int], sampler: StageSampler
    ) -> dict[int, Mesh]:
        """Meshes of stage 2, which sees each asset alone."""
        present = list(shapes)
        logits = [torch.from_numpy(shapes[n].logits) for n in present]
        seen = conditions.of_objects(torch.tensor(present))
        made = detailed_meshes(self.bundle, seen, logits, [seeds[n] for n in present], sampler)
        return dict(zip(present, made, strict=True))


def _among(poses: Float64Array, present: list[int], query: int, kept: int) -> tuple[Float64Array, int]:
    """Poses (H, A, 8) of the assets that are there, of those (H, N, 8) of all in the frame of the asset `query`, and
    the number of the one in whose frame they are now: if the query failed, the one that hypothesis `kept` has largest.
    """
    own = poses[:, present]
    if query in present:
        return own, present.index(query)
    index = int(own[kept, :, 7].argmax())
    return np.stack([scene_poses.in_query_frame(sample, index) for sample in own]), index


def _best_views(scene: SceneObservation, query: int, most: int) -> list[int]:
    """Numbers of at most `most` images: those that show the query and most assets first, and most pixels of them."""
    pixels = scene.pixels
    ranks = np.lexsort((-pixels.sum(axis=1), -(pixels > 0).sum(axis=1), pixels[:, query] == 0))
    return [int(n) for n in ranks[:most]]


def _order(scene: SceneObservation, query: int | None) -> list[int]:
    """Numbers of the assets: the query, then the others, those with the most pixels first (the first of equals)."""
    pixels = shown_pixels(scene).sum(axis=0)
    order = [int(n) for n in np.argsort(-pixels, kind="stable")]
    if query is None:
        return order
    if not 0 <= query < len(order):
        raise InputError(f"query asset {query} is not one of the {len(order)} assets")
    return [query, *(n for n in order if n != query)]


def _assembled(
    samples: Sequence[Sequence[tuple[list[int], SceneSamples]]], count: int
) -> tuple[np.ndarray, Float64Array]:
    """(N, H, R, R, R) logits and (H, N, 8) poses from the groups of each hypothesis; the query is that of its first."""
    resolution = samples[0][0][1].logits.shape[1:]
    logits = np.zeros((count, len(samples), *resolution), dtype=np.float32)
    poses = np.zeros((len(samples), count, scene_poses.POSE_WIDTH))
    for hypothesis, groups in enumerate(samples):
        for group, found in reversed(groups):
            logits[group, hypothesis] = found.logits
            poses[hypothesis, group] = found.poses
    return logits, poses


def _shapes(
    logits: np.ndarray, ids: Sequence[int], *, by_chance: bool
) -> tuple[dict[int, ObjectShape], int, dict[int, str]]:
    """Shapes of the assets of logits (N, H, R, R, R) by number, the hypothesis that they are of, and which failed.

    by_chance: a shape is what all hypotheses have in common, filled from the chance on that suits each asset
    (`filling_logit`), as for networks that are sure of little; False: one sample above 0, as published ones have it.
    Raises `EmptyResultError` if nothing at all is occupied.
    """
    chances = [occupancy_probability(own) for own in logits]
    levels = [filling_logit(chance) if by_chance else 0.0 for chance in chances]
    filled = np.stack([own > level for own, level in zip(logits, levels, strict=True)])
    # One hypothesis for the whole scene: shapes and poses of different ones do not belong together.
    kept = most_typical(np.swapaxes(filled, 0, 1))
    shapes: dict[int, ObjectShape] = {}
    failures: dict[int, str] = {}
    for number, (chance, level) in enumerate(zip(chances, levels, strict=True)):
        shape = common_logits(chance, level) if by_chance else logits[number, kept]
        if (shape > 0).any():
            shapes[number] = ObjectShape(np.asarray(shape, dtype=np.float32), kept, chance)
        else:
            failures[ids[number]] = "the generator found no occupied voxel: another seed or checkpoint may help"
    return shapes, kept, failures


def make_scene_generator(
    checkpoint: str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    image_encoder: str | None = None,
    geometry_encoder: str | None = None,
    allow_download: bool = False,
    steps: int | None = None,
    guidance_strength: float | None = None,
    method: Literal["euler", "heun"] = "euler",
    max_memory: str | None = None,
    detail: str = "auto",
    max_assets: int = MAX_ASSETS,
) -> SceneFlowGenerator:
    """Generator over the checkpoint of SceneGen called `checkpoint`: a family, a folder, or a Hugging Face repository.

    geometry_encoder: that of a checkpoint that comes without, such as VGGT of the published one; default: what the
    checkpoint itself names. Other options and errors as of `flow_generator.make_flow_generator`.
    """
    settings = SamplingSettings(
        steps, guidance_strength, method, None, None if max_memory is None else parse_bytes(max_memory)
    )
    precision = chosen_dtype(dtype, device)
    bundle = open_checkpoint(
        checkpoint, device=device, dtype=precision, image_encoder=image_encoder, allow_download=allow_download
    )
    named = geometry_encoder or bundle.metadata.get("geometry_encoder")
    if "scene_geometry" not in bundle.modules and scene_parts(bundle).geometry and named not in (None, "own"):
        found = open_checkpoint(
            str(named), device=device, dtype=precision, roles=["scene_geometry"], allow_download=allow_download
        )
        bundle = replace(bundle, modules={**bundle.modules, **found.modules})
    return SceneFlowGenerator(bundle, settings=settings, detail=detail, max_assets=max_assets)
