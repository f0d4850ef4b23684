"""Shards of scene examples: folders of plain arrays that appear whole or not at all and are read by memory map.

`shard_NNNNN/` holds, for n scenes with a assets, v views and p pairs of a view and an asset together (the pairs of a
scene view by view):
occupancy.npy     (a, R, R, R) uint8: filled share of each voxel of the asset's grid, 255 = full
grid.npy          (a, 4, 4) float64: S_world_grid of each asset
asset_offsets.npy, view_offsets.npy, pair_offsets.npy   (n + 1,) int64
scene.npy         (v, 3, S, S) uint8: whole image, stretched to a square
geometry.npy      (v, 3, G, G) uint8: whole image, padded to a square with white
instances.npy     (v, G, G) uint8 beside `geometry`: number of the asset in its scene + 1, 0 where there is none
depth.npy         (v, G, G) float16 beside `geometry`: metres along the optical axis, NaN where unknown
cameras.npy       (v, 4, 4) float64: T_world_camera; intrinsics.npy (v, 4) float64: fx, fy, cx, cy of `geometry`
crops.npy         (p, 5, S, S) uint8: red, green, blue over black, visible, occluded mask in {0, 1}; zeros if unseen
masks.npy         (p, S² / 8) uint8: bits of the asset's mask in `scene` (`numpy.packbits`)
visibility.npy    (p,) float32: share of the asset's pixels that is visible; pixels.npy (p,) int32: how many are
support.npy       (n, 4) float64: normal and offset of the plane, metres; NaN where there is none
examples.json     [{"scene", "objects": [...], "seed", ...}]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gena3d_core.errors import InputError
from gena3d_core.types import BoolArray, Float32Array, Float64Array, Int32Array, UInt8Array

from .array_folders import read_array, read_info, shard_folder, shard_folders, write_arrays

COMMAND = "python -m training.render_scenes"


@dataclass(frozen=True, eq=False)
class SceneExample:
    """One scene with A assets and K views; arrays as the module tells, masks as (K, A, S, S) bool.

    Of `crops`, `masks`, `visibility` and `pixels` the first two axes are views and assets.
    """

    occupancy: UInt8Array
    grid: Float64Array
    scene: UInt8Array
    geometry: UInt8Array
    instances: UInt8Array
    depth: NDArray[np.float16]
    cameras: Float64Array
    intrinsics: Float64Array
    crops: UInt8Array
    masks: BoolArray
    visibility: Float32Array
    pixels: Int32Array
    support: Float64Array
    info: dict[str, Any]


PER_ASSET = ("occupancy", "grid")
PER_VIEW = ("scene", "geometry", "instances", "depth", "cameras", "intrinsics")
PER_PAIR = ("crops", "masks", "visibility", "pixels")


def write_scene_shard(directory: Path, number: int, examples: Sequence[SceneExample]) -> Path:
    """Write `shard_NNNNN` below `directory`; an earlier one of that number is replaced. Returns its folder."""
    if not examples:
        raise InputError("a shard needs at least one example")
    arrays = {name: np.concatenate([getattr(e, name) for e in examples]) for name in (*PER_ASSET, *PER_VIEW)}
    for name in PER_PAIR:
        arrays[name] = np.concatenate([getattr(e, name).reshape(-1, *getattr(e, name).shape[2:]) for e in examples])
    arrays["masks"] = np.packbits(arrays["masks"].reshape(len(arrays["masks"]), -1), axis=1)
    counts = {"asset": PER_ASSET, "view": PER_VIEW, "pair": PER_PAIR}
    for kind, names in counts.items():
        sizes = [np.prod(getattr(e, names[-1]).shape[: 2 if kind == "pair" else 1]) for e in examples]
        arrays[f"{kind}_offsets"] = np.cumsum([0, *sizes]).astype(np.int64)
    arrays["support"] = np.stack([e.support for e in examples])
    return write_arrays(shard_folder(directory, number), arrays, [e.info for e in examples])


@dataclass(frozen=True)
class SceneShard:
    """A shard on disk; arrays are memory-mapped when first used."""

    folder: Path

    def __len__(self) -> int:
        return len(self.asset_offsets) - 1

    @cached_property
    def occupancy(self) -> NDArray[np.uint8]:
        """(a, R, R, R)."""
        return read_array(self.folder, "occupancy")

    @cached_property
    def asset_offsets(self) -> NDArray[np.int64]:
        """(n + 1,): assets of scene i are asset_offsets[i] to asset_offsets[i + 1]."""
        return read_array(self.folder, "asset_offsets")

    @cached_property
    def view_offsets(self) -> NDArray[np.int64]:
        """(n + 1,)."""
        return read_array(self.folder, "view_offsets")

    @cached_property
    def pair_offsets(self) -> NDArray[np.int64]:
        """(n + 1,)."""
        return read_array(self.folder, "pair_offsets")

    @cached_property
    def info(self) -> list[dict[str, Any]]:
        """What each scene was made from."""
        return read_info(self.folder)

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by its name, besides the offsets."""
        return {name: read_array(self.folder, name) for name in (*PER_ASSET, *PER_VIEW, *PER_PAIR, "support")}

    def assets(self, row: int) -> slice:
        """Rows of the arrays per asset that are of scene `row`."""
        return slice(int(self.asset_offsets[row]), int(self.asset_offsets[row + 1]))

    def pair(self, row: int, view: int, asset: int) -> int:
        """Row of the arrays per pair."""
        assets = self.assets(row)
        return int(self.pair_offsets[row]) + view * (assets.stop - assets.start) + asset

    def masks(self, pairs: Sequence[int]) -> BoolArray:
        """(P, S, S) bool of the pairs."""
        side = self.arrays["crops"].shape[-1]
        bits = np.unpackbits(np.asarray(self.arrays["masks"][list(pairs)]), axis=-1, count=side**2)
        return bits.reshape(-1, side, side).astype(bool)

    def example(self, row: int) -> SceneExample:
        """Scene `row` as it was written."""
        assets = self.assets(row)
        views = slice(int(self.view_offsets[row]), int(self.view_offsets[row + 1]))
        shape = (views.stop - views.start, assets.stop - assets.start)
        pairs = range(int(self.pair_offsets[row]), int(self.pair_offsets[row + 1]))
        values: dict[str, Any] = {name: np.array(self.arrays[name][assets]) for name in PER_ASSET}
        values |= {name: np.array(self.arrays[name][views]) for name in PER_VIEW}
        for name in PER_PAIR:
            found = self.masks(pairs) if name == "masks" else np.array(self.arrays[name][pairs.start : pairs.stop])
            values[name] = found.reshape(*shape, *found.shape[1:])
        values |= {"support": np.array(self.arrays["support"][row]), "info": self.info[row]}
        return SceneExample(**{field.name: values[field.name] for field in fields(SceneExample)})


def open_scene_shards(directory: Path) -> list[SceneShard]:
    """Every shard below `directory`, in order; raises `DataFormatError` if there is none."""
    return [SceneShard(folder) for folder in shard_folders(directory, COMMAND)]


def iterate_scenes(shards: Sequence[SceneShard]) -> Iterator[tuple[SceneShard, int]]:
    """(shard, row) of every scene."""
    for shard in shards:
        for row in range(len(shard)):
            yield shard, row
