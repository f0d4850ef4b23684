"""Colours and observed flags of meshes that a generator imagined, from the views that saw the object."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..geometry import mesh as mesh_ops
from ..types import ObjectObservation, ReconstructedObject
from .coloring import vertex_colors

OBSERVED_DISTANCE = 0.03
"""A vertex counts as observed where a camera sees it within this share of the object's longest side of its depth."""


def with_appearance(item: ReconstructedObject, observation: ObjectObservation) -> ReconstructedObject:
    """The placed object with `vertex_observed`, and colours where its generator gave none.

    Objects whose generator says itself what was observed come back unchanged.
    """
    if item.mesh.vertex_observed is not None:
        return item
    placed = mesh_ops.transformed(item.mesh, item.T_world_object)
    tolerance_m = OBSERVED_DISTANCE * float(np.max(item.size_m))
    colors, observed = vertex_colors(placed, observation.views, observation.visible_masks, tolerance_m)
    mesh = replace(item.mesh, vertex_observed=observed)
    if mesh.vertex_colors is None:
        mesh = replace(mesh, vertex_colors=colors)
    return replace(item, mesh=mesh, observed_fraction=mesh_ops.observed_fraction(mesh))
