"""Small networks of scene geometry with parameters that are all at work."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gena3d_core.models.geometry.pi3 import Pi3, Pi3Config
from gena3d_core.models.geometry.pi3x import Pi3X, Pi3XConfig
from gena3d_core.models.geometry.vggt import VggtAggregator, VggtAggregatorConfig
from gena3d_core.models.image_encoders.dinov2 import DinoV2Config

ENCODER = DinoV2Config(img_size=28, embed_dim=24, depth=1, num_heads=2, mask_token=False)


def drawn(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.fixture(scope="session")
def make_pi3() -> Callable[..., Pi3]:
    def make(**changes: int) -> Pi3:
        sizes = {"depth": 4, "heads": 2, "head_width": 16, "head_depth": 1, "head_heads": 2, "camera_width": 8}
        model = drawn(Pi3(Pi3Config(encoder=ENCODER, **{**sizes, **changes})))
        assert isinstance(model, Pi3)
        return model

    return make


@pytest.fixture(scope="session")
def make_pi3x() -> Callable[[], Pi3X]:
    def make() -> Pi3X:
        encoder = replace(ENCODER, embed_dim=32)
        sizes = {"depth": 4, "heads": 2, "head_width": 16, "head_depth": 1, "head_heads": 2, "camera_width": 8}
        small = {"pose_layers": (1, 2), "head_channels": (8, 8, 8), "metric_width": 16, "metric_heads": 2}
        model = drawn(Pi3X(Pi3XConfig(encoder=encoder, **sizes, **small)))
        assert isinstance(model, Pi3X)
        return model

    return make


@pytest.fixture(scope="session")
def make_aggregator() -> Callable[..., VggtAggregator]:
    def make(encoder: DinoV2Config | None = ENCODER, **changes: int) -> VggtAggregator:
        sizes = {"width": 24, "depth": 2, "heads": 2, **changes}
        model = drawn(VggtAggregator(VggtAggregatorConfig(encoder=encoder, **sizes)))
        assert isinstance(model, VggtAggregator)
        return model

    return make
