"""The data types that travel between stages: frozen dataclasses of numpy arrays.

Conventions (all modules): metres, seconds, radians. Images are (H, W, 3) uint8 RGB, depth is (H, W)
float32 metres along the optical axis with NaN where invalid, masks are bool. `T_a_b` is a 4x4 matrix that
maps coordinates in frame b to frame a; `S_a_b` is a similarity (rotation, translation, one scale). Camera
frames are optical (x right, y down, z forward, REP-103); the world has z up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .errors import CancelledError, InputError

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
UInt8Array = NDArray[np.uint8]
Int32Array = NDArray[np.int32]
BoolArray = NDArray[np.bool_]

ProgressCallback = Callable[[str, float], None]
"""Called with (stage name, fraction done of the whole run in [0, 1])."""
CancelCheck = Callable[[], bool]
"""Returns True once the caller wants the work to stop."""


def check_cancelled(cancelled: CancelCheck | None) -> None:
    """Raise `CancelledError` if the caller asked to stop."""
    if cancelled is not None and cancelled():
        raise CancelledError("cancelled by the caller")


def require_shape(name: str, array: np.ndarray, shape: tuple[int | None, ...]) -> None:
    """Raise `InputError` unless `array.shape` matches `shape` (None matches any length)."""
    if array.ndim != len(shape) or any(
        want is not None and got != want for got, want in zip(array.shape, shape, strict=True)
    ):
        wanted = "(" + ", ".join("*" if s is None else str(s) for s in shape) + ")"
        raise InputError(f"{name} must have shape {wanted}, got {array.shape}")


def require_rigid(name: str, T: np.ndarray, atol: float = 1e-3) -> None:
    """Raise `InputError` unless `T` is a finite 4x4 rigid transform (rotation orthonormal within `atol`)."""
    require_shape(name, T, (4, 4))
    if not np.isfinite(T).all():
        raise InputError(f"{name} holds NaN or infinity")
    R = T[:3, :3]
    if np.abs(R @ R.T - np.eye(3)).max() > atol or np.linalg.det(R) < 0:
        raise InputError(f"{name} is not a rigid transform: its rotation part is not a proper rotation")
    if np.abs(T[3] - (0, 0, 0, 1)).max() > 1e-9:
        raise InputError(f"{name} must have the last row (0, 0, 0, 1), got {T[3].tolist()}")


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole camera without distortion; pixel centres lie at integer coordinates.

    `width`, `height` in pixels; `fx`, `fy`, `cx`, `cy` in pixels.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise InputError(f"image size must be positive, got {self.width}x{self.height}")
        values = (self.fx, self.fy, self.cx, self.cy)
        if not np.isfinite(values).all() or self.fx <= 0 or self.fy <= 0:
            raise InputError(f"focal lengths must be positive and finite, got fx, fy, cx, cy = {values}")

    @property
    def matrix(self) -> Float64Array:
        """(3, 3) camera matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, eq=False)
class View:
    """One posed camera image, undistorted, with depth registered to it where the camera has depth.

    color            (H, W, 3) uint8 RGB
    intrinsics       pinhole, of the size of `color`
    T_world_camera   (4, 4) float64, optical frame to world
    depth_m          (H, W) float32 metres, NaN = invalid; None without a depth camera
    depth_confidence (H, W) float32 in [0, 1]; None = 1 wherever depth is valid
    stamp_ns         time of exposure, nanoseconds
    camera, name     name of the camera; name of this view, unique within its set
    pose_known       False: a photograph without a pose, `T_world_camera` means nothing until stereo has found it
    intrinsics_known False: `intrinsics` are a guess, which stereo may improve
    """

    color: UInt8Array
    intrinsics: Intrinsics
    T_world_camera: Float64Array
    depth_m: Float32Array | None = None
    depth_confidence: Float32Array | None = None
    stamp_ns: int = 0
    camera: str = "camera"
    name: str = ""
    pose_known: bool = True
    intrinsics_known: bool = True

    def __post_init__(self) -> None:
        height, width = self.intrinsics.height, self.intrinsics.width
        require_shape(f"color of view '{self.name}'", self.color, (height, width, 3))
        if self.color.dtype != np.uint8:
            raise InputError(f"color of view '{self.name}' must be uint8 RGB, got {self.color.dtype}")
        require_rigid(f"T_world_camera of view '{self.name}'", self.T_world_camera)
        for field_name in ("depth_m", "depth_confidence"):
            array = getattr(self, field_name)
            if array is not None:
                require_shape(f"{field_name} of view '{self.name}'", array, (height, width))
                if array.dtype != np.float32:
                    raise InputError(f"{field_name} of view '{self.name}' must be float32, got {array.dtype}")


@dataclass(frozen=True, eq=False)
class SupportPlane:
    """Plane n·p + d = 0 in the world on which objects rest; `normal` (3,) is a unit vector pointing up."""

    normal: Float64Array
    offset_m: float

    def height_m(self, points_m: np.ndarray) -> np.ndarray:
        """Signed height (...,) in metres of `points_m` (..., 3) above the plane."""
        return points_m @ self.normal.astype(points_m.dtype) + points_m.dtype.type(self.offset_m)


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Axis-aligned cubic voxels in the world; `state` is (X, Y, Z) uint8, one of the constants below.

    The voxel (i, j, k) spans `origin_m + voxel_size_m * [(i, j, k), (i, j, k) + 1]`.
    """

    UNKNOWN = 0
    FREE = 1
    SURFACE = 2

    origin_m: Float64Array
    voxel_size_m: float
    state: UInt8Array


@dataclass(frozen=True)
class BoxPrompt:
    """A user's box around one object in one view: pixels (x_min, y_min, x_max, y_max), inclusive."""

    view: str
    box_xyxy: tuple[float, float, float, float]
    label: str = ""


@dataclass(frozen=True)
class PointPrompt:
    """A user's clicks on one object in one view: pixels (x, y), at least one of them on the object.

    points_xy  clicked pixels; on_object one flag each: False marks what does not belong to the object
    """

    view: str
    points_xy: tuple[tuple[float, float], ...]
    on_object: tuple[bool, ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        flags = self.on_object or (True,) * len(self.points_xy)
        object.__setattr__(self, "on_object", tuple(bool(flag) for flag in flags))
        if len(flags) != len(self.points_xy) or not any(flags):
            raise InputError(
                f"point prompt in view '{self.view}': needs a flag for each point and one point on the object, "
                f"got {len(self.points_xy)} points with flags {flags}"
            )
        if not np.isfinite(np.asarray(self.points_xy, dtype=np.float64)).all():
            raise InputError(f"point prompt in view '{self.view}': pixels must be finite, got {self.points_xy}")


@dataclass(frozen=True)
class TextPrompt:
    """What to look for in every view, in words; becomes the label of the objects found."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InputError("text prompt is empty")


Prompt = BoxPrompt | PointPrompt | TextPrompt


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One object found by a segmenter: its visible pixels in each view.

    id, label, score   id is stable across views; score in [0, 1]
    visible_masks      one (H, W) bool per view, in the order of the views; all False where unseen
    """

    id: int
    label: str
    score: float
    visible_masks: tuple[BoolArray, ...]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a segmenter found: objects, and the support plane they stand on (None if there is none)."""

    objects: tuple[ObjectMask, ...]
    support: SupportPlane | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ObjectObservation:
    """All that the views tell about one object: the input of an `ObjectGenerator`.

    views             every view of the scene (shared between objects), depth filled in by stereo
    visible_masks     per view (H, W) bool: pixels where the object is seen
    occlusion_masks   per view (H, W) bool: pixels where a nearer surface hides its likely extent
    points_m          (N, 3) float32, world: observed surface samples
    point_colors      (N, 3) uint8 RGB
    point_view        (N,) int32: index of the view that saw the point
    support           plane it rests on, or None
    free_space        voxels around the object that cameras proved empty, or None
    completed_masks   per view (H, W) bool: hidden pixels whose colour in `views` is a 2D completion's guess of the
                      object; None without completions
    """

    id: int
    label: str
    score: float
    views: tuple[View, ...]
    visible_masks: tuple[BoolArray, ...]
    occlusion_masks: tuple[BoolArray, ...]
    points_m: Float32Array
    point_colors: UInt8Array
    point_view: Int32Array
    support: SupportPlane | None = None
    free_space: VoxelGrid | None = None
    completed_masks: tuple[BoolArray, ...] | None = None

    @property
    def visibility(self) -> Float64Array:
        """(V,) τ_n = visible / (visible + occluded) pixels of each view (GENA3D eq. 3); 0 where unseen."""
        visible = np.array([m.sum() for m in self.visible_masks], dtype=np.float64)
        occluded = np.array([m.sum() for m in self.occlusion_masks], dtype=np.float64)
        return np.divide(visible, visible + occluded, out=np.zeros_like(visible), where=visible > 0)


@dataclass(frozen=True, eq=False)
class SceneObservation:
    """Pictures of one scene with masks of its N assets, no cameras: the input of a `SceneGenerator`.

    ids, labels  (N,) of the assets; ids differ
    images       K of (H, W, 3) uint8 RGB, of any sizes
    masks        K of (N, H, W) bool beside them: where each asset is seen; they do not overlap
    """

    ids: tuple[int, ...]
    labels: tuple[str, ...]
    images: tuple[UInt8Array, ...]
    masks: tuple[BoolArray, ...]

    def __post_init__(self) -> None:
        count = len(self.ids)
        if not count or not self.images:
            raise InputError(f"a scene needs an image and an asset, got {len(self.images)} images and {count} assets")
        if len(set(self.ids)) < count or len(self.labels) != count or len(self.masks) != len(self.images):
            raise InputError("a scene's assets need ids of their own and a label each, its images masks each")
        for number, (image, masks) in enumerate(zip(self.images, self.masks, strict=True)):
            require_shape(f"image {number} of the scene", image, (None, None, 3))
            require_shape(f"masks of image {number}", masks, (count, *image.shape[:2]))

    @property
    def pixels(self) -> Float64Array:
        """(K, N) pixels of each asset in each image."""
        return np.array([mask.sum(axis=(1, 2)) for mask in self.masks], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangle mesh; counter-clockwise faces seen from outside.

    vertices           (V, 3) float32
    faces              (F, 3) int32
    vertex_colors      (V, 3) uint8 RGB or None
    vertex_confidence  (V,) float32 in [0, 1] or None
    vertex_observed    (V,) bool, True where a camera saw the surface; or None
    """

    vertices: Float32Array
    faces: Int32Array
    vertex_colors: UInt8Array | None = None
    vertex_confidence: Float32Array | None = None
    vertex_observed: BoolArray | None = None

    def __post_init__(self) -> None:
        require_shape("mesh vertices", self.vertices, (None, 3))
        require_shape("mesh faces", self.faces, (None, 3))
        count = len(self.vertices)
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= count):
            raise InputError(f"mesh faces index vertices outside 0..{count - 1}")
        for name, tail in (("vertex_colors", (3,)), ("vertex_confidence", ()), ("vertex_observed", ())):
            array = getattr(self, name)
            if array is not None:
                require_shape(f"mesh {name}", array, (count, *tail))


@dataclass(frozen=True, eq=False)
class OccupancyEstimate:
    """How likely each voxel of a generator's grid lies inside the object.

    probability   (R, R, R) float32 in [0, 1], voxel (i, j, k) has its centre at ((i, j, k) + 0.5) / R - 0.5. Mean over
                  the hypotheses of the calibrated probability of each; 0 where cameras proved empty space
    S_world_grid  (4, 4) similarity of the grid [-0.5, 0.5]³ to the world, metres; None when the relation is unknown
    """

    probability: Float32Array
    S_world_grid: Float64Array | None = None


@dataclass(frozen=True, eq=False)
class CompletedObject:
    """Output of an `ObjectGenerator`, before layout.

    mesh          in the generator's own frame (world metres for `observed`)
    S_world_mesh  (4, 4) similarity to the world, or None when the relation is unknown (layout registers it)
    residuals     named figures of the generator, such as `free_space_violation_before`; layout passes them on
    occupancy     what the mesh was taken from, for generators that work on voxels; else None
    """

    id: int
    mesh: Mesh
    S_world_mesh: Float64Array | None = None
    residuals: Mapping[str, float] = field(default_factory=dict)
    occupancy: OccupancyEstimate | None = None


@dataclass(frozen=True, eq=False)
class GeneratedScene:
    """Output of a `SceneGenerator`, before layout.

    assets         those that came out, in the order of the observation; meshes in the frames of their grids
    poses          (A, 8) rows [t, quat_wxyz, s] of these assets in the frame of asset number `query`, lengths in units
                   of its grid's side
    pose_samples   (H, A, 8) of each hypothesis, `poses` among them
    R_model_grid   (3, 3) axes of the frames in which the poses are stated, from those of the grids
    seen           (A,) bool: whether an image shows the asset together with the query; else its place is a guess
    views          numbers of the images that were shown to the generator, the most telling first
    upright        whether the grids stand upright, y ahead and x to the right as the first of these shows them
    failures       id of an asset that did not come out -> why
    """

    assets: tuple[CompletedObject, ...]
    poses: Float64Array
    query: int
    pose_samples: Float64Array
    R_model_grid: Float64Array
    seen: BoolArray
    views: tuple[int, ...] = (0,)
    upright: bool = False
    failures: Mapping[int, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ReconstructedObject:
    """One object of a scene, metric.

    mesh             object frame, metres; origin at the centre of its bounding box, z up (world aligned)
    T_world_object   (4, 4) float64
    size_m           (3,) extents of the mesh in the object frame
    score            in [0, 1]: trust in the object as a whole
    observed_fraction  share of the surface area that cameras saw
    residuals        named figures (metres or fractions), such as `registration_rmse_m`
    """

    id: int
    label: str
    score: float
    mesh: Mesh
    T_world_object: Float64Array
    size_m: Float64Array
    observed_fraction: float = 1.0
    residuals: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects of one reconstruction in the world frame `frame_id`, with what it cost and what went amiss.

    metric: whether lengths are metres; else they are in units of the size of one of the objects.
    """

    objects: tuple[ReconstructedObject, ...]
    frame_id: str = "world"
    stamp_ns: int = 0
    support: SupportPlane | None = None
    view_names: tuple[str, ...] = ()
    timings_s: Mapping[str, float] = field(default_factory=dict)
    residuals: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    metric: bool = True


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A scene with the intermediate results that pictures, evaluation and previews need.

    views: as used (refined poses, depth filled in); observations: in the order of `scene.objects`.
    """

    scene: Scene
    views: tuple[View, ...]
    observations: tuple[ObjectObservation, ...]
