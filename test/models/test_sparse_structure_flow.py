"""The stage-1 flow model: published numbers and names, shapes, errors."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.checkpoints.cases import runner_for
from gena3d_core.checkpoints.golden import compare_case, read_case
from gena3d_core.checkpoints.key_maps import rename_key
from gena3d_core.checkpoints.load import check_keys
from gena3d_core.checkpoints.published import build_published
from gena3d_core.errors import InputError
from gena3d_core.models.conditioning import single_views
from gena3d_core.models.flow_blocks import FlowBlockConfig
from gena3d_core.models.sparse_structure_flow import (
    SparseStructureFlow,
    SparseStructureFlowConfig,
    patchify,
    unpatchify,
)

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES = ["a_ss_flow_res16_p1", "a_ss_flow_res16_p2", "a_ss_flow_res8_sharemod"]
AMODAL_CASES = ["d_amodal_ss_flow", "d_amodal_weighted_attention", "d_amodal_slat_flow"]
OFFICIAL = {
    "resolution": 16,
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 1024,
    "cond_channels": 1024,
    "num_blocks": 24,
    "num_heads": 16,
    "mlp_ratio": 4,
    "patch_size": 1,
    "pe_mode": "ape",
    "qk_rms_norm": True,
    "use_fp16": True,
}


@pytest.mark.parametrize("name", CASES + AMODAL_CASES)
def test_published_numbers(name: str) -> None:
    folder = SHARED / "golden" / name
    if not folder.is_dir():
        pytest.skip(f"needs the numerical case at {folder}")
    case = read_case(folder)
    runner = runner_for(case)
    assert runner is not None
    differences = compare_case(case, runner(case))
    assert {key for key in case.expected if key.startswith("out.")} <= differences.keys()
    assert all(difference.ok for difference in differences.values()), differences


@pytest.mark.parametrize(
    ("file", "published", "parameters"),
    [
        ("trellis_ss_flow_img_dit_L_16l8_fp16", "SparseStructureFlowModel", 555_543_560),
        ("amodal3r_ss_flow", "SparseStructureFlowModelMaskAsCondWeighted", 656_305_160),
    ],
)
def test_full_size_parameters_map_one_to_one(file: str, published: str, parameters: int) -> None:
    with torch.device("meta"):
        module, key_map = build_published(published, OFFICIAL)
    assert sum(p.numel() for p in module.parameters()) == parameters
    path = SHARED / "keys" / f"{file}.json"
    if not path.is_file():
        pytest.skip(f"needs the published names at {path}")
    tensors = json.loads(path.read_text())["tensors"]
    shapes = {rename_key(name, key_map): tuple(entry[0]) for name, entry in tensors.items()}
    assert len(shapes) == len(tensors)
    check_keys(module, shapes, file)


@given(
    st.sampled_from([(2, 1), (4, 1), (4, 2), (4, 4), (6, 3)]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 5),
)
@settings(max_examples=15, deadline=None)
def test_any_shape(grid: tuple[int, int], channels: int, out_channels: int, batch: int, tokens: int) -> None:
    resolution, patch = grid
    config = SparseStructureFlowConfig(resolution, channels, 12, 5, out_channels, 1, num_heads=2, patch_size=patch)
    model = SparseStructureFlow(config)
    x = torch.randn(batch, channels, resolution, resolution, resolution)
    out = model(x, torch.full((batch,), 500.0), model.contexts(single_views(torch.randn(batch, tokens, 5))))
    assert out.shape == (batch, out_channels, resolution, resolution, resolution)
    assert torch.isfinite(out).all()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_patches_and_back(batch: int, channels: int, count: int, patch: int) -> None:
    R = count * patch
    x = torch.arange(batch * channels * R**3, dtype=torch.float32).reshape(batch, channels, R, R, R)
    tokens = patchify(x, patch)
    assert torch.equal(unpatchify(tokens, patch), x)
    i, j, k = count - 1, 0, count // 2
    cube = x[-1, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch, k * patch : (k + 1) * patch]
    assert torch.equal(tokens[-1, (i * count + j) * count + k], cube.flatten())


def test_number_of_heads_follows_from_their_width() -> None:
    config = SparseStructureFlowConfig(4, 3, 128, 5, 3, 1)
    assert config.block.heads == 2
    with pytest.raises(InputError, match="not a multiple of the number of heads"):
        FlowBlockConfig(width=10, context_width=4, heads=3)
    with pytest.raises(InputError, match="at least one head"):
        SparseStructureFlow(SparseStructureFlowConfig(4, 3, 32, 5, 3, 1))


def test_configs_that_cannot_be() -> None:
    with pytest.raises(InputError, match="resolution 5 is not a multiple of patch_size 2"):
        SparseStructureFlow(SparseStructureFlowConfig(5, 3, 12, 5, 3, 1, num_heads=2, patch_size=2))
    for option, message in [({"pe_mode": "rope"}, "pe_mode must be 'ape'"), ({"depth": 3}, "knows no depth")]:
        with pytest.raises(InputError, match=message):
            build_published("SparseStructureFlowModel", OFFICIAL | option)
    with pytest.raises(InputError, match="needs model_channels"):
        build_published("SparseStructureFlowModel", {k: v for k, v in OFFICIAL.items() if k != "model_channels"})


def test_inputs_that_cannot_be(make_flow: Callable, make_condition: Callable, make_state: Callable) -> None:
    model, (x, t) = make_flow(), make_state(2)
    contexts = model.contexts(make_condition([1, 1]))
    for bad in (x[:, :2], x[..., :2], x[0]):
        with pytest.raises(InputError, match="x must be"):
            model(bad, t, contexts)
    for times in (t[:1], torch.tensor(500.0), t[:, None]):
        with pytest.raises(InputError, match="t must be"):
            model(x, times, contexts)


def test_fresh_model_has_no_velocity_and_learns(make_condition: Callable, make_state: Callable) -> None:
    torch.manual_seed(0)
    model = SparseStructureFlow(SparseStructureFlowConfig(4, 3, 24, 10, 3, 2, num_heads=3, share_mod=True))
    model.initialise()
    x, t = make_state(2)
    out = model(x, t, model.contexts(make_condition([2, 1])))
    assert bool((out == 0).all())
    (out - x).square().mean().backward()
    assert float(model.out_layer.weight.grad.abs().max()) > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_returns_float32(
    dtype: torch.dtype, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    model, (x, t) = make_flow(), make_state(2)
    with torch.no_grad():
        expected = model(x, t, model.contexts(make_condition([2, 1])))
        model.set_precision(dtype)
        found = model(x, t, model.contexts(make_condition([2, 1])))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.06 if dtype == torch.bfloat16 else 0.01, rtol=0)
