"""Stage 2 of a generator: occupied voxels to meshes, by structured latents and the mesh decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..memory import in_chunks
from ..meshing.feature_mesh import features_to_mesh
from ..models.conditioning import FlowCondition
from ..models.structured_latent_decoders import StructuredLatentMeshDecoder
from ..nn.sparse import SparseTensor
from ..types import Mesh
from .rows import groups_by_views, take_objects
from .settings import StageSampler
from .structured_latents import sample_structured_latents


@torch.no_grad()
def detailed_meshes(
    bundle: ModelBundle,
    condition: FlowCondition,
    logits: Sequence[Tensor],
    seeds: Sequence[int],
    sampler: StageSampler,
) -> list[Mesh]:
    """Coloured meshes in the grid frame, one for each object of the condition.

    logits: occupancy (R, R, R) of each object; seeds: one for each. Objects with the same number of views are sampled
    together; meshes are decoded one by one, since a decoder's finest cells fill memory fastest. A mesh without faces
    means that the decoder gave no surface.
    """
    silent = replace(sampler, progress=None)

    def work(group: Tensor, start: int, stop: int) -> list[Mesh]:
        own = group[start:stop]
        voxels = [torch.nonzero(logits[number] > 0) for number in own.tolist()]
        coords = torch.cat([F.pad(ijk, (1, 0), value=index) for index, ijk in enumerate(voxels)]).int()
        own_seeds = [seeds[number] for number in own.tolist()]
        latents = sample_structured_latents(bundle, take_objects(condition, own), coords, own_seeds, silent)
        return [decode_mesh(bundle, latents, index) for index in range(len(own))]

    meshes: dict[int, Mesh] = {}
    for _, group in groups_by_views(condition, torch.arange(condition.batch)):
        done = in_chunks(len(group), len(group), partial(work, group))
        meshes.update(zip(group.tolist(), (mesh for part in done for mesh in part), strict=True))
        if sampler.progress is not None:
            sampler.progress(len(meshes) / condition.batch)
    return [meshes[number] for number in range(condition.batch)]


def decode_mesh(bundle: ModelBundle, latents: SparseTensor, index: int) -> Mesh:
    """Mesh of one sample of the latents, in the grid frame, coloured where the decoder gives colours; may be empty."""
    decoder = cast(StructuredLatentMeshDecoder, bundle.modules["mesh_decoder"])
    own = latents.coords[:, 0] == index
    coords = latents.coords[own].clone()
    coords[:, 0] = 0
    features = decoder(SparseTensor.create(coords, latents.feats[own]))
    surface = features_to_mesh(
        features.feats,
        features.coords,
        decoder.fine_resolution,
        use_color=decoder.use_color,
    )
    colors = None
    if surface.attributes is not None:
        colors = (surface.attributes[:, :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    return Mesh(
        surface.vertices.float().cpu().numpy(), surface.faces.cpu().numpy().astype(np.int32), vertex_colors=colors
    )
