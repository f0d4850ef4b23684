"""Shards of training examples: folders of plain arrays that appear whole or not at all and are read by memory map.

`shard_NNNNN/` holds, for n examples with m views together:
occupancy.npy    (n, R, R, R) uint8: filled share of each voxel of the example's grid, 255 = full
cloud.npy        (n, R³ / 8) uint8: bits of the partial cloud's voxels (`numpy.packbits`)
crops.npy        (m, 5, S, S) uint8: red, green, blue over black, visible, occluded mask in {0, 1}
visibility.npy   (m,) float32: visible / (visible + occluded) pixels
view_offsets.npy (n + 1,) int64: views of example i are view_offsets[i] to view_offsets[i + 1]
grid.npy         (n, 4, 4) float64: S_world_grid
examples.json    [{"object", "category", "seed", ...}]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gena3d_core.errors import InputError
from gena3d_core.types import BoolArray, Float32Array, Float64Array, UInt8Array

from .array_folders import read_array, read_info, shard_folder, shard_folders, write_arrays


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """One object in its grid with K views of it.

    occupancy     (R, R, R) uint8, 255 = full; cloud (R, R, R) bool; crops (K, 5, S, S) uint8; visibility (K,) float32
    S_world_grid  (4, 4) float64
    info          what it was made from; JSON
    """

    occupancy: UInt8Array
    cloud: BoolArray
    crops: UInt8Array
    visibility: Float32Array
    S_world_grid: Float64Array
    info: dict[str, Any]


def write_shard(directory: Path, number: int, examples: Sequence[TrainingExample]) -> Path:
    """Write `shard_NNNNN` below `directory`; an earlier one of that number is replaced. Returns its folder."""
    if not examples:
        raise InputError("a shard needs at least one example")
    arrays = {
        "occupancy": np.stack([e.occupancy for e in examples]),
        "cloud": np.stack([np.packbits(e.cloud.reshape(-1)) for e in examples]),
        "crops": np.concatenate([e.crops for e in examples]),
        "visibility": np.concatenate([e.visibility for e in examples]).astype(np.float32),
        "view_offsets": np.cumsum([0, *(len(e.crops) for e in examples)]).astype(np.int64),
        "grid": np.stack([e.S_world_grid for e in examples]),
    }
    return write_arrays(shard_folder(directory, number), arrays, [e.info for e in examples])


@dataclass(frozen=True)
class Shard:
    """A shard on disk; arrays are memory-mapped when first used."""

    folder: Path

    def __len__(self) -> int:
        return len(self.view_offsets) - 1

    @cached_property
    def occupancy(self) -> NDArray[np.uint8]:
        """(n, R, R, R)."""
        return self._array("occupancy")

    @cached_property
    def crops(self) -> NDArray[np.uint8]:
        """(m, 5, S, S)."""
        return self._array("crops")

    @cached_property
    def visibility(self) -> NDArray[np.float32]:
        """(m,)."""
        return self._array("visibility")

    @cached_property
    def packed_clouds(self) -> NDArray[np.uint8]:
        """(n, R³ / 8): see `clouds`."""
        return self._array("cloud")

    @cached_property
    def view_offsets(self) -> NDArray[np.int64]:
        """(n + 1,)."""
        return self._array("view_offsets")

    @cached_property
    def info(self) -> list[dict[str, Any]]:
        """What each example was made from."""
        return read_info(self.folder)

    def clouds(self, rows: Any = slice(None)) -> BoolArray:
        """(rows, R, R, R) bool."""
        R = self.occupancy.shape[1]
        bits = np.unpackbits(np.asarray(self.packed_clouds[rows]), axis=-1, count=R**3)
        return bits.reshape(*bits.shape[:-1], R, R, R).astype(bool)

    def _array(self, name: str) -> Any:
        return read_array(self.folder, name)


def open_shards(directory: Path) -> list[Shard]:
    """Every shard below `directory`, in order; raises `DataFormatError` if there is none."""
    return [Shard(folder) for folder in shard_folders(directory, "python -m training.render")]


def iterate_examples(shards: Sequence[Shard]) -> Iterator[tuple[Shard, int]]:
    """(shard, row) of every example."""
    for shard in shards:
        for row in range(len(shard)):
            yield shard, row
