"""`Inpainter` on the package diffusers: Stable Diffusion (2 and XL) inpainting, FLUX Fill."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..device import release_cached_memory
from ..errors import DataFormatError, InputError, MissingDependencyError
from ..types import UInt8Array
from .diffusers_folder import PIP_NAME, check_folder, require_diffusers, variant
from .inpainter import InpaintTask

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NEGATIVE_PROMPT = "cropped, cut off, occluded, hands, text, frame"


class DiffusersInpainter:
    """An inpainting pipeline, loaded from a folder when it first paints, until `close`."""

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        side: int | None = None,
    ) -> None:
        """The folder is checked at once; None takes the family's own value (dtype: float32 on a CPU).

        Raises `MissingDependencyError` without diffusers, `DataFormatError` for a folder that cannot be used.
        """
        require_diffusers("2D amodal completion")
        self.folder, self.device = Path(folder), torch.device(device)
        self.family, own_side = check_folder(self.folder)
        self.side = own_side if side is None else side
        self.steps = self.family.steps if steps is None else steps
        self.guidance_scale = self.family.guidance if guidance_scale is None else guidance_scale
        self.dtype = dtype or ("float32" if self.device.type == "cpu" else self.family.half)
        if self.dtype not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, got '{dtype}'")
        if self.steps < 1 or self.side < 16 or self.side % 16:
            raise InputError(f"steps must be positive and side a multiple of 16, got {self.steps} and {self.side}")
        settings = (self.steps, self.guidance_scale, self.side, self.dtype)
        self.name = " ".join(str(part) for part in (self.family.class_name, self.folder.resolve(), *settings))
        self._pipeline: Any = None

    def __call__(self, tasks: Sequence[InpaintTask]) -> list[UInt8Array]:
        """See `Inpainter`: all tasks in one batch, each with a generator of its own."""
        if not tasks:
            return []
        pipeline = self.open()
        arguments: dict[str, Any] = {
            **self.family.arguments,
            "prompt": [task.prompt for task in tasks],
            "image": [Image.fromarray(task.picture) for task in tasks],
            "mask_image": [Image.fromarray(task.region.astype(np.uint8) * 255) for task in tasks],
            "height": self.side,
            "width": self.side,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            # On the CPU, whatever the device: the same seed must give the same picture everywhere.
            "generator": [torch.Generator("cpu").manual_seed(task.seed) for task in tasks],
            "output_type": "np",
        }
        if self.family.network == "unet":
            arguments["negative_prompt"] = [NEGATIVE_PROMPT] * len(tasks)
        with torch.inference_mode():
            painted = pipeline(**arguments).images
        if not np.isfinite(painted).all():
            raise DataFormatError(f"{self.folder}: the network paints NaN in {self.dtype}; take another --amodal-dtype")
        return list(np.clip(np.round(255.0 * np.asarray(painted)), 0, 255).astype(np.uint8))

    def close(self) -> None:
        """Give the networks' memory back; they are loaded again when next needed."""
        self._pipeline = None
        release_cached_memory()

    def open(self) -> Any:
        """The pipeline, loaded now if it was not before; raises `DataFormatError` where that fails."""
        if self._pipeline is None:
            pipeline_class = _pipeline_class(self.family.class_name)
            options: dict[str, Any] = {
                "variant": variant(self.folder, self.family),
                "low_cpu_mem_usage": importlib.util.find_spec("accelerate") is not None,
            }
            if self.family.class_name == "StableDiffusionInpaintPipeline":
                # It would blacken pictures that it takes offence at, which looks like a completion in black.
                options |= {"safety_checker": None, "requires_safety_checker": False}
            with quiet("diffusers", "transformers"):
                try:
                    pipeline = pipeline_class.from_pretrained(
                        self.folder,
                        dtype=DTYPES[self.dtype],
                        local_files_only=True,
                        use_safetensors=True,
                        **options,
                    )
                except MemoryError:
                    raise
                except Exception as error:
                    # diffusers, transformers and safetensors raise errors of many families for files that are broken.
                    reason = " ".join(str(error).split())[:300] or type(error).__name__
                    raise DataFormatError(
                        f"{self.folder}: {pipeline_class.__name__} cannot be loaded: {reason}"
                    ) from error
            pipeline.set_progress_bar_config(disable=True)
            self._pipeline = pipeline.to(self.device)
        return self._pipeline


def _pipeline_class(name: str) -> Any:
    diffusers = importlib.import_module("diffusers")
    try:
        return getattr(diffusers, name)
    except (AttributeError, ImportError, RuntimeError) as error:
        raise MissingDependencyError(
            f"diffusers with {name}", "2D amodal completion", f"--upgrade {PIP_NAME}"
        ) from error


@contextmanager
def quiet(*packages: str) -> Iterator[None]:
    """Without the packages' progress bars, which have no place in a node's log."""
    loggers = [importlib.import_module(package).utils.logging for package in packages]
    shown = [logger.is_progress_bar_enabled() for logger in loggers]
    for logger in loggers:
        logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger, was_shown in zip(loggers, shown, strict=True):
            if was_shown:
                logger.enable_progress_bar()
