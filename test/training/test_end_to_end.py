"""The way of a checkpoint in a minute: render, train, evaluate, reconstruct, by the commands that people run."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.cli import main as gena3d
from gena3d_core.geometry import transforms
from gena3d_core.geometry.mesh import sample_surface, transformed
from gena3d_core.io import load_scene
from gena3d_core.metrics.geometry import chamfer_distance
from gena3d_core.simulation import views_from_scene
from gena3d_core.simulation.primitives import cylinder, ellipsoid
from gena3d_core.simulation.scene import ObjectSpec, SceneSpec, object_mesh
from training.make_edge import main as make_edge
from training.render import main as render
from training.shards import open_shards

SCALE_M = 0.12
SHAPES = {"can": cylinder(0.34, 0.9, 0.02), "egg": ellipsoid((0.45, 0.45, 0.3))}
"""Turned shapes look the same from all sides, so that few examples show all there is."""
SETTINGS = (
    "occlusion=none", "table_elevation_deg=20,60", "upright_share=1", "table_share=1", "recolor_share=0",
    "missing_depth=0", "depth_holes=0", "pose_jitter_m=0", "pose_jitter_deg=0", "exact_masks=1",
)  # fmt: skip
COMMON = ("held_out=0", "threads=1", "evaluate_count=8")
VAE = (*COMMON, "max_steps=220", "batch=4", "learning_rate=0.01", "cloud_share=0.1")
FLOW = (
    *COMMON, "max_steps=300", "batch=12", "learning_rate=0.01", "sample_count=2", "condition_dropout=0",
    "cloud_dropout=0", "image_dropout=0", "view_dropout=0",
)  # fmt: skip


def write_objects(folder):
    """The shapes in the format of `gena3d_core.io.object_dataset`."""
    folder.mkdir()
    meshes = list(SHAPES.values())
    with (folder / "objects.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "category", "split", "scale_m", "shard", "index"])
        writer.writerows([name, name, "train", SCALE_M, "shard.npz", number] for number, name in enumerate(SHAPES))
    np.savez(
        folder / "shard.npz",
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        faces=np.concatenate([mesh.faces for mesh in meshes]).astype(np.uint16),
        vertex_colors=np.concatenate([np.full(mesh.vertices.shape, 150, np.uint8) for mesh in meshes]),
        vertex_offsets=np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)]),
        face_offsets=np.cumsum([0, *(len(mesh.faces) for mesh in meshes)]),
    )


def write_recording(folder):
    """Two views of the egg on a table, as an RGB-D folder; the egg in the world."""
    params = {"radii_m": tuple(SCALE_M * radius for radius in (0.45, 0.45, 0.3))}
    egg = ObjectSpec("egg", "ellipsoid", transforms.rigid(np.eye(3), np.array([0.0, 0.0, 0.3 * SCALE_M])), params)
    scene = SceneSpec((egg,))
    for part in ("color", "depth", "pose"):
        (folder / part).mkdir(parents=True)
    k = scene.intrinsics
    camera = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy}
    (folder / "camera.json").write_text(json.dumps(camera))
    for i, view in enumerate(views_from_scene(scene, 2)):
        cv2.imwrite(str(folder / f"color/{i:06d}.png"), view.color[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{i:06d}.png"), np.nan_to_num(1000 * view.depth_m, nan=0).astype(np.uint16))
        np.savetxt(folder / f"pose/{i:06d}.txt", view.T_world_camera)
    return transformed(object_mesh(egg), egg.T_world_object)


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def vae_iou(checkpoint, shards):
    """Mean IoU of the objects of all examples with what encoder and decoder make of them."""
    modules = open_checkpoint(checkpoint, dtype=torch.float32).modules
    truth = np.concatenate([np.asarray(shard.occupancy) for shard in shards]).astype(np.float32) / 255.0
    with torch.no_grad():
        latents = modules["sparse_structure_encoder"](torch.from_numpy(truth)[:, None]).mean
        found = (modules["sparse_structure_decoder"](latents)[:, 0] > 0).numpy()
    return float(np.mean([iou(a, b >= 0.5) for a, b in zip(found, truth, strict=True)]))


def surface_error_m(recording, truth, checkpoint, out):
    """Mean distance between the reconstructed and the true surface, both ways."""
    options = ["--generator", "edge", "--checkpoint", str(checkpoint), "--views", "2", "--device", "cpu"]
    assert gena3d(["reconstruct", str(recording), "--out", str(out), "--no-overview", *options]) == 0
    entry = load_scene(out).objects[0]
    rng = np.random.default_rng(0)
    found = sample_surface(transformed(entry.mesh, entry.T_world_object), 3000, rng)[0]
    wanted = sample_surface(truth, 3000, rng)[0]
    return 0.5 * chamfer_distance(found, wanted)


@pytest.mark.slow
def test_from_meshes_to_a_checkpoint_that_knows_them(tmp_path):
    objects, shards, untrained = tmp_path / "objects", tmp_path / "shards", tmp_path / "untrained"
    write_objects(objects)
    words = ["--meshes", str(objects), "--out", str(shards), "--examples-per-object", "16", "--views", "2"]
    assert render([*words, "--image-size", "32", "--settings", *SETTINGS]) == 0
    words = ["--data", str(shards), "--out", str(tmp_path / "edge"), "--hours", "1", "--size", "tiny"]
    assert make_edge([*words, "--vae", *VAE, "--flow", *FLOW]) == 0
    trained = tmp_path / "edge" / "checkpoint"
    save_bundle(random_bundle("tiny", seed=1), untrained)

    assert vae_iou(trained, open_shards(shards)) > 0.85
    assert vae_iou(untrained, open_shards(shards)) < 0.3

    words = ["--checkpoint", str(trained), "--compare", f"untrained={untrained}", "--baselines", "none", "--no-sets"]
    words += ["--views", "2", "--occlusion", "0", "--jobs", "1", "--split", "train", "--seed", "5"]
    settings = [word for text in SETTINGS for word in ("--setting", text)]
    assert gena3d(["evaluate", "objects", str(objects), *words, *settings, "--json", str(tmp_path / "rows.json")]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    edge, other = rows["edge"], rows["untrained"]
    print({m: {k: r[k] for k in ("iou", "chamfer", "f1", "f2", "objects")} for m, r in rows.items()})
    assert edge["objects"] == 2
    assert edge["failed"] == 0
    assert edge["chamfer"] < 0.5 * other["chamfer"]
    assert edge["f2"] > 2 * other["f2"]

    truth = write_recording(tmp_path / "recording")
    known_m = surface_error_m(tmp_path / "recording", truth, trained, tmp_path / "scene")
    unknown_m = surface_error_m(tmp_path / "recording", truth, untrained, tmp_path / "other")
    print(known_m, unknown_m)
    assert known_m < 0.005
    assert known_m < 0.5 * unknown_m
