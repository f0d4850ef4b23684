"""Scenes to start from: the demo's table, and random clutter for tests and data generation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.signal import fftconvolve
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..geometry import transforms
from .primitives import make_primitive
from .scene import ObjectSpec, OrbitPath, SceneSpec, TableSpec
from .scene_file import load_scene_spec
from .textures import RGB, Texture

SCENES_DIR = Path(__file__).resolve().parents[1] / "data" / "scenes"

_CELL_M = 0.004
_GAP_M = 0.008

_PALETTE: tuple[RGB, ...] = (
    (0.84, 0.26, 0.22), (0.94, 0.60, 0.20), (0.95, 0.82, 0.34), (0.45, 0.66, 0.36), (0.20, 0.52, 0.50),
    (0.25, 0.44, 0.72), (0.47, 0.36, 0.62), (0.88, 0.87, 0.83), (0.30, 0.31, 0.34), (0.66, 0.47, 0.33),
)  # fmt: skip


@dataclass(frozen=True)
class _Family:
    """Range of sizes of a primitive and the ways in which it can lie: turns about x in degrees."""

    low: dict[str, tuple[float, ...] | float]
    high: dict[str, tuple[float, ...] | float]
    turns_x_deg: tuple[float, ...] = (0.0,)


_FAMILIES: dict[str, _Family] = {
    "box": _Family({"size_m": (0.04, 0.04, 0.03)}, {"size_m": (0.14, 0.10, 0.20)}, (0.0, 90.0)),
    "cylinder": _Family({"radius_m": 0.018, "height_m": 0.05}, {"radius_m": 0.045, "height_m": 0.16}, (0.0, 90.0)),
    "can": _Family({"radius_m": 0.028, "height_m": 0.09}, {"radius_m": 0.038, "height_m": 0.15}, (0.0, 90.0)),
    "mug": _Family({"radius_m": 0.034, "height_m": 0.07}, {"radius_m": 0.048, "height_m": 0.11}, (0.0, 180.0)),
    "bowl": _Family({"radius_m": 0.05, "height_m": 0.04}, {"radius_m": 0.09, "height_m": 0.07}, (0.0, 180.0)),
    "bottle": _Family({"radius_m": 0.026, "height_m": 0.16}, {"radius_m": 0.04, "height_m": 0.26}),
    "apple": _Family({"radius_m": 0.032}, {"radius_m": 0.044}),
    "banana": _Family({"length_m": 0.15, "radius_m": 0.015}, {"length_m": 0.20, "radius_m": 0.020}),
    "cone": _Family({"radius_m": 0.03, "height_m": 0.06}, {"radius_m": 0.05, "height_m": 0.14}),
    "ellipsoid": _Family({"radii_m": (0.025, 0.025, 0.02)}, {"radii_m": (0.05, 0.04, 0.035)}),
    "torus": _Family(
        {"major_radius_m": 0.035, "minor_radius_m": 0.01}, {"major_radius_m": 0.06, "minor_radius_m": 0.018}
    ),
    "l_bracket": _Family({"length_m": 0.07, "height_m": 0.06}, {"length_m": 0.12, "height_m": 0.11}),
    "plate": _Family({"radius_m": 0.07}, {"radius_m": 0.11}),
}
_KINDS = ("noise", "marble", "speckle", "checker", "patches", "stripes")


def default_scene() -> SceneSpec:
    """The demo's scene: a laid table, some things partly hidden by others."""
    return load_scene_spec(SCENES_DIR / "default.yaml")


def find_scene(name_or_path: str) -> SceneSpec:
    """A scene by the name of a packaged file (`default`), as `random:SEED:COUNT`, or by the path of a scene file.

    Raises `InputError` for an unknown name and `DataFormatError` for a broken file.
    """
    if name_or_path.startswith("random:"):
        parts = name_or_path.split(":")[1:]
        if len(parts) != 2 or not all(p.isdigit() for p in parts):
            raise InputError(f"scene '{name_or_path}': write random:SEED:COUNT with two whole numbers")
        return random_scene(int(parts[0]), int(parts[1]))
    packaged = {p.stem: p for p in SCENES_DIR.glob("*.yaml")}
    if name_or_path in packaged:
        return load_scene_spec(packaged[name_or_path])
    path = Path(name_or_path).expanduser()
    if not path.suffix and not path.exists():
        raise InputError(f"no scene named '{name_or_path}'; known: {', '.join(sorted(packaged))}, random:SEED:COUNT")
    return load_scene_spec(path)


def random_scene(seed: int, object_count: int = 6) -> SceneSpec:
    """`object_count` (0 to 40) random primitives resting on the table, close together and without overlap.

    Reproducible by `seed`; the table grows with the number of objects. Raises `InputError` outside the range.
    """
    if not 0 <= object_count <= 40:
        raise InputError(f"random_scene makes 0 to 40 objects, got {object_count}")
    rng = np.random.default_rng(seed)
    side = 0.7 + 0.11 * np.sqrt(object_count)
    table = TableSpec(size_m=(1.3 * side, side))
    taken = np.zeros((round(side / _CELL_M), round(1.3 * side / _CELL_M)), dtype=np.float32)
    objects = []
    spread = 0.02 + 0.035 * np.sqrt(object_count)
    for index in range(object_count):
        kind = list(_FAMILIES)[rng.integers(len(_FAMILIES))]
        params = _random_params(_FAMILIES[kind], rng)
        vertices = make_primitive(kind, params).vertices.astype(np.float64)
        turn = rng.choice(_FAMILIES[kind].turns_x_deg)
        R = (
            Rotation.from_euler("z", rng.uniform(0, 360), degrees=True) * Rotation.from_euler("x", turn, degrees=True)
        ).as_matrix()
        turned = vertices @ R.T
        x_m, y_m = _free_place(taken, turned[:, :2], np.clip(rng.normal(0.0, spread, 2), -2 * spread, 2 * spread))
        T = transforms.rigid(R, np.array([x_m, y_m, -turned[:, 2].min()]))
        objects.append(ObjectSpec(f"{kind}_{index + 1}", kind, T, params, _random_texture(rng)))
    path = OrbitPath(
        target_m=(0.0, 0.0, 0.04), radius_m=0.55 + 2.6 * spread, elevation_deg=float(rng.uniform(28, 42)),
        elevation_swing_deg=6.0, start_deg=float(rng.uniform(0, 360)),
    )  # fmt: skip
    return SceneSpec(objects=tuple(objects), name=f"random_{seed}_{object_count}", table=table, camera_path=path)


def _random_params(family: _Family, rng: np.random.Generator) -> dict[str, object]:
    params: dict[str, object] = {}
    for name, low in family.low.items():
        value = rng.uniform(np.asarray(low), np.asarray(family.high[name]))
        params[name] = float(value) if np.ndim(value) == 0 else tuple(float(v) for v in value)
    return params


def _random_texture(rng: np.random.Generator) -> Texture:
    chosen = rng.permutation(len(_PALETTE))[: rng.integers(2, 4)]
    return Texture(
        kind=str(rng.choice(_KINDS)),
        colors=tuple(_PALETTE[i] for i in chosen),
        scale_m=float(rng.uniform(0.008, 0.022)),
        grain=float(rng.uniform(0.08, 0.2)),
        gloss=float(rng.uniform(0.0, 0.25)),
        seed=int(rng.integers(2**31)),
    )


def _free_place(taken: np.ndarray, points_xy_m: np.ndarray, wish_xy_m: np.ndarray) -> tuple[float, float]:
    """Centre (x, y) nearest to the wish where the points' convex outline, with a gap, meets nothing taken; marks it.

    Raises `InputError` when the table is full.
    """
    reach = int(np.ceil((np.abs(points_xy_m).max() + _GAP_M) / _CELL_M)) + 1
    stamp = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
    outline = cv2.convexHull(np.round(points_xy_m / _CELL_M + reach).astype(np.int32))
    cv2.fillConvexPoly(stamp, outline, 1)
    grown = cv2.dilate(stamp, np.ones((2 * round(_GAP_M / _CELL_M) + 1,) * 2, dtype=np.uint8)).astype(np.float32)
    rows, cols = taken.shape
    if rows <= 2 * reach or cols <= 2 * reach:
        raise InputError("random_scene: an object is larger than the table")
    # correlation = convolution with the flipped stamp; its "valid" part keeps the whole outline on the table
    overlap = fftconvolve(taken, grown[::-1, ::-1], mode="valid")
    row, col = np.nonzero(overlap < 0.5)
    if not len(row):
        raise InputError("random_scene: no free place left on the table")
    x_m, y_m = (col + reach - (cols - 1) / 2) * _CELL_M, (row + reach - (rows - 1) / 2) * _CELL_M
    best = np.argmin(np.hypot(x_m - wish_xy_m[0], y_m - wish_xy_m[1]))
    top, left = row[best], col[best]
    window = taken[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
    np.maximum(window, stamp, out=window)
    return float(x_m[best]), float(y_m[best])
