"""Several samples of one object: which to show, and how far they agree."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import Gena3DError
from ..types import Float32Array, Mesh


@dataclass(frozen=True, eq=False)
class Consensus:
    """What H samples of one object say together.

    logits      (R, R, R) of the sample that agrees best with all of them
    kept        its number
    frequency   (R, R, R) float32: share of the samples that have the voxel occupied
    """

    logits: Tensor
    kept: int
    frequency: Float32Array


def consensus(logits: Tensor) -> Consensus:
    """The sample (of `logits` (H, R, R, R)) whose occupancy overlaps best with the voxels' mean occupancy.

    Overlap is the soft intersection over union of the two. Raises `Gena3DError` if every sample is empty.
    """
    occupied = logits > 0
    frequency = occupied.float().mean(dim=0)
    together = torch.minimum(occupied.float(), frequency).flatten(1).sum(1)
    either = torch.maximum(occupied.float(), frequency).flatten(1).sum(1)
    if not bool(occupied.any()):
        raise Gena3DError("the generator found no occupied voxel: more views, another seed or another checkpoint")
    kept = int((together / either.clamp_min(1.0)).argmax())
    return Consensus(logits[kept], kept, frequency.numpy())


def with_confidence(mesh: Mesh, agreed: Consensus) -> Mesh:
    """The mesh (grid frame) with `vertex_confidence` (V,) in [0, 1]: how sure the samples are of the surface there.

    Where all samples agree on the surface, one side of it has frequency 1 and the other 0: confidence is the largest
    step of the frequency across the voxels around the vertex.
    """
    frequency = agreed.frequency
    R = frequency.shape[0]
    padded = np.pad(frequency, 1)
    highest = ndimage.maximum_filter(padded, size=3)
    lowest = ndimage.minimum_filter(padded, size=3)
    voxel = np.clip(np.floor((mesh.vertices + 0.5) * R).astype(np.intp), 0, R - 1) + 1
    i, j, k = voxel.T
    return replace(mesh, vertex_confidence=(highest[i, j, k] - lowest[i, j, k]).astype(np.float32))
