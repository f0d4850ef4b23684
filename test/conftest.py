"""Fixtures that every test folder shares."""

from pathlib import Path

import numpy as np
import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def kitchen_dir() -> Path:
    """The real RGB-D recording that lies beside the project on development machines and in CI."""
    path = SHARED / "data" / "rgbd_kitchen"
    if not path.is_dir():
        pytest.skip(f"needs the RGB-D recording at {path}")
    return path
