"""Ids that stay with their objects from one reconstruction to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..types import Float64Array, Mesh, ReconstructedObject, Reconstruction, Scene

MAX_DISTANCE = 0.5
"""Centres of one object in two scenes are at most this share of its longest side apart, unless the boxes overlap."""
MIN_OVERLAP = 0.1
"""Boxes with at least this intersection over union may be the same object whatever their centres."""
MAX_SIZE_RATIO = 3.0
"""The longest side of one object differs by less than this factor between two scenes."""
OTHER_LABEL_COST = 0.5
"""Cost of pairing two objects whose labels are given and differ; a perfect pair costs 0, the worst about 2."""
_IMPOSSIBLE = 1e6
_NO_MESH = Mesh(np.empty((0, 3), np.float32), np.empty((0, 3), np.int32))


def assign_ids(previous: Scene | None, scene: Scene, *, first_new_id: int = 1) -> Scene:
    """`scene` with the ids of `previous` on the objects that are in both, in the same order.

    Objects are paired one to one by the overlap of their boxes, the distance of their centres, their sizes and labels,
    at the least total cost. The others get ids that are in neither, counted up from `first_new_id`. A previous scene
    in another frame says nothing about this one.
    """
    known = previous.objects if previous is not None and previous.frame_id == scene.frame_id else ()
    ids = {new: known[old].id for old, new in _pairs(known, scene.objects)}
    next_id = max([first_new_id, *(item.id + 1 for item in (previous.objects if previous else ()))])
    for index in range(len(scene.objects)):
        if index not in ids:
            ids[index] = next_id
            next_id += 1
    return replace(scene, objects=tuple(replace(o, id=ids[i]) for i, o in enumerate(scene.objects)))


def with_ids_of(reconstruction: Reconstruction, scene: Scene) -> Reconstruction:
    """`reconstruction` with `scene`, its own with other ids, in place of its scene; its observations follow."""
    ids = {old.id: new.id for old, new in zip(reconstruction.scene.objects, scene.objects, strict=True)}
    observations = tuple(replace(o, id=ids.get(o.id, o.id)) for o in reconstruction.observations)
    return replace(reconstruction, scene=scene, observations=observations)


def with_forced_ids(scene: Scene, forced: Mapping[int, int], first_new_id: int) -> Scene:
    """`scene` with the ids `forced` by index; whoever else had one of them gets a new one, from `first_new_id` on."""
    taken = set(forced.values())
    next_id = max([first_new_id, *(i + 1 for i in taken), *(item.id + 1 for item in scene.objects)])
    objects = []
    for index, item in enumerate(scene.objects):
        wanted = forced.get(index, item.id)
        if index not in forced and wanted in taken:
            wanted, next_id = next_id, next_id + 1
        objects.append(replace(item, id=wanted))
    return replace(scene, objects=tuple(objects))


def merged(previous: Scene | None, scene: Scene) -> Scene:
    """`scene`, and before its new objects those of `previous` that it lacks; objects that are in both are `scene`'s.

    A previous scene in another frame is left out.
    """
    if previous is None or previous.frame_id != scene.frame_id:
        return scene
    renewed = {item.id: item for item in scene.objects}
    kept = [renewed.pop(item.id, item) for item in previous.objects]
    support = previous.support if scene.support is None else scene.support
    return replace(scene, objects=(*kept, *renewed.values()), support=support)


def remember(previous: Scene | None, scene: Scene, limit: int = 100) -> Scene:
    """`scene` with the objects of `previous` that it lacks appended: one missed once gets its id back later.

    At most `limit` missing objects are kept, the most recently seen first, and without their meshes.
    """
    if previous is None or previous.frame_id != scene.frame_id:
        return scene
    present = {item.id for item in scene.objects}
    missing = [replace(item, mesh=_NO_MESH) for item in previous.objects if item.id not in present]
    return replace(scene, objects=(*scene.objects, *missing[:limit]))


def _pairs(known: Sequence[ReconstructedObject], found: Sequence[ReconstructedObject]) -> list[tuple[int, int]]:
    if not known or not found:
        return []
    cost = _pair_costs(known, found)
    rows, cols = linear_sum_assignment(cost)
    return [(int(row), int(col)) for row, col in zip(rows, cols, strict=True) if cost[row, col] < _IMPOSSIBLE]


def _pair_costs(known: Sequence[ReconstructedObject], found: Sequence[ReconstructedObject]) -> Float64Array:
    """(K, F) cost of taking a found object for a known one."""
    low_a, high_a = _world_boxes(known)
    low_b, high_b = _world_boxes(found)
    side_a, side_b = (np.maximum((high - low).max(axis=1), 1e-9) for high, low in ((high_a, low_a), (high_b, low_b)))
    shared = np.minimum(high_a[:, None], high_b[None]) - np.maximum(low_a[:, None], low_b[None])
    intersection = np.prod(np.maximum(shared, 0.0), axis=-1)
    volume_a, volume_b = (np.prod(high - low, axis=1) for high, low in ((high_a, low_a), (high_b, low_b)))
    union = np.maximum(volume_a[:, None] + volume_b[None] - intersection, 1e-18)
    overlap = intersection / union
    distance = np.linalg.norm((low_a + high_a)[:, None] - (low_b + high_b)[None], axis=-1) / 2.0
    relative = distance / np.maximum(side_a[:, None], side_b[None])
    ratio = np.maximum(side_a[:, None] / side_b[None], side_b[None] / side_a[:, None])

    label_a, label_b = (np.array([o.label for o in objects], dtype=object) for objects in (known, found))
    other_label = (label_a[:, None] != label_b[None]) & (label_a[:, None] != "") & (label_b[None] != "")
    cost = np.minimum(relative, 1.0) + (1.0 - overlap) + OTHER_LABEL_COST * other_label
    possible = ((relative <= MAX_DISTANCE) | (overlap >= MIN_OVERLAP)) & (ratio <= MAX_SIZE_RATIO)
    return np.where(possible, cost, _IMPOSSIBLE)


def _world_boxes(objects: Sequence[ReconstructedObject]) -> tuple[Float64Array, Float64Array]:
    """(N, 3) lower and upper corners of the world-aligned boxes around the objects' own boxes."""
    T = np.stack([item.T_world_object for item in objects])
    half = np.einsum("nij,nj->ni", np.abs(T[:, :3, :3]), np.stack([item.size_m for item in objects])) / 2.0
    return T[:, :3, 3] - half, T[:, :3, 3] + half
