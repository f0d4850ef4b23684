"""Each asset of a picture by itself, by a model of single objects that sees its crop only: a baseline of SceneGen."""

from __future__ import annotations

import numpy as np
import torch

from ..checkpoints.bundle import ModelBundle
from ..errors import InputError
from ..meshing.occupancy_surface import surface_from_logits
from ..models.conditioning import single_views
from ..models.sparse_structure_flow import SparseStructureFlow
from ..sampling import object_seed
from ..types import Mesh, SceneObservation
from ..views.object_crops import object_crop
from .hypotheses import calibrated, common_logits, filling_logit, occupancy_probability
from .scene_inputs import shown_pixels
from .settings import SamplingSettings, stage_sampler
from .structure import sample_structures


@torch.no_grad()
def generate_alone(
    bundle: ModelBundle,
    scene: SceneObservation,
    *,
    seed: int = 0,
    hypotheses: int = 1,
    settings: SamplingSettings | None = None,
) -> dict[int, Mesh]:
    """Meshes in the frames of their grids by the ids of the assets; one that came out empty is not there.

    Hypotheses come together as those of `SceneFlowGenerator` do. Of each asset only the picture that shows most of it
    counts, and no cloud. Raises `InputError` for a checkpoint that is none of single objects, and for an asset that no
    picture shows.
    """
    flow, encoder = bundle.modules.get("sparse_structure_flow"), bundle.modules.get("image_encoder")
    if not isinstance(flow, SparseStructureFlow) or encoder is None:
        raise InputError(f"{bundle.source} is no model of single objects with an image encoder")
    crops = []
    for number, view in enumerate(shown_pixels(scene).argmax(axis=0)):
        mask = scene.masks[view][number]
        crops.append(object_crop(scene.images[view], mask, np.zeros_like(mask), encoder.image_size))
    device = next(flow.parameters()).device
    tokens = encoder.encode(torch.from_numpy(np.stack(crops)).to(device))
    logits = sample_structures(
        bundle,
        single_views(tokens),
        torch.arange(len(crops)).repeat_interleave(hypotheses),
        [object_seed(seed, id, number) for id in scene.ids for number in range(hypotheses)],
        stage_sampler(bundle, "sparse_structure", settings or SamplingSettings()),
    )
    samples = calibrated(logits.numpy(), bundle.metadata, bundle.source).reshape(
        len(crops), hypotheses, *logits.shape[1:]
    )
    shapes = [own[0] for own in samples]
    if bundle.frame == "observed":
        chances = [occupancy_probability(own) for own in samples]
        shapes = [common_logits(chance, filling_logit(chance)) for chance in chances]
    return {id: surface_from_logits(own) for id, own in zip(scene.ids, shapes, strict=True) if (own > 0).any()}
