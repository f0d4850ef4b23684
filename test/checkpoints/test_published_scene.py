"""SceneGen's published constructor arguments and parameter names."""

import json
from pathlib import Path

import pytest
import torch

from gena3d_core.checkpoints.key_maps import rename_key
from gena3d_core.checkpoints.load import check_keys
from gena3d_core.checkpoints.published import build_published
from gena3d_core.errors import InputError
from gena3d_core.models.scene_flow import SceneFlow

KEYS = Path(__file__).resolve().parents[3] / "shared" / "keys" / "scenegen_ss_flow.json"
FLOW = {
    "resolution": 2,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 24,
    "cond_channels": 24,
    "num_blocks": 1,
    "num_heads": 3,
    "use_global": True,
}


@pytest.mark.skipif(not KEYS.exists(), reason="needs the published parameter names")
def test_published_parameters_map_one_to_one():
    published = json.loads(KEYS.read_text())
    with torch.device("meta"):
        module, key_map = build_published(published["class"], published["constructor"])
    assert isinstance(module, SceneFlow)
    names = {rename_key(key, key_map): tuple(shape) for key, (shape, _) in published["tensors"].items()}
    assert len(names) == len(published["tensors"])
    check_keys(module, names, KEYS.name)
    assert sum(p.numel() for p in module.parameters()) == published["n_parameters"]
    dtypes = {rename_key(key, key_map): dtype for key, (_, dtype) in published["tensors"].items()}
    assert {k: str(v.dtype).removeprefix("torch.") for k, v in module.state_dict().items()} == dtypes


def test_cross_norms_are_those_of_the_scenes_attentions_too():
    module, key_map = build_published("SparseStructureFlowModel", FLOW | {"qk_rms_norm_cross": True})
    for name in ("cross_attn", "global_attn", "global_cross_attn"):
        assert rename_key(f"blocks.0.{name}.q_rms_norm.gamma", key_map) in module.state_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_batch_encoder": True}, "use_batch_encoder"),
        ({"share_mod": True}, "share_mod"),
        ({"pe_mode": "rope"}, "pe_mode"),
        ({"cond_channels": 16}, "cond_channels"),
    ],
)
def test_options_that_no_checkpoint_has_are_refused(changes, message):
    build_published("SparseStructureFlowModel", FLOW)
    with pytest.raises(InputError, match=message):
        build_published("SparseStructureFlowModel", FLOW | changes)


def test_other_pose_encodings_are_refused():
    with pytest.raises(InputError, match="pose_encoding_type"):
        build_published("PositionHead", {"model_channels": 16, "num_heads": 2, "pose_encoding_type": "absT_quatR_FoV"})
