"""Pictures of a predicted scene beside those of the truth, from the true cameras: PSNR and SSIM (SceneGen 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..types import BoolArray, Float64Array, Intrinsics, Mesh, UInt8Array, require_shape
from .rendering import ImageScores, masked_psnr, masked_ssim, render_color
from .scene_objects import PlacedMesh

GREY = 128


@dataclass(frozen=True, eq=False)
class ScenePicture:
    """What a camera should show of a scene's objects.

    color           (H, W, 3) uint8, black where no object is
    mask            (H, W) bool: an object is seen there
    T_world_camera  (4, 4) optical frame, in the true scene's frame
    """

    color: UInt8Array
    mask: BoolArray
    T_world_camera: Float64Array
    intrinsics: Intrinsics

    def __post_init__(self) -> None:
        shape = (self.intrinsics.height, self.intrinsics.width)
        require_shape("color of a scene's picture", self.color, (*shape, 3))
        require_shape("mask of a scene's picture", self.mask, shape)


def masked_photo(
    photo: np.ndarray, masks: Sequence[np.ndarray], T_world_camera: np.ndarray, intrinsics: Intrinsics
) -> ScenePicture:
    """The photo (H, W, 3) uint8 with everything but the objects' masks (H, W) blackened: 'Scene' in the paper."""
    if not masks:
        raise InputError("a scene's photo needs the mask of at least one object")
    mask = np.logical_or.reduce([np.asarray(item, dtype=bool) for item in masks])
    color = np.where(mask[..., None], photo, 0).astype(np.uint8)
    return ScenePicture(color, mask, np.asarray(T_world_camera, dtype=np.float64), intrinsics)


def rendered_truth(objects: Sequence[PlacedMesh], T_world_camera: np.ndarray, intrinsics: Intrinsics) -> ScenePicture:
    """The true objects rendered without a light of their own: 'GT-Render' in the paper."""
    color, hit = render_color(_shown(objects), T_world_camera, intrinsics)
    return ScenePicture(color, hit, np.asarray(T_world_camera, dtype=np.float64), intrinsics)


@dataclass(frozen=True)
class ScenePictureScores:
    """Means over the pictures.

    picture      of whole pictures, black around the objects: the paper's, most of which is easy to get right
    objects      of the pixels only in which the prediction or the truth shows an object
    silhouette   intersection over union of those pixels
    """

    picture: ImageScores
    objects: ImageScores
    silhouette: float


def render_prediction(
    predicted: Sequence[PlacedMesh], S_truth_predicted: np.ndarray, pictures: Sequence[ScenePicture]
) -> list[tuple[UInt8Array, BoolArray]]:
    """For each picture what its camera sees of the aligned prediction: (H, W, 3) uint8, black where nothing is, and
    (H, W) bool where something is. Feed them to networks (LPIPS, FID, CLIP, DINO) beside the true ones."""
    mesh = mesh_ops.transformed(_shown(predicted), S_truth_predicted)
    return [render_color(mesh, picture.T_world_camera, picture.intrinsics) for picture in pictures]


def picture_scores(
    predicted: Sequence[PlacedMesh], S_truth_predicted: np.ndarray, pictures: Sequence[ScenePicture]
) -> ScenePictureScores:
    """Scores of the prediction, aligned by `S_truth_predicted` (4, 4), as the true cameras see it.

    Objects without colours are grey. Raises `InputError` without pictures.
    """
    if not pictures:
        raise InputError("scores of pictures need at least one picture")
    shots = render_prediction(predicted, S_truth_predicted, pictures)
    rows = np.array([_one_picture(*shot, picture) for shot, picture in zip(shots, pictures, strict=True)])
    mean = [float(np.nanmean(column)) if np.isfinite(column).any() else float("nan") for column in rows.T]
    return ScenePictureScores(ImageScores(mean[0], mean[1]), ImageScores(mean[2], mean[3]), mean[4])


def _shown(objects: Sequence[PlacedMesh]) -> Mesh:
    """All objects in the scene's frame, those without colours in grey."""
    meshes = [item.in_world() for item in objects]
    return mesh_ops.concatenate(
        [
            replace(m, vertex_colors=np.full((len(m.vertices), 3), GREY, np.uint8)) if m.vertex_colors is None else m
            for m in meshes
        ]
    )


def _one_picture(color: np.ndarray, hit: np.ndarray, truth: ScenePicture) -> tuple[float, ...]:
    """PSNR and SSIM of the whole picture, those of the objects and their silhouettes' overlap (NaN if none is seen)."""
    everywhere, union = np.ones_like(hit), hit | truth.mask
    whole_picture = masked_psnr(color, truth.color, everywhere), masked_ssim(color, truth.color, everywhere)
    if not union.any():
        return (*whole_picture, float("nan"), float("nan"), float("nan"))
    overlap = float((hit & truth.mask).sum() / union.sum())
    return (*whole_picture, masked_psnr(color, truth.color, union), masked_ssim(color, truth.color, union), overlap)
