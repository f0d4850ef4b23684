"""Small stage-1 flow models with parameters that are all at work, and conditions for them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from gena3d_core.models.conditioning import FlowCondition, ViewTokens, view_weights
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig

SIZES: dict[str, Any] = {
    "resolution": 4,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 24,
    "cond_channels": 10,
    "num_blocks": 2,
    "num_heads": 3,
    "mlp_ratio": 2.0,
    "qk_rms_norm": True,
}

FlowFactory = Callable[..., SparseStructureFlow]
ConditionFactory = Callable[..., FlowCondition]


@pytest.fixture(scope="session")
def make_flow() -> FlowFactory:
    def make(*, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> SparseStructureFlow:
        """Every parameter drawn anew: nothing that is zero at the start stays so."""
        model = SparseStructureFlow(SparseStructureFlowConfig(**{**SIZES, **options}))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                fan_in = parameter.shape[-1] if parameter.ndim > 1 else 6.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan_in**0.5)
        return model.to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def make_condition() -> ConditionFactory:
    def make(
        counts: Sequence[int],
        *,
        tokens: int = 7,
        occlusion: int = 0,
        biased: bool = False,
        geometry: bool = True,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> FlowCondition:
        """`counts` views of each object; occlusion: number of occluded-ratio tokens of a view."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

        owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        P = len(owner)
        visibility = 0.05 + 0.9 * torch.rand(P, generator=generator, dtype=torch.float64).to(dtype)
        views = ViewTokens(
            draw(P, tokens, SIZES["cond_channels"]),
            owner,
            view_weights(visibility, owner, len(counts)),
            -3 * draw(P, tokens).abs() if biased else None,
            draw(P, occlusion, SIZES["cond_channels"]) if occlusion else None,
        )
        grid = (SIZES["in_channels"], *(SIZES["resolution"],) * 3)
        return FlowCondition(views, len(counts), draw(len(counts), *grid) if geometry else None)

    return make


@pytest.fixture(scope="session")
def make_state() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    def make(batch: int, *, seed: int = 5, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
        """x and t of the sampler."""
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, SIZES["in_channels"], *(SIZES["resolution"],) * 3)
        x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        return x, torch.linspace(900.0, 300.0, batch)

    return make


@pytest.fixture
def single_thread() -> Iterator[None]:
    """Bit-equal results need equal sums: how a product is shared among threads depends on its shape."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
