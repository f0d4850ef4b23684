"""Training objective of SceneGen (3.3): flow matching + λ · (positions + collisions).

The paper and its published code differ; `PAPER_SCENE` and `PUBLISHED_SCENE` name both. A batch holds S scenes of A
assets each in neighbouring rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..sampling import SIGMA_MIN
from .flow_matching import estimated_x0, interpolate, velocity_loss, velocity_target
from .scene_collision import COLLISION_RESOLUTION, asset_points, counted_share, into_unit_cubes, placed, soft_share

WEIGHT_LIMITS = (0.2, 1.0)
WEIGHT_DECAY = 0.99
MIN_EXTENT = 0.01
"""Least extent of a scene by which translations are divided, in longest sides of the query."""

Decoder = Callable[[Tensor], Tensor]
"""Latents (B, C, r, r, r) -> logits of occupancy (B, R, R, R) or (B, 1, R, R, R)."""


@dataclass(frozen=True)
class SceneObjective:
    """What the objective is made of.

    delta_position, delta_collision  where the Huber norms turn from squared to linear
    weights          of translation, rotation and scale
    extent           translations are divided by the scene's extent: one number, its longest side, or one for each axis
    assets           position errors of the assets of a scene are summed (paper) or averaged (code)
    either_sign      a quaternion and its negative are the same rotation, so the nearer one counts
    collision        soft: all assets at predicted poses, with a gradient; counted: without the query, at true poses,
                     without a gradient; none
    """

    delta_position: float = 0.02
    delta_collision: float = 0.05
    weights: tuple[float, float, float] = (7.0, 5.0, 3.0)
    extent: Literal["longest", "axes"] = "longest"
    assets: Literal["sum", "mean"] = "sum"
    either_sign: bool = True
    collision: Literal["soft", "counted", "none"] = "soft"
    collision_resolution: int = COLLISION_RESOLUTION
    sigma_min: float = SIGMA_MIN


PAPER_SCENE = SceneObjective()
PUBLISHED_SCENE = SceneObjective(extent="axes", assets="mean", either_sign=False, collision="counted")


@dataclass(frozen=True)
class SceneTargets:
    """True data of S scenes of A assets and what was drawn for the step; rows B = S·A.

    x0, noise     (B, C, r, r, r)
    t             (B,) flow time of each asset, 1 = noise
    poses         (B, 8) rows [t, quat_wxyz, s] in the frame of the scene's query
    query         (B,) bool, one True per scene
    assets        A
    R_model_grid  (3, 3) from the axes of the voxel grid to those of the poses (published data: Rx(-90°)); None: equal
    """

    x0: Tensor
    noise: Tensor
    t: Tensor
    poses: Tensor
    query: Tensor
    assets: int
    R_model_grid: Tensor | None = None

    def __post_init__(self) -> None:
        rows = len(self.x0)
        if self.assets < 2 or rows % self.assets:
            raise InputError(f"layout needs scenes of at least two assets, got {rows} rows of {self.assets} each")
        if self.query.dtype != torch.bool or not bool((self.query.view(-1, self.assets).sum(dim=1) == 1).all()):
            raise InputError("every scene has one query asset: query must be (S·A,) bool with one True per scene")

    @property
    def scenes(self) -> int:
        """S."""
        return len(self.x0) // self.assets

    def noised(self, sigma_min: float = SIGMA_MIN) -> Tensor:
        """x_t, what the network is given."""
        return interpolate(self.x0, self.noise, self.t, sigma_min)


@dataclass(frozen=True)
class SceneLosses:
    """Parts of the objective, scalars.

    flow, position, collision     as they enter the total; `position` is the weighted sum of its parts
    translation, rotation, scale  Huber norms of the parts, unweighted
    collision_share               of the voxels of the grid; mean over the scenes
    errors                        (3,) mean |error| of translation, rotation and scale of the other assets, for the log
    """

    flow: Tensor
    position: Tensor
    collision: Tensor
    translation: Tensor
    rotation: Tensor
    scale: Tensor
    collision_share: Tensor
    errors: Tensor

    @property
    def layout(self) -> Tensor:
        """Positions and collisions together: what λ weighs."""
        return self.position + self.collision

    def total(self, weight: float | Tensor) -> Tensor:
        """flow + λ · layout."""
        return self.flow + weight * self.layout


def scene_losses(
    velocity: Tensor,
    poses: Tensor,
    targets: SceneTargets,
    decode: Decoder | None = None,
    objective: SceneObjective = PAPER_SCENE,
) -> SceneLosses:
    """Losses of predicted velocity (B, C, r, r, r) and poses (B, 8), the head's rows as they are (training mode).

    decode is needed for collisions. Whether shapes learn from collisions, too, is the caller's choice: the soft share
    passes on the gradient that `decode` leaves in its result.
    """
    target = velocity_target(targets.x0, targets.noise, objective.sigma_min)
    parts = position_losses(poses, targets, objective)
    position = torch.stack([weight * part for weight, part in zip(objective.weights, parts, strict=True)]).sum()
    share = _collision_shares(velocity, poses, targets, decode, objective)
    others = ~targets.query
    apart = (poses - targets.poses).detach().abs()[others]
    return SceneLosses(
        flow=velocity_loss(velocity, target),
        position=position,
        collision=huber(share, torch.zeros_like(share), objective.delta_collision).mean(),
        translation=parts[0],
        rotation=parts[1],
        scale=parts[2],
        collision_share=share.detach().mean(),
        errors=torch.stack([apart[:, :3].mean(), apart[:, 3:7].mean(), apart[:, 7].mean()]),
    )


def huber(ours: Tensor, theirs: Tensor, delta: float) -> Tensor:
    """d² / 2δ for |d| < δ, else |d| - δ/2, of every number."""
    return F.smooth_l1_loss(ours, theirs, beta=delta, reduction="none")


def position_losses(
    poses: Tensor, targets: SceneTargets, objective: SceneObjective = PAPER_SCENE
) -> tuple[Tensor, Tensor, Tensor]:
    """Huber norms of translation, rotation and scale of the assets that are no query; mean over numbers and scenes."""
    if poses.shape != targets.poses.shape:
        raise InputError(f"poses must be {tuple(targets.poses.shape)} like the true ones, got {tuple(poses.shape)}")
    extent = scene_extents(targets.poses, targets.assets)
    if objective.extent == "longest":
        extent = extent.amax(dim=1, keepdim=True).expand(-1, 3)
    others = ~targets.query
    extent = extent.repeat_interleave(targets.assets, dim=0)[others]
    ours, truth = poses[others], targets.poses[others]
    delta = objective.delta_position
    rotation = huber(ours[:, 3:7], truth[:, 3:7], delta).mean(dim=1)
    if objective.either_sign:
        rotation = torch.minimum(rotation, huber(ours[:, 3:7], -truth[:, 3:7], delta).mean(dim=1))
    factor = targets.assets - 1.0 if objective.assets == "sum" else 1.0
    translation = huber(ours[:, :3] / extent, truth[:, :3] / extent, delta)
    return factor * translation.mean(), factor * rotation.mean(), factor * huber(ours[:, 7], truth[:, 7], delta).mean()


def scene_extents(poses: Tensor, assets: int) -> Tensor:
    """(S, 3) extent along each axis of cubes of side s around all assets of a scene, at least `MIN_EXTENT`."""
    middle, half = poses[:, :3].view(-1, assets, 3), poses[:, 7:].view(-1, assets, 1) / 2.0
    return ((middle + half).amax(dim=1) - (middle - half).amin(dim=1)).clamp_min(MIN_EXTENT)


def _collision_shares(
    velocity: Tensor, poses: Tensor, targets: SceneTargets, decode: Decoder | None, objective: SceneObjective
) -> Tensor:
    """(S,) share of colliding voxels of each scene."""
    if objective.collision == "none":
        return velocity.new_zeros(targets.scenes)
    if decode is None:
        raise InputError(f"collision '{objective.collision}' needs a decoder of latents")
    x_t = targets.noised(objective.sigma_min)
    measure = _soft_shares if objective.collision == "soft" else _counted_shares
    return measure(x_t, velocity, poses, targets, decode, objective)


def _soft_shares(
    x_t: Tensor, velocity: Tensor, poses: Tensor, targets: SceneTargets, decode: Decoder, objective: SceneObjective
) -> Tensor:
    x0 = estimated_x0(x_t, velocity, targets.t, objective.sigma_min)
    points = asset_points(decode(x0).float())
    # The query is where it is by definition, whatever the head says of it.
    known = torch.where(targets.query[:, None], targets.poses.to(poses), poses).float()
    scene = points.row // targets.assets
    cubes = into_unit_cubes(placed(points, known, targets.R_model_grid), scene, targets.scenes)
    return soft_share(cubes, points.row, points.weight, targets.assets, targets.scenes, objective.collision_resolution)


@torch.no_grad()
def _counted_shares(
    x_t: Tensor, velocity: Tensor, poses: Tensor, targets: SceneTargets, decode: Decoder, objective: SceneObjective
) -> Tensor:
    x0 = estimated_x0(x_t, velocity, targets.t, objective.sigma_min)
    points = asset_points(decode(x0).float(), at_corner=True)
    scene = points.row // targets.assets
    cubes = into_unit_cubes(placed(points, targets.poses.float(), targets.R_model_grid), scene, targets.scenes)
    return counted_share(cubes, points.row, ~targets.query, targets.assets, objective.collision_resolution)


def decayed_weight(count: int, *, decay: float = WEIGHT_DECAY, limits: tuple[float, float] = WEIGHT_LIMITS) -> float:
    """λ of the paper after `count` steps or epochs, as the recipe counts: from the upper limit down to the lower."""
    low, high = limits
    return max(low, high * decay**count)


@dataclass
class RunningWeight:
    """λ of the published code: a running mean of flow / layout, started at the first ratio; clamped when used.

    ratio: the state that a resumed training restores; None before the first step
    """

    ratio: float | None = None
    decay: float = WEIGHT_DECAY
    limits: tuple[float, float] = WEIGHT_LIMITS

    def __call__(self, losses: SceneLosses) -> float:
        """λ of this step."""
        found = float(losses.flow.detach()) / max(float(losses.layout.detach()), 1e-12)
        self.ratio = found if self.ratio is None else self.decay * self.ratio + (1.0 - self.decay) * found
        low, high = self.limits
        return min(max(self.ratio, low), high)
