"""What a perfect reconstruction of a synthetic scene would be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Mesh, ReconstructedObject, Scene, SupportPlane
from .scene import SceneSpec, object_mesh


def ground_truth(
    spec: SceneSpec, meshes: Sequence[Mesh] | None = None, frame_id: str = "world", stamp_ns: int = 0
) -> Scene:
    """Complete meshes at their true poses; ids are those of the instance images, labels the objects' names.

    `meshes`, where a `Renderer` has made them already, are those of `spec.objects` in their own frames.
    """
    meshes = [object_mesh(o) for o in spec.objects] if meshes is None else meshes
    objects = tuple(
        ReconstructedObject(
            id=index + 1,
            label=item.name,
            score=1.0,
            mesh=mesh,
            T_world_object=item.T_world_object,
            size_m=np.ptp(mesh.vertices.astype(np.float64), axis=0),
        )
        for index, (item, mesh) in enumerate(zip(spec.objects, meshes, strict=True))
    )
    support = SupportPlane(normal=np.array([0.0, 0.0, 1.0]), offset_m=0.0)
    return Scene(objects=objects, frame_id=frame_id, stamp_ns=stamp_ns, support=support)
