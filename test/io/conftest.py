"""Small synthetic views with exact depth in whole millimetres, to be written in every format that is read."""

import numpy as np
import pytest

from gena3d_core.geometry.transforms import look_at
from gena3d_core.types import Intrinsics, View


@pytest.fixture
def views() -> list[View]:
    """Four posed 64x48 views, 100 ms apart, colour smooth enough to survive JPEG, some depth invalid."""
    intrinsics = Intrinsics(64, 48, 60.0, 61.0, 31.0, 24.5)
    result = []
    for i in range(4):
        rng = np.random.default_rng(i)
        u, v = np.meshgrid(np.arange(64), np.arange(48))
        color = np.stack([2 * u + 40, 3 * v + 30, 60 + 10 * i + u + v], axis=-1).astype(np.uint8)
        depth_m = ((800 + 3 * u + 2 * v + 20 * i) / 1000).astype(np.float32)
        depth_m[rng.random((48, 64)) < 0.1] = np.nan
        eye = np.array([np.cos(0.7 * i), np.sin(0.7 * i), 0.6])
        result.append(
            View(
                color,
                intrinsics,
                look_at(eye, np.array([0.0, 0.05, 0.0])),
                depth_m,
                stamp_ns=1_000_000_000 + 100_000_000 * i,
                name=f"{i:06d}",
            )
        )
    return result


def millimetres(depth_m: np.ndarray) -> np.ndarray:
    """uint16 millimetres, 0 where NaN."""
    return np.where(np.isnan(depth_m), 0, np.rint(depth_m * 1000)).astype(np.uint16)


@pytest.fixture(name="millimetres")
def millimetres_fixture():
    return millimetres
