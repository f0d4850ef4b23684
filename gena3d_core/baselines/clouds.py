"""What the baselines make of an observation's points: without outliers, thinned, with normals."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry.partial_cloud import RESOLUTION, WIDENING, dense_points
from ..types import Float64Array, ObjectObservation

NEIGHBOURS = 16


def clean_cloud(observation: ObjectObservation) -> Float64Array:
    """(N, 3) observed points (world) without outliers. Raises `InputError` if there are none."""
    points = observation.points_m[np.isfinite(observation.points_m).all(axis=1)].astype(np.float64)
    if not len(points):
        raise InputError(f"object {observation.id} ('{observation.label}') has no observed points")
    kept = points[dense_points(points, float(np.ptp(points, axis=0).max()) / RESOLUTION, widening=WIDENING)]
    return kept if 2 * len(kept) >= len(points) else points


def camera_normals(points_m: np.ndarray, eyes_m: np.ndarray) -> Float64Array:
    """(N, 3) unit normals of points (N, 3), of the plane through their neighbours, towards their cameras (N, 3)."""
    count = min(NEIGHBOURS, len(points_m))
    near = points_m[cKDTree(points_m).query(points_m, k=count)[1].reshape(len(points_m), count)]
    offset = near - near.mean(axis=1, keepdims=True)
    normals = np.linalg.eigh(np.einsum("nki,nkj->nij", offset, offset))[1][..., 0]
    away = np.einsum("ni,ni->n", normals, eyes_m - points_m) < 0
    return np.where(away[:, None], -normals, normals)
