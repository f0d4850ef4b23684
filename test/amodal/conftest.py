"""The scripted inpainter, for the tests of this folder."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def scripted() -> ModuleType:
    """Inpainters that know the answer (`scripted.py`)."""
    spec = importlib.util.spec_from_file_location("scripted", Path(__file__).with_name("scripted.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scripted"] = module
    spec.loader.exec_module(module)
    return module
