"""GENA3D's conditioning (no code was published) against its equations written out, and what must follow from them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gena3d_core.models.conditioning import FlowCondition, select_views
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow, patchify
from gena3d_core.models.upgrade import add_stereo

GENA3D = {"stereo_attention": True, "fusion_norm": True}
VARIANTS = {
    "gena3d": GENA3D,
    "no fusion norm": {"stereo_attention": True},
    "no gate": {**GENA3D, "gating": False},
    "positions of geometry tokens": {**GENA3D, "geometry_positions": True},
    "on Amodal3R": {**GENA3D, "occlusion_attention": True},
    "head norms of cross-attention": {**GENA3D, "qk_rms_norm_cross": True},
    "view-wise only": {"fusion_norm": True},
    "patches, shared modulation": {**GENA3D, "patch_size": 2, "share_mod": True},
    "aligned stereo": {**GENA3D, "geometry_positions": True, "aligned_stereo": True},
    "aligned stereo alone": {"patch_size": 2, "aligned_stereo": True},
}


# The equations, one object, one view, one head at a time, in float64.


def linear(x: Tensor, w: Mapping[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def standardised(x: Tensor, eps: float = 1e-6) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)


def head_norm(x: Tensor, w: Mapping[str, Tensor], name: str, head: int) -> Tensor:
    if f"{name}.gamma" not in w:
        return x
    return x / torch.sqrt((x**2).sum(-1, keepdim=True)) * x.shape[-1] ** 0.5 * w[f"{name}.gamma"][head]


def softmax(logits: Tensor) -> Tensor:
    e = torch.exp(logits - logits.max(dim=-1, keepdim=True).values)
    return e / e.sum(dim=-1, keepdim=True)


def attend(q: Tensor, k: Tensor, v: Tensor, w: Mapping[str, Tensor], name: str, heads: int, bias: Tensor) -> Tensor:
    found = []
    for h, (qh, kh, vh) in enumerate(zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True)):
        qh, kh = head_norm(qh, w, f"{name}.q_norm", h), head_norm(kh, w, f"{name}.k_norm", h)
        found.append(softmax(qh @ kh.T / qh.shape[-1] ** 0.5 + bias) @ vh)
    return linear(torch.cat(found, -1), w, f"{name}.to_out")


def cross(z: Tensor, c: Tensor, w: Mapping[str, Tensor], name: str, heads: int, bias: Tensor | None) -> Tensor:
    """CA(z, c), eq. 1."""
    k, v = linear(c, w, f"{name}.to_kv").chunk(2, -1)
    return attend(linear(z, w, f"{name}.to_q"), k, v, w, name, heads, torch.zeros(1) if bias is None else bias)


def view_wise(z: Tensor, pairs: list[int], condition: FlowCondition, w: Mapping[str, Tensor], name: str) -> Tensor:
    """Eq. 2-3 with shares that sum to 1 in place of a further 1/K."""
    views, fused = condition.views, torch.zeros_like(z)
    for p in pairs:
        tokens, bias = views.tokens[p], None if views.token_bias is None else views.token_bias[p]
        if name.endswith("mask"):
            assert views.occlusion is not None
            tokens, bias = views.occlusion[p], None
        fused = fused + views.weight[p] * cross(z, tokens, w, name, 3, bias)
    if f"{name}.fusion_norm.weight" in w:
        fused = standardised(fused) * w[f"{name}.fusion_norm.weight"] + w[f"{name}.fusion_norm.bias"]
    return fused


def stereo(z: Tensor, c_geo: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Eq. 6."""
    bias = None
    if "stereo_attn.gate.0.weight" in w:
        hidden = torch.relu(linear(c_geo, w, "stereo_attn.gate.0"))
        g = 1 / (1 + torch.exp(-linear(hidden, w, "stereo_attn.gate.2")[:, 0]))
        bias = torch.log(g + 1e-6)
    return cross(z, c_geo, w, "stereo_attn", 3, bias)


def written_out(model: SparseStructureFlow, x: Tensor, t: Tensor, condition: FlowCondition) -> Tensor:
    """Tokens (B, N, C_out) of the velocity."""
    state, config, found = model.state_dict(), model.config, []
    embedding = model.t_embedder(t)
    for b in range(len(x)):
        z = linear(patchify(x, config.patch_size)[b], state, "input_layer") + state["pos_emb"]
        if condition.geometry is not None:
            c_geo = linear(patchify(condition.geometry, config.patch_size)[b], state, "input_layer")  # eq. 5
            c_geo = c_geo + (state["pos_emb"] if config.geometry_positions else 0)
        pairs = [p for p, owner in enumerate(condition.views.owner.tolist()) if owner == b]
        for i in range(config.num_blocks):
            w = {k.removeprefix(f"blocks.{i}.operations."): v for k, v in state.items()}
            w |= {k.removeprefix(f"blocks.{i}."): v for k, v in state.items()}
            name = "adaLN_modulation.1" if config.share_mod else "modulations.adaLN_modulation.1"
            m = linear(torch.nn.functional.silu(embedding[b]), w, name).chunk(6)
            h = standardised(z) * (1 + m[1]) + m[0]
            q, k, v = linear(h, w, "self_attn.to_qkv").chunk(3, -1)
            z = z + m[2] * attend(q, k, v, w, "self_attn", 3, torch.zeros(1))
            h = standardised(z) * w["norms.cross_attn.weight"] + w["norms.cross_attn.bias"]
            z = z + view_wise(h, pairs, condition, w, "cross_attn")
            if config.occlusion_attention:
                z = z + view_wise(standardised(z), pairs, condition, w, "cross_attn_mask")
            if config.stereo_attention:
                h = standardised(z) * w["norms.stereo_attn.weight"] + w["norms.stereo_attn.bias"]
                z = z + stereo(h, c_geo, w)
            if config.aligned_stereo:
                z = z + linear(c_geo, w, "aligned_stereo.to_out")
            h = standardised(z) * (1 + m[4]) + m[3]
            h = torch.nn.functional.gelu(linear(h, w, "mlp.mlp.0"), approximate="tanh")
            z = z + m[5] * linear(h, w, "mlp.mlp.2")
        found.append(linear(standardised(z, 1e-5), state, "out_layer"))
    return torch.stack(found)


def run(model: SparseStructureFlow, x: Tensor, t: Tensor, condition: FlowCondition) -> Tensor:
    with torch.no_grad():
        return model(x, t, model.contexts(condition))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("counts", [[1], [3], [2, 1, 4], [2, 2]], ids=str)
def test_equals_the_equations_written_out(
    variant: str, counts: list[int], make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    model = make_flow(dtype=torch.float64, **VARIANTS[variant])
    condition = make_condition(counts, occlusion=5, biased=True, dtype=torch.float64)
    x, t = make_state(len(counts), dtype=torch.float64)
    expected = written_out(model, x, t, condition)
    ours = patchify(run(model, x, t, condition), model.config.patch_size)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(ours, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 5e-6), (torch.bfloat16, 0.06)])
def test_lower_precision_stays_near(
    dtype: torch.dtype, atol: float, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """Velocities have spread 0.6: bf16 keeps three digits through 2 blocks of 5 residual branches."""
    model, exact = make_flow(**GENA3D), make_flow(dtype=torch.float64, **GENA3D)
    condition, (x, t) = make_condition([3, 1]), make_state(2)
    wide = make_condition([3, 1], dtype=torch.float64)
    expected = run(exact, make_state(2, dtype=torch.float64)[0], t, wide)
    model.set_precision(dtype)
    torch.testing.assert_close(run(model, x, t, condition).double(), expected, atol=atol, rtol=0)


@given(st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_views_does_not_matter(
    make_flow: Callable, make_condition: Callable, make_state: Callable, count: int, seed: int
) -> None:
    model, condition = make_flow(**GENA3D), make_condition([count, 2], seed=seed)
    x, t = make_state(2)
    order = torch.randperm(count + 2, generator=torch.Generator().manual_seed(seed))
    shuffled = replace(condition, views=select_views(condition.views, order))
    torch.testing.assert_close(run(model, x, t, shuffled), run(model, x, t, condition), atol=5e-6, rtol=0)


@pytest.mark.parametrize("base_options", [{}, {"occlusion_attention": True}, {"qk_rms_norm_cross": True}], ids=str)
def test_one_view_before_training_is_the_base_model_bit_for_bit(
    base_options: dict, single_thread: None, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """TRELLIS or Amodal3R, with and without a cloud, also where the view is packed beside others."""
    base = make_flow(**base_options)
    grown = add_stereo(base, fusion_norm=False)
    condition, (x, t) = make_condition([1, 1], occlusion=5, biased=True), make_state(2)
    without = replace(condition, geometry=None)
    expected = run(base, x, t, without)
    assert torch.equal(run(grown, x, t, condition), expected)
    assert torch.equal(run(grown, x, t, without), expected)
    order = torch.tensor([1, 0])
    packed = replace(condition, views=select_views(condition.views, order))
    assert packed.seen[1] is not None
    assert torch.equal(run(grown, x, t, packed), expected)


def test_a_fresh_model_starts_without_its_stereo_attention(
    make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    model = make_flow(**GENA3D)
    torch.manual_seed(0)
    model.initialise()
    for parameter in (*model.out_layer.parameters(), *(p for b in model.blocks for p in b.modulations.parameters())):
        torch.nn.init.normal_(parameter, std=0.1)
    condition, (x, t) = make_condition([2]), make_state(1)
    assert torch.equal(run(model, x, t, condition), run(model, x, t, replace(condition, geometry=None)))


def test_gate_at_one_is_plain_cross_attention(
    make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    gated = make_flow(dtype=torch.float64, **GENA3D)
    plain = make_flow(dtype=torch.float64, **GENA3D, gating=False)
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if ".gate." not in k})
    condition, (x, t) = make_condition([2, 1], dtype=torch.float64), make_state(2, dtype=torch.float64)
    before = (run(gated, x, t, condition) - run(plain, x, t, condition)).abs().max()
    assert float(before) > 1e-3
    with torch.no_grad():
        for block in gated.blocks:
            block.operations["stereo_attn"].gate[2].weight.zero_()
            block.operations["stereo_attn"].gate[2].bias.fill_(50.0)
    torch.testing.assert_close(run(gated, x, t, condition), run(plain, x, t, condition), atol=1e-12, rtol=0)


def test_a_closed_gate_hides_a_token(make_flow: Callable) -> None:
    """g = 0 leaves log(ε): the key keeps about a millionth of its weight, and no NaN appears."""
    operation = make_flow(**GENA3D, dtype=torch.float64).blocks[0].operations["stereo_attn"]
    tokens, z = torch.randn(1, 6, 24, dtype=torch.float64), torch.randn(1, 5, 24, dtype=torch.float64)
    with torch.no_grad():
        operation.gate[0].weight.zero_()
        operation.gate[0].weight[0, 0] = 1.0
        operation.gate[0].bias.zero_()
        operation.gate[2].weight.zero_()
        operation.gate[2].weight[0, 0] = -1000.0
        operation.gate[2].bias.fill_(50.0)
        tokens[:, :, 0] = torch.tensor([-1.0, -1, -1, 5, 5, 5])
        context = operation.project(tokens)
        torch.testing.assert_close(context.key_bias[0, 3:], torch.full((3,), 1e-6, dtype=torch.float64).log())
        found, expected = operation(z, context), operation(z, operation.project(tokens[:, :3]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_every_new_parameter_learns(make_flow: Callable, make_condition: Callable, make_state: Callable) -> None:
    model = add_stereo(make_flow(occlusion_attention=True), fusion_norm=True, geometry_positions=True)
    for block in model.blocks:  # the zero projection lets nothing through to what lies behind it
        torch.nn.init.normal_(block.operations["stereo_attn"].to_out.weight, std=0.1)
    condition, (x, t) = make_condition([2, 3], occlusion=5), make_state(2)
    model(x, t, model.contexts(condition)).square().mean().backward()
    new = {n: p.grad for n, p in model.named_parameters() if "stereo_attn" in n or "fusion_norm" in n}
    assert len(new) == model.config.num_blocks * (2 + 6 + 4 + 2)
    for name, gradient in new.items():
        assert gradient is not None, name
        assert float(gradient.abs().max()) > 1e-4, name


def test_fusion_norm_absorbs_one_over_k(make_flow: Callable) -> None:
    """Eq. 3 has 1/K and shares that sum to 1; the layer norm takes either to the same up to its epsilon (1e-6)."""
    norm = make_flow(**GENA3D).double().blocks[0].operations["cross_attn"].fusion_norm
    z = torch.randn(50, 24, dtype=torch.float64)
    for K in (2, 4, 20):
        # To first order the epsilon acts as K² times itself.
        torch.testing.assert_close(norm(z / K), norm(z), atol=1e-6 * K**2 * 8, rtol=0)


def test_geometry_tokens_have_places_only_where_asked(
    make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """Eq. 5 gives a set of tokens: moving the cloud changes nothing, unless they carry their place in the grid."""
    condition, (x, t) = make_condition([2], dtype=torch.float64), make_state(1, dtype=torch.float64)
    assert condition.geometry is not None
    moved = replace(condition, geometry=condition.geometry.roll(1, dims=2))
    unplaced, placed = (make_flow(**GENA3D, geometry_positions=p, dtype=torch.float64) for p in (False, True))
    torch.testing.assert_close(run(unplaced, x, t, moved), run(unplaced, x, t, condition), atol=1e-12, rtol=0)
    assert float((run(placed, x, t, moved) - run(placed, x, t, condition)).abs().max()) > 1e-3


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(1, 9), st.integers(0, 9))
@settings(max_examples=15, deadline=None)
def test_one_to_twenty_views_mixed_in_a_batch_are_what_each_object_gets_alone(
    make_flow: Callable, make_condition: Callable, make_state: Callable, counts: list[int], tokens: int, seed: int
) -> None:
    model, condition = make_flow(**GENA3D), make_condition(counts, tokens=tokens, seed=seed)
    x, t = make_state(len(counts))
    together = run(model, x, t, condition)
    assert together.shape == x.shape
    for b in range(len(counts)):
        own = select_views(condition.views, torch.nonzero(condition.views.owner == b).flatten())
        alone = FlowCondition(replace(own, owner=torch.zeros_like(own.owner)), 1, condition.geometry[b : b + 1])
        torch.testing.assert_close(run(model, x[b : b + 1], t[b : b + 1], alone)[0], together[b], atol=5e-6, rtol=0)
