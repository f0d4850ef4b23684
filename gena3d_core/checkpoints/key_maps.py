"""Names of the published parameters -> ours: short tables of patterns, tried in order, all that match are applied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..errors import DataFormatError

KeyMap = Sequence[tuple[str, str]]
"""(regular expression, replacement) pairs."""

FLOW_BLOCK: KeyMap = (
    (r"(blocks\.\d+)\.norm2\.", r"\1.norms.cross_attn."),
    (r"(blocks\.\d+)\.(adaLN_modulation)\.", r"\1.modulations.\2."),
    (r"(blocks\.\d+)\.(self_attn|cross_attn|cross_attn_mask|mlp)\.", r"\1.operations.\2."),
    (r"\.([qk])_rms_norm\.", r".\1_norm."),
)
"""Transformer blocks of the flow models; Amodal3R's second cross-attention has a norm without parameters."""


POSITION_HEAD: KeyMap = (
    (r"(trunk\.\d+)\.(adaLN_modulation)\.", r"\1.modulations.\2."),
    (r"(trunk\.\d+)\.(attn|mlp)\.", r"\1.operations.\2."),
    (r"\.([qk])_rms_norm\.", r".\1_norm."),
)
"""SceneGen's position head."""

SCENE_FLOW: KeyMap = (
    (r"(blocks\.\d+)\.norm4\.", r"\1.norms.global_attn."),
    (r"(blocks\.\d+)\.(adaLN_modulation_global)\.", r"\1.modulations.\2."),
    (r"(blocks\.\d+)\.(global_attn|global_cross_attn)\.", r"\1.operations.\2."),
    *FLOW_BLOCK,
    *POSITION_HEAD,
)
"""SceneGen's flow: the scene's attentions beside the object's."""


DINOV2: KeyMap = (
    (r"patch_embed\.proj\.", "patch_embed."),
    (r"blocks\.\d+\.(\d+)\.", r"blocks.\1."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.norms.attn."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.norms.mlp."),
    (r"(blocks\.\d+)\.ls1\.gamma", r"\1.gains.attn"),
    (r"(blocks\.\d+)\.ls2\.gamma", r"\1.gains.mlp"),
    (r"(blocks\.\d+)\.attn\.qkv\.", r"\1.operations.attn.to_qkv."),
    (r"(blocks\.\d+)\.attn\.proj\.", r"\1.operations.attn.to_out."),
    (r"(blocks\.\d+)\.mlp\.fc1\.", r"\1.operations.mlp.mlp.0."),
    (r"(blocks\.\d+)\.mlp\.fc2\.", r"\1.operations.mlp.mlp.2."),
    (r"(blocks\.\d+)\.mlp\.(w12|w3)\.", r"\1.operations.mlp.\2."),
)
"""DINOv2 as the torch hub names it, blocks in one list or in chunks."""

DINOV2_TRANSFORMERS: KeyMap = (
    (r"^dinov2_with_registers\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.norm1\.", ".norms.attn."),
    (r"\.norm2\.", ".norms.mlp."),
    (r"\.layer_scale1\.lambda1$", ".gains.attn"),
    (r"\.layer_scale2\.lambda1$", ".gains.mlp"),
    (r"\.attention\.(attention\.)?qkv\.", ".operations.attn.to_qkv."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".operations.attn.to_out."),
    (r"\.mlp\.fc1\.", ".operations.mlp.mlp.0."),
    (r"\.mlp\.fc2\.", ".operations.mlp.mlp.2."),
)
"""DINOv2 as the package `transformers` names it, once queries, keys and values are one linear layer."""

GEOMETRY_BLOCK: KeyMap = (
    *DINOV2,
    (r"(blocks\.\d+)\.attn\.([qk]_norm)\.", r"\1.operations.attn.\2."),
)
"""Blocks of the networks of scene geometry: those of DINOv2 with norms of queries and keys."""

PI3: KeyMap = (
    (r"^decoder\.", "blocks."),
    (r"_decoder\.projects\.", "_decoder.input_layer."),
    (r"_decoder\.linear_out\.", "_decoder.out_layer."),
    (r"^camera_head\.res_conv\.(\d+)\.res_conv1\.", r"camera_head.units.\1.layers.0."),
    (r"^camera_head\.res_conv\.(\d+)\.res_conv2\.", r"camera_head.units.\1.layers.2."),
    (r"^camera_head\.res_conv\.(\d+)\.res_conv3\.", r"camera_head.units.\1.layers.4."),
    (r"^camera_head\.more_mlps\.", "camera_head.perceptron."),
    (r"^camera_head\.fc_t\.", "camera_head.translation."),
    (r"^camera_head\.fc_rot\.", "camera_head.rotation."),
    *GEOMETRY_BLOCK,
)
"""π³."""

PI3X: KeyMap = (
    (r"^ray_embed\.proj\.", "ray_embed."),
    (r"^pose_inject_blk\.", "pose_blocks."),
    (r"_head\.upsample_blocks\.", "_head.stages."),
    (r"_head\.output_block\.", "_head.outputs."),
    (r"^metric_token$", "metric.token"),
    (r"^metric_head\.", "metric.head."),
    (r"^metric_decoder\.projects_x\.", "metric.token_layer."),
    (r"^metric_decoder\.projects_y\.", "metric.context_layer."),
    (r"^metric_decoder\.linear_out\.", "metric.out_layer."),
    (r"^metric_decoder\.(blocks\.\d+)\.norm2\.", r"metric.\1.norms.cross_attn."),
    (r"^metric_decoder\.(blocks\.\d+)\.norm_y\.", r"metric.\1.operations.cross_attn.norm_context."),
    (r"^metric_decoder\.(blocks\.\d+)\.norm3\.", r"metric.\1.norms.mlp."),
    (r"^metric_decoder\.(blocks\.\d+)\.cross_attn\.([qkv])_proj\.", r"metric.\1.operations.cross_attn.to_\2."),
    (r"^metric_decoder\.(blocks\.\d+)\.cross_attn\.proj\.", r"metric.\1.operations.cross_attn.to_out."),
    (r"^metric_decoder\.", "metric."),
    *PI3,
)
"""π³X."""

AGGREGATOR_PREFIX = "aggregator."
"""In front of the aggregator's names in the file of a whole VGGT."""

VGGT_AGGREGATOR: KeyMap = (
    (rf"^{re.escape(AGGREGATOR_PREFIX)}", ""),
    (r"^patch_embed\.proj\.", "encoder.patch_embed."),
    (r"^patch_embed\.", "encoder."),
    *GEOMETRY_BLOCK,
)
"""VGGT's aggregator, with a DINOv2 or a patch convolution in front."""

VOXEL_TRANSFORMER: KeyMap = (
    (r"^(input_layer|blocks\.\d+|out_layer)\.", r"network.\1."),
    (r"(blocks\.\d+)\.(attn|mlp)\.", r"\1.operations.\2."),
    (r"\.([qk])_rms_norm\.", r".\1_norm."),
)
"""Encoder, Gaussian and radiance-field decoder of the structured latents."""

MESH_DECODER: KeyMap = (
    (r"^(input_layer|blocks\.\d+)\.", r"network.\1."),
    *VOXEL_TRANSFORMER[1:],
    (r"\.act_layers\.0\.", ".norm1."),
    (r"\.out_layers\.0\.", ".conv1."),
    (r"\.out_layers\.1\.", ".norm2."),
    (r"\.out_layers\.3\.", ".conv2."),
)
"""Mesh decoder of the structured latents, whose output layer comes after the subdivision blocks."""


def rename(weights: Mapping[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """The weights under our names; raises `DataFormatError` if two published names meet in one of ours."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        ours = rename_key(key, key_map)
        if ours in renamed:
            raise DataFormatError(f"two parameters become '{ours}', one of them '{key}': wrong checkpoint family?")
        renamed[ours] = tensor
    return renamed


def rename_key(key: str, key_map: KeyMap) -> str:
    """One published name -> ours."""
    for pattern, replacement in key_map:
        key = re.sub(pattern, replacement, key)
    return key
