"""Sparse voxel tensors and the layers on them, in plain torch; see `tensor` for the data layout."""

from .attention import WindowAttention
from .convolution import SubmanifoldConv3d
from .norms import SparseGroupNorm32
from .resampling import downsample, subdivide, upsample
from .residual import SparseResBlock3d
from .tensor import Geometry, SparseTensor, concatenate, from_padded, repeat_samples, to_padded
from .windows import Windows, sample_windows, serialised_windows, shifted_windows

__all__ = [
    "Geometry",
    "SparseGroupNorm32",
    "SparseResBlock3d",
    "SparseTensor",
    "SubmanifoldConv3d",
    "WindowAttention",
    "Windows",
    "concatenate",
    "downsample",
    "from_padded",
    "repeat_samples",
    "sample_windows",
    "serialised_windows",
    "shifted_windows",
    "subdivide",
    "to_padded",
    "upsample",
]
