"""Closest hits of many rays with one triangle mesh: Embree where it is installed, Open3D otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, Protocol

import numpy as np

from ..errors import MissingDependencyError
from ..types import Float32Array, Int32Array


class Hits(NamedTuple):
    """face (N,) int32, -1 = nothing hit; distance (N,) float32 in lengths of the ray's direction; u, v (N,) float32.

    The hit point is (1 - u - v) a + u b + v c of the face (a, b, c).
    """

    face: Int32Array
    distance: Float32Array
    u: Float32Array
    v: Float32Array


class RayCaster(Protocol):
    """Casts rays at a fixed mesh."""

    def __call__(self, origins: np.ndarray, directions: np.ndarray, max_distance: np.ndarray | None = None) -> Hits:
        """Closest hit of each ray: origins, directions (N, 3) float32; max_distance (N,) float32 in ray lengths."""
        ...


CasterFactory = Callable[[np.ndarray, np.ndarray], RayCaster]
"""Makes a caster over vertices (V, 3) and faces (F, 3)."""
_FACTORY: ContextVar[CasterFactory | None] = ContextVar("caster factory", default=None)


@contextmanager
def casting_with(factory: CasterFactory) -> Iterator[None]:
    """Within this block, in this thread, `make_caster` makes its casters with `factory`."""
    token = _FACTORY.set(factory)
    try:
        yield
    finally:
        _FACTORY.reset(token)


def make_caster(vertices: np.ndarray, faces: np.ndarray) -> RayCaster:
    """Caster over vertices (V, 3) and faces (F, 3); raises `MissingDependencyError` if no engine is installed."""
    factory = _FACTORY.get()
    if factory is not None:
        return factory(vertices, faces)
    for engine in (_embree_caster, _open3d_caster):
        try:
            return engine(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32))
        except ImportError:
            continue
    raise MissingDependencyError("embreex", "rendering", "embreex (or open3d, where embreex has no build)")


def _embree_caster(vertices: np.ndarray, faces: np.ndarray) -> RayCaster:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    TriangleMesh(scene, vertices, faces)

    def cast(origins: np.ndarray, directions: np.ndarray, max_distance: np.ndarray | None = None) -> Hits:
        if not len(directions):
            return _no_hits()
        hit = scene.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            # Embree shortens the rays in place
            dists=None if max_distance is None else np.array(max_distance, np.float32),
            output=1,
        )
        return Hits(hit["primID"], hit["tfar"], hit["u"], hit["v"])

    return cast


def _open3d_caster(vertices: np.ndarray, faces: np.ndarray) -> RayCaster:
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(vertices), open3d.core.Tensor(faces.astype(np.uint32)))

    def cast(origins: np.ndarray, directions: np.ndarray, max_distance: np.ndarray | None = None) -> Hits:
        if not len(directions):
            return _no_hits()
        rays = np.concatenate([origins, directions], axis=1, dtype=np.float32)
        result = scene.cast_rays(open3d.core.Tensor(rays))
        distance, uv = result["t_hit"].numpy(), result["primitive_uvs"].numpy()
        limit = np.inf if max_distance is None else max_distance
        face = np.where(distance < limit, result["primitive_ids"].numpy().astype(np.int64), -1).astype(np.int32)
        return Hits(np.where(np.isfinite(distance), face, -1), distance, uv[:, 0], uv[:, 1])

    return cast


def _no_hits() -> Hits:
    empty = np.zeros(0, dtype=np.float32)
    return Hits(np.zeros(0, dtype=np.int32), empty, empty, empty)
