"""Convex hull of the observed points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ..errors import InputError
from ..geometry.mesh import make_mesh
from ..types import CancelCheck, CompletedObject, Mesh, ObjectObservation, ProgressCallback, check_cancelled
from .clouds import clean_cloud


@dataclass(frozen=True)
class HullBaseline:
    """The smallest convex solid around what was seen: closed, and right for convex objects seen from all sides."""

    deterministic = True

    def generate(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[CompletedObject]:
        """See `ObjectGenerator`; meshes are in world metres. Raises `InputError` for points that span no volume."""
        completed = []
        for observation in observations:
            check_cancelled(cancelled)
            completed.append(CompletedObject(observation.id, convex_hull(clean_cloud(observation)), np.eye(4)))
        return completed


def convex_hull(points_m: np.ndarray) -> Mesh:
    """Convex hull of points (N, 3), faces outwards. Raises `InputError` for points that span no volume."""
    points = np.asarray(points_m, dtype=np.float64)
    try:
        hull = ConvexHull(points)
    except (QhullError, ValueError) as error:
        raise InputError(f"{len(points)} observed points span no volume, so they have no convex hull") from error
    used, index = np.unique(hull.simplices, return_inverse=True)
    faces, vertices = index.reshape(-1, 3), points[used]
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    inward = np.einsum("fi,fi->f", normal, hull.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, ::-1]
    return make_mesh(vertices, faces)
