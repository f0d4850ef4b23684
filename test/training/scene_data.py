"""Shards of scenes with coloured boxes in a row, whose places can be read off the pictures; and a VAE for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.geometry import transforms
from training.scene_shards import SceneExample, write_scene_shard
from training.scene_start import VAE_ROLES

R, S = 64, 32
COLORS = np.array([[230, 40, 40], [40, 220, 60], [50, 60, 230], [220, 210, 40]], dtype=np.uint8)


def scene_example(rng, name, assets=2, views=1, frame="observed", hidden=()):
    """`assets` boxes side by side; (view, asset) pairs of `hidden` are not seen."""
    width = S // assets
    occupancy = np.zeros((assets, R, R, R), dtype=np.uint8)
    grids, scene = [], np.full((views, 3, S, S), 120, dtype=np.uint8)
    instances = np.zeros((views, S, S), dtype=np.uint8)
    crops = np.zeros((views, assets, 5, S, S), dtype=np.uint8)
    masks = np.zeros((views, assets, S, S), dtype=bool)
    for k in range(assets):
        half = rng.integers(10, 26, 3)
        occupancy[k][tuple(slice(32 - h, 32 + h) for h in half)] = 255
        side = float(rng.uniform(0.08, 0.16))
        x = (k - (assets - 1) / 2) * 0.2 + rng.uniform(-0.02, 0.02)
        grids.append(transforms.rigid(side * np.eye(3), np.array([x, rng.uniform(-0.1, 0.1), side / 2])))
        top, left = int(rng.integers(4, 18)), k * width + 2
        for v in range(views):
            if (v, k) in hidden:
                continue
            spot = np.s_[top : top + 10, left : left + width - 4]
            masks[v, k][spot] = True
            scene[v][:, masks[v, k]] = COLORS[k][:, None]
            instances[v][spot] = k + 1
            crops[v, k, :3, 4:28, 4:28] = COLORS[k][:, None, None]
            crops[v, k, 3, 4:28, 4:28] = 1
    pixels = masks.sum(axis=(2, 3)).astype(np.int32) * 16
    return SceneExample(
        occupancy=occupancy,
        grid=np.stack(grids),
        scene=scene,
        geometry=scene.copy(),
        instances=instances,
        depth=np.where(instances > 0, 0.7, np.nan).astype(np.float16),
        cameras=np.tile(np.eye(4), (views, 1, 1)),
        intrinsics=np.tile([40.0, 40.0, 15.5, 15.5], (views, 1)),
        crops=crops,
        masks=masks,
        visibility=(pixels > 0).astype(np.float32),
        pixels=pixels,
        support=np.array([0.0, 0.0, 1.0, 0.0]),
        info={"scene": name, "objects": [f"box_{k}" for k in range(assets)], "frame": frame, "seed": 0},
    )


def make_scene_shards(folder, counts=((2, 2, 3), (3, 2)), seed=0, **options):
    """One shard for each tuple of numbers of assets; returns `folder`."""
    rng = np.random.default_rng(seed)
    for number, assets in enumerate(counts):
        examples = [scene_example(rng, f"scene_{number}_{i}", n, **options) for i, n in enumerate(assets)]
        write_scene_shard(folder, number, examples)
    return folder


def make_vae(folder):
    """A VAE of preset tiny with random weights, as a checkpoint; latents of about unit size. Returns `folder`."""
    bundle = random_bundle("tiny", seed=3)
    modules = {role: bundle.modules[role] for role in VAE_ROLES}
    blocks = np.random.default_rng(0).random((4, 1, R, R, R)) > 0.7
    with torch.no_grad():
        size = float(modules[VAE_ROLES[0]](torch.from_numpy(blocks).float()).mean.std())
        last = [m for m in modules[VAE_ROLES[0]].modules() if isinstance(m, torch.nn.Conv3d)][-1]
        last.weight.div_(size)
        assert last.bias is not None
        last.bias.div_(size)
    save_bundle(replace(bundle, modules=modules), folder)
    return folder
