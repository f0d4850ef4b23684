"""A scene generator whose answer is known: a velocity field that leads to given latents, a head that tells given poses.

Only the flow and the decoder are stand-ins; encoders, sampling, guidance, views and meshes are the real ones.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from gena3d_core.checkpoints.presets import random_scene_bundle
from gena3d_core.models.scene_flow import SceneCondition, SceneFlow, first_assets
from gena3d_core.sampling.denoisers import NETWORK_TIME
from gena3d_core.types import SceneObservation

CELLS = 8
"""Latent cells along a side, each 8 voxels wide."""


class KnownFlow(SceneFlow):
    """Straight paths to `latents` (A, 1, 8, 8, 8) and `answers` (A, 8) of its assets, in the order of the group.

    calls  numbers of assets of the calls; views: (K, A, 8) what each view says of the poses instead, in their order
    """

    def __init__(self, config, latents, answers, views=None):
        super().__init__(config)
        self.blocks = nn.ModuleList()
        self.latents, self.answers, self.views = latents, answers, views
        self.calls, self.conditions = [], []

    def contexts(self, condition: SceneCondition):
        self.conditions.append(condition)
        return []

    def forward(self, x, t, contexts, *, assets, query=None, hints=None):
        self.calls.append(assets)
        rows = torch.arange(len(x)) % assets
        time = (t / NETWORK_TIME).view(-1, 1, 1, 1, 1)
        view = 0 if self.views is None else (len(self.calls) - 1) % len(self.views)
        return (x - self.latents[rows]) / time, torch.stack([rows, torch.full_like(rows, view)], dim=1).float()

    def poses(self, position_tokens, *, query=None):
        rows, view = position_tokens.long().T
        told = self.answers if self.views is None else self.views[int(view[0])]
        known = first_assets(rows, int(rows.max()) + 1) if query is None else query
        identity = torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 1])
        return torch.where(known[:, None], identity, told[rows])


class CellDecoder(nn.Module):
    """A latent cell is 8³ voxels of its value."""

    def forward(self, x):
        return x.repeat_interleave(8, 2).repeat_interleave(8, 3).repeat_interleave(8, 4)


def box_latent(size):
    """(1, 8, 8, 8): positive in a box of `size` cells in the middle of the grid."""
    latent = torch.full((1, CELLS, CELLS, CELLS), -4.0)
    latent[(0, *(slice((CELLS - n) // 2, (CELLS - n) // 2 + n) for n in size))] = 4.0
    return latent


def known_bundle(sizes, answers, views=None, metadata=None):
    """Bundle of boxes of `sizes` (A, 3) in cells with poses `answers` (A, 8), largest asset first."""
    bundle = random_scene_bundle("tiny", seed=1)
    config = replace(
        bundle.modules["sparse_structure_flow"].config, resolution=CELLS, in_channels=1, out_channels=1, patch_size=1
    )
    latents = torch.stack([box_latent(size) for size in sizes])
    told = None if views is None else torch.as_tensor(np.asarray(views), dtype=torch.float32)
    flow = KnownFlow(config, latents, torch.as_tensor(np.asarray(answers), dtype=torch.float32), told)
    modules = {**bundle.modules, "sparse_structure_flow": flow, "sparse_structure_decoder": CellDecoder()}
    return replace(bundle, modules=modules, samplers={}, metadata=metadata or {})


def squares(areas, views=1, height=48, width=128, hidden=()):
    """Observation of squares in a row with sides `areas` pixels; ids 10, 20, ...; hidden: (view, asset) not shown."""
    rng = np.random.default_rng(0)
    images, masks = [], []
    for view in range(views):
        images.append(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
        own = np.zeros((len(areas), height, width), dtype=bool)
        step = width // len(areas)
        for number, side in enumerate(areas):
            if (view, number) not in hidden:
                own[number, 4 : 4 + side, number * step : number * step + min(side, step)] = True
        masks.append(own)
    ids = tuple(10 * (n + 1) for n in range(len(areas)))
    return SceneObservation(ids, tuple(f"square_{i}" for i in ids), tuple(images), tuple(masks))
