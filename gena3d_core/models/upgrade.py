"""A published stage-1 model (TRELLIS, Amodal3R) as the starting point of GENA3D."""

from __future__ import annotations

from dataclasses import replace

from ..errors import InputError
from ..nn.initialisation import xavier, zero
from ..nn.precision import matrix_dtype
from .sparse_structure_flow import SparseStructureFlow

NEW_PARTS = (".stereo_attn.", ".fusion_norm.")
"""Parameters that a base model lacks have one of these in their names."""


def add_stereo(
    model: SparseStructureFlow, *, fusion_norm: bool, gating: bool = True, geometry_positions: bool = False
) -> SparseStructureFlow:
    """A GENA3D model with the weights of `model`, which stays as it is; same device, dtypes and mode.

    The stereo attention is Xavier-initialised with a zero output projection (GENA3D A.1), so that the result computes
    exactly what `model` does, with or without clouds, until it is trained. fusion_norm changes that from the start,
    also for one view: the base has no layer norm there. gating and geometry_positions as in the config. Raises
    `InputError` for a model that has the attention already.
    """
    if model.config.stereo_attention:
        raise InputError("the model has stereo attention already")
    config = replace(
        model.config,
        stereo_attention=True,
        fusion_norm=fusion_norm,
        gating=gating,
        geometry_positions=geometry_positions,
    )
    grown = SparseStructureFlow(config).to(model.pos_emb.device)
    grown.set_precision(matrix_dtype(model.blocks))
    missing, unexpected = grown.load_state_dict(model.state_dict(), strict=False)
    if unexpected or not all(any(part in name for part in NEW_PARTS) for name in missing):
        raise InputError(f"not a base of GENA3D: lacks {missing}, has {unexpected} besides")
    for block in grown.blocks:
        attention = block.operations["stereo_attn"]
        xavier(attention)
        zero(attention.to_out)
    return grown.train(model.training)
