"""Sparse local tri-vector radiance fields, as a decoder gives them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Strivec:
    """A low-rank radiance field around each of N voxels of one object.

    position      (N, 3) centres in the unit cube [0, 1]³; world = position - 0.5
    depth         (N, 1) uint8: a voxel's side is 2^-depth
    trivec        (N, rank, 3, dim): for each rank the vectors along x, y, z, whose products weight that rank
    density       (N, rank) raw
    features_dc   (N, rank, 1, 3) colour, spherical harmonic of degree 0
    """

    position: Tensor
    depth: Tensor
    trivec: Tensor
    density: Tensor
    features_dc: Tensor

    def __len__(self) -> int:
        return len(self.position)

    @property
    def voxel_size(self) -> Tensor:
        """(N, 1) sides of the voxels, in units of the cube."""
        return 0.5 ** self.depth.float()
