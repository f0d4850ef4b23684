"""Stages 1 and 2 of one object in one process: time of each, and the peak of the memory of everything together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..checkpoints.presets import PRESETS, random_bundle
from ..generative.settings import StageSampler
from ..generative.structure import sample_structures
from ..generative.structured_latents import latent_denoiser, sample_structured_latents
from ..models.structured_latent_decoders import StructuredLatentMeshDecoder
from ..models.structured_latent_flow import StructuredLatentFlow, StructuredLatentFlowConfig
from ..models.structured_latent_vae import StructuredLatentVAEConfig
from ..nn.attention import set_attention_backend
from ..nn.sparse import Geometry, SparseTensor
from ..sampling import SIGMA_MIN
from .measuring import parameter_bytes, seconds_of, timed, with_peak_memory
from .settings import GUIDANCE, Settings, labels, not_measured
from .workload import count, latent_shape, structure_operations, synthetic_condition, token_shape

PART = "stages 1 and 2"
RESOLUTION = 64


@dataclass(frozen=True)
class DetailSize:
    """Networks of stage 2, and the radius in voxels of the sphere whose surface is occupied."""

    flow: StructuredLatentFlowConfig
    decoder: StructuredLatentVAEConfig
    radius: float


def _size(
    width: int, blocks: int, heads: int, io: int, decoder: tuple[int, int, int], radius: float, context: int
) -> DetailSize:
    flow = StructuredLatentFlowConfig(
        resolution=RESOLUTION,
        in_channels=8,
        model_channels=width,
        cond_channels=context,
        out_channels=8,
        num_blocks=blocks,
        num_heads=heads,
        io_block_channels=(io,),
        qk_rms_norm=True,
        fusion_norm=True,
    )
    decoder_width, decoder_blocks, decoder_heads = decoder
    return DetailSize(
        flow,
        StructuredLatentVAEConfig(RESOLUTION, decoder_width, 8, decoder_blocks, num_heads=decoder_heads),
        radius,
    )


def _sizes() -> dict[str, DetailSize]:
    return {
        "tiny": _size(48, 1, 4, 32, (256, 1, 4), 4.0, PRESETS["tiny"].flow.cond_channels),
        # About 10,000 voxels, as an object of the published data has them.
        "full": _size(1024, 24, 16, 128, (768, 12, 12), 21.5, PRESETS["full"].flow.cond_channels),
    }


SIZES = _sizes()


def measure_detail(settings: Settings, size: str, views: int) -> dict[str, Any]:
    """The row of one object: structure, structured latents at the voxels of a sphere, features of its mesh.

    The extraction of the surface is left out: with random weights its mesh would be nothing like an object's.
    """
    what = {"views": views}
    if size not in SIZES:
        return not_measured(settings, PART, size, "stage 2 has no network of this size", **what)
    structure = structure_operations(size, views, 1)
    # Stage 2 takes about as much arithmetic as stage 1.
    expected = 2 * settings.floor_s(structure.sampling(settings.steps))
    if expected > 2 * settings.patience_s:
        reason = f"the arithmetic alone takes about {expected:.0f} s; --patience sets the limit"
        return not_measured(settings, PART, size, reason, **what)
    torch.manual_seed(0)
    bundle = two_stage_bundle(size, settings)
    condition = synthetic_condition(token_shape(size), latent_shape(bundle), views, 1, settings.device)
    coords = sphere_voxels(SIZES[size].radius, settings.device)
    sampler = StageSampler(settings.schedule, GUIDANCE, "euler", "view_wise", SIGMA_MIN)
    sampled = bundle.modules["structured_latent_flow"], bundle.modules["mesh_decoder"]

    def first() -> Tensor:
        return sample_structures(bundle, condition, torch.zeros(1, dtype=torch.int64), [0], sampler)

    def second() -> SparseTensor:
        return sample_structured_latents(bundle, condition, coords, [0], sampler)

    @torch.no_grad()
    def features(latents: SparseTensor) -> SparseTensor:
        return sampled[1](SparseTensor.create(latents.coords, latents.feats))

    def everything() -> None:
        first()
        features(second())

    (warm_up_s, _), working = with_peak_memory(lambda: seconds_of(everything, settings.device), settings.device)

    def seconds(run: Any) -> float:
        return timed(run, settings.device, settings.repeat, settings.patience_s)[0].seconds

    latents = second()
    parts = {
        "structure": seconds(first),
        "latents": seconds(second),
        "mesh_features": seconds(lambda: features(latents)),
    }
    operations = structure.sampling(settings.steps) + latent_operations(bundle, condition, coords, settings.steps)
    floor, total = settings.floor_s(operations), parts["structure"] + parts["latents"]
    return {
        **labels(settings, PART, size, **what),
        "measured": "whole",
        "voxels": len(coords),
        "parts_s": parts,
        "first_run_s": warm_up_s,
        "operations": operations,
        "floor_s": floor,
        "times_floor": total / floor,
        "share_of_matrix_rate": floor / total,
        "weights_bytes": parameter_bytes(*bundle.modules.values()),
        "working_bytes": working,
    }


def two_stage_bundle(size: str, settings: Settings) -> ModelBundle:
    """Networks of both stages with random weights."""
    bundle = random_bundle(size, device=settings.device, dtype=settings.torch_dtype)
    with torch.device(settings.device):
        flow = StructuredLatentFlow(SIZES[size].flow)
        decoder = StructuredLatentMeshDecoder(SIZES[size].decoder, use_color=True)
    for module in (flow, decoder):
        module.set_precision(settings.torch_dtype)
    more = {"structured_latent_flow": flow.eval(), "mesh_decoder": decoder.eval()}
    return replace(bundle, modules={**bundle.modules, **more})


def sphere_voxels(radius: float, device: str) -> Tensor:
    """(N, 4) int32 rows (0, i, j, k): voxels of the middle of the grid that a sphere's surface passes."""
    axis = torch.arange(RESOLUTION) - (RESOLUTION - 1) / 2
    distance = torch.cartesian_prod(axis, axis, axis).norm(dim=1) - radius
    ijk = torch.nonzero((distance.abs() < 0.87).view(RESOLUTION, RESOLUTION, RESOLUTION))
    return F.pad(ijk, (1, 0)).int().to(device)


def latent_operations(bundle: ModelBundle, condition: Any, coords: Tensor, steps: int) -> int:
    """Counted operations of stage 2, contexts and guided steps, without its decoder.

    Counted while one step is really computed, since what is sparse has no shape without its voxels. Leaves the flow
    with the reference attention.
    """
    flow = bundle.modules["structured_latent_flow"]
    set_attention_backend(flow, "reference")
    grid = Geometry(coords, 1)
    with torch.no_grad():
        denoiser = latent_denoiser(flow, condition, grid, "view_wise")
    x = torch.zeros(len(coords), flow.config.in_channels, device=coords.device)
    return count(lambda: flow.contexts(condition)) + steps * count(lambda: denoiser.guided(x, 0.5, 0))
