"""Sparse voxel tensors and the layers on them, in plain torch; see `tensor` for the data layout."""

from .tensor import Geometry, SparseTensor, concatenate, from_padded, repeat_samples, to_padded

__all__ = [
    "Geometry",
    "SparseTensor",
    "concatenate",
    "from_padded",
    "repeat_samples",
    "to_padded",
]
