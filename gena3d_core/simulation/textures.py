"""Solid textures: colour as a function of the point in the object frame, so that they need no unwrapping."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..errors import InputError
from ..types import Float32Array, Mesh

RGB = tuple[float, float, float]

_VOLUME_SIZE = 128


@dataclass(frozen=True)
class Texture:
    """What a surface looks like.

    kind      one of `TEXTURE_KINDS`
    colors    RGB in [0, 1]; the kind says how they are mixed (first = base)
    scale_m   size of the pattern's features
    grain     strength of the fine mottling in [0, 1] on top, which gives stereo something to hold on to
    gloss     strength of the highlight in [0, 1]
    limits_m  for `bands` and `label`: heights z in the object frame where the colour changes, ascending
    seed      seed of the pattern
    """

    kind: str = "plain"
    colors: tuple[RGB, ...] = ((0.7, 0.7, 0.7),)
    scale_m: float = 0.02
    grain: float = 0.12
    gloss: float = 0.15
    limits_m: tuple[float, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in TEXTURE_KINDS:
            raise InputError(f"unknown texture kind '{self.kind}'; known: {', '.join(TEXTURE_KINDS)}")
        # scenes compare and cache textures, so that lists become tuples
        object.__setattr__(self, "colors", tuple(tuple(map(float, c)) for c in self.colors))
        object.__setattr__(self, "limits_m", tuple(map(float, self.limits_m)))
        colors = np.asarray(self.colors, dtype=np.float64)
        if colors.ndim != 2 or colors.shape[1] != 3 or not ((colors >= 0) & (colors <= 1)).all():
            raise InputError(f"texture colors must be RGB triples in [0, 1], got {self.colors}")
        needed = _COLORS_NEEDED[self.kind]
        if len(colors) < needed:
            raise InputError(f"texture '{self.kind}' needs at least {needed} colors, got {len(colors)}")
        if not (np.isfinite(self.scale_m) and self.scale_m > 0):
            raise InputError(f"texture scale_m must be positive, got {self.scale_m}")
        if not (0 <= self.grain <= 1 and 0 <= self.gloss <= 1):
            raise InputError(f"texture grain and gloss must lie in [0, 1], got {self.grain} and {self.gloss}")
        wanted = {"bands": len(colors) - 1, "label": 2}.get(self.kind, 0)
        if len(self.limits_m) != wanted or list(self.limits_m) != sorted(self.limits_m):
            raise InputError(f"texture '{self.kind}' needs {wanted} ascending limits_m, got {self.limits_m}")


@functools.cache
def _noise_volume() -> torch.Tensor:
    """(1, 1, 129, 129, 129) tileable fractal noise in [0, 1] with features from 2 to 16 voxels, uniform histogram."""
    rng = np.random.default_rng(20260101)
    size = _VOLUME_SIZE
    frequency = np.fft.fftfreq(size)[:, None, None], np.fft.fftfreq(size)[None, :, None], np.fft.rfftfreq(size)
    radius = np.sqrt(sum(f**2 for f in frequency))
    band = np.where((radius > 1 / 20) & (radius < 1 / 3), 1.0 / np.maximum(radius, 1e-6) ** 1.6, 0.0)
    noise = np.fft.irfftn(np.fft.rfftn(rng.standard_normal((size,) * 3)) * band, s=(size,) * 3, axes=(0, 1, 2))
    # a Gaussian's own distribution function makes the values uniform, so that thresholds mean area fractions
    uniform = 0.5 * (1.0 + torch.erf(torch.from_numpy(noise / noise.std()) / np.sqrt(2.0)))
    wrapped = torch.nn.functional.pad(uniform[None, None], (0, 1, 0, 1, 0, 1), mode="circular")
    return wrapped.float().contiguous()


def solid_noise(points_m: np.ndarray, feature_m: float, seed: int = 0) -> Float32Array:
    """(N,) smooth noise in [0, 1], about uniformly distributed, at points (N, 3); features of about `feature_m`."""
    offset = np.random.default_rng(seed).random(3)
    cycles = points_m * np.float32(8.0 / (_VOLUME_SIZE * feature_m)) + offset.astype(np.float32)
    cycles -= np.floor(cycles)
    grid = torch.from_numpy(np.ascontiguousarray(cycles * 2.0 - 1.0, dtype=np.float32))[None, None, None]
    return torch.nn.functional.grid_sample(_noise_volume(), grid, align_corners=True)[0, 0, 0, 0].numpy()


def _mix(colors: np.ndarray, weight: np.ndarray) -> Float32Array:
    """Piecewise linear ramp through `colors` (C, 3) by `weight` (N,) in [0, 1]."""
    if len(colors) == 1:
        return np.broadcast_to(colors[0], (len(weight), 3)).copy()
    position = np.clip(weight, 0.0, 1.0) * (len(colors) - 1)
    low = np.minimum(position.astype(np.int64), len(colors) - 2)
    fraction = (position - low)[:, None].astype(np.float32)
    return colors[low] * (1 - fraction) + colors[low + 1] * fraction


def _hash_cells(cells: np.ndarray, seed: int) -> np.ndarray:
    """(N,) uint32 from integer cells (N, 3)."""
    primes = np.array([73856093, 19349663, 83492791], dtype=np.uint64)
    value = (cells.astype(np.int64).astype(np.uint64) * primes).sum(axis=1) + np.uint64(seed * 2654435761 % 2**32)
    value = (value ^ (value >> np.uint64(15))) * np.uint64(2246822519) & np.uint64(0xFFFFFFFF)
    return (value ^ (value >> np.uint64(13))).astype(np.uint32)


def _plain(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    return np.broadcast_to(colors[0], points.shape).astype(np.float32)


def _noise(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    return _mix(colors, solid_noise(points, t.scale_m, t.seed))


def _speckle(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    """Spots of the other colours on the first one, as on glazed ceramics."""
    value = solid_noise(points, t.scale_m, t.seed)
    rank = np.searchsorted([0.76, 0.88, 0.95][: len(colors) - 1], value)
    return colors[rank]


def _marble(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    return _mix(colors, np.abs(2.0 * solid_noise(points, t.scale_m, t.seed) - 1.0))


def _checker(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    return colors[np.floor(points / t.scale_m + 0.5).astype(np.int64).sum(axis=1) % len(colors)]


def _patches(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    """Cubic cells, each of one random colour."""
    return colors[_hash_cells(np.floor(points / t.scale_m), t.seed) % len(colors)]


def _stripes(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    """Rings of equal height around z."""
    return colors[np.floor(points[:, 2] / t.scale_m + 0.5).astype(np.int64) % len(colors)]


def _bands(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    return colors[np.searchsorted(t.limits_m, points[:, 2])]


def _wood(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    """Boards along x, each with its own shade, with stretched grain."""
    lanes = np.floor(points[:, 1] / (8.0 * t.scale_m)).astype(np.int64)
    cells = np.stack([lanes, np.zeros_like(lanes), np.zeros_like(lanes)], axis=1)
    shade = (_hash_cells(cells, t.seed) % 1024 / 1023.0).astype(np.float32)
    shifted = points * np.array([0.10, 1.0, 0.35], dtype=np.float32)
    shifted[:, 0] += lanes * np.float32(0.37)
    rings = solid_noise(shifted, t.scale_m, t.seed)
    fibres = solid_noise(shifted * np.array([0.5, 1.0, 1.0], dtype=np.float32), t.scale_m / 5.0, t.seed + 1)
    color = _mix(colors, 0.55 * rings + 0.25 * fibres + 0.2 * shade)
    seam = np.abs(points[:, 1] / (8.0 * t.scale_m) - lanes - 0.5) > 0.4925
    color[seam] *= 0.72
    return color


def _print(across: np.ndarray, up: np.ndarray, seed: int) -> np.ndarray:
    """(N,) bool: blocks like lines of print, in units of a letter's width and a line's height."""
    line, letter = np.floor(up).astype(np.int64), np.floor(across).astype(np.int64)
    cells = np.stack([letter, line, np.zeros_like(line)], axis=1)
    words = _hash_cells(cells, seed) % 8 > 2
    return words & (up - line > 0.38) & (across - letter > 0.15)


def _label(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    """First colour outside `limits_m`; between them a printed label of the other colours, twice round the body."""
    low, high = t.limits_m
    z, angle = points[:, 2], np.arctan2(points[:, 1], points[:, 0])
    part = (z - low) / (high - low)
    half_turn = np.mod(angle, np.pi) - np.pi / 2
    printed = _print(angle * np.float32(12.0), part * np.float32(7.0), t.seed) & (np.abs(half_turn) > 0.7)
    ink = np.where(printed | (part < 0.08) | (part > 0.92), 2, 1)
    logo = ((half_turn / 0.55) ** 2 + ((part - 0.5) / 0.30) ** 2) < 1.0
    ink = np.where(logo, min(3, len(colors) - 1), ink)
    ink = np.where((z >= low) & (z <= high), ink, 0)
    return colors[ink]


def _package(points: np.ndarray, t: Texture, colors: np.ndarray) -> np.ndarray:
    """A printed box whose half height is `scale_m`: title, picture, lines of print in four colours."""
    u, v = points[:, 0] / np.float32(t.scale_m), points[:, 2] / np.float32(t.scale_m)
    around = u + points[:, 1] / np.float32(t.scale_m)  # print runs on over the narrow sides
    title, foot = (v > 0.42) & (v < 0.80), v < -0.62
    letters = _print(around * 8.0, (v - 0.42) * 2.63, t.seed)
    lines = _print(around * 16.0, v * 9.0, t.seed + 1)
    picture = (u / 0.52) ** 2 + ((v + 0.10) / 0.40) ** 2
    inside = solid_noise(points, t.scale_m * 0.22, t.seed)
    ink = np.zeros(len(points), dtype=np.int64)
    ink = np.where(title, np.where(letters, 3, 1), ink)
    ink = np.where(foot, np.where(lines, 3, 1), ink)
    ink = np.where(picture < 1.0, 3, ink)
    ink = np.where(picture < 0.82, np.where(inside > 0.62, 1, 2), ink)
    return colors[ink]


_KINDS: Mapping[str, tuple[int, Callable[[np.ndarray, Texture, np.ndarray], np.ndarray]]] = {
    "plain": (1, _plain),
    "noise": (2, _noise),
    "marble": (2, _marble),
    "speckle": (2, _speckle),
    "checker": (2, _checker),
    "patches": (2, _patches),
    "stripes": (2, _stripes),
    "bands": (2, _bands),
    "wood": (2, _wood),
    "label": (3, _label),
    "package": (4, _package),
}
_COLORS_NEEDED = {kind: needed for kind, (needed, _) in _KINDS.items()}
TEXTURE_KINDS = tuple(_KINDS)


def evaluate(texture: Texture, points_m: np.ndarray) -> Float32Array:
    """Albedo (N, 3) float32 in [0, 1] at points (N, 3) of the object frame, metres."""
    points = np.ascontiguousarray(points_m, dtype=np.float32)
    if not len(points):
        return np.zeros((0, 3), dtype=np.float32)
    colors = np.asarray(texture.colors, dtype=np.float32)
    color = _KINDS[texture.kind][1](points, texture, colors)
    if texture.grain > 0:
        mottling = solid_noise(points, 0.006, texture.seed + 7)
        color = color * (1.0 + np.float32(texture.grain) * (2.0 * mottling - 1.0))[:, None]
    return np.clip(color, 0.0, 1.0).astype(np.float32, copy=False)


def paint(mesh: Mesh, texture: Texture) -> Mesh:
    """The mesh with `vertex_colors` taken from the texture."""
    colors = np.round(evaluate(texture, mesh.vertices) * 255.0).astype(np.uint8)
    return replace(mesh, vertex_colors=colors)
