"""What scenes are evaluated with: SceneGen, parts of it left out, and single objects placed where their masks are."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from ..checkpoints.bundle import ModelBundle
from ..checkpoints.open import open_checkpoint
from ..errors import EmptyResultError, InputError
from ..generation import SceneGenerator
from ..generative.scene_alone import generate_alone
from ..generative.scene_generator import SceneFlowGenerator
from ..generative.scene_inputs import scene_parts
from ..generative.settings import SamplingSettings, chosen_dtype
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..layout.contacts import resolve_contacts
from ..layout.mask_placement import place_at_mask, standing_depth_m
from ..layout.relative_layout import similarities
from ..models.scene_condition import SceneParts
from ..simulation.scene_views import SceneView
from ..types import Mesh, SceneObservation, SupportPlane
from .scene_examples import SceneExample
from .scene_objects import PlacedMesh

log = logging.getLogger("gena3d")

WITHOUT: dict[str, str] = {
    "no_geometry": "geometry",
    "no_scene_image": "scene",
    "no_mask": "mask",
}
"""Rows of the paper's ablation -> the part of `SceneParts` that they leave out."""


class SceneMethod(Protocol):
    """Makes a scene of an example; objects carry the ids of its assets, z is up, unit and origin are its own."""

    def __call__(self, example: SceneExample, seed: int) -> list[PlacedMesh]: ...


SceneMethodMaker = Callable[[], SceneMethod]
"""Makes a method; must survive pickling, since every process makes its own."""


@dataclass(frozen=True, eq=False)
class JointScene:
    """All assets together by a `SceneGenerator`, in the upright frame of the query's grid."""

    generator: SceneGenerator
    hypotheses: int = 1

    def __call__(self, example: SceneExample, seed: int) -> list[PlacedMesh]:
        made = self.generator.generate(example.observation, seed=seed, hypotheses=self.hypotheses)
        S_grid_model = transforms.rigid(made.R_model_grid.T)
        places = S_grid_model @ similarities(made.poses, made.R_model_grid)
        meshes = {asset.id: asset.mesh for asset in made.assets}
        colors = mask_colors(example.observation)
        return [
            PlacedMesh(id, _colored(mesh, colors[id]), S) for (id, mesh), S in zip(meshes.items(), places, strict=True)
        ]


@dataclass(eq=False)
class AloneScene:
    """Each asset by itself, placed at its mask's centre by the true camera.

    depth  table: where the mask's lowest pixels meet the support; sensor: the median of the true depth in the mask
    """

    bundle: ModelBundle
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    depth: Literal["table", "sensor"] = "table"
    hypotheses: int = 1

    def __call__(self, example: SceneExample, seed: int) -> list[PlacedMesh]:
        scene = example.observation
        meshes = generate_alone(self.bundle, scene, seed=seed, hypotheses=self.hypotheses, settings=self.settings)
        if not meshes:
            raise EmptyResultError("no asset came out")
        colors, best = mask_colors(scene), scene.pixels.argmax(axis=0)
        found = []
        for number, id in enumerate(scene.ids):
            if id not in meshes:
                continue
            shot, mask = example.views[best[number]], scene.masks[best[number]][number]
            T, intrinsics = shot.camera.T_world_camera, shot.camera.intrinsics
            try:
                S = place_at_mask(meshes[id], mask, T, intrinsics, self._depth_m(example, shot, mask))
            except InputError as error:
                # The others have a place all the same; this one counts as missing.
                log.warning("scene %s: asset %d has no place: %s", example.id, id, error)
                continue
            found.append(PlacedMesh(id, _colored(meshes[id], colors[id]), S))
        return found

    def _depth_m(self, example: SceneExample, shot: SceneView, mask: np.ndarray) -> float:
        if self.depth == "sensor":
            return float(np.nanmedian(shot.depth_m[mask]))
        if example.support is None:
            raise InputError(f"scene '{example.id}' has no support that objects could stand on")
        return standing_depth_m(mask, shot.camera.T_world_camera, shot.camera.intrinsics, example.support)


def mask_colors(scene: SceneObservation) -> dict[int, np.ndarray]:
    """Mean colour (3,) uint8 of each asset over its pixels in all pictures: all that stage 1 knows of looks."""
    found = {}
    for number, id in enumerate(scene.ids):
        pixels = np.concatenate([image[mask[number]] for image, mask in zip(scene.images, scene.masks, strict=True)])
        found[id] = np.round(pixels.mean(axis=0)).astype(np.uint8)
    return found


def _colored(mesh: Mesh, color: np.ndarray) -> Mesh:
    """The mesh in one colour, unless it has some."""
    if mesh.vertex_colors is not None:
        return mesh
    return replace(mesh, vertex_colors=np.tile(color, (len(mesh.vertices), 1)))


def parted(objects: Sequence[PlacedMesh]) -> list[PlacedMesh]:
    """The scene after contacts were resolved: nothing penetrates, everything stands on its lowest point or on others.

    Objects are given with z up; empty ones stay as they are.
    """
    present = [item for item in objects if not item.empty]
    meshes = [item.in_world() for item in present]
    if not meshes:
        return list(objects)
    lowest = float(min(mesh_ops.bounds(mesh)[0][2] for mesh in meshes))
    found = resolve_contacts(meshes, SupportPlane(np.array([0.0, 0.0, 1.0]), -lowest))
    shifts = dict(zip((item.id for item in present), found.shifts_m, strict=True))
    return [
        replace(item, S_world_object=transforms.rigid(t=shifts[item.id]) @ item.S_world_object)
        if item.id in shifts
        else item
        for item in objects
    ]


@dataclass(frozen=True)
class SceneNetworkOptions:
    """How the networks of a method are opened and sampled; see `make_scene_generator`. hypotheses: of each scene."""

    device: str = "cpu"
    dtype: str | None = None
    steps: int | None = None
    guidance_strength: float | None = None
    hypotheses: int = 1


def joint_scene(checkpoint: str, variant: str, options: SceneNetworkOptions) -> JointScene:
    """The checkpoint as it is (variant ''), without scene attention, or without one of `WITHOUT`.

    Raises `InputError` for a variant that the checkpoint was trained as already.
    """
    bundle = open_checkpoint(checkpoint, device=options.device, dtype=chosen_dtype(options.dtype, options.device))
    parts = scene_parts(bundle)
    if variant == "no_scene_attention":
        bundle = without_scene_attention(bundle)
    elif variant in WITHOUT:
        if not getattr(parts, WITHOUT[variant]):
            raise InputError(f"{checkpoint} was trained without the part that {variant} leaves out")
        parts = replace(parts, **{WITHOUT[variant]: False})
    elif variant:
        raise InputError(f"unknown variant '{variant}', one of no_scene_attention, {', '.join(WITHOUT)}")
    return JointScene(_generator(bundle, parts, options), options.hypotheses)


def _generator(bundle: ModelBundle, parts: SceneParts, options: SceneNetworkOptions) -> SceneFlowGenerator:
    settings = SamplingSettings(options.steps, options.guidance_strength)
    return SceneFlowGenerator(bundle, settings=settings, parts=parts)


def without_scene_attention(bundle: ModelBundle) -> ModelBundle:
    """The same networks, whose assets attend to themselves alone where SceneGen's attend to all of the scene."""
    given: Any = bundle.modules.get("sparse_structure_flow")
    if not getattr(getattr(given, "config", None), "joint_assets", False):
        raise InputError(f"{bundle.source} has no attention over the scene that could be left out")
    flow = copy.copy(given)
    flow.config = replace(given.config, joint_assets=False)
    return replace(bundle, modules={**bundle.modules, "sparse_structure_flow": flow})


def alone_scene(checkpoint: str, depth: Literal["table", "sensor"], options: SceneNetworkOptions) -> AloneScene:
    """A checkpoint of single objects."""
    bundle = open_checkpoint(checkpoint, device=options.device, dtype=chosen_dtype(options.dtype, options.device))
    return AloneScene(bundle, SamplingSettings(options.steps, options.guidance_strength), depth, options.hypotheses)
