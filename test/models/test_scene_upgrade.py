"""SceneGen on top of a model of single objects, and the condition that it gets."""

import pytest
import torch

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.errors import InputError
from gena3d_core.models.conditioning import FlowCondition, single_views, unconditional
from gena3d_core.models.image_encoders.small import SmallEncoder, SmallEncoderConfig
from gena3d_core.models.scene_condition import SceneParts, SceneViewTensors, scene_condition, without_condition
from gena3d_core.models.scene_flow import SceneCondition
from gena3d_core.models.scene_upgrade import SCENE_PARTS, add_scene
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig

TOKENS = 5


def object_flow(**changes):
    torch.manual_seed(0)
    sizes = {"resolution": 2, "in_channels": 3, "out_channels": 3, "model_channels": 24, "cond_channels": 12,
             "num_blocks": 2, "num_heads": 3, "mlp_ratio": 2.0, "qk_rms_norm": True} | changes  # fmt: skip
    flow = SparseStructureFlow(SparseStructureFlowConfig(**sizes))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow.eval()


OWN = {"share_mod": True, "fusion_norm": True, "stereo_attention": True, "geometry_positions": True,
       "aligned_stereo": True}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, OWN, {"stereo_attention": True}], ids=["trellis", "edge", "stereo"])
def test_a_quiet_start_is_the_object_model(changes):
    flow = object_flow(**changes)
    scene = add_scene(flow, asset_tokens=TOKENS, num_register_tokens=2, trunk_depth=1)
    x, t, tokens = torch.randn(6, 3, 2, 2, 2), 1000 * torch.rand(6), torch.randn(6, TOKENS + 2, 12)
    alone = FlowCondition(single_views(tokens[:, :TOKENS]).views, 6, None, torch.zeros(6, dtype=torch.bool))
    wanted = flow(x, t, flow.contexts(alone))
    condition = SceneCondition(tokens, torch.randn(2, 4, 12))
    found, _ = scene(x, t, scene.contexts(condition), assets=3)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    without = flow(x, t, unconditional(flow.blocks))
    torch.testing.assert_close(scene(x, t, unconditional(scene.blocks), assets=3)[0], without, atol=1e-5, rtol=1e-5)
    loud = add_scene(flow, asset_tokens=TOKENS, quiet=False)
    assert (loud(x, t, loud.contexts(condition), assets=3)[0] - wanted).abs().max() > 1e-2


def test_only_the_new_parts_are_called_new():
    flow = object_flow()
    scene = add_scene(flow, asset_tokens=TOKENS)
    old = {name for name, _ in flow.named_parameters()}
    new = {name for name, _ in scene.named_parameters() if any(part in name for part in SCENE_PARTS)}
    assert new | old == {name for name, _ in scene.named_parameters()}
    assert not new & old
    assert any("adaLN_modulation_global" in name for name in new)


def test_a_model_of_occluded_parts_is_no_base():
    with pytest.raises(InputError, match="occluded parts"):
        add_scene(object_flow(occlusion_attention=True), asset_tokens=TOKENS)


def test_the_edge_model_can_become_a_scene_flow():
    bundle = random_bundle("edge")
    encoder, flow = bundle.modules["image_encoder"], bundle.modules["sparse_structure_flow"]
    scene = add_scene(flow, asset_tokens=49)
    assert scene.config.cond_channels == encoder.width
    new = sum(p.numel() for n, p in scene.named_parameters() if any(part in n for part in SCENE_PARTS))
    assert 5e6 < new < 2e7


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    module = SmallEncoder(SmallEncoderConfig(image_size=16, in_channels=5, stem=(8,), width=12, depth=1, heads=2))
    module.initialise()
    return module.eval()


def view(scenes=2, assets=3):
    g = torch.Generator().manual_seed(2)
    rows = scenes * assets
    return SceneViewTensors(
        torch.rand(rows, 5, 16, 16, generator=g),
        torch.rand(rows, 16, 16, generator=g) > 0.5,
        torch.rand(scenes, 3, 16, 16, generator=g),
    )


@torch.no_grad()
def test_the_condition_is_own_tokens_and_shared_tokens(encoder):
    given, geometry = view(), torch.randn(2, 6, 12)
    condition = scene_condition(encoder, given, geometry)
    assert condition.tokens.shape == (6, 2 * 16, 12)
    assert condition.shared is not None
    assert condition.shared.shape == (2, 16 + 6, 12)
    torch.testing.assert_close(condition.tokens[:, :16], encoder.encode(given.crops))
    torch.testing.assert_close(condition.shared[:, 16:], geometry)
    # A mask moves its own asset's tokens only.
    moved = SceneViewTensors(given.crops, given.masks.clone(), given.scene)
    moved.masks[4] = ~moved.masks[4]
    other = scene_condition(encoder, moved, geometry)
    differs = (other.tokens - condition.tokens).abs().amax(dim=(1, 2)) > 1e-4
    assert differs.tolist() == [False] * 4 + [True, False]


@torch.no_grad()
def test_parts_can_be_left_out(encoder):
    given, geometry = view(), torch.randn(2, 6, 12)
    assert scene_condition(encoder, given, geometry, SceneParts(mask=False)).tokens.shape[1] == 16
    without_scene = scene_condition(encoder, given, geometry, SceneParts(scene=False)).shared
    assert without_scene is not None
    torch.testing.assert_close(without_scene, geometry)
    assert scene_condition(encoder, given, None, SceneParts(scene=False, geometry=False)).shared is None
    with pytest.raises(InputError, match="geometry tokens, got 0"):
        scene_condition(encoder, given, None)
    with pytest.raises(InputError, match="do not fit"):
        scene_condition(encoder, SceneViewTensors(given.crops, given.masks[:5], given.scene), geometry)


def test_a_dropped_condition_is_all_zero():
    condition = SceneCondition(torch.ones(4, 2, 3), torch.ones(2, 5, 3))
    found = without_condition(condition, torch.tensor([True, False]))
    assert found.shared is not None
    assert found.tokens.sum(dim=(1, 2)).tolist() == [0, 0, 6, 6]
    assert found.shared.sum(dim=(1, 2)).tolist() == [0, 15]
    assert without_condition(SceneCondition(torch.ones(4, 2, 3)), torch.tensor([False, True])).shared is None
