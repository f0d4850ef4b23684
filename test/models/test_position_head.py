"""The position head: poses of assets, each by itself, and what its shortcuts must not change."""

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.models.position_head import (
    IDENTITY_POSE,
    PositionHead,
    PositionHeadConfig,
    SingleTokenAttention,
)
from gena3d_core.nn.layers import SelfAttention
from gena3d_core.nn.norms import HeadRMSNorm

CONFIG = PositionHeadConfig(model_channels=16, num_heads=2, trunk_depth=2, mlp_ratio=2.0)


@pytest.fixture
def head() -> PositionHead:
    torch.manual_seed(0)
    head = PositionHead(CONFIG)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(5, 16, generator=torch.Generator().manual_seed(1))


def test_attention_of_a_single_token_is_what_full_attention_gives():
    torch.manual_seed(2)
    short, full = SingleTokenAttention(16, 4, qk_norm=HeadRMSNorm), SelfAttention(16, 4, qk_norm=HeadRMSNorm)
    full.load_state_dict(short.state_dict())
    x = torch.randn(3, 1, 16)
    torch.testing.assert_close(short(x), full(x), atol=1e-6, rtol=1e-6)


def test_each_asset_is_looked_at_alone(head, tokens):
    one_by_one = torch.cat([head(token[None]) for token in tokens])
    torch.testing.assert_close(head(tokens), one_by_one, atol=1e-5, rtol=1e-5)


def test_query_rows_get_the_identity_and_no_other_row_changes(head, tokens):
    query = torch.tensor([False, True, False, False, True])
    free, bound = head(tokens), head(tokens, query=query)
    assert torch.equal(bound[query], torch.tensor([IDENTITY_POSE, IDENTITY_POSE]))
    assert torch.equal(bound[~query], free[~query])
    assert not torch.allclose(free[query], bound[query], atol=1e-3)


def test_scales_are_not_negative_and_the_rest_is_free(head, tokens):
    many = torch.randn(200, 16, generator=torch.Generator().manual_seed(3))
    poses = head(many)
    assert (poses[:, 7] >= 0).all()
    assert (poses[:, 7] == 0).any()  # some would have been negative
    assert (poses[:, :7] < 0).any(dim=0).all()


def test_iterations_refine_the_pose_before(head, tokens):
    """Two iterations are the first pose plus what the head adds when it starts from that pose."""
    with torch.no_grad():
        head.pose_branch[2].bias[7] += 50.0  # far from the ReLU, which is applied to the result only
        first, second = head(tokens, iterations=1), head(tokens, iterations=2)
        changes = []
        for token, pose in zip(tokens, first, strict=True):
            head.empty_pose_tokens.copy_(pose[None])
            changes.append(head(token[None], iterations=1))
    torch.testing.assert_close(second, first + torch.cat(changes), atol=1e-4, rtol=1e-5)
    assert not torch.allclose(first, second, atol=1e-2)


def test_at_least_one_iteration(head, tokens):
    with pytest.raises(InputError, match="iteration"):
        head(tokens, iterations=0)


def test_only_queries_and_keys_are_without_gradient(head, tokens):
    head(tokens).square().sum().backward()
    dead = {name for name, parameter in head.named_parameters() if parameter.grad is None}
    assert all("q_norm" in name or "k_norm" in name for name in dead)
    for block in head.trunk:
        to_qkv = block.operations["attn"].to_qkv
        queries_and_keys, values = to_qkv.weight.grad[:32], to_qkv.weight.grad[32:]
        assert not queries_and_keys.any()
        assert values.any()
    alive = [p for name, p in head.named_parameters() if name not in dead]
    assert all(parameter.grad.any() for parameter in alive)


def test_initial_head_starts_from_the_identity(tokens):
    torch.manual_seed(4)
    head = PositionHead(CONFIG)
    head.initialise()
    assert torch.equal(head.empty_pose_tokens, torch.tensor([IDENTITY_POSE]))
    assert 0 < head.embed_pose.bias.std() < 0.05
    assert head.trunk[0].modulations["adaLN_modulation"][1].weight.any()
    assert head(tokens).isfinite().all()


def test_half_trunk_stays_near_float32(head, tokens):
    wanted = head(tokens)
    head.set_precision(torch.bfloat16)
    assert head.trunk[0].operations["mlp"].mlp[0].weight.dtype == torch.bfloat16
    assert head.embed_pose.weight.dtype == torch.float32
    found = head(tokens)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=0.15, rtol=0.05)
