"""Stage 1 of SceneGen: all assets of one scene together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..generative.scene_denoiser import scene_denoiser
from ..models.scene_flow import SceneCondition, SceneFlow, SceneFlowConfig
from ..nn.attention import set_attention_backend
from ..sampling import Sample, draw_noise, sample
from .measuring import parameter_bytes, seconds_of, timed, with_peak_memory
from .settings import GUIDANCE, Settings, labels, not_measured
from .workload import count

PART = "SceneGen stage 1"
SCENE_STEPS = 25
ASSETS = 4
OWN_IMAGES, SHARED_IMAGES = 2, 3
"""An asset brings its image and its mask; the scene its image and two halves of geometry tokens."""


@dataclass(frozen=True)
class SceneSize:
    """The network, and how many tokens one image makes."""

    config: SceneFlowConfig
    image_tokens: int


def _size(resolution: int, width: int, blocks: int, heads: int, image_tokens: int) -> SceneSize:
    config = SceneFlowConfig(
        resolution=resolution,
        in_channels=8,
        model_channels=width,
        cond_channels=width,
        out_channels=8,
        num_blocks=blocks,
        num_heads=heads,
        qk_rms_norm=True,
        asset_tokens=image_tokens,
    )
    return SceneSize(config, image_tokens)


SCENES = {"tiny": _size(4, 48, 2, 4, 17), "full": _size(16, 1024, 24, 16, 1374)}
"""full: the published network."""


def measure_scene(settings: Settings, size: str, steps: int = SCENE_STEPS) -> dict[str, Any]:
    """The row of one scene of `ASSETS` assets; seconds are those of the scene."""
    settings = settings.with_steps(steps)
    if size not in SCENES:
        return not_measured(settings, PART, size, "SceneGen has no network of this size", assets=ASSETS)
    operations = scene_operations(size, steps)
    if settings.floor_s(operations) > 2 * settings.patience_s:
        reason = f"the arithmetic alone takes {settings.floor_s(operations):.0f} s; --patience sets the limit"
        return not_measured(settings, PART, size, reason, assets=ASSETS)
    torch.manual_seed(0)
    model = _model(size, settings.device)
    model.set_precision(settings.torch_dtype)
    condition = _condition(size, settings.device)
    noise = draw_noise(range(ASSETS), _latent(size), settings.device)

    @torch.no_grad()
    def run() -> Sample:
        return sample(scene_denoiser(model, condition, assets=ASSETS), noise, settings.schedule, GUIDANCE)

    (warm_up_s, _), working = with_peak_memory(lambda: seconds_of(run, settings.device), settings.device)
    timing, _ = timed(run, settings.device, settings.repeat, settings.patience_s, warm_up_s)
    floor = settings.floor_s(operations)
    return {
        **labels(settings, PART, size, assets=ASSETS),
        "measured": "whole",
        "runs": timing.runs,
        "operations": operations,
        "seconds": timing.seconds,
        "floor_s": floor,
        "times_floor": timing.seconds / floor,
        "share_of_matrix_rate": floor / timing.seconds,
        "weights_bytes": parameter_bytes(model),
        "working_bytes": working,
    }


def scene_operations(size: str, steps: int) -> int:
    """Counted operations of contexts and guided steps."""
    model = _model(size, "meta")
    set_attention_backend(model, "reference")
    condition = _condition(size, "meta")
    x = torch.empty(ASSETS, *_latent(size), device="meta")
    with torch.no_grad():
        denoiser = scene_denoiser(model, condition, assets=ASSETS)
    return count(lambda: model.contexts(condition)) + steps * count(lambda: denoiser.guided(x, 0.5, 0))


def _model(size: str, device: str) -> SceneFlow:
    with torch.device(device):
        # Without gradients: torch's counter stumbles over a view of a parameter that wants one.
        return SceneFlow(SCENES[size].config).eval().requires_grad_(False)


def _latent(size: str) -> tuple[int, ...]:
    config = SCENES[size].config
    return (config.in_channels, *(config.resolution,) * 3)


def _condition(size: str, device: str) -> SceneCondition:
    tokens, width = SCENES[size].image_tokens, SCENES[size].config.cond_channels
    own = torch.randn(ASSETS, OWN_IMAGES * tokens, width, device=device)
    return SceneCondition(own, torch.randn(1, SHARED_IMAGES * tokens, width, device=device))
