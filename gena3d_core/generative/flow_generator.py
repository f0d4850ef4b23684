"""The generator that imagines what no camera saw: a checkpoint's networks in sampling order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from ..checkpoints.bundle import ModelBundle
from ..checkpoints.open import open_checkpoint
from ..errors import EmptyResultError, IncompleteError, InputError
from ..memory import memory_left, parse_bytes
from ..models.conditioning import FlowCondition
from ..models.scene_flow import SceneFlow
from ..sampling import object_seed
from ..types import (
    CancelCheck,
    CompletedObject,
    Mesh,
    ObjectObservation,
    ProgressCallback,
    check_cancelled,
)
from .conditions import encode_condition
from .consistency import Evidence, gather_evidence
from .detail import detailed_meshes
from .hypotheses import calibrated, chance_curve
from .inputs import ObjectInputs, prepare_inputs, without_clouds
from .object_shape import ObjectShape, completed_object, shape_mesh, shape_of_samples
from .rows import take_objects
from .settings import SamplingSettings, StageSampler, chosen_dtype, stage_sampler
from .structure import sample_structures
from .unet_generator import UNET, UnetGenerator

Detail = Literal["auto", "structure", "full"]
"""structure: surface of the occupancy logits; full: structured latents and the mesh decoder; auto: full if it can."""
STRUCTURE_SHARE = 0.5
"""Share of progress that stage 1 takes where stage 2 follows."""


class FlowGenerator:
    """An `ObjectGenerator` over a checkpoint; holds the networks, so make it once."""

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        settings: SamplingSettings | None = None,
        detail: Detail = "auto",
        max_views: int = 20,
        use_cloud: bool = True,
    ) -> None:
        """use_cloud: whether the network sees the partial cloud (GENA3D's stereo condition), which places the grid in
        any case. Raises `InputError` if the checkpoint lacks a network that `detail` needs."""
        self.bundle, self.settings, self.max_views = bundle, settings or SamplingSettings(), max_views
        self.use_cloud = use_cloud
        needed = ["sparse_structure_flow", "sparse_structure_decoder"]
        refine = ["structured_latent_flow", "mesh_decoder"]
        self.full = detail == "full" or (detail == "auto" and all(role in bundle.modules for role in refine))
        missing = [role for role in needed + (refine if self.full else []) if role not in bundle.modules]
        if missing:
            raise InputError(f"{bundle.source} lacks {', '.join(missing)}, which {detail} generation needs")
        flow = bundle.modules["sparse_structure_flow"]
        if isinstance(flow, SceneFlow):
            raise InputError(f"{bundle.source} is a checkpoint of SceneGen, of whole scenes: mode 'scene' takes it")
        self.device = next(flow.parameters()).device
        self.chances = chance_curve(bundle.metadata, bundle.source)

    def generate(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[CompletedObject]:
        """See `ObjectGenerator`. The mesh of each object is that of the hypothesis nearest to all of them together;
        `occupancy` is what all of them say. In the frame `observed` it agrees with what the views prove, and
        `residuals` tell by how much the hypothesis did not (see `consistency`)."""
        if not observations:
            return []
        check_cancelled(cancelled)
        inputs = prepare_inputs(observations, self.image_size, self.resolution, self.bundle.frame, self.max_views)
        shown = inputs if self.use_cloud else without_clouds(inputs)
        condition = encode_condition(self.bundle, shown, self.device)
        seeds = [object_seed(seed, item.id, number) for item in observations for number in range(hypotheses)]
        objects = torch.arange(len(observations)).repeat_interleave(hypotheses)

        def report(start: float, stop: float) -> Callable[[float], None] | None:
            return None if progress is None else lambda done: progress("generation", start + (stop - start) * done)

        share = STRUCTURE_SHARE if self.full else 1.0
        sampler = stage_sampler(self.bundle, "sparse_structure", self.settings, report(0.0, share), cancelled)
        most = self.settings.max_memory_bytes
        budget = None if most is None else memory_left(self.bundle, most)
        logits = sample_structures(self.bundle, condition, objects, seeds, sampler, budget)
        samples = calibrated(logits.numpy(), self.bundle.metadata, self.bundle.source)
        failures: dict[int, str] = {}
        evidence = [self._evidence(item, inputs, number) for number, item in enumerate(observations)]
        shapes: dict[int, ObjectShape] = {}
        for number, item in enumerate(observations):
            try:
                own = samples[number * hypotheses : (number + 1) * hypotheses]
                shapes[number] = shape_of_samples(own, evidence[number], self.chances)
            except EmptyResultError as error:
                failures[item.id] = str(error)
        details: dict[int, Mesh] = {}
        if self.full and shapes:
            sampler = stage_sampler(self.bundle, "structured_latent", self.settings, report(share, 1.0), cancelled)
            kept = {number: seeds[number * hypotheses + shape.kept] for number, shape in shapes.items()}
            details = self._details(condition, shapes, kept, sampler)
        completed = []
        for number, shape in shapes.items():
            item, S_world_grid, known = observations[number], inputs.S_world_grid[number], evidence[number]
            if number in details:
                mesh = details[number]
            else:
                mesh = shape_mesh(shape, item.support if known else None, S_world_grid)
            if not len(mesh.faces):
                failures[item.id] = "the mesh decoder gave no surface: try another seed, or --detail structure"
                continue
            completed.append(completed_object(item.id, mesh, shape, known, S_world_grid))
        if failures:
            raise IncompleteError(completed, failures)
        return completed

    def _evidence(self, observation: ObjectObservation, inputs: ObjectInputs, number: int) -> Evidence | None:
        """What is known of the voxels; None where the grid has no place in the world."""
        if self.bundle.frame != "observed":
            return None
        return gather_evidence(observation, inputs.S_world_grid[number], inputs.clouds[number])

    def _details(
        self, condition: FlowCondition, shapes: dict[int, ObjectShape], seeds: dict[int, int], sampler: StageSampler
    ) -> dict[int, Mesh]:
        """Meshes of stage 2 of the objects that have a shape."""
        present = list(shapes)
        seen = take_objects(condition, torch.tensor(present))
        logits = [torch.from_numpy(shapes[number].logits) for number in present]
        made = detailed_meshes(self.bundle, seen, logits, [seeds[number] for number in present], sampler)
        return dict(zip(present, made, strict=True))

    @property
    def free_space_resolution(self) -> int:
        """See `generation.free_space_resolution`."""
        return self.resolution if self.bundle.frame == "observed" else 0

    @property
    def image_size(self) -> int:
        """Side of the crops, pixels."""
        encoder = self.bundle.modules.get("image_encoder")
        return self.bundle.image_size if encoder is None else encoder.image_size

    @property
    def resolution(self) -> int:
        """Voxels along a side of the occupancy grid."""
        scale = self.bundle.modules["sparse_structure_decoder"].config.scale
        return self.bundle.modules["sparse_structure_flow"].config.resolution * scale


def make_flow_generator(
    checkpoint: str,
    *,
    device: str = "cpu",
    dtype: str | None = None,
    image_encoder: str | None = None,
    allow_download: bool = False,
    steps: int | None = None,
    guidance_strength: float | None = None,
    method: Literal["euler", "heun"] = "euler",
    fusion: Any = None,
    max_memory: str | None = None,
    detail: Detail = "auto",
    max_views: int = 20,
    use_cloud: bool = True,
) -> FlowGenerator | UnetGenerator:
    """Generator over the checkpoint called `checkpoint`: a family, a folder, a file or a Hugging Face repository.

    A checkpoint of the feed-forward baseline gives an `UnetGenerator`, which has no use for options of sampling.

    allow_download: fetch files from the hub; else nothing is fetched. dtype: 'float32', 'bfloat16' or 'float16' of
    the matrix products; None: as stored, float32 on a CPU. max_memory: such as '6GB'. Raises `InputError` and
    `DataFormatError` for what cannot be loaded.
    """
    settings = SamplingSettings(
        steps, guidance_strength, method, fusion, None if max_memory is None else parse_bytes(max_memory)
    )
    bundle = open_checkpoint(
        checkpoint,
        device=device,
        dtype=chosen_dtype(dtype, device),
        image_encoder=image_encoder,
        allow_download=allow_download,
    )
    if UNET not in bundle.modules:
        return FlowGenerator(bundle, settings=settings, detail=detail, max_views=max_views, use_cloud=use_cloud)
    if settings != SamplingSettings() or detail == "full" or not use_cloud:
        raise InputError(
            f"{bundle.source} is a feed-forward network on the partial cloud: it takes no options of sampling, memory "
            "or detail, and needs the cloud"
        )
    return UnetGenerator(bundle, max_views=max_views)
