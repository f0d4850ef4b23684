"""The package segment-anything, imported also where torchvision is missing or broken.

The package takes four functions of torchvision for its automatic masks and its resizing of images, which gena3d does
itself. They are lent while the package is imported and taken back at once: a module that calls itself torchvision
would mislead other packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..errors import MissingDependencyError

NAMES: Mapping[str, tuple[str, ...]] = {
    "torchvision": (),
    "torchvision.ops": (),
    "torchvision.ops.boxes": ("batched_nms", "box_area"),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("resize", "to_pil_image"),
}


def import_segment_anything() -> ModuleType:
    """The module `segment_anything`; raises `MissingDependencyError` where it is not installed."""
    if "segment_anything" in sys.modules:
        return sys.modules["segment_anything"]
    if importlib.util.find_spec("segment_anything") is None:
        raise MissingDependencyError("segment-anything", "the segmenter 'sam'", "'gena3d[sam]'")
    if _torchvision_works():
        return importlib.import_module("segment_anything")
    with _lent():
        return importlib.import_module("segment_anything")


def _torchvision_works() -> bool:
    try:
        importlib.import_module("torchvision")
    except Exception:
        # Built for another torch, it fails in ways of its own: RuntimeError, OSError, AttributeError.
        return False
    return True


@contextmanager
def _lent() -> Iterator[None]:
    before = {name: sys.modules.get(name) for name in NAMES}
    for name, functions in NAMES.items():
        module = ModuleType(name)
        module.__path__ = []
        for function in functions:
            setattr(module, function, _unavailable)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module_before in before.items():
            if module_before is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module_before


def _unavailable(*_: Any, **__: Any) -> Any:
    raise MissingDependencyError("torchvision", "segment-anything's own predictor and mask generator")
