"""Cases of the sparse operations with other sizes than the shared one."""

import pytest
import torch

from gena3d_core.checkpoints.cases import runner_for
from gena3d_core.checkpoints.golden import GoldenCase
from gena3d_core.errors import DataFormatError

C, EMB, GROUPS = 12, 7, 3


def weights():
    torch.manual_seed(0)
    shapes = {
        "conv3.conv": (C + 2, 3, 3, 3, C),
        "conv1.conv": (C - 3, 1, 1, 1, C),
        "group_norm": (C,),
        "attn_win.to_qkv": (3 * C, C),
        "attn_win.to_out": (C, C),
        "attn_full.to_qkv": (3 * C, C),
        "attn_full.to_out": (C, C),
    }
    for name, inside, outside in (("res_same", C, C), ("res_down", C, C + 4), ("res_up", C + 4, C)):
        shapes[f"{name}.norm1"] = (inside,)
        shapes[f"{name}.conv1.conv"] = (outside, 3, 3, 3, inside)
        shapes[f"{name}.conv2.conv"] = (outside, 3, 3, 3, outside)
        shapes[f"{name}.emb_layers.1"] = (2 * outside, EMB)
        if inside != outside:
            shapes[f"{name}.skip_connection"] = (outside, inside)
    made = {f"{name}.weight": torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    return made | {f"{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}


def case(batch, **changes):
    rng = torch.Generator().manual_seed(0)
    cells = torch.cat(
        [
            torch.nn.functional.pad((torch.rand(5, 4, 6, generator=rng) < 0.3).nonzero(), (1, 0), value=b)
            for b in range(batch)
        ]
    )
    parts = {
        "description": {
            "task": "e",
            "config": {"C": C, "heads": 2, "window": 3, "shift": 1},
            "constructor": f"group_norm: SparseGroupNorm32({GROUPS} groups, C)",
        },
        "inputs": {
            "feats": torch.randn(len(cells), C, generator=rng),
            "coords": cells.int(),
            "emb": torch.randn(batch, EMB, generator=rng),
        },
        "expected": {"out.conv3": torch.zeros(0), "out.abs_pos_emb_dim13": torch.zeros(0)},
        "weights": weights(),
    }
    return GoldenCase("other_sizes", **(parts | changes))


@pytest.mark.parametrize("batch", [1, 3])
def test_other_sizes(batch):
    given = case(batch)
    found = runner_for(given)(given).tensors
    feats, coords, state = given.inputs["feats"], given.inputs["coords"].long(), given.weights
    assert {name: tensor.shape[1] for name, tensor in found.items() if tensor.ndim == 2} == {
        "out.conv3": C + 2,
        "out.conv1": C - 3,
        "out.group_norm": C,
        "out.attn_win": C,
        "out.attn_full": C,
        "out.res_same": C,
        "out.res_down.feats": C + 4,
        "out.res_down.coords": 4,
        "out.res_up_after_down": C,
        "out.down.feats": C,
        "out.down.coords": 4,
        "out.up": C,
        "out.subdivide.feats": C,
        "out.subdivide.coords": 4,
        "out.abs_pos_emb_dim13": 13,
    }
    torch.testing.assert_close(
        found["out.conv1"], feats @ state["conv1.conv.weight"].flatten().view(C, C - 3) + state["conv1.conv.bias"]
    )
    for b in range(batch):
        own = coords[:, 0] == b
        wanted = torch.nn.functional.group_norm(
            feats[own].t()[None], GROUPS, state["group_norm.weight"], state["group_norm.bias"]
        )
        torch.testing.assert_close(found["out.group_norm"][own], wanted[0].t(), atol=1e-5, rtol=1e-4)
    cubes = torch.cat([coords[:, :1], (coords[:, 1:] + 1) // 3], dim=1)
    same = (cubes[:, None] == cubes).all(-1)
    ids = found["out.window_id"]
    assert torch.equal(ids[:, None] == ids, same)


def test_what_the_case_does_not_state_is_named():
    with pytest.raises(DataFormatError, match="groups"):
        runner_for(case(1))(case(1, description=case(1).description | {"constructor": "layers"}))
    with pytest.raises(DataFormatError, match=r"config\.window"):
        runner_for(case(1))(case(1, description=case(1).description | {"config": {"heads": 2}}))
    incomplete = {name: tensor for name, tensor in weights().items() if name != "conv3.conv.weight"}
    with pytest.raises(DataFormatError, match=r"conv3\.conv\.weight"):
        runner_for(case(1))(case(1, weights=incomplete))
