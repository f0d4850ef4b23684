"""How an object comes to lie: a random turn about the vertical, or onto another side on which it stays."""

from __future__ import annotations

import numpy as np
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from ..geometry.mesh import sphere_directions
from ..types import Float64Array, Mesh

_TOLERANCE = 1e-4
_FACET_DIGITS = 3
MAX_HULL_POINTS = 4000


def random_turn(mesh: Mesh, upright: bool, on_table: bool, rng: np.random.Generator) -> Float64Array:
    """(3, 3) rotation of an object: about z only if `upright`; else onto a stable side on a table, else any."""
    yaw = Rotation.from_rotvec([0.0, 0.0, rng.uniform(0.0, 2.0 * np.pi)])
    if upright:
        return yaw.as_matrix()
    if not on_table:
        return Rotation.random(random_state=int(rng.integers(1 << 31))).as_matrix()
    down = stable_side(mesh, rng)
    onto, _ = Rotation.align_vectors([[0.0, 0.0, -1.0]], [down])
    return (yaw * onto).as_matrix()


def stable_side(mesh: Mesh, rng: np.random.Generator) -> Float64Array:
    """(3,) outward normal of a facet of the convex hull on which the object rests without tipping over.

    Large facets are likelier. The centre of the hull's points stands for the centre of mass. Objects without a hull
    of volume rest as they are.
    """
    points = mesh.vertices.astype(np.float64)[:: max(1, len(mesh.vertices) // MAX_HULL_POINTS)]
    extreme = points[np.unique((points @ sphere_directions(256).T).argmax(axis=0))]
    try:
        hull = ConvexHull(extreme)
    except (QhullError, ValueError):
        return np.array([0.0, 0.0, -1.0])
    corners = hull.points[hull.simplices]
    areas = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    equations, facet = np.unique(hull.equations.round(_FACET_DIGITS), axis=0, return_inverse=True)
    area = np.bincount(facet.reshape(-1), weights=areas)
    center = (corners.mean(axis=1) * areas[:, None]).sum(axis=0) / areas.sum()
    height = equations[:, :3] @ center + equations[:, 3]
    foot = center - height[:, None] * equations[:, :3]
    inside = (foot @ equations[:, :3].T + equations[:, 3]).max(axis=1) <= _TOLERANCE + 10.0**-_FACET_DIGITS
    weight = np.where(inside, area, 0.0)
    if not weight.sum() > 0:
        return np.array([0.0, 0.0, -1.0])
    down = equations[rng.choice(len(equations), p=weight / weight.sum()), :3]
    return down / np.linalg.norm(down)
