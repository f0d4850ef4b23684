"""Contact with the support: objects that drift left hovering or sunk are moved vertically, within a bound."""

from __future__ import annotations

import numpy as np

from ..geometry import mesh as mesh_ops
from ..types import Float64Array, Mesh, SupportPlane

CONTACT_SHARE = 0.002
"""Share of the surface samples that may lie under the contact level: a few stray points do not lift an object."""
SAMPLES = 4_000


def support_gap_m(mesh: Mesh, support: SupportPlane, seed: int = 0) -> float:
    """Height in metres of the mesh's lowest part (world) above the support: positive hovering, negative sunk."""
    points, _ = mesh_ops.sample_surface(mesh, SAMPLES, np.random.default_rng(seed))
    heights = support.height_m(np.concatenate([points, mesh.vertices]).astype(np.float64))
    return float(np.quantile(heights, CONTACT_SHARE))


def settle_shift_m(
    gap_m: float, support: SupportPlane, max_shift_m: float, max_gap_m: float, tolerance_m: float = 0.001
) -> Float64Array:
    """Translation (3,) along the support's normal that brings a gap to zero, at most `max_shift_m` long.

    Objects that hover by more than `max_gap_m` are not resting on this support (held, hanging, stacked) and stay.
    With `max_gap_m` 0 nothing is lowered: right for open meshes, whose lowest part may just be unseen.
    """
    if abs(gap_m) <= tolerance_m or gap_m > max_gap_m:
        return np.zeros(3)
    return -float(np.clip(gap_m, -max_shift_m, max_shift_m)) * np.asarray(support.normal, dtype=np.float64)
