"""Light that reaches each vertex: soft shadows of the lamps and ambient occlusion, computed once for a scene."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

from ..types import Float32Array
from .ray_casting import RayCaster
from .scene import LightSpec

_OFFSET_M = 0.0015
_AMBIENT_REACH_M = 0.30


def bake(
    caster: RayCaster,
    vertices: np.ndarray,
    normals: np.ndarray,
    faces: np.ndarray,
    lights: Sequence[LightSpec],
    samples: int,
    seed: int = 0,
) -> Float32Array:
    """(V, L + 1) float32 in [0, 1]: visible share of each lamp, then of the ambient light.

    vertices, normals (V, 3); faces (F, 3); `samples` rays a vertex and lamp (0: no shadows, all ones).
    """
    visible = np.ones((len(vertices), len(lights) + 1), dtype=np.float32)
    if samples <= 0:
        return visible
    rng = np.random.default_rng(seed)
    origins = (vertices + _OFFSET_M * normals).astype(np.float32)
    for column, light in enumerate(lights):
        visible[:, column] = _lamp_visibility(caster, origins, normals, light, samples, rng)
    visible[:, -1] = _ambient_visibility(caster, origins, normals, samples, rng)
    return _smoothed(visible, faces)


def _lamp_visibility(
    caster: RayCaster,
    origins: np.ndarray,
    normals: np.ndarray,
    light: LightSpec,
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    center = np.asarray(light.position_m, dtype=np.float32)
    facing = np.flatnonzero(np.einsum("ni,ni->n", center - origins, normals) > 0)
    hidden = np.zeros(len(origins), dtype=np.float32)
    limit = np.ones(len(facing), dtype=np.float32)
    for _ in range(samples):
        jitter = rng.standard_normal((len(facing), 3), dtype=np.float32)
        jitter *= light.radius_m / np.linalg.norm(jitter, axis=1, keepdims=True)
        hits = caster(origins[facing], center + jitter - origins[facing], limit)
        hidden[facing] += hits.face >= 0
    return 1.0 - hidden / samples


def _ambient_visibility(
    caster: RayCaster, origins: np.ndarray, normals: np.ndarray, samples: int, rng: np.random.Generator
) -> np.ndarray:
    hidden = np.zeros(len(origins), dtype=np.float32)
    limit = np.full(len(origins), _AMBIENT_REACH_M, dtype=np.float32)
    for _ in range(samples):
        ball = rng.standard_normal(origins.shape, dtype=np.float32)
        ball /= np.linalg.norm(ball, axis=1, keepdims=True)
        direction = normals + 0.999 * ball  # a unit ball on the normal: cosine-distributed directions
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        hits = caster(origins, direction, limit)
        # an occluder far away hides little of a room's light
        hidden += np.where(hits.face >= 0, 1.0 - hits.distance / _AMBIENT_REACH_M, 0.0)
    return 1.0 - hidden / samples


def _smoothed(values: np.ndarray, faces: np.ndarray, rounds: int = 2) -> Float32Array:
    """Average over neighbouring vertices: removes the sampling noise."""
    count = len(values)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    neighbours = csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=(count, count))
    degree = np.maximum(np.asarray(neighbours.sum(axis=1)), 1.0).astype(np.float32)
    for _ in range(rounds):
        values = 0.4 * values + 0.6 * (neighbours @ values) / degree
    return values.astype(np.float32)
