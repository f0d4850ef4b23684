"""Fixtures that every test folder shares."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

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


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The numerical cases of the published networks, beside the project on development machines and in CI."""
    path = SHARED / "golden"
    if not path.is_dir():
        pytest.skip(f"needs the numerical cases at {path}")
    return path


@pytest.fixture(scope="session")
def keys_dir() -> Path:
    """Names and shapes of the published parameters, beside the project on development machines and in CI."""
    path = SHARED / "keys"
    if not path.is_dir():
        pytest.skip(f"needs the parameter names at {path}")
    return path


@pytest.fixture(scope="session")
def solids() -> ModuleType:
    """Analytic solids seen by ideal cameras (`test/solids.py`)."""
    spec = importlib.util.spec_from_file_location("solids", Path(__file__).with_name("solids.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["solids"] = module
    spec.loader.exec_module(module)
    return module
