"""The part of each depth image around one object, ready for fusion: cleaned depth, mask, incidence, confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..geometry import camera, transforms
from ..types import BoolArray, Float32Array, Float64Array, View

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Opposite pixel pairs looked at around a pixel: (row, column) steps."""
MIXED_FOOTPRINTS = 3.0
"""Depth step, in pixel footprints, on both sides of a pixel that may be mixed."""
CONNECTED_FOOTPRINTS = 6.0
"""Depth step, in pixel footprints, up to which neighbours belong to one surface (80 degrees of incidence)."""


@dataclass(frozen=True, eq=False)
class DepthPatch:
    """A crop of one view.

    view               the whole view
    row, col           pixel of the crop's first element in the view
    depth_m            (h, w) float32, NaN where invalid or mixed over a depth edge
    mask               (h, w) bool: pixels of the object with trusted depth
    weight             (h, w) float32 >= 0: depth confidence times cosine of incidence
    normal_slope       (h, w) float32: minus ray (z = 1) times normal; turns depth differences into plane distances
    """

    view: View
    row: int
    col: int
    depth_m: Float32Array
    mask: BoolArray
    weight: Float32Array
    normal_slope: Float32Array

    @property
    def eye_m(self) -> Float64Array:
        """(3,) camera centre in the world."""
        return self.view.T_world_camera[:3, 3]


def shifted(image: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """The image moved so that element (r, c) holds the input at (r + rows, c + cols); edges repeat."""
    row_index = np.clip(np.arange(image.shape[0]) + rows, 0, image.shape[0] - 1)
    col_index = np.clip(np.arange(image.shape[1]) + cols, 0, image.shape[1] - 1)
    return image[row_index[:, None], col_index[None, :]]


def edge_threshold_m(depth_m: np.ndarray, view: View, footprints: float) -> np.ndarray:
    """Depth step between neighbouring pixels that is taken for an edge: 8 mm or a number of pixel footprints."""
    return np.maximum(0.008, footprints * depth_m / view.intrinsics.fx)


def mixed_pixels(depth_m: np.ndarray, threshold_m: np.ndarray) -> BoolArray:
    """(h, w) bool: pixels that hang between a nearer and a farther neighbour, an artefact of depth edges.

    A steep surface has such steps too, but goes on with the same slope on both sides, where an edge is flat beyond.
    """
    mixed = np.zeros(depth_m.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        for rows, cols in NEIGHBOURS:
            ahead, behind = shifted(depth_m, rows, cols), shifted(depth_m, -rows, -cols)
            one, other = ahead - depth_m, depth_m - behind
            beyond_one = np.abs(shifted(depth_m, 2 * rows, 2 * cols) - ahead)
            beyond_other = np.abs(behind - shifted(depth_m, -2 * rows, -2 * cols))
            step = np.minimum(np.abs(one), np.abs(other)) > threshold_m
            flat = (beyond_one < 0.5 * np.abs(one)) | (beyond_other < 0.5 * np.abs(other))
            mixed |= step & (one * other > 0) & flat
    return mixed


def image_normals(points_m: np.ndarray, depth_m: np.ndarray, threshold_m: np.ndarray, step: int = 2) -> Float32Array:
    """(h, w, 3) unit normals towards the camera (camera frame) from differences over `step` pixels; NaN if unknown.

    Differences never reach over a depth edge; a pixel with one usable side uses that side alone.
    """

    def derivative(rows: int, cols: int) -> np.ndarray:
        ahead, behind = shifted(points_m, rows, cols), shifted(points_m, -rows, -cols)
        with np.errstate(invalid="ignore"):
            near_ahead = np.abs(shifted(depth_m, rows, cols) - depth_m) < step * threshold_m
            near_behind = np.abs(shifted(depth_m, -rows, -cols) - depth_m) < step * threshold_m
        ahead = np.where(near_ahead[..., None], ahead, points_m)
        behind = np.where(near_behind[..., None], behind, points_m)
        return ahead - behind

    normal = np.cross(derivative(0, step), derivative(step, 0))
    norm = np.linalg.norm(normal, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = normal / np.where(norm > 0, norm, np.nan)
        towards = np.einsum("hwi,hwi->hw", normal, points_m)[..., None] > 0
    return np.where(towards, -normal, normal).astype(np.float32)


def crop_patch(view: View, mask: np.ndarray, points_m: np.ndarray, margin: int = 6) -> DepthPatch | None:
    """The patch of `view` that covers the mask (H, W) and the world points (N, 3); None where neither is in sight.

    Raises `InputError` for a view without depth.
    """
    if view.depth_m is None:
        raise InputError(f"view '{view.name}' has no depth; run a stereo stage before meshing")
    rows, cols, _, inside = camera.pixel_index(points_m, view)
    rows, cols = rows[inside], cols[inside]
    if mask.any():
        in_rows, in_cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        rows, cols = np.append(rows, in_rows[[0, -1]]), np.append(cols, in_cols[[0, -1]])
    if not len(rows):
        return None
    top, left = max(rows.min() - margin, 0), max(cols.min() - margin, 0)
    window = slice(top, rows.max() + margin + 1), slice(left, cols.max() + margin + 1)

    usable = np.isfinite(view.depth_m[window]) & (view.depth_m[window] > 0)
    depth_m = np.where(usable, view.depth_m[window], np.nan).astype(np.float32)
    depth_m[mixed_pixels(depth_m, edge_threshold_m(depth_m, view, MIXED_FOOTPRINTS))] = np.nan
    threshold_m = edge_threshold_m(depth_m, view, CONNECTED_FOOTPRINTS)
    rays = camera.pixel_rays(view.intrinsics)[window]
    normals = image_normals(rays * depth_m[..., None], depth_m, threshold_m)
    slope = -np.einsum("hwi,hwi->hw", normals, rays)
    cosine = slope / np.linalg.norm(rays, axis=-1)
    valid = np.isfinite(depth_m)
    # Noise makes single normals unreliable; their cosine is averaged over a 3 x 3 window.
    cosine = _masked_mean(np.clip(cosine, 0.1, 1.0), valid & np.isfinite(cosine))
    confidence = 1.0 if view.depth_confidence is None else np.nan_to_num(view.depth_confidence[window], nan=0.0)
    return DepthPatch(
        view=view,
        row=int(top),
        col=int(left),
        depth_m=depth_m,
        mask=mask[window] & valid,
        weight=np.where(valid, cosine * confidence, 0.0).astype(np.float32),
        normal_slope=(cosine * np.linalg.norm(rays, axis=-1)).astype(np.float32),
    )


def _masked_mean(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    total = ndimage.uniform_filter(np.where(valid, values, 0.0), 3, mode="nearest")
    share = ndimage.uniform_filter(valid.astype(np.float32), 3, mode="nearest")
    return np.divide(total, share, out=np.full_like(total, 0.5), where=share > 0.05)


@dataclass(frozen=True, eq=False)
class PatchSamples:
    """What one patch says about N world points.

    depth_m      (N,) depth of the point itself along the optical axis
    surface_m    (N,) measured depth at its pixel, NaN where invalid or out of the patch
    on_object    (N,) bool: that pixel belongs to the object
    weight       (N,) weight of the pixel
    slope        (N,) normal slope of the pixel
    support      (N,) share in [0, 1] of the interpolation that fell on the same surface; low next to depth edges
    """

    depth_m: Float32Array
    surface_m: Float32Array
    on_object: BoolArray
    weight: Float32Array
    slope: Float32Array
    support: Float32Array


def sample_patch(patch: DepthPatch, points_m: np.ndarray) -> PatchSamples:
    """Look up world points (N, 3) in a patch; depth is interpolated between pixels of the same surface only."""
    points_camera_m = transforms.apply(transforms.inverse(patch.view.T_world_camera), points_m)
    uv, z = camera.project(points_camera_m, patch.view.intrinsics)
    height, width = patch.depth_m.shape
    with np.errstate(invalid="ignore"):
        u, v = uv[:, 0] - patch.col, uv[:, 1] - patch.row
        inside = (u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)
    u, v = np.where(inside, u, 0.0), np.where(inside, v, 0.0)
    col, row = np.floor(u + 0.5).astype(np.intp), np.floor(v + 0.5).astype(np.intp)
    nearest = np.where(inside, patch.depth_m[row, col], np.nan)
    on_object = patch.mask[row, col] & inside

    col0, row0 = np.clip(np.floor(u).astype(np.intp), 0, width - 2), np.clip(np.floor(v).astype(np.intp), 0, height - 2)
    fu, fv = np.clip(u - col0, 0.0, 1.0), np.clip(v - row0, 0.0, 1.0)
    tolerance = edge_threshold_m(nearest, patch.view, CONNECTED_FOOTPRINTS)
    total = np.zeros(len(points_m), dtype=np.float32)
    depth_sum = np.zeros(len(points_m), dtype=np.float32)
    for row_step, col_step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        depth = patch.depth_m[row0 + row_step, col0 + col_step]
        share = np.where(row_step, fv, 1.0 - fv) * np.where(col_step, fu, 1.0 - fu)
        with np.errstate(invalid="ignore"):
            same = np.abs(depth - nearest) < tolerance
        same &= patch.mask[row0 + row_step, col0 + col_step] == on_object
        share = np.where(same, share, 0.0)
        total += share
        depth_sum += share * np.where(same, depth, 0.0)
    surface = np.divide(depth_sum, total, out=nearest.astype(np.float32), where=total > 1e-3)
    return PatchSamples(
        depth_m=z.astype(np.float32),
        surface_m=surface,
        on_object=on_object,
        weight=patch.weight[row, col],
        slope=patch.normal_slope[row, col],
        support=total,
    )
