"""One object as a robot would see it: the observation that the pipeline would make, and the true mesh.

Training, evaluation and inference meet here: an `ObjectObservation` is the only input of an `ObjectGenerator`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..geometry import transforms
from ..geometry.mesh import make_mesh, transformed
from ..geometry.solid_voxelization import is_solid
from ..observation import build_observations, with_free_space
from ..types import BoolArray, Float64Array, Mesh, ObjectMask, ObjectObservation, Segmentation, SupportPlane, View
from .appearance import random_color, random_light
from .completions import distorted_completion
from .example_cameras import ExampleCamera, choose_cameras, draw_camera, jittered_pose
from .example_settings import ExampleSettings
from .mask_noise import with_holes, wrong_mask
from .noise import NoiseSpec, color_noise, structured_light_noise
from .occluders import place_occluders
from .quick_parts import object_part, table_part, textured_part
from .quick_renderer import (
    OBJECT,
    QuickImage,
    QuickScene,
    quick_scene,
    random_backdrop,
    render_quick,
)
from .ray_casting import RayCaster, make_caster
from .resting import random_turn
from .surface_masks import box_mask, grow_patch, patchable

ATTEMPTS = 6
"""Scenes that are tried before an object counts as impossible to see."""
OCCLUDER = 2
OBJECT_ID = 1
_UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class ObjectExample:
    """observation: what views tell about the object; mesh: its true surface, world metres.

    occlusion  none, surface or objects, as drawn
    covered    (F,) bool: faces of `cover_mesh` (world) that the 3D-consistent mask hides; none for other occlusions
    """

    observation: ObjectObservation
    mesh: Mesh
    occlusion: str
    cover_mesh: Mesh
    covered: BoolArray


@dataclass(frozen=True, eq=False)
class _Setting:
    """A scene and who sees what in it: faces of the object come first in `scene`; `alone` casts at the object only."""

    scene: QuickScene
    alone: RayCaster
    cover_mesh: Mesh
    covered: BoolArray
    occlusion: str
    on_table: bool
    cover_color: np.ndarray


def make_example(
    mesh: Mesh,
    settings: ExampleSettings,
    seed: int,
    *,
    scale_m: float | None = None,
    others: Sequence[Mesh] = (),
) -> ObjectExample:
    """One example of `mesh`, closed, in the unit cube [-0.5, 0.5]^3, z up; the same for the same arguments.

    scale_m: metres per unit; None draws the longest side from `settings.size_m`. others: meshes in the unit cube that
    may stand in front of it, besides random shapes. Raises `InputError` for a mesh that is empty, not finite or open,
    and for one that no camera sees well enough.
    """
    _check(mesh)
    failure: InputError | None = None
    for attempt in range(ATTEMPTS):
        rng = _generator(seed, attempt)
        kind = _occlusion(settings, rng)
        on_table = kind == "objects" or rng.random() < settings.table_share
        placed = _placed(_posed(mesh, settings, scale_m, on_table, rng), on_table)
        try:
            setting = _make_setting(placed, settings, kind, on_table, rng, tuple(others))
            cameras = _cameras(setting, placed, settings, _generator(seed, attempt, 1))
            return _observed(setting, placed, cameras, settings, seed, attempt)
        except InputError as error:  # a patch that faces away from all cameras, or an object hidden altogether
            failure = error
    raise InputError(f"no scene of {ATTEMPTS} shows the object: {failure}")


def _generator(*key: int) -> np.random.Generator:
    """Streams of their own, so that drawing more in one place changes nothing elsewhere."""
    return np.random.default_rng([abs(int(part)) for part in key])


def _check(mesh: Mesh) -> None:
    if not len(mesh.faces):
        raise InputError("a mesh without faces makes no example")
    if not np.isfinite(mesh.vertices).all():
        raise InputError("a mesh with vertices that are NaN or infinite makes no example")
    if not is_solid(mesh):
        raise InputError("a mesh with open or inconsistent edges has no inside: close it first")


def _occlusion(settings: ExampleSettings, rng: np.random.Generator) -> str:
    if settings.occlusion != "mixed":
        return settings.occlusion
    shares = np.array(settings.mixture) / sum(settings.mixture)
    return ("none", "surface", "objects")[int(rng.choice(3, p=shares))]


def _posed(
    mesh: Mesh, settings: ExampleSettings, scale_m: float | None, on_table: bool, rng: np.random.Generator
) -> Mesh:
    """The object turned and of metric size, around the origin."""
    size = float(np.exp(rng.uniform(*np.log(settings.size_m))))
    if scale_m is None:
        scale_m = size / float(np.ptp(mesh.vertices, axis=0).max())
    if not (np.isfinite(scale_m) and scale_m > 0):
        raise InputError(f"scale_m must be positive and finite, got {scale_m}")
    upright = rng.random() < settings.upright_share
    R = random_turn(mesh, upright, on_table, rng)
    return transformed(mesh, transforms.rigid(scale_m * R))


def _placed(mesh: Mesh, on_table: bool) -> Mesh:
    """The bounding box centred on the z axis, standing on z = 0; in free space centred on the origin."""
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    middle = (low + high) / 2.0
    middle[2] = low[2] if on_table else middle[2]
    return make_mesh(mesh.vertices - middle, mesh.faces, vertex_colors=mesh.vertex_colors)


def _make_setting(
    mesh: Mesh,
    settings: ExampleSettings,
    kind: str,
    on_table: bool,
    rng: np.random.Generator,
    others: tuple[Mesh, ...],
) -> _Setting:
    size = float(np.ptp(mesh.vertices, axis=0).max())
    surface = patchable(mesh) if kind == "surface" else mesh
    covered = np.zeros(len(surface.faces), dtype=bool)
    if kind == "surface":
        covered = grow_patch(surface, rng.uniform(*settings.coverage), rng)
    parts = [object_part(surface, OBJECT, size, settings.recolor_share, rng)]
    if on_table:
        parts.append(table_part(size, rng))
    if kind == "objects" and settings.occluders:
        count = int(rng.integers(1, settings.occluders + 1))
        for shape in place_occluders(mesh, size, count, rng.uniform(0.0, 2.0 * np.pi), rng, others):
            parts.append(textured_part(shape, OCCLUDER, size, rng))
    scene = quick_scene(parts, random_light(rng))
    hidden = kind == "objects"
    return _Setting(
        scene,
        make_caster(surface.vertices, surface.faces) if hidden else scene.caster,
        surface,
        covered,
        kind,
        on_table,
        np.array(random_color(rng)) * 255.0,
    )


def _cameras(setting: _Setting, mesh: Mesh, settings: ExampleSettings, rng: np.random.Generator) -> list[ExampleCamera]:
    center, diameter = _ball(mesh)
    count = len(setting.covered)
    # The last entry is that of face -1, a miss; table and occluders follow the object.
    uncovered = np.zeros(len(setting.scene.face_part) + 1, dtype=bool)
    uncovered[:count] = ~setting.covered

    def scout(origins: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        face = setting.scene.caster(origins, directions).face
        alone = face if setting.alone is setting.scene.caster else setting.alone(origins, directions).face
        return (alone >= 0) & (alone < count), uncovered[face]

    low, high = settings.visible_share

    def share(view: int) -> tuple[float, float]:
        # Things in front hide the object from one side only: every other view is as it comes.
        hidden = setting.occlusion == "surface" or (setting.occlusion == "objects" and view % 2 == 0)
        return low, high if hidden else 1.0

    return choose_cameras(
        settings, lambda: draw_camera(settings, center, diameter, setting.on_table, rng), scout, share
    )


def _ball(mesh: Mesh) -> tuple[Float64Array, float]:
    """Centre (3,) and diameter of a ball around the mesh."""
    points = mesh.vertices.astype(np.float64)
    center = (points.min(axis=0) + points.max(axis=0)) / 2.0
    return center, 2.0 * float(np.linalg.norm(points - center, axis=1).max())


def _observed(
    setting: _Setting, mesh: Mesh, cameras: Sequence[ExampleCamera], settings: ExampleSettings, seed: int, attempt: int
) -> ObjectExample:
    draw = _generator(seed, attempt, 2)
    level = draw.uniform(*settings.noise_level)
    errors = (draw.uniform(*settings.mask_error_px), draw.uniform(*settings.mask_roughness_px))
    exact = draw.random() < settings.exact_masks
    bleeding, holes = draw.uniform(*settings.mask_bleeding), draw.uniform(*settings.depth_holes)
    jitter = draw.uniform(*settings.pose_jitter_m), draw.uniform(*settings.pose_jitter_deg)
    backdrop = random_backdrop(settings.image_width, settings.image_height, draw)
    blind = draw.random(len(cameras)) < settings.missing_depth
    if blind.all():
        blind[int(draw.integers(len(cameras)))] = False

    views, masks, occlusions = [], [], []
    for index, camera in enumerate(cameras):
        rng = _generator(seed, attempt, 3, index)
        image = render_quick(setting.scene, camera.T_world_camera, camera.intrinsics, backdrop)
        hidden = (image.instance == OBJECT) & setting.covered[np.clip(image.face, 0, len(setting.covered) - 1)]
        true_visible = (image.instance == OBJECT) & ~hidden
        visible = true_visible if exact else wrong_mask(true_visible, *errors, bleeding, rng)
        color, depth = _sensed(image, camera, settings, level, rng)
        depth = with_holes(depth, true_visible, holes, rng)
        depth = np.full_like(depth, np.nan) if blind[index] else np.where(hidden, np.float32(np.nan), depth)
        occluded = box_mask(hidden, visible, int(rng.integers(1, 4))) if setting.occlusion == "surface" else None
        color = np.where(hidden[..., None], _cover(setting, color.shape, rng), color)
        T = camera.T_world_camera if index == 0 else jittered_pose(camera.T_world_camera, *jitter, rng)
        views.append(View(color, camera.intrinsics, T, depth, name=f"{index:06d}"))
        masks.append(visible)
        occlusions.append(occluded)
    support = SupportPlane(_UP, 0.0) if setting.on_table else None
    found = Segmentation((ObjectMask(OBJECT_ID, "object", 1.0, tuple(masks)),), support)
    observations = build_observations(views, found)
    if not observations:
        raise InputError("no visible pixel of the object has depth")
    observation = observations[0]
    if setting.occlusion == "surface":
        observation = replace(observation, occlusion_masks=tuple(m for m in occlusions if m is not None))
    observation = with_free_space(observation, settings.free_space_resolution)
    if settings.completion == "distorted":
        observation = _completed(observation, setting, cameras, backdrop, settings, seed, attempt)
    return ObjectExample(observation, mesh, setting.occlusion, setting.cover_mesh, setting.covered)


def _sensed(
    image: QuickImage, camera: ExampleCamera, settings: ExampleSettings, level: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Colour and depth with the sensor's noise; its pixels are `pixel_ratio` of this window's."""
    spec: NoiseSpec | None = settings.noise
    if spec is None:
        return image.color, image.depth_m
    scaled = replace(
        spec,
        disparity_step_px=spec.disparity_step_px * camera.pixel_ratio,
        disparity_noise_px=spec.disparity_noise_px * camera.pixel_ratio * level,
        lateral_noise_px=spec.lateral_noise_px * camera.pixel_ratio,
    )
    depth = structured_light_noise(image.depth_m, rng, camera.intrinsics.fx, scaled)
    return color_noise(image.color, rng, spec.color_sigma), depth


def _cover(setting: _Setting, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """What covered faces look like: one colour, since wrong masks may let some of it through."""
    speckle = rng.normal(0.0, 6.0, shape[:2])[..., None]
    return np.clip(setting.cover_color + speckle, 0, 255).astype(np.uint8)


def _completed(
    observation: ObjectObservation,
    setting: _Setting,
    cameras: Sequence[ExampleCamera],
    backdrop: np.ndarray,
    settings: ExampleSettings,
    seed: int,
    attempt: int,
) -> ObjectObservation:
    """The observation whose views show a simulated completion inside the occlusion masks."""
    views, completed = [], []
    alone = quick_scene(setting.scene.parts[:1], setting.scene.light)
    for index, (view, camera) in enumerate(zip(observation.views, cameras, strict=True)):
        rng = _generator(seed, attempt, 4, index)
        image = render_quick(alone, camera.T_world_camera, camera.intrinsics, backdrop)
        color, filled = distorted_completion(
            view.color,
            image.color,
            image.instance == OBJECT,
            observation.occlusion_masks[index],
            rng.uniform(*settings.completion_distortion),
            rng,
        )
        views.append(replace(view, color=color))
        completed.append(filled)
    return replace(observation, views=tuple(views), completed_masks=tuple(completed))
