"""What an example for training or evaluation shows: views, occlusion, sensor errors, appearance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import InputError
from .noise import NoiseSpec

Range = tuple[float, float]

OCCLUSIONS = ("none", "surface", "objects", "mixed")
COMPLETIONS = ("none", "distorted")

EXAMPLE_NOISE = NoiseSpec(min_depth_m=0.15, max_depth_m=20.0)
"""Large objects are pictured from farther than a depth camera reaches: their noise is relative to their size."""


@dataclass(frozen=True)
class ExampleSettings:
    """Recipe of `make_example`; what is given as a range (low, high) is drawn for each example or view.

    views                        images of the object
    image_width, image_height    pixels of an image, a window of the camera's picture around the object
    elevation_deg                of cameras over the horizon of the object; the paper drops what is beyond ±75
    table_elevation_deg          the same when the object stands on a table
    distance_m                   camera to object; farther where the object needs it
    focal_px                     of the whole picture, `sensor_width_px` wide
    fill                         diameter of the object's bounding ball in heights of the image
    roll_deg                     cameras are turned about their axis by up to this much

    occlusion                    none | surface (GENA3D's 3D-consistent masks) | objects (in front) | mixed
    mixture                      shares of none, surface and objects in `mixed`
    coverage                     surface: share of the area that is covered
    visible_share                of the object's pixels in a view; the upper end counts for every view of
                                 `surface`, for every other one of `objects`
    min_visible_pixels           share of the image that the visible part takes at least
    occluders                    objects: how many stand in front, at most
    table_share                  probability of a table below the object (always with `objects`)
    upright_share                probability that the object stands as it was modelled, not on another side
    size_m                       longest side of objects whose scale is unknown

    recolor_share                probability of another colour and texture; objects of one colour always get one
    noise, noise_level           errors of the depth camera, and a factor on its disparity noise
    missing_depth                probability that a view (but not all) is without depth
    depth_holes                  share of the object's pixels without depth, in blobs
    exact_masks                  probability of masks without errors
    mask_error_px                offset of the visible mask's outline, negative = eroded
    mask_roughness_px            standard deviation of that outline
    mask_bleeding                share of the outline at which the mask runs over what lies beside the object
    pose_jitter_m, pose_jitter_deg  root mean square displacement and turn of camera poses; the first view has none
    completion                   distorted: occluded pixels are painted with a simulated 2D completion (GENA3D A.2)
    completion_distortion        shift of its content in sizes of the object
    free_space_resolution        voxels along a side of the carved cube around the object; 0 = no carving
    """

    views: int = 2
    image_width: int = 160
    image_height: int = 120
    elevation_deg: Range = (-75.0, 75.0)
    table_elevation_deg: Range = (8.0, 75.0)
    distance_m: Range = (0.35, 1.2)
    focal_px: Range = (450.0, 650.0)
    sensor_width_px: int = 640
    fill: Range = (0.8, 1.05)
    roll_deg: float = 6.0

    occlusion: str = "mixed"
    mixture: tuple[float, float, float] = (0.2, 0.45, 0.35)
    coverage: Range = (0.2, 0.6)
    visible_share: Range = (0.25, 0.85)
    min_visible_pixels: float = 0.02
    occluders: int = 3
    table_share: float = 0.7
    upright_share: float = 0.75
    size_m: Range = (0.03, 0.30)

    recolor_share: float = 0.3
    noise: NoiseSpec | None = field(default=EXAMPLE_NOISE)
    noise_level: Range = (0.3, 2.0)
    missing_depth: float = 0.05
    depth_holes: Range = (0.0, 0.2)
    exact_masks: float = 0.3
    mask_error_px: Range = (-1.0, 0.3)
    mask_roughness_px: Range = (0.0, 0.4)
    mask_bleeding: Range = (0.0, 0.02)
    pose_jitter_m: Range = (0.0, 0.004)
    pose_jitter_deg: Range = (0.0, 0.4)
    completion: str = "none"
    completion_distortion: Range = (0.02, 0.15)
    free_space_resolution: int = 0

    def __post_init__(self) -> None:
        _require_choice("occlusion", self.occlusion, OCCLUSIONS)
        _require_choice("completion", self.completion, COMPLETIONS)
        if self.views < 1 or self.image_width < 16 or self.image_height < 16 or self.sensor_width_px < 16:
            raise InputError(
                "an example needs at least one view of 16x16 pixels, got "
                f"{self.views} of {self.image_width}x{self.image_height} (sensor {self.sensor_width_px})"
            )
        for name, (low, high) in _LIMITS.items():
            ends = getattr(self, name)
            if len(ends) != 2 or not low <= ends[0] <= ends[1] <= high:
                raise InputError(f"example setting {name} must be a range within {low:g} .. {high:g}, got {ends}")
        for name in (
            "min_visible_pixels",
            "table_share",
            "upright_share",
            "recolor_share",
            "missing_depth",
            "exact_masks",
        ):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(f"example setting {name} must lie in [0, 1], got {getattr(self, name)}")
        if len(self.mixture) != 3 or min(self.mixture) < 0 or sum(self.mixture) <= 0:
            raise InputError(f"mixture must be three shares (none, surface, objects), got {self.mixture}")
        if self.occluders < 0 or self.free_space_resolution < 0 or self.roll_deg < 0:
            raise InputError("occluders, free_space_resolution and roll_deg must not be negative")


_LIMITS: dict[str, Range] = {
    "elevation_deg": (-85.0, 85.0),
    "table_elevation_deg": (1.0, 85.0),
    "distance_m": (1e-3, 1e4),
    "focal_px": (1.0, 1e6),
    "fill": (0.05, 3.0),
    "coverage": (0.0, 1.0),
    "visible_share": (0.0, 1.0),
    "size_m": (1e-3, 1e3),
    "noise_level": (0.0, 100.0),
    "depth_holes": (0.0, 1.0),
    "mask_error_px": (-1e3, 1e3),
    "mask_roughness_px": (0.0, 1e3),
    "mask_bleeding": (0.0, 1.0),
    "pose_jitter_m": (0.0, 10.0),
    "pose_jitter_deg": (0.0, 90.0),
    "completion_distortion": (0.0, 1.0),
}


def evaluation_settings(views: int, coverage: float = 0.0) -> ExampleSettings:
    """Settings of GENA3D's protocol: `coverage` of the surface hidden, 30 to 70 % of the object visible in a view.

    On a table, upright, in its own colours, with an ordinary depth camera's noise, exact masks and poses; replace
    fields of the result for robustness curves. The views of fewer views are the first of those of more.
    """
    return ExampleSettings(
        views=views,
        occlusion="surface" if coverage > 0 else "none",
        coverage=(coverage, coverage),
        visible_share=(0.3, 0.7),
        distance_m=(0.35, 0.8),
        fill=(0.85, 0.95),
        table_share=1.0,
        upright_share=1.0,
        recolor_share=0.0,
        noise_level=(1.0, 1.0),
        missing_depth=0.0,
        exact_masks=0.0,
        depth_holes=(0.0, 0.0),
        mask_error_px=(0.0, 0.0),
        mask_roughness_px=(0.0, 0.0),
        mask_bleeding=(0.0, 0.0),
        pose_jitter_m=(0.0, 0.0),
        pose_jitter_deg=(0.0, 0.0),
    )


def with_text_settings(settings: ExampleSettings, texts: Sequence[str]) -> ExampleSettings:
    """The settings with `key=value` texts applied, such as `occlusion=surface`, `coverage=0.2,0.6`, `noise=none`,
    `noise.baseline_m=0.05`; one number for a range makes both ends. Raises `InputError` for what it cannot read."""
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"'{text}' is not a setting; write key=value")
        key = key.strip()
        if key == "noise" and value.strip() == "none":
            settings = replace(settings, noise=None)
        elif key.startswith("noise."):
            noise = settings.noise or EXAMPLE_NOISE
            settings = replace(settings, noise=_with_text(noise, key.removeprefix("noise."), value, text))
        else:
            settings = _with_text(settings, key, value, text)
    return settings


def _with_text(owner: Any, key: str, value: str, text: str) -> Any:
    known = [entry.name for entry in fields(owner) if entry.name != "noise"]
    if key not in known:
        raise InputError(f"'{text}': no setting '{key}'; known: {', '.join(known)}")
    try:
        return replace(owner, **{key: _parsed(getattr(owner, key), value.strip())})
    except ValueError as error:
        raise InputError(f"'{text}' cannot be read: {error}") from error


def _parsed(now: Any, value: str) -> Any:
    """The text as a value of the kind of `now`."""
    if isinstance(now, tuple):
        numbers = tuple(float(part) for part in value.split(","))
        if len(numbers) == 1 and len(now) == 2:
            numbers *= 2
        if len(numbers) != len(now):
            raise ValueError(f"needs {len(now)} numbers")
        return numbers
    return type(now)(value)


def _require_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"example setting {name} must be one of {', '.join(known)}, got '{value}'")
