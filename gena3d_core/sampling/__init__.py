"""Sampling of flow-matching models: time grid, guidance, integration, several views, noise.

Flow time is 1 at the noise and 0 at the data; a network predicts the velocity dx/dt. Nothing here knows a network:
`Denoiser` is the seam, and x may be any tensor that it understands, dense (B, C, R, R, R) or sparse features (N, C).
"""

from .denoisers import BatchedDenoiser, CyclingViews, MeanOfViews, network_time
from .integration import SIGMA_MIN, Denoiser, Prediction, Sample, SampleStep, estimate_x0, sample
from .noise import draw_noise, draw_sparse_noise, object_seed
from .schedule import NO_GUIDANCE, FlowSchedule, Guidance, steps_for_views

__all__ = [
    "NO_GUIDANCE",
    "SIGMA_MIN",
    "BatchedDenoiser",
    "CyclingViews",
    "Denoiser",
    "FlowSchedule",
    "Guidance",
    "MeanOfViews",
    "Prediction",
    "Sample",
    "SampleStep",
    "draw_noise",
    "draw_sparse_noise",
    "estimate_x0",
    "network_time",
    "object_seed",
    "sample",
    "steps_for_views",
]
