"""Depth, poses and confidence of views from a network of scene geometry, such as π³: posed or not, in any number."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Protocol

import cv2
import numpy as np
import torch

from ..errors import Gena3DError, InputError, MemoryBudgetError
from ..types import Float32Array, Intrinsics, View
from ..views.geometry_images import PATCH, PIXEL_LIMIT, stacked_views
from .depth_camera import DepthCamera, DepthCameraConfig, clean_depth
from .known_views import KnownViews, known_views
from .placement import EstimatedViews, StereoResult, placed_views

log = logging.getLogger("gena3d")

SUSPICIOUS_FOCAL = 0.15
"""Relative difference between the known focal length and the one that a network sees, which is reported."""


class SceneGeometry(Protocol):
    """Geometry of B scenes of S views, lengths in a unit of the network's own."""

    @property
    def local_points(self) -> torch.Tensor:
        """(B, S, h, w, 3) in the frame of the view's camera, optical axes."""
        ...

    @property
    def confidence(self) -> torch.Tensor:
        """(B, S, h, w) in [0, 1]."""
        ...

    @property
    def T_world_camera(self) -> torch.Tensor:
        """(B, S, 4, 4), in a world of the network's own."""
        ...


GeometryNetwork = Callable[..., SceneGeometry]
"""Images (B, S, 3, h, w), colour in [0, 1] and sides multiples of 14, -> their geometry.

One with a true attribute `takes_known` is also given what is known of them (see `KnownViews.tensors`), by name, and its
lengths are about metres.
"""


@dataclass(frozen=True)
class LearnedStereoConfig:
    """What of a network's output is used."""

    pixel_limit: int = PIXEL_LIMIT
    """Pixels of each view that the network sees; fewer are faster and need less memory."""
    min_confidence: float = 0.1
    """Depth of lower confidence becomes NaN."""
    edge_ratio: float = 0.03
    """Relative step of depth between neighbouring pixels that counts as an edge."""
    keep_measured: bool = True
    """Views with depth of their own keep it, cleaned, and lend its scale to the others."""
    use_known: bool = True
    """Tell poses, calibration and depth that are known to a network that takes them (π³X)."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence < 1 or not self.edge_ratio > 0:
            raise InputError("need 0 <= min_confidence < 1 and edge_ratio > 0")
        if self.pixel_limit < PATCH**2:
            raise InputError(f"pixel_limit must be at least {PATCH**2}, one patch, got {self.pixel_limit}")


@dataclass(frozen=True, eq=False)
class _Output:
    """A network's output on the CPU: points (V, h, w, 3), confidence (V, h, w), cameras (V, 4, 4)."""

    points: Float32Array
    confidence: Float32Array
    T_estimate_camera: np.ndarray


class LearnedStereo:
    """`StereoMatcher` over a network of scene geometry; not thread-safe.

    The geometry of the last set of views is kept, so that objects of one scene, found one after the other, share it.
    """

    def __init__(
        self,
        name: str,
        open_network: Callable[[], GeometryNetwork],
        config: LearnedStereoConfig | None = None,
        device: str = "cpu",
    ) -> None:
        """open_network: gives the network, on `device`; called by `load` or with the first views."""
        self.name, self.device, self.config = name, device, config or LearnedStereoConfig()
        self._open = open_network
        self._network: GeometryNetwork | None = None
        self._last: tuple[bytes, _Output] | None = None

    def load(self) -> LearnedStereo:
        """Read the weights now rather than with the first views; itself. Raises what reading them raises."""
        self._loaded()
        return self

    def _loaded(self) -> GeometryNetwork:
        if self._network is None:
            self._network = self._open()
        return self._network

    def __call__(self, views: Sequence[View]) -> list[View]:
        """`match`, with its warnings as Python warnings."""
        result = self.match(views)
        for text in result.warnings:
            warnings.warn(text)
        return list(result.views)

    def match(self, views: Sequence[View]) -> StereoResult:
        """Views with depth; those without a pose get one. See `placement` for the scale.

        Raises `InputError` for no view or no trusted pixel at all, `MemoryBudgetError` for more views than fit.
        """
        if not views:
            raise InputError(f"{self.name}: no views")
        images = stacked_views([view.color for view in views], pixel_limit=self.config.pixel_limit)
        output = self._output(images, self._known(views, images))
        notes: list[str] = []
        estimate = self._estimate(views, output, notes)
        result = placed_views(views, estimate, self.name)
        if empty := [v.name for v in result.views if v.depth_m is None or not np.isfinite(v.depth_m).any()]:
            if len(empty) == len(views):
                raise InputError(f"{self.name}: no pixel of any view has a trusted depth")
            notes.append(f"{self.name}: no trusted depth in views {', '.join(empty)}")
        kept = [self._own_depth(before, after) for before, after in zip(views, result.views, strict=True)]
        return replace(result, views=tuple(kept), warnings=(*notes, *result.warnings))

    def _own_depth(self, before: View, after: View) -> View:
        if not self.config.keep_measured or before.depth_m is None or not np.isfinite(before.depth_m).any():
            return after
        own = replace(after, depth_m=before.depth_m, depth_confidence=before.depth_confidence)
        return DepthCamera()([own])[0]

    def _known(self, views: Sequence[View], images: Float32Array) -> KnownViews | None:
        if not self.config.use_known or not getattr(self._loaded(), "takes_known", False):
            return None
        return known_views(views, *images.shape[-2:])

    def _output(self, images: Float32Array, known: KnownViews | None) -> _Output:
        told = b"" if known is None else known.digest()
        key = blake2b(images.tobytes() + str(images.shape).encode() + told, digest_size=16).digest()
        if self._last is None or self._last[0] != key:
            self._last = None
            self._last = (key, self._run(images, known))
        return self._last[1]

    @torch.inference_mode()
    def _run(self, images: Float32Array, known: KnownViews | None) -> _Output:
        network = self._loaded()
        count, _, height, width = images.shape
        told = {} if known is None else known.tensors(self.device)
        try:
            found = network(torch.from_numpy(images)[None].to(self.device), **told)
            tensors = [t[0].float().cpu().numpy() for t in (found.local_points, found.confidence, found.T_world_camera)]
        except torch.OutOfMemoryError as error:
            raise MemoryBudgetError(
                f"{self.name}: {count} views of {width} x {height} pixels do not fit into the memory of {self.device}: "
                "give fewer views or a smaller pixel_limit"
            ) from error
        if not all(np.isfinite(tensor).all() for tensor in tensors):
            raise Gena3DError(
                f"{self.name}: the network gave numbers that are not finite: damaged weights, or half precision that "
                "overflows (use float32)"
            )
        points, confidence, cameras = tensors
        return _Output(points, confidence, cameras.astype(np.float64))

    def _estimate(self, views: Sequence[View], output: _Output, notes: list[str]) -> EstimatedViews:
        limits = DepthCameraConfig(min_depth_m=0.0, max_depth_m=np.inf, edge_ratio=self.config.edge_ratio)
        depths, confidences, intrinsics = [], [], []
        for view, points, confidence in zip(views, output.points, output.confidence, strict=True):
            trusted = np.where(confidence >= self.config.min_confidence, points[..., 2], np.float32(np.nan))
            depths.append(to_image(clean_depth(trusted, limits), view.intrinsics, self.config.edge_ratio))
            size = (view.intrinsics.width, view.intrinsics.height)
            confidences.append(cv2.resize(confidence, size, interpolation=cv2.INTER_NEAREST_EXACT))
            intrinsics.append(self._intrinsics(view, points, confidence, notes))
        found = np.ones(len(views), dtype=bool)
        about_metres = getattr(self._loaded(), "takes_known", False)
        return EstimatedViews(
            output.T_estimate_camera, tuple(depths), tuple(confidences), tuple(intrinsics), found, about_metres
        )

    def _intrinsics(self, view: View, points: Float32Array, confidence: Float32Array, notes: list[str]) -> Intrinsics:
        seen = focal_lengths(points, confidence >= self.config.min_confidence, view.intrinsics)
        if not view.intrinsics_known:
            if seen is None:
                notes.append(f"{self.name}: the rays of view '{view.name}' tell no focal length; a guess is used")
                return view.intrinsics
            return replace(view.intrinsics, fx=seen[0], fy=seen[1])
        known = (view.intrinsics.fx, view.intrinsics.fy)
        if seen is not None and max(abs(s / k - 1.0) for s, k in zip(seen, known, strict=True)) > SUSPICIOUS_FOCAL:
            notes.append(
                f"{self.name}: view '{view.name}' looks like a focal length of {seen[0]:.0f} x {seen[1]:.0f} px, its "
                f"camera info says {known[0]:.0f} x {known[1]:.0f}: is the image cropped, or the calibration another's?"
            )
        return view.intrinsics


def to_image(depth: Float32Array, intrinsics: Intrinsics, edge_ratio: float) -> Float32Array:
    """Depth (h, w) of a stretched image at the pixels of the image itself: smooth on surfaces, steps stay steps."""
    size = (intrinsics.width, intrinsics.height)
    nearest = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
    smooth = cv2.resize(depth, size, interpolation=cv2.INTER_LINEAR)
    with np.errstate(invalid="ignore"):
        # Across an edge, and beside unknown pixels, a mean of both sides is a point in the air.
        return np.where(np.abs(smooth - nearest) < edge_ratio * nearest, smooth, nearest)


def focal_lengths(points: Float32Array, trusted: np.ndarray, intrinsics: Intrinsics) -> tuple[float, float] | None:
    """Focal lengths (fx, fy) in pixels of the image that explain points (h, w, 3) in the camera's frame.

    trusted: (h, w) bool. The principal point is that of `intrinsics`. None where the points tell none.
    """
    height, width = points.shape[:2]
    columns = (np.arange(width) + 0.5) * intrinsics.width / width - 0.5 - intrinsics.cx
    rows = (np.arange(height) + 0.5) * intrinsics.height / height - 0.5 - intrinsics.cy
    found = []
    for axis, offset in enumerate(np.broadcast_arrays(columns[None], rows[:, None])):
        ray = points[..., axis] / np.maximum(points[..., 2], 1e-9)
        # Near the centre the quotient is all noise.
        chosen = trusted & (np.abs(offset) > 0.15 * np.ptp(offset)) & (ray * offset > 0)
        if chosen.sum() < 0.05 * trusted.size:
            return None
        found.append(float(np.median(offset[chosen] / ray[chosen])))
    return found[0], found[1]
