"""Every parameter of every node: one frozen dataclass a node, from which the ROS declarations, `config/perception.yaml`
and the README's table are made (`python -m gena3d_ros.parameters --yaml | --markdown`).

To add one: a line in the node's class. The field's type is the parameter's type (bool, int, float, str,
tuple[str, ...], tuple[int, ...], tuple[float, ...]).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gena3d_core.errors import InputError


class ParameterInfo(NamedTuple):
    """What a declaration says about a parameter beyond its name, type and default.

    bounds     smallest and largest number allowed (every element of a list), or None
    choices    the strings allowed (every element of a list), or None
    read_only  fixed once the node runs
    live       a change takes effect at once; otherwise at the next configure transition
    """

    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] | None = None
    read_only: bool = False
    live: bool = False


def parameter(
    default: Any,
    description: str,
    *,
    bounds: tuple[float, float] | None = None,
    choices: Sequence[str] | None = None,
    read_only: bool = False,
    live: bool = False,
) -> Any:
    """A dataclass field that is a ROS parameter; see `ParameterInfo`."""
    info = ParameterInfo(description, bounds, tuple(choices) if choices is not None else None, read_only, live)
    return field(default=default, metadata={"info": info})


@dataclass(frozen=True)
class NodeParameters:
    """Parameters that every node has."""

    autostart: bool = parameter(False, "configure and activate at start, without a lifecycle manager", read_only=True)

    def check(self) -> None:
        """Raise `InputError` where values do not fit together; bounds and choices are checked before."""


@dataclass(frozen=True)
class ViewAccumulatorParameters(NodeParameters):
    """Node `view_accumulator`."""

    world_frame: str = parameter("world", "fixed frame (z up) in which views are posed")
    cameras: tuple[str, ...] = parameter(
        ("",), "camera names: topics <name>/image, <name>/depth, <name>/camera_info; '' has the bare names"
    )
    image_transport: tuple[str, ...] = parameter(
        ("raw",), "how colour arrives, one for all cameras or one each", choices=("raw", "compressed")
    )
    depth_transport: tuple[str, ...] = parameter(
        ("raw",), "how depth arrives, one for all cameras or one each", choices=("raw", "compressed", "compressedDepth")
    )
    use_depth: bool = parameter(True, "subscribe to depth registered to the colour image")
    rectified: bool = parameter(
        False, "images are rectified already (image_rect): take P of camera_info and undistort nothing"
    )
    image_reliability: str = parameter(
        "reliable",
        "QoS of the image subscriptions; best_effort loses large images on the default transport",
        choices=("reliable", "best_effort"),
    )
    sync_slop_s: float = parameter(
        0.02, "largest stamp difference between colour and depth of one view, s", bounds=(0.0, 1.0)
    )
    tf_timeout_s: float = parameter(
        1.0,
        "how long an image waits for its transform and camera_info before it is dropped, s",
        bounds=(0.0, 30.0),
        live=True,
    )
    tf_reliability: str = parameter(
        "both",
        "QoS of the /tf subscription; both: transforms neither wait for lost ones to be sent again nor stay lost",
        choices=("both", "reliable", "best_effort"),
    )
    tf_buffer_s: float = parameter(10.0, "how much transform history is kept, s", bounds=(1.0, 120.0))
    max_pending_views: int = parameter(
        30, "images a camera may have waiting for a transform; beyond it the oldest is dropped", bounds=(1, 300)
    )
    max_views: int = parameter(8, "keyframes kept at most: the most informative set", bounds=(1, 100), live=True)
    min_baseline_m: float = parameter(
        0.05, "a camera moved by so much shows something new, m", bounds=(0.001, 10.0), live=True
    )
    min_angle_rad: float = parameter(
        0.14, "an optical axis turned by so much shows something new, rad", bounds=(0.001, 3.1), live=True
    )
    sharper_ratio: float = parameter(
        1.25, "a view at the pose of a kept one replaces it when so many times sharper", bounds=(1.0, 100.0), live=True
    )
    min_sharpness: float = parameter(
        0.0, "views less sharp are refused (0.001 badly blurred, 0.1 crisp)", bounds=(0.0, 10.0), live=True
    )
    min_exposed_fraction: float = parameter(
        0.2,
        "views with a smaller share of pixels neither black nor blown out are refused",
        bounds=(0.0, 1.0),
        live=True,
    )
    recheck_interval_s: float = parameter(
        0.1, "an unmoved camera's images are decoded at most this often, s", bounds=(0.0, 60.0), live=True
    )
    max_age_s: float = parameter(0.0, "older views are dropped, s; 0: never", bounds=(0.0, 1e6), live=True)
    min_depth_m: float = parameter(0.05, "nearer depth is invalid, m", bounds=(0.0, 100.0), live=True)
    max_depth_m: float = parameter(10.0, "farther depth is invalid, m", bounds=(0.01, 1000.0), live=True)
    publish_period_s: float = parameter(
        0.2, "view_set is published at most this often, and only when it changed, s", bounds=(0.02, 60.0)
    )
    pose_jump_speed_m_s: float = parameter(
        10.0, "a camera faster than this is reported as a jump of its pose, m/s; 0: never", bounds=(0.0, 1e6), live=True
    )
    accumulate: bool = parameter(
        True, "keep views as the camera moves; false: only what ~/capture_view asks for", live=True
    )

    def check(self) -> None:
        if self.min_depth_m >= self.max_depth_m:
            raise InputError(f"min_depth_m ({self.min_depth_m}) must be below max_depth_m ({self.max_depth_m})")
        if not self.cameras:
            raise InputError("cameras is empty: name at least one, or [''] for one camera with bare topic names")
        if len(set(self.cameras)) != len(self.cameras):
            raise InputError(f"cameras holds a name twice: {list(self.cameras)}")
        for name in ("image_transport", "depth_transport"):
            count = len(getattr(self, name))
            if count not in (1, len(self.cameras)):
                raise InputError(
                    f"{name} has {count} entries: give one, or one for each of {len(self.cameras)} cameras"
                )
        if not self.world_frame or self.world_frame.startswith("/"):
            raise InputError(f"world_frame must be a frame name without a leading slash, got '{self.world_frame}'")


@dataclass(frozen=True)
class ReconstructionParameters(NodeParameters):
    """Node `reconstruction`."""

    enabled: bool = parameter(
        True, "false: the node works on nothing and refuses goals; its models stay loaded", live=True
    )
    clicked_points: bool = parameter(
        True, "a point clicked in RViz (topic /clicked_point) reconstructs the object there; the others stay", live=True
    )
    auto_reconstruct: bool = parameter(True, "reconstruct every new view set; false: only on request", live=True)
    settle_s: float = parameter(
        0.3, "after a change of the view set, further changes are awaited so long, s", bounds=(0.0, 60.0), live=True
    )
    max_restarts: int = parameter(
        1,
        "so many times in a row new views stop the automatic work on older ones; then it is let finish",
        bounds=(0, 1000),
        live=True,
    )
    view_set_timeout_s: float = parameter(
        5.0, "so long a request waits for the first view set before it fails, s", bounds=(0.0, 600.0), live=True
    )
    stereo: str = parameter(
        "auto",
        "stereo matcher; auto: the cameras' depth where all views have it, else plane_sweep, or vggt where its weights "
        "for every use are; by name also pi3x, pi3, sfm",
    )
    segmenter: str = parameter(
        "tabletop",
        "what finds the objects: tabletop (no weights), sam, sam2, sam3, grounded (takes words), or auto: the best of "
        "them that this machine has the weights of",
    )
    segmenter_checkpoint: str = parameter("", "weights of the segmenter: a file or folder; empty: those of its name")
    text_prompts: tuple[str, ...] = parameter(
        ("",), "what automatic work looks for, for segmenters that take words; ['']: everything", live=True
    )
    mode: str = parameter(
        "auto",
        "objects: each by itself, placed by its measured points; scene: all together with their layout; auto: objects, "
        "since the views of a view set are posed",
        choices=("objects", "scene", "auto"),
    )
    amodal: str = parameter(
        "none", "paints hidden parts into the views: none, oaac, flux, pix2gestalt; auto: oaac if its weights are here"
    )
    generator: str = parameter(
        "auto",
        "what completes the objects; auto: edge, which comes with the package; observed: nothing does; in mode scene: "
        "edge_scene (auto) or scenegen",
    )
    checkpoint: str = parameter("", "weights of the generator: a family, folder or file; empty: those of its name")
    sampling_steps: int = parameter(0, "sampling steps of the generator; 0: as its checkpoint says", bounds=(0, 1000))
    max_memory: str = parameter("", "memory that the generator may use, such as 6GB; empty: no limit")
    refine_poses: bool = parameter(True, "align the views to one another before their depth is merged")
    max_faces: int = parameter(20_000, "face budget of each mesh", bounds=(4, 1_000_000))
    watertight: bool = parameter(False, "close every mesh, also where nothing was seen")
    device: str = parameter("cpu", "torch device of the stages that use torch: cpu, or the name of an accelerator")
    hypotheses: int = parameter(
        4, "samples of each object that the generator draws in automatic work", bounds=(1, 64), live=True
    )
    seed: int = parameter(0, "seed of automatic work", bounds=(0, 2**31 - 1), live=True)
    output_directory: str = parameter("~/.ros/gena3d", "~/save_scene writes below this folder only", live=True)
    object_frame_prefix: str = parameter(
        "", "TF frames of objects are this and the id; empty: object_, behind the node's namespace", live=True
    )
    tf_rate_hz: float = parameter(10.0, "rate at which object frames are sent; 0: never", bounds=(0.0, 100.0))
    marker_faces: int = parameter(10_000, "faces of all meshes in `markers` together", bounds=(100, 200_000), live=True)
    marker_colors: str = parameter(
        "texture", "what the colours of `markers` show", choices=("texture", "confidence", "observed"), live=True
    )
    collision_faces: int = parameter(2_000, "faces of each mesh in `planning_scene`", bounds=(20, 5_000), live=True)

    def check(self) -> None:
        if not self.output_directory:
            raise InputError("output_directory is empty: name the folder below which ~/save_scene may write")


@dataclass(frozen=True)
class CameraOutputParameters(NodeParameters):
    """Parameters of the nodes that publish what a camera driver publishes."""

    world_frame: str = parameter("world", "fixed frame (z up) in which the cameras move")
    frame_prefix: str = parameter(
        "", "put before the frames <camera>_link and <camera>_optical_frame; empty: the node's namespace, if any"
    )
    image_transport: tuple[str, ...] = parameter(
        ("raw",), "forms in which colour is published", choices=("raw", "compressed")
    )
    depth_transport: tuple[str, ...] = parameter(
        ("raw",), "forms in which depth is published", choices=("raw", "compressed", "compressedDepth")
    )
    publish_depth: bool = parameter(True, "publish depth registered to the colour image")
    depth_encoding: str = parameter(
        "16UC1", "millimetres with 0 invalid, or metres with NaN invalid", choices=("16UC1", "32FC1")
    )
    image_reliability: str = parameter("reliable", "QoS of the image topics", choices=("reliable", "best_effort"))
    publish_clock: bool = parameter(False, "stamp with a simulated time and publish it on /clock")
    start_timeout_s: float = parameter(
        10.0,
        "wait so long for subscribers of every topic before the first frame, s; 0: start at once",
        bounds=(0.0, 600.0),
    )

    def check(self) -> None:
        if self.depth_encoding == "32FC1" and self.publish_depth and set(self.depth_transport) != {"raw"}:
            raise InputError("depth_encoding 32FC1 needs depth_transport ['raw']: compressed depth is in millimetres")


@dataclass(frozen=True)
class CameraSimParameters(CameraOutputParameters):
    """Node `camera_sim`."""

    path: str = parameter("default", "scene: a packaged one by name, random:SEED:COUNT, or a scene file (.yaml, .json)")
    cameras: tuple[str, ...] = parameter(
        ("",), "camera names, spread over the path: topics <name>/image, ...; '' has the bare names"
    )
    rate_hz: float = parameter(30.0, "images a second of each camera", bounds=(0.1, 120.0))
    width: int = parameter(0, "image width in pixels, the field of view stays; 0: as in the scene", bounds=(0, 4096))
    motion: str = parameter(
        "orbit",
        "orbit: the scene's whole path; arc: there and back over its first part; hold: its first pose",
        choices=("orbit", "arc", "hold"),
    )
    arc_fraction: float = parameter(0.25, "part of the path that motion 'arc' covers", bounds=(0.01, 1.0))
    loop_frames: int = parameter(0, "frames in one loop of the path; 0: as in the scene", bounds=(0, 100_000))
    noise: bool = parameter(True, "sensor noise as the scene describes it")
    shadow_samples: int = parameter(8, "rays for the shadows of each vertex and lamp; 0: none", bounds=(0, 64))
    seed: int = parameter(0, "seed of the noise", bounds=(0, 2**31 - 1))
    cache_mb: int = parameter(
        512, "memory for rendered frames of a loop, which are not rendered again", bounds=(0, 65_536)
    )

    def check(self) -> None:
        super().check()
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise InputError(f"cameras must name each camera once, got {list(self.cameras)}")
        if not self.path:
            raise InputError("path is empty: name a scene, such as 'default', or a scene file")


@dataclass(frozen=True)
class RgbdPlayerParameters(CameraOutputParameters):
    """Node `rgbd_player`."""

    path: str = parameter("", "recorded folder: color/, depth/, pose/, camera.json")
    camera: str = parameter("", "camera name: topics <name>/image, ...; '' has the bare names")
    frames: tuple[int, ...] = parameter((-1,), "numbers of the frames to play, oldest first; [-1]: all")
    rate_hz: float = parameter(0.0, "frames a second; 0: as recorded", bounds=(0.0, 120.0))
    speed: float = parameter(1.0, "factor on the recorded speed", bounds=(0.01, 100.0))
    loop: bool = parameter(False, "play again from the start; a simulated clock jumps back then")


NODES: dict[str, type[NodeParameters]] = {
    "view_accumulator": ViewAccumulatorParameters,
    "reconstruction": ReconstructionParameters,
    "camera_sim": CameraSimParameters,
    "rgbd_player": RgbdPlayerParameters,
}
"""Node name -> its parameters, in the order of `config/perception.yaml`."""
