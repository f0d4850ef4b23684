"""SceneGen's flow: what a scene's assets share, what they do not, and that savings change nothing."""

import math
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.generative.scene_denoiser import cycle_scene_views, mean_poses, scene_denoiser
from gena3d_core.models.conditioning import single_views, unconditional, with_unconditional
from gena3d_core.models.position_head import IDENTITY_POSE
from gena3d_core.models.scene_blocks import SceneContext
from gena3d_core.models.scene_flow import SceneCondition, SceneFlow, SceneFlowConfig, first_assets
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig
from gena3d_core.nn.attention import set_attention_backend
from gena3d_core.sampling import FlowSchedule, Guidance, sample

CONFIG = SceneFlowConfig(
    resolution=2,
    in_channels=3,
    out_channels=3,
    model_channels=24,
    cond_channels=24,
    num_blocks=2,
    num_heads=3,
    mlp_ratio=2.0,
    qk_rms_norm=True,
    num_register_tokens=2,
    trunk_depth=1,
    num_iteration=2,
    asset_tokens=5,
)
OWN, SHARED = 7, 6
"""Tokens of an asset (5 of its image, 2 of its mask), and of the scene."""


def make_model(**changes: object) -> SceneFlow:
    torch.manual_seed(0)
    model = SceneFlow(replace(CONFIG, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> SceneFlow:
    return make_model()


def scene(assets: int, scenes: int = 1, seed: int = 1) -> tuple[Tensor, Tensor, SceneCondition]:
    g = torch.Generator().manual_seed(seed)
    rows = assets * scenes
    x, t = torch.randn(rows, 3, 2, 2, 2, generator=g), 1000 * torch.rand(rows, generator=g)
    return x, t, SceneCondition(torch.randn(rows, OWN, 24, generator=g), torch.randn(scenes, SHARED, 24, generator=g))


def unshared(condition: SceneCondition) -> SceneCondition:
    """The same condition, the scene's tokens repeated for every asset."""
    assert condition.shared is not None
    copies = len(condition.tokens) // len(condition.shared)
    return SceneCondition(torch.cat([condition.tokens, condition.shared.repeat_interleave(copies, 0)], dim=1))


def close(a: Tensor, b: Tensor, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@torch.no_grad()
def run(model: SceneFlow, x: Tensor, t: Tensor, condition: SceneCondition, assets: int) -> tuple[Tensor, Tensor]:
    return model(x, t, model.contexts(condition), assets=assets)


def test_shared_keys_and_values_give_what_repeated_tokens_give(model):
    x, t, condition = scene(assets=3, scenes=2)
    found, wanted = run(model, x, t, condition, 3), run(model, x, t, unshared(condition), 3)
    close(found[0], wanted[0])
    close(found[1], wanted[1])
    context = model.contexts(condition)[0]["global_cross_attn"]
    assert isinstance(context, SceneContext)
    assert context.shared_keys.shape == (2, SHARED, 3, 8)
    assert context.keys.shape == (6, OWN, 3, 8)


def test_several_scenes_at_once_are_scene_by_scene(model):
    x, t, condition = scene(assets=3, scenes=2)
    velocity, tokens = run(model, x, t, condition, 3)
    for s, rows in enumerate((slice(0, 3), slice(3, 6))):
        alone = run(model, x[rows], t[rows], SceneCondition(condition.tokens[rows], condition.shared[s : s + 1]), 3)
        close(velocity[rows], alone[0])
        close(tokens[rows], alone[1])


def test_a_guided_pass_is_the_two_passes(model):
    x, t, condition = scene(assets=2, scenes=2)
    contexts = model.contexts(condition)
    zeros = SceneCondition(torch.zeros_like(condition.tokens), torch.zeros_like(condition.shared))
    wanted, without = run(model, x, t, condition, 2), run(model, x, t, zeros, 2)
    with torch.no_grad():
        both = model(x.repeat(2, 1, 1, 1, 1), t.repeat(2), with_unconditional(contexts, model.blocks), assets=2)
        constant = model(x, t, unconditional(model.blocks), assets=2)
    for i in range(2):
        close(both[i][:4], wanted[i])
        close(both[i][4:], without[i])
        close(constant[i], without[i])
    assert not torch.allclose(wanted[0], without[0], atol=1e-2)


def test_order_of_the_other_assets_only_orders_the_results(model):
    x, t, condition = scene(assets=4)
    order = torch.tensor([0, 3, 1, 2])
    velocity, tokens = run(model, x, t, condition, 4)
    found = run(model, x[order], t[order], SceneCondition(condition.tokens[order], condition.shared), 4)
    close(found[0], velocity[order])
    close(found[1], tokens[order])


def test_the_query_is_told_by_its_special_tokens(model):
    x, t, condition = scene(assets=3)
    order = torch.tensor([1, 0, 2])
    moved = SceneCondition(condition.tokens[order], condition.shared)
    velocity, tokens = run(model, x, t, condition, 3)
    with torch.no_grad():
        contexts = model.contexts(moved)
        found = model(x[order], t[order], contexts, assets=3, query=torch.tensor([False, True, False]))
        other = model(x[order], t[order], contexts, assets=3)
    close(found[0], velocity[order])
    close(found[1], tokens[order])
    assert not torch.allclose(other[0], velocity[order], atol=1e-3)


def test_every_asset_sees_the_others_and_their_masks(model):
    x, t, condition = scene(assets=3)
    velocity, _ = run(model, x, t, condition, 3)
    x_other, tokens_other = x.clone(), condition.tokens.clone()
    x_other[2] += 1.0
    tokens_other[2, -1] += 3.0
    for changed in (
        run(model, x_other, t, condition, 3)[0],
        run(model, x, t, SceneCondition(tokens_other, condition.shared), 3)[0],
    ):
        assert ((changed - velocity).flatten(1).abs().amax(1) > 1e-4).all()
    alone = run(model, x[:1], t[:1], SceneCondition(condition.tokens[:1], condition.shared), 1)[0]
    assert not torch.allclose(alone, velocity[:1], atol=1e-3)


def silence_the_scene(model: SceneFlow) -> SceneFlow:
    """The scene's attentions give nothing; what is left is TRELLIS' network for each asset."""
    with torch.no_grad():
        for block in model.blocks:
            for name in ("global_attn", "global_cross_attn"):
                block.operations[name].to_out.weight.zero_()
                block.operations[name].to_out.bias.zero_()
    return model


def test_without_the_scenes_attentions_it_is_the_object_level_flow():
    model = silence_the_scene(make_model())
    names = {field.name for field in fields(SparseStructureFlowConfig)} & {field.name for field in fields(CONFIG)}
    plain = SparseStructureFlow(SparseStructureFlowConfig(**{name: getattr(CONFIG, name) for name in names})).eval()
    plain.load_state_dict({name: model.state_dict()[name] for name in plain.state_dict()})
    x, t, condition = scene(assets=3)
    with torch.no_grad():
        wanted = plain(x, t, plain.contexts(single_views(condition.tokens[:, : CONFIG.asset_tokens])))
    velocity, tokens = run(model, x, t, condition, 3)
    close(velocity, wanted)
    assert torch.equal(tokens[0], model.position_token[0, 0])
    assert torch.equal(tokens[2], model.position_token[1, 0])


def test_contexts_serve_every_step(model):
    x, _, condition = scene(assets=2)
    with torch.no_grad():
        contexts = model.contexts(condition)
        for time in (900.0, 400.0, 10.0):
            again = model(x, torch.full((2,), time), contexts, assets=2)
            fresh = run(model, x, torch.full((2,), time), condition, 2)
            assert torch.equal(again[0], fresh[0])
            assert torch.equal(again[1], fresh[1])


@pytest.mark.parametrize("changes", [{"qk_rms_norm_cross": True}, {"num_register_tokens": 0}, {"patch_size": 2}])
def test_other_settings_run_and_match_the_reference_attention(changes):
    model = make_model(**changes)
    x, t, condition = scene(assets=3)
    found = run(model, x, t, condition, 3)
    set_attention_backend(model, "reference")
    wanted = run(model, x, t, condition, 3)
    close(found[0], wanted[0])
    close(found[1], wanted[1])


def test_every_new_parameter_gets_a_gradient():
    model = make_model()
    x, t, condition = scene(assets=3)
    velocity, tokens = model(x, t, model.contexts(condition), assets=3)
    (velocity.square().sum() + model.poses(tokens).square().sum()).backward()
    new = ("global_", "position_token", "register_token", "norms.global_attn")
    for name, parameter in model.named_parameters():
        if any(word in name for word in new):
            assert parameter.grad is not None, name
            assert parameter.grad.flatten(1 if "token" in name else 0).any(dim=-1).all(), name


def test_poses_of_the_query_are_the_identity(model):
    x, t, condition = scene(assets=3, scenes=2)
    tokens = run(model, x, t, condition, 3)[1]
    poses = model.poses(tokens, query=first_assets(x, 3)).detach()
    assert torch.equal(poses[[0, 3]], torch.tensor([IDENTITY_POSE, IDENTITY_POSE]))
    assert not (poses[[1, 2, 4, 5], :3] == 0).any()


def test_fresh_parameters_for_training():
    torch.manual_seed(5)
    model = SceneFlow(CONFIG)
    model.initialise()
    block = model.blocks[0]
    assert not block.modulations["adaLN_modulation"][1].weight.any()
    assert 0.01 < block.modulations["adaLN_modulation_global"][1].weight.std() < 0.03
    assert 0.1 < block.operations["global_attn"].to_qkv.bias.std() < 0.3
    assert not block.operations["self_attn"].to_qkv.bias.any()
    x, t, condition = scene(assets=2)
    velocity, tokens = run(model, x, t, condition, 2)
    assert not velocity.any()
    assert tokens.isfinite().all()


def test_bfloat16_stays_near_float32():
    model = make_model()
    x, t, condition = scene(assets=3)
    wanted = run(model, x, t, condition, 3)
    model.set_precision(torch.bfloat16)
    found = run(model, x, t, condition, 3)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).abs().mean() < 0.03 * theirs.std()


def test_sampling_two_scenes_together_is_sampling_them_apart(model):
    x, _, condition = scene(assets=2, scenes=2)
    schedule, guidance = FlowSchedule(4, 3.0), Guidance(2.0, (0.5, 1.0))
    both = sample(scene_denoiser(model, condition, assets=2), x, schedule, guidance)
    for s in range(2):
        rows = slice(2 * s, 2 * s + 2)
        one = scene_denoiser(model, SceneCondition(condition.tokens[rows], condition.shared[s : s + 1]), assets=2)
        alone = sample(one, x[rows], schedule, guidance)
        close(both.x[rows], alone.x, 1e-4)
        close(both.extra[rows], alone.extra, 1e-4)
    assert torch.equal(both.extra[[0, 2]], torch.tensor([IDENTITY_POSE, IDENTITY_POSE]))


def test_sampling_with_another_query(model):
    x, _, condition = scene(assets=3)
    order = torch.tensor([1, 0, 2])
    schedule, guidance = FlowSchedule(2, 3.0), Guidance(2.0)
    wanted = sample(scene_denoiser(model, condition, assets=3), x, schedule, guidance)
    moved = SceneCondition(condition.tokens[order], condition.shared)
    denoiser = scene_denoiser(model, moved, assets=3, query=torch.tensor([False, True, False]))
    found = sample(denoiser, x[order], schedule, guidance)
    close(found.x, wanted.x[order], 1e-4)
    close(found.extra, wanted.extra[order], 1e-4)


def test_equal_views_in_turn_are_one_view(model):
    x, _, condition = scene(assets=3)
    schedule, guidance = FlowSchedule(3, 3.0), Guidance(2.0)
    denoiser = scene_denoiser(model, condition, assets=3)
    one = sample(denoiser, x, schedule, guidance)
    several = sample(cycle_scene_views([denoiser] * 3, schedule.steps), x, schedule, guidance)
    close(several.x, one.x)
    close(several.extra, mean_poses([one.extra]))


def test_mean_poses_averages_similarities_not_components():
    def pose(t: float, angle: float, s: float, length: float = 1.0) -> Tensor:
        w, y = length * math.cos(angle / 2), length * math.sin(angle / 2)
        return torch.tensor([[t, 0.0, 2 * t, w, 0.0, y, 0.0, s]])

    wanted = pose(1.0, 0.35, math.sqrt(3.0))
    close(mean_poses([pose(0.0, 0.0, 1.0), pose(2.0, 0.7, 3.0)]), wanted)
    close(mean_poses([pose(0.0, 0.0, 1.0), pose(2.0, 0.7, 3.0, length=-4.0)]), wanted)


def test_inputs_that_do_not_fit_are_refused(model):
    x, t, condition = scene(assets=3)
    contexts = model.contexts(condition)
    with pytest.raises(InputError, match="no scenes of 2 assets"):
        model(x, t, contexts, assets=2)
    with pytest.raises(InputError, match="x must be"):
        model(x[:, :2], t, contexts, assets=3)
    with pytest.raises(InputError, match="5 tokens of its own"):
        model.contexts(SceneCondition(condition.tokens[:, :4]))
    with pytest.raises(InputError, match="scenes of equal size"):
        model.contexts(SceneCondition(condition.tokens, condition.shared.repeat(2, 1, 1)))
    with pytest.raises(InputError, match="one query"):
        model(x, t, contexts, assets=3, query=torch.tensor([True, True, False]))
    with pytest.raises(InputError, match="one query"):
        model(x, t, contexts, assets=3, query=torch.tensor([1, 0, 0]))
