"""A folder of objects and of layouts of them, for evaluations of scenes."""

from __future__ import annotations

import csv
import json

import numpy as np
import torch
import trimesh

from gena3d_core.geometry import transforms
from gena3d_core.io.scene_layouts import layout_json
from gena3d_core.simulation.scene_layout import SceneCamera, SceneLayout, SceneObject
from gena3d_core.types import Intrinsics

SHAPES = {
    "box": trimesh.creation.box((0.98, 0.6, 0.4)),
    "ball": trimesh.creation.icosphere(subdivisions=2, radius=0.49),
    "pole": trimesh.creation.cylinder(0.15, 0.98, sections=12),
}
CAMERA = Intrinsics(192, 144, 200.0, 200.0, 95.5, 71.5)


def make_scene_folder(folder, scenes=2):
    """`objects/` and `scenes/` below `folder`: three objects in a row, each scene in another order. Returns it."""
    objects = folder / "objects"
    objects.mkdir(parents=True)
    arrays = {
        "vertices": np.concatenate([shape.vertices for shape in SHAPES.values()]).astype(np.float32),
        "faces": np.concatenate([shape.faces for shape in SHAPES.values()]).astype(np.uint16),
        "vertex_offsets": np.cumsum([0, *(len(shape.vertices) for shape in SHAPES.values())]),
        "face_offsets": np.cumsum([0, *(len(shape.faces) for shape in SHAPES.values())]),
    }
    np.savez(objects / "objects_val_00.npz", **arrays)
    with (objects / "objects.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "category", "scale_m", "split", "shard", "index"])
        for index, name in enumerate(SHAPES):
            writer.writerow([name, "solid", "", "val", "objects_val_00.npz", index])
    layouts = folder / "scenes"
    layouts.mkdir()
    sizes = {"box": 0.2, "ball": 0.1, "pole": 0.3}
    for number in range(scenes):
        T = transforms.look_at(np.array([0.1 * number, -1.0, 0.6]), np.zeros(3))
        items = []
        for place, name in enumerate(np.roll(list(SHAPES), number)):
            low = SHAPES[name].vertices[:, 2].min() * sizes[name]
            position = np.array([0.25 * (place - 1), 0.05 * place, -low])
            items.append(SceneObject(str(name), transforms.rigid(sizes[name] * np.eye(3), position)))
        layout = SceneLayout(f"val_{number:04d}", tuple(items), None, (SceneCamera(T, CAMERA),))
        content = layout_json(layout, "val")
        (layouts / f"val_{number:04d}.json").write_text(json.dumps(content))
    return folder


def smoothed(bundle):
    """The bundle with a decoder that fills the whole grid: noise of random weights makes meshes of a million faces."""
    decoder = bundle.modules["sparse_structure_decoder"]
    last = [module for module in decoder.modules() if isinstance(module, torch.nn.Conv3d)][-1]
    with torch.no_grad():
        last.weight.mul_(1e-3)
        last.bias.fill_(0.05)
    return bundle
