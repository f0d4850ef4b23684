"""Closest hits of many rays with one triangle mesh in plain PyTorch, for devices that Embree does not know.

A tree of bounding boxes without pointers: faces sorted along a Morton curve, four to a leaf, four nodes to a parent.
All rays of a chunk go down a level at once, as a list of pairs of a ray and a box that it meets.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..types import require_shape
from .ray_casting import CasterFactory, Hits, RayCaster

FAN = 4
"""Faces of a leaf and children of a node."""
CHUNK = 1 << 16
"""Rays that go down the tree together: bounds the memory (some 500 MB where rays meet a hundred boxes each)."""
BOX_MARGIN = 1e-6
"""Boxes are grown by this share of the mesh's extent, so that rounding loses no face in a box wall."""


def torch_caster_factory(device: str | torch.device) -> CasterFactory:
    """What `ray_casting.casting_with` takes to make every caster on `device`."""

    def make(vertices: np.ndarray, faces: np.ndarray) -> RayCaster:
        return make_torch_caster(vertices, faces, device)

    return make


def make_torch_caster(vertices: np.ndarray, faces: np.ndarray, device: str | torch.device = "cpu") -> RayCaster:
    """Caster over vertices (V, 3) and faces (F, 3) on `device`; rays and hits are arrays of the host.

    Distances are infinite where nothing is hit. Rays through a shared edge hit one of its faces. Raises `InputError`
    for vertices that are not finite or faces that name none.
    """
    require_shape("vertices", vertices, (None, 3))
    require_shape("faces", faces, (None, 3))
    if not np.isfinite(vertices).all():
        raise InputError("rays can be cast only at finite vertices")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise InputError(f"mesh faces index vertices outside 0..{len(vertices) - 1}")
    points = torch.as_tensor(np.ascontiguousarray(vertices, np.float32), device=device)
    corners = points[torch.as_tensor(np.ascontiguousarray(faces, np.int64), device=device)]
    order, boxes = _tree(corners)

    def cast(origins: np.ndarray, directions: np.ndarray, max_distance: np.ndarray | None = None) -> Hits:
        count = len(directions)
        hits = Hits(np.full(count, -1, np.int32), *(np.zeros(count, np.float32) for _ in range(3)))
        hits.distance[:] = np.inf
        if not len(faces):
            return hits
        for start in range(0, count, CHUNK):
            rows = slice(start, start + CHUNK)
            origin, direction = (_on(a[rows], device) for a in (origins, directions))
            limit = torch.full((len(direction),), torch.inf, device=device)
            if max_distance is not None:
                limit = _on(max_distance[rows], device)
            found = _closest(corners, order, boxes, origin, direction, limit)
            for target, values in zip(hits, found, strict=True):
                target[rows] = values.cpu().numpy()
        return hits

    return cast


def _on(array: np.ndarray, device: str | torch.device) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array, np.float32), device=device)


def _tree(corners: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Faces in the order of the leaves, -1 where a leaf is not full, and boxes (N, 2, 3) of each level, root first."""
    count = len(corners)
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    leaves = 1
    while leaves * FAN < count:
        leaves *= FAN
    order = torch.full((leaves * FAN,), -1, dtype=torch.long, device=corners.device)
    level = torch.empty((leaves * FAN, 2, 3), device=corners.device)
    level[:, 0], level[:, 1] = torch.inf, -torch.inf
    if count:
        order[:count] = torch.argsort(_morton_code((low + high) / 2), stable=True)
        margin = BOX_MARGIN * (high.amax(dim=0) - low.amin(dim=0)).amax()
        level[:count, 0], level[:count, 1] = low[order[:count]] - margin, high[order[:count]] + margin
    levels = [level]
    while len(levels[0]) > 1:
        children = levels[0].view(-1, FAN, 2, 3)
        levels.insert(0, torch.stack([children[:, :, 0].amin(dim=1), children[:, :, 1].amax(dim=1)], dim=1))
    return order, levels


def _morton_code(points: Tensor) -> Tensor:
    """(N,) int64 places of `points` (N, 3) on a curve through 1024^3 cells that keeps neighbours together."""
    low, extent = points.amin(dim=0), (points.amax(dim=0) - points.amin(dim=0)).amax().clamp_min(1e-30)
    code = ((points - low) / extent * 1023.0).long().clamp(0, 1023)
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        code = (code | code << shift) & mask
    return code[:, 0] | code[:, 1] << 1 | code[:, 2] << 2


def _closest(
    corners: Tensor, order: Tensor, levels: list[Tensor], origin: Tensor, direction: Tensor, limit: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Face (N,) or -1, distance (N,), u (N,), v (N,) of the closest hits before `limit` (N,)."""
    count, device = len(origin), origin.device
    # Directions along a wall of a box become nearly so: zero times infinity would be no number.
    inverse = 1.0 / torch.where(direction.abs() < 1e-20, torch.full_like(direction, 1e-20), direction)
    ray = torch.arange(count, device=device)
    node = torch.zeros(count, dtype=torch.long, device=device)
    children = torch.arange(FAN, device=device)
    for number, boxes in enumerate(levels):
        met = _meets(boxes[node], origin[ray], inverse[ray], limit[ray])
        ray, node = ray[met], node[met]
        if number + 1 < len(levels):
            ray = ray.repeat_interleave(FAN)
            node = (node[:, None] * FAN + children).reshape(-1)
    face = order[node]
    distance, _, _ = _intersect(corners[face], origin[ray], direction[ray])
    hit = distance < limit[ray]
    ray, face, distance = ray[hit], face[hit], distance[hit]
    nearest = torch.full((count,), torch.inf, device=device).scatter_reduce_(0, ray, distance, "amin")
    first = distance == nearest[ray]
    missing = len(corners)
    closest = torch.full((count,), missing, dtype=torch.long, device=device)
    closest = closest.scatter_reduce_(0, ray[first], face[first], "amin")
    missed = closest == missing
    _, u, v = _intersect(corners[closest.clamp_max(missing - 1)], origin, direction)
    zero = torch.zeros((), device=device)
    return closest.masked_fill(missed, -1), nearest, torch.where(missed, zero, u), torch.where(missed, zero, v)


def _meets(boxes: Tensor, origin: Tensor, inverse: Tensor, limit: Tensor) -> Tensor:
    """(N,) bool: whether each ray passes its box (N, 2, 3) before `limit`; empty boxes are met by none."""
    at_low, at_high = (boxes[:, 0] - origin) * inverse, (boxes[:, 1] - origin) * inverse
    enter = torch.minimum(at_low, at_high).amax(dim=1).clamp_min(0.0)
    leave = torch.minimum(torch.maximum(at_low, at_high).amin(dim=1), limit)
    # Rounding of the quotients must not lose what is grazed.
    return (enter <= leave * (1.0 + 1e-5)) & (boxes[:, 0, 0] <= boxes[:, 1, 0])


def _intersect(corners: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance (N,), infinite for a miss, and u, v (N,) where each ray meets its triangle (N, 3, 3), either side.

    Source: the watertight test of Woop, Benthin and Wald (2013). The triangle is sheared so that the ray is the z axis;
    which side of an edge the axis passes is then decided without rounding, so that no ray slips between two faces.
    """
    largest = direction.abs().argmax(dim=1)
    axes = torch.stack([(largest + 1) % 3, (largest + 2) % 3, largest], dim=1)
    along = direction.gather(1, axes)
    points = (corners - origin[:, None]).gather(2, axes[:, None].expand(-1, 3, -1))
    xy = points[..., :2] - points[..., 2:] * (along[:, None, :2] / along[:, None, 2:])
    # Products of two float32 are exact in float64, which Apple's devices lack.
    xy = xy if xy.device.type == "mps" else xy.double()
    a, b, c = xy.unbind(dim=1)
    weights = torch.stack([p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0] for p, q in ((b, c), (c, a), (a, b))], dim=1)
    total = weights.sum(dim=1)
    inside = ((weights >= 0).all(dim=1) | (weights <= 0).all(dim=1)) & (total != 0)
    share = (weights / total[:, None]).to(direction.dtype)
    distance = (share * points[..., 2]).sum(dim=1) / along[:, 2]
    hit = inside & (distance >= 0)
    return torch.where(hit, distance, torch.full_like(distance, torch.inf)), share[:, 1], share[:, 2]
