"""Pictures of a result beside the views it was made from: PSNR and SSIM where the object is visible."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from skimage.metrics import structural_similarity

from ..geometry import transforms
from ..geometry.camera import pixel_rays
from ..meshing.appearance import OBSERVED_DISTANCE
from ..meshing.coloring import vertex_colors
from ..simulation.ray_casting import make_caster
from ..types import BoolArray, Intrinsics, Mesh, ObjectObservation, UInt8Array
from .voxels import longest_side

MAX_VIEWS = 4
MIN_PIXELS = 64
SSIM_WINDOW = 7


@dataclass(frozen=True)
class ImageScores:
    """psnr in decibel and ssim in [-1, 1], mean over the views."""

    psnr: float
    ssim: float


def render_color(mesh: Mesh, T_world_camera: np.ndarray, intrinsics: Intrinsics) -> tuple[UInt8Array, BoolArray]:
    """(H, W, 3) uint8 vertex colours of the nearest surface (black where there is none) and (H, W) bool: some is.

    mesh in the world; grey without colours. No light is added: colours from views hold it already.
    """
    shape = (intrinsics.height, intrinsics.width)
    if not len(mesh.faces):
        return np.zeros((*shape, 3), dtype=np.uint8), np.zeros(shape, dtype=bool)
    rays = pixel_rays(intrinsics).reshape(-1, 3) @ T_world_camera[:3, :3].T.astype(np.float32)
    eye = np.broadcast_to(T_world_camera[:3, 3].astype(np.float32), rays.shape)
    hits = make_caster(mesh.vertices, mesh.faces)(eye, rays)
    hit = hits.face >= 0
    weights = np.stack([1.0 - hits.u - hits.v, hits.u, hits.v], axis=1)[hit]
    colors = mesh.vertex_colors
    if colors is None:
        colors = np.full((len(mesh.vertices), 3), 128, dtype=np.uint8)
    picture = np.zeros((len(rays), 3), dtype=np.uint8)
    picture[hit] = np.round(np.einsum("nk,nkc->nc", weights, colors[mesh.faces[hits.face[hit]]].astype(np.float32)))
    return picture.reshape(*shape, 3), hit.reshape(shape)


def with_colors(mesh: Mesh, observation: ObjectObservation) -> Mesh:
    """The mesh (world) with colours from the views where its generator gave none, as the pipeline does."""
    if mesh.vertex_colors is not None or not len(mesh.faces):
        return mesh
    tolerance_m = OBSERVED_DISTANCE * longest_side(mesh)
    colors, _ = vertex_colors(mesh, observation.views, observation.visible_masks, tolerance_m)
    return replace(mesh, vertex_colors=colors)


def visible_scores(mesh: Mesh, observation: ObjectObservation, max_views: int = MAX_VIEWS) -> ImageScores:
    """PSNR and SSIM of renderings of `mesh` (world, coloured) against the views, over their visible masks.

    Of each observation the `max_views` views that show most of the object; pixels that the mesh leaves empty are
    black. SSIM is that of the pictures with everything but the visible part blackened, its mean over that part. NaN
    where no view shows at least `MIN_PIXELS` pixels.
    """
    pixels = np.array([mask.sum() for mask in observation.visible_masks])
    order = [view for view in np.argsort(-pixels, kind="stable")[:max_views] if pixels[view] >= MIN_PIXELS]
    pairs = [_view_scores(mesh, observation, int(view)) for view in order]
    if not pairs:
        return ImageScores(float("nan"), float("nan"))
    psnr, ssim = np.mean(pairs, axis=0)
    return ImageScores(float(psnr), float(ssim))


def _view_scores(mesh: Mesh, observation: ObjectObservation, number: int) -> tuple[float, float]:
    view, mask = observation.views[number], observation.visible_masks[number]
    rendered, _ = render_color(mesh, view.T_world_camera, view.intrinsics)
    return masked_psnr(rendered, view.color, mask), masked_ssim(rendered, view.color, mask)


def masked_psnr(picture: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibel of (H, W, 3) uint8 pictures over `mask` (H, W); at most 100."""
    error = ((picture[mask].astype(np.float64) - reference[mask]) ** 2).mean()
    return float(min(100.0, 10.0 * np.log10(255.0**2 / max(error, 1e-12))))


def masked_ssim(picture: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> float:
    """Mean structural similarity of (H, W, 3) uint8 pictures over `mask` (H, W), both black outside it."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    pad = SSIM_WINDOW
    low = max(rows[0] - pad, 0), max(cols[0] - pad, 0)
    window = slice(low[0], rows[-1] + 1 + pad), slice(low[1], cols[-1] + 1 + pad)
    inside = mask[window]
    one, other = (np.where(inside[..., None], image[window], 0) for image in (picture, reference))
    # Pictures smaller than the window, which small crops may be, grow by black.
    grow = [(0, max(0, SSIM_WINDOW - n)) for n in inside.shape]
    one, other = (np.pad(image, [*grow, (0, 0)]) for image in (one, other))
    _, similarity = structural_similarity(one, other, win_size=SSIM_WINDOW, channel_axis=2, data_range=255, full=True)
    return float(similarity[np.pad(inside, grow)].mean())


def turntable_poses(
    center_m: np.ndarray, side_m: float, azimuths: int = 8, elevation_deg: float = 15.0, radius: float = 2.0
) -> list[np.ndarray]:
    """`T_world_camera` (4, 4) of GENA3D's picture protocol (A.3): around an object of longest side `side_m`, at
    `radius` times that from its centre (3,), azimuths 0, 45, ... degrees."""
    angle = np.arange(azimuths) * (2.0 * np.pi / azimuths)
    tilt = np.deg2rad(elevation_deg)
    outward = np.stack([np.cos(tilt) * np.cos(angle), np.cos(tilt) * np.sin(angle), np.full(azimuths, np.sin(tilt))])
    return [transforms.look_at(center_m + radius * side_m * direction, center_m) for direction in outward.T]


def turntable_intrinsics(size_px: int, fov_deg: float = 40.0) -> Intrinsics:
    """Square camera of GENA3D's picture protocol."""
    focal = 0.5 * size_px / np.tan(np.deg2rad(fov_deg) / 2.0)
    middle = (size_px - 1) / 2.0
    return Intrinsics(size_px, size_px, float(focal), float(focal), middle, middle)


def turntable(mesh: Mesh, center_m: np.ndarray, side_m: float, size_px: int = 224) -> UInt8Array:
    """(8, S, S, 3) uint8 pictures of `mesh` (world) around an object of that centre and longest side, white ground."""
    intrinsics = turntable_intrinsics(size_px)
    shots = [render_color(mesh, pose, intrinsics) for pose in turntable_poses(center_m, side_m)]
    return np.stack([np.where(hit[..., None], color, np.uint8(255)) for color, hit in shots])
