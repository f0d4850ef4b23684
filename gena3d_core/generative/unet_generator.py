"""The feed-forward baseline as a generator: one pass from the partial cloud to occupancy, nothing drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..checkpoints.bundle import ModelBundle
from ..errors import EmptyResultError, IncompleteError, InputError
from ..memory import in_chunks
from ..types import (
    CancelCheck,
    CompletedObject,
    Float32Array,
    ObjectObservation,
    ProgressCallback,
    check_cancelled,
)
from .consistency import gather_evidence
from .hypotheses import calibrated, chance_curve
from .inputs import ObjectInputs, prepare_inputs
from .object_shape import completed_object, shape_mesh, shape_of_samples

UNET = "completion_unet"
"""Role of the network in a bundle."""
CLOUDS_AT_ONCE = 16
CROP_SIZE = 16
"""Side of the crops, pixels: inputs are prepared as for every generator, but nobody looks at these."""


class UnetGenerator:
    """An `ObjectGenerator` over a checkpoint of `models.completion_unet`; holds the network, so make it once."""

    deterministic = True
    """Every seed gives the same result."""

    def __init__(self, bundle: ModelBundle, *, max_views: int = 20) -> None:
        """Raises `InputError` for a checkpoint without such a network, or whose grid has no place in the world."""
        if UNET not in bundle.modules:
            raise InputError(f"{bundle.source} lacks {UNET}")
        if bundle.frame != "observed":
            raise InputError(f"{bundle.source}: a {UNET} needs the frame 'observed', got '{bundle.frame}'")
        self.bundle, self.max_views = bundle, max_views
        self.network = bundle.modules[UNET]
        self.device = next(self.network.parameters()).device
        self.chances = chance_curve(bundle.metadata, bundle.source)

    def generate(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[CompletedObject]:
        """See `ObjectGenerator`. `seed` and `hypotheses` change nothing: the network's only answer already is the
        probability of each voxel. Results agree with what the views prove as those of `FlowGenerator` do."""
        if not observations:
            return []
        check_cancelled(cancelled)
        inputs = prepare_inputs(observations, CROP_SIZE, self.resolution, "observed", self.max_views)
        logits = self._logits(inputs, cancelled)
        completed: list[CompletedObject] = []
        failures: dict[int, str] = {}
        for number, item in enumerate(observations):
            check_cancelled(cancelled)
            if not inputs.has_cloud[number]:
                failures[item.id] = "none of its points is left in the partial cloud, which is all that a U-Net sees"
                continue
            S_world_grid = inputs.S_world_grid[number]
            evidence = gather_evidence(item, S_world_grid, inputs.clouds[number])
            try:
                shape = shape_of_samples(logits[number : number + 1], evidence, self.chances)
            except EmptyResultError as error:
                failures[item.id] = str(error)
                continue
            mesh = shape_mesh(shape, item.support, S_world_grid)
            completed.append(completed_object(item.id, mesh, shape, evidence, S_world_grid))
            if progress is not None:
                progress("generation", (number + 1) / len(observations))
        if failures:
            raise IncompleteError(completed, failures)
        return completed

    @property
    def free_space_resolution(self) -> int:
        """See `generation.free_space_resolution`."""
        return self.resolution

    @property
    def resolution(self) -> int:
        """Voxels along a side of the occupancy grid."""
        return self.network.config.resolution

    @torch.no_grad()
    def _logits(self, inputs: ObjectInputs, cancelled: CancelCheck | None) -> Float32Array:
        """(B, R, R, R) calibrated logits of the clouds."""

        def work(start: int, stop: int) -> np.ndarray:
            check_cancelled(cancelled)
            clouds = torch.from_numpy(inputs.clouds[start:stop]).to(self.device)
            return self.network(clouds[:, None].float())[:, 0].cpu().numpy()

        parts = in_chunks(len(inputs.clouds), CLOUDS_AT_ONCE, work)
        return calibrated(np.concatenate(parts), self.bundle.metadata, self.bundle.source)
