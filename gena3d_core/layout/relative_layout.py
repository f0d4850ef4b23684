"""Layout of a scene in the frame of one of its assets, the query, as SceneGen's position head tells it.

The scene frame is the query's model frame and its unit of length the query's size. A pose is a row of eight numbers
[t (3), quat_wxyz (4), s (1)]: a point p of an asset's model frame lies at s R(q) p + t in the scene. The query's own
pose is the identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..geometry import scene_poses, transforms
from ..geometry.scene_poses import POSE_WIDTH
from ..types import Float64Array, require_rigid, require_shape

IDENTITY_TOLERANCE = 1e-3

Z_UP_MODEL = np.eye(3)
"""Model frames are the frames of the grids: z up (our own checkpoints)."""
Y_UP_MODEL = scene_poses.S_YUP_ZUP[:3, :3]
"""Model frames are y up while grids are z up (published SceneGen): (x, y, z) of the grid is (x, z, -y) of the model."""


def similarities(poses: np.ndarray, R_model_grid: np.ndarray = Z_UP_MODEL) -> Float64Array:
    """`S_scene_grid` (..., 4, 4) from poses (..., 8); the grid is the cube [-0.5, 0.5]^3 of an asset.

    Raises `InputError` as `scene_poses.similarities_from_poses`.
    """
    return scene_poses.similarities_from_poses(poses) @ transforms.rigid(R_model_grid)


def poses_from_similarities(S_scene_grid: np.ndarray, R_model_grid: np.ndarray = Z_UP_MODEL) -> Float64Array:
    """Poses (..., 8), w >= 0, from `S_scene_grid` (..., 4, 4): the inverse of `similarities`."""
    S_scene_model = np.asarray(S_scene_grid, np.float64) @ transforms.rigid(np.asarray(R_model_grid).T)
    return scene_poses.poses_from_similarities(S_scene_model)


def in_frame_of(S_world_model: np.ndarray, query: int) -> Float64Array:
    """`S_query_model` (..., N, 4, 4) of assets with `S_world_model` (..., N, 4, 4), whose scales are sizes in metres.

    With these, t = R_qᵀ(T_i - T_q) / size_q, R = R_qᵀ R_i and s = size_i / size_q.
    """
    count = S_world_model.shape[-3]
    if not -count <= query < count:
        raise InputError(f"query asset {query} is not one of the {count} assets")
    return transforms.inverse(S_world_model[..., query, None, :, :]) @ S_world_model


@dataclass(frozen=True, eq=False)
class RelativeLayout:
    """Poses of the N assets of one scene in the frame of asset number `query`.

    poses         (N, 8) rows [t, quat_wxyz, s], lengths in units of the query's size; the query's row is the identity
    R_model_grid  (3, 3) axes of model frames: `Z_UP_MODEL` or `Y_UP_MODEL`
    """

    poses: Float64Array
    query: int = 0
    R_model_grid: Float64Array = field(default_factory=lambda: Z_UP_MODEL)

    def __post_init__(self) -> None:
        require_shape("poses", np.asarray(self.poses), (None, POSE_WIDTH))
        require_rigid("R_model_grid", transforms.rigid(self.R_model_grid))
        if not 0 <= self.query < len(self.poses):
            raise InputError(f"query asset {self.query} is not one of the {len(self.poses)} assets")
        S_scene_model = similarities(self.poses)[self.query]
        if np.abs(S_scene_model - np.eye(4)).max() > IDENTITY_TOLERANCE:
            raise InputError(
                f"the pose of the query asset {self.query} must be the identity, got "
                f"{np.round(self.poses[self.query], 4).tolist()}; express the layout in its frame (`with_query`)"
            )

    def __len__(self) -> int:
        return len(self.poses)

    @property
    def S_scene_grid(self) -> Float64Array:
        """(N, 4, 4) similarities of the assets' grids to the scene frame."""
        return similarities(self.poses, self.R_model_grid)

    @property
    def R_scene_upright(self) -> Float64Array:
        """(3, 3) rotation of a z-up frame to the scene frame: the query standing as it does in its own grid."""
        return np.asarray(self.R_model_grid, dtype=np.float64)


def layout_from_world(
    S_world_grid: np.ndarray, query: int = 0, R_model_grid: np.ndarray = Z_UP_MODEL
) -> RelativeLayout:
    """The layout of assets that lie in the world by `S_world_grid` (N, 4, 4)."""
    S_world_model = np.asarray(S_world_grid, np.float64) @ transforms.rigid(np.asarray(R_model_grid).T)
    return RelativeLayout(poses_from_similarities(in_frame_of(S_world_model, query)), query, R_model_grid)


def with_query(layout: RelativeLayout, query: int) -> RelativeLayout:
    """The same layout in the frame of asset number `query`."""
    return layout_from_world(layout.S_scene_grid, query, layout.R_model_grid)


def world_similarities(S_world_scene: np.ndarray, S_scene_grid: np.ndarray) -> Float64Array:
    """`S_world_grid` (..., N, 4, 4) from S_world_scene (..., 4, 4) of scenes and S_scene_grid (..., N, 4, 4)."""
    return np.asarray(S_world_scene, np.float64)[..., None, :, :] @ np.asarray(S_scene_grid, np.float64)
