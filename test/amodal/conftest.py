"""Inpainters for the tests of this folder."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load(name: str) -> ModuleType:
    """A helper module of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    """Inpainters that know the answer (`scripted.py`)."""
    return load("scripted")


@pytest.fixture(scope="session")
def tiny_diffusion() -> ModuleType:
    """Networks of diffusers with random weights."""
    for package in ("diffusers", "transformers"):
        pytest.importorskip(package, reason=f"runs networks of {package}: pip install 'gena3d[diffusion]'")
    from gena3d_core.benchmarks import tiny_diffusion

    return tiny_diffusion
