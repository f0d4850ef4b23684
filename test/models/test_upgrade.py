"""A base model grown into GENA3D: nothing changes until it is trained."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.models.upgrade import add_stereo
from gena3d_core.nn.precision import matrix_dtype


@pytest.mark.parametrize("options", [{}, {"occlusion_attention": True}, {"share_mod": True, "patch_size": 2}], ids=str)
@pytest.mark.parametrize("gating", [True, False])
def test_output_is_the_base_models(
    options: dict, gating: bool, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    base = make_flow(**options)
    grown = add_stereo(base, fusion_norm=False, gating=gating, geometry_positions=True)
    condition, (x, t) = make_condition([2, 1], occlusion=5), make_state(2)
    with torch.no_grad():
        expected = base(x, t, base.contexts(replace(condition, geometry=None)))
        assert torch.equal(grown(x, t, grown.contexts(condition)), expected)
    assert grown.config == replace(base.config, stereo_attention=True, gating=gating, geometry_positions=True)


def test_new_parts_are_xavier_with_a_zero_projection(make_flow: Callable) -> None:
    base = make_flow()
    grown = add_stereo(base, fusion_norm=True)
    old, new = base.state_dict(), grown.state_dict()
    assert all(torch.equal(new[key], value) for key, value in old.items())
    for key in new.keys() - old.keys():
        value = new[key]
        if "fusion_norm" in key or "norms.stereo_attn" in key:
            assert bool((value == (1.0 if key.endswith("weight") else 0.0)).all()), key
        elif "to_out" in key or key.endswith("bias"):
            assert bool((value == 0).all()), key
        else:
            assert float(value.abs().max()) <= (6 / sum(value.shape)) ** 0.5, key
            assert float(value.std()) > 0.05, key


def test_base_is_untouched_and_shares_nothing(make_flow: Callable) -> None:
    base = make_flow()
    before = {key: value.clone() for key, value in base.state_dict().items()}
    grown = add_stereo(base.train(), fusion_norm=True)
    assert grown.training
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(base.state_dict()[key], value) for key, value in before.items())


def test_precision_stays(make_flow: Callable, make_condition: Callable, make_state: Callable) -> None:
    base = make_flow()
    base.set_precision(torch.bfloat16)
    grown = add_stereo(base, fusion_norm=False)
    assert matrix_dtype(grown.blocks) == torch.bfloat16
    assert grown.input_layer.weight.dtype == torch.float32
    condition, (x, t) = make_condition([2, 1]), make_state(2)
    with torch.no_grad():
        expected = base(x, t, base.contexts(condition))
        assert torch.equal(grown(x, t, grown.contexts(condition)), expected)


def test_twice_is_an_error(make_flow: Callable) -> None:
    with pytest.raises(InputError, match="already"):
        add_stereo(add_stereo(make_flow(), fusion_norm=False), fusion_norm=False)
